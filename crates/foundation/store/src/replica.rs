//! The ordered in-memory copy that every backend answers reads and watches from.
//!
//! What always holds: rows and history change together under one lock, and only after the commit
//! is durable. History is bounded in rows and in bytes, so a watcher that sleeps costs nothing
//! but its own `Lost`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::watch::Change;
use crate::{Prefix, Revision, Row, RowChange, Snapshot};

/// What one commit changes.
pub(crate) struct Staged {
    pub revision: Revision,
    pub changes: Vec<RowChange>,
}

/// How much of the past is kept for watchers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryLimits {
    pub rows: usize,
    pub bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            rows: 8192,
            bytes: 4 * 1024 * 1024,
        }
    }
}

/// A watcher is given about so many rows at a time, always whole commits.
const ROWS_A_CHANGE: usize = 256;

pub(crate) struct Replica {
    state: Mutex<State>,
    /// Tells watchers that there is something to look at.
    head: watch::Sender<Revision>,
    limits: HistoryLimits,
}

pub(crate) struct State {
    rows: Snapshot,
    history: VecDeque<Staged>,
    history_rows: usize,
    history_bytes: usize,
    /// History holds every change after this revision.
    forgotten: Revision,
}

impl Replica {
    pub(crate) fn new(rows: Snapshot, limits: HistoryLimits) -> Arc<Self> {
        let revision = rows.revision();
        Arc::new(Self {
            state: Mutex::new(State {
                rows,
                history: VecDeque::new(),
                history_rows: 0,
                history_bytes: 0,
                forgotten: revision,
            }),
            head: watch::Sender::new(revision),
            limits,
        })
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().rows.clone()
    }

    /// The present rows, held still until the guard is given to [`Replica::publish`] or dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `rows`, which came to be through `commits`, the present ones.
    pub(crate) fn publish(
        &self,
        mut state: MutexGuard<'_, State>,
        rows: Snapshot,
        commits: impl IntoIterator<Item = Staged>,
    ) {
        let revision = rows.revision();
        let before = std::mem::replace(&mut state.rows, rows);
        for commit in commits {
            state.remember(commit);
        }
        state.forget(self.limits);
        drop(state);
        // Freeing what only the old rows held needs no lock.
        drop(before);
        self.head.send_replace(revision);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    /// The changes under `prefixes` after `position`, which moves past all that was looked at.
    pub(crate) fn changes_after(
        &self,
        position: &mut Revision,
        prefixes: &[Prefix],
    ) -> Option<Change> {
        let state = self.lock();
        if *position < state.forgotten || *position > state.rows.revision() {
            return Some(Change::Lost);
        }
        let seen = state
            .history
            .partition_point(|commit| commit.revision <= *position);
        let mut found = Vec::new();
        for commit in state.history.range(seen..) {
            let matching = commit
                .changes
                .iter()
                .filter(|change| prefixes.iter().any(|prefix| prefix.matches(&change.key)));
            found.extend(matching.cloned());
            *position = commit.revision;
            if found.len() >= ROWS_A_CHANGE {
                break;
            }
        }
        (!found.is_empty()).then_some(Change::Rows(found))
    }
}

impl State {
    pub(crate) fn rows(&self) -> &Snapshot {
        &self.rows
    }

    fn remember(&mut self, commit: Staged) {
        self.history_rows += commit.changes.len();
        self.history_bytes += bytes_of(&commit);
        self.history.push_back(commit);
    }

    fn forget(&mut self, limits: HistoryLimits) {
        while self.history_rows > limits.rows || self.history_bytes > limits.bytes {
            let Some(oldest) = self.history.pop_front() else {
                return;
            };
            self.history_rows -= oldest.changes.len();
            self.history_bytes -= bytes_of(&oldest);
            self.forgotten = oldest.revision;
        }
    }
}

fn bytes_of(commit: &Staged) -> usize {
    let bytes = |row: &Option<Row>| row.as_ref().map_or(0, |row| row.value().len());
    let each = |change: &RowChange| bytes(&change.row) + bytes(&change.previous);
    commit.changes.iter().map(each).sum()
}
