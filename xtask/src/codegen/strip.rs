//! Stripping a model: what is committed of it, and what is not.
//!
//! Kept: names, types, members, required members, enum values, limits, patterns, error codes,
//! and how values lie on the wire. Left out: every documentation text, examples, endpoint
//! rules, deprecation notes, and shapes that no built operation reaches. Operations that are
//! not built stay as names, so that coverage can be told.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::ServiceChoice;

const METADATA: &[&str] = &[
    "apiVersion",
    "awsQueryCompatible",
    "endpointPrefix",
    "jsonVersion",
    "protocol",
    "protocols",
    "serviceFullName",
    "serviceId",
    "signingName",
    "targetPrefix",
    "xmlNamespace",
];
const OPERATION: &[&str] = &["name", "http", "idempotent", "readonly"];
const SHAPE: &[&str] = &[
    "type",
    "required",
    "enum",
    "min",
    "max",
    "pattern",
    "sensitive",
    "exception",
    "error",
    "fault",
    "union",
    "document",
    "eventstream",
    "flattened",
    "locationName",
    "timestampFormat",
    "xmlNamespace",
    "payload",
    "wrapper",
];
const MEMBER: &[&str] = &[
    "shape",
    "location",
    "locationName",
    "queryName",
    "flattened",
    "xmlAttribute",
    "xmlNamespace",
    "timestampFormat",
    "idempotencyToken",
    "sensitive",
];

pub fn strip(full: &Value, choice: &ServiceChoice) -> anyhow::Result<Value> {
    let operations = full["operations"].as_object().context("no operations")?;
    let shapes = full["shapes"].as_object().context("no shapes")?;
    let mut built = Map::new();
    let mut wanted = BTreeSet::new();
    for name in &choice.operations {
        let operation = operations
            .get(name)
            .with_context(|| format!("the model has no operation {name}"))?;
        if built
            .insert(name.clone(), strip_operation(operation, &mut wanted)?)
            .is_some()
        {
            bail!("operation {name} is listed twice");
        }
    }
    let not_built: Vec<&String> = operations
        .keys()
        .filter(|name| !built.contains_key(*name))
        .collect();
    let mut kept = Map::new();
    while let Some(name) = wanted.pop_first() {
        if kept.contains_key(&name) {
            continue;
        }
        let shape = shapes
            .get(&name)
            .with_context(|| format!("the model has no shape {name}"))?;
        kept.insert(name, strip_shape(shape, &mut wanted)?);
    }
    Ok(sorted(json!({
        "metadata": pick(&full["metadata"], METADATA),
        "operations": built,
        "notBuilt": not_built,
        "shapes": kept,
    })))
}

fn strip_operation(operation: &Value, wanted: &mut BTreeSet<String>) -> anyhow::Result<Value> {
    let mut kept = pick(operation, OPERATION);
    for side in ["input", "output"] {
        if let Some(of) = operation.get(side) {
            wanted.insert(shape_name(of)?);
            kept.insert(
                side.to_owned(),
                Value::Object(pick(
                    of,
                    &["shape", "resultWrapper", "locationName", "xmlNamespace"],
                )),
            );
        }
    }
    let mut errors = Vec::new();
    for error in operation["errors"].as_array().into_iter().flatten() {
        let name = shape_name(error)?;
        wanted.insert(name.clone());
        errors.push(Value::String(name));
    }
    kept.insert("errors".to_owned(), Value::Array(errors));
    Ok(Value::Object(kept))
}

fn strip_shape(shape: &Value, wanted: &mut BTreeSet<String>) -> anyhow::Result<Value> {
    let mut kept = pick(shape, SHAPE);
    for place in ["member", "key", "value"] {
        if let Some(member) = shape.get(place) {
            wanted.insert(shape_name(member)?);
            kept.insert(place.to_owned(), Value::Object(pick(member, MEMBER)));
        }
    }
    if let Some(members) = shape.get("members").and_then(Value::as_object) {
        let mut kept_members = Map::new();
        for (name, member) in members {
            wanted.insert(shape_name(member)?);
            kept_members.insert(name.clone(), Value::Object(pick(member, MEMBER)));
        }
        kept.insert("members".to_owned(), Value::Object(kept_members));
    }
    Ok(Value::Object(kept))
}

fn shape_name(of: &Value) -> anyhow::Result<String> {
    Ok(of["shape"]
        .as_str()
        .context("a reference without a shape")?
        .to_owned())
}

fn pick(from: &Value, names: &[&str]) -> Map<String, Value> {
    names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), from.get(*name)?.clone())))
        .collect()
}

/// Keys in alphabetical order, whichever map `serde_json` was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            entries.sort_by(|left, right| left.0.cmp(&right.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::strip;
    use crate::codegen::ServiceChoice;

    fn choice(operations: &[&str]) -> ServiceChoice {
        ServiceChoice {
            botocore: "bakery".to_owned(),
            trait_name: "Bakery".to_owned(),
            validation: "own".to_owned(),
            operations: operations.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn documentation_and_unreached_shapes_are_left_out() {
        let full = json!({
            "documentation": "long",
            "metadata": {"apiVersion": "1", "uid": "bakery-1"},
            "operations": {
                "Bake": {"name": "Bake", "input": {"shape": "Dough"}, "documentation": "long"},
                "Eat": {"name": "Eat", "input": {"shape": "Bread"}},
            },
            "shapes": {
                "Dough": {"type": "structure", "documentation": "long", "members": {
                    "flour": {"shape": "Text", "documentation": "long", "locationName": "Flour"},
                }},
                "Text": {"type": "string", "max": 9},
                "Bread": {"type": "structure", "members": {}},
            },
        });
        let stripped = strip(&full, &choice(&["Bake"])).expect("stripped");
        let expected = json!({
            "metadata": {"apiVersion": "1"},
            "notBuilt": ["Eat"],
            "operations": {"Bake": {"name": "Bake", "input": {"shape": "Dough"}, "errors": []}},
            "shapes": {
                "Dough": {"type": "structure", "members": {
                    "flour": {"shape": "Text", "locationName": "Flour"},
                }},
                "Text": {"type": "string", "max": 9},
            },
        });
        assert_eq!(stripped, expected);
        assert!(strip(&full, &choice(&["Fly"])).is_err());
    }
}
