//! What makes a policy document well formed, in AWS's words.
//!
//! A document is kept and returned byte for byte as it was given; this module
//! only decides whether it is accepted. It checks the grammar and the rules that
//! depend on where the document stands (a trust policy names principals and no
//! resources, an identity policy the other way round). It does not know which
//! actions, condition operators or resource types exist, and evaluates nothing.

use std::collections::BTreeSet;

use crate::model::json::{Json, parse};

/// Where a document stands, which decides what it may and must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// Who may assume a role.
    Trust,
    /// A managed policy's version.
    Managed,
    /// A policy embedded in one role.
    Inline,
}

/// Why a document is refused: the message of MalformedPolicyDocument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedDocument(pub String);

fn malformed(message: impl Into<String>) -> MalformedDocument {
    MalformedDocument(message.into())
}

const SYNTAX: &str = "Syntax errors in policy.";
const STATEMENT_MEMBERS: [&str; 9] = [
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
];
/// Everything that a role's trust policy may allow.
const TRUST_ACTIONS: [&str; 6] = [
    "sts:assumerole",
    "sts:assumerolewithsaml",
    "sts:assumerolewithwebidentity",
    "sts:tagsession",
    "sts:setsourceidentity",
    "sts:setcontext",
];

/// Accepts a well-formed document and says what is wrong with any other.
pub fn validate(kind: DocumentKind, document: &str) -> Result<(), MalformedDocument> {
    let root = parse(document).map_err(|_| malformed("This policy contains invalid Json"))?;
    let Json::Object(members) = root else {
        return Err(malformed(SYNTAX));
    };
    let mut statements = None;
    let mut version = None;
    for (name, value) in &members {
        match (name.as_str(), value) {
            ("Version", Json::String(text)) => version = Some(text.as_str()),
            ("Id", Json::String(_)) => {}
            ("Statement", Json::Array(items)) => statements = Some(items.as_slice()),
            ("Statement", Json::Object(_)) => statements = Some(std::slice::from_ref(value)),
            _ => return Err(malformed(SYNTAX)),
        }
    }
    match (kind, version) {
        (_, Some("2012-10-17")) => {}
        // Trust and inline policies from the first years of IAM are still in use.
        (DocumentKind::Trust | DocumentKind::Inline, Some("2008-10-17") | None) => {}
        (DocumentKind::Managed, Some("2008-10-17") | None) => {
            return Err(malformed(
                "Policy document must be version 2012-10-17 or greater.",
            ));
        }
        (_, Some(_)) => return Err(malformed(SYNTAX)),
    }
    let statements = statements.ok_or_else(|| malformed(SYNTAX))?;
    if statements.is_empty() {
        return Err(malformed(SYNTAX));
    }
    let mut sids = BTreeSet::new();
    for statement in statements {
        check_statement(kind, statement, &mut sids)?;
    }
    Ok(())
}

fn check_statement<'a>(
    kind: DocumentKind,
    statement: &'a Json,
    sids: &mut BTreeSet<&'a str>,
) -> Result<(), MalformedDocument> {
    let Json::Object(members) = statement else {
        return Err(malformed(SYNTAX));
    };
    if members
        .iter()
        .any(|(name, _)| !STATEMENT_MEMBERS.contains(&name.as_str()))
    {
        return Err(malformed(SYNTAX));
    }
    let member = |name: &str| members.iter().find(|(n, _)| n == name).map(|(_, v)| v);

    match member("Effect") {
        Some(Json::String(effect)) if effect == "Allow" || effect == "Deny" => {}
        _ => return Err(malformed(SYNTAX)),
    }
    if let Some(sid) = member("Sid") {
        let Json::String(sid) = sid else {
            return Err(malformed(SYNTAX));
        };
        if kind != DocumentKind::Trust && !sid.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(malformed(
                "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the \
                 regular expression [0-9A-Za-z]*",
            ));
        }
        if !sid.is_empty() && !sids.insert(sid) {
            return Err(malformed(
                "Statement IDs (SID) in a single policy must be unique.",
            ));
        }
    }
    check_actions(kind, member("Action"), member("NotAction"))?;
    match kind {
        DocumentKind::Trust => {
            if member("Resource").is_some() || member("NotResource").is_some() {
                return Err(malformed("Has prohibited field Resource"));
            }
            check_principal(member("Principal"), member("NotPrincipal"))?;
        }
        DocumentKind::Managed | DocumentKind::Inline => {
            if member("Principal").is_some() || member("NotPrincipal").is_some() {
                return Err(malformed("Policy document should not specify a principal."));
            }
            check_resources(member("Resource"), member("NotResource"))?;
        }
    }
    match member("Condition") {
        None => Ok(()),
        Some(condition) => check_condition(condition),
    }
}

