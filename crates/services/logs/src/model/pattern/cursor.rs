//! A place in the text of a pattern, and the few words that all forms of patterns are made of.

use super::PatternError;

pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    pub fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes `word` if it stands here.
    pub fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// Takes a word of letters, whatever their case, if it stands here by itself.
    pub fn take_keyword(&mut self, word: &str) -> bool {
        let rest = self.rest();
        let Some(found) = rest.get(..word.len()) else {
            return false;
        };
        let goes_on = rest[word.len()..]
            .chars()
            .next()
            .is_some_and(|c| c.is_alphanumeric() || c == '_');
        let is_it = found.eq_ignore_ascii_case(word) && !goes_on;
        if is_it {
            self.at += word.len();
        }
        is_it
    }

    pub fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    pub fn expect(&mut self, word: &str) -> Result<(), PatternError> {
        match self.take(word) {
            true => Ok(()),
            false => Err(self.expected(&format!("'{word}'"))),
        }
    }

    /// What stands between two marks of which the first has been taken. A mark that is meant as it
    /// is stands behind a backslash; what else a backslash means is left to the reader.
    pub fn until(&mut self, mark: char, keep_escapes: bool) -> Result<String, PatternError> {
        let mut found = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((index, c)) = chars.next() {
            if c == mark {
                self.at += index + c.len_utf8();
                return Ok(found);
            }
            if c == '\\' {
                if let Some((_, escaped)) = chars.next() {
                    let is_plain = escaped == mark || (escaped == '\\' && !keep_escapes);
                    if !is_plain {
                        found.push('\\');
                    }
                    found.push(escaped);
                }
                continue;
            }
            found.push(c);
        }
        Err(PatternError::new(format!(
            "Invalid filter pattern: a {mark} has no counterpart"
        )))
    }

    pub fn expected(&self, what: &str) -> PatternError {
        let place = self.text[..self.at].chars().count() + 1;
        PatternError::new(format!(
            "Invalid filter pattern: {what} is expected at character {place}"
        ))
    }
}
