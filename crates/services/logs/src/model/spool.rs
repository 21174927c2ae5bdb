//! Repeats of a batch from a Gantry agent are recognised by where they end in its spool.
//!
//! An agent cuts its batches from a spool file and puts into `sequenceToken` where the
//! batch stands in it: `gantry:SPOOL:START-END`, in bytes (`gantry:SPOOL:END` where it does
//! not say where the batch starts). For each spool a stream remembers, durably with the
//! events, the end of what it holds. Ends only grow, and a batch is never stored twice:
//! a batch that ends at or before the mark is acknowledged as it is; one that repeats the
//! last batch and goes on is stored from where the repeat ends; one that starts in the
//! middle of what is held is refused with the offset to go on from, since nobody can tell
//! which of its events are new. Any other client's token says nothing and is ignored.

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

/// How far a stream holds a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolMark {
    pub end: u64,
    /// Where the last batch started, if it said so, and how many events it carried.
    pub last_start: Option<u64>,
    pub last_events: u32,
}

impl SpoolMark {
    /// The mark once a batch has been stored.
    pub fn after(token: &SpoolToken, events: usize) -> Self {
        Self {
            end: token.end,
            last_start: token.start,
            last_events: u32::try_from(events).unwrap_or(u32::MAX),
        }
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolDecision {
    /// All of it is held already.
    AlreadyHeld,
    /// Store it without its first `skip` events, which are held.
    Store { skip: usize },
    /// It starts inside what is held: the sender must go on from `held_to`.
    Overlaps { held_to: u64 },
}

pub fn decide(mark: Option<SpoolMark>, token: &SpoolToken) -> SpoolDecision {
    let Some(mark) = mark else {
        return SpoolDecision::Store { skip: 0 };
    };
    if token.end <= mark.end {
        return SpoolDecision::AlreadyHeld;
    }
    match token.start {
        None => SpoolDecision::Store { skip: 0 },
        Some(start) if start >= mark.end => SpoolDecision::Store { skip: 0 },
        Some(start) if mark.last_start == Some(start) => SpoolDecision::Store {
            skip: mark.last_events as usize,
        },
        Some(_) => SpoolDecision::Overlaps { held_to: mark.end },
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
    fn a_batch_is_held_new_a_repeat_that_goes_on_or_an_overlap() {
        let token = |start, end| SpoolToken {
            spool: "s".into(),
            start,
            end,
        };
        let mark = Some(SpoolMark::after(&token(Some(50), 100), 7));
        use SpoolDecision::{AlreadyHeld, Overlaps, Store};
        assert_eq!(decide(None, &token(None, 10)), Store { skip: 0 });
        assert_eq!(decide(mark, &token(Some(50), 100)), AlreadyHeld);
        assert_eq!(decide(mark, &token(None, 99)), AlreadyHeld);
        assert_eq!(decide(mark, &token(Some(100), 140)), Store { skip: 0 });
        assert_eq!(decide(mark, &token(None, 140)), Store { skip: 0 });
        assert_eq!(decide(mark, &token(Some(50), 140)), Store { skip: 7 });
        assert_eq!(
            decide(mark, &token(Some(20), 140)),
            Overlaps { held_to: 100 }
        );
    }
}
