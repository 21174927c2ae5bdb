//! A record's form on disk: a head of 20 bytes, then the line.
//!
//! What always holds: a record that is not whole, or not one of ours, reads as the end. It can only
//! be the last one of a shim that was killed while it wrote.

use gantry_env::Timestamp;

use super::{LogRecord, LogStream};

pub(crate) const HEAD: usize = 20;
const MARK: u16 = 0x4c47;
const STDERR: u8 = 1;
const PARTIAL: u8 = 2;

/// Appends a record to `out`.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    at: Timestamp,
    stream: LogStream,
    partial: bool,
    dropped_before: u64,
    line: &[u8],
) {
    let mut flags = 0;
    if stream == LogStream::Stderr {
        flags |= STDERR;
    }
    if partial {
        flags |= PARTIAL;
    }
    out.extend_from_slice(&(line.len() as u32).to_le_bytes());
    out.extend_from_slice(&MARK.to_le_bytes());
    out.push(flags);
    out.push(0);
    out.extend_from_slice(&at.as_millis().to_le_bytes());
    out.extend_from_slice(
        &u32::try_from(dropped_before)
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(line);
}

/// The record at the start of `bytes`, which lies at `offset` in the spool.
pub(crate) fn decode(bytes: &[u8], offset: u64) -> Option<LogRecord> {
    let head = bytes.first_chunk::<HEAD>()?;
    let number = |range: std::ops::Range<usize>| {
        head[range]
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    if number(4..6) != u64::from(MARK) {
        return None;
    }
    let length = number(0..4) as usize;
    let line = bytes.get(HEAD..HEAD.checked_add(length)?)?;
    let flags = head[6];
    Some(LogRecord {
        offset,
        end_offset: offset + (HEAD + length) as u64,
        at: Timestamp::from_millis(number(8..16) as i64),
        stream: if flags & STDERR == 0 {
            LogStream::Stdout
        } else {
            LogStream::Stderr
        },
        partial: flags & PARTIAL != 0,
        dropped_before: number(16..20),
        bytes: line.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_torn_one_is_the_end() {
        let mut bytes = Vec::new();
        let at = Timestamp::from_millis(1_700_000_000_123);
        encode(&mut bytes, at, LogStream::Stderr, true, 3, b"hello");
        let record = decode(&bytes, 100).unwrap();
        assert_eq!(record.end_offset, 100 + bytes.len() as u64);
        assert_eq!(
            (record.at, record.stream, record.partial),
            (at, LogStream::Stderr, true)
        );
        assert_eq!(
            (record.dropped_before, record.bytes.as_slice()),
            (3, &b"hello"[..])
        );
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], 0).is_none());
        }
        bytes[4] ^= 1;
        assert!(decode(&bytes, 0).is_none());
    }
}
