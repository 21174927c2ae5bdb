//! When a container may start: its image and its log are here, and its dependencies are what it asks.
//!
//! What always holds: a container is started once, and only when every dependency has met its
//! condition. A dependency that can never meet it fails the container, and with it what depends on
//! that one. `startTimeout` is, as on ECS, how long a container may take from its start until those
//! that depend on its end or its health find it so; without it they wait as long as it runs. That the
//! runtime starts a container at all in time is watched over apart from that, and always.
//! What it leaves to others: starting again (`restart`).

use std::time::Duration;

use gantry_env::Timestamp;

use super::super::plan::{ContainerPlan, LogPlan, StartCondition, TaskPlan};
use super::super::step::{Output, RuntimeCommand, Timer};
use super::super::{ContainerStatus, HealthStatus};
use super::TaskMachine;
use super::restart::Restarting;

/// How long the runtime may take to start a container, as the Amazon ECS agent gives it.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// What the Amazon ECS agent reports of a container that a dependency kept from starting.
const NEVER_STARTED_EXIT_CODE: i32 = 143;

enum Dependency {
    Met,
    Waiting,
    /// It will never be what is asked of it, in the words of the Amazon ECS agent.
    Never(String),
}

impl TaskMachine {
    pub(super) fn drive_forward(&mut self, plan: &TaskPlan, now: Timestamp, out: &mut Vec<Output>) {
        for container in &plan.containers {
            self.prepare(container, now, out);
        }
        let all_pulled = self
            .state
            .containers
            .values()
            .all(|c| c.status >= ContainerStatus::Pulled);
        if all_pulled && self.state.pull_stopped_at.is_none() {
            self.state.pull_stopped_at = Some(now);
        }
        // One that fails may be what another waits for.
        while self.start_what_is_ready(plan, now, out) {}
        for container in &plan.containers {
            self.watch_dependants(plan, container, now, out);
        }
    }

