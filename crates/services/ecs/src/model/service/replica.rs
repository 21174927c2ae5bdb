//! One task as its service sees it.
//!
//! What always holds: a replica is a task that is meant to run. One whose stop is decided, or that
//! has ended by itself, is none any more: its place is free, though its node may still be busy with it.

use std::time::Duration;

use gantry_api::ecs::TaskDefinition;
use gantry_arn::{ContainerInstanceId, TaskId};
use gantry_env::Timestamp;

use crate::model::absent::items;
use crate::model::last_status::LastStatus;
use crate::model::task_view::TaskState;
use crate::tables::HealthStatus;

/// How long a task must run to be healthy, where nothing checks its health.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(40);

/// How a replica is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Not RUNNING yet.
    Pending,
    /// Its health check fails, and its grace period is over.
    Unhealthy,
    /// RUNNING, and not yet known to be healthy.
    Running,
    Healthy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub id: TaskId,
    pub slot: u32,
    /// It is of the deployment that the service shall run.
    pub is_primary: bool,
    pub condition: Condition,
    /// Its container instance is DRAINING or gone.
    pub is_draining: bool,
    pub instance: ContainerInstanceId,
    pub zone: Option<String>,
    /// What its instance has left of the resource that the service's binpack looks at.
    pub left_free: i64,
}

impl Replica {
    /// It stays where it is, unless the service is scaled in or it becomes unhealthy.
    pub fn stays(&self) -> bool {
        self.is_primary && !self.is_draining && self.condition != Condition::Unhealthy
    }

    /// Another takes its place: it is of an older deployment, or its instance drains.
    pub fn leaves(&self) -> bool {
        !self.is_primary || self.is_draining
    }

    /// It serves. Of those that leave, also one that has not run long: what it does cannot be told
    /// from what a healthy one does, and nothing may be taken from a service that is needed.
    pub fn is_up(&self) -> bool {
        match self.condition {
            Condition::Healthy => true,
            Condition::Running => self.leaves(),
            Condition::Pending | Condition::Unhealthy => false,
        }
    }
}

/// How a task that is meant to run is doing, and when that may change by itself.
pub fn condition(
    task: &TaskState,
    definition: &TaskDefinition,
    grace: Duration,
    now: Timestamp,
) -> (Condition, Option<Timestamp>) {
    let started = task.report.as_ref().and_then(|report| report.started_at);
    let Some(started) = started.filter(|_| task.last_status() == LastStatus::Running) else {
        return (Condition::Pending, None);
    };
    if !is_checked(definition) {
        let healthy_at = started + HEALTHY_AFTER;
        return match now < healthy_at {
            true => (Condition::Running, Some(healthy_at)),
            false => (Condition::Healthy, None),
        };
    }
    match task.health.as_ref().map(|health| health.status) {
        Some(HealthStatus::Healthy) => (Condition::Healthy, None),
        Some(HealthStatus::Unhealthy) if now < started + grace => {
            (Condition::Running, Some(started + grace))
        }
        Some(HealthStatus::Unhealthy) => (Condition::Unhealthy, None),
        Some(HealthStatus::Unknown) | None => (Condition::Running, None),
    }
}

/// Whether a health check of its containers decides: a task is as healthy as its essential ones.
pub fn is_checked(definition: &TaskDefinition) -> bool {
    items(&definition.container_definitions)
        .iter()
        .any(|container| container.essential != Some(false) && container.health_check.is_some())
}
