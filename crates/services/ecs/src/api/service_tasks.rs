//! The tasks that the service controller makes: their spec, and where they go. Pure: a plan on a
//! snapshot, whose commit expects every row that it was made from.
//!
//! Unlike RunTask's ([`super::placing`]), this plan is made from the rows alone, because a reconciler
//! sees nothing else. That looks at every instance of the cluster, so it is done only when a service
//! lacks tasks.

use std::collections::BTreeMap;

use gantry_api::ecs::{Attribute, PropagateTags, Tag, TaskOverride};
use gantry_arn::{ContainerInstanceId, TaskId};
use gantry_env::Timestamp;
use gantry_placement::{Constraint, Plan, Request, Strategy, place};
use gantry_store::{Transaction, Versioned};

use super::container_instances::ZONE_ATTRIBUTE;
use super::lookup::Rows;
use super::new_tasks::{ARCHITECTURE_ATTRIBUTE, demand};
use super::placing::candidate;
use crate::model::absent::items;
use crate::model::{overrides, tags};
use crate::tables::{
    AllocationRow, ContainerInstanceRow, ContainerInstanceStatus, DeploymentState, ReplicaSpec,
    ServiceRow, TaskContainer, TaskDefinitionRow, TaskRow, container_instance_name, service_group,
    task_name,
};

/// Tasks that are equal but for their id, slot and place.
pub(crate) struct Replicas<'a> {
    pub rows: &'a Rows<'a>,
    pub service: &'a ServiceRow,
    pub deployment: &'a DeploymentState,
    pub definition: &'a Versioned<TaskDefinitionRow>,
    pub now: Timestamp,
}

/// A task that shall be made.
pub(crate) struct NewReplica {
    pub id: TaskId,
    pub slot: u32,
    /// One for each container, in the order of the definition.
    pub container_ids: Vec<String>,
}

impl Replicas<'_> {
    pub fn plan(
        &self,
        count: usize,
        constraints: &[Constraint],
        strategies: &[Strategy],
        seed: u64,
    ) -> Plan {
        let spec = self.spec();
        let demand = demand(self.definition, &spec.reserved, &spec.launch_type);
        let instances = self.rows.container_instances(&self.service.cluster);
        let candidates = instances
            .into_iter()
            .filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
            .map(|instance| candidate(self.rows, &self.service.cluster, instance))
            .collect();
        place(
            candidates,
            &Request {
                demand: &demand,
                count: u32::try_from(count).unwrap_or(u32::MAX),
                constraints,
                strategies,
                seed,
            },
        )
    }

    /// Writes each task on the instance next to it, and the allocations that they take.
    pub fn write(
        &self,
        placed: Vec<(NewReplica, ContainerInstanceId)>,
        transaction: &mut Transaction,
    ) {
        let spec = self.spec();
        let cluster = &self.service.cluster;
        let (account, region) = (&self.rows.scope.account, &self.rows.scope.region);
        transaction.expect_read(self.definition);
        let mut by_instance: BTreeMap<ContainerInstanceId, Vec<NewReplica>> = BTreeMap::new();
        for (replica, instance) in placed {
            by_instance.entry(instance).or_default().push(replica);
        }
        for (id, replicas) in by_instance {
            let Some(instance) = self.rows.container_instance(cluster, &id) else {
                continue;
            };
            let before = self.rows.allocation(cluster, &id);
            let mut allocation = before
                .row
                .as_ref()
                .map(|row| (*row.row).clone())
                .unwrap_or_default();
            allocation
                .tasks
                .retain(|task, _| !before.over.contains(task));
            for replica in replicas {
                allocation.tasks.insert(replica.id, spec.reserved.clone());
                let name = task_name(cluster, &replica.id);
                let task = task_of(&spec, replica, &instance);
                transaction.create::<TaskRow>(account, region, &name, &task);
            }
            // A deregistration or a drain at the same moment comes first, and is seen.
            transaction.expect_read(&instance);
            match &before.row {
                Some(read) => transaction.update::<AllocationRow>(read, &allocation),
                None => transaction.create::<AllocationRow>(
                    account,
                    region,
                    &container_instance_name(cluster, &id),
                    &allocation,
                ),
            };
        }
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

fn task_of(
    spec: &TaskRow,
    replica: NewReplica,
    instance: &Versioned<ContainerInstanceRow>,
) -> TaskRow {
    let attribute = |name: &str| {
        let own = instance.attributes.iter().find(|it| it.name == name)?;
        Some(Attribute {
            name: own.name.clone(),
            value: own.value.clone(),
            ..Attribute::default()
        })
    };
    let mut task = TaskRow {
        id: replica.id,
        container_instance: instance.id,
        availability_zone: attribute(ZONE_ATTRIBUTE).and_then(|zone| zone.value),
        attributes: attribute(ARCHITECTURE_ATTRIBUTE).into_iter().collect(),
        ..spec.clone()
    };
    for (container, id) in task.containers.iter_mut().zip(replica.container_ids) {
        container.id = id;
    }
    if let Some(spec) = &mut task.replica {
        spec.slot = replica.slot;
    }
    task
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
