//! One task on this container instance: its containers from pull to exit.
//!
//! What always holds: `drive` looks only at the state, never at what just happened, so a lost effect
//! is made again after a restart. A container is started at most once, and only when the task's
//! acceptance is durable. Statuses only advance. Once it shall stop, there is no way back.
//! What it leaves to others: the journal and the reports' way to the control plane (`report`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::acs;
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use super::journal::{ContainerState, Stopping, TaskState};
use super::plan::{LogPlan, StartCondition, TaskPlan, plan_task};
use super::step::{
    AdoptedContainer, AdoptedTask, Exit, Output, RuntimeCommand, RuntimeEvent, Timer,
};
use super::{ContainerStatus, TaskStatus};

/// How long a container may take to start where the task definition does not say, as on ECS.
const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(180);
const ESSENTIAL_EXITED: &str = "Essential container in task exited";
const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";
/// What the kernel's OOM killer leaves: 128 and SIGKILL.
const OUT_OF_MEMORY_EXIT_CODE: i32 = 137;

#[derive(Clone, Debug)]
pub struct TaskMachine {
    pub id: TaskId,
    pub cluster: String,
    pub payload: acs::Task,
    pub state: TaskState,
    plan: Result<Arc<TaskPlan>, String>,
    /// The acceptance is on disk: containers may be started.
    pub durable: bool,
    /// The STOPPED state is on disk: what the runtime keeps of the task may go.
    pub stop_durable: bool,
    /// The state differs from what was last given to the journal.
    pub dirty: bool,
    asked: BTreeMap<String, Asked>,
    remove_asked: bool,
    pub removed: bool,
}

/// What was asked of the runtime by this process, a container.
#[derive(Clone, Debug, Default)]
struct Asked {
    pull: bool,
    log: bool,
    log_ready: bool,
    start: bool,
    stop: bool,
}

impl TaskMachine {
    pub fn new(id: TaskId, cluster: String, payload: acs::Task) -> TaskMachine {
        let plan = plan_task(&payload).map(Arc::new);
        let mut state = TaskState::default();
        for container in &payload.containers {
            let name = container.name.clone().unwrap_or_default();
            state.containers.insert(name, ContainerState::default());
        }
        TaskMachine {
            id,
            cluster,
            payload,
            state,
            plan,
            durable: false,
            stop_durable: false,
            dirty: false,
            asked: BTreeMap::new(),
            remove_asked: false,
            removed: false,
        }
    }

    /// A task of the journal, brought together with what the runtime found of it.
    pub fn loaded(
        id: TaskId,
        cluster: String,
        payload: acs::Task,
        state: TaskState,
        adopted: Option<&AdoptedTask>,
        out: &mut Vec<Output>,
    ) -> TaskMachine {
        let mut machine = TaskMachine::new(id, cluster, payload);
        let mut containers = std::mem::take(&mut machine.state.containers);
        for (name, known) in state.containers.clone() {
            containers.insert(name, known);
        }
        machine.state = TaskState {
            containers,
            ..state
        };
        machine.durable = true;
        machine.stop_durable = machine.state.status == TaskStatus::Stopped;
        let names: Vec<String> = machine.state.containers.keys().cloned().collect();
        for name in names {
            let found = adopted.and_then(|task| task.containers.get(&name));
            machine.adopt_container(&name, found, out);
        }
        machine.dirty = true;
        machine
    }

