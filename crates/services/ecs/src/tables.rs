//! The rows of ECS: what is durable, and who writes it.
//!
//! What always holds:
//! - **One writer each.** [`TaskRow`] (spec) is written once by RunTask or StartTask and afterwards only for its
//!   tags; [`TaskDesiredRow`] (desired) by StopTask and the controllers; [`TaskReportRow`]
//!   (observed) by `Submit*StateChange`; [`AcsSessionRow`] by the agent session. What users see is
//!   derived from the three by [`crate::model::task_view::TaskView`] and stored nowhere.
//! - [`TaskHealthRow`] (observed as well) is written by the telemetry sockets alone.
//! - **Absence means the beginning.** A task without a [`TaskDesiredRow`] shall run; a task without
//!   a [`TaskReportRow`] has not been heard of yet (PENDING). RunTask therefore writes one row a task.
//! - **Every placement writes the [`AllocationRow`] of its container instance** in the transaction
//!   that creates the task. An entry counts until the task's STOPPED report is durable (or the task
//!   row is gone); entries that no longer count are swept by the next placement or by the
//!   allocation controller. So a report releases capacity without touching this contended row.
//! - A task definition's row outlives every task that names it, so joins never dangle.
//!
//! Rows of tasks and container instances are named `<cluster>/<id>`: a cluster is a prefix scan.
//! All of them are published, read-only, to the agent session; nothing outside this crate may
//! write any but [`AcsSessionRow`]. Secondary indexes are derived in memory, never stored.

use std::collections::BTreeMap;

use gantry_api::ecs;
use gantry_arn::{ClusterName, ContainerInstanceId, Family, TaskId};
use gantry_env::Timestamp;
use gantry_store::Table;
use serde::{Deserialize, Serialize};

use crate::model::last_status::LastStatus;

/// The service part of every key of this crate.
pub const SERVICE: &str = "ecs";

macro_rules! table {
    ($row:ty, $kind:literal, $schema:literal) => {
        impl Table for $row {
            type Row = Self;
            const SERVICE: &'static str = SERVICE;
            const KIND: &'static str = $kind;
            const SCHEMA: u16 = $schema;
        }
    };
}

mod services;
mod state_changes;

pub use services::*;
pub use state_changes::*;

// Named by the cluster's name.
table!(ClusterRow, "cluster", 1);
// Named by `task_definition_name`.
table!(TaskDefinitionRow, "task-definition", 1);
// Named by the family. Kept for ever, so that no revision is used twice.
table!(FamilyRow, "family", 1);
// Named by `task_name`, all four.
table!(TaskRow, "task", 1);
table!(TaskDesiredRow, "task-desired", 1);
table!(TaskReportRow, "task-report", 1);
table!(TaskHealthRow, "task-health", 1);
// Named by `container_instance_name`, all three.
table!(ContainerInstanceRow, "container-instance", 1);
table!(AllocationRow, "allocation", 1);
table!(AcsSessionRow, "acs-session", 1);
// Named `<operation>/<cluster>/<hex of the token's SHA-256>`.
table!(ClientTokenRow, "client-token", 1);
// Named by `account_setting_name`.
table!(AccountSettingRow, "account-setting", 1);
// Named by the cluster's name.
table!(PlacementRejectionsRow, "placement-rejections", 1);

/// The row name of a task, of its desired phase and of its report.
pub fn task_name(cluster: &ClusterName, task: &TaskId) -> String {
    format!("{cluster}/{task}")
}

/// The row name of a container instance, of its allocation and of its agent session.
pub fn container_instance_name(cluster: &ClusterName, instance: &ContainerInstanceId) -> String {
    format!("{cluster}/{instance}")
}

/// The prefix of the row names of everything in a cluster.
pub fn cluster_prefix(cluster: &ClusterName) -> String {
    format!("{cluster}/")
}

/// The row name of a revision. The digits are padded, so rows of a family sort by revision.
pub fn task_definition_name(family: &Family, revision: u32) -> String {
    format!("{family}/{revision:010}")
}

/// The row name of one principal's account setting.
pub fn account_setting_name(principal: &str, setting: &str) -> String {
    format!("{principal}/{setting}")
}

/// An account setting that a principal has; the root user's is the account's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSettingRow {
    pub value: String,
}

/// A cluster, ACTIVE or INACTIVE (deleted, but still described).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterRow {
    pub name: ClusterName,
    pub status: ClusterStatus,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<ecs::ClusterSetting>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ecs::ClusterConfiguration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_connect_defaults: Option<ecs::ClusterServiceConnectDefaults>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<ecs::Tag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClusterStatus {
    Active,
    Inactive,
}

/// A revision of a task definition: the user's own document, with AWS's defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDefinitionRow {
    pub definition: ecs::TaskDefinition,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<ecs::Tag>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FamilyRow {
    pub family: Family,
    /// The revision that the next RegisterTaskDefinition gets. It only grows.
    pub next_revision: u32,
}

/// What was asked for: the spec of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    pub id: TaskId,
    pub cluster: ClusterName,
    pub family: Family,
    pub revision: u32,
    pub container_instance: ContainerInstanceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    pub launch_type: ecs::LaunchType,
    pub group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    pub created_at: Timestamp,
    /// As AWS returns them: `containerOverrides` names every container of the definition.
    pub overrides: ecs::TaskOverride,
    /// In the order of the task definition.
    pub containers: Vec<TaskContainer>,
    /// What this task takes of its container instance.
    pub reserved: Reserved,
    /// CPU units of the whole task, as users see it.
    pub cpu: String,
    /// MiB of the whole task, as users see it.
    pub memory: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<ecs::Attribute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<ecs::Tag>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_execute_command: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_id: Option<String>,
    /// What the account setting `defaultLogDriverMode` was for whoever ran the task.
    #[serde(default, skip_serializing_if = "LogDriverMode::is_default")]
    pub default_log_driver_mode: LogDriverMode,
    /// What makes it a task of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaSpec>,
}

