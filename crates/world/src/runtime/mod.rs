//! A machine's containers, as far as the agent can tell: they start, run for a while, are healthy or
//! not, end or are killed, and start again where they are told to.
//!
//! What always holds: containers belong to the machine, not to the agent, so they outlive an agent that
//! crashes, and what ended meanwhile is found by the next one. A power cut ends them all. Whatever an
//! agent asks for is held against what it must keep to (`promises`).
//! What it leaves to others: when things happen. It answers with delays, the world schedules them.

mod adopt;
mod behaviour;
mod process;
mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_agent::core::plan::{HealthCheckPlan, TaskPlan};
use gantry_agent::core::step::{Exit, RuntimeCommand, RuntimeEvent};
use gantry_arn::TaskId;
use gantry_env::Timestamp;

pub use self::behaviour::Behaviour;
use self::process::{Process, fate};
use crate::chance::Chance;
use crate::founding::Size;
use crate::machine::Incarnation;

type ContainerKey = (TaskId, String);

/// What follows, and after how long.
type Follows = Vec<(Duration, MachineEvent)>;

/// Something that will happen on the machine itself, whether an agent runs or not.
#[derive(Clone, Debug)]
pub enum MachineEvent {
    /// The container's process begins now, unless a power cut came between.
    Begin { task: TaskId, container: String },
    /// The same, of a container that has ended.
    BeginAgain {
        task: TaskId,
        container: String,
        restarts: u32,
    },
    /// The process ends by itself or by a signal.
    End {
        task: TaskId,
        container: String,
        restarts: u32,
        exit_code: i32,
    },
    /// A health check of one agent process is over; void if that process is gone.
    Checked {
        asked_by: Incarnation,
        task: TaskId,
        container: String,
        restarts: u32,
        healthy: bool,
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
    /// What all that runs may take together.
    size: Size,
    processes: BTreeMap<ContainerKey, Process>,
    /// Asked to start, not begun yet.
    beginning: BTreeSet<ContainerKey>,
    plans: BTreeMap<TaskId, TaskPlan>,
    stop_asked: BTreeSet<ContainerKey>,
    /// By whom.
    checking: BTreeMap<ContainerKey, Incarnation>,
    was_healthy: BTreeSet<ContainerKey>,
    /// They are starting again for an agent that died, and the next one was told that they ended.
    unseen_restarts: BTreeSet<ContainerKey>,
    /// The power has gone since they were made: nothing of theirs starts any more.
    dead_tasks: BTreeSet<TaskId>,
    /// How often each container was begun: more than once is a doubled task.
    begun: BTreeMap<ContainerKey, u32>,
    doubled: Vec<ContainerKey>,
    next_id: u64,
    /// No process lives long any more.
    calm: bool,
    /// How often other images were pushed under the same tags.
    pub pushed: u64,
    /// How often a container was started again, and how often one was checked.
    pub restarted: usize,
    pub checked: usize,
}

impl SimulatedRuntime {
    pub fn of(size: Size) -> SimulatedRuntime {
        SimulatedRuntime {
            size,
            ..SimulatedRuntime::default()
        }
    }

    /// Takes a command; what follows from it.
    pub fn command(
        &mut self,
        asked_by: Incarnation,
        command: RuntimeCommand,
        chance: &mut Chance,
    ) -> Follows {
        let told = |after: Duration, event| vec![(after, MachineEvent::Tell { asked_by, event })];
        match command {
            RuntimeCommand::Pull { task, plan } => {
                let slow = chance.duration(Duration::from_millis(1)..Duration::from_secs(3));
                let container = plan.name.clone();
                let behaviour = Behaviour::of(&plan.command);
                let fails = behaviour.may_fail(self.calm) && chance.per_mille(20);
                if fails || behaviour == Behaviour::IsNotFound {
                    let reason = "CannotPullContainerError: simulated".to_owned();
                    let event = RuntimeEvent::PullFailed {
                        task,
                        container,
                        reason,
                    };
                    return told(slow, event);
                }
                let digest = match plan.image.split_once('@') {
                    Some((_, digest)) => digest.to_owned(),
                    None => format!("sha256:{:064x}", self.pushed),
                };
                let event = RuntimeEvent::Pulled {
                    task,
                    container,
                    digest,
                };
                told(slow, event)
            }
            RuntimeCommand::PrepareLog {
                task, container, ..
            } => told(soon(chance), RuntimeEvent::LogReady { task, container }),
            RuntimeCommand::Start {
                task,
                task_plan,
                plan,
            } => {
                self.check_start(task, &plan);
                self.plans.insert(task, *task_plan);
                self.start(asked_by, task, plan.name.clone(), chance)
            }
            RuntimeCommand::Restart {
                task,
                container,
                restarts,
            } => {
                self.check_restart(task, &container, restarts);
                self.restart(asked_by, task, container, restarts, chance)
            }
            RuntimeCommand::CheckHealth {
                task,
                container,
                restarts,
                check,
            } => {
                self.check_check(task, &container, &check);
                self.check_health(asked_by, task, container, restarts, &check, chance)
            }
            RuntimeCommand::Stop {
                task,
                container,
                grace,
            } => {
                self.check_stop(task, &container, grace);
                self.stop_asked.insert((task, container.clone()));
                self.stop(task, container, grace, chance)
            }
            RuntimeCommand::ResumeLog { .. } => Vec::new(),
            RuntimeCommand::Remove { task } => {
                vec![(soon(chance), MachineEvent::Remove { asked_by, task })]
            }
        }
    }

