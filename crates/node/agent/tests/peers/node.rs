//! The machine of the scene: a disk, a runtime whose containers outlive the agent, and the real core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_agent::core::step::{
    AdoptedContainer, AdoptedTask, Exit, PersistId, RuntimeCommand, RuntimeEvent, Timer,
};
use gantry_agent::core::{
    AgentCore, ContainerStatus, Identity, Input, JournalRecord, Output, TaskStatus,
};
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use crate::chance::Chance;

type ContainerKey = (TaskId, String);

pub struct Node {
    /// What survives a crash of the agent.
    pub disk: Vec<JournalRecord>,
    pub containers: BTreeMap<ContainerKey, ContainerFate>,
    started_ever: BTreeSet<ContainerKey>,
    /// What does not.
    pub core: Option<AgentCore>,
    pub writes: VecDeque<(PersistId, Vec<JournalRecord>)>,
    pub commands: Vec<RuntimeCommand>,
    pub events: VecDeque<RuntimeEvent>,
    pub timers: BTreeMap<Timer, i64>,
    stopping: BTreeSet<ContainerKey>,
    seen_status: BTreeMap<TaskId, (TaskStatus, BTreeMap<String, ContainerStatus>)>,
    incarnation: u64,
}

#[derive(Clone)]
pub enum ContainerFate {
    Starting,
    Running,
    Exited(Exit),
    Failed,
}

impl Node {
    pub fn new() -> Node {
        Node {
            disk: Vec::new(),
            containers: BTreeMap::new(),
            started_ever: BTreeSet::new(),
            core: None,
            writes: VecDeque::new(),
            commands: Vec::new(),
            events: VecDeque::new(),
            timers: BTreeMap::new(),
            stopping: BTreeSet::new(),
            seen_status: BTreeMap::new(),
            incarnation: 0,
        }
    }

    /// kill -9: what was not carried out is gone. Of the writes under way some are on disk.
    pub fn crash(&mut self, chance: &mut Chance) {
        self.core = None;
        for _ in 0..chance.below(self.writes.len() + 1) {
            let (_, records) = self.writes.pop_front().unwrap();
            self.disk.extend(records);
        }
        self.writes.clear();
        self.commands.clear();
        self.events.clear();
        self.timers.clear();
        self.seen_status.clear();
    }

    pub fn start(&mut self, now: Timestamp) -> Vec<Output> {
        self.incarnation += 1;
        let identity = Identity {
            cluster_arn: "cluster".into(),
            container_instance_arn: "instance".into(),
        };
        self.core = Some(AgentCore::new(identity, self.incarnation));
        let mut adopted: BTreeMap<TaskId, AdoptedTask> = BTreeMap::new();
        for ((task, name), fate) in &self.containers {
            let entry = adopted.entry(*task).or_insert_with(|| AdoptedTask {
                task: *task,
                containers: BTreeMap::new(),
                ports: BTreeMap::new(),
            });
            let runtime_id = format!("{task}-{name}");
            let state = match fate {
                ContainerFate::Starting => AdoptedContainer::Starting { restarts: 0 },
                ContainerFate::Running => AdoptedContainer::Running {
                    runtime_id,
                    started_at: now,
                    restarts: 0,
                },
                ContainerFate::Exited(exit) => AdoptedContainer::Exited {
                    runtime_id,
                    started_at: now,
                    restarts: 0,
                    exit: exit.clone(),
                },
                ContainerFate::Failed => AdoptedContainer::Lost {
                    reason: "CannotStartContainerError: no".into(),
                },
            };
            entry.containers.insert(name.clone(), state);
        }
        let records = self.disk.clone();
        self.step(
            now,
            Input::Loaded {
                records,
                adopted: adopted.into_values().collect(),
            },
        )
    }

