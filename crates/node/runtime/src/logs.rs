//! What a container wrote, as records in a bounded spool on disk.
//!
//! What always holds: a record is one line, or a piece of one that was too long (`partial`), so every
//! record ends at a boundary where a reader may stop and go on later. Offsets only grow, belong to one
//! spool, and mean the same after any restart. Only the shim writes or deletes.
//! What it leaves to others: where the lines go, and remembering what was delivered.

pub(crate) mod record;
pub(crate) mod segment;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use gantry_env::Timestamp;

use crate::error::RuntimeError;
use crate::spec::ContainerName;
use crate::task::TaskConnection;

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

/// What one batch may hold, so that a reader's memory is bounded.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Reads one container's spool.
#[derive(Debug)]
pub struct LogReader {
    spool_id: String,
    folder: PathBuf,
    container: ContainerName,
    task: TaskConnection,
    offset: u64,
}

impl LogReader {
    pub(crate) fn new(
        spool_id: String,
        folder: PathBuf,
        container: ContainerName,
        task: TaskConnection,
        offset: u64,
    ) -> LogReader {
        LogReader {
            spool_id,
            folder,
            container,
            task,
            offset,
        }
    }

    /// Which spool it is: the same after a restart, another for every started container.
    pub fn spool_id(&self) -> &str {
        &self.spool_id
    }

    /// Up to `records_max` records that are there now; waits for one where there is none. An empty
    /// answer means the container has ended and all it wrote has been read.
    pub async fn next_batch(&mut self, records_max: usize) -> Result<Vec<LogRecord>, RuntimeError> {
        loop {
            // Asked before reading: what comes between the two is read, or told by the next answer.
            let ended = self.task.log_has_ended(&self.container);
            let (folder, offset) = (self.folder.clone(), self.offset);
            let records =
                tokio::task::spawn_blocking(move || read_from(&folder, offset, records_max))
                    .await
                    .map_err(|error| RuntimeError::runtime(format!("reading a spool: {error}")))?
                    .map_err(|error| {
                        RuntimeError::runtime(format!(
                            "reading the spool of {}: {error}",
                            self.container
                        ))
                    })?;
            if let Some(last) = records.last() {
                self.offset = last.end_offset;
                return Ok(records);
            }
            if ended {
                return Ok(Vec::new());
            }
            self.task.wait_for_log(&self.container, self.offset).await;
        }
    }

    /// Everything before `offset` has been delivered: its space may be used again.
    pub async fn trim(&self, offset: u64) -> Result<(), RuntimeError> {
        self.task.trim(&self.container, offset).await
    }
}

/// Reads whole records from `offset` on, across segments.
fn read_from(folder: &Path, mut offset: u64, records_max: usize) -> io::Result<Vec<LogRecord>> {
    let mut records = Vec::new();
    let mut bytes_read = 0;
    for part in segment::list(folder) {
        if part.end() <= offset || part.length == 0 {
            continue;
        }
        // What was trimmed before a restart is not there any more: go on where there is something.
        offset = offset.max(part.start);
        let bytes = match read_segment(&segment::path(folder, part.start), offset - part.start) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        let from = offset;
        while records.len() < records_max && bytes_read < BATCH_BYTES_MAX {
            let Some(record) = record::decode(&bytes[(offset - from) as usize..], offset) else {
                break;
            };
            offset = record.end_offset;
            bytes_read += record.bytes.len();
            records.push(record);
        }
        if records.len() >= records_max || bytes_read >= BATCH_BYTES_MAX {
            break;
        }
    }
    Ok(records)
}

/// A piece of a segment: more than a batch, so that a record which is cut off here is read next time.
fn read_segment(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(2 * BATCH_BYTES_MAX as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
