//! Reading rows of ECS from a snapshot, with the errors that a caller gets for what is not there.

use std::iter::Peekable;
use std::sync::Arc;

use gantry_api::ecs::EcsError;
use gantry_arn::{ClusterName, ContainerInstanceId, Family, ServiceName, TaskId};
use gantry_env::Timestamp;
use gantry_store::{Snapshot, Table, Versioned};

use crate::model::reference::Scope;
use crate::model::resources::Taken;
use crate::model::task_view::TaskState;
use crate::tables::{
    AcsSessionRow, AllocationRow, ClusterRow, ClusterStatus, ContainerInstanceRow,
    ContainerInstanceStatus, ServiceRow, ServiceStateRow, TaskDefinitionRow, TaskDesiredRow,
    TaskHealthRow, TaskProtectionRow, TaskReportRow, TaskRow, cluster_prefix,
    container_instance_name, service_group, service_row_name, task_definition_name, task_id_prefix,
    task_name,
};

/// A snapshot, seen from one account and region.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub snapshot: &'a Snapshot,
    pub scope: &'a Scope,
}

impl<'a> Rows<'a> {
    pub fn new(snapshot: &'a Snapshot, scope: &'a Scope) -> Self {
        Self { snapshot, scope }
    }

    pub fn read<T: Table>(&self, name: &str) -> Option<Versioned<T::Row>> {
        self.snapshot
            .read::<T>(&self.scope.account, &self.scope.region, name)
    }

    pub fn list<T: Table>(&self, name_prefix: &str) -> Vec<Versioned<T::Row>> {
        self.snapshot
            .list_prefix::<T>(&self.scope.account, &self.scope.region, name_prefix)
    }

    pub fn cluster(&self, cluster: &ClusterName) -> Option<Versioned<ClusterRow>> {
        self.read::<ClusterRow>(cluster.as_str())
    }

    /// A cluster that things can be done in.
    pub fn active_cluster(&self, cluster: &ClusterName) -> Result<Versioned<ClusterRow>, EcsError> {
        match self.cluster(cluster) {
            None => Err(EcsError::cluster_not_found_exception("Cluster not found.")),
            Some(row) if row.status == ClusterStatus::Inactive => Err(
                EcsError::cluster_not_found_exception("The referenced cluster was inactive."),
            ),
            Some(row) => Ok(row),
        }
    }

    pub fn task_definition(
        &self,
        family: &Family,
        revision: u32,
    ) -> Option<Versioned<TaskDefinitionRow>> {
        self.read::<TaskDefinitionRow>(&task_definition_name(family, revision))
    }

    pub fn container_instance(
        &self,
        cluster: &ClusterName,
        instance: &ContainerInstanceId,
    ) -> Option<Versioned<ContainerInstanceRow>> {
        self.read::<ContainerInstanceRow>(&container_instance_name(cluster, instance))
    }

    pub fn container_instances(
        &self,
        cluster: &ClusterName,
    ) -> Vec<Versioned<ContainerInstanceRow>> {
        self.list::<ContainerInstanceRow>(&cluster_prefix(cluster))
    }

    /// The status of each of these instances, which are in ascending order; none of one that is gone.
    pub fn container_instance_statuses(
        &self,
        cluster: &ClusterName,
        instances: &[ContainerInstanceId],
    ) -> Vec<Option<ContainerInstanceStatus>> {
        let (account, region) = (&self.scope.account, &self.scope.region);
        let names = instances
            .iter()
            .map(|id| container_instance_name(cluster, id));
        let rows = self
            .snapshot
            .read_in_order::<ContainerInstanceRow>(account, region, names);
        rows.into_iter()
            .map(|row| row.map(|row| row.status))
            .collect()
    }

    pub fn service(
        &self,
        cluster: &ClusterName,
        service: &ServiceName,
    ) -> Option<Versioned<ServiceRow>> {
        self.read::<ServiceRow>(&service_row_name(cluster, service))
    }

    /// What the controller made of a service; nothing of an earlier one of the same name.
    pub fn service_state(&self, service: &ServiceRow) -> Option<Versioned<ServiceStateRow>> {
        let name = service_row_name(&service.cluster, &service.name);
        self.read::<ServiceStateRow>(&name)
            .filter(|state| state.incarnation == service.incarnation)
    }

