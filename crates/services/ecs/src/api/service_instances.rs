//! Which container instances a service's tasks belong on, as the rows are: its constraints and its task
//! definition's, the attributes that the definition requires, the launch type.
//!
//! What always holds: a pure function of a snapshot. Tasks of the service itself do not count when a
//! constraint looks at what runs on an instance, so a daemon never drives itself away.
//!
//! Whether there is room for a task is another question ([`ServiceInstances::against`]), and asked only
//! of instances that lack one.

use std::collections::BTreeMap;

use gantry_api::ecs::{Attribute, LaunchType, SchedulingStrategy};
use gantry_arn::ContainerInstanceId;
use gantry_placement::query::{Expression, Subject};
use gantry_placement::{Constraint, Demand, InstanceIndex, Unfit};
use gantry_store::Versioned;

use super::lookup::Rows;
use super::new_tasks::demand;
use super::placing::{candidate_without, template};
use crate::model::attributes::EXTERNAL;
use crate::model::overrides;
use crate::model::run_request::definition_constraints;
use crate::model::service::daemon::{self, Instances, Standing};
use crate::model::service::request;
use crate::model::service::scheduling::{ZONE_ATTRIBUTE, mentions};
use crate::model::service::view::deployments;
use crate::tables::{
    ContainerInstanceRow, ContainerInstanceStatus, ServiceRow, TaskDefinitionRow, service_group,
};

/// What a service asks of container instances.
pub(crate) struct ServiceInstances<'a> {
    rows: &'a Rows<'a>,
    service: &'a ServiceRow,
    demand: Demand,
    /// Without `distinctInstance`, which says nothing of an instance but of what is on it.
    members_of: Vec<Expression>,
    /// Whether they look at anything but the instance's own row.
    looks_further: bool,
}

impl<'a> ServiceInstances<'a> {
    /// None where the constraints cannot be read. They were checked when they were stored.
    pub fn of(
        rows: &'a Rows<'a>,
        service: &'a ServiceRow,
        definition: &TaskDefinitionRow,
    ) -> Option<Self> {
        let mut all = definition_constraints(&definition.definition).ok()?;
        all.extend(request::constraints(&service.placement_constraints).ok()?);
        let members_of: Vec<Expression> = all
            .into_iter()
            .filter_map(|constraint| match constraint {
                Constraint::MemberOf(expression) => Some(expression),
                Constraint::DistinctInstance => None,
            })
            .collect();
        let changes = |subject: &Subject| {
            matches!(
                subject,
                Subject::AgentConnected | Subject::RunningTasksCount | Subject::TaskGroup
            )
        };
        let group = service_group(&service.name);
        let overrides = overrides::normalized(None, &definition.definition);
        let reserved = overrides::reserved(&definition.definition, &overrides, &group);
        Some(Self {
            rows,
            service,
            demand: demand(definition, &reserved, &service.launch_type),
            looks_further: members_of.iter().any(|it| mentions(it, &changes)),
            members_of,
        })
    }

    /// Every instance that a daemon has to do with.
    pub fn standing(&self) -> Instances {
        let mut instances = Instances::new();
        for row in self.rows.container_instances(&self.service.cluster) {
            let standing = match row.status {
                ContainerInstanceStatus::Inactive => continue,
                ContainerInstanceStatus::Active if !self.meets(&row) => continue,
                ContainerInstanceStatus::Active => Standing::Meant,
                ContainerInstanceStatus::Draining => Standing::Draining {
                    only_daemons_left: self.only_daemons_left(&row.id),
                },
            };
            instances.insert(row.id, standing);
        }
        instances
    }

    /// The availability zones in which there are instances that would take a task, had they room, and whether one of
    /// their agents is connected.
    pub fn zones(&self) -> BTreeMap<String, bool> {
        let mut zones = BTreeMap::new();
        for row in self.rows.container_instances(&self.service.cluster) {
            if row.status != ContainerInstanceStatus::Active || !self.meets(&row) {
                continue;
            }
            let Some(zone) = zone(&row) else { continue };
            let session = self.rows.session(&self.service.cluster, &row.id);
            *zones.entry(zone.to_owned()).or_default() |=
                session.is_some_and(|session| session.connected);
        }
        zones
    }

    /// What speaks against starting a task there, as soon as those of the service have gone. Empty:
    /// nothing.
    pub fn against(&self, id: &ContainerInstanceId) -> Vec<Unfit> {
        let cluster = &self.service.cluster;
        let Some(row) = self.rows.container_instance(cluster, id) else {
            return vec![Unfit::Inactive];
        };
        let mut index = InstanceIndex::new(0);
        index.put(candidate_without(
            self.rows,
            cluster,
            row,
            &self.demand.group,
        ));
        let reasons = index.against(id, &self.demand, &[]);
        reasons.unwrap_or_else(|| vec![Unfit::Inactive])
    }

    fn meets(&self, row: &Versioned<ContainerInstanceRow>) -> bool {
        let attribute = |name: &str| row.attributes.iter().find(|own| own.name == name);
        let is_external = attribute(EXTERNAL).is_some();
        let serves = is_external == (self.service.launch_type == LaunchType::External);
        let has_all = self.demand.requires_attributes.iter().all(|required| {
            let own = attribute(&required.name);
            own.is_some_and(|own| required.value.is_none() || required.value == own.value)
        });
        if !serves || !has_all || self.members_of.is_empty() {
            return serves && has_all;
        }
        let cluster = &self.service.cluster;
        let candidate = match self.looks_further {
            true => candidate_without(self.rows, cluster, row.clone(), &self.demand.group),
            false => template(row),
        };
        self.members_of.iter().all(|it| it.holds(&candidate))
    }

    /// A daemon is there for the others on its instance, so it stays until they have gone.
    fn only_daemons_left(&self, id: &ContainerInstanceId) -> bool {
        let cluster = &self.service.cluster;
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        let allocation = self.rows.allocation(cluster, id);
        allocation.tasks.iter().all(|task| {
            let group = &task.spec.group;
            *known.entry(group.clone()).or_insert_with(|| {
                let service = group
                    .strip_prefix("service:")
                    .and_then(|it| it.parse().ok());
                let service = service.and_then(|name| self.rows.service(cluster, &name));
                service.is_some_and(|it| it.scheduling_strategy == SchedulingStrategy::Daemon)
            })
        })
    }
}

/// How many tasks a service shall have: what was asked for, and of a daemon one on each instance.
pub(crate) fn desired_count(rows: &Rows<'_>, service: &ServiceRow) -> u32 {
    if service.scheduling_strategy != SchedulingStrategy::Daemon {
        return service.desired_count;
    }
    let state = rows.service_state(service).map(|state| state.row);
    let deployments = deployments(service, state.as_deref());
    let revision = deployments
        .first()
        .map_or(&service.target.revision, |it| &it.revision);
    let definition = rows.task_definition(&revision.family, revision.task_definition);
    let instances = definition.as_ref().and_then(|definition| {
        let instances = ServiceInstances::of(rows, service, definition)?;
        Some(instances.standing())
    });
    instances.as_ref().map_or(0, daemon::desired)
}

pub(crate) fn zone(row: &ContainerInstanceRow) -> Option<&str> {
    let is_zone = |own: &&Attribute| own.name == ZONE_ATTRIBUTE;
    row.attributes.iter().find(is_zone)?.value.as_deref()
}
