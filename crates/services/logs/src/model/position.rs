//! Where an event stands in its stream, and the tokens that lead there.
//!
//! Events are ordered by their own time and, within one millisecond, by the order in
//! which they were taken in. A [`Position`] used as a cursor stands *before* the event of
//! that position, so a page forward and a page backward from one cursor never share an
//! event and never miss one. Tokens look like AWS's (`f/DIGITS/s`), carry a cursor, and
//! carry a proof bound to the stream: a token that was changed, or that is of another
//! stream or of a deleted one of the same name, is refused.

use gantry_archive::Direction;
use gantry_env::Timestamp;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// An event's place, and a cursor just before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Grows by one with every event that the stream takes in.
    pub sequence: u64,
}

impl Position {
    /// Before everything.
    pub const START: Self = Self {
        timestamp: 0,
        sequence: 0,
    };

    pub fn at_time(timestamp: i64) -> Self {
        Self {
            timestamp: timestamp.max(0),
            sequence: 0,
        }
    }

    /// The same place in the archive's words.
    pub fn in_archive(self) -> gantry_archive::Position {
        gantry_archive::Position {
            timestamp: Timestamp::from_millis(self.timestamp),
            offset: self.sequence,
        }
    }

    /// The cursor just behind this event.
    pub fn behind(self) -> Self {
        Self {
            timestamp: self.timestamp,
            sequence: self.sequence + 1,
        }
    }
}

fn letter(direction: Direction) -> char {
    match direction {
        Direction::Forward => 'f',
        Direction::Backward => 'b',
    }
}

/// A token of GetLogEvents. `stream_secret` is random, belongs to one life of one stream,
/// and is never shown.
pub fn seal(direction: Direction, cursor: Position, stream_secret: &[u8]) -> String {
    let mut bytes = [0u8; 23];
    bytes[..6].copy_from_slice(&cursor.timestamp.to_be_bytes()[2..]);
    bytes[6..13].copy_from_slice(&cursor.sequence.to_be_bytes()[1..]);
    let proof = proof(direction, &bytes[..13], stream_secret);
    bytes[13..].copy_from_slice(&proof);
    format!("{}/{}/s", letter(direction), to_digits(&bytes))
}

/// Reads a token that [`seal`] made for this stream.
pub fn open(token: &str, stream_secret: &[u8]) -> Option<(Direction, Position)> {
    let (direction, rest) = match token.split_at_checked(2)? {
        ("f/", rest) => (Direction::Forward, rest),
        ("b/", rest) => (Direction::Backward, rest),
        _ => return None,
    };
    let bytes = from_digits(rest.strip_suffix("/s")?)?;
    if proof(direction, &bytes[..13], stream_secret) != bytes[13..] {
        return None;
    }
    let mut timestamp = [0u8; 8];
    timestamp[2..].copy_from_slice(&bytes[..6]);
    let mut sequence = [0u8; 8];
    sequence[1..].copy_from_slice(&bytes[6..13]);
    Some((
        direction,
        Position {
            timestamp: i64::from_be_bytes(timestamp),
            sequence: u64::from_be_bytes(sequence),
        },
    ))
}

fn proof(direction: Direction, cursor: &[u8], secret: &[u8]) -> [u8; 10] {
    // HMAC takes a key of any length, so this cannot fail.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(secret) else {
        return [0; 10];
    };
    mac.update(&[letter(direction) as u8]);
    mac.update(cursor);
    let full = mac.finalize().into_bytes();
    let mut short = [0u8; 10];
    short.copy_from_slice(&full[..10]);
    short
}

/// An event's id in FilterLogEvents: 56 digits, unique in its group and the same each time
/// it is read (`aws logs tail` tells repeats by it). Ids of a stream sort as its events do.
pub fn event_id(stream: &str, position: Position) -> String {
    let mut bytes = [0u8; 23];
    bytes[..6].copy_from_slice(&position.timestamp.to_be_bytes()[2..]);
    bytes[6..13].copy_from_slice(&position.sequence.to_be_bytes()[1..]);
    bytes[13..].copy_from_slice(&Sha256::digest(stream.as_bytes())[..10]);
    to_digits(&bytes)
}

/// 23 bytes as one number of 56 decimal digits.
fn to_digits(bytes: &[u8; 23]) -> String {
    let mut number = *bytes;
    let mut digits = [b'0'; 56];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u16;
        for byte in &mut number {
            let value = (rest << 8) | u16::from(*byte);
            *byte = (value / 10) as u8;
            rest = value % 10;
        }
        *digit = b'0' + rest as u8;
    }
    digits.iter().map(|d| *d as char).collect()
}

fn from_digits(text: &str) -> Option<[u8; 23]> {
    if text.len() != 56 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut number = [0u8; 23];
    for digit in text.bytes() {
        let mut carry = u16::from(digit - b'0');
        for byte in number.iter_mut().rev() {
            let value = u16::from(*byte) * 10 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_no_changed_one_is_taken() {
        let cursor = Position {
            timestamp: 1_767_225_600_123,
            sequence: 77,
        };
        for direction in [Direction::Forward, Direction::Backward] {
            let token = seal(direction, cursor, b"secret");
            assert_eq!(token.len(), 60, "{token}");
            assert_eq!(open(&token, b"secret"), Some((direction, cursor)));
            assert_eq!(open(&token, b"another"), None);
            for at in 0..token.len() {
                let mut changed = token.clone().into_bytes();
                changed[at] = if changed[at] == b'7' { b'8' } else { b'7' };
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(open(&changed, b"secret"), None, "{changed}");
            }
        }
        let flipped = seal(Direction::Forward, cursor, b"secret").replacen('f', "b", 1);
        assert_eq!(open(&flipped, b"secret"), None);
        for bad in [
            "",
            "f",
            "f/",
            "f//s",
            "ü/1/s",
            &format!("f/{}/s", "9".repeat(56)),
        ] {
            assert_eq!(open(bad, b"secret"), None, "{bad}");
        }
    }

    #[test]
    fn event_ids_differ_by_stream_and_sort_by_position() {
        let place = |timestamp, sequence| Position {
            timestamp,
            sequence,
        };
        let first = event_id("a", place(5, 1));
        assert_eq!(first.len(), 56);
        assert_ne!(first, event_id("b", place(5, 1)));
        assert!(first < event_id("a", place(5, 2)));
        assert!(event_id("a", place(5, 900)) < event_id("a", place(6, 1)));
    }

    #[test]
    fn digits_are_exact() {
        let mut bytes = [0u8; 23];
        assert_eq!(to_digits(&bytes), "0".repeat(56));
        bytes[22] = 255;
        bytes[21] = 1;
        assert_eq!(to_digits(&bytes).trim_start_matches('0'), "511");
        assert_eq!(from_digits(&to_digits(&[255; 23])), Some([255; 23]));
    }
}
