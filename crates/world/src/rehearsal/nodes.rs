//! The container instances of a rehearsal: they pull, start, check and stop tasks as it is assumed.
//!
//! What always holds: an instance whose agent is not connected does nothing. Images that a task of the same
//! revision had on an instance are there. Only tasks of the revision that the change brings meet the fate
//! that was assumed; all others run and are healthy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_api::ecs::{ContainerStateChange, SubmitTaskStateChangeRequest};
use gantry_arn::{ContainerInstanceId, Family};
use gantry_ecs::model::absent::items;
use gantry_ecs::model::last_status::LastStatus;
use gantry_ecs::model::reference::Scope;
use gantry_ecs::model::task_view::TaskState;
use gantry_ecs::tables::{
    AcsSessionRow, DesiredPhase, HealthStatus, ServiceRow, TaskDefinitionRow, TaskDesiredRow,
    TaskHealthRow, TaskRow, container_instance_name, task_definition_name,
};
use gantry_env::Timestamp;
use gantry_store::{Key, Snapshot, Table, Transaction};

use super::assumptions::{Assumptions, Fate};
use super::facts::task_state;
use crate::schedule::Schedule;

/// How long a task that ends by itself runs first.
const RUNS_FOR: Duration = Duration::from_secs(1);

/// Docker's interval while a container with a start period has not been healthy yet.
const START_INTERVAL: Duration = Duration::from_secs(5);

/// What AWS assumes of a check that does not say.
const CHECK_INTERVAL_S: i32 = 30;
const CHECK_RETRIES: i32 = 3;

/// What an instance does with a task, by the name of its row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Run(String),
    FailToStart(String),
    /// It ends by itself.
    Exit(String),
    /// It has ended because it was told to.
    Stop(String),
    Check(String, HealthStatus),
}

pub struct Nodes {
    scope: Scope,
    assumptions: Assumptions,
    schedule: Schedule<Act>,
    /// What is planned or done already: once each.
    planned: BTreeSet<Act>,
    /// When the images of a revision are on an instance.
    images: BTreeMap<(ContainerInstanceId, Family, u32), Duration>,
    /// The revision that meets the assumed fate, if the change brings one.
    aim: Option<(String, Family, u32)>,
    /// The tasks that were there before.
    before: BTreeSet<String>,
}

impl Nodes {
    pub fn new(scope: Scope, assumptions: Assumptions) -> Self {
        Self {
            scope,
            assumptions,
            schedule: Schedule::default(),
            planned: BTreeSet::new(),
            images: BTreeMap::new(),
            aim: None,
            before: BTreeSet::new(),
        }
    }

    /// Takes over what runs, and what is under way.
    pub fn begin(&mut self, snapshot: &Snapshot) {
        let prefix = TaskRow::prefix(&self.scope.account, &self.scope.region);
        for row in snapshot.scan(&prefix) {
            self.before.insert(row.key().name().to_owned());
        }
        self.see_all(snapshot, Duration::ZERO);
    }

    /// The tasks of this service's new revision meet the assumed fate.
    pub fn aim(&mut self, service: Option<&ServiceRow>) {
        self.aim = service.map(|service| {
            let revision = &service.target.revision;
            let group = gantry_ecs::tables::service_group(&service.name);
            (group, revision.family.clone(), revision.task_definition)
        });
    }

    pub fn see_all(&mut self, snapshot: &Snapshot, now: Duration) {
        let prefix = TaskRow::prefix(&self.scope.account, &self.scope.region);
        let keys: Vec<Key> = snapshot
            .scan(&prefix)
            .map(|row| row.key().clone())
            .collect();
        for key in keys {
            self.see(snapshot, &key, now);
        }
    }

    /// A row has changed: a task is new, or is to stop.
    pub fn see(&mut self, snapshot: &Snapshot, key: &Key, now: Duration) {
        if !(TaskRow::holds(key) || TaskDesiredRow::holds(key)) {
            return;
        }
        let name = key.name().to_owned();
        let Some(task) = task_state(snapshot, &self.scope, &name) else {
            return;
        };
        let spec = &task.spec;
        let image = (spec.container_instance, spec.family.clone(), spec.revision);
        if task.last_status() >= LastStatus::Running {
            self.images.entry(image.clone()).or_insert(now);
        }
        if task.last_status().is_stopped() || !self.is_connected(snapshot, &task) {
            return;
        }
        if task.desired_phase() == DesiredPhase::Stopped {
            self.plan(now + self.assumptions.stop, Act::Stop(name));
        } else if task.last_status() < LastStatus::Running {
            let pulled = now + self.assumptions.pull;
            let there = *self.images.entry(image).or_insert(pulled);
            let at = there.max(now) + self.assumptions.start;
            let act = match self.fate(&task, &name) {
                Fate::Fail => Act::FailToStart(name),
                _ => Act::Run(name),
            };
            self.plan(at, act);
        } else if snapshot
            .read::<TaskHealthRow>(&self.scope.account, &self.scope.region, &name)
            .is_none()
        {
            self.plan_check(snapshot, &task, &name, now);
        }
    }

    fn plan(&mut self, at: Duration, act: Act) {
        if self.planned.insert(act.clone()) {
            self.schedule.at(at, act);
        }
    }

