//! A machine of the world: its disk, its containers, and the agent's real core while one runs.
//!
//! What always holds: what the agent persisted and the world has told it so is on the disk, whatever
//! crashes; of what was being written, a part may be, from the front. A crash of the agent loses
//! everything else it had in mind. Its containers run on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gantry_agent::core::step::{CallId, ContainerHealth, RuntimeEvent};
use gantry_agent::core::step::{Input, Output, PersistId, RuntimeCommand, TaskStateChange, Timer};
use gantry_agent::core::{AgentCore, HealthStatus, Identity, Journal, JournalRecord, TaskStatus};
use gantry_api::acs::{ContainerHealth as ToldHealth, ContainerHealthStatus, Frame, TaskHealth};
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use crate::chance::Chance;
use crate::founding::Size;
use crate::runtime::{MachineEvent, SimulatedRuntime};

/// One that has left, one that says RUNNING and one that says STOPPED.
const REPORTS_MAX: usize = 3;

/// Which start of an agent something belongs to: what belongs to an earlier one is void.
pub type Incarnation = u64;

/// What a machine wants of the world.
#[derive(Debug)]
pub enum Wish {
    Connect,
    Disconnect,
    Send(Frame),
    Call {
        call: CallId,
        request: TaskStateChange,
    },
    /// Tell the machine that the timer is due, unless it was set again.
    Timer {
        after: Duration,
        timer: Timer,
        generation: u64,
    },
    /// There is news of the health of tasks: let it be told.
    TellHealth,
    /// The disk has something to write: let it be done some time, in order.
    Persist,
    /// Something on the machine itself, agent or not.
    Machine {
        after: Duration,
        event: MachineEvent,
    },
    /// The agent stops a task of which nothing has ended: somebody must have wanted that.
    Stopping {
        task: TaskId,
    },
}

/// A machine, with or without a running agent.
pub struct Machine {
    identity: Identity,
    seed: u64,
    disk: Journal,
    /// Every task that was ever on the disk.
    accepted: BTreeSet<TaskId>,
    /// And every one that the disk was told to forget.
    forgotten: BTreeSet<TaskId>,
    /// The control plane has said that it knows that they run.
    known_to_run: BTreeSet<TaskId>,
    runtime: SimulatedRuntime,
    agent: Option<AgentProcess>,
    incarnation: Incarnation,
}

struct AgentProcess {
    core: AgentCore,
    timers: BTreeMap<Timer, u64>,
    next_generation: u64,
    /// The tasks of each payload that came, by its message.
    payloads: BTreeMap<String, Vec<String>>,
    /// On their way to the disk, in order.
    writing: VecDeque<(PersistId, Vec<JournalRecord>)>,
    /// Reports under way: whose, and whether it says RUNNING.
    calls: BTreeMap<CallId, (TaskId, bool)>,
    /// The health that is known, and of which tasks it has not been told.
    health: BTreeMap<TaskId, BTreeMap<String, ContainerHealth>>,
    untold: BTreeSet<TaskId>,
}

