//! Conditions of a trust policy, held against what is known of a request.
//!
//! What always holds: an operator, a key or a policy variable that is not known here makes an answer that nobody can
//! tell; it is never taken for one that holds, nor for one that does not. No pattern takes longer than its length and the text's, multiplied.

use std::cmp::Ordering;

use gantry_api::protocol::timestamp;

use super::Answer::{self, Unknown, Yes};
use super::TrustRequest;
use crate::model::json::Json;

/// Keys that a request of any caller has if there is anything to say; one that ends in a slash stands for all that begin so.
const ALWAYS_TOLD: [&str; 4] = [
    "aws:requesttag/",
    "aws:tagkeys",
    "sts:sourceidentity",
    "sts:transitivetagkeys",
];

pub(super) fn conditions(condition: Option<&Json>, request: &TrustRequest) -> Answer {
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

fn holds(operator: &str, key: &str, values: &Json, request: &TrustRequest) -> Answer {
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

/// Whether it is known that a request which does not have this key has none.
fn is_known(key: &str, request: &TrustRequest) -> bool {
    let always = ALWAYS_TOLD.iter().copied();
    let mut told = always.chain(request.told.iter().map(String::as_str));
    told.any(|told| match told.ends_with('/') {
        true => key.starts_with(told),
        false => key == told,
    })
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
pub(super) fn like(pattern: &str, text: &str) -> bool {
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
    use super::super::allows;
    use super::super::tests::{ACTION, named, policy, request, statement};
    use super::{arn_like, like};

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
