//! Whether a role's trust policy lets a caller in.
//!
//! What always holds: a deny outweighs every allow. **What cannot be decided here lets nobody in**: an operator, a
//! condition key or a policy variable that is not known makes its statement allow nothing, and deny if it is
//! one that denies. For whoever a provider vouches for, only a statement that names the provider itself allows; `*` is
//! everybody with a key and no provider.
//! What it leaves to others: the truth of what the request claims, and services, which sign nothing (`docs/security.md`).

mod conditions;

use std::collections::BTreeMap;

use crate::model::json::{Json, parse};
use conditions::{conditions, like};

/// What a policy is asked about.
#[derive(Clone, Debug)]
pub struct TrustRequest {
    pub caller: Caller,
    /// Keys beside the usual ones of which it is known that a request without them has none, in lower case.
    pub told: Vec<String>,
    /// Values of condition keys, by their names in lower case.
    pub values: BTreeMap<String, Vec<String>>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Whoever the provider of this ARN vouches for.
    Federated(String),
    /// Whoever has a key: every ARN that a policy may name it by, and its account.
    Key { names: Vec<String>, account: String },
}

impl Caller {
    /// Whether a `Principal` names it.
    fn is_named(&self, principal: &Json) -> bool {
        match (self, principal) {
            (Self::Key { .. }, Json::String(name)) => name == "*",
            (Self::Federated(provider), Json::Object(kinds)) => {
                kinds.iter().any(|(kind, names)| {
                    kind == "Federated" && texts(names).contains(&provider.as_str())
                })
            }
            (Self::Key { names, account }, Json::Object(kinds)) => {
                let root = format!("arn:aws:iam::{account}:root");
                let names_it = |name: &str| {
                    name == "*"
                        || name == account
                        || name == root
                        || names.iter().any(|own| own == name)
                };
                let of_aws = kinds.iter().filter(|(kind, _)| kind == "AWS");
                of_aws.flat_map(|(_, names)| texts(names)).any(names_it)
            }
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// Nobody here can tell.
    Unknown,
}

use Answer::{No, Unknown, Yes};

impl Answer {
    fn of(holds: bool) -> Self {
        if holds { Yes } else { No }
    }

    /// Both must hold.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (No, _) | (_, No) => No,
            (Yes, Yes) => Yes,
            _ => Unknown,
        }
    }
}

/// Whether `document` lets the caller do `action` (`sts:AssumeRole`).
pub fn allows(document: &str, action: &str, request: &TrustRequest) -> bool {
    let Ok(Json::Object(members)) = parse(document) else {
        return false;
    };
    let statements = match members.iter().find(|(name, _)| name == "Statement") {
        Some((_, Json::Array(items))) => items.as_slice(),
        Some((_, one)) => std::slice::from_ref(one),
        None => return false,
    };
    let mut allowed = false;
    for statement in statements {
        let Json::Object(members) = statement else {
            return false;
        };
        let member = |name: &str| members.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let denies = member("Effect") != Some(&Json::String("Allow".to_owned()));
        let applies = principal(member("Principal"), member("NotPrincipal"), denies, request)
            .and(acts(member("Action"), member("NotAction"), action))
            .and(conditions(member("Condition"), request));
        match (denies, applies) {
            (true, Yes | Unknown) => return false,
            (false, Yes) => allowed = true,
            _ => {}
        }
    }
    allowed
}

fn principal(
    principal: Option<&Json>,
    not_principal: Option<&Json>,
    denies: bool,
    request: &TrustRequest,
) -> Answer {
    let everybody = |value: &Json| match value {
        Json::String(name) => name == "*",
        Json::Object(kinds) => kinds.iter().any(|(_, names)| texts(names).contains(&"*")),
        _ => false,
    };
    let named = |value: &Json| request.caller.is_named(value);
    match (principal, not_principal) {
        (Some(value), None) => Answer::of(named(value) || denies && everybody(value)),
        (None, Some(value)) => Answer::of(denies && !named(value)),
        _ => Unknown,
    }
}

fn acts(action: Option<&Json>, not_action: Option<&Json>, asked: &str) -> Answer {
    let asked = asked.to_ascii_lowercase();
    let names = |value: &Json| {
        let names = texts(value);
        names
            .iter()
            .any(|name| like(&name.to_ascii_lowercase(), &asked))
    };
    match (action, not_action) {
        (Some(value), None) => Answer::of(names(value)),
        (None, Some(value)) => Answer::of(!names(value)),
        _ => Unknown,
    }
}