/// One string, or a list of strings.
fn strings(value: &Json) -> Result<Vec<&str>, MalformedDocument> {
    match value {
        Json::String(one) => Ok(vec![one]),
        Json::Array(items) => items
            .iter()
            .map(|item| match item {
                Json::String(text) => Ok(text.as_str()),
                _ => Err(malformed(SYNTAX)),
            })
            .collect(),
        _ => Err(malformed(SYNTAX)),
    }
}

fn check_actions(
    kind: DocumentKind,
    action: Option<&Json>,
    not_action: Option<&Json>,
) -> Result<(), MalformedDocument> {
    let value = match (action, not_action) {
        (Some(_), Some(_)) => return Err(malformed(SYNTAX)),
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => return Err(malformed("Policy statement must contain actions.")),
    };
    let actions = strings(value)?;
    if actions.is_empty() {
        return Err(malformed("Policy statement must contain actions."));
    }
    for action in actions {
        if kind == DocumentKind::Trust {
            let lower = action.to_ascii_lowercase();
            let allowed = lower.starts_with("sts:") && lower.contains('*')
                || TRUST_ACTIONS.contains(&lower.as_str());
            if !allowed {
                return Err(malformed(
                    "AssumeRole policy may only specify STS AssumeRole actions.",
                ));
            }
            continue;
        }
        if action == "*" {
            continue;
        }
        let Some((vendor, name)) = action.split_once(':') else {
            return Err(malformed(
                "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
            ));
        };
        if vendor.is_empty()
            || !vendor
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err(malformed(format!("Vendor {vendor} is not valid")));
        }
        if name.is_empty() || name.contains(':') {
            return Err(malformed("Actions/Condition can contain only one colon."));
        }
    }
    Ok(())
}

fn check_resources(
    resource: Option<&Json>,
    not_resource: Option<&Json>,
) -> Result<(), MalformedDocument> {
    let value = match (resource, not_resource) {
        (Some(_), Some(_)) => return Err(malformed(SYNTAX)),
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => return Err(malformed("Policy statement must contain resources.")),
    };
    let resources = strings(value)?;
    if resources.is_empty() {
        return Err(malformed("Policy statement must contain resources."));
    }
    for resource in resources {
        if resource == "*" {
            continue;
        }
        // A resource has the six parts of an ARN; wildcards may stand in any of them.
        let mut parts = resource.splitn(6, ':');
        if parts.next() != Some("arn") || resource.splitn(6, ':').count() < 6 {
            return Err(malformed(format!(
                "Resource {resource} must be in ARN format or \"*\"."
            )));
        }
    }
    Ok(())
}

fn check_principal(
    principal: Option<&Json>,
    not_principal: Option<&Json>,
) -> Result<(), MalformedDocument> {
    let value = match (principal, not_principal) {
        (Some(_), Some(_)) => return Err(malformed(SYNTAX)),
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => return Err(malformed("Missing required field Principal")),
    };
    match value {
        Json::String(everyone) if everyone == "*" => Ok(()),
        Json::String(other) => Err(malformed(format!("Invalid principal in policy: {other}"))),
        Json::Object(kinds) => {
            if kinds.is_empty() {
                return Err(malformed(
                    "Missing required field Principal cannot be empty!",
                ));
            }
            for (kind, names) in kinds {
                if !["AWS", "Service", "Federated", "CanonicalUser"].contains(&kind.as_str()) {
                    return Err(malformed(format!(
                        "Invalid principal in policy: \"{kind}\""
                    )));
                }
                for name in strings(names)? {
                    check_principal_name(kind, name)?;
                }
            }
            Ok(())
        }
        _ => Err(malformed(SYNTAX)),
    }
}

fn check_principal_name(kind: &str, name: &str) -> Result<(), MalformedDocument> {
    let valid = match kind {
        "Service" => name.contains('.') && !name.contains(|c: char| c.is_whitespace() || c == '*'),
        "AWS" => {
            name == "*"
                || name.starts_with("arn:")
                || name.len() == 12 && name.bytes().all(|b| b.is_ascii_digit())
                || name.starts_with("AROA")
                || name.starts_with("AIDA")
        }
        _ => !name.is_empty(),
    };
    if valid {
        Ok(())
    } else {
        let kind = if kind == "Service" { "SERVICE" } else { kind };
        Err(malformed(format!(
            "Invalid principal in policy: \"{kind}\":\"{name}\""
        )))
    }
}

fn check_condition(condition: &Json) -> Result<(), MalformedDocument> {
    let Json::Object(operators) = condition else {
        return Err(malformed(SYNTAX));
    };
    for (_, keys) in operators {
        let Json::Object(keys) = keys else {
            return Err(malformed(SYNTAX));
        };
        for (_, values) in keys {
            let values = match values {
                Json::Array(items) => items.as_slice(),
                one => std::slice::from_ref(one),
            };
            let scalar = |v: &Json| matches!(v, Json::String(_) | Json::Number(_) | Json::Bool(_));
            if !values.iter().all(scalar) {
                return Err(malformed(SYNTAX));
            }
        }
    }
    Ok(())
}

