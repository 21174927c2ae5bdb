//! Transactional, watchable rows: memory and SQLite behind one trait.
//!
//! What always holds:
//! - A [`Snapshot`] is every row at one revision. Cloning it is one pointer; nothing changes it.
//! - A commit that answers `Ok` is durable (for the durable backends) and was applied whole, on top
//!   of exactly the rows that it expected. One that answers an error changed nothing.
//! - Revisions grow by one with each commit that changes something, on every backend alike.
//! - A watcher sees every change after the revision that it named, in order, or is told
//!   [`Change::Lost`] and loads again. It never silently misses one.
//!
//! What it leaves to others: what rows mean (each service's `tables.rs`), deciding anew after a
//! conflict (the driver in `reconcile`, or the operation, which [`Turns`] keep in line), secondary indexes, and everything that grows without
//! end (`archive`).

#![forbid(unsafe_code)]

mod directory;
mod incarnation;
mod key;
mod memory;
mod replica;
mod row;
mod snapshot;
mod sqlite;
mod table;
mod transaction;
mod turns;
mod watch;

use async_trait::async_trait;

pub use directory::{DirectoryLock, LockError};
pub use incarnation::{Incarnation, IncarnationRow};
pub use key::{Key, Prefix};
pub use memory::MemoryStore;
pub use row::{Revision, Row, RowChange, RowError};
pub use snapshot::Snapshot;
pub use sqlite::{OpenError, SqliteCounters, SqliteStore};
pub use table::{Table, Versioned};
pub use transaction::{MAX_BYTES, MAX_OPERATIONS, Transaction};
pub use turns::{Turn, Turns};
pub use watch::{Change, Changes};

/// Where every durable row lives.
#[async_trait]
pub trait Store: Send + Sync {
    /// Every row, consistent at one revision: at least that of the last commit that was answered.
    fn snapshot(&self) -> Snapshot;

    /// Applies the whole transaction or nothing. Answers the revision at which its rows now stand;
    /// a transaction that changes nothing answers the present one.
    ///
    /// Dropping the future does not take the transaction back: it may still be committed.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError>;

    /// The changes under `prefix` after `after`, which is usually a snapshot's revision.
    fn watch(&self, prefix: &Prefix, after: Revision) -> Changes;

    /// Which store this is: drawn when it was created, and another one for a store made anew.
    fn incarnation(&self) -> String {
        incarnation::of(&self.snapshot())
    }
}

/// Why nothing was committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The row is not as the transaction expected it. Read again and decide again.
    #[error("{key} has changed since it was read")]
    Conflict { key: Key },
    /// The transaction is over a limit that holds on every backend.
    #[error("a transaction may have {limit} {unit}, this one has {actual}")]
    TooLarge {
        unit: &'static str,
        limit: usize,
        actual: usize,
    },
    /// A row could not be written down.
    #[error("{key} cannot be stored: {reason}")]
    Invalid { key: Key, reason: String },
    /// The disk refused, and the rows are as they were; the same transaction may succeed later.
    /// Only a disk that could not even be read back leaves it open whether this one was written:
    /// that is found out before the next commit.
    #[error("the store cannot write: {reason}")]
    Io { reason: String },
}

impl CommitError {
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}