    /// The first verdict of a task's health checks, where it has any.
    fn plan_check(&mut self, snapshot: &Snapshot, task: &TaskState, name: &str, started: Duration) {
        let spec = &task.spec;
        let definition = snapshot.read::<TaskDefinitionRow>(
            &self.scope.account,
            &self.scope.region,
            &task_definition_name(&spec.family, spec.revision),
        );
        let containers = definition
            .iter()
            .flat_map(|row| items(&row.definition.container_definitions));
        let checks: Vec<_> = containers
            .filter(|it| it.essential != Some(false))
            .filter_map(|it| it.health_check.as_ref())
            .collect();
        let seconds = |value: i32| Duration::from_secs(u64::try_from(value).unwrap_or(0));
        let is_healthy = self.fate(task, name) != Fate::Unhealthy;
        let verdicts = checks.iter().map(|check| {
            let interval = seconds(check.interval.unwrap_or(CHECK_INTERVAL_S));
            let start_period = seconds(check.start_period.unwrap_or(0));
            match is_healthy {
                true if start_period.is_zero() => interval,
                true => interval.min(START_INTERVAL),
                false => {
                    let retries = check.retries.unwrap_or(CHECK_RETRIES);
                    start_period + interval * u32::try_from(retries).unwrap_or(1)
                }
            }
        });
        let verdict = match is_healthy {
            true => verdicts.max(),
            false => verdicts.min(),
        };
        let Some(after) = verdict else {
            return;
        };
        let status = match is_healthy {
            true => HealthStatus::Healthy,
            false => HealthStatus::Unhealthy,
        };
        self.plan(started + after, Act::Check(name.to_owned(), status));
    }

    fn fate(&self, task: &TaskState, name: &str) -> Fate {
        let spec = &task.spec;
        let is_meant = self.aim.as_ref().is_some_and(|(group, family, revision)| {
            spec.group == *group && spec.family == *family && spec.revision == *revision
        });
        match is_meant && !self.before.contains(name) {
            true => self.assumptions.tasks,
            false => Fate::Run,
        }
    }

    fn is_connected(&self, snapshot: &Snapshot, task: &TaskState) -> bool {
        let spec = &task.spec;
        let name = container_instance_name(&spec.cluster, &spec.container_instance);
        let (account, region) = (&self.scope.account, &self.scope.region);
        let session = snapshot.read::<AcsSessionRow>(account, region, &name);
        session.is_some_and(|session| session.connected)
    }

    pub fn next_moment(&self) -> Option<Duration> {
        self.schedule.next_moment()
    }

    /// What is to be done by now.
    pub fn due(&mut self, now: Duration) -> Vec<Act> {
        let mut due = Vec::new();
        while self.schedule.next_moment().is_some_and(|at| at <= now) {
            due.extend(self.schedule.pop().map(|(_, act)| act));
        }
        due
    }

    /// What the instance reports of it, unless it is about health. What follows by itself is planned.
    pub fn report(
        &mut self,
        snapshot: &Snapshot,
        act: &Act,
        now: Timestamp,
        monotonic: Duration,
    ) -> Option<SubmitTaskStateChangeRequest> {
        let (name, status, exit_code, reason) = match act {
            Act::Run(name) => (name, "RUNNING", None, None),
            Act::FailToStart(name) => {
                let reason = "CannotStartContainerError: assumed by the rehearsal";
                (name, "STOPPED", None, Some(reason))
            }
            Act::Exit(name) => (name, "STOPPED", Some(1), None),
            Act::Stop(name) => (name, "STOPPED", Some(0), None),
            Act::Check(..) => return None,
        };
        let task = task_state(snapshot, &self.scope, name)?;
        let is_over = task.last_status().is_stopped();
        // A task that was told to stop before it ran never runs.
        let is_late = status == "RUNNING" && task.desired_phase() == DesiredPhase::Stopped;
        if is_over || is_late {
            return None;
        }
        if status == "RUNNING" {
            match self.fate(&task, name) {
                Fate::Exit => self.plan(monotonic + RUNS_FOR, Act::Exit(name.clone())),
                _ => self.plan_check(snapshot, &task, name, monotonic),
            }
        }
        let spec = &task.spec;
        let containers = spec
            .containers
            .iter()
            .map(|container| ContainerStateChange {
                container_name: Some(container.name.clone()),
                runtime_id: Some(format!("rehearsed-{}", container.id)),
                status: Some(status.to_owned()),
                exit_code,
                reason: reason.map(str::to_owned),
                ..ContainerStateChange::default()
            });
        Some(SubmitTaskStateChangeRequest {
            cluster: Some(spec.cluster.to_string()),
            task: Some(spec.id.to_string()),
            status: Some(status.to_owned()),
            reason: reason.map(str::to_owned),
            containers: Some(containers.collect()),
            pull_started_at: Some(spec.created_at),
            pull_stopped_at: Some(now),
            execution_stopped_at: (status == "STOPPED").then_some(now),
            ..SubmitTaskStateChangeRequest::default()
        })
    }

    /// What the instance's telemetry makes of a verdict.
    pub fn health(&self, snapshot: &Snapshot, act: &Act) -> Option<Transaction> {
        let Act::Check(name, status) = act else {
            return None;
        };
        let task = task_state(snapshot, &self.scope, name)?;
        if task.last_status() != LastStatus::Running {
            return None;
        }
        let found = "exit code 1: assumed by the rehearsal".to_owned();
        let containers = task.spec.containers.iter();
        let row = TaskHealthRow {
            status: *status,
            containers: containers
                .clone()
                .map(|it| (it.name.clone(), *status))
                .collect(),
            found: match status {
                HealthStatus::Unhealthy => containers
                    .map(|it| (it.name.clone(), found.clone()))
                    .collect(),
                _ => BTreeMap::new(),
            },
        };
        let mut transaction = Transaction::new();
        let (account, region) = (&self.scope.account, &self.scope.region);
        transaction.write::<TaskHealthRow>(account, region, name, &row);
        Some(transaction)
    }
}
