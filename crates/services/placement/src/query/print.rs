//! Expressions as text, in a form that parses to the same.

use std::fmt::{Display, Formatter, Result};

use super::{Comparison, Expression, Limit, Order, Pattern, Subject};

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::And(left, right) => {
                operand(left, Self::binds_and, f)?;
                f.write_str(" and ")?;
                // What stands on the right of an operator is taken alone when it is read.
                operand(right, Self::stands_alone, f)
            }
            Self::Or(left, right) => {
                operand(left, |_| true, f)?;
                f.write_str(" or ")?;
                operand(right, Self::binds_and, f)
            }
            Self::Not(inner) => {
                f.write_str("not ")?;
                operand(inner, Self::stands_alone, f)
            }
            Self::Comparison(subject, comparison) => write!(f, "{subject} {comparison}"),
        }
    }
}

impl Expression {
    fn stands_alone(&self) -> bool {
        matches!(self, Self::Not(_) | Self::Comparison(..))
    }

    fn binds_and(&self) -> bool {
        !matches!(self, Self::Or(..))
    }
}

fn operand(
    inner: &Expression,
    is_bare: impl Fn(&Expression) -> bool,
    f: &mut Formatter<'_>,
) -> Result {
    if is_bare(inner) {
        write!(f, "{inner}")
    } else {
        write!(f, "({inner})")
    }
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Attribute(name) => write!(f, "attribute:{name}"),
            Self::AgentConnected => f.write_str("agentConnected"),
            Self::AgentVersion => f.write_str("agentVersion"),
            Self::Ec2InstanceId => f.write_str("ec2InstanceId"),
            Self::RegisteredAt => f.write_str("registeredAt"),
            Self::RunningTasksCount => f.write_str("runningTasksCount"),
            Self::TaskGroup => f.write_str("task:group"),
        }
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Equals(text) => write!(f, "== {}", Argument(text)),
            Self::NotEquals(text) => write!(f, "!= {}", Argument(text)),
            Self::Order(order, Limit { text, .. }) => {
                let sign = match order {
                    Order::Greater => ">",
                    Order::GreaterOrEqual => ">=",
                    Order::Less => "<",
                    Order::LessOrEqual => "<=",
                };
                write!(f, "{sign} {}", Argument(text))
            }
            Self::Exists => f.write_str("exists"),
            Self::NotExists => f.write_str("!exists"),
            Self::In(texts) => write!(f, "in {}", List(texts)),
            Self::NotIn(texts) => write!(f, "!in {}", List(texts)),
            Self::Matches(Pattern { text, .. }) => write!(f, "=~ {}", Argument(text)),
            Self::NotMatches(Pattern { text, .. }) => write!(f, "!~ {}", Argument(text)),
        }
    }
}

/// Words that need no quotes are written without.
struct Argument<'a>(&'a str);

impl Display for Argument<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@*+".contains(c);
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        f.write_str("'")?;
        let mut characters = self.0.chars().peekable();
        while let Some(c) = characters.next() {
            // A back slash means itself unless a quote or another one follows, so those two, and
            // one before the closing quote, are written twice.
            let doubled = c == '\\' && matches!(characters.peek(), None | Some('\'' | '\\'));
            if c == '\'' || doubled {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("'")
    }
}

struct List<'a>(&'a [String]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("[")?;
        for (n, text) in self.0.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{}", Argument(text))?;
        }
        f.write_str("]")
    }
}
