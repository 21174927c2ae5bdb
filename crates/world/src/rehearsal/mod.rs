//! A change of a service, tried on a copy of the real state before it is made: what would happen, in which
//! order and when, and what would go wrong.
//!
//! The real operation is called on the copied rows, the real controllers and the real placement follow, on
//! virtual time; simulated are only the container instances, which start, check and stop tasks as they are
//! assumed to ([`Assumptions`]).
//!
//! What always holds: nothing of the real state is touched. What is told are the events that the real controllers
//! wrote, with their times. It ends when the service is steady, when its deployment has failed, or after
//! [`Assumptions::horizon`]: then it says what the service waits for, as `gantry explain service` would.
//! What it leaves to others: getting the rows, and showing the report.

mod assumptions;
mod checks;
mod facts;
mod nodes;

use std::sync::Arc;
use std::time::Duration;

use gantry_api::ecs::{self, Ecs};
use gantry_api::{ApiError, Principal, RequestContext};
use gantry_arn::{AccountId, Arn, ClusterName, Region, ServiceName};
use gantry_ecs::model::reference::Scope;
use gantry_ecs::model::service::view::Counts;
use gantry_ecs::tables::{
    self, Rollout, ServiceRow, ServiceStateRow, StateChange, StateChangesRow, service_row_name,
};
use gantry_ecs::{EcsService, explain};
use gantry_env::{Timestamp, VirtualEnv};
use gantry_reconcile::{Drive, LeaseKeeper, LeaseTimes, Step as DriverStep};
use gantry_store::{
    Change as RowsChange, Changes, Key, MemoryStore, Prefix, Row, Snapshot, Store, Table,
    Transaction,
};
use serde::{Deserialize, Serialize};

pub use assumptions::{Assumptions, Fate};
pub use checks::{Facts, Finding, Room, Wrong, check};

use self::nodes::Nodes;
use crate::control::drivers;

/// What a rehearsal does not need: what was answered or told before. Everything else is copied, also what
/// later versions add.
const NOT_COPIED: &[&str] = &[
    tables::ClientTokenRow::KIND,
    tables::PlacementRejectionsRow::KIND,
    tables::StateChangesRow::KIND,
];

/// Of a transaction's hundred operations and its mebibyte.
const COPIED_AT_ONCE: (usize, usize) = (90, 512 * 1024);

/// One row of ECS, as it stands in the real store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CopiedRow {
    pub kind: String,
    pub name: String,
    pub schema: u16,
    /// The row's own JSON.
    pub value: String,
}

impl CopiedRow {
    /// Every row that a rehearsal needs, of one account and region.
    pub fn all(snapshot: &Snapshot, scope: &Scope) -> Vec<Self> {
        let prefix = Prefix::service(&scope.account, &scope.region, tables::SERVICE);
        let rows = snapshot.scan(&prefix);
        rows.filter(|row| !NOT_COPIED.contains(&row.key().kind()))
            .filter_map(Self::of)
            .collect()
    }

    fn of(row: &Row) -> Option<Self> {
        Some(Self {
            kind: row.key().kind().to_owned(),
            name: row.key().name().to_owned(),
            schema: row.schema(),
            value: String::from_utf8(row.value().to_vec()).ok()?,
        })
    }
}

/// What is to be rehearsed.
#[derive(Debug, Clone)]
pub enum Change {
    Create(Box<ecs::CreateServiceRequest>),
    Update(Box<ecs::UpdateServiceRequest>),
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What speaks against the change before anything has happened.
    pub findings: Vec<Finding>,
    /// What happened to the service, in order.
    pub steps: Vec<Step>,
    pub outcome: Outcome,
    pub ended_after_ms: u64,
    /// The fewest of its tasks that were RUNNING at a time, and the most that were RUNNING or PENDING.
    pub least_running: usize,
    pub most_tasks: usize,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub after_ms: u64,
    pub event: StateChange,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "because")]
pub enum Outcome {
    /// All that was asked for is there.
    Steady,
    RolledBack,
    Failed,
    /// It was not over when the rehearsal ended. What the service then waits for.
    Waits(Vec<String>),
}

/// A copy of the real state on virtual time.
pub struct Rehearsal {
    venv: VirtualEnv,
    store: Arc<dyn Store>,
    scope: Scope,
    assumptions: Assumptions,
    ecs: Arc<EcsService>,
    lease: LeaseKeeper,
    drivers: Vec<Box<dyn Drive>>,
    nodes: Nodes,
    changes: Changes,
    told: Changes,
}

