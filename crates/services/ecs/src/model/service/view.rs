//! A service as users see it.
//!
//! What always holds: every count is taken from the tasks, with the same question that ListTasks asks
//! (is it meant to run?), so the two cannot disagree. A deployment that was asked for is shown from
//! that moment on, also before the controller has taken it up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_api::ecs;
use gantry_arn::ServiceName;

use super::sides;
use super::stages::Course;
use crate::model::last_status::LastStatus;
use crate::model::reference::Scope;
use crate::model::task_view::TaskState;
use crate::tables::{
    DeploymentState, DesiredPhase, Event, RevisionCounts, RevisionReference, Rollout, ServiceRow,
    ServiceStateRow,
};

/// The rows of one service.
pub struct ServiceView<'a> {
    pub scope: &'a Scope,
    pub spec: &'a ServiceRow,
    pub state: Option<Arc<ServiceStateRow>>,
    /// Of the PRIMARY deployment, if it is a blue/green one that is not completed.
    pub course: Option<Course>,
    pub tasks: Vec<TaskState>,
    pub events: &'a [Event],
    /// Of a daemon, one for each container instance that is meant.
    pub desired_count: u32,
}

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceStatus {
    Active,
    Draining,
    Inactive,
}

impl ServiceStatus {
    pub fn of(spec: &ServiceRow, state: Option<&ServiceStateRow>) -> Self {
        match (spec.deleted_at, state.and_then(|state| state.drained_at)) {
            (None, _) => Self::Active,
            (Some(_), None) => Self::Draining,
            (Some(_), Some(_)) => Self::Inactive,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// What a service deployment that was overtaken says.
pub const OVERTAKEN: &str =
    "Service deployment stopped because a newer service deployment was started.";

/// The tasks that are meant to run: those that do, and those that do not yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    pub pending: usize,
}

impl Counts {
    pub fn of<'a>(tasks: impl IntoIterator<Item = &'a TaskState>) -> Self {
        let mut counts = Self::default();
        for task in tasks {
            match task.desired_phase() {
                DesiredPhase::Stopped => {}
                DesiredPhase::Running if task.last_status() == LastStatus::Running => {
                    counts.running += 1;
                }
                DesiredPhase::Running => counts.pending += 1,
            }
        }
        counts
    }
}

/// The tasks of each revision that a service runs. `staying` are the deployments that are to have all.
pub fn revision_counts(
    deployments: &[DeploymentState],
    staying: &BTreeSet<String>,
    desired: u32,
    tasks: &[TaskState],
) -> BTreeMap<String, RevisionCounts> {
    let mut all: BTreeMap<String, RevisionCounts> = BTreeMap::new();
    for deployment in deployments {
        let mine = tasks
            .iter()
            .filter(|task| task.spec.started_by.as_deref() == Some(deployment.id.as_str()));
        let counts = Counts::of(mine);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let known = all.entry(deployment.revision.id.clone()).or_default();
        known.running += count(counts.running);
        known.pending += count(counts.pending);
        known.requested += match staying.contains(&deployment.id) {
            true => desired,
            false => count(counts.running + counts.pending),
        };
    }
    all
}

/// The deployments of a service, the PRIMARY one first.
pub fn deployments(spec: &ServiceRow, state: Option<&ServiceStateRow>) -> Vec<DeploymentState> {
    let mut known = state
        .map(|state| state.deployments.clone())
        .unwrap_or_default();
    let is_taken_up = state.is_some_and(|state| state.handled == spec.target.service_deployment);
    if !is_taken_up {
        known.insert(0, DeploymentState::begin(spec));
    }
    known
}

impl DeploymentState {
    /// The deployment that was asked for last, at its beginning.
    pub fn begin(spec: &ServiceRow) -> Self {
        let target = &spec.target;
        Self {
            id: target.deployment.clone(),
            service_deployment: target.service_deployment.clone(),
            revision: target.revision.clone(),
            created_at: target.at,
            updated_at: target.at,
            rollout: Rollout::InProgress,
            reason: format!("ECS deployment {} in progress.", target.deployment),
            is_rollback: false,
            failed_tasks: 0,
            breaker_failures: 0,
            counted: Default::default(),
            healthy_start: None,
            throttled: 0,
            throttled_until: None,
            digests: Default::default(),
        }
    }
}

impl ServiceView<'_> {
    /// The whole service, without its tags.
    pub fn describe(&self) -> ecs::Service {
        let (scope, spec, state) = (self.scope, self.spec, self.state.as_deref());
        let status = ServiceStatus::of(spec, state);
        let deployments = deployments(spec, state);
        let primary = deployments.first();
        let revision = primary.map_or(&spec.target.revision, |it| &it.revision);
        let counts = Counts::of(&self.tasks);
        let staying: BTreeSet<String> = primary
            .map(|primary| sides::staying(self.course.as_ref(), &primary.id))
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect();
        let by_revision = revision_counts(&deployments, &staying, self.wanted(), &self.tasks);
        let shown = |(at, deployment): (usize, &DeploymentState)| {
            self.deployment(deployment, at == 0, staying.contains(&deployment.id))
        };
        ecs::Service {
            service_arn: Some(scope.service_arn(&spec.cluster, &spec.name)),
            service_name: Some(spec.name.to_string()),
            cluster_arn: Some(scope.cluster_arn(&spec.cluster)),
            load_balancers: Some(Vec::new()),
            service_registries: Some(Vec::new()),
            status: Some(status.as_str().to_owned()),
            desired_count: Some(count(self.wanted())),
            running_count: Some(number(counts.running)),
            pending_count: Some(number(counts.pending)),
            launch_type: Some(spec.launch_type.clone()),
            task_definition: Some(task_definition(scope, revision)),
            deployment_configuration: Some(spec.configuration.clone()),
            deployments: Some(match status {
                ServiceStatus::Inactive => Vec::new(),
                _ => deployments.iter().enumerate().map(shown).collect(),
            }),
            events: Some(self.events.iter().map(event).collect()),
            created_at: Some(spec.created_at),
            current_service_deployment: Some(scope.service_deployment_arn(
                &spec.cluster,
                &spec.name,
                &spec.target.service_deployment,
            )),
            current_service_revisions: Some(
                deployments
                    .iter()
                    .filter_map(|it| by_revision.get_key_value(&it.revision.id))
                    .map(|(revision, counts)| self.revision(revision, counts))
                    .collect(),
            ),
            placement_constraints: Some(spec.placement_constraints.clone()),
            placement_strategy: Some(spec.placement_strategy.clone()),
            health_check_grace_period_seconds: spec
                .health_check_grace_period_seconds
                .and_then(|seconds| i32::try_from(seconds).ok()),
            scheduling_strategy: Some(spec.scheduling_strategy.clone()),
            deployment_controller: Some(ecs::DeploymentController {
                r#type: ecs::DeploymentControllerType::Ecs,
            }),
            created_by: Some(spec.created_by.clone()),
            enable_ecs_managed_tags: Some(spec.enable_ecs_managed_tags),
            propagate_tags: Some(spec.propagate_tags.clone()),
            enable_execute_command: Some(false),
            availability_zone_rebalancing: Some(spec.availability_zone_rebalancing.clone()),
            resource_management_type: Some(ecs::ResourceManagementType::Customer),
            ..ecs::Service::default()
        }
    }

