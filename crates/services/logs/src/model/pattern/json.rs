//! Conditions on the members of a message that is JSON. Any other message does not match.

use std::collections::BTreeMap;

use serde_json::Value;

use super::PatternError;
use super::compare::{Comparison, Expression, Operand, Operator, Prefilter};
use super::cursor::Cursor;

/// `{ … }`.
#[derive(Clone, Debug)]
pub struct Selection {
    expression: Expression<Condition>,
}

#[derive(Clone, Debug)]
struct Condition {
    selector: Selector,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Compare(Comparison),
    IsNull,
    Is(bool),
    NotExists,
}

/// `$.a.b[0]`, with its text.
#[derive(Clone, Debug)]
struct Selector {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Member(String),
    Element(usize),
    /// `[*]` and `.*`: any of them.
    Each,
}

impl Selection {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut cursor = Cursor::new(text);
        let mut regexes = 0;
        cursor.expect("{")?;
        let expression =
            Expression::parse(&mut cursor, &mut |cursor| condition(cursor, &mut regexes))?;
        cursor.expect("}")?;
        cursor.skip_spaces();
        match cursor.is_at_end() {
            true => Ok(Self { expression }),
            false => Err(cursor.expected("the end of the pattern")),
        }
    }

    pub(super) fn matches(&self, message: &str) -> bool {
        parse_object(message).is_some_and(|value| self.holds(&value))
    }

    pub(super) fn extract(&self, message: &str) -> Option<BTreeMap<String, String>> {
        let value = parse_object(message).filter(|value| self.holds(value))?;
        let mut found = BTreeMap::new();
        self.expression.each(&mut |condition| {
            let selector = &condition.selector;
            selector.each(&value, &mut |it| {
                let text = match it {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                found.entry(selector.text.clone()).or_insert(text);
                true
            });
        });
        Some(found)
    }

    fn holds(&self, value: &Value) -> bool {
        self.expression.holds(&|condition| condition.holds(value))
    }

    pub(super) fn prefilter(&self) -> Prefilter {
        let needle = self.expression.needle(&Condition::needle);
        Prefilter {
            needle: needle.map(str::to_owned),
            or_backslash: true,
        }
    }
}

fn parse_object(message: &str) -> Option<Value> {
    let text = message.trim();
    // Most lines are no JSON at all, and it is cheaper to see than to try.
    if !text.starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

impl Condition {
    fn holds(&self, value: &Value) -> bool {
        let any = |wanted: &dyn Fn(&Value) -> bool| {
            !self.selector.each(value, &mut |found| !wanted(found))
        };
        match &self.test {
            Test::NotExists => !any(&|_| true),
            Test::IsNull => any(&Value::is_null),
            Test::Is(flag) => any(&|found| found.as_bool() == Some(*flag)),
            Test::Compare(comparison) => any(&|found| compares(comparison, found)),
        }
    }

    fn needle(&self) -> Option<&str> {
        let name = self.selector.steps.iter().filter_map(|step| match step {
            Step::Member(name) => Some(name.as_str()),
            _ => None,
        });
        let longest = name.max_by_key(|name| name.len());
        match &self.test {
            Test::NotExists => None,
            Test::IsNull | Test::Is(_) => longest,
            // A text says more than the name of its member, which every line may have.
            Test::Compare(comparison) => comparison.needle().or(longest),
        }
    }
}

fn compares(comparison: &Comparison, found: &Value) -> bool {
    let is_everything = matches!(&comparison.operand, Operand::Text { glob, .. }
        if !glob.is_empty() && glob.chars().all(|c| c == '*'));
    if is_everything {
        return comparison.operator == Operator::Equal && !found.is_null();
    }
    match found {
        Value::String(text) => comparison.holds_for_text(text),
        Value::Number(number) => number
            .as_f64()
            .is_some_and(|number| comparison.holds_for_number(number)),
        Value::Bool(flag) => comparison.holds_for_text(if *flag { "true" } else { "false" }),
        // They are never equal to a text or a number.
        Value::Null | Value::Array(_) | Value::Object(_) => {
            comparison.operator == Operator::NotEqual
        }
    }
}

fn condition(cursor: &mut Cursor<'_>, regexes: &mut usize) -> Result<Condition, PatternError> {
    let selector = Selector::parse(cursor)?;
    cursor.skip_spaces();
    let test = if cursor.take_keyword("IS") {
        cursor.skip_spaces();
        if cursor.take_keyword("NULL") {
            Test::IsNull
        } else if cursor.take_keyword("TRUE") {
            Test::Is(true)
        } else if cursor.take_keyword("FALSE") {
            Test::Is(false)
        } else {
            return Err(cursor.expected("NULL, TRUE or FALSE"));
        }
    } else if cursor.take_keyword("NOT") {
        cursor.skip_spaces();
        if !cursor.take_keyword("EXISTS") {
            return Err(cursor.expected("EXISTS"));
        }
        Test::NotExists
    } else {
        let ends = |c| matches!(c, ')' | '}' | '&' | '|');
        Test::Compare(Comparison::parse(cursor, regexes, ends)?)
    };
    Ok(Condition { selector, test })
}

impl Selector {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, PatternError> {
        let before = cursor.rest();
        cursor.expect("$")?;
        let mut steps = Vec::new();
        loop {
            let dotted = cursor.take(".");
            if cursor.take("[") {
                steps.push(bracket(cursor)?);
            } else if dotted && cursor.take("*") {
                steps.push(Step::Each);
            } else if dotted {
                let name = cursor.take_while(|c| {
                    c.is_alphanumeric() || matches!(c, '_' | '-' | '@' | '#' | ':' | '/')
                });
                if name.is_empty() {
                    return Err(cursor.expected("the name of a member"));
                }
                steps.push(Step::Member(name.to_owned()));
            } else {
                break;
            }
        }
        let length = before.len() - cursor.rest().len();
        Ok(Self {
            text: before[..length].to_owned(),
            steps,
        })
    }

    /// Visits what is selected until a visit says `false`; says whether all were visited.
    fn each(&self, value: &Value, visit: &mut dyn FnMut(&Value) -> bool) -> bool {
        walk(&self.steps, value, visit)
    }
}

fn walk(steps: &[Step], value: &Value, visit: &mut dyn FnMut(&Value) -> bool) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        return visit(value);
    };
    match (step, value) {
        (Step::Member(name), Value::Object(members)) => members
            .get(name)
            .is_none_or(|member| walk(rest, member, visit)),
        (Step::Element(index), Value::Array(items)) => {
            items.get(*index).is_none_or(|item| walk(rest, item, visit))
        }
        (Step::Each, Value::Array(items)) => items.iter().all(|item| walk(rest, item, visit)),
        (Step::Each, Value::Object(members)) => {
            members.values().all(|member| walk(rest, member, visit))
        }
        _ => true,
    }
}

/// What stands in brackets whose first has been taken: a number, a star, or a name in quotes.
fn bracket(cursor: &mut Cursor<'_>) -> Result<Step, PatternError> {
    let step = if cursor.take("*") {
        Step::Each
    } else if cursor.take("\"") {
        Step::Member(cursor.until('"', false)?)
    } else if cursor.take("'") {
        Step::Member(cursor.until('\'', false)?)
    } else {
        let digits = cursor.take_while(|c| c.is_ascii_digit());
        let index = digits.parse();
        Step::Element(index.map_err(|_| cursor.expected("the number of an element"))?)
    };
    cursor.expect("]")?;
    Ok(step)
}
