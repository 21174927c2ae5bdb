//! Repeats of a batch from a Gantry agent are recognised by where they stand in its spool.
//!
//! An agent cuts its batches from a spool file and puts into `sequenceToken` where the
//! batch stands in it: `gantry:SPOOL:START-END`, in bytes. For each spool a stream remembers,
//! durably with the events, the end of what it holds. Ends only grow, and an event is never
//! stored twice: a batch that ends at or before the mark is acknowledged as it is; one that
//! starts at or behind the mark is new; one that starts before and ends behind it is refused with
//! the offset to go on from, because only the agent knows where in the spool each event ends.
//! `gantry:SPOOL:END`, which does not say where it starts, is new if it ends behind the mark.
//! Any other client's token says nothing and is ignored.

use std::fmt;
use std::str::FromStr;

/// The place of a batch in the spool it was cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolToken {
    pub spool: String,
    pub start: Option<u64>,
    pub end: u64,
}

const PREFIX: &str = "gantry:";
const MAX_SPOOL_LEN: usize = 128;

impl SpoolToken {
    /// Reads a `sequenceToken`; anything that is not of the agent's form is another client's.
    pub fn parse(token: &str) -> Option<Self> {
        token.parse().ok()
    }
}

impl FromStr for SpoolToken {
    type Err = ();

    fn from_str(token: &str) -> Result<Self, ()> {
        let rest = token.strip_prefix(PREFIX).ok_or(())?;
        let (spool, place) = rest.rsplit_once(':').ok_or(())?;
        let named = !spool.is_empty() && spool.len() <= MAX_SPOOL_LEN;
        if !named || !spool.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(());
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| ());
        let (start, end) = match place.split_once('-') {
            Some((start, end)) => (Some(number(start)?), number(end)?),
            None => (None, number(place)?),
        };
        if start.is_some_and(|start| start >= end) {
            return Err(());
        }
        Ok(Self {
            spool: spool.to_owned(),
            start,
            end,
        })
    }
}

impl fmt::Display for SpoolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:", self.spool)?;
        if let Some(start) = self.start {
            write!(f, "{start}-")?;
        }
        write!(f, "{}", self.end)
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolDecision {
    /// All of it is held already.
    AlreadyHeld,
    /// None of it is.
    New,
    /// Some of it is: the sender must go on from `held_to`.
    Overlaps { held_to: u64 },
}

/// Decides over a batch of a spool that is held up to `held_to`, if any of it is.
pub fn decide(held_to: Option<u64>, token: &SpoolToken) -> SpoolDecision {
    match held_to {
        Some(held_to) if token.end <= held_to => SpoolDecision::AlreadyHeld,
        Some(held_to) if token.start.is_some_and(|start| start < held_to) => {
            SpoolDecision::Overlaps { held_to }
        }
        _ => SpoolDecision::New,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_foreign_ones_are_ignored() {
        for text in ["gantry:0a1b:0-77", "gantry:0a1b:77", "gantry:a:b:c:1-2"] {
            assert_eq!(SpoolToken::parse(text).unwrap().to_string(), text);
        }
        for foreign in [
            "",
            "49590302938504958034598",
            "gantry:",
            "gantry::1-2",
            "gantry:a:2-2",
            "gantry:a:-1",
            "gantry:a:x",
            "gantry:a b:3",
            "gantry:a:99999999999999999999999",
        ] {
            assert_eq!(SpoolToken::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_batch_is_held_new_or_overlaps() {
        let token = |start, end| SpoolToken {
            spool: "s".into(),
            start,
            end,
        };
        use SpoolDecision::{AlreadyHeld, New, Overlaps};
        assert_eq!(decide(None, &token(None, 10)), New);
        assert_eq!(decide(None, &token(Some(5), 10)), New);
        assert_eq!(decide(Some(100), &token(Some(50), 100)), AlreadyHeld);
        assert_eq!(decide(Some(100), &token(None, 99)), AlreadyHeld);
        assert_eq!(decide(Some(100), &token(Some(100), 140)), New);
        assert_eq!(decide(Some(100), &token(None, 140)), New);
        assert_eq!(
            decide(Some(100), &token(Some(99), 140)),
            Overlaps { held_to: 100 }
        );
    }
}
