//! The rows that concern services, as the commits tell them.
//!
//! What always holds: this is the state after exactly those commits that it was given, whatever has been
//! committed since. It is made of the changes and asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_api::ecs::VersionConsistency;
use gantry_arn::ContainerInstanceId;
use gantry_ecs::model::service::stages::Course;
use gantry_ecs::model::task_view::TaskState;
use gantry_ecs::tables::{
    ContainerInstanceRow, ContainerInstanceStatus, ServiceDeploymentStateRow, ServiceEventsRow,
    ServiceRow, ServiceStateRow, TaskDefinitionRow, TaskDesiredRow, TaskHealthRow,
    TaskProtectionRow, TaskReportRow, TaskRow, task_id_prefix,
};
use gantry_env::Timestamp;
use gantry_store::{RowChange, Table};

/// One service, by the name of its row.
#[derive(Clone, Debug)]
pub struct Watched {
    pub spec: Arc<ServiceRow>,
    /// What the controller has made of this incarnation.
    pub state: Option<Arc<ServiceStateRow>>,
    pub events: Option<Arc<ServiceEventsRow>>,
}

#[derive(Debug, Default)]
pub struct Mirror {
    pub services: BTreeMap<String, Watched>,
    /// All tasks of services, by the name of their rows.
    pub tasks: BTreeMap<String, TaskState>,
    pub protected: BTreeMap<String, Timestamp>,
    pub instances: BTreeMap<ContainerInstanceId, ContainerInstanceStatus>,
    /// Service deployments whose circuit breaker has opened.
    pub triggered: BTreeMap<String, bool>,
    /// Where blue/green deployments are, by the names of their service deployments' rows.
    pub courses: BTreeMap<String, Course>,
    /// Whether tasks of a definition have a health check that counts, by family and revision.
    checked: BTreeMap<(String, u32), bool>,
    /// Definitions of which a container has no version consistency.
    loose: BTreeSet<(String, u32)>,
}

pub fn now<T: Table>(change: &RowChange) -> Option<Arc<T::Row>> {
    let row = change.row.as_ref()?;
    Some(row.decode::<T>().expect("a row of this program"))
}

impl Mirror {
    /// Whether a task of this definition has an essential container with a check.
    pub fn is_checked(&self, task: &TaskRow) -> bool {
        self.checked[&(task.family.to_string(), task.revision)]
    }

    /// Whether its containers run what its deployment has pinned.
    pub fn is_pinned(&self, task: &TaskRow) -> bool {
        !self
            .loose
            .contains(&(task.family.to_string(), task.revision))
    }

    /// The service that a task belongs to, if it is there.
    pub fn service_of(&self, task: &TaskRow) -> Option<String> {
        let id = task.id.to_string();
        let found = self.services.iter().find(|(_, watched)| {
            id.starts_with(task_id_prefix(&watched.spec.incarnation))
                && watched.spec.cluster == task.cluster
        });
        found.map(|(name, _)| name.clone())
    }

    pub fn tasks_of(&self, service: &ServiceRow) -> impl Iterator<Item = (&String, &TaskState)> {
        let prefix = format!(
            "{}/{}",
            service.cluster,
            task_id_prefix(&service.incarnation)
        );
        self.tasks
            .range(prefix.clone()..)
            .take_while(move |(name, _)| name.starts_with(&prefix))
    }

    /// Takes in what tells how services shall be: all but their tasks.
    pub fn take_wishes(&mut self, change: &RowChange) {
        let name = change.key.name();
        match change.key.kind() {
            ServiceRow::KIND => match now::<ServiceRow>(change) {
                Some(spec) => {
                    let before = self.services.remove(name);
                    let same = before.filter(|it| it.spec.incarnation == spec.incarnation);
                    let (state, events) = same.map_or((None, None), |it| (it.state, it.events));
                    let watched = Watched {
                        spec,
                        state,
                        events,
                    };
                    self.services.insert(name.to_owned(), watched);
                }
                None => {
                    self.services.remove(name);
                }
            },
            ServiceStateRow::KIND => {
                if let Some(watched) = self.services.get_mut(name) {
                    watched.state = now::<ServiceStateRow>(change)
                        .filter(|state| state.incarnation == watched.spec.incarnation);
                }
            }
            ServiceEventsRow::KIND => {
                if let Some(watched) = self.services.get_mut(name) {
                    watched.events = now::<ServiceEventsRow>(change)
                        .filter(|events| events.incarnation == watched.spec.incarnation);
                }
            }
            ServiceDeploymentStateRow::KIND => {
                let state = now::<ServiceDeploymentStateRow>(change);
                let opened = state.as_ref().is_some_and(|state| state.triggered);
                self.triggered.insert(name.to_owned(), opened);
                match state.and_then(|state| state.course.clone()) {
                    Some(course) => self.courses.insert(name.to_owned(), course),
                    None => self.courses.remove(name),
                };
            }
            TaskProtectionRow::KIND => match now::<TaskProtectionRow>(change) {
                Some(row) => {
                    self.protected.insert(name.to_owned(), row.until);
                }
                None => {
                    self.protected.remove(name);
                }
            },
            ContainerInstanceRow::KIND => {
                if let Some(row) = now::<ContainerInstanceRow>(change) {
                    self.instances.insert(row.id, row.status);
                }
            }
            TaskDefinitionRow::KIND => {
                if let Some(row) = now::<TaskDefinitionRow>(change) {
                    let family = row.definition.family.clone().unwrap_or_default();
                    let revision = row.definition.revision.unwrap_or_default() as u32;
                    let mut containers = row.definition.container_definitions.iter().flatten();
                    let checked =
                        containers.any(|c| c.essential != Some(false) && c.health_check.is_some());
                    let mut containers = row.definition.container_definitions.iter().flatten();
                    let disabled = Some(VersionConsistency::Disabled);
                    if containers.any(|it| it.version_consistency == disabled) {
                        self.loose.insert((family.clone(), revision));
                    }
                    self.checked.insert((family, revision), checked);
                }
            }
            _ => {}
        }
    }

    /// Takes in what became of tasks of services.
    pub fn take_tasks(&mut self, change: &RowChange) {
        let name = change.key.name();
        if change.key.kind() == TaskRow::KIND {
            match now::<TaskRow>(change).filter(|task| task.replica.is_some()) {
                Some(spec) => match self.tasks.get_mut(name) {
                    Some(task) => task.spec = spec,
                    None => {
                        let task = TaskState {
                            spec,
                            desired: None,
                            report: None,
                            health: None,
                        };
                        self.tasks.insert(name.to_owned(), task);
                    }
                },
                None => {
                    self.tasks.remove(name);
                }
            }
            return;
        }
        let Some(task) = self.tasks.get_mut(name) else {
            return;
        };
        match change.key.kind() {
            TaskDesiredRow::KIND => task.desired = now::<TaskDesiredRow>(change),
            TaskReportRow::KIND => task.report = now::<TaskReportRow>(change),
            TaskHealthRow::KIND => task.health = now::<TaskHealthRow>(change),
            _ => {}
        }
    }
}
