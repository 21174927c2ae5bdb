//! The policies of repositories and registries: whether a text is a policy at all.
//!
//! What it leaves to others: what the statements mean. Policies are kept and returned, not
//! evaluated.

use serde_json::{Map, Value};

/// What is wrong with a policy's text, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyTextError(String);

/// Refuses a text that is no resource policy.
pub fn check(text: &str) -> Result<(), PolicyTextError> {
    let wrong = |what: &str| Err(PolicyTextError(what.to_owned()));
    let document: Value =
        serde_json::from_str(text).map_err(|error| PolicyTextError(error.to_string()))?;
    let Value::Object(document) = document else {
        return wrong("a policy is a JSON object");
    };
    for (name, value) in &document {
        match (name.as_str(), value) {
            ("Version", Value::String(version))
                if version == "2012-10-17" || version == "2008-10-17" => {}
            ("Version", _) => return wrong("Version must be '2012-10-17' or '2008-10-17'"),
            ("Id", Value::String(_)) | ("Statement", _) => {}
            (name, _) => return wrong(&format!("a policy has no member '{name}' of this kind")),
        }
    }
    let statements = match document.get("Statement") {
        Some(Value::Array(statements)) if !statements.is_empty() => statements.as_slice(),
        Some(statement @ Value::Object(_)) => std::slice::from_ref(statement),
        _ => return wrong("Statement must be a statement or a list of them"),
    };
    for (number, statement) in statements.iter().enumerate() {
        let statement = statement
            .as_object()
            .ok_or("it is not an object".to_owned());
        statement.and_then(check_statement).map_err(|what| {
            PolicyTextError(format!("statement {} of the policy: {what}", number + 1))
        })?;
    }
    Ok(())
}

fn check_statement(statement: &Map<String, Value>) -> Result<(), String> {
    match statement.get("Effect").and_then(Value::as_str) {
        Some("Allow" | "Deny") => {}
        _ => return Err("Effect must be 'Allow' or 'Deny'".to_owned()),
    }
    for (one, other) in [("Principal", "NotPrincipal"), ("Action", "NotAction")] {
        if statement.contains_key(one) == statement.contains_key(other) {
            return Err(format!("it needs either {one} or {other}"));
        }
    }
    let actions = statement.get("Action").or(statement.get("NotAction"));
    let actions = match actions {
        Some(Value::Array(list)) if !list.is_empty() => list.as_slice(),
        Some(action) => std::slice::from_ref(action),
        None => &[],
    };
    for action in actions {
        let text = action.as_str().unwrap_or_default();
        if text != "*" && !text.to_ascii_lowercase().starts_with("ecr:") {
            return Err(format!("{action} is not an action of ecr"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_policy_is_refused_by_what_it_lacks() {
        let statement = r#"{"Effect":"Allow","Principal":"*","Action":["ecr:BatchGetImage"]}"#;
        let policy =
            |statement: &str| format!(r#"{{"Version":"2012-10-17","Statement":{statement}}}"#);
        assert_eq!(check(&policy(statement)), Ok(()));
        assert_eq!(
            check(&policy(&format!("[{statement},{statement}]"))),
            Ok(())
        );
        for (text, expected) in [
            ("", "EOF"),
            ("[]", "JSON object"),
            ("{}", "Statement"),
            (r#"{"Version":"2","Statement":[]}"#, "Version"),
            (r#"{"Statements":[]}"#, "'Statements'"),
            (&policy("[]"), "Statement"),
            (&policy("[1]"), "statement 1"),
            (&policy(r#"[{"Principal":"*","Action":"ecr:*"}]"#), "Effect"),
            (
                &policy(r#"{"Effect":"Allow","Action":"ecr:*"}"#),
                "Principal",
            ),
            (&policy(r#"{"Effect":"Deny","Principal":"*"}"#), "Action"),
            (
                &policy(r#"{"Effect":"Deny","Principal":"*","Action":"s3:GetObject"}"#),
                "s3:GetObject",
            ),
        ] {
            let error = check(text).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{text}: {error:?} lacks {expected:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = check(&text);
        }
    }
}