    /// The tasks of a service that are still known, also those that have stopped, in the order of
    /// their ids.
    pub fn service_tasks(&self, service: &ServiceRow) -> Vec<TaskState> {
        let prefix = format!(
            "{}/{}",
            service.cluster,
            task_id_prefix(&service.incarnation)
        );
        let group = service_group(&service.name);
        let mut desired = Beside::of(self.each::<TaskDesiredRow>(&prefix));
        let mut reports = Beside::of(self.each::<TaskReportRow>(&prefix));
        let mut health = Beside::of(self.each::<TaskHealthRow>(&prefix));
        self.each::<TaskRow>(&prefix)
            .filter(|(_, spec)| spec.group == group)
            .map(|(name, spec)| TaskState {
                spec,
                desired: desired.named(name),
                report: reports.named(name),
                health: health.named(name),
            })
            .collect()
    }

    fn each<T: Table>(
        &self,
        name_prefix: &str,
    ) -> impl Iterator<Item = (&'a str, Arc<T::Row>)> + use<'a, T> {
        self.snapshot
            .each::<T>(&self.scope.account, &self.scope.region, name_prefix)
    }

    /// Until when which tasks of a service are protected.
    pub fn protected(&self, service: &ServiceRow) -> Vec<(TaskId, Timestamp)> {
        let prefix = task_id_prefix(&service.incarnation);
        let rows = self.list::<TaskProtectionRow>(&format!("{}/{prefix}", service.cluster));
        let named = |row: &Versioned<TaskProtectionRow>| {
            let id = row.name().rsplit('/').next()?.parse().ok()?;
            Some((id, row.until))
        };
        rows.iter().filter_map(named).collect()
    }

    pub fn session(
        &self,
        cluster: &ClusterName,
        instance: &ContainerInstanceId,
    ) -> Option<Arc<AcsSessionRow>> {
        let name = container_instance_name(cluster, instance);
        self.read::<AcsSessionRow>(&name).map(|session| session.row)
    }

    pub fn task(&self, cluster: &ClusterName, task: &TaskId) -> Option<TaskState> {
        let name = task_name(cluster, task);
        let spec = self.read::<TaskRow>(&name)?;
        Some(self.task_of(spec.row, &name))
    }

    /// The task of a spec row that was read.
    pub fn task_of(&self, spec: Arc<TaskRow>, name: &str) -> TaskState {
        TaskState {
            spec,
            desired: self.read::<TaskDesiredRow>(name).map(|desired| desired.row),
            report: self.read::<TaskReportRow>(name).map(|report| report.row),
            health: self.read::<TaskHealthRow>(name).map(|health| health.row),
        }
    }

    /// All tasks of a cluster, in the order of their ids.
    pub fn tasks(&self, cluster: &ClusterName) -> impl Iterator<Item = TaskState> + use<'a> {
        let rows = *self;
        self.list::<TaskRow>(&cluster_prefix(cluster))
            .into_iter()
            .map(move |spec| {
                let name = spec.name().to_owned();
                rows.task_of(spec.row, &name)
            })
    }

    /// The allocation of an instance, and of its tasks those that still count.
    pub fn allocation(
        &self,
        cluster: &ClusterName,
        instance: &ContainerInstanceId,
    ) -> InstanceAllocation {
        let row = self.read::<AllocationRow>(&container_instance_name(cluster, instance));
        let mut allocation = InstanceAllocation {
            row,
            ..InstanceAllocation::default()
        };
        let entries = allocation.row.as_ref().map(|row| row.row.clone());
        for (task, reserved) in entries.iter().flat_map(|row| &row.tasks) {
            match self
                .task(cluster, task)
                .filter(|task| !task.last_status().is_stopped())
            {
                None => allocation.over.push(*task),
                Some(state) => {
                    allocation.taken.add(reserved);
                    allocation.tasks.push(state);
                }
            }
        }
        allocation
    }
}

/// Rows of one table, walked through beside those of another that are named alike.
struct Beside<'a, R, I: Iterator<Item = (&'a str, Arc<R>)>>(Peekable<I>);

impl<'a, R, I: Iterator<Item = (&'a str, Arc<R>)>> Beside<'a, R, I> {
    fn of(rows: I) -> Self {
        Self(rows.peekable())
    }

    /// The row of this name. Names are asked for in ascending order.
    fn named(&mut self, name: &str) -> Option<Arc<R>> {
        while self.0.next_if(|(at, _)| *at < name).is_some() {}
        self.0.next_if(|(at, _)| *at == name).map(|(_, row)| row)
    }
}

/// What one allocation row means now.
#[derive(Default)]
pub(crate) struct InstanceAllocation {
    pub row: Option<Versioned<AllocationRow>>,
    pub taken: Taken,
    /// The tasks that still hold their share.
    pub tasks: Vec<TaskState>,
    /// The tasks whose share is free again, and whose entry may be swept.
    pub over: Vec<TaskId>,
}
