//! Words by their place: `[ip, user, ..., status = 4*, bytes > 1000]`.
//!
//! A message is split at spaces; what stands in square brackets or double quotes is one word
//! without them. Without `...` a message matches only if it has as many words as the pattern.

use std::collections::BTreeMap;

use super::PatternError;
use super::compare::{Comparison, Expression, Prefilter};
use super::cursor::Cursor;

#[derive(Clone, Debug)]
pub struct Fields {
    /// Those before `...`, or all.
    head: Vec<Field>,
    /// Those behind it; `None` without it.
    tail: Option<Vec<Field>>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    condition: Option<Expression<Comparison>>,
}

impl Fields {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut cursor = Cursor::new(text);
        let mut regexes = 0;
        cursor.expect("[")?;
        let mut fields = Self {
            head: Vec::new(),
            tail: None,
        };
        loop {
            cursor.skip_spaces();
            if cursor.take("...") {
                if fields.tail.is_some() {
                    return Err(cursor.expected("only one '...', which is before this place,"));
                }
                fields.tail = Some(Vec::new());
            } else {
                let field = field(&mut cursor, &mut regexes)?;
                fields.tail.as_mut().unwrap_or(&mut fields.head).push(field);
            }
            cursor.skip_spaces();
            if !cursor.take(",") {
                break;
            }
        }
        cursor.expect("]")?;
        cursor.skip_spaces();
        match cursor.is_at_end() {
            true => Ok(fields),
            false => Err(cursor.expected("the end of the pattern")),
        }
    }

    pub(super) fn matches(&self, message: &str) -> bool {
        self.holds(&words(message))
    }

    pub(super) fn extract(&self, message: &str) -> Option<BTreeMap<String, String>> {
        let words = words(message);
        if !self.holds(&words) {
            return None;
        }
        let tail_begins = words.len() - self.tail.as_ref().map_or(0, Vec::len);
        let named = words.iter().enumerate().map(|(place, word)| {
            let field = match (self.head.get(place), &self.tail) {
                (Some(field), _) => Some(field),
                (None, Some(tail)) if place >= tail_begins => tail.get(place - tail_begins),
                (None, _) => None,
            };
            let name = match field {
                Some(field) => format!("${}", field.name),
                None => format!("${}", place + 1),
            };
            (name, (*word).to_owned())
        });
        Some(named.collect())
    }

    fn holds(&self, words: &[&str]) -> bool {
        let tail = self.tail.as_deref();
        let fits = match tail {
            None => words.len() == self.head.len(),
            Some(tail) => words.len() >= self.head.len() + tail.len(),
        };
        if !fits {
            return false;
        }
        let tail = tail.unwrap_or_default();
        let last = &words[words.len() - tail.len()..];
        let holds = |(field, word): (&Field, &&str)| field.holds(word);
        self.head.iter().zip(words).all(holds) && tail.iter().zip(last).all(holds)
    }

    pub(super) fn prefilter(&self) -> Prefilter {
        let fields = self.head.iter().chain(self.tail.iter().flatten());
        let needles = fields.filter_map(|field| {
            let condition = field.condition.as_ref()?;
            condition.needle(&Comparison::needle)
        });
        Prefilter {
            needle: needles.max_by_key(|needle| needle.len()).map(str::to_owned),
            or_backslash: false,
        }
    }
}

impl Field {
    fn holds(&self, word: &str) -> bool {
        self.condition
            .as_ref()
            .is_none_or(|condition| condition.holds(&|comparison| comparison.holds_for_text(word)))
    }
}

fn field(cursor: &mut Cursor<'_>, regexes: &mut usize) -> Result<Field, PatternError> {
    let plain = Cursor::new(cursor.rest());
    let name = name_in(plain)?;
    let mut probe = Cursor::new(cursor.rest());
    probe.take(&name);
    probe.skip_spaces();
    if probe.is_at_end() || probe.rest().starts_with([',', ']']) {
        cursor.take(&name);
        return Ok(Field {
            name,
            condition: None,
        });
    }
    let condition = Expression::parse(cursor, &mut |cursor| {
        let found = cursor.take_while(is_name);
        if found != name {
            return Err(cursor.expected(&format!("a condition on '{name}', before this place,")));
        }
        let ends = |c| matches!(c, ',' | ']' | ')' | '&' | '|');
        Comparison::parse(cursor, regexes, ends)
    })?;
    Ok(Field {
        name,
        condition: Some(condition),
    })
}

/// The first name, which may stand behind brackets.
fn name_in(mut cursor: Cursor<'_>) -> Result<String, PatternError> {
    cursor.take_while(|c| c == '(' || c.is_whitespace());
    let name = cursor.take_while(is_name);
    match name.is_empty() {
        true => Err(cursor.expected("the name of a field")),
        false => Ok(name.to_owned()),
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// A message's words, without the brackets and quotes around them.
fn words(message: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = message.trim();
    while !rest.is_empty() {
        let closing = match rest.as_bytes().first() {
            Some(b'[') => Some(']'),
            Some(b'"') => Some('"'),
            _ => None,
        };
        let inside = closing.and_then(|closing| {
            let end = rest[1..].find(closing)? + 1;
            Some((&rest[1..end], &rest[end + 1..]))
        });
        let (word, after) = match inside {
            Some(found) => found,
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}
