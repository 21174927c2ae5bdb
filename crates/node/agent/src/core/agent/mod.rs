//! The agent's core: one `step` for everything that can happen to a container instance.
//!
//! What always holds: nothing happens before the journal is read; what changed about a task is given
//! to the journal in the step in which it changed.
//! What it leaves to others: what the control plane says (`frames`), one task (`task`), the reports
//! (`report`), the socket (`link`).

mod frames;

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::acs::Frame;
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use super::TaskStatus;
use super::chance::Chance;
use super::journal::{Journal, JournalRecord};
use super::link::Link;
use super::report::Reports;
use super::step::{AdoptedTask, Input, Output, PersistId, RuntimeEvent, Timer};
use super::task::TaskMachine;

/// Who this agent is to the control plane.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster_arn: String,
    pub container_instance_arn: String,
}

#[derive(Clone, Debug)]
pub struct AgentCore {
    identity: Identity,
    chance: Chance,
    link: Link,
    reports: Reports,
    tasks: BTreeMap<TaskId, TaskMachine>,
    /// The highest frame number that had an effect.
    seen: i64,
    next_persist: u64,
    after_persist: BTreeMap<PersistId, Vec<AfterPersist>>,
    /// What was offered for verification, by the manifest's message id.
    offered: Option<(String, BTreeSet<TaskId>)>,
    /// Tasks that are over and reported, by how many sockets there had been when they were
    /// forgotten. A payload that was written before the report arrived must not start them again.
    forgotten: BTreeMap<TaskId, u64>,
    sockets: u64,
    loaded: bool,
}

/// What waits for records to be on disk.
#[derive(Clone, Debug)]
enum AfterPersist {
    Ack(String),
    Accepted(TaskId),
    Stopping(TaskId),
    Stopped(TaskId),
}

impl AgentCore {
    /// `seed` is for jitter only.
    pub fn new(identity: Identity, seed: u64) -> AgentCore {
        AgentCore {
            identity,
            chance: Chance::seeded(seed),
            link: Link::default(),
            reports: Reports::default(),
            tasks: BTreeMap::new(),
            seen: 0,
            next_persist: 0,
            after_persist: BTreeMap::new(),
            offered: None,
            forgotten: BTreeMap::new(),
            sockets: 0,
            loaded: false,
        }
    }

    /// The tasks known here, for whoever looks on.
    pub fn tasks(&self) -> impl Iterator<Item = (&TaskId, &TaskMachine)> {
        self.tasks.iter()
    }

    pub fn task(&self, id: TaskId) -> Option<&TaskMachine> {
        self.tasks.get(&id)
    }

