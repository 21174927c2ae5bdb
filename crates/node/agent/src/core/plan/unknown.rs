//! What came and nobody here knows: refused by name where it asks for something.

use std::collections::BTreeMap;

use serde_json::Value;

/// The first member that asks for something. Nulls, empty lists and `false` ask for nothing.
pub(super) fn first_meaningful(unknown: &BTreeMap<String, Value>) -> Option<&str> {
    unknown
        .iter()
        .find(|(_, value)| asks_for_something(value))
        .map(|(member, _)| member.as_str())
}

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(asks_for_something),
        Value::Object(members) => members.values().any(asks_for_something),
    }
}

pub(super) fn not_built(what: &str, member: &str, container: Option<&str>) -> String {
    match container {
        Some(name) => format!("container '{name}': {what} '{member}' is not built in this agent"),
        None => format!("{what} '{member}' is not built in this agent"),
    }
}
