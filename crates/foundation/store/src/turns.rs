//! Turns at rows that several requests want to change at the same moment.
//!
//! What always holds: rows that nobody disputes cost nothing here. Once a commit has failed because
//! of a row, whoever changes or expects that row waits in line and is served in the order of coming,
//! so nobody who asks is overtaken for ever. Rows are taken in one order, so nobody waits in a circle.
//! What it leaves to others: deciding anew. A turn is no lock on the row: whoever commits without
//! one, another replica above all, still wins, and the commit says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::{CommitError, Key, Revision, Store, Transaction};

/// The rows in dispute, each with those who wait for it.
#[derive(Default)]
pub struct Turns {
    disputed: Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// As many as `disputed` has, to be seen without its lock.
    count: AtomicUsize,
}

impl Turns {
    /// For one request, from its first attempt to its last.
    pub fn request(&self) -> Turn<'_> {
        Turn {
            turns: self,
            lost_at: None,
            wanted: BTreeSet::new(),
            held: Vec::new(),
        }
    }

    fn disputed(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<tokio::sync::Mutex<()>>>> {
        // A panic while it was held cannot have left it half changed.
        self.disputed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place in line at each row that stood in its way so far.
pub struct Turn<'a> {
    turns: &'a Turns,
    /// Because of this row the last attempt failed.
    lost_at: Option<Key>,
    wanted: BTreeSet<Key>,
    held: Vec<OwnedMutexGuard<()>>,
}

impl Turn<'_> {
    /// Before each attempt, and before anything is read for it: returns once it is this request's
    /// turn at every row that stood in its way. Whatever others may wait for has to be let go first.
    pub async fn come(&mut self) {
        let Some(key) = self.lost_at.take() else {
            return;
        };
        if !self.wanted.insert(key) {
            // It is this request's turn already; somebody without one came first.
            return;
        }
        self.step_back();
        for key in &self.wanted {
            let line = {
                let mut disputed = self.turns.disputed();
                let line = disputed.entry(key.clone()).or_default().clone();
                self.turns.count.store(disputed.len(), Ordering::Release);
                line
            };
            self.held.push(line.lock_owned().await);
        }
    }

    /// Commits, without waiting for a turn. A row at which others have theirs is a conflict at once.
    pub async fn commit(
        &mut self,
        store: &dyn Store,
        transaction: Transaction,
    ) -> Result<Revision, CommitError> {
        let outcome = match self.ahead(&transaction) {
            Some(key) => Err(CommitError::Conflict { key }),
            None => store.commit(transaction).await,
        };
        if let Err(CommitError::Conflict { key }) = &outcome {
            self.lost_at = Some(key.clone());
        }
        outcome
    }

    /// A row of the transaction at which others have their turn.
    fn ahead(&self, transaction: &Transaction) -> Option<Key> {
        if self.turns.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let disputed = self.turns.disputed();
        let mut keys = transaction.keys();
        keys.find(|key| disputed.contains_key(*key) && !self.wanted.contains(*key))
            .cloned()
    }

    /// Lets the next in line go on, and forgets the lines in which nobody stands.
    fn step_back(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        self.held.clear();
        let mut disputed = self.turns.disputed();
        for key in &self.wanted {
            // Besides the map, everybody who holds or waits has a share of the line.
            let line = disputed.get(key);
            if line.is_some_and(|line| Arc::strong_count(line) == 1) {
                disputed.remove(key);
            }
        }
        self.turns.count.store(disputed.len(), Ordering::Release);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.step_back();
    }
}
