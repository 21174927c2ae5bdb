//! The rows of services: what is durable, and who writes it.
//!
//! What always holds:
//! - **One writer each.** [`ServiceRow`] is the user's wish: CreateService, UpdateService,
//!   DeleteService and the tagging operations write it. [`ServiceRevisionRow`] and
//!   [`ServiceDeploymentRow`] are written with it, when a deployment is asked for; the first never
//!   again, the second when the deployment is asked to stop or one of its hooks is answered. [`ServiceStateRow`],
//!   [`ServiceEventsRow`] and [`ServiceDeploymentStateRow`] are the service controller's.
//!   [`TaskProtectionRow`] is written by UpdateTaskProtection, and goes with its task.
//! - **Nothing is counted twice.** How many tasks run or wait is nowhere stored: whoever shows a
//!   count counts the tasks ([`crate::model::service::view`]), as ListTasks does. Only what was once,
//!   when a service deployment was over, is written down.
//! - **A service finds its tasks without an index.** The first twelve digits of their ids are those of
//!   its incarnation ([`task_id_prefix`]), so they stand together in the store, and their number is all
//!   that a look at them costs. Their group is `service:NAME`, which no caller can give a task.
//! - A service that is made anew under the name of a deleted one is another incarnation; the
//!   controller takes no notice of what it wrote for the one before.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ecs;
use gantry_arn::{ClusterName, Family, ServiceName, TaskId};
use gantry_env::Timestamp;
use gantry_store::Table;
use serde::{Deserialize, Serialize};

use super::{LogDriverMode, SERVICE};
use crate::model::service::hooks::Action;
use crate::model::service::stages::Course;

// Named by `service_row_name`, all three.
table!(ServiceRow, "service", 1);
table!(ServiceStateRow, "service-state", 1);
table!(ServiceEventsRow, "service-events", 1);
// Named by `service_part_name`, all three.
table!(ServiceRevisionRow, "service-revision", 1);
table!(ServiceDeploymentRow, "service-deployment", 1);
table!(ServiceDeploymentStateRow, "service-deployment-state", 1);
// Named by `task_name`.
table!(TaskProtectionRow, "task-protection", 1);

/// The row name of a service, of its state and of its events.
pub fn service_row_name(cluster: &ClusterName, service: &ServiceName) -> String {
    format!("{cluster}/{service}")
}

/// The row name of a revision or a deployment of a service.
pub fn service_part_name(cluster: &ClusterName, service: &ServiceName, id: &str) -> String {
    format!("{cluster}/{service}/{id}")
}

/// The group of a service's tasks.
pub fn service_group(service: &ServiceName) -> String {
    format!("service:{service}")
}

/// How many hexadecimal digits the ids of a service's tasks have in common.
pub const TASK_ID_PREFIX: usize = 12;

/// What the ids of all tasks of this incarnation begin with.
pub fn task_id_prefix(incarnation: &str) -> &str {
    incarnation.get(..TASK_ID_PREFIX).unwrap_or(incarnation)
}

/// What the user wants of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    pub name: ServiceName,
    pub cluster: ClusterName,
    /// 32 hexadecimal digits, drawn when the service was created.
    pub incarnation: String,
    /// A digest of the request that created it: the same again is no error.
    pub fingerprint: String,
    pub created_at: Timestamp,
    pub created_by: String,
    pub desired_count: u32,
    pub scheduling_strategy: ecs::SchedulingStrategy,
    pub launch_type: ecs::LaunchType,
    /// With AWS's defaults filled in.
    pub configuration: ecs::DeploymentConfiguration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_grace_period_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement_constraints: Vec<ecs::PlacementConstraint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement_strategy: Vec<ecs::PlacementStrategy>,
    /// A service that was made before there was any is not rebalanced.
    #[serde(default = "disabled")]
    pub availability_zone_rebalancing: ecs::AvailabilityZoneRebalancing,
    /// What was said of Service Connect: that it is off, until it is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_connect: Option<ecs::ServiceConnectConfiguration>,
    pub propagate_tags: ecs::PropagateTags,
    pub enable_ecs_managed_tags: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<ecs::Tag>,
    /// What the account setting was for whoever created the service.
    #[serde(default)]
    pub default_log_driver_mode: LogDriverMode,
    /// The deployment that was asked for last.
    pub target: Target,
    /// When DeleteService was called. The service drains from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}

fn disabled() -> ecs::AvailabilityZoneRebalancing {
    ecs::AvailabilityZoneRebalancing::Disabled
}

/// A task's place in its service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSpec {
    /// A replacement takes the slot of the one that it replaces, so a replica's history stays
    /// together. A daemon's place is its container instance: its slot is always 0.
    pub slot: u32,
    /// The digests that the deployment's first tasks found their images to have, by container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
}

