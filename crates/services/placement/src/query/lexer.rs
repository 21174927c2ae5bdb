//! Words, signs and quoted texts of an expression.
//!
//! A word goes on until white space, a comma, a bracket, or a sign that could not be part of it.
//! Parentheses inside a word belong to it as long as they are balanced, so that a pattern such as
//! `t2.(small|large)` needs no quotes.

use super::QueryError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A sign such as `==`, `(` or `&&`.
    Sign(&'static str),
    /// A word without quotes: a subject, an operator by name, or an argument.
    Word(String),
    /// A text in quotes: only ever an argument.
    Quoted(String),
}

/// Where the next token is expected to be an argument, signs inside it are part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expecting {
    Anything,
    Argument,
}

/// Longer signs first, so that `!=` is not `!` and `=`.
const SIGNS: [&str; 18] = [
    "==", "!=", ">=", "<=", "=~", "!~", "&&", "||", ">", "<", "!", "(", ")", "[", "]", ",", "=",
    "~",
];

pub(super) struct Lexer<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the next token begins, in characters from 1.
    pub(super) fn position(&self) -> usize {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        before.chars().count() + 1
    }

    pub(super) fn place(&self) -> usize {
        self.at
    }

    pub(super) fn back_to(&mut self, place: usize) {
        self.at = place;
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next token, or none at the end.
    pub(super) fn next(&mut self, expecting: Expecting) -> Result<Option<Token>, QueryError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(None);
        };
        if first == '"' || first == '\'' {
            return self.quoted(first).map(Some);
        }
        let is_argument = expecting == Expecting::Argument;
        // An argument may begin with a sign that only operators are made of, or with a group.
        let signs = SIGNS
            .iter()
            .filter(|sign| !is_argument || matches!(**sign, ")" | "[" | "]" | ","));
        for sign in signs {
            if rest.starts_with(sign) {
                self.at += sign.len();
                return Ok(Some(Token::Sign(sign)));
            }
        }
        let length = word_length(rest, expecting);
        self.at += length;
        let word = rest.get(..length).unwrap_or_default();
        Ok(Some(Token::Word(word.to_owned())))
    }

    /// A quote is written inside quotes with a back slash before it; so is a back slash that
    /// stands before a quote or another one. Every other back slash is itself, as patterns need.
    fn quoted(&mut self, quote: char) -> Result<Token, QueryError> {
        let position = self.position();
        let rest = self.rest();
        let mut text = String::new();
        let mut characters = rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' if characters
                    .peek()
                    .is_some_and(|(_, n)| *n == quote || *n == '\\') =>
                {
                    text.extend(characters.next().map(|(_, next)| next));
                }
                c if c == quote => {
                    self.at += at + 1;
                    return Ok(Token::Quoted(text));
                }
                c => text.push(c),
            }
        }
        Err(QueryError {
            reason: format!("the quote {quote} is not closed"),
            at: position,
        })
    }
}

/// How many bytes the word at the beginning of `text` has. At least one character.
fn word_length(text: &str, expecting: Expecting) -> usize {
    let mut depth = 0usize;
    let mut brackets = 0usize;
    for (at, c) in text.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        let ends = match c {
            c if c.is_whitespace() => true,
            '(' if expecting == Expecting::Argument => {
                depth += 1;
                false
            }
            ')' if depth > 0 => {
                depth -= 1;
                false
            }
            // A character class of a pattern; a list is never begun in the middle of a word.
            '[' if expecting == Expecting::Argument && at > 0 => {
                brackets += 1;
                false
            }
            ']' if brackets > 0 => {
                brackets -= 1;
                false
            }
            '(' | ')' | '[' | ']' => true,
            ',' => depth == 0 && brackets == 0,
            '&' => rest.starts_with("&&"),
            '|' => rest.starts_with("||"),
            '=' | '!' | '<' | '>' | '~' => expecting == Expecting::Anything,
            _ => false,
        };
        if ends && at > 0 {
            return at;
        }
    }
    text.len()
}
