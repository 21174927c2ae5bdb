//! The core that every controller runs in: queue, back-off, resync, commits, effects.
//!
//! What always holds: it does no I/O and reads no clock. [`Driver::step`] says what to commit next;
//! [`Driver::committed`] is told how that went and says which effects to perform. A key that is
//! being committed is not planned again before the outcome is known.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_env::Timestamp;
use gantry_store::{Change, Changes, CommitError, Prefix, Revision, Snapshot, Store, Transaction};

use crate::queue::{KeyQueue, back_off};
use crate::{Controller, Effect, EffectToken, LeaseHandle, Plan};

/// The driver's intervals and limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How often every key is looked at although nothing changed.
    pub resync_every: Duration,
    /// How many commits of one controller may be under way.
    pub commits_under_way: usize,
    /// After a conflict, the first delay and the longest.
    pub conflict_delay: (Duration, Duration),
    /// After another error, the first delay and the longest.
    pub error_delay: (Duration, Duration),
    /// Until an effect that is not seen yet is repeated, the first delay and the longest.
    pub effect_delay: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resync_every: Duration::from_secs(60),
            commits_under_way: 16,
            conflict_delay: (Duration::from_millis(1), Duration::from_secs(1)),
            error_delay: (Duration::from_millis(200), Duration::from_secs(30)),
            effect_delay: (Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

/// What the driver has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriverCounters {
    pub reconciled: u64,
    pub commits: u64,
    pub conflicts: u64,
    pub errors: u64,
    pub panics: u64,
    pub effects: u64,
    pub resyncs: u64,
    pub lost: u64,
    /// Keys that wait now.
    pub waiting: u64,
}

/// Names one commit between [`Drive::step`] and [`Drive::committed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What the core wants next.
#[derive(Debug)]
pub enum Step {
    /// Commit this, tell [`Drive::committed`] the outcome, and step again without waiting for it.
    Commit(Ticket, Transaction),
    /// Nothing until then, or until rows change, a commit ends, or the lease changes hands.
    Idle(Timestamp),
}

/// A driver of any controller.
#[async_trait]
pub trait Drive: Send {
    fn name(&self) -> &'static str;

    /// Takes in what changed and plans the next key that is due.
    fn step(&mut self, now: Timestamp) -> Step;

    /// What became of a commit. Gives the effects to perform now, each at most once a call.
    fn committed(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        outcome: Result<Revision, CommitError>,
    ) -> Vec<Effect>;

    fn counters(&self) -> DriverCounters;

    /// Waits for rows to change or the lease to change hands. Only shells use it.
    async fn woken(&mut self);
}

pub struct Driver<C: Controller> {
    controller: C,
    store: Arc<dyn Store>,
    lease: LeaseHandle,
    limits: Limits,
    changes: Changes,
    queue: KeyQueue<C::Key>,
    /// The term under which this drives; `None` while somebody else does.
    term: Option<u64>,
    /// Keys that did not go through, and how often in a row.
    failures: BTreeMap<C::Key, u32>,
    /// Effects that were handed out and not seen yet, and how often.
    unseen: BTreeMap<C::Key, (BTreeSet<EffectToken>, u32)>,
    under_way: BTreeMap<Ticket, UnderWay<C::Key>>,
    /// Until when changes of a key's rows can wait ([`Plan::rests_until`]).
    resting: BTreeMap<C::Key, Timestamp>,
    /// Keys under way that have changed meanwhile.
    dirty: BTreeSet<C::Key>,
    next_ticket: u64,
    next_resync: Timestamp,
    last_now: Timestamp,
    counters: DriverCounters,
}

struct UnderWay<K> {
    key: K,
    term: u64,
    effects: Vec<Effect>,
    again_at: Option<Timestamp>,
}

