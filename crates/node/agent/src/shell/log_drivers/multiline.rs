//! Lines put together to events: a line that matches begins one, the others go on with it.
//!
//! What always holds: an event is not longer than what CloudWatch Logs takes in Docker's driver; a
//! longer one is divided between lines. Where an event ends in the spool is where its last line ends.

use regex::Regex;

use super::lines::Line;

#[derive(Debug)]
pub(super) struct Multiline {
    begins: Regex,
    bytes_max: usize,
    open: Option<Line>,
}

impl Multiline {
    /// The plan has compiled it before, so one that is none matches nothing.
    pub fn new(begins: &str, bytes_max: usize) -> Option<Self> {
        Some(Self {
            begins: Regex::new(begins).ok()?,
            bytes_max,
            open: None,
        })
    }

    /// Takes a line; gives the event that it ends, if it ends one.
    pub fn push(&mut self, line: Line) -> Option<Line> {
        let begins = self.begins.is_match(&line.message);
        match &mut self.open {
            Some(open)
                if !begins && open.message.len() + 1 + line.message.len() <= self.bytes_max =>
            {
                open.message.push('\n');
                open.message.push_str(&line.message);
                open.end = open.end.max(line.end);
                open.clean = line.clean;
                None
            }
            _ => self.open.replace(line),
        }
    }

    pub fn close(&mut self) -> Option<Line> {
        self.open.take()
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}
