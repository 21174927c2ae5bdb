//! A machine's containers, as far as the agent can tell: they start, run for a while, end or are killed.
//!
//! What always holds: containers belong to the machine, not to the agent, so they outlive an agent that
//! crashes, and what ended meanwhile is found by the next one. A power cut ends them all.
//! What it leaves to others: when things happen. It answers with delays, the world schedules them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_agent::core::step::{AdoptedContainer, AdoptedTask, Exit, RuntimeCommand, RuntimeEvent};
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use crate::chance::Chance;
use crate::machine::Incarnation;

/// A process that was started.
#[derive(Clone, Debug)]
struct Process {
    runtime_id: String,
    started_at: Timestamp,
    exit: Option<Exit>,
    /// The power went while it ran: that it was started is all that is left of it.
    lost: bool,
}

type ContainerKey = (TaskId, String);

/// Something that will happen on the machine itself, whether an agent runs or not.
#[derive(Clone, Debug)]
pub enum MachineEvent {
    /// The container's process begins now, unless a power cut came between.
    Begin { task: TaskId, container: String },
    /// The process ends by itself or by a signal.
    End {
        task: TaskId,
        container: String,
        runtime_id: String,
        exit_code: i32,
    },
    /// The answer to a call of one agent process; void if that process is gone.
    Tell {
        asked_by: Incarnation,
        event: RuntimeEvent,
    },
    /// Everything of the task goes, unless the agent that removes it dies first.
    Remove { asked_by: Incarnation, task: TaskId },
}

/// All containers of one machine.
#[derive(Debug, Default)]
pub struct SimulatedRuntime {
    processes: BTreeMap<ContainerKey, Process>,
    /// Asked to start, not begun yet.
    beginning: BTreeSet<ContainerKey>,
    /// How often each container was begun: more than once is a doubled task.
    begun: BTreeMap<ContainerKey, u32>,
    doubled: Vec<ContainerKey>,
    next_id: u64,
}

impl SimulatedRuntime {
    /// Takes a command; what follows from it, and after how long.
    pub fn command(
        &mut self,
        asked_by: Incarnation,
        command: RuntimeCommand,
        chance: &mut Chance,
    ) -> Vec<(Duration, MachineEvent)> {
        let soon = |chance: &mut Chance| {
            chance.duration(Duration::from_millis(1)..Duration::from_millis(30))
        };
        match command {
            RuntimeCommand::Pull { task, plan } => {
                let slow = chance.duration(Duration::from_millis(1)..Duration::from_secs(3));
                let event = if chance.per_mille(20) {
                    RuntimeEvent::PullFailed {
                        task,
                        container: plan.name.clone(),
                        reason: "CannotPullContainerError: simulated".to_owned(),
                    }
                } else {
                    RuntimeEvent::Pulled {
                        task,
                        container: plan.name.clone(),
                        digest: format!("sha256:{}", "0".repeat(64)),
                    }
                };
                vec![(slow, MachineEvent::Tell { asked_by, event })]
            }
            RuntimeCommand::PrepareLog {
                task, container, ..
            } => {
                let event = RuntimeEvent::LogReady { task, container };
                vec![(soon(chance), MachineEvent::Tell { asked_by, event })]
            }
            RuntimeCommand::Start { task, plan, .. } => {
                let key = (task, plan.name.clone());
                if let Some(process) = self.processes.get(&key) {
                    // Done before, by an agent that died before it heard of it.
                    let runtime_id = process.runtime_id.clone();
                    let started = RuntimeEvent::Started {
                        task,
                        container: key.1.clone(),
                        runtime_id: runtime_id.clone(),
                        at: process.started_at,
                    };
                    let after = soon(chance);
                    let mut told = vec![(
                        after,
                        MachineEvent::Tell {
                            asked_by,
                            event: started,
                        },
                    )];
                    if let Some(exit) = process.exit.clone() {
                        let event = RuntimeEvent::Exited {
                            task,
                            container: key.1,
                            runtime_id,
                            exit,
                        };
                        told.push((after, MachineEvent::Tell { asked_by, event }));
                    }
                    return told;
                }
                if !self.beginning.insert(key.clone()) {
                    return Vec::new();
                }
                vec![(
                    soon(chance),
                    MachineEvent::Begin {
                        task,
                        container: key.1,
                    },
                )]
            }
            RuntimeCommand::Stop {
                task,
                container,
                grace,
            } => {
                // Some heed SIGTERM at once, some wait for SIGKILL.
                let (after, exit_code) = if chance.per_mille(700) {
                    (soon(chance), 143)
                } else {
                    (grace, 137)
                };
                let process = self.processes.get(&(task, container.clone()));
                let Some(runtime_id) = process.map(|process| process.runtime_id.clone()) else {
                    return Vec::new();
                };
                vec![(
                    after,
                    MachineEvent::End {
                        task,
                        container,
                        runtime_id,
                        exit_code,
                    },
                )]
            }
            RuntimeCommand::ResumeLog { .. }
            | RuntimeCommand::Restart { .. }
            | RuntimeCommand::CheckHealth { .. } => Vec::new(),
            RuntimeCommand::Remove { task } => {
                vec![(soon(chance), MachineEvent::Remove { asked_by, task })]
            }
        }
    }

