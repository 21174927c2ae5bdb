//! The life of deployments: taken up, counted, failed or rolled back, let go, completed.

use std::collections::BTreeSet;

use gantry_api::ecs::ServiceDeploymentStatus as Status;
use gantry_env::Timestamp;

use super::derived::Derived;
use super::pass::{Pass, Progress};
use crate::api::services::deployment_id;
use crate::model::service::failures::{FAILURES_SAID, delay, threshold};
use crate::model::service::replica::Condition;
use crate::model::service::view::OVERTAKEN;
use crate::model::service::{daemon, events, replica, rolling};
use crate::model::state_changes::ServiceAction;
use crate::model::task_view::TaskState;
use crate::tables::{
    DeploymentState, HealthStatus, RollbackState, Rollout, ServiceDeploymentStateRow, StopCode,
    TaskHealthRow, service_part_name,
};

/// How many failed tasks a deployment remembers before it counts none that ran, unless its circuit breaker opens only
/// later: a program that ends over and over must not make the service's row grow without end.
const KNOWN_MAX: usize = 1000;

/// What a service deployment says whose service is deleted.
const DELETED: &str = "Service deployment stopped because the service was deleted.";

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
                    course: None,
                    digests: Default::default(),
                    ended_with: Default::default(),
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
        let course = self.begin_course(&wanted);
        if let Some(overtaken) = self.primary().map(|it| it.service_deployment.clone()) {
            self.stop_short(&overtaken, OVERTAKEN);
        }
        self.progress(&wanted).course = course;
        let begun = DeploymentState::begin(&self.spec);
        self.state.deployments.insert(0, begun);
        self.state.handled = wanted;
        self.state.steady = false;
        self.state.unplaced = None;
    }

    /// What is under way of a deleted service is over, whether it was begun or not.
    pub(super) fn stop_deployments(&mut self) {
        let primary = self.primary().map(|it| it.service_deployment.clone());
        let wanted = self.spec.target.service_deployment.clone();
        for id in primary.into_iter().chain([wanted]) {
            self.stop_short(&id, DELETED);
        }
    }

    fn stop_short(&mut self, id: &str, reason: &str) {
        let now = self.now;
        let progress = self.progress(id);
        if progress.finished_at.is_none() {
            progress.reason = Some(reason.to_owned());
            progress.stopped_at = Some(now);
            self.end(id, Status::Stopped);
        }
    }

    /// Counts each task that failed of a deployment that starts tasks, once.
    pub(super) fn count_failures(&mut self) {
        let (now, staying) = (self.now, self.staying());
        let breaker = self.spec.configuration.deployment_circuit_breaker.clone();
        let threshold = threshold(breaker.as_ref().filter(|it| it.enable), self.desired());
        let known_max = KNOWN_MAX.max(usize::try_from(threshold).unwrap_or(usize::MAX));
        let checked: BTreeSet<String> = staying
            .iter()
            .filter(|id| self.is_checked(id))
            .cloned()
            .collect();
        let tasks = std::mem::take(&mut self.tasks);
        let all = self.state.deployments.iter_mut();
        let mut said = false;
        for deployment in all.filter(|it| staying.contains(&it.id)) {
            let is_checked =
                checked.contains(&deployment.id) && deployment.counted.len() < known_max;
            let has_failed = count(deployment, &tasks, is_checked, now);
            said |= has_failed && deployment.throttled >= FAILURES_SAID;
        }
        self.tasks = tasks;
        self.note_healthy_ones();
        self.note_digests();
        if said && self.say(events::cannot_start(&self.spec.name.clone())) {
            self.tell_action(&ServiceAction::TaskStartImpaired);
        }
    }

    /// Whether a health check decides which of the deployment's tasks are healthy.
    fn is_checked(&self, deployment: &str) -> bool {
        let is_of = |task: &&TaskState| task.spec.started_by.as_deref() == Some(deployment);
        self.tasks.iter().find(is_of).is_some_and(|task| {
            let row = (self.rows).task_definition(&task.spec.family, task.spec.revision);
            row.is_some_and(|row| replica::is_checked(&row.definition))
        })
    }

    /// A revision runs the images that its deployment found, for as long as it is described.
    fn note_digests(&mut self) {
        let Some(primary) = self.primary().filter(|it| !it.is_rollback).cloned() else {
            return;
        };
        if !primary.digests.is_empty() && primary.rollout == Rollout::InProgress {
            self.progress(&primary.service_deployment).digests = primary.digests;
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
        let asked = self.asked(&primary.service_deployment);
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
        // What a rollback counts for itself does not change how many opened the circuit breaker.
        if !primary.is_rollback {
            progress.failures = failures;
        }
        if !opens {
            return;
        }
        progress.triggered = true;
        let why = "tasks failed to start";
        self.say(events::failed(&self.spec.name.clone(), &primary.id, why));
        let reason = "ECS deployment circuit breaker: tasks failed to start.";
        match breaker.rollback {
            true => self.roll_back(&primary, reason, true),
            false => self.fail(&primary, reason, Status::Stopped),
        }
    }

    /// Returns to blue, or to what was completed last, or leaves it failed where neither is.
    pub(super) fn roll_back(&mut self, failing: &DeploymentState, reason: &str, by_breaker: bool) {
        let course = self.course();
        let blue = course.and_then(|course| course.blue);
        let blue = blue.and_then(|id| self.deployment(&id)).cloned();
        let back = match blue {
            Some(blue) => Some((blue.revision, blue.digests)),
            None => {
                let completed = self.state.completed.clone();
                completed.map(|revision| (revision, self.state.completed_digests.clone()))
            }
        };
        let back =
            back.filter(|(revision, _)| !failing.is_rollback && revision.id != failing.revision.id);
        let Some((back, digests)) = back else {
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
        // What failed before it was asked to return does not speak against it, whether it was counted then or not.
        let failed_before = self.tasks.iter().filter(|task| {
            task.spec.started_by.as_deref() == Some(id.as_str()) && failed_to_start(task)
        });
        let rollback = DeploymentState {
            counted: failed_before.map(|task| task.spec.id).collect(),
            id: id.clone(),
            service_deployment: failing.service_deployment.clone(),
            revision: back.clone(),
            created_at: now,
            updated_at: now,
            reason: format!("ECS deployment{by}: rolling back to deploymentId {id}."),
            is_rollback: true,
            digests,
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
        if let Some(course) = &mut progress.course {
            course.give_up();
        }
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
        progress.reason = Some(reason.to_owned());
        progress.stopped_at = Some(now);
        self.end(&failing.service_deployment, status);
    }

    fn mark_failed(&mut self, reason: &str) {
        if let Some(primary) = self.state.deployments.first_mut() {
            primary.rollout = Rollout::Failed;
            primary.reason = reason.to_owned();
            primary.updated_at = self.now;
        }
        self.tell_failed();
    }

    /// A deployment before the PRIMARY one is over when none of its tasks is meant to run, and none is to be.
    pub(super) fn let_go(&mut self) {
        let staying = self.staying();
        let kept: Vec<DeploymentState> = self
            .state
            .deployments
            .iter()
            .enumerate()
            .filter(|(at, it)| *at == 0 || self.has_tasks(it) || staying.contains(&it.id))
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
        let is_at_its_end = self.course().is_none_or(|course| course.is_at_its_end());
        let steady = as_asked && self.state.deployments.len() == 1 && is_at_its_end;
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
            let status = match done.is_rollback {
                true => Status::RollbackSuccessful,
                false => Status::Successful,
            };
            self.end(&done.service_deployment, status);
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

/// It did not start; or it ended by itself, and the health check that decides had not passed. What ended before a
/// deployment was returned to does not speak against it.
fn has_failed(task: &TaskState, of: &DeploymentState, is_checked: bool) -> bool {
    let is_healthy = |health: &TaskHealthRow| health.status == HealthStatus::Healthy;
    let ended = |task: &TaskState| {
        task.stop().is_some_and(|stop| {
            stop.code == StopCode::EssentialContainerExited
                && (task.spec.created_at >= of.created_at || stop.since > of.created_at)
        })
    };
    failed_to_start(task)
        || is_checked && ended(task) && !task.health.as_deref().is_some_and(is_healthy)
}

/// Counts the deployment's failed tasks. True if some did not start.
fn count(
    deployment: &mut DeploymentState,
    tasks: &[TaskState],
    is_checked: bool,
    now: Timestamp,
) -> bool {
    let mine: Vec<&TaskState> = tasks
        .iter()
        .filter(|task| task.spec.started_by.as_deref() == Some(deployment.id.as_str()))
        .collect();
    let failed: Vec<&TaskState> = mine
        .iter()
        .copied()
        .filter(|task| {
            has_failed(task, &*deployment, is_checked)
                && !deployment.counted.contains(&task.spec.id)
        })
        .collect();
    if !deployment.counted.is_empty() {
        let known: BTreeSet<_> = mine.iter().map(|task| task.spec.id).collect();
        deployment.counted.retain(|id| known.contains(id));
    }
    // What came up since the last failure shows that tasks can be started.
    let came_up = mine.iter().filter_map(|task| Pass::started_at(task)).max();
    if deployment.throttled > 0
        && deployment
            .throttled_until
            .is_none_or(|until| came_up.is_some_and(|at| at + delay(deployment.throttled) > until))
    {
        deployment.throttled = 0;
        deployment.throttled_until = None;
    }
    // What a completed deployment found is known.
    let is_under_way = deployment.rollout == Rollout::InProgress;
    let reports = mine
        .iter()
        .filter(|_| is_under_way)
        .filter_map(|task| task.report.as_ref());
    for report in reports.flat_map(|report| &report.containers) {
        if let Some(digest) = &report.image_digest
            && !deployment.digests.contains_key(&report.name)
        {
            let name = report.name.clone();
            deployment.digests.insert(name, digest.clone());
        }
    }
    if failed.is_empty() {
        return false;
    }
    let count = u32::try_from(failed.len()).unwrap_or(u32::MAX);
    deployment.failed_tasks = deployment.failed_tasks.saturating_add(count);
    deployment.breaker_failures = deployment.breaker_failures.saturating_add(count);
    (deployment.counted).extend(failed.iter().map(|task| task.spec.id));
    deployment.updated_at = now;
    let puts_off = failed.iter().any(|task| failed_to_start(task));
    if puts_off {
        deployment.throttled = deployment.throttled.saturating_add(1);
        deployment.throttled_until = Some(now + delay(deployment.throttled));
    }
    puts_off
}
