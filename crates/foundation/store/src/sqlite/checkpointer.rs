//! Moves the write-ahead log into the database, on a thread and a connection of its own.
//!
//! Checkpoints inside commits are what made the slowest of them slow. A passive checkpoint blocks
//! no writer, and once it has caught up, the next commit begins the log anew, so it stays small.
//! While writers never pause it may not quite catch up; past a limit it says so, and the
//! committer finishes the job between two batches.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::replica::Staged;

const PAGE_BYTES: usize = 4096;

/// About how much is written between two checkpoints.
const CHECKPOINT_EVERY_BYTES: usize = 4 * 1024 * 1024;

/// The size of the log at which the committer has to help.
const OVERDUE_BYTES: usize = 32 * 1024 * 1024;

/// How often one checkpoint runs after what was written during the last.
const PASSES: usize = 3;

pub(super) struct Checkpointer {
    connection: Connection,
}

/// The committer's end.
pub(super) struct CheckpointSignal {
    wake: SyncSender<()>,
    overdue: Arc<AtomicBool>,
    bytes_since: usize,
}

impl Checkpointer {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -256;",
        )?;
        Ok(Self { connection })
    }

    /// Runs until the signal is dropped.
    pub(super) fn start(self) -> std::io::Result<(CheckpointSignal, JoinHandle<()>)> {
        // One wake-up may wait: more would only repeat what the first does.
        let (wake, wakes) = sync_channel(1);
        let overdue = Arc::new(AtomicBool::new(false));
        let signal = CheckpointSignal {
            wake,
            overdue: overdue.clone(),
            bytes_since: 0,
        };
        let thread = std::thread::Builder::new()
            .name("store-checkpointer".to_owned())
            .spawn(move || self.run(&wakes, &overdue))?;
        Ok((signal, thread))
    }

    fn run(self, wakes: &Receiver<()>, overdue: &AtomicBool) {
        while wakes.recv().is_ok() {
            for _ in 0..PASSES {
                match checkpoint(&self.connection) {
                    Ok(log) if log.is_done() => break,
                    Ok(log) if log.frames * PAGE_BYTES > OVERDUE_BYTES => {
                        overdue.store(true, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        // Nothing is lost: the log keeps growing until a later one succeeds.
                        tracing::warn!(%error, "the store's write-ahead log could not be checkpointed");
                        break;
                    }
                }
            }
        }
    }
}

impl CheckpointSignal {
    /// Told after each durable write; wakes the checkpointer once enough has come together.
    pub(super) fn written(&mut self, commits: &[Staged]) {
        let changes = commits.iter().flat_map(|commit| &commit.changes);
        // A changed row costs the log at least its page, and the batch the page of the revision.
        let pages = changes.map(|change| {
            let bytes = change.row.as_ref().map_or(0, |row| row.value().len());
            1 + bytes / PAGE_BYTES
        });
        self.bytes_since += (1 + pages.sum::<usize>()) * PAGE_BYTES;
        if self.bytes_since >= CHECKPOINT_EVERY_BYTES {
            self.bytes_since = 0;
            // Full means that it is awake already.
            let _ = self.wake.try_send(());
        }
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    pub(super) fn caught_up(&self) {
        self.overdue.store(false, Ordering::Relaxed);
    }
}

/// What stood in the log and how much of it has reached the database.
pub(super) struct Log {
    frames: usize,
    moved: usize,
}

impl Log {
    fn is_done(&self) -> bool {
        self.moved >= self.frames
    }
}

/// One passive checkpoint.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<Log> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (frames, moved) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], read)?;
    // Both are minus one where there is no log at all.
    let count = |pages| usize::try_from(pages).unwrap_or(0);
    Ok(Log {
        frames: count(frames),
        moved: count(moved),
    })
}
