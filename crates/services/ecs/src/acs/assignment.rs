//! What one container instance should run, as the rows say.
//!
//! What always holds: a pure function of a snapshot. A task leaves the view when its STOPPED report
//! is durable or when it was given up; whatever an agent names that is not in the view shall stop.
//! What it leaves to others: telling the agent (`session`).

use std::sync::Arc;

use gantry_api::acs::{RoleType, Task};
use gantry_arn::{Arn, ClusterName, ContainerInstanceId, TaskId};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table};

use super::image::RegistryNames;
use super::payload::build;
use crate::model::last_status::LastStatus;
use crate::tables::{
    DesiredPhase, SERVICE, TaskDefinitions, TaskReports, TaskRow, Tasks, TasksDesired,
    cluster_prefix, task_definition_name,
};

/// A task of this container instance that has not stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignedTask {
    pub id: TaskId,
    pub arn: String,
    pub cluster_arn: String,
    /// It shall stop.
    pub stop: bool,
    /// The agent has reported it, so it holds it.
    pub reported: bool,
    /// What the agent gets, or why the node cannot run it.
    pub payload: Result<Arc<Task>, String>,
    pub roles: Vec<(RoleType, String)>,
}

/// Whose tasks these are.
#[derive(Clone, Debug)]
pub struct Assignments {
    pub names: RegistryNames,
    pub cluster: ClusterName,
    pub container_instance: ContainerInstanceId,
}

impl Assignments {
    /// The rows that any of this follows from.
    pub fn watches(&self) -> Vec<Prefix> {
        [Tasks::KIND, TasksDesired::KIND, TaskReports::KIND]
            .into_iter()
            .map(|kind| {
                let prefix = cluster_prefix(&self.cluster);
                Prefix::names(&self.names.account, &self.names.region, SERVICE, kind, &prefix)
            })
            .collect()
    }

    /// Every task of this container instance that has not stopped.
    pub fn all(&self, snapshot: &Snapshot) -> Vec<AssignedTask> {
        snapshot
            .list_prefix::<Tasks>(
                &self.names.account,
                &self.names.region,
                &cluster_prefix(&self.cluster),
            )
            .iter()
            .filter_map(|row| self.assigned(snapshot, row.name(), &row.row))
            .collect()
    }

    /// One task by the name of its rows; none where it is not for this container instance (any more).
    pub fn one(&self, snapshot: &Snapshot, row_name: &str) -> Option<AssignedTask> {
        let row = snapshot.read::<Tasks>(&self.names.account, &self.names.region, row_name)?;
        self.assigned(snapshot, row_name, &row.row)
    }

    /// The name that a change's rows share, and its task.
    pub fn task_of(change: &RowChange) -> Option<(String, TaskId)> {
        let name = Self::key_of(change).name().to_owned();
        let task = name.rsplit('/').next()?.parse().ok()?;
        Some((name, task))
    }

    fn key_of(change: &RowChange) -> &Key {
        change.key()
    }

    fn assigned(&self, snapshot: &Snapshot, name: &str, row: &TaskRow) -> Option<AssignedTask> {
        if row.container_instance != self.container_instance {
            return None;
        }
        let (account, region) = (&self.names.account, &self.names.region);
        let desired = snapshot.read::<TasksDesired>(account, region, name);
        let report = snapshot.read::<TaskReports>(account, region, name);
        if report.as_ref().is_some_and(|report| report.status >= LastStatus::Stopped)
            || desired.as_ref().is_some_and(|desired| desired.given_up_at.is_some())
        {
            return None;
        }
        let definition_name = task_definition_name(&row.family, row.revision);
        let built = snapshot
            .read::<TaskDefinitions>(account, region, &definition_name)
            .ok_or_else(|| {
                format!(
                    "ResourceInitializationError: task definition {}:{} does not exist",
                    row.family, row.revision
                )
            })
            .and_then(|definition| build(&self.names, &definition.definition, row));
        let (payload, roles) = match built {
            Ok(built) => (Ok(Arc::new(built.task)), built.roles),
            Err(reason) => (Err(reason), Vec::new()),
        };
        Some(AssignedTask {
            id: row.id,
            arn: Arn::task(region, account, &row.cluster, &row.id).to_string(),
            cluster_arn: Arn::cluster(region, account, &row.cluster).to_string(),
            stop: desired.is_some_and(|desired| desired.phase == DesiredPhase::Stopped),
            reported: report.is_some(),
            payload,
            roles,
        })
    }
}
