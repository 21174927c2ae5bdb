//! Leases: who may write for one (service, shard).
//!
//! What always holds: a lease is one row. It is taken, renewed and given up by commits that expect
//! the row as it was read, and each taking has a new term. A controller's commit expects the very
//! row under which its owner holds the lease, so what a stale owner planned conflicts.
//!
//! Clocks decide only when somebody tries to take over, never who may write: a skewed clock costs
//! time, not safety. An owner that restarts under the same name takes its lease back at once.

use std::time::Duration;

use gantry_arn::{AccountId, Region};
use gantry_env::Timestamp;
use gantry_store::{CommitError, Key, Revision, Snapshot, Table, Transaction};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// The row of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// Who holds it; empty when it was given up.
    pub owner: String,
    /// Grows with each taking, and never otherwise.
    pub term: u64,
    pub expires_at: Timestamp,
}

/// The table of leases.
#[derive(Debug)]
pub struct Lease;

impl Table for Lease {
    type Row = LeaseRow;
    const SERVICE: &'static str = "gantry";
    const KIND: &'static str = "lease";
    const SCHEMA: u16 = 1;
}

/// How long a lease lasts without being renewed, and how often it is renewed.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimes {
    pub duration: Duration,
    pub renew_every: Duration,
}

impl Default for LeaseTimes {
    /// A renewal is a durable write, so at rest there are few of them.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(60),
            renew_every: Duration::from_secs(20),
        }
    }
}

/// Takes and keeps one lease. A core without I/O: it says what to commit, and is told how it went.
pub struct LeaseKeeper {
    key: Key,
    owner: String,
    times: LeaseTimes,
    held: watch::Sender<Option<u64>>,
    /// When to renew, or to look again whether the lease is free.
    next: Timestamp,
    expires_at: Timestamp,
    pending: Option<LeaseRow>,
}

impl LeaseKeeper {
    /// `owner` names a replica. Two processes that may live at once must not share a name; one
    /// that restarts keeps it.
    pub fn new(service: &str, shard: u32, owner: impl Into<String>, times: LeaseTimes) -> Self {
        let name = format!("{service}/{shard}");
        Self {
            key: Lease::key(&AccountId::default(), &Region::global(), &name),
            owner: owner.into(),
            times,
            held: watch::Sender::new(None),
            next: Timestamp::EPOCH,
            expires_at: Timestamp::EPOCH,
            pending: None,
        }
    }

    /// What drivers look at. It stays true to this keeper wherever it is cloned.
    pub fn handle(&self) -> LeaseHandle {
        LeaseHandle {
            key: self.key.clone(),
            held: self.held.subscribe(),
        }
    }

    pub fn is_held(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// What to commit now, if anything. Its outcome must be given to [`LeaseKeeper::committed`].
    pub fn step(&mut self, snapshot: &Snapshot, now: Timestamp) -> Option<Transaction> {
        if self.pending.is_some() {
            return None;
        }
        let read = snapshot.read_key::<Lease>(&self.key);
        let mine =
            |row: &LeaseRow| row.owner == self.owner && Some(row.term) == *self.held.borrow();
        if self.is_held() && (!read.as_deref().is_some_and(mine) || now >= self.expires_at) {
            // Somebody else took it, or it could not be renewed in time.
            self.hold(None);
            self.next = now;
        }
        // A clock set back must not keep a lease from being renewed.
        if now < self.next && self.next.since(now) <= self.times.duration {
            return None;
        }
        let held = *self.held.borrow();
        let term = match (held, read.as_deref()) {
            (Some(term), _) => term,
            (None, None) => 1,
            (None, Some(row)) if self.may_take(row, now) => row.term + 1,
            (None, Some(row)) => {
                let soon = now + self.times.renew_every;
                self.next = row.expires_at.min(soon).max(now + Duration::from_millis(1));
                return None;
            }
        };
        let row = LeaseRow {
            owner: self.owner.clone(),
            term,
            expires_at: now + self.times.duration,
        };
        let mut transaction = Transaction::new();
        transaction.expect(self.key.clone(), read.map(|read| read.revision));
        transaction.write_key::<Lease>(self.key.clone(), &row);
        self.pending = Some(row);
        Some(transaction)
    }

    /// What became of the transaction that [`LeaseKeeper::step`] gave.
    pub fn committed(&mut self, now: Timestamp, outcome: &Result<Revision, CommitError>) {
        let Some(row) = self.pending.take() else {
            return;
        };
        match outcome {
            Ok(_) => {
                self.expires_at = row.expires_at;
                self.next = now + self.times.renew_every;
                self.hold(Some(row.term));
            }
            // Whoever was first has it; the next step reads who that is.
            Err(error) if error.is_conflict() => self.next = now,
            Err(error) => {
                tracing::warn!(lease = %self.key, %error, "a lease could not be written");
                self.next = now + self.times.renew_every.min(Duration::from_secs(1));
            }
        }
    }

    /// Gives the lease up, so that another can take it without waiting.
    pub fn release(&mut self, snapshot: &Snapshot, now: Timestamp) -> Option<Transaction> {
        let term = (*self.held.borrow())?;
        self.hold(None);
        let read = snapshot.read_key::<Lease>(&self.key)?;
        if read.owner != self.owner || read.term != term {
            return None;
        }
        let row = LeaseRow {
            owner: String::new(),
            term,
            expires_at: now,
        };
        let mut transaction = Transaction::new();
        transaction.update::<Lease>(&read, &row);
        Some(transaction)
    }

    /// When [`LeaseKeeper::step`] is to be called again.
    pub fn next_step(&self) -> Timestamp {
        self.next
    }

    fn may_take(&self, row: &LeaseRow, now: Timestamp) -> bool {
        row.owner.is_empty() || row.owner == self.owner || now >= row.expires_at
    }

    fn hold(&self, term: Option<u64>) {
        let changed = self
            .held
            .send_if_modified(|held| std::mem::replace(held, term) != term);
        if changed {
            tracing::info!(lease = %self.key, owner = %self.owner, held = term.is_some(), "lease");
        }
    }
}

/// What a driver knows of a lease.
#[derive(Debug, Clone)]
pub struct LeaseHandle {
    key: Key,
    held: watch::Receiver<Option<u64>>,
}

impl LeaseHandle {
    /// The term under which it is held.
    pub fn term(&self) -> Option<u64> {
        *self.held.borrow()
    }

    /// The lease's row, for a commit to expect, if it is held in `snapshot` under `term`.
    pub(crate) fn fence(&self, snapshot: &Snapshot, term: u64) -> Option<(Key, Revision)> {
        let read = snapshot.read_key::<Lease>(&self.key)?;
        // Terms are never used twice, so the owner need not be compared.
        (read.term == term && !read.owner.is_empty()).then_some((read.key, read.revision))
    }

    /// Waits until the lease is taken or lost.
    pub(crate) async fn changed(&mut self) {
        if self.held.changed().await.is_err() {
            // The keeper is gone, and with it any change.
            std::future::pending::<()>().await;
        }
    }
}
