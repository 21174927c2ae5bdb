//! The control plane of the world: the real operations, controllers and agent sessions over a store
//! that survives its crashes.
//!
//! What always holds: one call is carried out in one event; the control plane may die between a call's
//! commit and its answer. What was committed is there when it is back; everything else is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gantry_api::acs::{Frame, TaskHealth};
use gantry_api::ecs::{self, Ecs};
use gantry_api::{Principal, RequestContext};
use gantry_arn::{AccountId, Arn, ClusterName, ContainerInstanceId, Region, TaskId};
use gantry_ecs::acs::image::RegistryNames;
use gantry_ecs::acs::session::{AcsSession, Identity, Input, Output, Timer};
use gantry_ecs::acs::{
    AgentFacts, Assignments, ConnectingInstance, Connections, forget_connections, keep_health,
};
use gantry_ecs::controllers;
use gantry_ecs::tables::{self, AcsSessionRow, TaskRow, container_instance_name};
use gantry_env::{Timestamp, VirtualEnv};
use gantry_reconcile::{Controller, Drive, Driver, LeaseKeeper, LeaseTimes, Limits, Step};
use gantry_store::{Change, Changes, MemoryStore, Prefix, RowChange, Store};

/// Names one connection between an agent and the control plane; never used twice.
pub type ConnectionId = u64;

/// What the control plane wants of the world.
#[derive(Debug)]
pub enum Wish {
    Send {
        connection: ConnectionId,
        frame: Frame,
    },
    Close {
        connection: ConnectionId,
    },
    Timer {
        connection: ConnectionId,
        after: Duration,
        timer: Timer,
        generation: u64,
    },
}

/// The durable half, and the living half while it is up.
pub struct ControlPlane {
    venv: VirtualEnv,
    store: Arc<dyn Store>,
    account: AccountId,
    region: Region,
    living: Option<Living>,
    starts: u64,
}

struct Living {
    ecs: Arc<dyn Ecs>,
    sessions: BTreeMap<ConnectionId, Session>,
    lease: LeaseKeeper,
    drivers: Vec<Box<dyn Drive>>,
    changes: Changes,
    /// When a driver or the lease wants to be looked at again.
    next_look: Duration,
}

struct Session {
    row_name: String,
    number: u64,
    assignments: Assignments,
    core: AcsSession,
    timers: BTreeMap<Timer, u64>,
    next_generation: u64,
}

