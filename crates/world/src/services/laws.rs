//! What must hold of every commit that concerns services.
//!
//! What always holds: each commit is looked at alone, in order, on the rows as they were then; a broken law is
//! a panic that says which. Time does not pass within an event, so `now` is when it was decided.
//! What it leaves to others: what users see (`shown`), and what must hold in the end (`world::rest`).

use std::collections::{BTreeMap, BTreeSet};

use gantry_ecs::tables::{
    DeploymentState, HealthStatus, ServiceDeploymentStateRow, ServiceEventsRow, ServiceRow,
    ServiceStateRow, StopCode, TaskDesiredRow, TaskReportRow, TaskRow,
};
use gantry_env::Timestamp;
use gantry_store::{RowChange, Table};

use super::mirror::{Mirror, Watched, now as row_now};
use super::replicas::{self, Replica};
use super::shape::Shape;

mod daemons;
mod deployments;
mod tasks;

/// The laws, and what was seen so far as far as they need it.
#[derive(Debug, Default)]
pub struct ServiceLaws {
    pub mirror: Mirror,
    /// How many tasks of each deployment have failed, and how many had when it began (once more).
    failed: BTreeMap<String, usize>,
    /// The same, before the commit that is looked at.
    failed_before: BTreeMap<String, usize>,
    had_failed: BTreeMap<(String, Timestamp), usize>,
    counted: BTreeSet<String>,
    /// Deployments of which a healthy task has taken back once what was counted.
    had_reset: BTreeSet<(String, Timestamp)>,
    /// Services that a commit has touched since it was last asked.
    touched: BTreeSet<String>,
    /// Commits that say something about services, but for what retention takes away.
    pub writes: u64,
    /// How often a circuit breaker opened, a deployment was completed, a rollback was begun.
    pub opened: u64,
    pub completed: u64,
    pub rolled_back: u64,
}

/// What one commit does to one service.
#[derive(Debug, Default)]
struct Deed {
    created: Vec<std::sync::Arc<TaskRow>>,
    /// Tasks that the scheduler stops, and why.
    stopped: BTreeMap<String, String>,
}

/// A service at the moment of a commit: what it shall have, and what it has.
#[derive(Clone, Copy)]
struct Sight<'a> {
    name: &'a str,
    shape: &'a Shape,
    before: &'a [Replica],
    after: &'a [Replica],
    now: Timestamp,
}

impl ServiceLaws {
    /// Checks commit by commit.
    pub fn check(&mut self, changes: &[RowChange], now: Timestamp) {
        for commit in changes.chunk_by(|one, other| one.revision == other.revision) {
            self.check_commit(commit, now);
        }
    }