impl<C: Controller> Driver<C> {
    pub fn new(controller: C, store: Arc<dyn Store>, lease: LeaseHandle, limits: Limits) -> Self {
        let changes = watch(&*store, &controller.watches());
        Self {
            controller,
            store,
            lease,
            limits,
            changes,
            queue: KeyQueue::new(),
            term: None,
            failures: BTreeMap::new(),
            unseen: BTreeMap::new(),
            under_way: BTreeMap::new(),
            resting: BTreeMap::new(),
            dirty: BTreeSet::new(),
            next_ticket: 0,
            next_resync: Timestamp::EPOCH,
            last_now: Timestamp::EPOCH,
            counters: DriverCounters::default(),
        }
    }

    /// Notices that the lease was taken or lost; true while it is held.
    fn lead(&mut self) -> Option<u64> {
        let term = self.lease.term();
        if term != self.term {
            // What waited was decided under another term. Everything is looked at anew.
            self.queue.clear();
            self.failures.clear();
            self.unseen.clear();
            self.resting.clear();
            self.dirty.clear();
            self.term = term;
            self.next_resync = Timestamp::EPOCH;
        }
        term
    }

    fn take_changes(&mut self, now: Timestamp) {
        if now < self.last_now {
            self.queue.make_all_due(now);
            self.resting.clear();
            self.next_resync = now;
        }
        self.last_now = now;
        if self.next_resync <= now {
            self.counters.resyncs += 1;
            self.look_at_everything(now);
        }
        while let Some(change) = self.changes.try_next() {
            match change {
                Change::Rows(rows) => {
                    for change in &rows {
                        for key in self.controller.keys_of(change) {
                            self.wake(key, now);
                        }
                    }
                }
                Change::Lost => {
                    self.counters.lost += 1;
                    self.look_at_everything(now);
                }
            }
        }
    }

    /// From here on only what changes after this moment is news.
    fn look_at_everything(&mut self, now: Timestamp) {
        let snapshot = self.changes.reload();
        self.next_resync = now + self.limits.resync_every;
        for key in self.controller.all_keys(&snapshot) {
            self.wake(key, now);
        }
    }

    /// A change wakes its keys, at once or when they have rested, but does not cut a back-off short:
    /// rows that others write all the time must not turn a failing key into a busy loop.
    fn wake(&mut self, key: C::Key, now: Timestamp) {
        if self.under_way.values().any(|commit| commit.key == key) {
            self.dirty.insert(key);
        } else if !self.failures.contains_key(&key) {
            let rests_until = self.resting.get(&key).copied().unwrap_or(now);
            self.queue.put(key, rests_until.max(now));
        }
    }

    fn plan(&mut self, snapshot: &Snapshot, now: Timestamp, key: &C::Key) -> Option<Plan> {
        self.counters.reconciled += 1;
        let planned = catch_unwind(AssertUnwindSafe(|| {
            self.controller.reconcile(snapshot, now, key)
        }));
        if planned.is_err() {
            // One resource that a controller cannot bear must not keep it from all the others.
            self.counters.panics += 1;
            tracing::error!(
                controller = self.controller.name(),
                ?key,
                "reconcile panicked"
            );
        }
        planned.ok()
    }

    fn fail(&mut self, key: C::Key, now: Timestamp, delay: (Duration, Duration)) {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = back_off(*failures, delay.0, delay.1);
        *failures = failures.saturating_add(1);
        self.queue.remove(&key);
        self.queue.put(key, now + delay);
    }

    /// The key went through: what it planned to look at again, and effects to look for.
    fn done(
        &mut self,
        key: C::Key,
        now: Timestamp,
        again_at: Option<Timestamp>,
        effects: &[Effect],
    ) {
        self.failures.remove(&key);
        if let Some(at) = again_at {
            // A time that has come already would be a busy loop if the plan did not change.
            self.queue
                .put(key.clone(), at.max(now + Duration::from_millis(1)));
        }
        if effects.is_empty() {
            self.unseen.remove(&key);
            return;
        }
        let tokens: BTreeSet<_> = effects.iter().map(|effect| effect.token.clone()).collect();
        let repeats = match self.unseen.get(&key) {
            Some((before, repeats)) if *before == tokens => repeats.saturating_add(1),
            _ => 0,
        };
        let (first, most) = self.limits.effect_delay;
        self.queue
            .put(key.clone(), now + back_off(repeats, first, most));
        self.unseen.insert(key, (tokens, repeats));
    }
}