impl Rehearsal {
    pub fn of(
        rows: Vec<CopiedRow>,
        account: AccountId,
        region: Region,
        now: Timestamp,
        assumptions: Assumptions,
    ) -> Result<Self, String> {
        let venv = VirtualEnv::seeded(u64::try_from(now.as_millis()).unwrap_or_default());
        venv.set_wall_clock(now);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let scope = Scope { account, region };
        copy(&venv, &*store, &scope, rows)?;
        let lease = LeaseKeeper::new("ecs", 0, "rehearsal", LeaseTimes::default());
        let ecs = Arc::new(EcsService::new(
            store.clone(),
            venv.env(),
            Default::default(),
        ));
        let drivers = drivers(&store, &lease, &ecs);
        let everything = Prefix::service(&scope.account, &scope.region, tables::SERVICE);
        let revision = store.snapshot().revision();
        Ok(Self {
            changes: store.watch(&everything, revision),
            told: store.watch(&StateChangesRow::everywhere(), revision),
            nodes: Nodes::new(scope.clone(), assumptions.clone()),
            venv,
            store,
            scope,
            assumptions,
            ecs,
            lease,
            drivers,
        })
    }

    /// Makes the change and lets everything follow from it. An error is what the caller of the operation
    /// would be answered.
    pub fn run(self, change: Change) -> Result<Report, ApiError> {
        self.run_to_the_end(change).map(|(report, _)| report)
    }

    /// With the rows that it ended with, for a rehearsal that goes on from there.
    pub fn run_to_the_end(mut self, change: Change) -> Result<(Report, Vec<CopiedRow>), ApiError> {
        let (cluster, service) = self.named(&change)?;
        let began = self.venv.now();
        let before = self.counts(&cluster, &service);
        self.nodes.begin(&self.store.snapshot());
        self.make(change)?;
        let snapshot = self.store.snapshot();
        let row = self.row::<ServiceRow>(&snapshot, &cluster, &service);
        self.nodes.aim(row.as_deref());
        let findings = match &row {
            Some(row) => facts::findings(&snapshot, &self.scope, row),
            None => Vec::new(),
        };
        let mut report = Report {
            findings,
            steps: Vec::new(),
            outcome: Outcome::Steady,
            ended_after_ms: 0,
            least_running: before.running,
            most_tasks: before.running + before.pending,
        };
        report.outcome = loop {
            let next_look = self.settle();
            self.tell(&cluster, &service, began, &mut report);
            let counts = self.counts(&cluster, &service);
            report.least_running = report.least_running.min(counts.running);
            report.most_tasks = report.most_tasks.max(counts.running + counts.pending);
            if let Some(outcome) = self.outcome(&cluster, &service) {
                break outcome;
            }
            let elapsed = self.venv.monotonic();
            if elapsed >= self.assumptions.horizon {
                break Outcome::Waits(self.waits_for(&cluster, &service));
            }
            let next = self
                .nodes
                .next_moment()
                .map_or(next_look, |at| at.min(next_look));
            let next = next.max(elapsed + Duration::from_millis(1));
            self.venv.advance(next - elapsed);
            self.act();
        };
        report.ended_after_ms = millis(self.venv.now().since(began));
        let rows = CopiedRow::all(&self.store.snapshot(), &self.scope);
        Ok((report, rows))
    }

    fn named(&self, change: &Change) -> Result<(ClusterName, ServiceName), ApiError> {
        let (cluster, name) = match change {
            Change::Create(input) => (&input.cluster, &input.service_name),
            Change::Update(input) => (&input.cluster, &input.service),
        };
        Ok(self.scope.service_in(cluster.as_deref(), name)?)
    }

    fn make(&self, change: Change) -> Result<(), ApiError> {
        let (ecs, context) = (self.ecs.clone(), self.context());
        match change {
            Change::Create(input) => {
                drop(self.wait(async { ecs.create_service(&context, *input).await })?);
            }
            Change::Update(input) => {
                drop(self.wait(async { ecs.update_service(&context, *input).await })?);
            }
        }
        Ok(())
    }

    /// Lets controllers and nodes take in what changed, until nothing more follows at this moment. Gives
    /// when a controller wants to be looked at again.
    fn settle(&mut self) -> Duration {
        loop {
            let next = self.run_controllers();
            let mut is_news = false;
            while let Some(change) = self.changes.try_next() {
                is_news = true;
                match change {
                    RowsChange::Rows(rows) => {
                        let snapshot = self.store.snapshot();
                        let monotonic = self.venv.monotonic();
                        for row in rows {
                            self.nodes.see(&snapshot, &row.key, monotonic);
                        }
                    }
                    RowsChange::Lost => {
                        let snapshot = self.changes.reload();
                        self.nodes.see_all(&snapshot, self.venv.monotonic());
                    }
                }
            }
            if !is_news {
                return next;
            }
        }
    }

    fn run_controllers(&mut self) -> Duration {
        let (now, monotonic) = (self.venv.now(), self.venv.monotonic());
        while let Some(transaction) = self.lease.step(&self.store.snapshot(), now) {
            let outcome = wait(&self.venv, self.store.commit(transaction));
            self.lease.committed(now, &outcome);
        }
        let mut next = self.lease.next_step();
        for driver in &mut self.drivers {
            loop {
                match driver.step(now) {
                    DriverStep::Commit(ticket, transaction) => {
                        let outcome = wait(&self.venv, self.store.commit(transaction));
                        // Effects on other services have nobody here to perform them.
                        let _ = driver.committed(now, ticket, outcome);
                    }
                    DriverStep::Idle(until) => {
                        next = next.min(until);
                        break;
                    }
                }
            }
        }
        monotonic + next.since(now)
    }

