//! Moves the write-ahead log into the database, on a thread and a connection of its own.
//!
//! Checkpoints inside commits are what made the slowest of them slow. A passive checkpoint blocks
//! no writer, and once the whole log has been moved, the next commit begins it anew. While writers
//! never pause, something new always stands behind what was moved, so the log would grow without
//! end; past a limit the committer moves that small rest itself, between two batches.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::replica::Staged;

const PAGE_BYTES: usize = 4096;

/// About how much is written between two checkpoints.
const CHECKPOINT_EVERY_BYTES: usize = 4 * 1024 * 1024;

/// The size of the log at which the committer has to help.
const OVERDUE_BYTES: usize = 16 * 1024 * 1024;

/// How often one checkpoint runs after what was written during the last.
const PASSES: usize = 3;

/// How many new pages in the log make another pass worth its fsync.
const PASS_FRAMES: usize = 64;

pub(super) struct Checkpointer {
    connection: Connection,
}

/// The committer's end.
pub(super) struct CheckpointSignal {
    wake: SyncSender<()>,
    shared: Arc<Shared>,
    bytes_since: usize,
}

#[derive(Default)]
struct Shared {
    /// The log is larger than it should be although all but its end has been moved.
    overdue: AtomicBool,
    /// Held during a checkpoint: of two at once, SQLite would let one return without doing anything.
    one_at_a_time: Mutex<()>,
}

impl Shared {
    fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
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
        let shared = Arc::new(Shared::default());
        let signal = CheckpointSignal {
            wake,
            shared: shared.clone(),
            bytes_since: 0,
        };
        let thread = std::thread::Builder::new()
            .name("store-checkpointer".to_owned())
            .spawn(move || self.run(&wakes, &shared))?;
        Ok((signal, thread))
    }

    fn run(self, wakes: &Receiver<()>, shared: &Shared) {
        while wakes.recv().is_ok() {
            let mut frames = 0;
            for _ in 0..PASSES {
                let turn = shared.take_turn();
                let log = checkpoint(&self.connection);
                drop(turn);
                match log {
                    // Nothing came while it ran, or so little that another pass would be all fsync.
                    Ok(log) if log.frames < frames + PASS_FRAMES => {
                        frames = log.frames;
                        break;
                    }
                    Ok(log) => frames = log.frames,
                    Err(error) => {
                        // Nothing is lost: the log keeps growing until a later one succeeds.
                        tracing::warn!(%error, "the store's write-ahead log could not be checkpointed");
                        break;
                    }
                }
            }
            if frames * PAGE_BYTES > OVERDUE_BYTES {
                shared.overdue.store(true, Ordering::Relaxed);
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

    /// Called by the committer between two batches, when nobody writes: moves what is left of a
    /// log that has grown too large, so that the next commit begins it anew.
    pub(super) fn help(&self, connection: &Connection) {
        if !self.shared.overdue.swap(false, Ordering::Relaxed) {
            return;
        }
        let _turn = self.shared.take_turn();
        if let Err(error) = checkpoint(connection) {
            tracing::warn!(%error, "the store's write-ahead log could not be checkpointed");
        }
    }
}

/// What stood in the log.
struct Log {
    frames: usize,
}

/// One passive checkpoint.
fn checkpoint(connection: &Connection) -> rusqlite::Result<Log> {
    let frames = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        row.get::<_, i64>(1)
    })?;
    // Minus one where there is no log at all.
    let frames = usize::try_from(frames).unwrap_or(0);
    Ok(Log { frames })
}
