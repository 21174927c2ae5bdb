//! What a container wrote, as records in a bounded spool on disk.
//!
//! What always holds: a record is one line, or a piece of one that was too long (`partial`), so every
//! record ends at a boundary where a reader may stop and go on later. Offsets only grow, belong to one
//! spool, and mean the same after any restart. Only the shim writes or deletes.
//! What it leaves to others: where the lines go, and remembering what was delivered.

use gantry_env::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where the record begins.
    pub offset: u64,
    /// Where the next one begins: what a reader saves and gives to `trim`.
    pub end_offset: u64,
    pub at: Timestamp,
    pub stream: LogStream,
    /// The line goes on in the next record of the same stream.
    pub partial: bool,
    /// Lines dropped right before this one, in non-blocking mode.
    pub dropped_before: u64,
    /// Without its line feed.
    pub bytes: Vec<u8>,
}

/// Reads one container's spool.
#[derive(Debug)]
pub struct LogReader {
    spool_id: String,
}

impl LogReader {
    /// Which spool it is: the same after a restart, another for every started container.
    pub fn spool_id(&self) -> &str {
        &self.spool_id
    }

    /// Up to `records_max` records that are there now; waits for one where there is none. An empty
    /// answer means the container has ended and all it wrote has been read.
    pub async fn next_batch(
        &mut self,
        _records_max: usize,
    ) -> Result<Vec<LogRecord>, crate::RuntimeError> {
        Err(crate::RuntimeError::runtime("next_batch is not built yet"))
    }

    /// Everything before `offset` has been delivered: its space may be used again.
    pub async fn trim(&self, _offset: u64) -> Result<(), crate::RuntimeError> {
        Err(crate::RuntimeError::runtime("trim is not built yet"))
    }
}