    fn start(
        &mut self,
        asked_by: Incarnation,
        task: TaskId,
        container: String,
        chance: &mut Chance,
    ) -> Follows {
        let key = (task, container);
        if self.processes.contains_key(&key) {
            // Done before, by an agent that died before it heard of it.
            return self.tell_again(asked_by, &key, chance);
        }
        let (task, container) = key.clone();
        match self.beginning.insert(key) {
            true => vec![(soon(chance), MachineEvent::Begin { task, container })],
            false => Vec::new(),
        }
    }

    fn restart(
        &mut self,
        asked_by: Incarnation,
        task: TaskId,
        container: String,
        restarts: u32,
        chance: &mut Chance,
    ) -> Follows {
        let key = (task, container);
        let is_dead = self.dead_tasks.contains(&task);
        let Some(process) = self.processes.get_mut(&key) else {
            return Vec::new();
        };
        if restarts <= process.restarts {
            return self.tell_again(asked_by, &key, chance);
        }
        let (task, container) = key;
        if is_dead {
            let reason = "ContainerRuntimeError: the task's shim ended".to_owned();
            let event = RuntimeEvent::StartFailed {
                task,
                container,
                reason,
            };
            return vec![(soon(chance), MachineEvent::Tell { asked_by, event })];
        }
        if std::mem::replace(&mut process.begins_again, true) {
            return Vec::new();
        }
        let again = MachineEvent::BeginAgain {
            task,
            container,
            restarts,
        };
        let slow = chance.per_mille(300);
        let after = match slow {
            true => chance.duration(Duration::from_millis(100)..Duration::from_secs(5)),
            false => soon(chance),
        };
        vec![(after, again)]
    }

    /// What has been done is told to whoever asks for it once more.
    fn tell_again(
        &self,
        asked_by: Incarnation,
        key: &ContainerKey,
        chance: &mut Chance,
    ) -> Follows {
        let process = &self.processes[key];
        let (task, container) = key.clone();
        let runtime_id = process.runtime_id.clone();
        let after = soon(chance);
        let started = RuntimeEvent::Started {
            task,
            container: container.clone(),
            runtime_id: runtime_id.clone(),
            at: process.started_at,
        };
        let exited = process.exit.clone().map(|exit| RuntimeEvent::Exited {
            task,
            container,
            runtime_id,
            exit,
        });
        std::iter::once(started)
            .chain(exited)
            .map(|event| (after, MachineEvent::Tell { asked_by, event }))
            .collect()
    }

    fn check_health(
        &mut self,
        asked_by: Incarnation,
        task: TaskId,
        container: String,
        restarts: u32,
        check: &HealthCheckPlan,
        chance: &mut Chance,
    ) -> Follows {
        let key = (task, container.clone());
        let runs = self.processes.get(&key).is_some_and(Process::runs);
        self.checking.insert(key, asked_by);
        self.checked += 1;
        // Some hang until they are killed.
        let (mut hangs, mut succeeds) = (false, true);
        match self.behaviour(task, &container) {
            Behaviour::Drawn => {
                hangs = chance.per_mille(30);
                succeeds = chance.per_mille(750);
            }
            _ if self.calm => {}
            _ => succeeds = chance.per_mille(970),
        }
        let healthy = runs && !hangs && succeeds;
        let after = match hangs {
            true => check.timeout,
            false => soon(chance),
        };
        let checked = MachineEvent::Checked {
            asked_by,
            task,
            container,
            restarts,
            healthy,
        };
        vec![(after, checked)]
    }