    /// Lets the nodes do what is due.
    fn act(&mut self) {
        let due = self.nodes.due(self.venv.monotonic());
        let now = self.venv.now();
        for act in due {
            let snapshot = self.store.snapshot();
            let monotonic = self.venv.monotonic();
            if let Some(report) = self.nodes.report(&snapshot, &act, now, monotonic) {
                let (ecs, context) = (self.ecs.clone(), self.context());
                // A report of a task that is gone is refused, which is right.
                let _ = self.wait(async { ecs.submit_task_state_change(&context, report).await });
            } else if let Some(health) = self.nodes.health(&snapshot, &act) {
                // A conflict is impossible: nobody else writes here.
                let _ = wait(&self.venv, self.store.commit(health));
            }
        }
    }

    /// Takes over what the service has told since the last look.
    fn tell(
        &mut self,
        cluster: &ClusterName,
        service: &ServiceName,
        began: Timestamp,
        report: &mut Report,
    ) {
        while let Some(RowsChange::Rows(rows)) = self.told.try_next() {
            let told = rows.iter().filter_map(|it| it.row.as_ref());
            for row in told.filter_map(|row| row.decode::<StateChangesRow>().ok()) {
                let events = row.events.iter();
                let mine = events
                    .filter(|it| it.service.as_ref() == Some(service) && it.cluster == *cluster);
                report.steps.extend(mine.map(|event| Step {
                    after_ms: millis(event.at.since(began)),
                    event: event.clone(),
                }));
            }
        }
    }

    /// How it ended, if it has.
    fn outcome(&self, cluster: &ClusterName, service: &ServiceName) -> Option<Outcome> {
        let snapshot = self.store.snapshot();
        let spec = self.row::<ServiceRow>(&snapshot, cluster, service)?;
        let state = self.row::<ServiceStateRow>(&snapshot, cluster, service)?;
        let is_taken_up = state.incarnation == spec.incarnation
            && state.handled == spec.target.service_deployment;
        let primary = state.deployments.first().filter(|_| is_taken_up)?;
        match primary.rollout {
            Rollout::Completed if state.steady && primary.is_rollback => Some(Outcome::RolledBack),
            Rollout::Completed if state.steady => Some(Outcome::Steady),
            Rollout::Failed if self.nodes.next_moment().is_none() => Some(Outcome::Failed),
            _ => None,
        }
    }

    fn waits_for(&self, cluster: &ClusterName, service: &ServiceName) -> Vec<String> {
        let (snapshot, now) = (self.store.snapshot(), self.venv.now());
        let cluster = Some(cluster.as_str());
        let told = explain::service(&snapshot, &self.scope, cluster, service.as_str(), now);
        told.map(|told| told.sentences).unwrap_or_default()
    }

    fn counts(&self, cluster: &ClusterName, service: &ServiceName) -> Counts {
        let snapshot = self.store.snapshot();
        match self.row::<ServiceRow>(&snapshot, cluster, service) {
            Some(row) => explain::service_counts(&snapshot, &self.scope, &row),
            None => Counts::default(),
        }
    }

    fn row<T: Table<Row = T>>(
        &self,
        snapshot: &Snapshot,
        cluster: &ClusterName,
        service: &ServiceName,
    ) -> Option<Arc<T>> {
        let name = service_row_name(cluster, service);
        let (account, region) = (&self.scope.account, &self.scope.region);
        snapshot.read::<T>(account, region, &name).map(|it| it.row)
    }

    fn context(&self) -> RequestContext {
        let account = self.scope.account;
        RequestContext {
            principal: Principal {
                arn: Arn::global("iam", &account, "root"),
                user_id: account.to_string(),
                access_key_id: "rehearsal".to_owned(),
            },
            account,
            region: self.scope.region.clone(),
            request_id: "rehearsal".to_owned(),
            host: None,
            now: self.venv.now(),
        }
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T, ecs::EcsError>>) -> Result<T, ApiError> {
        Ok(wait(&self.venv, call)?)
    }
}

fn wait<F: Future>(venv: &VirtualEnv, future: F) -> F::Output {
    venv.block_on(future)
        .expect("operations on a memory store wait for nothing")
}

fn copy(
    venv: &VirtualEnv,
    store: &dyn Store,
    scope: &Scope,
    rows: Vec<CopiedRow>,
) -> Result<(), String> {
    let mut transaction = Transaction::new();
    for row in rows {
        let key = Key::new(
            &scope.account,
            &scope.region,
            tables::SERVICE,
            &row.kind,
            &row.name,
        );
        let (most, bytes) = COPIED_AT_ONCE;
        if transaction.len() >= most || transaction.bytes() + row.value.len() > bytes {
            let full = std::mem::take(&mut transaction);
            wait(venv, store.commit(full)).map_err(|error| error.to_string())?;
        }
        transaction.put(key, row.schema, row.value.into_bytes());
    }
    let last = wait(venv, store.commit(transaction));
    last.map(drop).map_err(|error| error.to_string())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