/// A deployment as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The last part of the service deployment's ARN.
    pub service_deployment: String,
    /// `ecs-svc/` and 19 digits: the `startedBy` of its tasks.
    pub deployment: String,
    pub revision: RevisionReference,
    pub at: Timestamp,
}

/// A service revision, and the task definition that it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionReference {
    /// The last part of the service revision's ARN.
    pub id: String,
    pub family: Family,
    pub task_definition: u32,
}

/// What a deployment deploys: never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRevisionRow {
    pub reference: RevisionReference,
    /// The service deployment that brought it.
    #[serde(default)]
    pub service_deployment: String,
    pub launch_type: ecs::LaunchType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_connect: Option<ecs::ServiceConnectConfiguration>,
    pub created_at: Timestamp,
}

/// A service deployment as it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceDeploymentRow {
    pub incarnation: String,
    pub target: Target,
    /// The revisions that ran when it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    pub configuration: ecs::DeploymentConfiguration,
    /// When StopServiceDeployment asked for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_requested_at: Option<Timestamp>,
    /// What ContinueServiceDeployment was told about its hooks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, Action>,
}

/// How far a service deployment is. Without one it waits to be taken up: PENDING.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceDeploymentStateRow {
    pub status: ecs::ServiceDeploymentStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackState>,
    /// What the circuit breaker has counted, and whether it opened.
    #[serde(default)]
    pub failures: u32,
    #[serde(default)]
    pub triggered: bool,
    /// Where a blue/green deployment is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub course: Option<Course>,
    /// The digest of each container's image, as the deployment's first tasks found it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
    /// The tasks that each revision had when the deployment was over. Until then they are counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ended_with: BTreeMap<String, RevisionCounts>,
}

/// The tasks of a service revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionCounts {
    pub requested: u32,
    pub running: u32,
    pub pending: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackState {
    pub reason: String,
    pub started_at: Timestamp,
    /// The revision that is returned to.
    pub revision: String,
}

/// What the controller has made of a service so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStateRow {
    pub incarnation: String,
    /// The service deployment that was taken up last.
    pub handled: String,
    /// Numbers everything that is derived rather than drawn: tasks, events, rollbacks.
    pub next_number: u64,
    /// The PRIMARY one first, then those of which tasks are left, newest first.
    pub deployments: Vec<DeploymentState>,
    /// What a rollback returns to: the revision of the last deployment that was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<RevisionReference>,
    /// The digests that it had: a rollback runs the very images that were good.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub completed_digests: BTreeMap<String, String>,
    /// It was said that the service is steady, and it has been since.
    #[serde(default)]
    pub steady: bool,
    /// Tasks find no place: how often that was tried in a row, and when it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unplaced: Option<Unplaced>,
    /// How its tasks are being moved towards a balance over availability zones.
    #[serde(default, skip_serializing_if = "Balance::is_idle")]
    pub balance: Balance,
    /// All tasks of the deleted service have stopped: it is INACTIVE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    pub tries: u32,
    pub tried_at: Timestamp,
    pub again_at: Timestamp,
}

/// A service's way to a balance over availability zones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// It was said that the service is not balanced, and not yet that it is.
    #[serde(default)]
    pub announced: bool,
    /// The task that is being moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<BalanceStep>,
    /// How many moves in a row came to nothing, and until when none is tried therefore.
    #[serde(default)]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_at: Option<Timestamp>,
}

impl Balance {
    fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

/// A task in the richer zone goes when its successor in the poorer one is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceStep {
    pub newcomer: TaskId,
    pub leaver: TaskId,
    pub from: String,
}

/// One of the `deployments` of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentState {
    pub id: String,
    pub service_deployment: String,
    pub revision: RevisionReference,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub rollout: Rollout,
    pub reason: String,
    /// It returns to the revision of a deployment that was completed before.
    #[serde(default)]
    pub is_rollback: bool,
    /// All that failed, as users see it.
    pub failed_tasks: u32,
    /// What the circuit breaker has counted since a task was healthy.
    pub breaker_failures: u32,
    /// The failed tasks that were counted, as long as they are there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub counted: BTreeSet<TaskId>,
    /// When the latest of the tasks that were seen healthy had started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_start: Option<Timestamp>,
    /// How often in a row tasks stopped before they ran, and until when none is started therefore.
    #[serde(default)]
    pub throttled: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_until: Option<Timestamp>,
    /// The digest of each container's image, as the deployment's first tasks found it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Rollout {
    InProgress,
    Completed,
    Failed,
}

impl Rollout {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }
}

/// The last events of a service, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEventsRow {
    pub incarnation: String,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: String,
    pub at: Timestamp,
    pub message: String,
}

/// A task that scale-in and deployments leave alone until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskProtectionRow {
    pub until: Timestamp,
}