    fn stop(
        &mut self,
        task: TaskId,
        container: String,
        grace: Duration,
        chance: &mut Chance,
    ) -> Follows {
        // Some heed SIGTERM at once, some wait for SIGKILL.
        let heeds = match self.behaviour(task, &container) {
            Behaviour::Drawn => chance.per_mille(700),
            _ => self.calm || chance.per_mille(900),
        };
        let (after, exit_code) = match heeds {
            true => (soon(chance), 143),
            false => (grace, 137),
        };
        let Some(process) = self.processes.get(&(task, container.clone())) else {
            return Vec::new();
        };
        let end = MachineEvent::End {
            task,
            container,
            restarts: process.restarts,
            exit_code,
        };
        vec![(after, end)]
    }

    /// Carries out what is due on the machine; what the agent hears of it (if one runs), and what follows.
    pub fn happen(
        &mut self,
        agent: Incarnation,
        event: MachineEvent,
        now: Timestamp,
        chance: &mut Chance,
    ) -> (Option<RuntimeEvent>, Follows) {
        match event {
            MachineEvent::Tell { asked_by, event } => {
                ((asked_by == agent).then_some(event), Vec::new())
            }
            MachineEvent::Begin { task, container } => self.begin(task, container, now, chance),
            MachineEvent::BeginAgain {
                task,
                container,
                restarts,
            } => self.begin_again(task, container, restarts, now, chance),
            MachineEvent::End {
                task,
                container,
                restarts,
                exit_code,
            } => (
                self.end(task, container, restarts, exit_code, now),
                Vec::new(),
            ),
            MachineEvent::Checked { asked_by, .. } if asked_by != agent => (None, Vec::new()),
            MachineEvent::Checked {
                asked_by: _,
                task,
                container,
                restarts,
                healthy,
            } => (
                Some(self.end_check(task, container, restarts, healthy, now)),
                Vec::new(),
            ),
            MachineEvent::Remove { asked_by, .. } if asked_by != agent => (None, Vec::new()),
            MachineEvent::Remove { task, .. } => {
                self.remove(task);
                (Some(RuntimeEvent::Removed { task }), Vec::new())
            }
        }
    }

    fn remove(&mut self, task: TaskId) {
        let of_another = |key: &ContainerKey| key.0 != task;
        for (key, process) in &self.processes {
            assert!(
                of_another(key) || process.is_over(),
                "{key:?} is removed while it runs"
            );
        }
        self.processes.retain(|key, _| of_another(key));
        self.beginning.retain(of_another);
        self.stop_asked.retain(of_another);
        self.checking.retain(|key, _| of_another(key));
        self.was_healthy.retain(of_another);
        self.unseen_restarts.retain(of_another);
        self.plans.remove(&task);
        self.dead_tasks.remove(&task);
    }

    fn end(
        &mut self,
        task: TaskId,
        container: String,
        restarts: u32,
        exit_code: i32,
        now: Timestamp,
    ) -> Option<RuntimeEvent> {
        let process = self.processes.get_mut(&(task, container.clone()))?;
        if !process.runs() || process.restarts != restarts {
            return None;
        }
        let exit = Exit {
            exit_code,
            out_of_memory: false,
            at: now,
        };
        process.exit = Some(exit.clone());
        let runtime_id = process.runtime_id.clone();
        Some(RuntimeEvent::Exited {
            task,
            container,
            runtime_id,
            exit,
        })
    }

    fn end_check(
        &mut self,
        task: TaskId,
        container: String,
        restarts: u32,
        healthy: bool,
        at: Timestamp,
    ) -> RuntimeEvent {
        let key = (task, container.clone());
        self.checking.remove(&key);
        let behaviour = self.behaviour(task, &container);
        let process = self.processes.get_mut(&key);
        // It may have ended, or begun again, while it was checked.
        let healthy = healthy
            && process.as_ref().is_some_and(|process| {
                process.runs() && behaviour.is_well(at.since(process.started_at))
            });
        if let Some(process) = process.filter(|p| p.restarts == restarts) {
            match healthy {
                true => process.succeeded_checks += 1,
                false => process.failed_checks += 1,
            }
            if healthy {
                self.was_healthy.insert(key);
            }
        }
        RuntimeEvent::HealthChecked {
            task,
            container,
            restarts,
            healthy,
            output: "simulated".to_owned(),
            at,
        }
    }

