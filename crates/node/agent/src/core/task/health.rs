//! Whether a container is healthy, counted as Docker counts.
//!
//! What always holds: a check begins one interval after the start or after the end of the check
//! before; until the first result within the start period, checks come faster, as Docker's do. One
//! success makes a container HEALTHY. So many failures in a row as there are retries make it
//! UNHEALTHY, except that failures of checks that began within the start period do not count until
//! a check has succeeded. A container that is started again begins anew. While the task stops,
//! nothing is checked.
//! What it leaves to others: running the command in the container (the runtime), and what becomes of
//! an unhealthy task (the control plane: a standalone task goes on).

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::plan::{HealthCheckPlan, TaskPlan};
use super::super::step::{ContainerHealth, Output, RuntimeCommand, Timer};
use super::super::{ContainerStatus, HealthStatus};
use super::TaskMachine;

/// Docker's interval while a container with a start period has not been healthy yet.
const START_INTERVAL: Duration = Duration::from_secs(5);
/// What is kept of a check's output.
const OUTPUT_BYTES_MAX: usize = 1024;

/// What the checks of one container have come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthState {
    pub status: HealthStatus,
    pub since: Timestamp,
    /// In a row, and not more than decide.
    #[serde(default)]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// Where the next check of a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Check {
    #[default]
    Idle,
    /// Its timer is set.
    Waiting,
    Due,
    Asked {
        at: Timestamp,
    },
}

impl HealthState {
    pub fn unknown(since: Timestamp) -> HealthState {
        HealthState {
            status: HealthStatus::Unknown,
            since,
            failures: 0,
            output: String::new(),
        }
    }

    /// Counts one check that began so long after the container's start, and says whether anything
    /// changed that must not be forgotten.
    fn count(
        &mut self,
        check: &HealthCheckPlan,
        healthy: bool,
        output: &str,
        began_after: Duration,
        at: Timestamp,
    ) -> bool {
        let before = (self.status, self.failures);
        if healthy {
            self.failures = 0;
            self.turn(HealthStatus::Healthy, output, at);
        } else if self.status != HealthStatus::Unknown || began_after >= check.start_period {
            self.failures = (self.failures + 1).min(check.retries);
            if self.failures >= check.retries {
                self.turn(HealthStatus::Unhealthy, output, at);
            }
        }
        before != (self.status, self.failures)
    }

    fn turn(&mut self, status: HealthStatus, output: &str, at: Timestamp) {
        if self.status != status {
            self.status = status;
            self.since = at;
            self.output = cut(output);
        }
    }
}

impl TaskMachine {
    /// The task's health: that of its essential containers which have a check.
    pub fn health(&self) -> HealthStatus {
        let Ok(plan) = &self.plan else {
            return HealthStatus::Unknown;
        };
        let statuses: Vec<HealthStatus> = plan
            .containers
            .iter()
            .filter(|container| container.essential && container.health_check.is_some())
            .filter_map(|container| self.state.containers.get(&container.name))
            .map(|state| state.health.as_ref().map(|h| h.status).unwrap_or_default())
            .collect();
        if statuses.contains(&HealthStatus::Unhealthy) {
            HealthStatus::Unhealthy
        } else if statuses.is_empty() || statuses.contains(&HealthStatus::Unknown) {
            HealthStatus::Unknown
        } else {
            HealthStatus::Healthy
        }
    }

    pub(super) fn drive_checks(&mut self, plan: &TaskPlan, now: Timestamp, out: &mut Vec<Output>) {
        for container in &plan.containers {
            if let Some(check) = &container.health_check {
                self.drive_check(&container.name, check, now, out);
            }
        }
    }

    fn drive_check(
        &mut self,
        name: &str,
        check: &HealthCheckPlan,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        if !self.runs(name) || !self.may_go_forward() {
            self.asked_mut(name).check = Check::Idle;
            return;
        }
        let task = self.id;
        let state = self.container_mut(name);
        let started_at = state.started_at.unwrap_or(now);
        let health = state
            .health
            .get_or_insert_with(|| HealthState::unknown(started_at));
        let is_starting =
            health.status == HealthStatus::Unknown && now.since(started_at) < check.start_period;
        let restarts = state.restarts;
        let asked = self.asked_mut(name);
        match asked.check {
            Check::Idle => {
                asked.check = Check::Waiting;
                out.push(Output::SetTimer {
                    timer: Timer::HealthCheck {
                        task,
                        container: name.to_owned(),
                    },
                    after: match is_starting {
                        true => check.interval.min(START_INTERVAL),
                        false => check.interval,
                    },
                });
            }
            Check::Due => {
                asked.check = Check::Asked { at: now };
                out.push(Output::Runtime(RuntimeCommand::CheckHealth {
                    task,
                    container: name.to_owned(),
                    restarts,
                    check: check.clone(),
                }));
            }
            Check::Waiting | Check::Asked { .. } => {}
        }
    }

    pub(super) fn check_is_due(&mut self, container: &str) {
        let asked = self.asked_mut(container);
        if asked.check == Check::Waiting {
            asked.check = Check::Due;
        }
    }

    pub(super) fn health_checked(
        &mut self,
        container: &str,
        restarts: u32,
        healthy: bool,
        output: &str,
        at: Timestamp,
    ) {
        let check = self
            .plan_of(container)
            .and_then(|plan| plan.health_check.clone());
        let Some(check) = check else { return };
        let Check::Asked { at: began } = self.asked_mut(container).check else {
            return;
        };
        if !self.runs(container) || self.container_mut(container).restarts != restarts {
            return;
        }
        self.asked_mut(container).check = Check::Idle;
        let state = self.container_mut(container);
        let began_after = began.since(state.started_at.unwrap_or(began));
        let health = state
            .health
            .get_or_insert_with(|| HealthState::unknown(began));
        self.dirty |= health.count(&check, healthy, output, began_after, at);
    }

    /// Puts the health out if it is not what was put out last.
    pub(super) fn tell_health(&mut self, plan: &TaskPlan, out: &mut Vec<Output>) {
        let containers: BTreeMap<String, ContainerHealth> = plan
            .containers
            .iter()
            .filter(|container| container.health_check.is_some())
            .filter_map(|container| {
                let state = self.state.containers.get(&container.name)?;
                let health = state.health.as_ref()?;
                (state.status == ContainerStatus::Running).then(|| {
                    let HealthState {
                        status,
                        since,
                        failures: _,
                        output,
                    } = health.clone();
                    (
                        container.name.clone(),
                        ContainerHealth {
                            status,
                            since,
                            output,
                        },
                    )
                })
            })
            .collect();
        let is_news = match &self.told_health {
            None => !containers.is_empty(),
            Some(told) => *told != containers,
        };
        if is_news {
            self.told_health = Some(containers.clone());
            out.push(Output::Health {
                task: self.id,
                containers,
            });
        }
    }
}

fn cut(output: &str) -> String {
    let mut end = output.len().min(OUTPUT_BYTES_MAX);
    while !output.is_char_boundary(end) {
        end -= 1;
    }
    output[..end].to_owned()
}
