//! Following changes, in order and without gaps.

use std::sync::Arc;

use tokio::sync::watch;

use crate::replica::Replica;
use crate::{Prefix, Revision, RowChange, Snapshot};

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Changes in the order of their commits; one commit's are never divided.
    Rows(Vec<RowChange>),
    /// What the watcher has not seen is no longer kept, or the store is not the one it read.
    /// Load everything again at one revision: [`Changes::reload`].
    Lost,
}

/// The changes under some prefixes after a revision. It holds a place in history, no queue.
pub struct Changes {
    replica: Arc<Replica>,
    prefixes: Vec<Prefix>,
    position: Revision,
    head: watch::Receiver<Revision>,
}

impl Changes {
    pub(crate) fn new(replica: Arc<Replica>, prefix: Prefix, after: Revision) -> Self {
        let head = replica.subscribe();
        Self {
            replica,
            prefixes: vec![prefix],
            position: after,
            head,
        }
    }

    /// Watches `prefix` as well.
    pub fn also(mut self, prefix: &Prefix) -> Self {
        self.prefixes.push(prefix.clone());
        self
    }

    /// The next change. Dropping the future loses nothing. It needs no particular runtime.
    pub async fn next(&mut self) -> Change {
        loop {
            // Marked as seen before looking, so that what comes while looking wakes us again.
            self.head.borrow_and_update();
            if let Some(change) = self.try_next() {
                return change;
            }
            if self.head.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The next change if there is one now. `Lost` is answered until [`Changes::reload`].
    pub fn try_next(&mut self) -> Option<Change> {
        self.replica
            .changes_after(&mut self.position, &self.prefixes)
    }

    /// Waits until [`Changes::try_next`] has something, without taking it. Dropping the future
    /// loses nothing.
    pub async fn ready(&mut self) {
        loop {
            self.head.borrow_and_update();
            let mut position = self.position;
            let found = self.replica.changes_after(&mut position, &self.prefixes);
            if found.is_some() {
                return;
            }
            // All of that was of no concern here, and need not be looked at again.
            self.position = position;
            if self.head.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Every row at the present revision; the changes go on from there.
    pub fn reload(&mut self) -> Snapshot {
        let snapshot = self.replica.snapshot();
        self.position = snapshot.revision();
        snapshot
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Changes({:?} after {:?})", self.prefixes, self.position)
    }
}