    /// Steps the core, keeps what is this machine's business, and gives back the rest.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        let Some(core) = &mut self.core else {
            return Vec::new();
        };
        let mut rest = Vec::new();
        for output in core.step(now, input) {
            match output {
                Output::Persist { id, records } => self.writes.push_back((id, records)),
                Output::Runtime(command) => self.commands.push(command),
                Output::SetTimer { timer, after } => {
                    self.timers
                        .insert(timer, now.as_millis() + after.as_millis() as i64);
                }
                other => rest.push(other),
            }
        }
        self.check_statuses();
        rest
    }

    fn check_statuses(&mut self) {
        let Some(core) = &self.core else { return };
        for (id, machine) in core.tasks() {
            let containers: BTreeMap<String, ContainerStatus> = machine
                .state
                .containers
                .iter()
                .map(|(n, c)| (n.clone(), c.status))
                .collect();
            if let Some((status, before)) = self.seen_status.get(id) {
                assert!(machine.state.status >= *status, "{id} went back");
                for (name, status) in before {
                    assert!(containers[name] >= *status, "{name} of {id} went back");
                }
            }
            self.seen_status
                .insert(*id, (machine.state.status, containers));
        }
    }

    /// Whether the journal on disk holds the task, or held it to its end.
    pub fn journal_knows(&self, task: TaskId) -> bool {
        self.disk.iter().any(|record| match record {
            JournalRecord::Accepted { task_id, .. } => *task_id == task,
            _ => false,
        })
    }

    pub fn write_one(&mut self) -> Option<Input> {
        let (id, records) = self.writes.pop_front()?;
        self.disk.extend(records);
        Some(Input::Persisted(id))
    }

    /// Carries out one command, in any order.
    pub fn work(&mut self, now: Timestamp, chance: &mut Chance, faults: bool) {
        if self.commands.is_empty() {
            return;
        }
        let command = self.commands.swap_remove(chance.below(self.commands.len()));
        let fails = faults && chance.one_in(25);
        match command {
            RuntimeCommand::Pull { task, plan } => {
                let container = plan.name.clone();
                self.events.push_back(if fails {
                    RuntimeEvent::PullFailed {
                        task,
                        container,
                        reason: "CannotPullContainerError: no".into(),
                    }
                } else {
                    RuntimeEvent::Pulled {
                        task,
                        container,
                        digest: "sha256:0".into(),
                    }
                });
            }
            RuntimeCommand::PrepareLog {
                task, container, ..
            } => {
                self.events.push_back(if fails {
                    RuntimeEvent::LogFailed {
                        task,
                        container,
                        reason: "ResourceInitializationError: no".into(),
                    }
                } else {
                    RuntimeEvent::LogReady { task, container }
                });
            }
            RuntimeCommand::Start { task, plan, .. } => {
                let key = (task, plan.name.clone());
                assert!(
                    self.journal_knows(task),
                    "started before its acceptance was on disk"
                );
                assert!(
                    self.started_ever.insert(key.clone()),
                    "{key:?} was started twice"
                );
                self.containers.insert(
                    key,
                    if fails {
                        ContainerFate::Failed
                    } else {
                        ContainerFate::Starting
                    },
                );
                if fails {
                    let container = plan.name.clone();
                    let reason = "CannotStartContainerError: no".into();
                    self.events.push_back(RuntimeEvent::StartFailed {
                        task,
                        container,
                        reason,
                    });
                }
            }
            RuntimeCommand::Stop {
                task, container, ..
            } => {
                self.stopping.insert((task, container));
            }
            RuntimeCommand::ResumeLog { .. }
            | RuntimeCommand::Restart { .. }
            | RuntimeCommand::CheckHealth { .. } => {}
            RuntimeCommand::Remove { task } => {
                self.containers.retain(|(of, _), fate| {
                    assert!(
                        *of != task
                            || matches!(fate, ContainerFate::Exited(_) | ContainerFate::Failed),
                        "a task was removed while it ran"
                    );
                    *of != task
                });
                self.events.push_back(RuntimeEvent::Removed { task });
            }
        }
        let _ = now;
    }

    /// The kernel goes on, agent or no agent: something that starts has started, something ends.
    pub fn live(&mut self, now: Timestamp, chance: &mut Chance, may_end: bool) {
        let keys: Vec<ContainerKey> = self.containers.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[chance.below(keys.len())].clone();
        let (task, container) = key.clone();
        let runtime_id = format!("{task}-{container}");
        match self.containers[&key] {
            ContainerFate::Starting => {
                self.containers.insert(key, ContainerFate::Running);
                self.events.push_back(RuntimeEvent::Started {
                    task,
                    container,
                    runtime_id,
                    at: now,
                });
            }
            ContainerFate::Running if may_end || self.stopping.contains(&key) => {
                let exit = Exit {
                    exit_code: [0, 1, 137][chance.below(3)],
                    out_of_memory: false,
                    at: now,
                };
                self.containers
                    .insert(key, ContainerFate::Exited(exit.clone()));
                self.events.push_back(RuntimeEvent::Exited {
                    task,
                    container,
                    runtime_id,
                    exit,
                });
            }
            _ => {}
        }
        // An event that nobody listens to is found again by adoption.
        if self.core.is_none() {
            self.events.clear();
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.writes.is_empty() && self.commands.is_empty() && self.events.is_empty()
    }
}