    fn adopt_container(
        &mut self,
        name: &str,
        found: Option<&AdoptedContainer>,
        out: &mut Vec<Output>,
    ) {
        let log = self.log_of(name);
        let known = self.container_mut(name).status;
        match found {
            Some(AdoptedContainer::Running { runtime_id, .. }) => {
                self.started(name, runtime_id);
            }
            Some(AdoptedContainer::Exited {
                runtime_id, exit, ..
            }) => {
                self.started(name, runtime_id);
                self.exited(name, exit);
            }
            Some(AdoptedContainer::Starting) => {
                self.container_mut(name)
                    .status
                    .advance(ContainerStatus::Created);
                out.push(Output::SetTimer {
                    timer: Timer::StartTimeout {
                        task: self.id,
                        container: name.to_owned(),
                    },
                    after: DEFAULT_START_TIMEOUT,
                });
            }
            Some(AdoptedContainer::Lost { reason }) => self.failed(name, reason.clone()),
            // It ran when it was last seen, and the runtime has nothing of it: it was not removed by
            // this agent, which removes only what is reported.
            None if known == ContainerStatus::Running => self.failed(
                name,
                "ContainerRuntimeError: the container was lost while its agent was away".to_owned(),
            ),
            // What the last process had pulled or asked for is asked for again.
            None if known < ContainerStatus::Running => {
                self.container_mut(name).status = ContainerStatus::None;
                return;
            }
            None => return,
        }
        let asked = self.asked.entry(name.to_owned()).or_default();
        asked.pull = true;
        asked.start = true;
        if let (Some(log), false) = (log, asked.log) {
            asked.log = true;
            asked.log_ready = true;
            let (task, container) = (self.id, name.to_owned());
            out.push(Output::Runtime(RuntimeCommand::ResumeLog {
                task,
                container,
                log,
            }));
        }
    }

    /// Stops the task. The first reason stays.
    pub fn stop(&mut self, reason: Option<String>) {
        if self.state.stopping.is_none() && self.state.status != TaskStatus::Stopped {
            self.state.stopping = Some(Stopping { reason });
            self.dirty = true;
        }
    }