/// The length AWS measures a document by: white space does not count.
pub fn counted_len(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}

/// Percent-encodes as RFC 3986 has it: the form in which IAM returns documents.
pub fn url_encode(document: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(document.len() * 2);
    for byte in document.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push('%');
            encoded.push(HEX[usize::from(byte >> 4)] as char);
            encoded.push(HEX[usize::from(byte & 15)] as char);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
        "Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    const IDENTITY: &str = r#"{"Version":"2012-10-17","Statement":{"Sid":"One","Effect":"Allow",
        "Action":["logs:PutLogEvents","s3:*"],"Resource":"arn:aws:s3:::bucket/*",
        "Condition":{"StringEquals":{"aws:SourceAccount":"000000000000"}}}}"#;

    fn refused(kind: DocumentKind, document: &str) -> String {
        validate(kind, document)
            .expect_err(&format!("{document} must be refused"))
            .0
    }

    #[test]
    fn documents_people_write_are_accepted() {
        validate(DocumentKind::Trust, TRUST).unwrap();
        validate(DocumentKind::Managed, IDENTITY).unwrap();
        validate(DocumentKind::Inline, IDENTITY).unwrap();
        validate(
            DocumentKind::Trust,
            r#"{"Version":"2008-10-17","Statement":[{"Sid":"a b","Effect":"Allow","Principal":{"AWS":["arn:aws:iam::000000000000:root","000000000000"]},"Action":["sts:AssumeRole","sts:TagSession"]}]}"#,
        )
        .unwrap();
    }

    #[test]
    fn each_fault_has_the_message_of_aws() {
        use DocumentKind::{Inline, Managed, Trust};
        for (kind, document, message) in [
            (Trust, "", "This policy contains invalid Json"),
            (Trust, "{", "This policy contains invalid Json"),
            (Trust, "{} x", "This policy contains invalid Json"),
            (Trust, "[]", SYNTAX),
            (Trust, "{}", SYNTAX),
            (Managed, r#"{"Version":"2012-10-17"}"#, SYNTAX),
            (
                Managed,
                r#"{"Version":"2012-10-17","Statement":[]}"#,
                SYNTAX,
            ),
            (
                Managed,
                r#"{"Version":"2012-10-17","Extra":1,"Statement":[]}"#,
                SYNTAX,
            ),
            (
                Managed,
                r#"{"Version":"2020-01-01","Statement":[]}"#,
                SYNTAX,
            ),
            (
                Managed,
                r#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
                "Policy document must be version 2012-10-17 or greater.",
            ),
            (
                Managed,
                r#"{"Version":"2012-10-17","Statement":[{"Action":"*","Resource":"*"}]}"#,
                SYNTAX,
            ),
            (
                Managed,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"allow","Action":"*","Resource":"*"}]}"#,
                SYNTAX,
            ),
            (
                Inline,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*"}]}"#,
                "Policy statement must contain actions.",
            ),
            (
                Inline,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:Get"}]}"#,
                "Policy statement must contain resources.",
            ),
            (
                Inline,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"get","Resource":"*"}]}"#,
                "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
            ),
            (
                Inline,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"bucket"}]}"#,
                "Resource bucket must be in ARN format or \"*\".",
            ),
            (
                Inline,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}]}"#,
                "Policy document should not specify a principal.",
            ),
            (
                Trust,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs.amazonaws.com"},"Action":"sts:AssumeRole","Resource":"*"}]}"#,
                "Has prohibited field Resource",
            ),
            (
                Trust,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}"#,
                "Missing required field Principal",
            ),
            (
                Trust,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs"},"Action":"sts:AssumeRole"}]}"#,
                "Invalid principal in policy: \"SERVICE\":\"ecs\"",
            ),
            (
                Trust,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs.amazonaws.com"},"Action":"s3:GetObject"}]}"#,
                "AssumeRole policy may only specify STS AssumeRole actions.",
            ),
            (
                Inline,
                r#"{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","Action":"s3:*","Resource":"*"},{"Sid":"a","Effect":"Deny","Action":"s3:*","Resource":"*"}]}"#,
                "Statement IDs (SID) in a single policy must be unique.",
            ),
            // The same member twice is a mistake that a map would swallow.
            (
                Inline,
                r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Effect":"Deny","Action":"s3:*","Resource":"*"}]}"#,
                "This policy contains invalid Json",
            ),
        ] {
            assert_eq!(refused(kind, document), message, "{document}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow() {
        let document = "[".repeat(100_000);
        assert_eq!(
            refused(DocumentKind::Trust, &document),
            "This policy contains invalid Json"
        );
    }

    #[test]
    fn documents_are_returned_percent_encoded() {
        assert_eq!(
            url_encode(r#"{"a": "b/ü~"}"#),
            "%7B%22a%22%3A%20%22b%2F%C3%BC~%22%7D"
        );
        assert_eq!(counted_len("{ \"a\":\n 1 }"), 7);
    }
}
