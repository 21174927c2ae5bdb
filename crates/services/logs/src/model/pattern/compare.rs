//! Comparing a text or a number with what a pattern says, and the regular expressions of patterns.

use regex::{Regex, RegexBuilder};

use super::cursor::Cursor;
use super::{MAX_REGEXES, PatternError};

/// What a compiled expression may take; a repetition of repetitions is refused instead.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// Brackets within brackets; deeper ones are refused, because they are read by recursion.
const MAX_DEPTH: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What something is compared with.
#[derive(Clone, Debug)]
pub enum Operand {
    /// `*` in it stands for anything. Was it written in quotes?
    Text {
        glob: String,
        quoted: bool,
    },
    Number {
        value: f64,
        text: String,
    },
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub struct Comparison {
    pub operator: Operator,
    pub operand: Operand,
}

impl Comparison {
    /// Reads an operator and what follows it. A bare word ends where `ends` says.
    pub(super) fn parse(
        cursor: &mut Cursor<'_>,
        regexes: &mut usize,
        ends: fn(char) -> bool,
    ) -> Result<Self, PatternError> {
        use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        cursor.skip_spaces();
        let operators = [
            ("!=", NotEqual),
            ("<=", LessOrEqual),
            (">=", GreaterOrEqual),
            ("=", Equal),
            ("<", Less),
            (">", Greater),
        ];
        let found = operators.into_iter().find(|(word, _)| cursor.take(word));
        let Some((_, operator)) = found else {
            return Err(cursor.expected("a comparison"));
        };
        cursor.skip_spaces();
        let operand = Operand::parse(cursor, regexes, ends)?;
        let is_ordered = !matches!(operator, Equal | NotEqual);
        if is_ordered && !matches!(operand, Operand::Number { .. }) {
            return Err(cursor.expected("a number to compare with, before this place,"));
        }
        Ok(Self { operator, operand })
    }

    pub fn holds_for_text(&self, text: &str) -> bool {
        let number = || text.trim().parse::<f64>().ok();
        match (&self.operand, self.operator) {
            (Operand::Text { glob, .. }, Operator::NotEqual) => !matches_glob(glob, text),
            (Operand::Text { glob, .. }, _) => matches_glob(glob, text),
            (Operand::Regex(regex), Operator::NotEqual) => !regex.is_match(text),
            (Operand::Regex(regex), _) => regex.is_match(text),
            (Operand::Number { value, text: said }, Operator::Equal) => {
                text == said || number() == Some(*value)
            }
            (Operand::Number { value, text: said }, Operator::NotEqual) => {
                text != said && number() != Some(*value)
            }
            (Operand::Number { .. }, _) => number().is_some_and(|it| self.holds_for_number(it)),
        }
    }

    pub fn holds_for_number(&self, number: f64) -> bool {
        match &self.operand {
            Operand::Number { value, .. } => match self.operator {
                Operator::Equal => number == *value,
                Operator::NotEqual => number != *value,
                Operator::Less => number < *value,
                Operator::LessOrEqual => number <= *value,
                Operator::Greater => number > *value,
                Operator::GreaterOrEqual => number >= *value,
            },
            // `4*` is about the digits; a text in quotes without a wildcard never is a number.
            Operand::Text { glob, quoted } => {
                let holds = matches_glob(glob, &number.to_string());
                let holds = holds && (!quoted || glob.contains('*'));
                holds == (self.operator == Operator::Equal)
            }
            Operand::Regex(regex) => {
                regex.is_match(&number.to_string()) == (self.operator == Operator::Equal)
            }
        }
    }