impl ControlPlane {
    pub fn new(venv: VirtualEnv) -> ControlPlane {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        ControlPlane {
            venv,
            store,
            account: AccountId::default(),
            region: Region::default(),
            living: None,
            starts: 0,
        }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn place(&self) -> (&AccountId, &Region) {
        (&self.account, &self.region)
    }

    pub fn is_up(&self) -> bool {
        self.living.is_some()
    }

    /// Comes up on what the store has.
    pub fn start(&mut self) {
        self.starts += 1;
        let env = self.venv.env();
        self.block_on(forget_connections(&self.store, &env))
            .expect("a memory store takes every commit");
        let lease = LeaseKeeper::new(
            "ecs",
            0,
            format!("replica-{}", self.starts),
            LeaseTimes::default(),
        );
        let ecs = gantry_ecs::EcsService::new(self.store.clone(), env, Default::default());
        let drivers = drivers(&self.store, &lease, &ecs);
        let everything = Prefix::service(&self.account, &self.region, tables::SERVICE);
        let changes = self
            .store
            .watch(&everything, self.store.snapshot().revision());
        self.living = Some(Living {
            ecs: Arc::new(ecs),
            sessions: BTreeMap::new(),
            lease,
            drivers,
            changes,
            next_look: Duration::ZERO,
        });
    }

    /// `kill -9`. Every connection is gone with it.
    pub fn kill(&mut self) -> Vec<ConnectionId> {
        self.living
            .take()
            .map(|living| living.sessions.into_keys().collect())
            .unwrap_or_default()
    }

    /// Carries out one call of anybody. `None` where nothing listens.
    pub fn call<T, F>(&self, call: impl FnOnce(Arc<dyn Ecs>, RequestContext) -> F) -> Option<T>
    where
        F: Future<Output = T>,
    {
        let living = self.living.as_ref()?;
        Some(self.block_on(call(living.ecs.clone(), self.context())))
    }

    /// An agent's socket opens: its session number is committed, and it is told everything.
    pub fn connect(
        &mut self,
        connection: ConnectionId,
        container_instance_arn: &str,
    ) -> Option<Vec<Wish>> {
        self.living.as_ref()?;
        let (cluster, id) = instance_of(container_instance_arn)?;
        let row_name = container_instance_name(&cluster, &id);
        let connections = Connections::new(self.store.clone(), self.venv.env());
        let place = (&self.account, &self.region);
        let number = self
            .block_on(connections.begin(place, &row_name, AgentFacts::default()))
            .ok()?;
        let identity = Identity {
            cluster_arn: Arn::cluster(&self.region, &self.account, &cluster).to_string(),
            container_instance_arn: container_instance_arn.to_owned(),
        };
        let assignments = Assignments {
            names: RegistryNames {
                account: self.account,
                region: self.region.clone(),
                joined: Some("localhost:4566".to_owned()),
            },
            cluster,
            container_instance: id,
        };
        let core = AcsSession::new(identity, number).ok()?;
        let tasks = assignments.all(&self.store.snapshot());
        let session = Session {
            row_name,
            number,
            assignments,
            core,
            timers: BTreeMap::new(),
            next_generation: 0,
        };
        self.living.as_mut()?.sessions.insert(connection, session);
        Some(self.step(connection, Input::Connected { tasks }))
    }

    /// The control plane learns that a connection is gone.
    pub fn disconnected(&mut self, connection: ConnectionId) {
        let Some(session) = self
            .living
            .as_mut()
            .and_then(|living| living.sessions.remove(&connection))
        else {
            return;
        };
        let connections = Connections::new(self.store.clone(), self.venv.env());
        self.block_on(connections.end(
            (&self.account, &self.region),
            &session.row_name,
            session.number,
        ));
    }

    pub fn frame(&mut self, connection: ConnectionId, frame: Frame) -> Vec<Wish> {
        self.step(connection, Input::Frame(frame))
    }

    pub fn timer(&mut self, connection: ConnectionId, timer: Timer, generation: u64) -> Vec<Wish> {
        let session = self
            .living
            .as_mut()
            .and_then(|living| living.sessions.get_mut(&connection));
        match session {
            Some(session) if session.timers.get(&timer) == Some(&generation) => {
                session.timers.remove(&timer);
                self.step(connection, Input::Timer(timer))
            }
            _ => Vec::new(),
        }
    }

    /// An agent's telemetry socket brings the health of a task. False where it cannot be acknowledged.
    pub fn health(&self, container_instance_arn: &str, told: &TaskHealth) -> bool {
        let (true, Some((cluster, id))) = (self.is_up(), instance_of(container_instance_arn))
        else {
            return false;
        };
        let instance = ConnectingInstance {
            arn: container_instance_arn.to_owned(),
            cluster,
            id,
        };
        let context = self.context();
        self.block_on(keep_health(&self.store, &context, &instance, told))
            .is_ok()
    }

    pub fn now(&self) -> Timestamp {
        self.venv.now()
    }

    /// Whether the controllers drive: one that has just come up waits for the lease of the one before.
    pub fn drives(&self) -> bool {
        self.living
            .as_ref()
            .is_some_and(|living| living.lease.is_held())
    }

    /// The numbers of the sessions that are open for a container instance.
    pub fn sessions_of(&self, row_name: &str) -> Vec<u64> {
        let sessions = self.living.iter().flat_map(|l| l.sessions.values());
        let named = sessions.filter(|session| session.row_name == row_name);
        named.map(|session| session.number).collect()
    }

    /// Lets watchers and controllers take in what changed, until nothing more follows. Gives what the
    /// sessions want.
    pub fn settle(&mut self) -> Vec<Wish> {
        let mut wishes = Vec::new();
        loop {
            let monotonic = self.venv.monotonic();
            let Some(living) = &mut self.living else {
                break;
            };
            let mut rows = Vec::new();
            while let Some(change) = living.changes.try_next() {
                match change {
                    Change::Rows(changed) => rows.extend(changed),
                    // A session cannot tell what it missed; as on a machine, it begins anew.
                    Change::Lost => {
                        living.changes.reload();
                        wishes.extend(
                            living
                                .sessions
                                .keys()
                                .map(|&connection| Wish::Close { connection }),
                        );
                    }
                }
            }
            if rows.is_empty() && monotonic < living.next_look {
                break;
            }
            for (connection, input) in self.inputs_of(&rows) {
                wishes.extend(self.step(connection, input));
            }
            self.run_controllers();
        }
        wishes
    }

    /// When the controllers want to be looked at although nothing changed.
    pub fn next_look(&self) -> Option<Duration> {
        self.living.as_ref().map(|living| living.next_look)
    }

    fn run_controllers(&mut self) {
        let now = self.venv.now();
        let monotonic = self.venv.monotonic();
        let store = self.store.clone();
        let venv = self.venv.clone();
        let Some(living) = &mut self.living else {
            return;
        };
        while let Some(transaction) = living.lease.step(&store.snapshot(), now) {
            let outcome = venv
                .block_on(store.commit(transaction))
                .expect("a memory store never waits");
            living.lease.committed(now, &outcome);
        }
        let mut next = living.lease.next_step();
        for driver in &mut living.drivers {
            loop {
                match driver.step(now) {
                    Step::Commit(ticket, transaction) => {
                        let outcome = venv
                            .block_on(store.commit(transaction))
                            .expect("a memory store never waits");
                        let effects = driver.committed(now, ticket, outcome);
                        assert!(
                            effects.is_empty(),
                            "no controller of this world has effects: {effects:?}"
                        );
                    }
                    Step::Idle(until) => {
                        next = next.min(until);
                        break;
                    }
                }
            }
        }
        // At least a millisecond, so that time goes on.
        living.next_look = monotonic + next.since(now).max(Duration::from_millis(1));
    }

    /// Which sessions a change concerns, and how. One look a change, whatever the number of sessions.
    fn inputs_of(&self, rows: &[RowChange]) -> Vec<(ConnectionId, Input)> {
        let Some(living) = &self.living else {
            return Vec::new();
        };
        let snapshot = self.store.snapshot();
        let mut inputs = Vec::new();
        let mut tasks: BTreeSet<(String, TaskId)> = BTreeSet::new();
        for row in rows {
            match row.key.kind() {
                "task" | "task-desired" | "task-report" => tasks.extend(Assignments::task_of(row)),
                "acs-session" => {
                    let named = living
                        .sessions
                        .iter()
                        .filter(|(_, session)| session.row_name == row.key.name());
                    for (connection, session) in named {
                        let latest = snapshot.read::<AcsSessionRow>(
                            &self.account,
                            &self.region,
                            &session.row_name,
                        );
                        if latest.is_none_or(|l| l.session > session.number) {
                            inputs.push((*connection, Input::Superseded));
                        }
                    }
                }
                _ => {}
            }
        }
        if tasks.is_empty() {
            return inputs;
        }
        let mut by_instance: BTreeMap<&ContainerInstanceId, Vec<ConnectionId>> = BTreeMap::new();
        for (connection, session) in &living.sessions {
            by_instance
                .entry(&session.assignments.container_instance)
                .or_default()
                .push(*connection);
        }
        for (name, task) in tasks {
            let row = snapshot.read::<TaskRow>(&self.account, &self.region, &name);
            let Some(row) = row else { continue };
            for connection in by_instance
                .get(&row.container_instance)
                .into_iter()
                .flatten()
            {
                let assigned = living.sessions[connection]
                    .assignments
                    .one(&snapshot, &name);
                inputs.push((*connection, Input::Changed(vec![(task, assigned)])));
            }
        }
        inputs
    }

    fn step(&mut self, connection: ConnectionId, input: Input) -> Vec<Wish> {
        let now = self.venv.now();
        let mut wishes = Vec::new();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let Some(session) = self
                .living
                .as_mut()
                .and_then(|living| living.sessions.get_mut(&connection))
            else {
                break;
            };
            let mut reports = Vec::new();
            for output in session.core.step(now, input) {
                match output {
                    Output::Send(frame) => wishes.push(Wish::Send { connection, frame }),
                    Output::Close { .. } => wishes.push(Wish::Close { connection }),
                    Output::SetTimer { timer, after } => {
                        let generation = session.next_generation;
                        session.next_generation += 1;
                        session.timers.insert(timer, generation);
                        wishes.push(Wish::Timer {
                            connection,
                            after,
                            timer,
                            generation,
                        });
                    }
                    Output::AssumeRole { task, role, .. } => {
                        inputs.push(Input::Role {
                            task,
                            role,
                            credentials: Ok(Default::default()),
                        });
                    }
                    Output::ReportStopped { task_arn, reason } => reports.push((task_arn, reason)),
                }
            }
            for (task_arn, reason) in reports {
                self.report_stopped(task_arn, reason);
            }
        }
        wishes
    }

