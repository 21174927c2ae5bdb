//! botocore's protocol cases through the codecs that the services use.
//!
//! An input case is a request that botocore writes: our reader must find the parameters it was
//! written from. An output case is an answer that botocore reads: our writer must give an
//! equivalent one for the same result. `not-applicable.json` lists the cases that say nothing
//! about a server, each with its reason; a listed case that passes fails the test as well.

mod model;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use gantry_api::document::Document;
use gantry_api::protocol::{Protocol, json, query};
use gantry_api::shape::Structure;
use gantry_api::{ApiError, OperationModel};
use serde_json::Value;

use model::Suite;

const PROTOCOLS: [&str; 4] = ["json", "json_1_0", "json_1_0-query-compatible", "query"];
const REQUEST_ID: &str = "foo-id";

#[test]
fn inputs_are_read_as_they_were_meant() {
    run("input", check_input);
}

#[test]
fn outputs_are_written_as_clients_read_them() {
    run("output", check_output);
}

fn run(side: &str, check: fn(&Suite<'_>, &Value) -> Result<(), String>) {
    let listed: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_value(load("not-applicable")).expect("not-applicable.json");
    let listed = &listed[side];
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut passed = 0;
    for protocol in PROTOCOLS {
        for suite in load(&format!("{side}/{protocol}"))
            .as_array()
            .expect("suites")
        {
            let suite = Suite::new(suite);
            for case in suite.cases() {
                let id = case["id"].as_str().expect("id");
                let is_listed = listed.contains_key(id);
                seen.insert(id.to_owned());
                match check(&suite, case) {
                    Ok(()) if is_listed => {
                        wrong.push(format!("{id}: passes now; take it off the list"));
                    }
                    Err(why) if !is_listed => wrong.push(format!("{id}: {why}")),
                    Ok(()) => passed += 1,
                    Err(_) => {}
                }
            }
        }
    }
    for id in listed.keys().filter(|id| !seen.contains(*id)) {
        wrong.push(format!("{id}: listed, but no such case"));
    }
    assert!(
        wrong.is_empty(),
        "{passed} passed, {} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // Guards against fixtures that were not found or not understood.
    assert!(passed > 75, "only {passed} cases passed");
}

fn load(name: &str) -> Value {
    let path = format!("{}/tests/protocols/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn protocol_of(suite: &Suite<'_>) -> &'static dyn Protocol {
    match (suite.model.json_version, suite.model.protocols) {
        (_, ["query", ..]) => &query::QUERY,
        (Some("1.0"), _) => &json::JSON_1_0,
        _ => &json::JSON_1_1,
    }
}

fn check_input(suite: &Suite<'_>, case: &Value) -> Result<(), String> {
    let serialized = &case["serialized"];
    let mut request = http::Request::builder()
        .method(serialized["method"].as_str().unwrap_or("POST"))
        .uri(serialized["uri"].as_str().unwrap_or("/"));
    for (name, value) in serialized["headers"].as_object().into_iter().flatten() {
        request = request.header(name, value.as_str().unwrap_or_default());
    }
    let (parts, ()) = request
        .body(())
        .map_err(|error| error.to_string())?
        .into_parts();
    let body = Bytes::from(serialized["body"].as_str().unwrap_or_default().to_owned());
    if let Some(target) = suite.model.target_prefix {
        let operation = case["given"]["name"].as_str().unwrap_or_default();
        let header = parts
            .headers
            .get("x-amz-target")
            .and_then(|value| value.to_str().ok());
        // Some cases leave the headers out that they are not about.
        if header.is_some() && header != Some(format!("{target}.{operation}").as_str()) {
            return Err(format!("target is {header:?}"));
        }
    }
    let operation = suite.operation(&case["given"]);
    let mut input = Document::new(operation.input);
    protocol_of(suite)
        .read_request(&operation, &parts, &body, &mut input)
        .map_err(|error| format!("not read: {error}"))?;
    let expected = model::document(operation.input, &case["params"])?;
    same(&expected, &input)
}

/// Documents are compared as the JSON that stands for them, where NaN equals itself.
fn same(expected: &Document, found: &Document) -> Result<(), String> {
    let (expected, found) = (json::write(expected), json::write(found));
    if expected == found {
        return Ok(());
    }
    Err(format!(
        "expected {}, found {}",
        String::from_utf8_lossy(&expected),
        String::from_utf8_lossy(&found)
    ))
}

fn check_output(suite: &Suite<'_>, case: &Value) -> Result<(), String> {
    let protocol = protocol_of(suite);
    let operation: OperationModel = suite.operation(&case["given"]);
    let response = &case["response"];
    let request_id = response["headers"]["X-Amzn-Requestid"]
        .as_str()
        .unwrap_or(REQUEST_ID);
    let reply = if case.get("error").is_some() {
        let name = case["given"]["errors"][0]["shape"]
            .as_str()
            .unwrap_or_default();
        let exception = model::document(suite.schema(name), &case["error"])?;
        let error = ApiError::modelled(Arc::new(exception) as Arc<dyn Structure>);
        protocol.write_error(Some(suite.model), &error, request_id)
    } else {
        let output = model::document(operation.output, &case["result"])?;
        protocol.write_response(suite.model, &operation, &output, request_id)
    };
    let status = response["status_code"].as_u64().unwrap_or(200);
    if u64::from(reply.status) != status {
        return Err(format!("status {} instead of {status}", reply.status));
    }
    for (name, value) in response["headers"].as_object().into_iter().flatten() {
        if reply.header(name) != value.as_str() {
            return Err(format!(
                "header {name} is {:?} instead of {value}",
                reply.header(name)
            ));
        }
    }
    let found = String::from_utf8_lossy(&reply.body).into_owned();
    let expected = response["body"].as_str().unwrap_or_default();
    if suite.model.protocols == ["query"] {
        xml::same(expected, &found)
    } else {
        same_json(expected, &found)
    }
}

fn same_json(expected: &str, found: &str) -> Result<(), String> {
    let parse = |text: &str| -> Result<Value, String> {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(text)
            .map(plain_numbers)
            .map_err(|error| format!("{error}: {text}"))
    };
    let (wanted, got) = (strip_namespace(parse(expected)?), parse(found)?);
    if wanted == got {
        Ok(())
    } else {
        Err(format!("expected {wanted}, found {got}"))
    }
}

/// 1 and 1.0 are one number.
fn plain_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(values) => Value::Array(values.into_iter().map(plain_numbers).collect()),
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, plain_numbers(value)))
                .collect(),
        ),
        other => other,
    }
}

/// Clients drop the namespace and address of an error's type; AWS's services vary.
fn strip_namespace(mut value: Value) -> Value {
    if let Some(kind) = value.get_mut("__type")
        && let Some(text) = kind.as_str()
    {
        let text = text.split(':').next().unwrap_or(text);
        let text = text.rsplit('#').next().unwrap_or(text).to_owned();
        *kind = Value::String(text);
    }
    value
}
