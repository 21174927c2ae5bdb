//! The one thread that writes. It takes every commit that waits, and makes them durable together.
//!
//! What always holds: an answer is given only when what it says is on disk, or is known not to be.
//! A commit that conflicts with one of the same batch is told so only after that one is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::checkpointer::CheckpointSignal;
use super::file::RowFile;
use crate::replica::{Replica, Staged};
use crate::{CommitError, Revision, Snapshot, Transaction};

/// The most commits, and about the most bytes, that share one fsync.
const BATCH_COMMITS: usize = 256;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

pub(super) struct Request {
    pub transaction: Transaction,
    pub reply: oneshot::Sender<Result<Revision, CommitError>>,
}

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SqliteCounters {
    /// Commits that were answered `Ok`.
    pub commits: u64,
    /// Commits that were refused because a row was not as expected.
    pub conflicts: u64,
    /// Durable writes, each shared by all commits that waited for it.
    pub syncs: u64,
    /// Durable writes that the disk refused.
    pub failed_syncs: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    commits: AtomicU64,
    conflicts: AtomicU64,
    syncs: AtomicU64,
    failed_syncs: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> SqliteCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SqliteCounters {
            commits: read(&self.commits),
            conflicts: read(&self.conflicts),
            syncs: read(&self.syncs),
            failed_syncs: read(&self.failed_syncs),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) struct Committer {
    file: RowFile,
    replica: Arc<Replica>,
    counters: Arc<Counters>,
    checkpoints: CheckpointSignal,
    /// A batch whose fate could not be read back, because the disk refused even that.
    undecided: Option<Batch>,
}

/// Commits staged on top of the present rows.
struct Batch {
    rows: Snapshot,
    commits: Vec<Staged>,
}

impl Committer {
    pub(super) fn new(
        file: RowFile,
        replica: Arc<Replica>,
        counters: Arc<Counters>,
        checkpoints: CheckpointSignal,
    ) -> Self {
        Self {
            file,
            replica,
            counters,
            checkpoints,
            undecided: None,
        }
    }

    /// Runs until the store is dropped and all that was handed in is done.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.transaction.bytes();
            let mut waiting = vec![first];
            while waiting.len() < BATCH_COMMITS
                && bytes < BATCH_BYTES
                && let Ok(request) = requests.try_recv()
            {
                bytes += request.transaction.bytes();
                waiting.push(request);
            }
            self.commit(waiting);
            self.checkpoints.help(self.file.connection());
        }
    }

    fn commit(&mut self, waiting: Vec<Request>) {
        let (answers, batch) = match self.settle() {
            Ok(()) => self.stage(&waiting),
            Err(error) => (vec![Err(error); waiting.len()], None),
        };
        let failed = batch.and_then(|batch| self.make_durable(batch).err());
        for (request, answer) in waiting.into_iter().zip(answers) {
            // An answer that rests on the batch, be it a conflict, falls with the batch.
            let answer = match &failed {
                Some(error) => Err(error.clone()),
                None => answer,
            };
            match &answer {
                Ok(_) => count(&self.counters.commits),
                Err(error) if error.is_conflict() => count(&self.counters.conflicts),
                Err(_) => {}
            }
            // Whoever asked may have gone; the commit stands.
            let _ = request.reply.send(answer);
        }
    }

    fn stage(&self, waiting: &[Request]) -> (Vec<Result<Revision, CommitError>>, Option<Batch>) {
        let mut rows = self.replica.snapshot();
        let mut commits = Vec::new();
        let answers = waiting
            .iter()
            .map(|request| {
                let staged = request.transaction.stage(&mut rows)?;
                commits.extend(staged);
                Ok(rows.revision())
            })
            .collect();
        let batch = (!commits.is_empty()).then_some(Batch { rows, commits });
        (answers, batch)
    }

    fn make_durable(&mut self, batch: Batch) -> Result<(), CommitError> {
        let revision = batch.rows.revision();
        let Err(error) = self.file.write(&batch.commits, revision) else {
            self.publish(batch);
            return Ok(());
        };
        count(&self.counters.failed_syncs);
        tracing::error!(%error, "the store cannot write");
        // An error of COMMIT does not say whether it took place, so the file is asked.
        self.undecided = Some(batch);
        self.settle()?;
        if self.replica.snapshot().revision() == revision {
            return Ok(());
        }
        let reason = error.to_string();
        Err(CommitError::Io { reason })
    }

    /// Finds out what became of a batch whose write failed: either it is on disk, and so part of
    /// the rows, or it is forgotten. An error if the disk does not even let itself be read.
    fn settle(&mut self) -> Result<(), CommitError> {
        let Some(batch) = self.undecided.take() else {
            return Ok(());
        };
        match self.file.revision() {
            Ok(on_disk) if on_disk == batch.rows.revision() => self.publish(batch),
            Ok(_) => {}
            Err(error) => {
                self.undecided = Some(batch);
                let reason = error.to_string();
                return Err(CommitError::Io { reason });
            }
        }
        Ok(())
    }

    fn publish(&mut self, batch: Batch) {
        count(&self.counters.syncs);
        self.checkpoints.written(&batch.commits);
        self.replica
            .publish(self.replica.lock(), batch.rows, batch.commits);
    }
}