    /// A text that must be in whatever this holds for.
    pub fn needle(&self) -> Option<&str> {
        match (&self.operand, self.operator) {
            (Operand::Text { glob, .. }, Operator::Equal) => {
                let piece = glob.split('*').max_by_key(|piece| piece.len());
                piece.filter(|piece| !piece.is_empty())
            }
            _ => None,
        }
    }
}

impl Operand {
    fn parse(
        cursor: &mut Cursor<'_>,
        regexes: &mut usize,
        ends: fn(char) -> bool,
    ) -> Result<Self, PatternError> {
        if cursor.take("\"") {
            return Ok(Self::Text {
                glob: cursor.until('"', false)?,
                quoted: true,
            });
        }
        if cursor.take("%") {
            return regex(cursor, regexes).map(Self::Regex);
        }
        let word = cursor.take_while(|c| !ends(c) && !c.is_whitespace());
        if word.is_empty() {
            return Err(cursor.expected("a value"));
        }
        let is_numeric = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        match word.parse::<f64>() {
            Ok(value) if word.chars().all(is_numeric) => Ok(Self::Number {
                value,
                text: word.to_owned(),
            }),
            _ => Ok(Self::Text {
                glob: word.to_owned(),
                quoted: false,
            }),
        }
    }
}

/// A regular expression whose first `%` has been taken.
pub(super) fn regex(cursor: &mut Cursor<'_>, count: &mut usize) -> Result<Regex, PatternError> {
    let text = cursor.until('%', true)?;
    *count += 1;
    if *count > MAX_REGEXES {
        return Err(PatternError::new(format!(
            "Invalid filter pattern: it may have no more than {MAX_REGEXES} regular expressions"
        )));
    }
    compile(&text)
}

/// The characters of AWS's dialect, beside letters and digits.
const REGEX_CHARACTERS: &str = ":_#=@/;,- ^$?[]{}|\\*+.";

fn compile(text: &str) -> Result<Regex, PatternError> {
    let mut escaped = false;
    for c in text.chars() {
        let known = c.is_ascii_alphanumeric() || REGEX_CHARACTERS.contains(c);
        // Behind a backslash any sign may stand for itself.
        if !(known || (escaped && c.is_ascii_punctuation())) {
            return Err(PatternError::new(format!(
                "Invalid filter pattern: {c:?} is not supported in a regular expression"
            )));
        }
        escaped = c == '\\' && !escaped;
    }
    RegexBuilder::new(text)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(2 * MAX_REGEX_BYTES)
        .build()
        .map_err(|_| {
            PatternError::new(format!(
                "Invalid filter pattern: %{text}% is not a regular expression that can be used"
            ))
        })
}

/// Whether a text is what a glob says: `*` is any run of characters, everything else is itself.
/// Every piece between two stars is taken at the first place where it fits, which is never wrong.
pub(super) fn matches_glob(glob: &str, text: &str) -> bool {
    let Some((head, rest)) = glob.split_once('*') else {
        return glob == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

/// Conditions put together with `&&` and `||`, the first binding more tightly.
#[derive(Clone, Debug)]
pub enum Expression<C> {
    Is(C),
    All(Vec<Expression<C>>),
    Any(Vec<Expression<C>>),
}

impl<C> Expression<C> {
    pub(super) fn parse(
        cursor: &mut Cursor<'_>,
        condition: &mut dyn FnMut(&mut Cursor<'_>) -> Result<C, PatternError>,
    ) -> Result<Self, PatternError> {
        Self::any(cursor, condition, 0)
    }

    fn any(
        cursor: &mut Cursor<'_>,
        condition: &mut dyn FnMut(&mut Cursor<'_>) -> Result<C, PatternError>,
        depth: usize,
    ) -> Result<Self, PatternError> {
        let mut found = vec![Self::all(cursor, condition, depth)?];
        while cursor.take("||") {
            found.push(Self::all(cursor, condition, depth)?);
        }
        Ok(Self::single(found, Self::Any))
    }

    fn all(
        cursor: &mut Cursor<'_>,
        condition: &mut dyn FnMut(&mut Cursor<'_>) -> Result<C, PatternError>,
        depth: usize,
    ) -> Result<Self, PatternError> {
        let mut found = vec![Self::one(cursor, condition, depth)?];
        while cursor.take("&&") {
            found.push(Self::one(cursor, condition, depth)?);
        }
        Ok(Self::single(found, Self::All))
    }

    fn one(
        cursor: &mut Cursor<'_>,
        condition: &mut dyn FnMut(&mut Cursor<'_>) -> Result<C, PatternError>,
        depth: usize,
    ) -> Result<Self, PatternError> {
        cursor.skip_spaces();
        if depth > MAX_DEPTH {
            return Err(cursor.expected("no further bracket"));
        }
        let found = match cursor.take("(") {
            true => {
                let inner = Self::any(cursor, condition, depth + 1)?;
                cursor.expect(")")?;
                inner
            }
            false => Self::Is(condition(cursor)?),
        };
        cursor.skip_spaces();
        Ok(found)
    }

    fn single(mut found: Vec<Self>, join: fn(Vec<Self>) -> Self) -> Self {
        match (found.len(), found.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                found.push(last);
                join(found)
            }
            (_, None) => join(found),
        }
    }

    pub fn holds(&self, condition: &dyn Fn(&C) -> bool) -> bool {
        match self {
            Self::Is(it) => condition(it),
            Self::All(them) => them.iter().all(|it| it.holds(condition)),
            Self::Any(them) => them.iter().any(|it| it.holds(condition)),
        }
    }

    pub fn each<'a>(&'a self, visit: &mut dyn FnMut(&'a C)) {
        match self {
            Self::Is(it) => visit(it),
            Self::All(them) | Self::Any(them) => them.iter().for_each(|it| it.each(visit)),
        }
    }

    /// The longest text that is needed wherever this holds.
    pub fn needle<'a>(&'a self, of: &dyn Fn(&'a C) -> Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Is(it) => of(it),
            Self::All(them) => them
                .iter()
                .filter_map(|it| it.needle(of))
                .max_by_key(|needle| needle.len()),
            Self::Any(_) => None,
        }
    }
}

/// See [`super::FilterPattern::prefilter`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefilter {
    /// What is in every message that the pattern matches...
    pub needle: Option<String>,
    /// ... or else a backslash, because the same character can be written in several ways.
    pub or_backslash: bool,
}
