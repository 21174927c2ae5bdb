//! The life of deployments: taken up, counted, failed or rolled back, let go, completed.

use gantry_api::ecs::ServiceDeploymentStatus as Status;
use gantry_env::Timestamp;

use super::derived::Derived;
use super::pass::{Pass, Progress};
use crate::api::services::deployment_id;
use crate::model::service::failures::{FAILURES_SAID, delay, threshold};
use crate::model::service::replica::Condition;
use crate::model::service::{daemon, events, rolling};
use crate::model::task_view::TaskState;
use crate::tables::{
    DeploymentState, DesiredPhase, RollbackState, Rollout, ServiceDeploymentRow,
    ServiceDeploymentStateRow, StopCode, service_part_name,
};

/// What a service deployment that was overtaken says.
const OVERTAKEN: &str =
    "Service deployment stopped because a newer service deployment was started.";

impl Pass<'_> {
    /// How far a service deployment is, to be written back if it changes.
    pub(super) fn progress(&mut self, id: &str) -> &mut ServiceDeploymentStateRow {
        let name = service_part_name(&self.spec.cluster, &self.spec.name, id);
        let (rows, now) = (self.rows, self.now);
        let progress = self.progress.entry(id.to_owned()).or_insert_with(|| {
            let before = rows.read::<ServiceDeploymentStateRow>(&name);
            let after = before.as_ref().map(|read| (*read.row).clone());
            Progress {
                before,
                after: after.unwrap_or(ServiceDeploymentStateRow {
                    status: Status::InProgress,
                    reason: None,
                    started_at: now,
                    updated_at: now,
                    finished_at: None,
                    stopped_at: None,
                    rollback: None,
                    failures: 0,
                    triggered: false,
                }),
            }
        });
        &mut progress.after
    }

    /// Begins the deployment that was asked for last. Whatever was under way is overtaken.
    pub(super) fn take_up(&mut self) {
        let wanted = self.spec.target.service_deployment.clone();
        if self.state.handled == wanted {
            return;
        }
        let now = self.now;
        if let Some(overtaken) = self.primary().map(|it| it.service_deployment.clone()) {
            let progress = self.progress(&overtaken);
            if progress.finished_at.is_none() {
                progress.status = Status::Stopped;
                progress.reason = Some(OVERTAKEN.to_owned());
                progress.stopped_at = Some(now);
                progress.finished_at = Some(now);
            }
        }
        self.progress(&wanted);
        let begun = DeploymentState::begin(&self.spec);
        self.state.deployments.insert(0, begun);
        self.state.handled = wanted;
        self.state.steady = false;
        self.state.unplaced = None;
    }

    /// Counts each task of the PRIMARY deployment that failed, once.
    pub(super) fn count_failures(&mut self) {
        let (now, tasks) = (self.now, std::mem::take(&mut self.tasks));
        let mut has_failed = false;
        if let Some(primary) = self.state.deployments.first_mut() {
            let mine =
                |task: &&TaskState| task.spec.started_by.as_deref() == Some(primary.id.as_str());
            let failed: Vec<_> = tasks
                .iter()
                .filter(mine)
                .filter(|task| failed_to_start(task))
                .map(|task| task.spec.id)
                .filter(|id| !primary.counted.contains(id))
                .collect();
            if !primary.counted.is_empty() {
                let known: std::collections::BTreeSet<_> =
                    tasks.iter().filter(mine).map(|task| task.spec.id).collect();
                primary.counted.retain(|id| known.contains(id));
            }
            // What came up since the last failure shows that tasks can be started.
            let came_up = tasks.iter().filter(mine).filter_map(Self::started_at).max();
            if primary.throttled > 0
                && primary.throttled_until.is_none_or(|until| {
                    came_up.is_some_and(|at| at + delay(primary.throttled) > until)
                })
            {
                primary.throttled = 0;
                primary.throttled_until = None;
            }
            let digests = tasks
                .iter()
                .filter(mine)
                .filter_map(|task| task.report.as_ref());
            for report in digests.flat_map(|report| &report.containers) {
                if let Some(digest) = &report.image_digest
                    && !primary.digests.contains_key(&report.name)
                {
                    primary.digests.insert(report.name.clone(), digest.clone());
                }
            }
            if !failed.is_empty() {
                has_failed = true;
                let count = u32::try_from(failed.len()).unwrap_or(u32::MAX);
                primary.failed_tasks = primary.failed_tasks.saturating_add(count);
                primary.breaker_failures = primary.breaker_failures.saturating_add(count);
                primary.counted.extend(failed);
                primary.throttled = primary.throttled.saturating_add(1);
                primary.throttled_until = Some(now + delay(primary.throttled));
                primary.updated_at = now;
            }
        }
        self.tasks = tasks;
        self.note_healthy_ones();
        let throttled = self.primary().map_or(0, |primary| primary.throttled);
        if has_failed && throttled >= FAILURES_SAID {
            self.say(events::cannot_start(&self.spec.name.clone()));
        }
    }

    /// A task that becomes healthy takes back what the circuit breaker has counted.
    fn note_healthy_ones(&mut self) {
        let is_under_way = |it: &DeploymentState| it.rollout == Rollout::InProgress;
        if !self.primary().is_some_and(is_under_way) {
            return;
        }
        let replicas = self.replicas();
        // Both are in the order of their ids, and every replica is one of the tasks.
        let mut tasks = self.tasks.iter();
        let latest: Option<Timestamp> = replicas
            .iter()
            .filter_map(|replica| Some((replica, tasks.find(|it| it.spec.id == replica.id)?)))
            .filter(|(replica, _)| replica.is_primary && replica.condition == Condition::Healthy)
            .filter_map(|(_, task)| Self::started_at(task))
            .max();
        let breaker = self.spec.configuration.deployment_circuit_breaker.as_ref();
        let resets = breaker.and_then(|it| it.reset_on_healthy_task) != Some(false);
        let Some(primary) = self.state.deployments.first_mut() else {
            return;
        };
        if latest > primary.healthy_start {
            primary.healthy_start = latest;
            if resets {
                primary.breaker_failures = 0;
            }
        }
    }

    /// Lets the PRIMARY deployment fail, or rolls it back, if it must be.
    pub(super) fn judge(&mut self) {
        let Some(primary) = self.primary().cloned() else {
            return;
        };
        if primary.rollout != Rollout::InProgress {
            return;
        }
        let name = service_part_name(
            &self.spec.cluster,
            &self.spec.name,
            &primary.service_deployment,
        );
        let asked = self.rows.read::<ServiceDeploymentRow>(&name);
        let is_asked = asked.is_some_and(|row| row.rollback_requested_at.is_some());
        if is_asked && !primary.is_rollback {
            let reason = "Service deployment rolled back because of a user's request.";
            self.roll_back(&primary, reason, false);
            return;
        }
        let breaker = self.spec.configuration.deployment_circuit_breaker.clone();
        let Some(breaker) = breaker.filter(|breaker| breaker.enable) else {
            return;
        };
        let failures = primary.breaker_failures;
        let opens = failures >= threshold(Some(&breaker), self.desired());
        let progress = self.progress(&primary.service_deployment);
        progress.failures = failures;
        if !opens {
            return;
        }
        progress.triggered = true;
        self.say(events::failed(&self.spec.name.clone(), &primary.id));
        let reason = "ECS deployment circuit breaker: tasks failed to start.";
        match breaker.rollback {
            true => self.roll_back(&primary, reason, true),
            false => self.fail(&primary, reason, Status::Stopped),
        }
    }

    /// Returns to what was completed last, or leaves it failed where nothing was.
    fn roll_back(&mut self, failing: &DeploymentState, reason: &str, by_breaker: bool) {
        let back = self
            .state
            .completed
            .clone()
            .filter(|_| !failing.is_rollback);
        let Some(back) = back else {
            let what = "No rollback candidate was found to run the rollback.";
            self.fail(failing, &format!("{reason} {what}"), Status::RollbackFailed);
            return;
        };
        let now = self.now;
        self.mark_failed(reason);
        let by = if by_breaker { " circuit breaker" } else { "" };
        // Its tasks may still run: then it is that deployment which goes on, and none of them is
        // replaced by its like.
        let all = &mut self.state.deployments;
        let there = all.iter().position(|it| it.revision.id == back.id);
        let there = there.map(|at| all.remove(at));
        let id = there.map(|deployment| deployment.id).unwrap_or_else(|| {
            let mut derived = Derived {
                incarnation: &self.spec.incarnation,
                next: &mut self.state.next_number,
            };
            deployment_id(derived.number())
        });
        let rollback = DeploymentState {
            id: id.clone(),
            service_deployment: failing.service_deployment.clone(),
            revision: back.clone(),
            created_at: now,
            updated_at: now,
            reason: format!("ECS deployment{by}: rolling back to deploymentId {id}."),
            is_rollback: true,
            digests: self.state.completed_digests.clone(),
            ..DeploymentState::begin(&self.spec)
        };
        self.state.deployments.insert(0, rollback);
        self.state.unplaced = None;
        let progress = self.progress(&failing.service_deployment);
        progress.status = Status::RollbackInProgress;
        progress.reason = Some(reason.to_owned());
        progress.rollback = Some(RollbackState {
            reason: reason.to_owned(),
            started_at: now,
            revision: back.id,
        });
        self.say(events::rolling_back(
            &self.spec.name.clone(),
            &failing.id,
            &id,
        ));
    }

    /// No further task of it is started; those that run, of whatever deployment, run on.
    fn fail(&mut self, failing: &DeploymentState, reason: &str, status: Status) {
        let now = self.now;
        self.mark_failed(reason);
        let progress = self.progress(&failing.service_deployment);
        progress.status = status;
        progress.reason = Some(reason.to_owned());
        progress.stopped_at = Some(now);
        progress.finished_at = Some(now);
    }

    fn mark_failed(&mut self, reason: &str) {
        if let Some(primary) = self.state.deployments.first_mut() {
            primary.rollout = Rollout::Failed;
            primary.reason = reason.to_owned();
            primary.updated_at = self.now;
        }
    }

    /// A deployment before the PRIMARY one is over when none of its tasks is meant to run.
    pub(super) fn let_go(&mut self) {
        let has_tasks = |deployment: &DeploymentState| {
            self.tasks.iter().any(|task| {
                task.desired_phase() == DesiredPhase::Running
                    && task.spec.started_by.as_deref() == Some(deployment.id.as_str())
            })
        };
        let kept: Vec<DeploymentState> = self
            .state
            .deployments
            .iter()
            .enumerate()
            .filter(|(at, deployment)| *at == 0 || has_tasks(deployment))
            .map(|(_, deployment)| deployment.clone())
            .collect();
        self.state.deployments = kept;
    }

    /// The deployment is completed, and the service steady, when all is as it was asked for.
    pub(super) fn conclude(&mut self) {
        let bounds = self.bounds();
        let replicas = self.replicas();
        if self.is_only_moving(&replicas) {
            return;
        }
        let as_asked = match self.is_daemon() {
            true => daemon::is_steady(&self.instances(), &replicas),
            false => rolling::is_steady(&bounds, &replicas),
        };
        let steady = as_asked && self.state.deployments.len() == 1;
        let name = self.spec.name.clone();
        if !steady {
            self.state.steady = false;
            return;
        }
        let now = self.now;
        let Some(primary) = self.state.deployments.first_mut() else {
            return;
        };
        if primary.rollout == Rollout::InProgress {
            primary.rollout = Rollout::Completed;
            primary.reason = format!("ECS deployment {} completed.", primary.id);
            primary.updated_at = now;
            let done = primary.clone();
            self.state.completed = Some(done.revision.clone());
            self.state.completed_digests.clone_from(&done.digests);
            let progress = self.progress(&done.service_deployment);
            progress.status = match done.is_rollback {
                true => Status::RollbackSuccessful,
                false => Status::Successful,
            };
            progress.finished_at = Some(now);
            self.say(events::completed(&name, &done.id));
        }
        let failed = self
            .primary()
            .is_some_and(|primary| primary.rollout == Rollout::Failed);
        if !self.state.steady && !failed {
            self.state.steady = true;
            self.say(events::steady(&name));
        }
        if self.state.steady && !self.is_daemon() {
            self.rebalance(&replicas);
        }
    }
}

/// It stopped before it ran, by itself.
fn failed_to_start(task: &TaskState) -> bool {
    task.stop()
        .is_some_and(|stop| stop.code == StopCode::TaskFailedToStart)
}
