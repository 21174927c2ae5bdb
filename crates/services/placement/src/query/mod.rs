//! The cluster query language: which container instances an expression means.
//!
//! What always holds: an expression that was parsed prints as one that parses to the same; reading
//! any text at all ends in an expression or an [`QueryError`], in bounded time and stack; patterns
//! are matched in time linear in what they are matched against.
//!
//! Where AWS's documentation is silent, this is what holds. A comparison on something that an
//! instance does not have is false, and `!=`, `!in` and `!~` are the opposite of `==`, `in` and `=~`,
//! so they are true there. Comparisons of order are of numbers where both sides are numbers, of
//! versions for `agentVersion`, of moments for `registeredAt`, and of text otherwise. `=~` must
//! match the whole value. `task:group` has as many values as there are groups on the instance, and
//! a comparison holds if it holds for one of them.

mod lexer;
mod moment;
mod parser;
mod print;

use std::cmp::Ordering;

use regex::Regex;

use crate::candidate::Candidate;

pub use parser::{EXPRESSION_LENGTH_MAX, parse};

/// What an expression says of one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Comparison(Subject, Comparison),
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Attribute(String),
    AgentConnected,
    AgentVersion,
    Ec2InstanceId,
    RegisteredAt,
    RunningTasksCount,
    TaskGroup,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    Equals(String),
    NotEquals(String),
    Order(Order, Limit),
    Exists,
    NotExists,
    In(Vec<String>),
    NotIn(Vec<String>),
    Matches(Pattern),
    NotMatches(Pattern),
}

/// A comparison of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What a value is compared with, read as its subject's kind when the expression was parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    pub(crate) text: String,
    pub(crate) value: LimitValue,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LimitValue {
    Number(f64),
    Version(Vec<u64>),
    /// Milliseconds since the epoch.
    Moment(i64),
    Text,
}

/// A regular expression that must match a whole value.
#[derive(Debug, Clone)]
pub struct Pattern {
    pub(crate) text: String,
    pub(crate) regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid expression: {reason} (at character {at})")]
pub struct QueryError {
    pub reason: String,
    /// Counted from 1.
    pub at: usize,
}

impl Expression {
    /// Whether the instance is one that the expression means.
    pub fn holds(&self, candidate: &Candidate) -> bool {
        match self {
            Self::And(left, right) => left.holds(candidate) && right.holds(candidate),
            Self::Or(left, right) => left.holds(candidate) || right.holds(candidate),
            Self::Not(inner) => !inner.holds(candidate),
            Self::Comparison(subject, comparison) => comparison.holds(subject, candidate),
        }
    }
}

impl Comparison {
    fn holds(&self, subject: &Subject, candidate: &Candidate) -> bool {
        let any = |test: &dyn Fn(&str) -> bool| subject.any(candidate, test);
        match self {
            Self::Equals(text) => any(&|value| equal(subject, value, text)),
            Self::NotEquals(text) => !any(&|value| equal(subject, value, text)),
            Self::In(texts) => any(&|value| texts.iter().any(|t| equal(subject, value, t))),
            Self::NotIn(texts) => !any(&|value| texts.iter().any(|t| equal(subject, value, t))),
            Self::Matches(pattern) => any(&|value| pattern.regex.is_match(value)),
            Self::NotMatches(pattern) => !any(&|value| pattern.regex.is_match(value)),
            Self::Exists => subject.exists(candidate),
            Self::NotExists => !subject.exists(candidate),
            Self::Order(order, limit) => {
                let right = |ordering: Ordering| match order {
                    Order::Greater => ordering.is_gt(),
                    Order::GreaterOrEqual => ordering.is_ge(),
                    Order::Less => ordering.is_lt(),
                    Order::LessOrEqual => ordering.is_le(),
                };
                any(&|value| limit.compare(value).is_some_and(right))
            }
        }
    }
}

impl Limit {
    /// How a value stands to this limit; `None` where the two cannot be compared.
    fn compare(&self, value: &str) -> Option<Ordering> {
        match &self.value {
            LimitValue::Number(limit) => match value.parse::<f64>() {
                Ok(value) => value.partial_cmp(limit),
                Err(_) => Some(value.cmp(&self.text)),
            },
            LimitValue::Version(limit) => Some(version(value)?.cmp(limit)),
            LimitValue::Moment(limit) => Some(moment::parse(value)?.cmp(limit)),
            LimitValue::Text => Some(value.cmp(&self.text)),
        }
    }
}

/// The numbers of a version such as `1.105.0`; what follows a `-` or a `+` does not order.
pub(crate) fn version(text: &str) -> Option<Vec<u64>> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let numbers = text.split(['-', '+']).next()?;
    let mut parts: Vec<u64> = numbers
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    // 1.5 is 1.5.0.
    while parts.last() == Some(&0) {
        parts.pop();
    }
    Some(parts)
}

fn equal(subject: &Subject, value: &str, text: &str) -> bool {
    if value == text {
        return true;
    }
    // However it is written, it may be the same moment, version or truth.
    match subject {
        Subject::RegisteredAt => {
            let (value, text) = (moment::parse(value), moment::parse(text));
            value.is_some() && value == text
        }
        Subject::AgentVersion => {
            let (value, text) = (version(value), version(text));
            value.is_some() && value == text
        }
        Subject::AgentConnected => value.eq_ignore_ascii_case(text),
        Subject::RunningTasksCount => {
            let (value, text) = (value.parse::<u64>(), text.parse::<u64>());
            value.is_ok() && value == text
        }
        _ => false,
    }
}

impl Subject {
    /// Whether the test holds for one of the values.
    fn any(&self, candidate: &Candidate, test: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Attribute(name) => match candidate.attributes.get(name) {
                // An attribute without a value has the empty one.
                Some(value) => test(value.as_deref().unwrap_or_default()),
                None => false,
            },
            Self::AgentConnected => test(match candidate.agent_connected {
                true => "true",
                false => "false",
            }),
            Self::AgentVersion => candidate.agent_version.as_deref().is_some_and(test),
            Self::Ec2InstanceId => {
                !candidate.ec2_instance_id.is_empty() && test(&candidate.ec2_instance_id)
            }
            Self::RegisteredAt => test(&moment::print(candidate.registered_at_ms)),
            Self::RunningTasksCount => test(&candidate.running_tasks.to_string()),
            Self::TaskGroup => candidate
                .tasks_by_group
                .iter()
                .any(|(group, tasks)| *tasks > 0 && test(group)),
        }
    }

    fn exists(&self, candidate: &Candidate) -> bool {
        match self {
            Self::Attribute(name) => candidate.attributes.contains_key(name),
            _ => self.any(candidate, &|_| true),
        }
    }
}
