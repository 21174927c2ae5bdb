//! How many tasks a service shall have, and of which deployments, by the words of `docs/services.md`: written
//! down here once more, so that the rules of the control plane are not held against themselves.

use gantry_api::ecs::{DeploymentCircuitBreaker, SchedulingStrategy, ThresholdType};
use gantry_ecs::model::service::stages::{Course, Stage};
use gantry_ecs::tables::{ContainerInstanceStatus, Rollout};

use super::mirror::{Mirror, Watched};

/// Blue and green together have at most so many percent of the desired count, or the maximum if that is more.
const BOTH_PERCENT: usize = 200;

#[derive(Clone, Debug)]
pub struct Shape {
    /// The deployments whose tasks stay, blue before green. All others leave.
    pub staying: Vec<String>,
    /// Of each that stays.
    pub desired: usize,
    /// At least so many stay up while tasks are replaced.
    pub lower: usize,
    /// At most so many are RUNNING or PENDING.
    pub upper: usize,
    pub is_daemon: bool,
    /// A daemon's instances depend on constraints, which are not read here.
    pub is_constrained: bool,
}

impl Shape {
    /// Of a service, by the name of its row.
    pub fn of(mirror: &Mirror, name: &str) -> Option<Shape> {
        let watched = mirror.services.get(name)?;
        let spec = &watched.spec;
        let is_daemon = spec.scheduling_strategy == SchedulingStrategy::Daemon;
        let active = mirror.instances.values();
        let active = active.filter(|status| **status == ContainerInstanceStatus::Active);
        let desired = match is_daemon {
            true => active.count(),
            false => spec.desired_count as usize,
        };
        let percent = |value: Option<i32>, default| value.unwrap_or(default) as usize;
        let least = percent(spec.configuration.minimum_healthy_percent, 100);
        let most = percent(spec.configuration.maximum_percent, 200);
        let course = course(mirror, name, watched);
        let most = match course {
            Some(_) => most.max(BOTH_PERCENT),
            None => most,
        };
        Some(Shape {
            staying: staying(watched, course),
            desired,
            lower: (desired * least).div_ceil(100),
            upper: desired * most / 100,
            is_daemon,
            is_constrained: !spec.placement_constraints.is_empty(),
        })
    }

    pub fn has_two_sides(&self) -> bool {
        self.staying.len() > 1
    }
}

/// Where the PRIMARY deployment is, if it is a blue/green one that is not completed.
pub fn course<'a>(mirror: &'a Mirror, name: &str, watched: &Watched) -> Option<&'a Course> {
    let primary = watched.state.as_ref()?.deployments.first()?;
    let course = mirror
        .courses
        .get(&format!("{name}/{}", primary.service_deployment));
    course.filter(|_| primary.rollout != Rollout::Completed)
}

/// Before SCALE_UP blue alone, then blue and green, and in CLEAN_UP green alone. Whatever is rolling, or rolled
/// back, has its PRIMARY deployment.
fn staying(watched: &Watched, course: Option<&Course>) -> Vec<String> {
    let state = watched.state.as_ref();
    let Some(primary) = state.and_then(|state| state.deployments.first()) else {
        return Vec::new();
    };
    let primary = primary.id.clone();
    let Some(course) = course.filter(|course| !course.given_up) else {
        return vec![primary];
    };
    let mut staying = Vec::new();
    if course.stage < Stage::CleanUp {
        staying.extend(course.blue.clone());
    }
    if course.stage >= Stage::ScaleUp {
        staying.push(primary);
    }
    staying
}

/// After so many failed tasks a deployment fails, by AWS's documentation.
pub fn threshold(breaker: Option<&DeploymentCircuitBreaker>, desired: usize) -> usize {
    let given = breaker.and_then(|breaker| breaker.threshold_configuration.as_ref());
    let share = |percent: i32| (desired * percent as usize).div_ceil(100);
    match given.map(|given| (&given.r#type, given.value)) {
        Some((ThresholdType::Count, count)) => count as usize,
        Some((ThresholdType::UnboundedPercent, percent)) => share(percent).max(1),
        Some((_, percent)) => share(percent).clamp(3, 200),
        None => share(50).clamp(3, 200),
    }
}