    /// Asks for the log and the image.
    fn prepare(&mut self, container: &ContainerPlan, now: Timestamp, out: &mut Vec<Output>) {
        let name = &container.name;
        if self.status_of(name) >= ContainerStatus::Running {
            return;
        }
        let task = self.id;
        let asked = self.asked_mut(name);
        if !asked.log {
            asked.log = true;
            match &container.log {
                LogPlan::None => asked.log_ready = true,
                LogPlan::Shipped(log) => {
                    out.push(Output::Runtime(RuntimeCommand::PrepareLog {
                        task,
                        container: name.clone(),
                        log: log.clone(),
                    }));
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

    /// Says whether a container was found that will never start.
    fn start_what_is_ready(
        &mut self,
        plan: &TaskPlan,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> bool {
        let mut any_failed = false;
        for container in &plan.containers {
            let name = &container.name;
            if self.status_of(name) > ContainerStatus::Pulled || self.start_asked(name) {
                continue;
            }
            match self.dependencies(plan, container, now) {
                Dependency::Never(reason) => {
                    self.container_mut(name).exit_code = Some(NEVER_STARTED_EXIT_CODE);
                    self.failed(name, reason);
                    any_failed = true;
                }
                Dependency::Met => self.start(plan, container, out),
                Dependency::Waiting => {}
            }
        }
        any_failed
    }

    fn start(&mut self, plan: &TaskPlan, container: &ContainerPlan, out: &mut Vec<Output>) {
        let name = &container.name;
        let is_here = self.asked.get(name).is_some_and(|asked| asked.log_ready)
            && self.status_of(name) == ContainerStatus::Pulled;
        if !is_here || !self.durable || self.state.stopping.is_some() {
            return;
        }
        self.asked_mut(name).start = true;
        self.container_mut(name)
            .status
            .advance(ContainerStatus::Created);
        out.push(self.start_timer(name));
        out.push(Output::Runtime(RuntimeCommand::Start {
            task: self.id,
            task_plan: Box::new(plan.clone()),
            plan: Box::new(container.clone()),
        }));
    }

    pub(super) fn start_timer(&self, container: &str) -> Output {
        Output::SetTimer {
            timer: Timer::StartTimeout {
                task: self.id,
                container: container.to_owned(),
            },
            after: START_TIMEOUT,
        }
    }

    /// A start that took too long fails the task; the container is stopped should it still start.
    pub(super) fn start_timed_out(&mut self, container: &str) {
        let is_restarting = matches!(
            self.asked.get(container).map(|asked| &asked.restart),
            Some(Restarting::Asked { .. })
        );
        if !self.has(container)
            || (self.status_of(container) >= ContainerStatus::Running && !is_restarting)
        {
            return;
        }
        let reason =
            format!("ContainerRuntimeTimeoutError: container '{container}' did not start in time");
        self.container_mut(container).reason = Some(reason.clone());
        self.stop(Some(reason));
    }

    fn dependencies(&self, plan: &TaskPlan, target: &ContainerPlan, now: Timestamp) -> Dependency {
        let mut all = Dependency::Met;
        for (other, condition) in &target.depends_on {
            match self.dependency(plan, &target.name, other, *condition, now) {
                Dependency::Met => {}
                Dependency::Waiting => all = Dependency::Waiting,
                // It decides, whatever else is waited for.
                never @ Dependency::Never(_) => return never,
            }
        }
        all
    }

    fn dependency(
        &self,
        plan: &TaskPlan,
        target: &str,
        other: &str,
        condition: StartCondition,
        now: Timestamp,
    ) -> Dependency {
        let never = |because: &str| {
            Dependency::Never(format!(
                "CannotStartContainerError: dependency graph: failed to resolve container ordering \
                 dependency [{other}] for target [{target}] {because}"
            ))
        };
        let Some(state) = self.state.containers.get(other) else {
            return never("because it does not exist");
        };
        let stopped = state.status == ContainerStatus::Stopped;
        let ran = state.runtime_id.is_some();
        if stopped && !ran {
            return never("because dependency will never start");
        }
        let health = state.health.as_ref().map(|health| health.status);
        let met = match condition {
            StartCondition::Start => state.status >= ContainerStatus::Running && ran,
            StartCondition::Complete => stopped,
            StartCondition::Success if stopped && state.exit_code != Some(0) => {
                return never("as dependency did not exit successfully.");
            }
            StartCondition::Success => stopped,
            StartCondition::Healthy if stopped => {
                return never("as dependency stopped before it was healthy.");
            }
            StartCondition::Healthy if health == Some(HealthStatus::Unhealthy) => {
                return never("as dependency is unhealthy.");
            }
            StartCondition::Healthy => health == Some(HealthStatus::Healthy) && self.runs(other),
        };
        if met {
            return Dependency::Met;
        }
        let deadline = plan
            .containers
            .iter()
            .find(|container| container.name == other)
            .and_then(|container| self.resolves_until(container));
        if condition != StartCondition::Start && deadline.is_some_and(|deadline| deadline <= now) {
            return Dependency::Never(format!(
                "CannotStartContainerError: dependency graph: container ordering dependency \
                 [{other}] for target [{target}] has timed out."
            ));
        }
        Dependency::Waiting
    }

    /// Until when those that depend on the end or the health of a running container wait for it.
    fn resolves_until(&self, container: &ContainerPlan) -> Option<Timestamp> {
        let state = self.state.containers.get(&container.name)?;
        let started_at = state
            .started_at
            .filter(|_| state.status == ContainerStatus::Running)?;
        Some(started_at + container.start_timeout?)
    }

    /// Sets a timer for the moment when those that wait for this container give up.
    fn watch_dependants(
        &mut self,
        plan: &TaskPlan,
        container: &ContainerPlan,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        let name = &container.name;
        let Some(deadline) = self.resolves_until(container) else {
            return;
        };
        let is_waited_for = plan.containers.iter().any(|target| {
            self.status_of(&target.name) <= ContainerStatus::Pulled
                && target.depends_on.iter().any(|(on, condition)| {
                    on == name
                        && *condition != StartCondition::Start
                        && matches!(
                            self.dependency(plan, &target.name, on, *condition, now),
                            Dependency::Waiting
                        )
                })
        });
        let task = self.id;
        let asked = self.asked_mut(name);
        if is_waited_for && !asked.dependency_timer {
            asked.dependency_timer = true;
            out.push(Output::SetTimer {
                timer: Timer::DependencyTimeout {
                    task,
                    container: name.clone(),
                },
                after: deadline.since(now).max(Duration::from_millis(1)),
            });
        }
    }
}
