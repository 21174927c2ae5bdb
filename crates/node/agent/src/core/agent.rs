//! The agent's core: one `step` for everything that can happen to a container instance.
//!
//! What always holds: a payload is acknowledged only when its tasks are in the journal on disk;
//! nothing older than what was seen has an effect; a manifest stops nothing without verification.
//! What it leaves to others: one task (`task`), the reports (`report`), the socket (`link`).

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::acs::{
    self, AckRequest, DesiredStatus, Frame, HeartbeatAckRequest, IamRoleCredentialsAckRequest,
    IamRoleCredentialsMessage, NackRequest, PayloadMessage, RoleCredentials, RoleType,
    TaskIdentifier, TaskManifestMessage, TaskStopVerificationAck, TaskStopVerificationMessage,
};
use gantry_arn::{Arn, TaskId};
use gantry_env::Timestamp;

use super::TaskStatus;
use super::chance::Chance;
use super::journal::{Journal, JournalRecord, without_credentials};
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
        self.seen = journal.seen;
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

    fn on_frame(&mut self, now: Timestamp, frame: Frame, out: &mut Vec<Output>) {
        self.link.heard();
        match frame {
            Frame::Heartbeat(heartbeat) => {
                out.push(Output::Send(Frame::HeartbeatAck(HeartbeatAckRequest {
                    message_id: heartbeat.message_id,
                })))
            }
            Frame::Payload(payload) => self.on_payload(now, payload, out),
            Frame::TaskManifest(manifest) => self.on_manifest(manifest, out),
            Frame::TaskStopVerificationAck(ack) => self.on_stop_verification(now, ack, out),
            Frame::IamRoleCredentials(message) => self.on_credentials(message, out),
            Frame::Close(_) => self.link.renew(out),
            // An error of the control plane's comes with its hanging up; the rest is not for agents.
            Frame::Error(_)
            | Frame::InactiveInstance(_)
            | Frame::TaskStopVerification(_)
            | Frame::HeartbeatAck(_)
            | Frame::IamRoleCredentialsAck(_)
            | Frame::Ack(_)
            | Frame::Nack(_)
            | Frame::Unknown { .. } => {}
        }
    }

    fn on_payload(&mut self, now: Timestamp, payload: PayloadMessage, out: &mut Vec<Output>) {
        let PayloadMessage {
            cluster_arn,
            message_id,
            seq_num,
            tasks,
            ..
        } = payload;
        let Some(message_id) = message_id else { return };
        let mut parsed = Vec::with_capacity(tasks.len());
        for task in tasks {
            match identify(&task) {
                Ok((id, stop)) => parsed.push((id, stop, task)),
                Err(reason) => {
                    let nack = self.nack(message_id, reason);
                    out.push(Output::Send(nack));
                    return;
                }
            }
        }
        let number = seq_num.unwrap_or(self.seen + 1);
        if number <= self.seen {
            // Sent before something that has had its effect. If it changes nothing here, it may be
            // acknowledged; else it is neither taken nor acknowledged, and comes again with a new
            // number.
            let unchanged = parsed.iter().all(|(id, stop, _)| {
                let known = self.tasks.get(id);
                known.is_some_and(|t| !stop || t.state.stopping.is_some())
            });
            if unchanged {
                self.persist(Vec::new(), vec![AfterPersist::Ack(message_id)], out);
            }
            return;
        }
        self.seen = number;
        let mut records = vec![JournalRecord::Seen { number }];
        let mut after = Vec::new();
        let mut touched = Vec::new();
        for (id, stop, task) in parsed {
            let roles = [
                (
                    RoleType::TaskExecution,
                    task.execution_role_credentials.clone(),
                ),
                (RoleType::TaskApplication, task.role_credentials.clone()),
            ];
            if self.forgotten.contains_key(&id) {
                continue;
            }
            if !self.tasks.contains_key(&id) {
                let cluster = cluster_arn.clone();
                let cluster = cluster.unwrap_or_else(|| self.identity.cluster_arn.clone());
                let payload = without_credentials(&task);
                records.push(JournalRecord::Accepted {
                    task_id: id,
                    cluster: cluster.clone(),
                    payload: Box::new(payload.clone()),
                });
                after.push(AfterPersist::Accepted(id));
                self.tasks
                    .insert(id, TaskMachine::new(id, cluster, payload));
            }
            for (role, credentials) in roles {
                if let Some(credentials) = credentials {
                    out.push(Output::Credentials {
                        task: id,
                        role,
                        credentials,
                    });
                }
            }
            if let (true, Some(machine)) = (stop, self.tasks.get_mut(&id)) {
                machine.stop(None);
                // In the same write as the acknowledgement waits for.
                machine.dirty = false;
                records.push(progress(machine));
            }
            touched.push(id);
        }
        after.push(AfterPersist::Ack(message_id));
        self.persist(records, after, out);
        self.drive(now, touched, out);
    }

    fn on_manifest(&mut self, manifest: TaskManifestMessage, out: &mut Vec<Output>) {
        let TaskManifestMessage {
            message_id: Some(message_id),
            tasks,
            timeline,
            ..
        } = manifest
        else {
            return;
        };
        let number = timeline.unwrap_or_default();
        if number <= self.seen {
            return;
        }
        self.seen = number;
        let wanted: BTreeSet<TaskId> = tasks
            .iter()
            .filter(|task| task.desired_status != Some(DesiredStatus::Stopped))
            .filter_map(|task| task_id(task.task_arn.as_deref()?))
            .collect();
        let candidates: Vec<&TaskMachine> = self
            .tasks
            .values()
            .filter(|task| task.state.stopping.is_none() && !wanted.contains(&task.id))
            .collect();
        let ack = self.ack(message_id.clone());
        out.push(Output::Send(ack));
        if !candidates.is_empty() {
            out.push(Output::Send(Frame::TaskStopVerification(
                TaskStopVerificationMessage {
                    message_id: Some(message_id.clone()),
                    stop_candidates: candidates
                        .iter()
                        .map(|task| TaskIdentifier {
                            desired_status: Some(DesiredStatus::Stopped),
                            task_arn: task.payload.arn.clone(),
                            task_cluster_arn: Some(task.cluster.clone()),
                        })
                        .collect(),
                },
            )));
        }
        self.offered = Some((message_id, candidates.iter().map(|task| task.id).collect()));
        self.persist(vec![JournalRecord::Seen { number }], Vec::new(), out);
    }

    fn on_stop_verification(
        &mut self,
        now: Timestamp,
        ack: TaskStopVerificationAck,
        out: &mut Vec<Output>,
    ) {
        let Some((message_id, offered)) = &self.offered else {
            return;
        };
        if ack.message_id.as_ref() != Some(message_id) {
            return;
        }
        let stopped: Vec<TaskId> = ack
            .stop_tasks
            .iter()
            .filter_map(|task| task_id(task.task_arn.as_deref()?))
            .filter(|id| offered.contains(id))
            .collect();
        for id in &stopped {
            if let Some(machine) = self.tasks.get_mut(id) {
                machine.stop(None);
            }
        }
        self.drive(now, stopped, out);
    }

    fn on_credentials(&mut self, message: IamRoleCredentialsMessage, out: &mut Vec<Output>) {
        let IamRoleCredentialsMessage {
            message_id,
            role_credentials,
            role_type,
            task_arn,
            ..
        } = message;
        let (Some(credentials), Some(role), Some(task)) = (
            role_credentials,
            role_type,
            task_arn.as_deref().and_then(task_id),
        ) else {
            return;
        };
        let RoleCredentials {
            credentials_id,
            expiration,
            ..
        } = credentials.clone();
        if self.tasks.contains_key(&task) {
            out.push(Output::Credentials {
                task,
                role,
                credentials,
            });
        }
        out.push(Output::Send(Frame::IamRoleCredentialsAck(
            IamRoleCredentialsAckRequest {
                credentials_id,
                expiration,
                message_id,
            },
        )));
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
            // Not set yet.
            Timer::DependencyTimeout { .. } | Timer::HealthCheck { .. } => {}
            Timer::StartTimeout { task, container } => {
                if let Some(machine) = self.tasks.get_mut(&task) {
                    machine.start_timed_out(&container);
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

    fn ack(&self, message_id: String) -> Frame {
        Frame::Ack(AckRequest {
            cluster: Some(self.identity.cluster_arn.clone()),
            container_instance: Some(self.identity.container_instance_arn.clone()),
            message_id: Some(message_id),
        })
    }

    fn nack(&self, message_id: String, reason: String) -> Frame {
        Frame::Nack(NackRequest {
            cluster: Some(self.identity.cluster_arn.clone()),
            container_instance: Some(self.identity.container_instance_arn.clone()),
            message_id: Some(message_id),
            reason: Some(reason),
        })
    }
}

fn progress(machine: &TaskMachine) -> JournalRecord {
    JournalRecord::Progress {
        task_id: machine.id,
        state: Box::new(machine.state.clone()),
    }
}

fn task_id(arn: &str) -> Option<TaskId> {
    let arn: Arn = arn.parse().ok()?;
    arn.resource.rsplit('/').next()?.parse().ok()
}

/// Which task a payload means, and whether it is to stop.
fn identify(task: &acs::Task) -> Result<(TaskId, bool), String> {
    let arn = task
        .arn
        .as_deref()
        .ok_or_else(|| "a task of the payload has no arn".to_owned())?;
    let id = task_id(arn).ok_or_else(|| format!("'{arn}' is not the ARN of a task"))?;
    match &task.desired_status {
        Some(DesiredStatus::Running) => Ok((id, false)),
        Some(DesiredStatus::Stopped) => Ok((id, true)),
        Some(DesiredStatus::Unknown(other)) => Err(format!(
            "desiredStatus '{other}' of {arn} is not known to this agent"
        )),
        None => Err(format!("the payload of {arn} has no desiredStatus")),
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
            | RuntimeEvent::Started { task, .. }
            | RuntimeEvent::StartFailed { task, .. }
            | RuntimeEvent::Exited { task, .. }
            | RuntimeEvent::HealthChecked { task, .. }
            | RuntimeEvent::ShimDied { task, .. }
            | RuntimeEvent::Removed { task } => *task,
        }
    }
}
