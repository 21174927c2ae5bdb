//! Words and phrases: those that must be there, those of which one must be, those that must not.

use regex::Regex;

use super::PatternError;
use super::compare::{self, Prefilter};
use super::cursor::Cursor;

#[derive(Clone, Debug)]
enum Term {
    Text(String),
    Regex(Regex),
}

/// What always holds: `any` is only kept where nothing else is asked for, as AWS ignores
/// `?` next to other terms.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    all: Vec<Term>,
    any: Vec<Term>,
    none: Vec<Term>,
}

impl Terms {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut cursor = Cursor::new(text);
        let (mut terms, mut regexes) = (Self::default(), 0);
        loop {
            cursor.skip_spaces();
            if cursor.is_at_end() {
                break;
            }
            let list = if cursor.take("?") {
                &mut terms.any
            } else if cursor.take("-") {
                &mut terms.none
            } else {
                &mut terms.all
            };
            list.push(term(&mut cursor, &mut regexes)?);
        }
        if !(terms.all.is_empty() && terms.none.is_empty()) {
            terms.any.clear();
        }
        Ok(terms)
    }

    pub(super) fn matches(&self, message: &str) -> bool {
        let is_there = |term: &Term| match term {
            Term::Text(text) => message.contains(text.as_str()),
            Term::Regex(regex) => regex.is_match(message),
        };
        self.all.iter().all(is_there)
            && (self.any.is_empty() || self.any.iter().any(is_there))
            && !self.none.iter().any(is_there)
    }

    pub(super) fn prefilter(&self) -> Prefilter {
        let only = match &self.any[..] {
            [only] => Some(only),
            _ => None,
        };
        let texts = self.all.iter().chain(only).filter_map(|term| match term {
            Term::Text(text) => Some(text),
            Term::Regex(_) => None,
        });
        Prefilter {
            needle: texts.max_by_key(|text| text.len()).cloned(),
            or_backslash: false,
        }
    }
}

fn term(cursor: &mut Cursor<'_>, regexes: &mut usize) -> Result<Term, PatternError> {
    if cursor.take("\"") {
        return cursor.until('"', false).map(Term::Text);
    }
    if cursor.take("%") {
        return compare::regex(cursor, regexes).map(Term::Regex);
    }
    let word = cursor.take_while(|c| !c.is_whitespace());
    // What is more than a word has to stand in quotes.
    if word.is_empty() || !word.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(PatternError::new(format!(
            "Invalid character(s) in term '{word}'"
        )));
    }
    Ok(Term::Text(word.to_owned()))
}
