//! How the tasks of a service are doing, by the words of `docs/services.md`: written down here once more, so
//! that the rules of the control plane are not held against themselves.

use std::time::Duration;

use gantry_arn::ContainerInstanceId;
use gantry_ecs::model::last_status::LastStatus;
use gantry_ecs::model::task_view::TaskState;
use gantry_ecs::tables::{ContainerInstanceStatus, DesiredPhase, HealthStatus, ServiceRow};
use gantry_env::Timestamp;

use super::mirror::Mirror;

/// A task without a health check is healthy when it has been RUNNING for so long.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(40);

/// A task that is meant to run.
#[derive(Clone, Debug)]
pub struct Replica {
    pub name: String,
    pub slot: u32,
    /// The deployment that it is of.
    pub deployment: String,
    /// That is one whose tasks stay.
    pub is_wanted: bool,
    pub instance: ContainerInstanceId,
    pub zone: Option<String>,
    pub is_running: bool,
    pub is_healthy: bool,
    /// Its check fails, and the grace period is over.
    pub is_unhealthy: bool,
    pub is_draining: bool,
}

impl Replica {
    /// Another shall take its place.
    pub fn leaves(&self) -> bool {
        !self.is_wanted || self.is_draining
    }

    pub fn stays(&self) -> bool {
        !self.leaves() && !self.is_unhealthy
    }

    /// "A task that is about to be replaced counts as up as soon as it is RUNNING."
    pub fn is_up(&self) -> bool {
        self.is_healthy || (self.leaves() && self.is_running && !self.is_unhealthy)
    }
}

/// All tasks of the service that are meant to run, where `staying` are the deployments whose tasks stay.
pub fn of(
    mirror: &Mirror,
    service: &ServiceRow,
    staying: &[String],
    now: Timestamp,
) -> Vec<Replica> {
    let grace = service.health_check_grace_period_seconds.unwrap_or(0);
    let grace = Duration::from_secs(u64::from(grace));
    mirror
        .tasks_of(service)
        .filter(|(_, task)| is_meant_to_run(task))
        .map(|(name, task)| {
            let is_running = task.last_status() == LastStatus::Running;
            let started_at = task.report.as_ref().and_then(|report| report.started_at);
            let started_at = started_at.filter(|_| is_running);
            let health = task.health.as_ref().map(|health| health.status);
            let (is_healthy, is_unhealthy) = match mirror.is_checked(&task.spec) {
                false => (
                    started_at.is_some_and(|at| now >= at + HEALTHY_AFTER),
                    false,
                ),
                true => (
                    is_running && health == Some(HealthStatus::Healthy),
                    health == Some(HealthStatus::Unhealthy)
                        && started_at.is_some_and(|at| now >= at + grace),
                ),
            };
            let instance = mirror.instances.get(&task.spec.container_instance);
            let deployment = task.spec.started_by.clone().unwrap_or_default();
            Replica {
                name: name.clone(),
                slot: task.spec.replica.as_ref().map_or(0, |spec| spec.slot),
                is_wanted: staying.contains(&deployment),
                deployment,
                instance: task.spec.container_instance,
                zone: task.spec.availability_zone.clone(),
                is_running,
                is_healthy,
                is_unhealthy,
                is_draining: instance != Some(&ContainerInstanceStatus::Active),
            }
        })
        .collect()
}

pub fn is_meant_to_run(task: &TaskState) -> bool {
    task.desired_phase() == DesiredPhase::Running && !task.last_status().is_stopped()
}