    /// The services that changed since this was asked last.
    pub fn take_touched(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched)
    }

    fn check_commit(&mut self, commit: &[RowChange], now: Timestamp) {
        let before: BTreeMap<String, Watched> = commit
            .iter()
            .filter(|change| change.key.kind() == ServiceStateRow::KIND)
            .filter_map(|change| {
                let name = change.key.name().to_owned();
                Some((name.clone(), self.mirror.services.get(&name)?.clone()))
            })
            .collect();
        let opened_before = self.mirror.triggered.clone();
        let courses_before = self.mirror.courses.clone();
        self.failed_before.clone_from(&self.failed);
        for change in commit {
            self.note_write(change);
            self.mirror.take_wishes(change);
        }
        let deeds = self.deeds(commit);
        let looks: BTreeMap<String, Vec<Replica>> = deeds
            .keys()
            .map(|name| (name.clone(), self.look(name, now)))
            .collect();
        for change in commit {
            self.mirror.take_tasks(change);
            self.note_task(change);
        }
        for (name, deed) in &deeds {
            let Some(shape) = Shape::of(&self.mirror, name) else {
                continue;
            };
            let sight = Sight {
                name,
                shape: &shape,
                before: &looks[name],
                after: &self.look(name, now),
                now,
            };
            match shape.is_daemon {
                true => self.check_daemons(&sight, deed),
                false => {
                    self.check_starts(&sight, deed);
                    self.check_stops(&sight, deed);
                    self.check_move(&sight, deed, before.get(name));
                }
            }
        }
        for (name, before) in &before {
            self.check_state(name, before, &courses_before, now);
        }
        for (name, opened) in &self.mirror.triggered {
            if *opened && opened_before.get(name) != Some(&true) {
                self.opened += 1;
            }
        }
    }

    fn primary(&self, service: &str) -> Option<&DeploymentState> {
        let state = self.mirror.services.get(service)?.state.as_ref()?;
        state.deployments.first()
    }

    fn look(&self, service: &str, now: Timestamp) -> Vec<Replica> {
        let Some(watched) = self.mirror.services.get(service) else {
            return Vec::new();
        };
        let shape = Shape::of(&self.mirror, service);
        let staying = shape.map(|shape| shape.staying).unwrap_or_default();
        replicas::of(&self.mirror, &watched.spec, &staying, now)
    }

    /// What the commit starts and stops, by service.
    fn deeds(&self, commit: &[RowChange]) -> BTreeMap<String, Deed> {
        let mut deeds: BTreeMap<String, Deed> = BTreeMap::new();
        for change in commit.iter().filter(|change| change.previous.is_none()) {
            match change.key.kind() {
                TaskRow::KIND => {
                    let Some(task) = row_now::<TaskRow>(change).filter(|it| it.replica.is_some())
                    else {
                        continue;
                    };
                    let service = self.mirror.service_of(&task);
                    let service =
                        service.unwrap_or_else(|| panic!("{} is of no service", change.key.name()));
                    deeds.entry(service).or_default().created.push(task);
                }
                TaskDesiredRow::KIND => {
                    let Some(desired) = row_now::<TaskDesiredRow>(change) else {
                        continue;
                    };
                    let task = self.mirror.tasks.get(change.key.name());
                    if let Some(task) = task
                        && desired.stop_code == StopCode::ServiceSchedulerInitiated
                        && let Some(service) = self.mirror.service_of(&task.spec)
                    {
                        let reason = desired.stopped_reason.clone().unwrap_or_default();
                        let stopped = &mut deeds.entry(service).or_default().stopped;
                        stopped.insert(change.key.name().to_owned(), reason);
                    }
                }
                _ => {}
            }
        }
        deeds
    }

    /// Counts what is written about services, and remembers which are concerned.
    fn note_write(&mut self, change: &RowChange) {
        let name = change.key.name();
        match change.key.kind() {
            ServiceRow::KIND => {
                self.touched.insert(name.to_owned());
            }
            ServiceStateRow::KIND => {
                self.touched.insert(name.to_owned());
                let previous = change.previous.as_ref();
                let previous = previous.and_then(|row| row.decode::<ServiceStateRow>().ok());
                let after = row_now::<ServiceStateRow>(change);
                if let (Some(before), Some(after)) = (previous, after) {
                    // What failed is counted as long as it is there: that much is retention.
                    let (mut before, mut after) = ((*before).clone(), (*after).clone());
                    for it in before.deployments.iter_mut().chain(&mut after.deployments) {
                        it.counted.clear();
                    }
                    self.writes += u64::from(before != after);
                }
            }
            ServiceEventsRow::KIND | ServiceDeploymentStateRow::KIND => {
                self.writes += u64::from(change.row.is_some());
            }
            TaskRow::KIND | TaskDesiredRow::KIND => {
                self.writes += u64::from(change.previous.is_none());
                self.touch_service_of(name);
            }
            TaskReportRow::KIND => self.touch_service_of(name),
            _ => {}
        }
    }

    fn touch_service_of(&mut self, task: &str) {
        if let Some(task) = self.mirror.tasks.get(task)
            && let Some(service) = self.mirror.service_of(&task.spec)
        {
            self.touched.insert(service);
        }
    }

    /// Remembers each task that failed, once, and which deployments had a healthy one.
    fn note_task(&mut self, change: &RowChange) {
        let name = change.key.name();
        if !matches!(
            change.key.kind(),
            TaskReportRow::KIND | TaskDesiredRow::KIND
        ) {
            return;
        }
        let Some(task) = self.mirror.tasks.get(name) else {
            return;
        };
        // What its deployment has pinned, it runs.
        let pinned = task.spec.replica.as_ref().map(|replica| &replica.digests);
        let pinned = pinned.filter(|_| self.mirror.is_pinned(&task.spec));
        let reported = task.report.iter().flat_map(|report| &report.containers);
        for container in reported {
            let digest = pinned.and_then(|digests| digests.get(&container.name));
            if let (Some(digest), Some(runs)) = (digest, &container.image_digest) {
                assert_eq!(
                    runs, digest,
                    "{name} runs another image than its deployment"
                );
            }
        }
        let Some(stop) = task.stop() else { return };
        let has_failed = match stop.code {
            StopCode::TaskFailedToStart => true,
            StopCode::ServiceSchedulerInitiated => {
                stop.reason.as_deref() == Some("Task failed container health checks")
            }
            StopCode::EssentialContainerExited => {
                let health = task.health.as_ref().map(|health| health.status);
                self.mirror.is_checked(&task.spec) && health != Some(HealthStatus::Healthy)
            }
            _ => false,
        };
        if has_failed && self.counted.insert(name.to_owned()) {
            let by = task.spec.started_by.clone().unwrap_or_default();
            *self.failed.entry(by).or_default() += 1;
        }
    }
}