/// How a container's log is delivered where its log configuration names no `mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriverMode {
    #[default]
    NonBlocking,
    Blocking,
}

impl LogDriverMode {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A container of a task, known by an id from the day the task is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskContainer {
    pub name: String,
    /// The last part of the container's ARN: a UUID.
    pub id: String,
}

/// The phase that the control plane wants. Absent means RUNNING.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDesiredRow {
    pub phase: DesiredPhase,
    pub stop_code: StopCode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_reason: Option<String>,
    /// When the stop was decided: the task's `stoppingAt`.
    pub since: Timestamp,
    /// Set where no node will ever report again (its container instance was deregistered by force
    /// or is gone): the task is STOPPED as of this moment, without a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DesiredPhase {
    Running,
    Stopped,
}

/// Why a task stopped, in AWS's words. InfrastructureHealth is newer than the public model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCode {
    TaskFailedToStart,
    EssentialContainerExited,
    UserInitiated,
    ServiceSchedulerInitiated,
    SpotInterruption,
    TerminationNotice,
    InfrastructureHealth,
}

impl StopCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailedToStart => "TaskFailedToStart",
            Self::EssentialContainerExited => "EssentialContainerExited",
            Self::UserInitiated => "UserInitiated",
            Self::ServiceSchedulerInitiated => "ServiceSchedulerInitiated",
            Self::SpotInterruption => "SpotInterruption",
            Self::TerminationNotice => "TerminationNotice",
            Self::InfrastructureHealth => "InfrastructureHealth",
        }
    }
}

/// What the node reported, merged: statuses only advance, and what was once known is not lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskReportRow {
    pub status: LastStatus,
    /// Grows with every report that changed something; part of the task's `version`.
    pub changes: u64,
    /// In the order of the task definition; only those that were ever reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerReport>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Timestamp>,
    /// When the STOPPED report became durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
    /// Set by the first report of a task that ends by itself, unless a stop was already decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

/// How a task came to end by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    pub stop_code: StopCode,
    pub reason: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerReport {
    pub name: String,
    pub status: LastStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_bindings: Vec<ecs::NetworkBinding>,
}

/// What health checks found, as the node last told over the telemetry socket. Its only writer is the
/// TCS side of the control plane, and only when something in it changes: a repeated finding is no
/// row. Absent means that nothing was told: UNKNOWN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHealthRow {
    pub status: HealthStatus,
    /// By the container's name; only those that were told of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, HealthStatus>,
    /// What the check saw that made the status: its exit code where it failed, and its output.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    Healthy,
    Unhealthy,
    #[default]
    Unknown,
}

impl HealthStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A machine that an agent registered. `agentConnected` is in its [`AcsSessionRow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerInstanceRow {
    pub id: ContainerInstanceId,
    pub cluster: ClusterName,
    pub status: ContainerInstanceStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// The node whose agent registered it, and the only one that may speak for it. None where the
    /// caller was no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Empty for a machine that brought no instance identity document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ec2_instance_id: String,
    pub registered_at: Timestamp,
    /// When it was deregistered; the row is removed some time later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deregistered_at: Option<Timestamp>,
    /// Grows with every change of this row; shown as `version`.
    pub version: i64,
    pub registered_resources: Vec<ecs::Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_info: Option<ecs::VersionInfo>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<ecs::Attribute>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platform_devices: Vec<ecs::PlatformDevice>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<ecs::Tag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ContainerInstanceStatus {
    Active,
    Draining,
    /// Deregistered. Described as such until its row is removed; never placed on.
    Inactive,
}

impl ContainerInstanceStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// What is taken of one container instance, by which task. Every placement writes this row, so two
/// placements that saw the same free capacity cannot both commit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AllocationRow {
    pub tasks: BTreeMap<TaskId, Reserved>,
}

/// A task's share of its container instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    #[serde(default)]
    pub cpu: i64,
    #[serde(default)]
    pub memory: i64,
    /// Host ports that the definition names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp_ports: Vec<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub udp_ports: Vec<u16>,
    /// Host ports that the node chose, from its report on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound_tcp_ports: Vec<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound_udp_ports: Vec<u16>,
    /// The group of the task, which `distinctInstance` and `spread` look at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
}

/// The latest connection of an agent. The number is committed once a connect and only grows: it
/// numbers the frames of the session and fences a replica that still holds an older socket.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AcsSessionRow {
    pub session: u64,
    pub connected: bool,
    /// When `connected` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_hash: Option<String>,
}

/// A client token that was used: the same request again gets the same answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientTokenRow {
    /// A digest of everything else in the request. Another one under the same token is a conflict.
    pub fingerprint: String,
    pub created_at: Timestamp,
    pub cluster: ClusterName,
    /// What RegisterContainerInstance made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_instance: Option<ContainerInstanceId>,
    /// What RunTask made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<ecs::Failure>,
}

/// The latest placements of a cluster that could not be made, newest first, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlacementRejectionsRow {
    pub rejections: Vec<PlacementRejection>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlacementRejection {
    pub at: Timestamp,
    /// `family:revision`.
    pub task_definition: String,
    /// How many tasks were asked for, and how many of them found no place.
    pub asked: u32,
    pub unplaced: u32,
    /// One sentence for each container instance that was looked at, as far as they are kept.
    pub reasons: Vec<String>,
    /// How many container instances were looked at.
    #[serde(default)]
    pub instances: u32,
    /// For each reason in the API's words, against how many instances it spoke.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// The group that the request named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}