fn texts(value: &Json) -> Vec<&str> {
    let items = match value {
        Json::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let texts = items.iter();
    texts
        .filter_map(|item| match item {
            Json::String(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str = "arn:aws:iam::000000000000:oidc-provider/i.example/x";
    pub(super) const ACTION: &str = "sts:AssumeRoleWithWebIdentity";

    pub(super) fn request() -> TrustRequest {
        let values = [
            ("i.example/x:aud", vec!["app"]),
            ("i.example/x:sub", vec!["system:serviceaccount:default:web"]),
            ("i.example/x:amr", vec!["one", "two"]),
            ("aws:currenttime", vec!["2026-01-01T00:00:00Z"]),
            ("sts:rolesessionname", vec!["me"]),
        ];
        let values = values.into_iter();
        TrustRequest {
            caller: Caller::Federated(PROVIDER.into()),
            told: ["aud", "sub", "email", "amr"]
                .map(|claim| format!("i.example/x:{claim}"))
                .to_vec(),
            values: values
                .map(|(key, values)| (key.into(), values.into_iter().map(str::to_owned).collect()))
                .collect(),
        }
    }

    pub(super) fn statement(
        effect: &str,
        principal: &str,
        action: &str,
        condition: &str,
    ) -> String {
        format!(
            r#"{{"Effect":"{effect}","Principal":{principal},"Action":{action},"Condition":{condition}}}"#
        )
    }

    pub(super) fn policy(statements: &[String]) -> String {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{}]}}"#,
            statements.join(",")
        )
    }

    pub(super) fn named() -> String {
        format!(r#"{{"Federated":"{PROVIDER}"}}"#)
    }

    #[test]
    fn only_the_provider_that_is_named_is_let_in() {
        let action = format!("\"{ACTION}\"");
        for (principal, expected) in [
            (named(), true),
            (format!(r#"{{"Federated":["x","{PROVIDER}"]}}"#), true),
            (format!(r#"{{"Federated":"{PROVIDER}/more"}}"#), false),
            (format!(r#"{{"AWS":"{PROVIDER}"}}"#), false),
            (r#"{"Federated":"*"}"#.into(), false),
            (r#"{"AWS":"*"}"#.into(), false),
            (r#""*""#.into(), false),
            (r#"{"Service":"ecs-tasks.amazonaws.com"}"#.into(), false),
        ] {
            let document = policy(&[statement("Allow", &principal, &action, "{}")]);
            assert_eq!(
                allows(&document, ACTION, &request()),
                expected,
                "{principal}"
            );
            let denial = statement("Deny", r#""*""#, r#""sts:*""#, "{}");
            let allow = statement("Allow", &named(), &action, "{}");
            assert!(!allows(&policy(&[allow, denial]), ACTION, &request()));
        }
        for (action, expected) in [
            (r#""sts:assumerolewithwebidentity""#, true),
            (r#"["sts:TagSession","sts:AssumeRoleWith*"]"#, true),
            (r#""sts:*""#, true),
            (r#""sts:AssumeRole""#, false),
            (r#""sts:AssumeRoleWithSAML""#, false),
        ] {
            let document = policy(&[statement("Allow", &named(), action, "{}")]);
            assert_eq!(allows(&document, ACTION, &request()), expected, "{action}");
        }
        for document in ["", "[]", "{}", r#"{"Statement":7}"#, r#"{"Statement":[7]}"#] {
            assert!(!allows(document, ACTION, &request()), "{document}");
        }
    }

    #[test]
    fn whoever_has_a_key_is_let_in_by_any_of_its_names() {
        let role = "arn:aws:iam::111122223333:role/team/ops";
        let session = "arn:aws:sts::111122223333:assumed-role/ops/me";
        let request = TrustRequest {
            caller: Caller::Key {
                names: vec![session.into(), role.into()],
                account: "111122223333".into(),
            },
            told: vec!["sts:externalid".into()],
            values: BTreeMap::new(),
        };
        let assume = r#""sts:AssumeRole""#;
        let lets_in =
            |statements: &[String]| allows(&policy(statements), "sts:AssumeRole", &request);
        for (principal, expected) in [
            (format!(r#"{{"AWS":"{role}"}}"#), true),
            (format!(r#"{{"AWS":["x","{session}"]}}"#), true),
            (r#"{"AWS":"111122223333"}"#.into(), true),
            (r#"{"AWS":"arn:aws:iam::111122223333:root"}"#.into(), true),
            (r#"{"AWS":"*"}"#.into(), true),
            (r#""*""#.into(), true),
            (
                r#"{"AWS":"arn:aws:iam::111122223333:role/ops"}"#.into(),
                false,
            ),
            (
                r#"{"AWS":"arn:aws:iam::111122223333:role/team/op*"}"#.into(),
                false,
            ),
            (r#"{"AWS":"arn:aws:iam::999999999999:root"}"#.into(), false),
            (r#"{"Service":"ecs-tasks.amazonaws.com"}"#.into(), false),
            (format!(r#"{{"Service":"{role}"}}"#), false),
            (format!(r#"{{"Federated":"{role}"}}"#), false),
        ] {
            let allow = statement("Allow", &principal, assume, "{}");
            assert_eq!(
                lets_in(std::slice::from_ref(&allow)),
                expected,
                "{principal}"
            );
            if expected {
                let deny = statement("Deny", &principal, assume, "{}");
                assert!(!lets_in(&[allow, deny]), "{principal}");
            }
        }
        let secret = r#"{"StringEquals":{"sts:ExternalId":"7"}}"#;
        assert!(!lets_in(&[statement("Allow", r#""*""#, assume, secret)]));
        let without = r#"{"Null":{"sts:ExternalId":"true"}}"#;
        assert!(lets_in(&[statement("Allow", r#""*""#, assume, without)]));
    }
}
