//! What an agent's core must keep to in what it asks of a machine, held against the machine's truth.
//!
//! What always holds: a broken promise is a panic that says which. The machine knows more than the
//! agent, so only what no delay can excuse is a promise.
//! What it leaves to others: what the agent tells the control plane (`invariants`).

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_agent::core::HealthStatus;
use gantry_agent::core::plan::{ContainerPlan, HealthCheckPlan, StartCondition, TaskPlan};
use gantry_agent::core::step::ContainerHealth;
use gantry_arn::TaskId;

use super::SimulatedRuntime;
use crate::founding::Size;

impl SimulatedRuntime {
    /// A container starts only when each of its dependencies is, or was, what it asks for.
    pub(super) fn check_start(&self, task: TaskId, plan: &ContainerPlan) {
        for (other, condition) in &plan.depends_on {
            let key = (task, other.clone());
            let process = self.processes.get(&key);
            let holds = match condition {
                StartCondition::Start => process.is_some(),
                StartCondition::Complete => process.is_some_and(|p| p.exit.is_some()),
                StartCondition::Success => process
                    .and_then(|p| p.exit.as_ref())
                    .is_some_and(|exit| exit.exit_code == 0),
                StartCondition::Healthy => self.was_healthy.contains(&key),
            };
            assert!(
                holds,
                "{task}: '{}' starts, and '{other}' is not {condition:?}: {process:?}",
                plan.name
            );
        }
    }

    /// A container is stopped only when all that depend on it have ended, and with its own grace.
    pub(super) fn check_stop(&self, task: TaskId, container: &str, grace: Duration) {
        let Some(plan) = self.plans.get(&task) else {
            panic!("{task}: '{container}' is stopped, and nothing was ever started");
        };
        for other in &plan.containers {
            let key = (task, other.name.clone());
            if other.depends_on.iter().any(|(on, _)| on == container) {
                let ended = self.processes.get(&key).is_none_or(|p| p.is_over());
                assert!(
                    ended && !self.beginning.contains(&key),
                    "{task}: '{container}' is stopped before '{}', which depends on it",
                    other.name
                );
            }
            if other.name == container {
                assert_eq!(
                    grace, other.stop_timeout,
                    "{task}: the grace of '{container}'"
                );
            }
        }
    }

    /// What runs fits the machine, whatever anybody has written down about it.
    pub(super) fn check_size(&self) {
        let mut taken = Size::default();
        for ((task, container), _) in self.processes.iter().filter(|(_, p)| p.runs()) {
            let Some(plan) = plan_of(&self.plans, *task, container) else {
                panic!("{task}: '{container}' runs, and there is no plan of it");
            };
            let bytes = plan.memory_limit_bytes.unwrap_or_default();
            taken = taken.plus(Size {
                cpu: plan.cpu_shares as i64,
                memory: (bytes >> 20) as i64,
            });
        }
        assert!(
            self.size.holds(taken),
            "{taken:?} runs on a machine of {:?}: {:?}",
            self.size,
            self.processes.keys()
        );
    }

    /// Whether all of the task came up and nothing of it has ended but what may: then nothing that
    /// happened on the machine is a reason to stop it.
    pub fn runs_whole(&self, task: TaskId) -> bool {
        let Some(plan) = self.plans.get(&task) else {
            return false;
        };
        plan.containers.iter().all(|container| {
            let process = self.processes.get(&(task, container.name.clone()));
            process.is_some_and(|p| {
                let ended_well = p.exit.as_ref().is_some_and(|exit| exit.exit_code == 0);
                p.runs() || (!container.essential && ended_well && !p.begins_again)
            })
        })
    }

    pub fn may_start_again(&self, task: TaskId, container: &str) -> bool {
        plan_of(&self.plans, task, container).is_some_and(|plan| plan.restart_policy.is_some())
    }

    /// A container is started again only after an end that its policy allows, and never once it was
    /// told to stop.
    pub(super) fn check_restart(&self, task: TaskId, container: &str, restarts: u32) {
        let key = (task, container.to_owned());
        let process = self
            .processes
            .get(&key)
            .unwrap_or_else(|| panic!("{task}: '{container}' starts again, and never ran"));
        if process.lost || self.unseen_restarts.contains(&key) {
            return;
        }
        assert_eq!(
            restarts,
            process.restarts + 1,
            "{task}: a restart of '{container}' was left out"
        );
        let Some(exit) = &process.exit else {
            panic!("{task}: '{container}' starts again while it runs");
        };
        assert!(
            !self.stop_asked.contains(&key),
            "{task}: '{container}' starts again after it was told to stop"
        );
        let policy = plan_of(&self.plans, task, container).and_then(|p| p.restart_policy.as_ref());
        let policy =
            policy.unwrap_or_else(|| panic!("{task}: '{container}' has no restart policy"));
        assert!(
            !policy.ignored_exit_codes.contains(&exit.exit_code),
            "{task}: '{container}' starts again after {}",
            exit.exit_code
        );
        let ran = exit.at.since(process.started_at);
        assert!(
            ran >= policy.attempt_period,
            "{task}: '{container}' starts again after {ran:?}"
        );
    }

    /// One check at a time of what has one, and none once it was told to stop.
    pub(super) fn check_check(&self, task: TaskId, container: &str, check: &HealthCheckPlan) {
        let key = (task, container.to_owned());
        let planned = plan_of(&self.plans, task, container).and_then(|p| p.health_check.as_ref());
        assert_eq!(planned, Some(check), "{task}: the check of '{container}'");
        assert!(
            !self.checking.contains_key(&key),
            "{task}: '{container}' is checked twice at a time"
        );
        assert!(
            !self.stop_asked.contains(&key),
            "{task}: '{container}' is checked after it was told to stop"
        );
    }

    /// What an agent says of health has been seen in this run of the container.
    pub fn check_claims(&self, task: TaskId, claims: &BTreeMap<String, ContainerHealth>) {
        for (container, claim) in claims {
            let Some(process) = self.processes.get(&(task, container.clone())) else {
                panic!("{task}: '{container}' has a health, and does not exist");
            };
            let retries = plan_of(&self.plans, task, container)
                .and_then(|p| p.health_check.as_ref())
                .map(|check| check.retries)
                .unwrap_or_else(|| panic!("{task}: '{container}' has a health and no check"));
            let holds = match claim.status {
                HealthStatus::Unknown => true,
                HealthStatus::Healthy => process.succeeded_checks > 0,
                HealthStatus::Unhealthy => process.failed_checks >= retries,
            };
            assert!(holds, "{task}: '{container}' is not {claim:?}: {process:?}");
        }
    }
}

pub(super) fn plan_of<'a>(
    plans: &'a BTreeMap<TaskId, TaskPlan>,
    task: TaskId,
    container: &str,
) -> Option<&'a ContainerPlan> {
    let plan = plans.get(&task)?;
    plan.containers.iter().find(|c| c.name == container)
}