impl Machine {
    pub fn new(identity: Identity, seed: u64, size: Size) -> Machine {
        Machine {
            identity,
            seed,
            disk: Journal::default(),
            accepted: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            known_to_run: BTreeSet::new(),
            runtime: SimulatedRuntime::of(size),
            agent: None,
            incarnation: 0,
        }
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// From now on the registry has other images under the same tags.
    pub fn pushed(&mut self) {
        self.runtime.pushed += 1;
    }

    pub fn runtime(&self) -> &SimulatedRuntime {
        &self.runtime
    }

    /// What the journal on the disk says.
    pub fn journal(&self) -> &Journal {
        &self.disk
    }

    /// The agent starts: it reads the journal and finds what still runs.
    pub fn start_agent(&mut self, now: Timestamp, chance: &mut Chance) -> Vec<Wish> {
        self.incarnation += 1;
        self.agent = Some(AgentProcess {
            core: AgentCore::new(self.identity.clone(), self.seed ^ self.incarnation),
            timers: BTreeMap::new(),
            next_generation: 0,
            payloads: BTreeMap::new(),
            writing: VecDeque::new(),
            calls: BTreeMap::new(),
            health: BTreeMap::new(),
            untold: BTreeSet::new(),
        });
        // A journal is compacted when it is opened.
        let loaded = Input::Loaded {
            records: self.disk.compacted(),
            adopted: self.runtime.adopt(chance),
        };
        self.input(now, loaded, chance)
    }

    /// What is to be told of the health of tasks. `all` begins anew.
    pub fn take_health(&mut self, all: bool) -> Vec<TaskHealth> {
        let Some(agent) = &mut self.agent else {
            return Vec::new();
        };
        if all {
            agent.untold = agent.health.keys().copied().collect();
        }
        std::mem::take(&mut agent.untold)
            .into_iter()
            .filter_map(|id| {
                Some(TaskHealth {
                    task_arn: agent.core.task(id)?.payload.arn.clone(),
                    containers: agent.health.get(&id)?.iter().map(told).collect(),
                    ..TaskHealth::default()
                })
            })
            .collect()
    }

    /// See [`SimulatedRuntime::calm_down`].
    pub fn calm_down(&mut self) {
        self.runtime.calm_down();
    }

    /// `kill -9` of the agent.
    pub fn kill_agent(&mut self, chance: &mut Chance) {
        if let Some(agent) = self.agent.take() {
            let written = chance.below(agent.writing.len() + 1);
            for record in agent
                .writing
                .into_iter()
                .take(written)
                .flat_map(|(_, records)| records)
            {
                self.write(&record);
            }
        }
        self.incarnation += 1;
    }

    fn write(&mut self, record: &JournalRecord) {
        match record {
            JournalRecord::Accepted { task_id, .. } => {
                self.accepted.insert(*task_id);
                assert!(
                    !self.forgotten.contains(task_id),
                    "{task_id} was over and forgotten, and is taken again"
                );
            }
            JournalRecord::Forgotten { task_id } => {
                self.forgotten.insert(*task_id);
            }
            JournalRecord::Seen { .. } | JournalRecord::Progress { .. } => {}
        }
        self.disk.apply(record);
    }

    /// The machine itself goes down; its disk stays.
    pub fn power_cut(&mut self, chance: &mut Chance) {
        self.kill_agent(chance);
        self.runtime.power_cut();
    }

    /// The disk has written what was asked for first.
    pub fn persisted(&mut self, now: Timestamp, disk_lies: bool, chance: &mut Chance) -> Vec<Wish> {
        let written = self
            .agent
            .as_mut()
            .and_then(|agent| agent.writing.pop_front());
        let Some((id, records)) = written else {
            return Vec::new();
        };
        for record in records.iter().filter(|_| !disk_lies) {
            check_bounded(record);
            self.write(record);
        }
        self.input(now, Input::Persisted(id), chance)
    }

    /// A timer is due; void if it was set again meanwhile.
    pub fn timer(
        &mut self,
        now: Timestamp,
        timer: Timer,
        generation: u64,
        chance: &mut Chance,
    ) -> Vec<Wish> {
        let Some(agent) = &mut self.agent else {
            return Vec::new();
        };
        if agent.timers.get(&timer) != Some(&generation) {
            return Vec::new();
        }
        agent.timers.remove(&timer);
        self.input(now, Input::Timer(timer), chance)
    }

    /// Something happens on the machine; the agent hears of it if one runs.
    pub fn happen(
        &mut self,
        now: Timestamp,
        event: MachineEvent,
        chance: &mut Chance,
    ) -> Vec<Wish> {
        let (heard, follows) = self.runtime.happen(self.incarnation, event, now, chance);
        let mut wishes: Vec<Wish> = follows
            .into_iter()
            .map(|(after, event)| Wish::Machine { after, event })
            .collect();
        if let Some(event) = heard {
            wishes.extend(self.runtime_event(now, event, chance));
        }
        wishes
    }

    fn runtime_event(
        &mut self,
        now: Timestamp,
        event: RuntimeEvent,
        chance: &mut Chance,
    ) -> Vec<Wish> {
        self.input(now, Input::Runtime(event), chance)
    }

    /// One step of the agent's core, its outputs turned into wishes.
    pub fn input(&mut self, now: Timestamp, input: Input, chance: &mut Chance) -> Vec<Wish> {
        let Some(agent) = &mut self.agent else {
            return Vec::new();
        };
        if let Input::Frame(Frame::Payload(payload)) = &input {
            let tasks = payload.tasks.iter().filter_map(|task| task.arn.clone());
            let message_id = payload.message_id.clone().unwrap_or_default();
            agent.payloads.insert(message_id, tasks.collect());
        }
        if let Input::Reply { call, result } = &input
            && let Some((task, runs)) = agent.calls.remove(call)
            && runs
            && result.is_ok()
        {
            self.known_to_run.insert(task);
        }
        let mut wishes = Vec::new();
        for output in agent.core.step(now, input) {
            match output {
                Output::Connect => wishes.push(Wish::Connect),
                Output::Disconnect => wishes.push(Wish::Disconnect),
                Output::Send(frame) => {
                    check_acknowledged(&frame, &agent.payloads, &self.accepted);
                    wishes.push(Wish::Send(frame));
                }
                Output::Call { call, request } => {
                    check_report(&request, &agent.calls, &self.known_to_run);
                    let runs = request.status == TaskStatus::Running;
                    if let Some(task) = task_of(&request.task_arn) {
                        agent.calls.insert(call, (task, runs));
                    }
                    wishes.push(Wish::Call { call, request });
                }
                Output::Runtime(command) => {
                    check_stop_is_known(&command, &self.runtime, &self.disk);
                    if let RuntimeCommand::Stop { task, .. } = &command
                        && self.runtime.runs_whole(*task)
                    {
                        wishes.push(Wish::Stopping { task: *task });
                    }
                    wishes.extend(command_runtime(
                        &mut self.runtime,
                        self.incarnation,
                        command,
                        chance,
                    ));
                }
                Output::SetTimer { timer, after } => {
                    let generation = agent.next_generation;
                    agent.next_generation += 1;
                    agent.timers.insert(timer.clone(), generation);
                    wishes.push(Wish::Timer {
                        after,
                        timer,
                        generation,
                    });
                }
                Output::Persist { id, records } => {
                    agent.writing.push_back((id, records));
                    wishes.push(Wish::Persist);
                }
                Output::Health { task, containers } => {
                    self.runtime.check_claims(task, &containers);
                    agent.untold.remove(&task);
                    agent.health.remove(&task);
                    if !containers.is_empty() {
                        agent.health.insert(task, containers);
                        agent.untold.insert(task);
                        wishes.push(Wish::TellHealth);
                    }
                }
                Output::Credentials { .. } => {}
            }
        }
        wishes
    }
}

fn told((name, health): (&String, &ContainerHealth)) -> ToldHealth {
    ToldHealth {
        container_name: Some(name.clone()),
        health_status: Some(match health.status {
            HealthStatus::Healthy => ContainerHealthStatus::Healthy,
            HealthStatus::Unhealthy => ContainerHealthStatus::Unhealthy,
            HealthStatus::Unknown => {
                ContainerHealthStatus::Unknown(health.status.as_reported().to_owned())
            }
        }),
        ..ToldHealth::default()
    }
}

/// What is acknowledged is on the disk, or was until it was over.
fn check_acknowledged(
    frame: &Frame,
    payloads: &BTreeMap<String, Vec<String>>,
    accepted: &BTreeSet<TaskId>,
) {
    let Frame::Ack(ack) = frame else { return };
    let tasks = ack.message_id.as_ref().and_then(|id| payloads.get(id));
    for arn in tasks.into_iter().flatten() {
        let known = task_of(arn).is_some_and(|id| accepted.contains(&id));
        assert!(known, "{arn} is acknowledged and not on the disk");
    }
}

fn task_of(arn: &str) -> Option<TaskId> {
    arn.rsplit('/').next()?.parse().ok()
}

/// Of one task one report is under way at a time. That it has stopped is told only when it is known
/// that it ran, if it did.
fn check_report(
    report: &TaskStateChange,
    calls: &BTreeMap<CallId, (TaskId, bool)>,
    known_to_run: &BTreeSet<TaskId>,
) {
    let Some(task) = task_of(&report.task_arn) else {
        panic!("a report of '{}'", report.task_arn);
    };
    assert!(
        calls.values().all(|(other, _)| *other != task),
        "{task}: two reports are under way at a time"
    );
    let ran = report.containers.iter().all(|c| c.runtime_id.is_some());
    assert!(
        report.status != TaskStatus::Stopped || !ran || known_to_run.contains(&task),
        "{task}: STOPPED overtakes RUNNING"
    );
}

/// A container that would start again is stopped only when the disk says that its task shall stop.
fn check_stop_is_known(command: &RuntimeCommand, runtime: &SimulatedRuntime, disk: &Journal) {
    if let RuntimeCommand::Stop {
        task, container, ..
    } = command
        && runtime.may_start_again(*task, container)
    {
        let stops = disk
            .tasks
            .get(task)
            .is_some_and(|t| t.state.stopping.is_some());
        assert!(
            stops,
            "{task}: '{container}' is stopped, and the disk does not say why"
        );
    }
}

/// Whatever happens, and however long nobody listens, a task's record does not grow.
fn check_bounded(record: &JournalRecord) {
    if let JournalRecord::Progress { task_id, state } = record {
        assert!(
            state.reports.len() <= REPORTS_MAX,
            "{task_id} keeps {} reports",
            state.reports.len()
        );
    }
}

fn command_runtime(
    runtime: &mut SimulatedRuntime,
    asked_by: Incarnation,
    command: RuntimeCommand,
    chance: &mut Chance,
) -> Vec<Wish> {
    runtime
        .command(asked_by, command, chance)
        .into_iter()
        .map(|(after, event)| Wish::Machine { after, event })
        .collect()
}