#[async_trait]
impl<C: Controller> Drive for Driver<C> {
    fn name(&self) -> &'static str {
        self.controller.name()
    }

    fn step(&mut self, now: Timestamp) -> Step {
        let Some(term) = self.lead() else {
            return Step::Idle(Timestamp::MAX);
        };
        self.take_changes(now);
        while self.under_way.len() < self.limits.commits_under_way
            && let Some(key) = self.queue.take(now)
        {
            let snapshot = self.store.snapshot();
            let Some((lease, revision)) = self.lease.fence(&snapshot, term) else {
                // The lease is lost, and the keeper is about to notice. Nothing is forgotten: the
                // next term begins with every key.
                return Step::Idle(Timestamp::MAX);
            };
            let Some(plan) = self.plan(&snapshot, now, &key) else {
                self.fail(key, now, self.limits.error_delay);
                continue;
            };
            match plan.rests_until {
                Some(until) if until > now => self.resting.insert(key.clone(), until),
                _ => self.resting.remove(&key),
            };
            if plan.is_nothing() {
                self.done(key, now, plan.again_at, &[]);
                continue;
            }
            // Effects alone also pass by the lease: whoever has lost it has none to perform.
            let mut transaction = plan.transaction;
            transaction.expect(lease, Some(revision));
            self.next_ticket += 1;
            let ticket = Ticket(self.next_ticket);
            let under_way = UnderWay {
                key,
                term,
                effects: plan.effects,
                again_at: plan.again_at,
            };
            self.under_way.insert(ticket, under_way);
            return Step::Commit(ticket, transaction);
        }
        let due = match self.under_way.len() < self.limits.commits_under_way {
            true => self.queue.next_due().unwrap_or(Timestamp::MAX),
            false => Timestamp::MAX,
        };
        Step::Idle(due.min(self.next_resync))
    }

    fn committed(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        outcome: Result<Revision, CommitError>,
    ) -> Vec<Effect> {
        let Some(commit) = self.under_way.remove(&ticket) else {
            return Vec::new();
        };
        let key = commit.key;
        self.controller.settled(&key);
        let is_dirty = self.dirty.remove(&key);
        match &outcome {
            Ok(_) => self.counters.commits += 1,
            Err(error) if error.is_conflict() => self.counters.conflicts += 1,
            Err(error) => {
                self.counters.errors += 1;
                tracing::warn!(controller = self.controller.name(), ?key, %error, "a plan was not committed");
            }
        }
        if self.term != Some(commit.term) {
            // Under the next term the key is looked at again, and plans what is then right.
            return Vec::new();
        }
        match outcome {
            Ok(_) => {
                self.done(key.clone(), now, commit.again_at, &commit.effects);
                if is_dirty {
                    self.wake(key, now);
                }
                self.counters.effects += commit.effects.len() as u64;
                commit.effects
            }
            Err(error) => {
                let delay = match error.is_conflict() {
                    true => self.limits.conflict_delay,
                    false => self.limits.error_delay,
                };
                self.fail(key, now, delay);
                Vec::new()
            }
        }
    }

    fn counters(&self) -> DriverCounters {
        DriverCounters {
            waiting: self.queue.len() as u64,
            ..self.counters
        }
    }

    async fn woken(&mut self) {
        if self.term.is_none() {
            return self.lease.changed().await;
        }
        let rows = std::pin::pin!(self.changes.ready());
        let lease = std::pin::pin!(self.lease.changed());
        futures_util::future::select(rows, lease).await;
    }
}

fn watch(store: &dyn Store, prefixes: &[Prefix]) -> Changes {
    let revision = store.snapshot().revision();
    match prefixes {
        [first, rest @ ..] => rest
            .iter()
            .fold(store.watch(first, revision), |changes, prefix| {
                changes.also(prefix)
            }),
        // A controller that reads no rows is only resynced; no row has an empty service.
        [] => store.watch(&Prefix::service_everywhere(""), revision),
    }
}
