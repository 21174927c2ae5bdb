//! One look at one service: the steps of a pass, and what they have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_arn::ContainerInstanceId;
use gantry_env::Timestamp;
use gantry_reconcile::Plan;
use gantry_store::{Key, Snapshot, Table, Transaction, Versioned};

use super::derived::Derived;
use crate::api::lookup::Rows;
use crate::model::last_status::LastStatus;
use crate::model::reference::Scope;
use crate::model::service::events;
use crate::model::service::replica::{Replica, condition};
use crate::model::service::request::percents;
use crate::model::service::rolling::Bounds;
use crate::model::task_view::TaskState;
use crate::tables::{
    ContainerInstanceStatus, DeploymentState, DesiredPhase, ServiceDeploymentStateRow,
    ServiceEventsRow, ServiceRow, ServiceStateRow, TaskDefinitionRow, service_row_name,
};

pub(super) struct Pass<'a> {
    pub rows: &'a Rows<'a>,
    pub now: Timestamp,
    pub spec: Versioned<ServiceRow>,
    pub state_before: Option<Versioned<ServiceStateRow>>,
    pub state: ServiceStateRow,
    pub events_before: Option<Versioned<ServiceEventsRow>>,
    pub events: ServiceEventsRow,
    /// How far the service deployments are that this pass has to do with.
    pub progress: BTreeMap<String, Progress>,
    /// All tasks of the service, also those that have stopped.
    pub tasks: Vec<TaskState>,
    pub transaction: Transaction,
    pub again_at: Option<Timestamp>,
}

/// A service deployment's state, as it is stored and as it shall be.
pub(super) struct Progress {
    pub before: Option<Versioned<ServiceDeploymentStateRow>>,
    pub after: ServiceDeploymentStateRow,
}

pub(super) fn reconcile(snapshot: &Snapshot, now: Timestamp, key: &Key) -> Plan {
    let Some(spec) = snapshot.read_key::<ServiceRow>(key) else {
        return Plan::nothing();
    };
    let scope = Scope {
        account: key.account(),
        region: key.region(),
    };
    let rows = Rows::new(snapshot, &scope);
    let mut pass = Pass::new(&rows, now, spec);
    match pass.spec.deleted_at {
        Some(_) => pass.drain(),
        None => {
            pass.take_up();
            pass.count_failures();
            pass.judge();
            pass.let_go();
            pass.act();
            pass.conclude();
        }
    }
    pass.finish()
}

impl<'a> Pass<'a> {
    fn new(rows: &'a Rows<'a>, now: Timestamp, spec: Versioned<ServiceRow>) -> Self {
        let name = service_row_name(&spec.cluster, &spec.name);
        let incarnation = spec.incarnation.clone();
        let state_before = rows.read::<ServiceStateRow>(&name);
        let events_before = rows.read::<ServiceEventsRow>(&name);
        let state = state_before
            .as_ref()
            .filter(|row| row.incarnation == incarnation)
            .map(|row| (*row.row).clone());
        let events = events_before
            .as_ref()
            .filter(|row| row.incarnation == incarnation)
            .map(|row| (*row.row).clone());
        Self {
            rows,
            now,
            tasks: rows.service_tasks(&spec),
            state: state.unwrap_or_else(|| ServiceStateRow {
                incarnation: incarnation.clone(),
                ..Default::default()
            }),
            events: events.unwrap_or_else(|| ServiceEventsRow {
                incarnation,
                ..Default::default()
            }),
            state_before,
            events_before,
            spec,
            progress: BTreeMap::new(),
            transaction: Transaction::new(),
            again_at: None,
        }
    }

    /// This service is to be looked at again by then, whatever happens.
    pub(super) fn look_again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn say(&mut self, message: String) {
        let mut derived = Derived {
            incarnation: &self.spec.incarnation,
            next: &mut self.state.next_number,
        };
        events::add(
            &mut self.events.events,
            self.now,
            || derived.uuid(),
            message,
        );
    }

    pub(super) fn primary(&self) -> Option<&DeploymentState> {
        self.state.deployments.first()
    }

    pub(super) fn bounds(&self) -> Bounds {
        let (least, most) = percents(&self.spec.configuration);
        Bounds::of(self.spec.desired_count, least, most)
    }

    pub(super) fn definition(&self, of: &DeploymentState) -> Option<Versioned<TaskDefinitionRow>> {
        let revision = &of.revision;
        self.rows
            .task_definition(&revision.family, revision.task_definition)
    }

    /// The tasks that are meant to run, as deployments see them.
    pub(super) fn replicas(&mut self) -> Vec<Replica> {
        let primary = self.primary().map(|it| it.id.clone());
        let grace = self.spec.health_check_grace_period_seconds.unwrap_or(0);
        let grace = Duration::from_secs(u64::from(grace));
        let mut definitions: BTreeMap<_, Option<Versioned<TaskDefinitionRow>>> = BTreeMap::new();
        let mut draining: BTreeMap<ContainerInstanceId, bool> = BTreeMap::new();
        let (mut replicas, mut wake) = (Vec::new(), None::<Timestamp>);
        for task in &self.tasks {
            if task.desired_phase() != DesiredPhase::Running || task.last_status().is_stopped() {
                continue;
            }
            let spec = &task.spec;
            let definition = definitions
                .entry((spec.family.clone(), spec.revision))
                .or_insert_with(|| self.rows.task_definition(&spec.family, spec.revision));
            let Some(definition) = definition else {
                continue;
            };
            let (condition, changes_at) = condition(task, &definition.definition, grace, self.now);
            if let Some(at) = changes_at {
                wake = Some(wake.map_or(at, |before| before.min(at)));
            }
            let is_draining = *draining.entry(spec.container_instance).or_insert_with(|| {
                let instance = self
                    .rows
                    .container_instance(&spec.cluster, &spec.container_instance);
                instance.is_none_or(|it| it.status != ContainerInstanceStatus::Active)
            });
            replicas.push(Replica {
                id: spec.id,
                slot: spec.replica.as_ref().map_or(0, |replica| replica.slot),
                is_primary: spec.started_by == primary,
                condition,
                is_draining,
                instance: spec.container_instance,
                zone: spec.availability_zone.clone(),
                left_free: 0,
            });
        }
        if let Some(at) = wake {
            self.look_again(at);
        }
        replicas
    }

    /// When the task was first RUNNING.
    pub(super) fn started_at(task: &TaskState) -> Option<Timestamp> {
        let report = task.report.as_ref()?;
        report
            .started_at
            .filter(|_| report.status >= LastStatus::Running)
    }
}

/// The key of a table's row next to this service's.
pub(super) fn beside<T: Table>(rows: &Rows<'_>, name: &str) -> Key {
    T::key(&rows.scope.account, &rows.scope.region, name)
}
