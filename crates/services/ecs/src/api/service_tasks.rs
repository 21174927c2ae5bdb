//! The tasks that the service controller makes: their spec, and where they go. As with RunTask, places are
//! found on the index of the cluster ([`super::placing`]), and the commit expects every row that they were
//! found on.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::ecs::{PropagateTags, Tag, TaskOverride};
use gantry_arn::{ContainerInstanceId, TaskId};
use gantry_env::Timestamp;
use gantry_placement::{Constraint, Rejection, Request, Strategy, place};
use gantry_store::{Transaction, Versioned};

use super::lookup::Rows;
use super::new_tasks::demand;
use super::placing::{Choice, Extent, Placing, Planned, Reservation, Wanted, candidate};
use crate::model::absent::items;
use crate::model::{overrides, tags};
use crate::tables::{
    ContainerInstanceStatus, DeploymentState, ReplicaSpec, ServiceRow, TaskContainer,
    TaskDefinitionRow, TaskRow, service_group,
};

/// Tasks that are equal but for their id, slot and place.
pub(crate) struct Replicas<'a> {
    pub rows: &'a Rows<'a>,
    pub service: &'a ServiceRow,
    pub deployment: &'a DeploymentState,
    pub definition: &'a Versioned<TaskDefinitionRow>,
    pub now: Timestamp,
}

/// What a task has to itself.
pub(crate) struct NewReplica {
    pub slot: u32,
    /// One for each container, in the order of the definition.
    pub container_ids: Vec<String>,
}

impl Replicas<'_> {
    /// Finds a place for each of these tasks, as far as a commit has so many operations left.
    pub fn plan(
        &self,
        placing: &Arc<Placing>,
        ids: &[TaskId],
        choice: Choice<'_>,
        operations: usize,
    ) -> Planned {
        let spec = self.spec();
        let demand = demand(self.definition, &spec.reserved, &spec.launch_type);
        // One operation is the definition's, which must not be deregistered at the same moment.
        let operations = operations.saturating_sub(1);
        let wanted = Wanted {
            tasks: ids,
            demand: &demand,
            reserved: &spec.reserved,
            choice,
            extent: Extent::AsFar { operations },
        };
        placing.plan(self.rows.scope, &self.service.cluster, &wanted)
    }

    /// What speaks against each container instance for one more task, as the rows are; nothing where one has
    /// room. For people who ask: it looks at every instance of the cluster.
    pub fn rejections(
        &self,
        constraints: &[Constraint],
        strategies: &[Strategy],
    ) -> Vec<Rejection> {
        let spec = self.spec();
        let demand = demand(self.definition, &spec.reserved, &spec.launch_type);
        let instances = self.rows.container_instances(&self.service.cluster);
        let candidates = instances
            .into_iter()
            .filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
            .map(|instance| candidate(self.rows, &self.service.cluster, instance))
            .collect();
        let request = Request {
            demand: &demand,
            count: 1,
            constraints,
            strategies,
            seed: 0,
        };
        place(candidates, &request).rejections
    }

    /// Writes the tasks that found a place, and the allocations that they take. Answers the tasks.
    pub fn write(
        &self,
        reservation: &Reservation,
        mut replicas: BTreeMap<TaskId, NewReplica>,
        transaction: &mut Transaction,
    ) -> Vec<Arc<TaskRow>> {
        let spec = self.spec();
        let mut made = Vec::with_capacity(reservation.tasks.len());
        transaction.expect_read(self.definition);
        reservation.write(&spec.reserved, transaction, |id, instance| {
            let replica = replicas.remove(&id);
            let (slot, ids) =
                replica.map_or_else(Default::default, |it| (it.slot, it.container_ids));
            let containers = spec.containers.iter().zip(ids);
            let containers = containers.map(|(container, id)| TaskContainer {
                name: container.name.clone(),
                id,
            });
            let mut task = instance.task(&spec, id, containers.collect());
            if let Some(own) = &mut task.replica {
                own.slot = slot;
            }
            let task = Arc::new(task);
            made.push(task.clone());
            task
        });
        made
    }

    fn spec(&self) -> TaskRow {
        let (service, definition) = (self.service, &self.definition.definition);
        let overrides: TaskOverride = overrides::normalized(None, definition);
        let group = service_group(&service.name);
        let reserved = overrides::reserved(definition, &overrides, &group);
        let names = items(&definition.container_definitions).iter();
        TaskRow {
            id: TaskId::from_random([0; 16]),
            cluster: service.cluster.clone(),
            family: self.deployment.revision.family.clone(),
            revision: self.deployment.revision.task_definition,
            container_instance: ContainerInstanceId::from_random([0; 16]),
            availability_zone: None,
            launch_type: service.launch_type.clone(),
            group,
            started_by: Some(self.deployment.id.clone()),
            created_at: self.now,
            overrides,
            containers: names
                .map(|container| TaskContainer {
                    name: container.name.clone().unwrap_or_default(),
                    id: String::new(),
                })
                .collect(),
            cpu: reserved.cpu.to_string(),
            memory: reserved.memory.to_string(),
            reserved,
            attributes: Vec::new(),
            tags: task_tags(service, &self.definition.tags),
            enable_execute_command: false,
            client_token: None,
            reference_id: None,
            default_log_driver_mode: service.default_log_driver_mode,
            replica: Some(ReplicaSpec {
                slot: 0,
                digests: self.deployment.digests.clone(),
            }),
        }
    }
}

/// What is propagated, and AWS's own where asked for.
fn task_tags(service: &ServiceRow, definition_tags: &[Tag]) -> Vec<Tag> {
    let mut all = match service.propagate_tags {
        PropagateTags::Service => service.tags.clone(),
        PropagateTags::TaskDefinition => definition_tags.to_vec(),
        _ => Vec::new(),
    };
    all.truncate(tags::TAGS_MAX);
    if service.enable_ecs_managed_tags {
        let managed = |key: &str, value: String| Tag {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        all.push(managed("aws:ecs:clusterName", service.cluster.to_string()));
        all.push(managed("aws:ecs:serviceName", service.name.to_string()));
    }
    all
}
