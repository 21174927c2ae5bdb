//! From AWS's names to Rust's.

use heck::{ToShoutySnakeCase, ToSnakeCase, ToUpperCamelCase};

/// A type keeps the name of its shape; only the first letter is made large.
pub fn type_name(shape: &str) -> String {
    let mut letters = shape.chars();
    match letters.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + letters.as_str(),
        None => String::new(),
    }
}

pub fn field(member: &str) -> String {
    let name = member.to_snake_case();
    if is_keyword(&name) {
        format!("r#{name}")
    } else {
        name
    }
}

pub fn function(operation: &str) -> String {
    field(operation)
}

pub fn constant(shape: &str) -> String {
    shape.to_shouty_snake_case()
}

/// A variant for an enum's value: `EC2` → `Ec2`, `json-file` → `JsonFile`.
pub fn variant(value: &str) -> String {
    let plain: String = value
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                ' '
            }
        })
        .collect();
    let name = plain.to_upper_camel_case();
    match name.as_str() {
        "" => "Empty".to_owned(),
        // The variant that keeps unlisted values has this name.
        "Unknown" => "UnknownValue".to_owned(),
        "Self" => "SelfValue".to_owned(),
        _ if name.starts_with(|first: char| first.is_ascii_digit()) => format!("V{name}"),
        _ => name,
    }
}

fn is_keyword(name: &str) -> bool {
    const KEYWORDS: &[&str] = &[
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do",
        "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in",
        "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
        "return", "static", "struct", "trait", "true", "try", "type", "typeof", "unsafe",
        "unsized", "use", "virtual", "where", "while", "yield",
    ];
    KEYWORDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::{constant, field, type_name, variant};

    #[test]
    fn names_become_rusts_own() {
        assert_eq!(field("ec2InstanceId"), "ec2_instance_id");
        assert_eq!(field("PolicyARN"), "policy_arn");
        assert_eq!(field("type"), "r#type");
        assert_eq!(constant("RunTaskRequest"), "RUN_TASK_REQUEST");
        assert_eq!(type_name("statusType"), "StatusType");
    }

    #[test]
    fn every_value_becomes_a_variant() {
        let values = [
            "EC2",
            "awsvpc",
            "json-file",
            "DELETE_IN_PROGRESS",
            "net.core",
            "UNKNOWN",
            "2.0",
            "",
        ];
        let variants = values.map(variant);
        assert_eq!(
            variants,
            [
                "Ec2",
                "Awsvpc",
                "JsonFile",
                "DeleteInProgress",
                "NetCore",
                "UnknownValue",
                "V20",
                "Empty"
            ]
        );
    }
}
