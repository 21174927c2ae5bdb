//! A plan on its way into the rows: the shares that it takes, and the commit that makes it true.
//!
//! What always holds: an instance's share is written on top of the very allocation, and expects the
//! very instance, that the plan was made from. So whatever was placed, drained or deregistered there
//! meanwhile makes the commit conflict, and nothing is ever oversubscribed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::lock::OwnedMutexGuard;
use gantry_api::ecs::Attribute;
use gantry_arn::{ContainerInstanceId, TaskId};
use gantry_placement::Plan;
use gantry_store::{Transaction, Versioned};

use super::{Place, Placing};
use crate::api::container_instances::ZONE_ATTRIBUTE;
use crate::tables::{
    AllocationRow, ContainerInstanceRow, Reserved, TaskContainer, TaskRow, container_instance_name,
    task_name,
};

const ARCHITECTURE_ATTRIBUTE: &str = "ecs.cpu-architecture";

/// How many of a transaction's operations each task, and each instance that tasks go to, takes.
pub(super) const TASK_OPERATIONS: usize = 2;
pub(super) const INSTANCE_OPERATIONS: usize = 3;

/// A plan whose shares are taken in the index until it is dropped: by then it is committed, or it is not.
pub(crate) struct Reservation {
    pub plan: Plan,
    /// The tasks that found a place.
    pub tasks: Vec<(TaskId, ContainerInstanceId)>,
    /// The instances of those tasks, as they are before this plan.
    pub(super) instances: BTreeMap<ContainerInstanceId, Touched>,
    pub(super) place: Place,
    pub(super) placing: Arc<Placing>,
    /// Let go last, when the shares are no longer taken here.
    pub(super) _committing: Option<OwnedMutexGuard<()>>,
}

impl Reservation {
    /// Creates the tasks, as `task` makes them, and takes their shares of their instances.
    pub fn write(
        &self,
        reserved: &Reserved,
        transaction: &mut Transaction,
        mut task: impl FnMut(TaskId, &Touched) -> Arc<TaskRow>,
    ) {
        let (scope, cluster) = &self.place;
        let (account, region) = (&scope.account, &scope.region);
        for (id, placed_on) in &self.tasks {
            let Some(instance) = self.instances.get(placed_on) else {
                continue;
            };
            let row = task(*id, instance);
            transaction.create::<TaskRow>(account, region, &task_name(cluster, id), &row);
        }
        for (id, instance) in &self.instances {
            let mut allocation: AllocationRow = instance.swept();
            let mine = self.tasks.iter().filter(|(_, on)| on == id);
            allocation
                .tasks
                .extend(mine.map(|(task, _)| (*task, reserved.clone())));
            // A deregistration or a drain at the same moment comes first, and is seen.
            transaction.expect_read(&instance.row);
            let name = container_instance_name(cluster, id);
            match &instance.allocation {
                Some(read) => transaction.update::<AllocationRow>(read, &allocation),
                None => transaction.create::<AllocationRow>(account, region, &name, &allocation),
            };
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.placing.end(&self.place, &self.tasks);
    }
}

/// An instance as it was when tasks were planned on it.
pub(crate) struct Touched {
    pub(super) row: Versioned<ContainerInstanceRow>,
    pub(super) allocation: Option<Versioned<AllocationRow>>,
    pub(super) over: BTreeSet<TaskId>,
}

impl Touched {
    /// A task like `spec` here.
    pub fn task(&self, spec: &TaskRow, id: TaskId, containers: Vec<TaskContainer>) -> TaskRow {
        TaskRow {
            id,
            container_instance: self.row.id,
            availability_zone: self.attribute(ZONE_ATTRIBUTE).and_then(|it| it.value),
            attributes: self.attribute(ARCHITECTURE_ATTRIBUTE).into_iter().collect(),
            containers,
            ..spec.clone()
        }
    }

    /// An attribute of the instance, as tasks carry it.
    fn attribute(&self, name: &str) -> Option<Attribute> {
        let own = self.row.attributes.iter().find(|it| it.name == name)?;
        Some(Attribute {
            name: own.name.clone(),
            value: own.value.clone(),
            ..Attribute::default()
        })
    }

    /// The allocation without the entries that no longer count.
    fn swept(&self) -> AllocationRow {
        let row = self.allocation.as_ref().map(|row| (*row.row).clone());
        let mut swept = row.unwrap_or_default();
        swept.tasks.retain(|task, _| !self.over.contains(task));
        swept
    }
}
