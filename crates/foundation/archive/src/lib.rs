//! Append-only streams of records: log events, history, metrics. What grows without end is here.
//!
//! What always holds:
//! - An append that answers `Ok` is durable, whole, and stands at the offsets that it was told,
//!   together with the cursor that came with it. One that answers an error changed nothing.
//! - Offsets of a stream begin at 0 and have no gaps, except for what was deleted at its front.
//! - Memory is bounded however much is stored: there is no index in it, only small caches.
//! - Thousands of streams of a few lines each share segments; a stream is not a file.
//!
//! How: fresh records and the catalogue of all chunks stand in one SQLite file, whose log is the
//! write-ahead segment. Once enough has come together, records move, compressed, into immutable
//! segments in an object store, and only their catalogue entries stay.
//!
//! What it leaves to others: what records mean, their order by time within a stream (they are kept
//! in the order of appending), and deciding what is old.

#![forbid(unsafe_code)]

mod archive;
mod block;
mod catalog;
mod committer;
mod housekeeper;
mod read;
mod scan;
mod segments;

pub use archive::{Archive, ArchiveCounters, Tail};
pub use block::Record;
pub use catalog::StreamInfo;
pub use read::{Direction, Order, Page, Position, Read, StoredRecord};
pub use scan::{FoundRecord, Scan, ScanPage, ScanPlace, Sieve};

use bytes::Bytes;

/// Records to be appended to one stream, which is made if it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub stream: String,
    pub records: Vec<Record>,
    /// Kept beside the stream in the same durable write, in place of the one before. `None` leaves
    /// it as it is.
    pub cursor: Option<Bytes>,
    /// What the cursor must be now, for whoever decided by having read it.
    pub expected_cursor: ExpectedCursor,
}

impl Append {
    pub fn new(stream: impl Into<String>, records: Vec<Record>) -> Self {
        Self {
            stream: stream.into(),
            records,
            cursor: None,
            expected_cursor: ExpectedCursor::Any,
        }
    }

    /// Replaces `before`, which must still be the stream's cursor, by `after`.
    pub fn with_cursor(mut self, before: Option<Bytes>, after: Bytes) -> Self {
        self.expected_cursor = ExpectedCursor::Is(before);
        self.cursor = Some(after);
        self
    }
}

/// See [`Append::expected_cursor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedCursor {
    Any,
    Is(Option<Bytes>),
}

/// The most bytes that one call may append, so that memory stays bounded.
pub const MAX_APPEND_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Somebody else has moved the cursor since it was read. Nothing was appended.
    #[error("the cursor of {stream} has moved since it was read")]
    CursorMoved { stream: String },
    #[error("one append may have {MAX_APPEND_BYTES} bytes, this one has {actual}")]
    TooLarge { actual: usize },
    /// The disk refused, or something on it is damaged.
    #[error("the archive cannot be used: {reason}")]
    Io { reason: String },
    /// Made by a Gantry that this one does not know, or by another program.
    #[error("{reason}")]
    Refused { reason: String },
}

impl ArchiveError {
    pub(crate) fn io(error: impl std::fmt::Display) -> Self {
        Self::Io {
            reason: error.to_string(),
        }
    }
}

impl From<rusqlite::Error> for ArchiveError {
    fn from(error: rusqlite::Error) -> Self {
        Self::io(error)
    }
}

impl From<object_store::Error> for ArchiveError {
    fn from(error: object_store::Error) -> Self {
        Self::io(error)
    }
}