    pub fn on_event(&mut self, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Pulled {
                container, digest, ..
            } => {
                if self.has(container) {
                    let state = self.container_mut(container);
                    state.image_digest = Some(digest.clone());
                    state.status.advance(ContainerStatus::Pulled);
                }
            }
            RuntimeEvent::LogReady { container, .. } => {
                self.asked.entry(container.clone()).or_default().log_ready = true;
            }
            RuntimeEvent::PullFailed {
                container, reason, ..
            }
            | RuntimeEvent::LogFailed {
                container, reason, ..
            }
            | RuntimeEvent::StartFailed {
                container, reason, ..
            } => {
                self.failed(container, reason.clone());
            }
            RuntimeEvent::Started {
                container,
                runtime_id,
                ..
            } => {
                self.started(container, runtime_id);
            }
            RuntimeEvent::Exited {
                container,
                runtime_id,
                exit,
                ..
            } => {
                self.started(container, runtime_id);
                self.exited(container, exit);
            }
            RuntimeEvent::ShimDied { reason, .. } => {
                let running: Vec<String> = self
                    .state
                    .containers
                    .iter()
                    .filter(|(name, state)| {
                        state.status == ContainerStatus::Running
                            || (state.status < ContainerStatus::Running && self.start_asked(name))
                    })
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in running {
                    self.failed(&name, reason.clone());
                }
            }
            RuntimeEvent::HealthChecked { .. } => {}
            RuntimeEvent::Removed { .. } => self.removed = true,
        }
    }

    /// A start that took too long fails the task; the container is stopped should it still start.
    pub fn start_timed_out(&mut self, container: &str) {
        if !self.has(container) || self.container_mut(container).status >= ContainerStatus::Running
        {
            return;
        }
        let reason =
            format!("ContainerRuntimeTimeoutError: container '{container}' did not start in time");
        self.container_mut(container).reason = Some(reason.clone());
        self.stop(Some(reason));
    }

    /// Asks the runtime for whatever the state calls for and has not been asked for yet.
    pub fn drive(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let plan = match self.plan.clone() {
            Ok(plan) => plan,
            Err(reason) => {
                self.stop(Some(reason));
                self.stop_unplanned();
                self.settle(now, out);
                return;
            }
        };
        if self.state.stopping.is_none() && self.state.status != TaskStatus::Stopped {
            self.drive_forward(&plan, now, out);
        }
        // Going forward may have found that the task has to stop.
        if self.state.stopping.is_some() {
            self.drive_stop(&plan, out);
        }
        self.settle(now, out);
    }

    fn drive_forward(&mut self, plan: &TaskPlan, now: Timestamp, out: &mut Vec<Output>) {
        for container in &plan.containers {
            let name = &container.name;
            let status = self.container_mut(name).status;
            if status >= ContainerStatus::Running {
                continue;
            }
            let task = self.id;
            let asked = self.asked.entry(name.clone()).or_default();
            if !asked.log {
                asked.log = true;
                match &container.log {
                    LogPlan::None => asked.log_ready = true,
                    LogPlan::AwsLogs(log) => {
                        out.push(Output::Runtime(RuntimeCommand::PrepareLog {
                            task,
                            container: name.clone(),
                            log: log.clone(),
                        }))
                    }
                }
            }
            if !asked.pull {
                asked.pull = true;
                let plan = Box::new(container.clone());
                out.push(Output::Runtime(RuntimeCommand::Pull { task, plan }));
                self.state.pull_started_at.get_or_insert(now);
            }
        }
        let all_pulled = self
            .state
            .containers
            .values()
            .all(|c| c.status >= ContainerStatus::Pulled);
        if all_pulled && self.state.pull_stopped_at.is_none() {
            self.state.pull_stopped_at = Some(now);
        }
        for container in &plan.containers {
            let name = &container.name;
            let ready = self
                .asked
                .get(name)
                .is_some_and(|a| a.log_ready && !a.start)
                && self.container_mut(name).status == ContainerStatus::Pulled;
            if !ready || !self.durable || self.state.stopping.is_some() {
                continue;
            }
            match self.dependencies(&container.depends_on) {
                Dependencies::Waiting => {}
                Dependencies::Failed(other) => self.failed(
                    name,
                    format!(
                        "TaskDependencyError: container '{name}' cannot start, because '{other}' did not reach what it depends on"
                    ),
                ),
                Dependencies::Ready => {
                    self.asked.entry(name.clone()).or_default().start = true;
                    self.container_mut(name).status.advance(ContainerStatus::Created);
                    out.push(Output::SetTimer {
                        timer: Timer::StartTimeout { task: self.id, container: name.clone() },
                        after: container.start_timeout.unwrap_or(DEFAULT_START_TIMEOUT),
                    });
                    out.push(Output::Runtime(RuntimeCommand::Start {
                        task: self.id,
                        task_plan: Box::new(plan.clone()),
                        plan: Box::new(container.clone()),
                    }));
                }
            }
        }
    }

    fn dependencies(&self, depends_on: &[(String, StartCondition)]) -> Dependencies {
        for (other, condition) in depends_on {
            let Some(state) = self.state.containers.get(other) else {
                return Dependencies::Failed(other.clone());
            };
            let stopped = state.status == ContainerStatus::Stopped;
            let ran = state.runtime_id.is_some();
            let met = match condition {
                StartCondition::Start => state.status >= ContainerStatus::Running && ran,
                StartCondition::Complete => stopped && ran,
                StartCondition::Healthy => false,
                StartCondition::Success => stopped && state.exit_code == Some(0),
            };
            if !met && stopped {
                return Dependencies::Failed(other.clone());
            }
            if !met {
                return Dependencies::Waiting;
            }
        }
        Dependencies::Ready
    }

    /// Stops in the reverse order of dependencies. What was never started just stays so.
    fn drive_stop(&mut self, plan: &TaskPlan, out: &mut Vec<Output>) {
        for container in &plan.containers {
            if !self.start_asked(&container.name) {
                self.mark_stopped(&container.name);
            }
        }
        for container in &plan.containers {
            let name = &container.name;
            let dependants_stopped = plan
                .containers
                .iter()
                .filter(|other| other.depends_on.iter().any(|(on, _)| on == name))
                .all(|other| self.status_of(&other.name) == ContainerStatus::Stopped);
            let asked = self.asked.entry(name.clone()).or_default();
            if asked.stop || !dependants_stopped {
                continue;
            }
            if self.state.containers.get(name).map(|c| c.status) == Some(ContainerStatus::Running) {
                asked.stop = true;
                out.push(Output::Runtime(RuntimeCommand::Stop {
                    task: self.id,
                    container: name.clone(),
                    grace: container.stop_timeout,
                }));
            }
        }
    }

    /// A task that could not be planned has nothing that runs.
    fn stop_unplanned(&mut self) {
        let names: Vec<String> = self.state.containers.keys().cloned().collect();
        for name in names {
            self.mark_stopped(&name);
        }
    }

    /// Draws the task's status from its containers', and removes what is reported and done.
    fn settle(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let all = |at_least: ContainerStatus, state: &TaskState| {
            state.containers.values().all(|c| c.status >= at_least)
        };
        if all(ContainerStatus::Stopped, &self.state) {
            // Every container has ended although none was essential.
            self.stop(Some(ESSENTIAL_EXITED.to_owned()));
            if self.state.status.advance(TaskStatus::Stopped) {
                self.state.execution_stopped_at.get_or_insert(now);
                self.dirty = true;
            }
        } else if self.state.stopping.is_none()
            && all(ContainerStatus::Running, &self.state)
            && self.state.status.advance(TaskStatus::Running)
        {
            self.dirty = true;
        }
        if self.state.stop_acknowledged && self.stop_durable && !self.remove_asked {
            self.remove_asked = true;
            out.push(Output::Runtime(RuntimeCommand::Remove { task: self.id }));
        }
    }

    fn started(&mut self, container: &str, runtime_id: &str) {
        if !self.has(container) {
            return;
        }
        let state = self.container_mut(container);
        if state.status.advance(ContainerStatus::Running) {
            state.runtime_id = Some(runtime_id.to_owned());
            self.dirty = true;
            // A task whose every container came up was RUNNING, even if one has ended by the time
            // anybody looks.
            let all_up = self
                .state
                .containers
                .values()
                .all(|c| c.status >= ContainerStatus::Running);
            if all_up && self.state.stopping.is_none() {
                self.state.status.advance(TaskStatus::Running);
            }
        }
    }

    fn exited(&mut self, container: &str, exit: &Exit) {
        if !self.has(container) {
            return;
        }
        let essential = self.is_essential(container);
        let state = self.container_mut(container);
        if !state.status.advance(ContainerStatus::Stopped) {
            return;
        }
        state.exit_code = Some(exit.exit_code);
        if exit.out_of_memory {
            state.exit_code = Some(OUT_OF_MEMORY_EXIT_CODE);
            state.reason = Some(OUT_OF_MEMORY.to_owned());
        }
        self.dirty = true;
        if essential {
            self.state.execution_stopped_at.get_or_insert(exit.at);
            self.stop(Some(ESSENTIAL_EXITED.to_owned()));
        }
    }

    /// A container that did not come to run, or was lost. Its reason is the task's if it is essential.
    fn failed(&mut self, container: &str, reason: String) {
        if !self.has(container) {
            return;
        }
        let essential = self.is_essential(container);
        let state = self.container_mut(container);
        if !state.status.advance(ContainerStatus::Stopped) {
            return;
        }
        state.reason.get_or_insert_with(|| reason.clone());
        self.dirty = true;
        if essential {
            self.stop(Some(reason));
        }
    }

    fn mark_stopped(&mut self, container: &str) {
        if self
            .container_mut(container)
            .status
            .advance(ContainerStatus::Stopped)
        {
            self.dirty = true;
        }
    }

    fn has(&self, container: &str) -> bool {
        self.state.containers.contains_key(container)
    }

    fn start_asked(&self, container: &str) -> bool {
        self.asked.get(container).is_some_and(|asked| asked.start)
    }

    fn status_of(&self, container: &str) -> ContainerStatus {
        self.state
            .containers
            .get(container)
            .map(|c| c.status)
            .unwrap_or_default()
    }

    fn container_mut(&mut self, container: &str) -> &mut ContainerState {
        self.state
            .containers
            .entry(container.to_owned())
            .or_default()
    }

    fn is_essential(&self, container: &str) -> bool {
        self.payload
            .containers
            .iter()
            .find(|c| c.name.as_deref() == Some(container))
            .and_then(|c| c.essential)
            .unwrap_or(true)
    }

    fn log_of(&self, container: &str) -> Option<super::plan::AwsLogsPlan> {
        let plan = self.plan.as_ref().ok()?;
        match &plan.containers.iter().find(|c| c.name == container)?.log {
            LogPlan::AwsLogs(log) => Some(log.clone()),
            LogPlan::None => None,
        }
    }

    /// The ports of a container, for its report.
    pub fn ports_of(&self, container: &str) -> Vec<super::plan::PortBinding> {
        let plan = self.plan.as_ref().ok();
        plan.and_then(|plan| plan.containers.iter().find(|c| c.name == container))
            .map(|c| c.ports.clone())
            .unwrap_or_default()
    }
}

enum Dependencies {
    Ready,
    Waiting,
    /// This one will never be what was asked of it.
    Failed(String),
}
