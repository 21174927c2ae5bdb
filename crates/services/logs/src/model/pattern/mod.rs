//! The filter pattern language: which log events a FilterLogEvents, a metric filter or a live tail
//! is about.
//!
//! Three forms: terms (`ERROR -"time out"`, `?a ?b`, `%re.ex%`), a selection of JSON
//! (`{ $.a.b[0] = "x*" && $.n > 3 }`), and words by their place (`[ip, ..., status = 4*]`).
//! What always holds: no text makes it panic, neither as a pattern nor as a message; matching takes
//! time linear in the message, because regular expressions are automata and a wildcard never
//! goes back more than once; what [`FilterPattern::prefilter`] refuses, the pattern refuses.

mod compare;
mod cursor;
mod fields;
mod json;
mod terms;

use std::collections::BTreeMap;

pub use compare::Prefilter;

/// The longest pattern, with AWS's value.
pub const MAX_PATTERN_CHARS: usize = 1024;
/// The most regular expressions of one pattern, with AWS's value.
const MAX_REGEXES: usize = 2;

/// A pattern that is understood.
#[derive(Clone, Debug, Default)]
pub enum FilterPattern {
    #[default]
    Everything,
    Terms(terms::Terms),
    Json(json::Selection),
    Fields(fields::Fields),
}

/// Why a text is not a pattern, in words for its author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(pub(crate) String);

impl PatternError {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl FilterPattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        if text.chars().count() > MAX_PATTERN_CHARS {
            return Err(PatternError::new(format!(
                "Invalid filter pattern: it is longer than {MAX_PATTERN_CHARS} characters"
            )));
        }
        match text.as_bytes().first() {
            None => Ok(Self::Everything),
            Some(b'{') => json::Selection::parse(text).map(Self::Json),
            Some(b'[') => fields::Fields::parse(text).map(Self::Fields),
            Some(_) => terms::Terms::parse(text).map(Self::Terms),
        }
    }

    pub fn matches(&self, message: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Terms(terms) => terms.matches(message),
            Self::Json(selection) => selection.matches(message),
            Self::Fields(fields) => fields.matches(message),
        }
    }

    /// What the pattern names in a message that it matches; `None` for any other message.
    pub fn extract(&self, message: &str) -> Option<BTreeMap<String, String>> {
        match self {
            Self::Everything => Some(BTreeMap::new()),
            Self::Terms(terms) => terms.matches(message).then(BTreeMap::new),
            Self::Json(selection) => selection.extract(message),
            Self::Fields(fields) => fields.extract(message),
        }
    }

    /// A test that is much cheaper than the pattern and holds for every message that it matches.
    pub fn prefilter(&self) -> Prefilter {
        match self {
            Self::Everything => Prefilter::default(),
            Self::Terms(terms) => terms.prefilter(),
            Self::Json(selection) => selection.prefilter(),
            Self::Fields(fields) => fields.prefilter(),
        }
    }
}

#[cfg(test)]
mod tests;