    /// Carries out what is due on the machine; what the agent hears of it (if one runs), and what follows.
    pub fn happen(
        &mut self,
        agent: Incarnation,
        event: MachineEvent,
        now: Timestamp,
        chance: &mut Chance,
    ) -> (Option<RuntimeEvent>, Vec<(Duration, MachineEvent)>) {
        match event {
            MachineEvent::Tell { asked_by, event } => {
                ((asked_by == agent).then_some(event), Vec::new())
            }
            MachineEvent::Begin { task, container } => self.begin(task, container, now, chance),
            MachineEvent::End {
                task,
                container,
                runtime_id,
                exit_code,
            } => {
                let Some(process) = self.processes.get_mut(&(task, container.clone())) else {
                    return (None, Vec::new());
                };
                if process.exit.is_some() || process.lost || process.runtime_id != runtime_id {
                    return (None, Vec::new());
                }
                let exit = Exit {
                    exit_code,
                    out_of_memory: false,
                    at: now,
                };
                process.exit = Some(exit.clone());
                (
                    Some(RuntimeEvent::Exited {
                        task,
                        container,
                        runtime_id,
                        exit,
                    }),
                    Vec::new(),
                )
            }
            MachineEvent::Remove { asked_by, .. } if asked_by != agent => (None, Vec::new()),
            MachineEvent::Remove { task, .. } => {
                self.processes.retain(|(owner, _), _| *owner != task);
                self.beginning.retain(|(owner, _)| *owner != task);
                (Some(RuntimeEvent::Removed { task }), Vec::new())
            }
        }
    }

    fn begin(
        &mut self,
        task: TaskId,
        container: String,
        now: Timestamp,
        chance: &mut Chance,
    ) -> (Option<RuntimeEvent>, Vec<(Duration, MachineEvent)>) {
        let key = (task, container.clone());
        if !self.beginning.remove(&key) {
            return (None, Vec::new());
        }
        if chance.per_mille(20) {
            let reason = "CannotStartContainerError: simulated".to_owned();
            return (
                Some(RuntimeEvent::StartFailed {
                    task,
                    container,
                    reason,
                }),
                Vec::new(),
            );
        }
        self.next_id += 1;
        let process = Process {
            runtime_id: format!("{:x}", self.next_id),
            started_at: now,
            exit: None,
            lost: false,
        };
        let started = RuntimeEvent::Started {
            task,
            container: container.clone(),
            runtime_id: process.runtime_id.clone(),
            at: now,
        };
        let runtime_id = process.runtime_id.clone();
        self.processes.insert(key.clone(), process);
        let begun = self.begun.entry(key.clone()).or_default();
        *begun += 1;
        if *begun > 1 {
            self.doubled.push(key);
        }
        let lives = chance.duration(Duration::from_millis(5)..Duration::from_secs(120));
        let exit_code = if chance.per_mille(800) { 0 } else { 1 };
        (
            Some(started),
            vec![(
                lives,
                MachineEvent::End {
                    task,
                    container,
                    runtime_id,
                    exit_code,
                },
            )],
        )
    }

    /// What an agent that starts now finds.
    pub fn adopt(&mut self, chance: &mut Chance) -> Vec<AdoptedTask> {
        let mut tasks: BTreeMap<TaskId, BTreeMap<String, AdoptedContainer>> = BTreeMap::new();
        // What was being made when the last agent died may come up without it, or never.
        for (task, container) in std::mem::take(&mut self.beginning) {
            let found = if chance.per_mille(500) {
                self.beginning.insert((task, container.clone()));
                AdoptedContainer::Starting { restarts: 0 }
            } else {
                AdoptedContainer::Lost {
                    reason: "it was being started when the agent died".to_owned(),
                }
            };
            tasks.entry(task).or_default().insert(container, found);
        }
        for ((task, container), process) in &self.processes {
            let (runtime_id, started_at) = (process.runtime_id.clone(), process.started_at);
            let adopted = match &process.exit {
                None if process.lost => AdoptedContainer::Lost {
                    reason: "the power went".to_owned(),
                },
                None => AdoptedContainer::Running {
                    runtime_id,
                    started_at,
                    restarts: 0,
                },
                Some(exit) => AdoptedContainer::Exited {
                    runtime_id,
                    started_at,
                    restarts: 0,
                    exit: exit.clone(),
                },
            };
            tasks
                .entry(*task)
                .or_default()
                .insert(container.clone(), adopted);
        }
        tasks
            .into_iter()
            .map(|(task, containers)| AdoptedTask {
                task,
                containers,
                ports: BTreeMap::new(),
            })
            .collect()
    }

    /// The power goes: every process ends without anybody seeing how. What had ended before is
    /// still on the disk, and so is that the others had been started.
    pub fn power_cut(&mut self) {
        for process in self.processes.values_mut() {
            process.lost |= process.exit.is_none();
        }
        self.beginning.clear();
    }

    /// Whether anything of the task runs.
    pub fn runs(&self, task: &TaskId) -> bool {
        self.processes
            .range((*task, String::new())..)
            .take_while(|((owner, _), _)| owner == task)
            .any(|(_, process)| process.exit.is_none() && !process.lost)
    }

    /// Whether anything of any task is left.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.beginning.is_empty()
    }

    /// Every task of which a container was ever begun here.
    pub fn begun(&self) -> BTreeSet<TaskId> {
        self.begun.keys().map(|(task, _)| *task).collect()
    }

    /// Containers that were begun more than once.
    pub fn doubled(&self) -> &[ContainerKey] {
        &self.doubled
    }
}