    fn report_stopped(&self, task_arn: String, reason: String) {
        let report = ecs::SubmitTaskStateChangeRequest {
            cluster: task_arn.rsplit('/').nth(1).map(str::to_owned),
            task: Some(task_arn),
            status: Some("STOPPED".to_owned()),
            reason: Some(reason),
            ..Default::default()
        };
        let answer =
            self.call(|ecs, ctx| async move { ecs.submit_task_state_change(&ctx, report).await });
        assert!(
            matches!(answer, Some(Ok(_))),
            "the control plane's own report was refused: {answer:?}"
        );
    }

    fn context(&self) -> RequestContext {
        RequestContext {
            account: self.account,
            region: self.region.clone(),
            principal: Principal {
                arn: Arn::global("iam", &self.account, "root"),
                user_id: self.account.to_string(),
                access_key_id: "AKIAWORLD".to_owned(),
            },
            request_id: "world".to_owned(),
            host: Some("localhost:4566".to_owned()),
            now: self.venv.now(),
        }
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.venv
            .block_on(future)
            .expect("operations on a memory store wait for nothing")
    }
}

pub(crate) fn drivers(
    store: &Arc<dyn Store>,
    lease: &LeaseKeeper,
    ecs: &gantry_ecs::EcsService,
) -> Vec<Box<dyn Drive>> {
    fn driver<C: Controller + 'static>(
        store: &Arc<dyn Store>,
        lease: &LeaseKeeper,
        controller: C,
    ) -> Box<dyn Drive> {
        Box::new(Driver::new(
            controller,
            store.clone(),
            lease.handle(),
            Limits::default(),
        ))
    }
    vec![
        driver(store, lease, controllers::StoppedTaskRetention::default()),
        driver(store, lease, controllers::StateChangeRetention::default()),
        driver(store, lease, controllers::ClientTokenExpiry),
        driver(store, lease, controllers::DeregisteredInstances),
        driver(store, lease, controllers::TaskDefinitionDeletion),
        driver(store, lease, controllers::Services::of(ecs)),
        driver(store, lease, controllers::ServiceHistory),
    ]
}

fn instance_of(arn: &str) -> Option<(ClusterName, ContainerInstanceId)> {
    match arn.parse::<Arn>().ok()?.ecs_resource()? {
        gantry_arn::EcsResource::ContainerInstance(cluster, id) => Some((cluster, id)),
        _ => None,
    }
}
