//! Rows in memory only: for tests and the world.
//!
//! A commit is done when it is first polled, so it needs no runtime.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_env::{Env, Timestamp};

use crate::replica::{HistoryLimits, Replica};
use crate::{
    Changes, CommitError, Incarnation, Prefix, Revision, Snapshot, Store, Transaction, incarnation,
};

pub struct MemoryStore {
    replica: Arc<Replica>,
}

impl MemoryStore {
    /// A store whose incarnation is always the same, for tests.
    pub fn new() -> Self {
        Self::created(
            "memory".to_owned(),
            Timestamp::EPOCH,
            HistoryLimits::default(),
        )
    }

    /// A store with an incarnation of its own.
    pub fn with_env(env: &Env) -> Self {
        let id = incarnation::draw(env);
        Self::created(id, env.now(), HistoryLimits::default())
    }

    /// A store that keeps only about `rows` changes for watchers, to test what `Lost` does.
    pub fn with_history(rows: usize) -> Self {
        let limits = HistoryLimits {
            rows,
            ..HistoryLimits::default()
        };
        Self::created("memory".to_owned(), Timestamp::EPOCH, limits)
    }

    fn created(id: String, at: Timestamp, limits: HistoryLimits) -> Self {
        let store = Self {
            replica: Replica::new(Snapshot::empty(), limits),
        };
        let created = store.apply(&Incarnation::creation(id, at));
        debug_assert_eq!(created, Ok(Revision(1)));
        store
    }

    fn apply(&self, transaction: &Transaction) -> Result<Revision, CommitError> {
        transaction.admit()?;
        let state = self.replica.lock();
        let mut rows = state.rows().clone();
        let staged = transaction.stage(&mut rows)?;
        let revision = rows.revision();
        if staged.is_some() {
            self.replica.publish(state, rows, staged);
        }
        Ok(revision)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn snapshot(&self) -> Snapshot {
        self.replica.snapshot()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        self.apply(&transaction)
    }

    fn watch(&self, prefix: &Prefix, after: Revision) -> Changes {
        Changes::new(self.replica.clone(), prefix.clone(), after)
    }
}