    fn wanted(&self) -> u32 {
        match self.spec.deleted_at {
            Some(_) => 0,
            None => self.desired_count,
        }
    }

    fn counts(&self, deployment: &DeploymentState) -> Counts {
        Counts::of(
            self.tasks
                .iter()
                .filter(|task| task.spec.started_by.as_deref() == Some(deployment.id.as_str())),
        )
    }

    fn deployment(
        &self,
        deployment: &DeploymentState,
        is_primary: bool,
        stays: bool,
    ) -> ecs::Deployment {
        let counts = self.counts(deployment);
        ecs::Deployment {
            id: Some(deployment.id.clone()),
            status: Some(if is_primary { "PRIMARY" } else { "ACTIVE" }.to_owned()),
            task_definition: Some(task_definition(self.scope, &deployment.revision)),
            desired_count: Some(match stays || self.spec.deleted_at.is_some() {
                true => count(self.wanted()),
                false => number(counts.running + counts.pending),
            }),
            pending_count: Some(number(counts.pending)),
            running_count: Some(number(counts.running)),
            failed_tasks: Some(i32::try_from(deployment.failed_tasks).unwrap_or(i32::MAX)),
            created_at: Some(deployment.created_at),
            updated_at: Some(deployment.updated_at),
            launch_type: Some(self.spec.launch_type.clone()),
            rollout_state: Some(ecs::DeploymentRolloutState::from(
                deployment.rollout.as_str(),
            )),
            rollout_state_reason: Some(deployment.reason.clone()),
            service_connect_configuration: self.spec.service_connect.clone(),
            ..ecs::Deployment::default()
        }
    }

    fn revision(
        &self,
        revision: &str,
        counts: &RevisionCounts,
    ) -> ecs::ServiceCurrentRevisionSummary {
        ecs::ServiceCurrentRevisionSummary {
            arn: Some(revision_arn(self.scope, self.spec, revision)),
            requested_task_count: Some(count(counts.requested)),
            running_task_count: Some(count(counts.running)),
            pending_task_count: Some(count(counts.pending)),
        }
    }
}

pub fn revision_arn(scope: &Scope, spec: &ServiceRow, revision: &str) -> String {
    let name: &ServiceName = &spec.name;
    scope.service_revision_arn(&spec.cluster, name, revision)
}

pub fn count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn task_definition(scope: &Scope, revision: &RevisionReference) -> String {
    scope.task_definition_arn(&revision.family, revision.task_definition)
}

fn event(event: &Event) -> ecs::ServiceEvent {
    ecs::ServiceEvent {
        id: Some(event.id.clone()),
        created_at: Some(event.at),
        message: Some(event.message.clone()),
    }
}
