//! One task on this container instance: its containers from pull to exit.
//!
//! What always holds: `drive` looks only at the state, never at what just happened, so a lost effect
//! is made again after a restart. A container is started only when the task's acceptance is durable,
//! and started again only as often as its restart policy says. Statuses only advance. Once the task
//! shall stop, there is no way back, and nothing is started any more.
//! What it leaves to others: what of a task is found after a restart (`adopt`), when a container may
//! start (`start`), stop (`stop`) and start again (`restart`), whether it is healthy (`health`), the
//! journal, and the reports' way to the control plane (`report`).

mod adopt;
pub(super) mod health;
mod restart;
mod start;
mod stop;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::acs;
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use self::health::Check;
use self::restart::Restarting;
use super::journal::{ContainerState, Stopping, TaskState};
use super::plan::{ContainerPlan, LogPlan, TaskPlan, plan_task};
use super::step::{
    ContainerHealth, Exit, NetworkBinding, Output, RuntimeCommand, RuntimeEvent, Timer,
};
use super::{ContainerStatus, TaskStatus};

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
    /// That the task shall stop is on disk: containers that would be started again may be stopped.
    pub stopping_durable: bool,
    /// The STOPPED state is on disk: what the runtime keeps of the task may go.
    pub stop_durable: bool,
    /// The state differs from what was last given to the journal.
    pub dirty: bool,
    asked: BTreeMap<String, Asked>,
    /// The health that was last put out.
    told_health: Option<BTreeMap<String, ContainerHealth>>,
    remove_asked: bool,
    pub removed: bool,
}

/// What was asked of the runtime and of the timers by this process, a container.
#[derive(Clone, Debug, Default)]
struct Asked {
    pull: bool,
    log: bool,
    log_ready: bool,
    start: bool,
    stop: bool,
    restart: Restarting,
    check: Check,
    dependency_timer: bool,
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
            stopping_durable: false,
            stop_durable: false,
            dirty: false,
            asked: BTreeMap::new(),
            told_health: None,
            remove_asked: false,
            removed: false,
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
                self.asked_mut(container).log_ready = true;
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
            // It is written down with the start that follows; until then the network knows it.
            RuntimeEvent::PortsBound {
                container,
                bindings,
                ..
            } => {
                if self.has(container) {
                    self.container_mut(container)
                        .network_bindings
                        .clone_from(bindings);
                }
            }
            RuntimeEvent::Started {
                container,
                runtime_id,
                at,
                ..
            } => self.started(container, runtime_id, *at),
            RuntimeEvent::Exited {
                container,
                runtime_id,
                exit,
                ..
            } => {
                if !self.is_known_exit(container, exit) {
                    self.started(container, runtime_id, exit.at);
                    self.exited(container, exit);
                }
            }
            RuntimeEvent::HealthChecked {
                container,
                restarts,
                healthy,
                output,
                at,
                ..
            } => self.health_checked(container, *restarts, *healthy, output, *at),
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
            RuntimeEvent::Removed { .. } => self.removed = true,
        }
    }

    /// Something that this task set a timer for is due.
    pub fn on_timer(&mut self, timer: &Timer) {
        match timer {
            Timer::StartTimeout { container, .. } => self.start_timed_out(container),
            // Whether it is too late is seen from the state; this is only the time to look.
            Timer::DependencyTimeout { container, .. } => {
                self.asked_mut(container).dependency_timer = false;
            }
            Timer::HealthCheck { container, .. } => self.check_is_due(container),
            Timer::Reconnect | Timer::Renew | Timer::Silence | Timer::Report(_) => {}
        }
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
        if self.may_go_forward() {
            self.drive_forward(&plan, now, out);
        }
        // Going forward may have found that the task has to stop.
        if self.state.stopping.is_some() {
            self.drive_stop(&plan, out);
        } else {
            self.drive_restarts(&plan, out);
        }
        self.drive_checks(&plan, now, out);
        self.settle(now, out);
        self.tell_health(&plan, out);
    }

    fn may_go_forward(&self) -> bool {
        self.state.stopping.is_none() && self.state.status != TaskStatus::Stopped
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

    /// It runs, for the first time or again.
    fn started(&mut self, container: &str, runtime_id: &str, at: Timestamp) {
        if !self.has(container) {
            return;
        }
        self.started_again(container, at);
        let state = self.container_mut(container);
        if state.status.advance(ContainerStatus::Running) {
            state.runtime_id = Some(runtime_id.to_owned());
            state.started_at = Some(at);
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
        if self.status_of(container) < ContainerStatus::Stopped
            && !self.begin_restart(container, exit)
        {
            self.ended(container, exit);
        }
    }

    /// It has ended for good.
    fn ended(&mut self, container: &str, exit: &Exit) {
        if !self.has(container) {
            return;
        }
        let essential = self.is_essential(container);
        let state = self.container_mut(container);
        if !state.status.advance(ContainerStatus::Stopped) {
            return;
        }
        state.exit_code = Some(exit.exit_code);
        state.finished_at = Some(exit.at);
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
        let last_exit = self.asked_mut(container).restart.take_exit();
        let state = self.container_mut(container);
        if !state.status.advance(ContainerStatus::Stopped) {
            return;
        }
        if let Some(exit) = last_exit {
            state.exit_code = Some(exit.exit_code);
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

    fn asked_mut(&mut self, container: &str) -> &mut Asked {
        self.asked.entry(container.to_owned()).or_default()
    }

    fn start_asked(&self, container: &str) -> bool {
        self.asked.get(container).is_some_and(|asked| asked.start)
    }

    /// Whether its process runs, as far as is known: not where it is being started again.
    fn runs(&self, container: &str) -> bool {
        self.status_of(container) == ContainerStatus::Running
            && self
                .asked
                .get(container)
                .is_none_or(|asked| asked.restart == Restarting::No)
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

    /// What the payload asks for, unless it asks for what is not built.
    pub fn plan(&self) -> Option<&TaskPlan> {
        self.plan.as_deref().ok()
    }

    fn plan_of(&self, container: &str) -> Option<&ContainerPlan> {
        let plan = self.plan.as_ref().ok()?;
        plan.containers.iter().find(|c| c.name == container)
    }

    fn log_of(&self, container: &str) -> Option<super::plan::ShippedLog> {
        match &self.plan_of(container)?.log {
            LogPlan::Shipped(log) => Some(log.clone()),
            LogPlan::None => None,
        }
    }

    /// The host ports of a container, for its report: those that the network gave it, or those that it
    /// takes by itself on the host's network.
    pub fn bindings_of(&self, container: &str) -> Vec<NetworkBinding> {
        let given = self.state.containers.get(container);
        if let Some(given) = given.filter(|state| !state.network_bindings.is_empty()) {
            return given.network_bindings.clone();
        }
        let ports = self.plan_of(container).map(|plan| plan.ports.as_slice());
        ports
            .unwrap_or_default()
            .iter()
            .filter(|port| port.host_port > 0)
            .map(|port| NetworkBinding {
                container_port: port.container_port,
                host_port: port.host_port,
                protocol: port.protocol.clone(),
                last_container_port: None,
            })
            .collect()
    }
}