    fn begin(
        &mut self,
        task: TaskId,
        container: String,
        now: Timestamp,
        chance: &mut Chance,
    ) -> (Option<RuntimeEvent>, Follows) {
        let key = (task, container);
        if !self.beginning.remove(&key) {
            return (None, Vec::new());
        }
        let behaviour = self.behaviour(task, &key.1);
        let mut fails = behaviour.may_fail(self.calm) && chance.per_mille(20);
        fails |= match behaviour {
            Behaviour::DoesNotStart => true,
            Behaviour::StartsNowAndThen => chance.per_mille(500),
            Behaviour::StartsFrom(at) => now < at,
            _ => false,
        };
        if fails {
            return (Some(start_failed(key)), Vec::new());
        }
        self.next_id += 1;
        let process = Process::new(format!("{:x}", self.next_id), now);
        let begun = self.begun.entry(key.clone()).or_default();
        *begun += 1;
        if *begun > 1 {
            self.doubled.push(key.clone());
        }
        self.live(key, process, chance)
    }

    fn begin_again(
        &mut self,
        task: TaskId,
        container: String,
        restarts: u32,
        now: Timestamp,
        chance: &mut Chance,
    ) -> (Option<RuntimeEvent>, Follows) {
        let key = (task, container);
        let Some(process) = self.processes.get_mut(&key) else {
            return (None, Vec::new());
        };
        if !process.begins_again || process.restarts + 1 != restarts {
            return (None, Vec::new());
        }
        process.begins_again = false;
        if chance.per_mille(50) {
            return (Some(start_failed(key)), Vec::new());
        }
        self.restarted += 1;
        let process = process.again(now);
        self.live(key, process, chance)
    }

    /// The process is there, and will end some time.
    fn live(
        &mut self,
        key: ContainerKey,
        process: Process,
        chance: &mut Chance,
    ) -> (Option<RuntimeEvent>, Follows) {
        let (task, container) = key.clone();
        let (lives, exit_code) = match self.behaviour(task, &container).lives() {
            Some(fate) => fate,
            None => fate(&container, self.calm, chance),
        };
        let process = Process {
            endless: lives == process::ENDLESS,
            ..process
        };
        let end = MachineEvent::End {
            task,
            container: container.clone(),
            restarts: process.restarts,
            exit_code,
        };
        let started = RuntimeEvent::Started {
            task,
            container,
            runtime_id: process.runtime_id.clone(),
            at: process.started_at,
        };
        self.processes.insert(key, process);
        self.check_size();
        (Some(started), vec![(lives, end)])
    }

    fn behaviour(&self, task: TaskId, container: &str) -> Behaviour {
        let plan = promises::plan_of(&self.plans, task, container);
        plan.map_or(Behaviour::Drawn, |plan| Behaviour::of(&plan.command))
    }

    /// From now on nothing goes wrong by chance, and no process whose life is drawn lives long, so that the
    /// world comes to its end.
    pub fn calm_down(&mut self) {
        self.calm = true;
    }

    /// Whether anything of the task runs.
    pub fn runs(&self, task: &TaskId) -> bool {
        self.processes
            .range((*task, String::new())..)
            .take_while(|((owner, _), _)| owner == task)
            .any(|(_, process)| !process.is_over())
    }

    /// Tasks of which something runs.
    pub fn running(&self) -> BTreeSet<TaskId> {
        let running = self.processes.iter().filter(|(_, p)| !p.is_over());
        running.map(|((task, _), _)| *task).collect()
    }

    /// Tasks of which something runs that ends only when it is told to.
    pub fn endless(&self) -> BTreeSet<TaskId> {
        let endless = self.processes.iter().filter(|(_, p)| p.endless && p.runs());
        endless.map(|((task, _), _)| *task).collect()
    }

    /// How a container ended, if it did by itself or by a signal.
    pub fn exit_code(&self, task: TaskId, container: &str) -> Option<i32> {
        let process = self.processes.get(&(task, container.to_owned()))?;
        process.exit.as_ref().map(|exit| exit.exit_code)
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

fn soon(chance: &mut Chance) -> Duration {
    chance.duration(Duration::from_millis(1)..Duration::from_millis(30))
}

fn start_failed((task, container): ContainerKey) -> RuntimeEvent {
    RuntimeEvent::StartFailed {
        task,
        container,
        reason: "CannotStartContainerError: simulated".to_owned(),
    }
}
