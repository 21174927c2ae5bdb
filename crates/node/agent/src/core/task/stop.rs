//! How a task's containers stop: each only after all that depend on it have.
//!
//! What always holds: what was never started just stays so; what is being started, or started again,
//! is stopped once that is over; a container that its restart policy would start again is stopped
//! only when it is on disk that the task shall stop, so that no restart of the agent mistakes that
//! end for one of its own.
//! What it leaves to others: signals and their grace (the runtime).

use super::super::ContainerStatus;
use super::super::plan::{ContainerPlan, TaskPlan};
use super::super::step::{Output, RuntimeCommand};
use super::TaskMachine;

impl TaskMachine {
    pub(super) fn drive_stop(&mut self, plan: &TaskPlan, out: &mut Vec<Output>) {
        for container in &plan.containers {
            if !self.start_asked(&container.name) {
                self.mark_stopped(&container.name);
            }
            self.give_up_restart(&container.name);
        }
        for container in &plan.containers {
            let name = &container.name;
            let may_stop = self.runs(name)
                && !has_dependants(plan, name, |other| {
                    self.status_of(other) != ContainerStatus::Stopped
                })
                && (container.restart_policy.is_none() || self.stopping_durable);
            let task = self.id;
            let asked = self.asked_mut(name);
            if may_stop && !asked.stop {
                asked.stop = true;
                out.push(Output::Runtime(RuntimeCommand::Stop {
                    task,
                    container: name.clone(),
                    grace: container.stop_timeout,
                }));
            }
        }
    }

    /// A task that could not be planned has nothing that runs.
    pub(super) fn stop_unplanned(&mut self) {
        let names: Vec<String> = self.state.containers.keys().cloned().collect();
        for name in names {
            self.mark_stopped(&name);
        }
    }
}

fn has_dependants(plan: &TaskPlan, name: &str, counts: impl Fn(&str) -> bool) -> bool {
    let depends = |other: &&ContainerPlan| other.depends_on.iter().any(|(on, _)| on == name);
    plan.containers
        .iter()
        .filter(depends)
        .any(|other| counts(&other.name))
}
