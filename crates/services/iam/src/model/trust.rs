//! Whether a role's trust policy lets an identity of an OpenID Connect provider in.
//!
//! What always holds: a deny outweighs every allow. **What cannot be decided here lets nobody in**: an operator, a
//! condition key or a policy variable that is not known makes its statement allow nothing, and deny if it is
//! one that denies. Only a statement that names the provider itself allows; `*` is nobody in particular.
//! What it leaves to others: the truth of what the request claims, and trust in users and services (`docs/security.md`).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use gantry_api::protocol::timestamp;

use crate::model::json::{Json, parse};

/// What a policy is asked about.
#[derive(Clone, Debug, Default)]
pub struct FederatedRequest {
    /// The ARN of the provider that vouches for the caller.
    pub provider: String,
    /// The prefix of the provider's own condition keys: its URL without the scheme.
    pub claims_prefix: String,
    /// Values of condition keys, by their names in lower case.
    pub values: BTreeMap<String, Vec<String>>,
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

/// Whether `document` lets the caller do `action` (`sts:AssumeRoleWithWebIdentity`).
pub fn allows(document: &str, action: &str, request: &FederatedRequest) -> bool {
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
    request: &FederatedRequest,
) -> Answer {
    let named = |value: &Json| match value {
        Json::Object(kinds) => kinds.iter().any(|(kind, names)| {
            let names = texts(names);
            kind == "Federated" && names.iter().any(|name| *name == request.provider)
        }),
        _ => false,
    };
    let everybody = |value: &Json| match value {
        Json::String(name) => name == "*",
        Json::Object(kinds) => kinds.iter().any(|(_, names)| texts(names).contains(&"*")),
        _ => false,
    };
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

fn conditions(condition: Option<&Json>, request: &FederatedRequest) -> Answer {
    let Some(condition) = condition else {
        return Yes;
    };
    let Json::Object(operators) = condition else {
        return Unknown;
    };
    let mut answer = Yes;
    for (operator, keys) in operators {
        let Json::Object(keys) = keys else {
            return Unknown;
        };
        for (key, values) in keys {
            answer = answer.and(holds(operator, key, values, request));
        }
    }
    answer
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    One,
    Any,
    All,
}

fn holds(operator: &str, key: &str, values: &Json, request: &FederatedRequest) -> Answer {
    let (quantifier, operator) = match operator.split_once(':') {
        None => (Quantifier::One, operator),
        Some(("ForAnyValue", rest)) => (Quantifier::Any, rest),
        Some(("ForAllValues", rest)) => (Quantifier::All, rest),
        Some(_) => return Unknown,
    };
    let (if_exists, operator) = match operator.strip_suffix("IfExists") {
        Some(rest) => (true, rest),
        None => (false, operator),
    };
    let wanted = scalars(values);
    // A policy variable stands for something that is not looked up here.
    if wanted.iter().any(|value| value.contains("${")) {
        return Unknown;
    }
    let key = key.to_ascii_lowercase();
    let given = request
        .values
        .get(&key)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if given.is_empty() && !is_known(&key, request) {
        return Unknown;
    }
    if operator == "Null" {
        return match wanted.as_slice() {
            ["true"] => Answer::of(given.is_empty()),
            ["false"] => Answer::of(!given.is_empty()),
            _ => Unknown,
        };
    }
    let Some((negated, matches)) = comparison(operator) else {
        return Unknown;
    };
    if given.is_empty() {
        return Answer::of(if_exists || negated || quantifier == Quantifier::All)
            .and(Answer::of(quantifier != Quantifier::Any || if_exists));
    }
    let meets = |value: &String| {
        let found = wanted.iter().any(|wanted| matches(wanted, value));
        found != negated
    };
    Answer::of(match (quantifier, negated) {
        (Quantifier::All, _) | (Quantifier::One, true) => given.iter().all(meets),
        (Quantifier::Any, _) | (Quantifier::One, false) => given.iter().any(meets),
    })
}

/// Whether it is known that a request without this key has none: keys of identity providers, and those of
/// AWS's that are always told here.
fn is_known(key: &str, request: &FederatedRequest) -> bool {
    let of_provider = request.claims_prefix.to_ascii_lowercase();
    if let Some(claim) = key
        .strip_prefix(&of_provider)
        .and_then(|rest| rest.strip_prefix(':'))
    {
        return ["aud", "oaud", "sub", "azp", "amr", "email"].contains(&claim);
    }
    key.starts_with("aws:requesttag/")
        || ["sts:sourceidentity", "aws:tagkeys", "sts:transitivetagkeys"].contains(&key)
}

type Matches = fn(&str, &str) -> bool;

/// Whether an operator is a negated one, and what it negates.
fn comparison(operator: &str) -> Option<(bool, Matches)> {
    let (negated, operator) = match operator {
        "StringNotEquals" => (true, "StringEquals"),
        "StringNotEqualsIgnoreCase" => (true, "StringEqualsIgnoreCase"),
        "StringNotLike" => (true, "StringLike"),
        "ArnNotEquals" | "ArnNotLike" => (true, "ArnLike"),
        "NumericNotEquals" => (true, "NumericEquals"),
        "DateNotEquals" => (true, "DateEquals"),
        other => (false, other),
    };
    let matches: Matches = match operator {
        "StringEquals" => |wanted, given| wanted == given,
        "StringEqualsIgnoreCase" => |wanted, given| wanted.to_lowercase() == given.to_lowercase(),
        "StringLike" => like,
        "ArnEquals" | "ArnLike" => arn_like,
        "Bool" => |wanted, given| wanted.eq_ignore_ascii_case(given),
        "NumericEquals" => |wanted, given| number(wanted, given) == Some(Ordering::Equal),
        "NumericLessThan" => |wanted, given| number(wanted, given) == Some(Ordering::Less),
        "NumericLessThanEquals" => {
            |wanted, given| number(wanted, given).is_some_and(Ordering::is_le)
        }
        "NumericGreaterThan" => |wanted, given| number(wanted, given) == Some(Ordering::Greater),
        "NumericGreaterThanEquals" => {
            |wanted, given| number(wanted, given).is_some_and(Ordering::is_ge)
        }
        "DateEquals" => |wanted, given| date(wanted, given) == Some(Ordering::Equal),
        "DateLessThan" => |wanted, given| date(wanted, given) == Some(Ordering::Less),
        "DateLessThanEquals" => |wanted, given| date(wanted, given).is_some_and(Ordering::is_le),
        "DateGreaterThan" => |wanted, given| date(wanted, given) == Some(Ordering::Greater),
        "DateGreaterThanEquals" => |wanted, given| date(wanted, given).is_some_and(Ordering::is_ge),
        _ => return None,
    };
    Some((negated, matches))
}

/// How what is given stands to what is wanted.
fn number(wanted: &str, given: &str) -> Option<Ordering> {
    let (wanted, given): (f64, f64) = (wanted.parse().ok()?, given.parse().ok()?);
    given.partial_cmp(&wanted)
}

fn date(wanted: &str, given: &str) -> Option<Ordering> {
    let moment = |text: &str| match text.parse::<i64>() {
        Ok(seconds) => seconds.checked_mul(1000),
        Err(_) => timestamp::parse(text)
            .map(|moment| moment.since(gantry_env::Timestamp::EPOCH))
            .and_then(|since| i64::try_from(since.as_millis()).ok()),
    };
    Some(moment(given)?.cmp(&moment(wanted)?))
}

/// Each part of an ARN by itself, so that a wildcard never reaches over a colon.
fn arn_like(pattern: &str, text: &str) -> bool {
    let (patterns, texts) = (pattern.splitn(6, ':'), text.splitn(6, ':'));
    patterns.clone().count() == texts.clone().count()
        && patterns
            .zip(texts)
            .all(|(pattern, text)| like(pattern, text))
}

/// `*` is any text and `?` any one character. Takes at most as many steps as both are long, multiplied.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                // The last star takes one character more.
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
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

/// The values of a condition as text: JSON may write numbers and truth as such.
fn scalars(value: &Json) -> Vec<&str> {
    let items = match value {
        Json::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let scalars = items.iter();
    scalars
        .filter_map(|item| match item {
            Json::String(text) | Json::Number(text) => Some(text.as_str()),
            Json::Bool(true) => Some("true"),
            Json::Bool(false) => Some("false"),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str = "arn:aws:iam::000000000000:oidc-provider/i.example/x";
    const ACTION: &str = "sts:AssumeRoleWithWebIdentity";

    fn request() -> FederatedRequest {
        let values = [
            ("i.example/x:aud", vec!["app"]),
            ("i.example/x:sub", vec!["system:serviceaccount:default:web"]),
            ("i.example/x:amr", vec!["one", "two"]),
            ("aws:currenttime", vec!["2026-01-01T00:00:00Z"]),
            ("sts:rolesessionname", vec!["me"]),
        ];
        let values = values.into_iter();
        FederatedRequest {
            provider: PROVIDER.into(),
            claims_prefix: "i.example/x".into(),
            values: values
                .map(|(key, values)| (key.into(), values.into_iter().map(str::to_owned).collect()))
                .collect(),
        }
    }

    fn statement(effect: &str, principal: &str, action: &str, condition: &str) -> String {
        format!(
            r#"{{"Effect":"{effect}","Principal":{principal},"Action":{action},"Condition":{condition}}}"#
        )
    }

    fn policy(statements: &[String]) -> String {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{}]}}"#,
            statements.join(",")
        )
    }

    fn named() -> String {
        format!(r#"{{"Federated":"{PROVIDER}"}}"#)
    }

    fn on(condition: &str) -> bool {
        let action = format!("\"{ACTION}\"");
        let document = policy(&[statement("Allow", &named(), &action, condition)]);
        let allowed = allows(&document, ACTION, &request());
        // The same condition on a denial, beside what allows: what is unknown denies too.
        let denied = policy(&[
            statement("Allow", &named(), &action, "{}"),
            statement("Deny", &named(), &action, condition),
        ]);
        if allowed {
            assert!(!allows(&denied, ACTION, &request()), "{condition}");
        }
        allowed
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
    fn conditions_hold_as_iam_reads_them() {
        for (condition, expected) in [
            (r#"{"StringEquals":{"i.example/x:aud":"app"}}"#, true),
            (
                r#"{"StringEquals":{"I.EXAMPLE/X:AUD":["other","app"]}}"#,
                true,
            ),
            (r#"{"StringEquals":{"i.example/x:aud":"App"}}"#, false),
            (
                r#"{"StringEqualsIgnoreCase":{"i.example/x:aud":"App"}}"#,
                true,
            ),
            (
                r#"{"StringEquals":{"i.example/x:aud":"app","i.example/x:sub":"no"}}"#,
                false,
            ),
            (
                r#"{"StringEquals":{"i.example/x:aud":"app"},"StringLike":{"i.example/x:sub":"system:serviceaccount:*:web"}}"#,
                true,
            ),
            (r#"{"StringLike":{"i.example/x:sub":"system:*:we?"}}"#, true),
            (r#"{"StringLike":{"i.example/x:sub":"*db"}}"#, false),
            (r#"{"StringNotLike":{"i.example/x:sub":"*db"}}"#, true),
            (r#"{"StringNotEquals":{"i.example/x:aud":"app"}}"#, false),
            // A claim that the token does not have.
            (r#"{"StringEquals":{"i.example/x:email":"a"}}"#, false),
            (
                r#"{"StringEqualsIfExists":{"i.example/x:email":"a"}}"#,
                true,
            ),
            (r#"{"StringNotEquals":{"i.example/x:email":"a"}}"#, true),
            (r#"{"Null":{"i.example/x:email":"true"}}"#, true),
            (r#"{"Null":{"i.example/x:email":false}}"#, false),
            (r#"{"Null":{"i.example/x:aud":"true"}}"#, false),
            (
                r#"{"ForAnyValue:StringEquals":{"i.example/x:amr":["two","three"]}}"#,
                true,
            ),
            (
                r#"{"ForAllValues:StringEquals":{"i.example/x:amr":["two","three"]}}"#,
                false,
            ),
            (
                r#"{"ForAllValues:StringEquals":{"i.example/x:amr":["two","one"]}}"#,
                true,
            ),
            (
                r#"{"ForAllValues:StringEquals":{"i.example/x:email":"a"}}"#,
                true,
            ),
            (
                r#"{"ForAnyValue:StringEquals":{"i.example/x:email":"a"}}"#,
                false,
            ),
            (
                r#"{"ForAnyValue:StringNotEquals":{"i.example/x:email":"a"}}"#,
                false,
            ),
            (
                r#"{"ForAnyValue:StringNotEquals":{"i.example/x:amr":"one"}}"#,
                true,
            ),
            (r#"{"StringNotEquals":{"i.example/x:amr":"one"}}"#, false),
            (
                r#"{"DateLessThan":{"aws:CurrentTime":"2026-06-01T00:00:00Z"}}"#,
                true,
            ),
            (
                r#"{"DateGreaterThan":{"aws:CurrentTime":"2026-06-01T00:00:00Z"}}"#,
                false,
            ),
            (r#"{"StringEquals":{"sts:RoleSessionName":"me"}}"#, true),
            (r#"{"StringEquals":{"sts:SourceIdentity":"me"}}"#, false),
        ] {
            assert_eq!(on(condition), expected, "{condition}");
        }
    }

    #[test]
    fn what_cannot_be_decided_lets_nobody_in() {
        let action = format!("\"{ACTION}\"");
        for condition in [
            r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#,
            r#"{"StringNotEquals":{"aws:SourceVpc":"vpc-1"}}"#,
            r#"{"Bool":{"aws:SecureTransport":"true"}}"#,
            r#"{"StringEqualsIfExists":{"aws:PrincipalOrgID":"o-1"}}"#,
            r#"{"StringLike":{"i.example/x:sub":"${aws:username}"}}"#,
            r#"{"StringMatches":{"i.example/x:aud":"app"}}"#,
            r#"{"ForSomeValues:StringEquals":{"i.example/x:aud":"app"}}"#,
            r#"{"StringNotEquals":{"other.example:aud":"app"}}"#,
            r#"{"StringNotEquals":{"i.example/x:actor":"somebody"}}"#,
        ] {
            assert!(!on(condition), "{condition}");
            let allow = statement("Allow", &named(), &action, "{}");
            let deny = statement("Deny", &named(), &action, condition);
            assert!(
                !allows(&policy(&[allow, deny]), ACTION, &request()),
                "{condition}"
            );
        }
    }

    #[test]
    fn patterns_do_not_blow_up() {
        assert!(like("a*b*c", "aXXbYYc") && !like("a*b*c", "aXXbYY") && like("*", ""));
        assert!(!like("", "a") && like("??", "üx") && !like("?", ""));
        assert!(!like(&"*a".repeat(500), &"a".repeat(499)));
        assert!(arn_like("arn:aws:iam::*:role/x", "arn:aws:iam::1:role/x"));
        assert!(!arn_like("arn:aws:*", "arn:aws:iam::1:role/x"));
    }
}
