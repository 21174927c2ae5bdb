//! The numbers of frames: (session, n) in 53 bits, so that they survive any JSON reader.
//!
//! What always holds: a later session's numbers are all above an earlier session's, and within a
//! session each number is above the last. The Amazon ECS agent drops a manifest that is not newer
//! than everything it has seen, so an unchanged set that is sent again must carry a new number.
//! What it leaves to others: committing the session's number durably, once a connect.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Sixteen million frames a session: a session is renewed every half hour.
const COUNTER_BITS: u32 = 24;
/// The rest of the 53 bits that a double holds exactly.
const SESSION_BITS: u32 = 53 - COUNTER_BITS;

/// Where a frame stands among all frames ever sent to one container instance.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FrameNumber(i64);

/// A session has sent all the frames it has numbers for; the next connect begins a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this session has used all its frame numbers; reconnect to begin a new one")]
pub struct NumberExhausted;

impl FrameNumber {
    /// The highest session that can be numbered.
    pub const MAX_SESSION: u64 = (1 << SESSION_BITS) - 1;

    /// The number that stands before the first frame of a session.
    pub fn start_of(session: u64) -> Result<FrameNumber, NumberExhausted> {
        if session > Self::MAX_SESSION {
            return Err(NumberExhausted);
        }
        Ok(FrameNumber((session << COUNTER_BITS) as i64))
    }

    /// The next number of the same session.
    pub fn next(self) -> Result<FrameNumber, NumberExhausted> {
        let next = FrameNumber(self.0 + 1);
        if next.session() == self.session() {
            Ok(next)
        } else {
            Err(NumberExhausted)
        }
    }

    pub fn session(self) -> u64 {
        (self.0 as u64) >> COUNTER_BITS
    }

    pub fn counter(self) -> u64 {
        (self.0 as u64) & ((1 << COUNTER_BITS) - 1)
    }

    /// As it stands in `seqNum` and `timeline`.
    pub fn as_i64(self) -> i64 {
        self.0
    }

    /// As read from a frame. A negative number is older than everything.
    pub fn from_i64(number: i64) -> FrameNumber {
        FrameNumber(number.max(0))
    }
}

impl fmt::Display for FrameNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session(), self.counter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_session_is_above_every_number_of_an_earlier_one() {
        let last_of_one = FrameNumber((2 << COUNTER_BITS) - 1);
        assert_eq!(last_of_one.session(), 1);
        assert_eq!(last_of_one.next(), Err(NumberExhausted));
        assert!(FrameNumber::start_of(2).unwrap() > last_of_one);
    }

    #[test]
    fn every_number_is_exact_in_a_double() {
        let highest = FrameNumber::start_of(FrameNumber::MAX_SESSION)
            .unwrap()
            .as_i64()
            + ((1 << COUNTER_BITS) - 1);
        assert_eq!(highest, (1_i64 << 53) - 1);
        assert_eq!(highest as f64 as i64, highest);
        assert_eq!(
            FrameNumber::start_of(FrameNumber::MAX_SESSION + 1),
            Err(NumberExhausted)
        );
    }

    #[test]
    fn numbers_grow_within_a_session() {
        let mut number = FrameNumber::start_of(7).unwrap();
        for n in 1..100 {
            let next = number.next().unwrap();
            assert!(next > number);
            assert_eq!((next.session(), next.counter()), (7, n));
            number = next;
        }
    }
}
