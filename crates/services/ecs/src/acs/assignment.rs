//! What one container instance should run, as the rows say.
//!
//! What always holds: a pure function of a snapshot. A task leaves the view when its STOPPED report
//! is durable or when it was given up; whatever an agent names that is not in the view shall stop.
//! What it leaves to others: telling the agent (`session`).

use std::sync::Arc;

use gantry_api::acs::{RoleType, Task};
use gantry_arn::{Arn, ClusterName, ContainerInstanceId, TaskId};
use gantry_store::{Prefix, RowChange, Snapshot, Table};

use super::image::RegistryNames;
use super::payload::{BuiltTask, build};
use crate::model::last_status::LastStatus;
use crate::tables::{
    DesiredPhase, SERVICE, TaskDefinitionRow, TaskDesiredRow, TaskReportRow, TaskRow,
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
        [TaskRow::KIND, TaskDesiredRow::KIND, TaskReportRow::KIND]
            .into_iter()
            .map(|kind| {
                let prefix = cluster_prefix(&self.cluster);
                Prefix::names(
                    &self.names.account,
                    &self.names.region,
                    SERVICE,
                    kind,
                    &prefix,
                )
            })
            .collect()
    }

    /// Every task of this container instance that has not stopped.
    pub fn all(&self, snapshot: &Snapshot) -> Vec<AssignedTask> {
        snapshot
            .list_prefix::<TaskRow>(
                &self.names.account,
                &self.names.region,
                &cluster_prefix(&self.cluster),
            )
            .iter()
            .filter_map(|row| self.assigned(snapshot, row.name(), &row.row, Detail::Whole))
            .collect()
    }

    /// One task by the name of its rows; none where it is not for this container instance (any more).
    pub fn one(&self, snapshot: &Snapshot, row_name: &str) -> Option<AssignedTask> {
        let row = snapshot.read::<TaskRow>(&self.names.account, &self.names.region, row_name)?;
        self.assigned(snapshot, row_name, &row.row, Detail::WhatIsNews)
    }

    /// The name that a change's rows share, and its task.
    pub fn task_of(change: &RowChange) -> Option<(String, TaskId)> {
        let name = change.key.name().to_owned();
        let task = name.rsplit('/').next()?.parse().ok()?;
        Some((name, task))
    }

    fn assigned(
        &self,
        snapshot: &Snapshot,
        name: &str,
        row: &TaskRow,
        detail: Detail,
    ) -> Option<AssignedTask> {
        if row.container_instance != self.container_instance {
            return None;
        }
        let (account, region) = (&self.names.account, &self.names.region);
        let desired = snapshot.read::<TaskDesiredRow>(account, region, name);
        let report = snapshot.read::<TaskReportRow>(account, region, name);
        if report
            .as_ref()
            .is_some_and(|report| report.status >= LastStatus::Stopped)
            || desired
                .as_ref()
                .is_some_and(|desired| desired.given_up_at.is_some())
        {
            return None;
        }
        let arn = Arn::task(region, account, &row.cluster, &row.id).to_string();
        let (payload, roles) = if report.is_some() && detail == Detail::WhatIsNews {
            let task = Task {
                arn: Some(arn.clone()),
                ..Task::default()
            };
            (Ok(Arc::new(task)), Vec::new())
        } else {
            match self.build(snapshot, row) {
                Ok(built) => (Ok(Arc::new(built.task)), built.roles),
                Err(reason) => (Err(reason), Vec::new()),
            }
        };
        Some(AssignedTask {
            id: row.id,
            arn,
            cluster_arn: Arn::cluster(region, account, &row.cluster).to_string(),
            stop: desired.is_some_and(|desired| desired.phase == DesiredPhase::Stopped),
            reported: report.is_some(),
            payload,
            roles,
        })
    }
    fn build(&self, snapshot: &Snapshot, row: &TaskRow) -> Result<BuiltTask, String> {
        let name = task_definition_name(&row.family, row.revision);
        let definition = snapshot
            .read::<TaskDefinitionRow>(&self.names.account, &self.names.region, &name)
            .ok_or_else(|| {
                format!(
                    "ResourceInitializationError: task definition {}:{} does not exist",
                    row.family, row.revision
                )
            })?;
        build(&self.names, &definition.definition, row)
    }
}

/// How much of a task is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Whole,
    /// The agent holds a reported task: to stop it, its name is enough.
    WhatIsNews,
}
