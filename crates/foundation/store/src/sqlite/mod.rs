//! The embedded default: rows in one SQLite table, WAL, synchronous FULL.
//!
//! What always holds: one thread writes, and commits that wait together share one transaction of
//! SQLite and so one fsync. Reads never touch SQLite: they come from the replica, which shows a
//! commit once it is durable. Checkpoints run on another connection, off the commit path.

mod checkpointer;
mod committer;
mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use gantry_env::Env;
use tokio::sync::{mpsc, oneshot};

use self::checkpointer::Checkpointer;
use self::committer::{Committer, Request};
use self::file::RowFile;
use crate::directory::{DirectoryLock, LockError};
use crate::replica::{HistoryLimits, Replica};
use crate::{Changes, CommitError, Prefix, Revision, Snapshot, Store, Transaction, incarnation};

pub use self::committer::SqliteCounters;

/// How many commits may wait for the committer before callers wait to hand theirs in.
const QUEUE: usize = 1024;

pub struct SqliteStore {
    replica: Arc<Replica>,
    counters: Arc<committer::Counters>,
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Request>>,
    threads: Vec<JoinHandle<()>>,
    /// Let go last, after both threads have closed the file.
    _lock: DirectoryLock,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(
        "{path} has store version {found}, and this Gantry knows version {known}: use the Gantry that wrote it, or a newer one",
        path = .path.display()
    )]
    UnknownVersion {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("{path} is not a store of Gantry: {reason}", path = .path.display())]
    NotAStore { path: PathBuf, reason: String },
    #[error("the store {path} cannot be opened: {reason}", path = .path.display())]
    Io { path: PathBuf, reason: String },
}

impl SqliteStore {
    /// Opens the store in `directory`, or makes one there. It reads every row, so what is answered
    /// afterwards comes from memory.
    pub fn open(directory: impl AsRef<Path>, env: Env) -> Result<Self, OpenError> {
        let lock = DirectoryLock::take(directory.as_ref())?;
        let path = directory.as_ref().join("rows.sqlite");
        let file = RowFile::open(&path, || {
            crate::Incarnation::creation(incarnation::draw(&env), env.now())
        })?;
        let failed = |reason: String| OpenError::Io {
            path: path.clone(),
            reason,
        };
        let rows = file.load().map_err(|error| failed(error.to_string()))?;
        let checkpointer = Checkpointer::open(&path).map_err(|error| failed(error.to_string()))?;

        let replica = Replica::new(rows, HistoryLimits::default());
        let counters = Arc::new(committer::Counters::default());
        let (queue, requests) = mpsc::channel(QUEUE);
        let (checkpoints, checkpointing) = checkpointer
            .start()
            .map_err(|error| failed(error.to_string()))?;
        let committer = Committer::new(file, replica.clone(), counters.clone(), checkpoints);
        let committing = std::thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run(requests))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            replica,
            counters,
            queue: Some(queue),
            threads: vec![committing, checkpointing],
            _lock: lock,
        })
    }

    /// What has been done since it was opened.
    pub fn counters(&self) -> SqliteCounters {
        self.counters.read()
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn snapshot(&self) -> Snapshot {
        self.replica.snapshot()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.admit()?;
        let (reply, answer) = oneshot::channel();
        let stopped = || CommitError::Io {
            reason: "it has been closed".to_owned(),
        };
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        let request = Request { transaction, reply };
        queue.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    fn watch(&self, prefix: &Prefix, after: Revision) -> Changes {
        Changes::new(self.replica.clone(), prefix.clone(), after)
    }
}

/// Everything handed in is committed before the file is closed.
impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }
}