    /// The socket is open.
    pub fn is_connected(&self) -> bool {
        self.link.is_up()
    }

    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        // Nothing may happen before the journal is read: an unknown task could be a known one.
        if !self.loaded && !matches!(input, Input::Loaded { .. }) {
            return out;
        }
        match input {
            Input::Loaded { records, adopted } => self.on_loaded(now, &records, &adopted, &mut out),
            Input::Connected => {
                self.offered = None;
                self.sockets += 1;
                // The next socket may have been greeted just before a task was reported; the one
                // after it was not.
                let sockets = self.sockets;
                self.forgotten.retain(|_, made| *made + 2 > sockets);
                self.link.connected(&mut self.chance, &mut out);
                self.retry_reports(&mut out);
            }
            Input::Disconnected { .. } => self.link.disconnected(&mut self.chance, &mut out),
            // It also comes instead of a socket.
            Input::Frame(Frame::InactiveInstance(_)) => self.link.inactive(&mut out),
            Input::Frame(frame) if self.link.is_up() => self.on_frame(now, frame, &mut out),
            // What a socket that was given up still delivers.
            Input::Frame(_) => {}
            Input::Reply { call, result } => {
                if let Some(task) = self.reports.task_of(call)
                    && let Some(machine) = self.tasks.get_mut(&task)
                {
                    self.reports
                        .answered(call, result, machine, &mut self.chance, &mut out);
                    self.drive(now, [task], &mut out);
                }
            }
            Input::Runtime(event) => self.on_runtime_event(now, &event, &mut out),
            Input::Timer(timer) => self.on_timer(now, timer, &mut out),
            Input::Persisted(id) => self.on_persisted(now, id, &mut out),
            Input::StopAll { reason } => {
                let all: Vec<TaskId> = self.tasks.keys().copied().collect();
                for machine in self.tasks.values_mut() {
                    machine.stop(Some(reason.clone()));
                }
                self.drive(now, all, &mut out);
            }
        }
        out
    }

    fn on_loaded(
        &mut self,
        now: Timestamp,
        records: &[JournalRecord],
        adopted: &[AdoptedTask],
        out: &mut Vec<Output>,
    ) {
        let journal = Journal::of(records);
        self.loaded = true;
        self.seen = journal.seen_by(&self.identity.container_instance_arn);
        for (id, task) in journal.tasks {
            let found = adopted.iter().find(|adopted| adopted.task == id);
            let machine =
                TaskMachine::loaded(id, task.cluster, task.payload, task.state, found, out);
            self.tasks.insert(id, machine);
        }
        // What the journal does not know was reported and forgotten, or never acknowledged.
        for stray in adopted
            .iter()
            .filter(|adopted| !self.tasks.contains_key(&adopted.task))
        {
            out.push(Output::Runtime(super::step::RuntimeCommand::Remove {
                task: stray.task,
            }));
        }
        let all: Vec<TaskId> = self.tasks.keys().copied().collect();
        self.drive(now, all, out);
        self.link.connect(out);
    }

    fn on_runtime_event(&mut self, now: Timestamp, event: &RuntimeEvent, out: &mut Vec<Output>) {
        let task = event.task();
        let Some(machine) = self.tasks.get_mut(&task) else {
            return;
        };
        machine.on_event(event);
        if machine.removed {
            self.tasks.remove(&task);
            self.reports.forget(task);
            self.forgotten.insert(task, self.sockets);
            self.persist(
                vec![JournalRecord::Forgotten { task_id: task }],
                Vec::new(),
                out,
            );
            return;
        }
        self.drive(now, [task], out);
    }

    fn on_timer(&mut self, now: Timestamp, timer: Timer, out: &mut Vec<Output>) {
        match timer {
            Timer::Reconnect => self.link.connect(out),
            Timer::Renew => self.link.renew(out),
            Timer::Silence => self.link.on_silence_timer(&mut self.chance, out),
            Timer::Report(task) => {
                self.reports.retry(task);
                self.drive(now, [task], out);
            }
            Timer::StartTimeout { task, .. }
            | Timer::DependencyTimeout { task, .. }
            | Timer::HealthCheck { task, .. } => {
                if let Some(machine) = self.tasks.get_mut(&task) {
                    machine.on_timer(&timer);
                    self.drive(now, [task], out);
                }
            }
        }
    }

    fn on_persisted(&mut self, now: Timestamp, id: PersistId, out: &mut Vec<Output>) {
        // Records are written in order, so everything before is on disk as well.
        let later = self.after_persist.split_off(&PersistId(id.0 + 1));
        let done = std::mem::replace(&mut self.after_persist, later);
        let mut touched = Vec::new();
        for after in done.into_values().flatten() {
            match after {
                AfterPersist::Ack(message_id) => {
                    if self.link.is_up() {
                        let ack = self.ack(message_id);
                        out.push(Output::Send(ack));
                    }
                }
                AfterPersist::Accepted(task) => {
                    if let Some(machine) = self.tasks.get_mut(&task) {
                        machine.durable = true;
                        touched.push(task);
                    }
                }
                AfterPersist::Stopping(task) => {
                    if let Some(machine) = self.tasks.get_mut(&task) {
                        machine.stopping_durable = true;
                        touched.push(task);
                    }
                }
                AfterPersist::Stopped(task) => {
                    if let Some(machine) = self.tasks.get_mut(&task) {
                        machine.stop_durable = true;
                        touched.push(task);
                    }
                }
            }
        }
        self.drive(now, touched, out);
    }

    /// Brings tasks on, queues and sends what is to be told of them, and writes down what changed.
    fn drive(
        &mut self,
        now: Timestamp,
        tasks: impl IntoIterator<Item = TaskId>,
        out: &mut Vec<Output>,
    ) {
        let mut records = Vec::new();
        let mut after = Vec::new();
        for id in tasks {
            let Some(machine) = self.tasks.get_mut(&id) else {
                continue;
            };
            machine.drive(now, out);
            self.reports.note(machine);
            if std::mem::take(&mut machine.dirty) {
                records.push(progress(machine));
                if machine.state.stopping.is_some() && !machine.stopping_durable {
                    after.push(AfterPersist::Stopping(id));
                }
                if machine.state.status == TaskStatus::Stopped && !machine.stop_durable {
                    after.push(AfterPersist::Stopped(id));
                }
            }
            self.reports.send(machine, out);
        }
        if !records.is_empty() {
            self.persist(records, after, out);
        }
    }

    fn retry_reports(&mut self, out: &mut Vec<Output>) {
        for (id, machine) in &self.tasks {
            self.reports.retry(*id);
            self.reports.send(machine, out);
        }
    }

    fn persist(
        &mut self,
        records: Vec<JournalRecord>,
        after: Vec<AfterPersist>,
        out: &mut Vec<Output>,
    ) {
        self.next_persist += 1;
        let id = PersistId(self.next_persist);
        if !after.is_empty() {
            self.after_persist.insert(id, after);
        }
        out.push(Output::Persist { id, records });
    }
}

fn progress(machine: &TaskMachine) -> JournalRecord {
    JournalRecord::Progress {
        task_id: machine.id,
        state: Box::new(machine.state.clone()),
    }
}

impl RuntimeEvent {
    /// Which task this is about.
    pub fn task(&self) -> TaskId {
        match self {
            RuntimeEvent::Pulled { task, .. }
            | RuntimeEvent::PullFailed { task, .. }
            | RuntimeEvent::LogReady { task, .. }
            | RuntimeEvent::LogFailed { task, .. }
            | RuntimeEvent::PortsBound { task, .. }
            | RuntimeEvent::Started { task, .. }
            | RuntimeEvent::StartFailed { task, .. }
            | RuntimeEvent::Exited { task, .. }
            | RuntimeEvent::HealthChecked { task, .. }
            | RuntimeEvent::ShimDied { task, .. }
            | RuntimeEvent::Removed { task } => *task,
        }
    }
}
