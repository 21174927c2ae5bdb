//! One look at one service: the steps of a pass, and what they have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::ecs::SchedulingStrategy;
use gantry_arn::ContainerInstanceId;
use gantry_env::Timestamp;
use gantry_reconcile::Plan;
use gantry_store::{Key, Snapshot, Table, Transaction, Versioned};

use super::derived::Derived;
use crate::api::lookup::Rows;
use crate::api::placing::{Placing, Reservation};
use crate::model::last_status::LastStatus;
use crate::model::reference::Scope;
use crate::model::service::daemon::{self, Instances};
use crate::model::service::events;
use crate::model::service::replica::{Replica, condition};
use crate::model::service::request::percents;
use crate::model::service::rolling::Bounds;
use crate::model::service::sides::BOTH_SIDES_PERCENT;
use crate::model::task_view::TaskState;
use crate::tables::{
    ContainerInstanceStatus, DeploymentState, DesiredPhase, ServiceDeploymentStateRow,
    ServiceEventsRow, ServiceRow, ServiceStateRow, StateChange, TaskDefinitionRow, TaskRow,
    service_row_name,
};

pub(super) struct Pass<'a> {
    pub rows: &'a Rows<'a>,
    pub now: Timestamp,
    pub spec: Versioned<ServiceRow>,
    pub state_before: Option<Versioned<ServiceStateRow>>,
    pub state: ServiceStateRow,
    pub events_before: Option<Versioned<ServiceEventsRow>>,
    /// Shared with what was read until something is said.
    pub events: Arc<ServiceEventsRow>,
    /// How far the service deployments are that this pass has to do with.
    pub progress: BTreeMap<String, Progress>,
    /// All tasks of the service, also those that have stopped.
    pub tasks: Vec<TaskState>,
    pub transaction: Transaction,
    pub again_at: Option<Timestamp>,
    pub placing: &'a Arc<Placing>,
    /// The shares of what this pass starts.
    pub reservation: Option<Reservation>,
    /// Something is not started before another plan is committed.
    pub waits: bool,
    /// What a daemon has to do with, as the revision that is named has it.
    pub instances: Option<(String, Rc<Instances>)>,
    /// The zones of the cluster in which there are ACTIVE instances. It only spares work.
    pub known_zones: Option<Arc<BTreeSet<String>>>,
    /// The replicas as they were seen first, and under which PRIMARY deployment.
    seen: Option<(Option<String>, Rc<Vec<Replica>>)>,
    /// What this pass has to tell of so far, in order.
    pub told: Vec<StateChange>,
}

/// What a pass came to.
pub(super) struct Passed {
    pub plan: Plan,
    /// To be kept until the plan is committed, or is not.
    pub reservation: Option<Reservation>,
    /// The service has to be looked at again soon: it waits for another one's commit.
    pub waits: bool,
}

impl Passed {
    fn nothing() -> Self {
        Self {
            plan: Plan::nothing(),
            reservation: None,
            waits: false,
        }
    }
}

/// A service deployment's state, as it is stored and as it shall be.
pub(super) struct Progress {
    pub before: Option<Versioned<ServiceDeploymentStateRow>>,
    pub after: ServiceDeploymentStateRow,
}

pub(super) fn reconcile(
    placing: &Arc<Placing>,
    snapshot: &Snapshot,
    now: Timestamp,
    key: &Key,
    known_zones: Option<Arc<BTreeSet<String>>>,
) -> Passed {
    let Some(spec) = snapshot.read_key::<ServiceRow>(key) else {
        return Passed::nothing();
    };
    let scope = Scope {
        account: key.account(),
        region: key.region(),
    };
    let rows = Rows::new(snapshot, &scope);
    let mut pass = Pass::new(placing, &rows, now, spec);
    pass.known_zones = known_zones;
    match pass.spec.deleted_at {
        Some(_) => pass.drain(),
        None => {
            pass.take_up();
            pass.count_failures();
            pass.judge();
            pass.go_on();
            pass.let_go();
            pass.act();
            pass.conclude();
        }
    }
    pass.finish()
}

impl<'a> Pass<'a> {
    fn new(
        placing: &'a Arc<Placing>,
        rows: &'a Rows<'a>,
        now: Timestamp,
        spec: Versioned<ServiceRow>,
    ) -> Self {
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
            .map(|row| row.row.clone());
        Self {
            rows,
            now,
            tasks: rows.service_tasks(&spec),
            state: state.unwrap_or_else(|| ServiceStateRow {
                incarnation: incarnation.clone(),
                ..Default::default()
            }),
            events: events.unwrap_or_else(|| {
                Arc::new(ServiceEventsRow {
                    incarnation,
                    ..Default::default()
                })
            }),
            state_before,
            events_before,
            spec,
            progress: BTreeMap::new(),
            transaction: Transaction::new(),
            again_at: None,
            placing,
            reservation: None,
            waits: false,
            instances: None,
            known_zones: None,
            seen: None,
            told: Vec::new(),
        }
    }

    /// This service is to be looked at again by then, whatever happens.
    pub(super) fn look_again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |before| before.min(at)));
    }

    /// True if it was said, and not suppressed as a repetition.
    pub(super) fn say(&mut self, message: String) -> bool {
        let mut derived = Derived {
            incarnation: &self.spec.incarnation,
            next: &mut self.state.next_number,
        };
        events::add(
            &mut Arc::make_mut(&mut self.events).events,
            self.now,
            || derived.uuid(),
            message,
        )
    }

    pub(super) fn primary(&self) -> Option<&DeploymentState> {
        self.state.deployments.first()
    }

    pub(super) fn deployment(&self, id: &str) -> Option<&DeploymentState> {
        self.state.deployments.iter().find(|it| it.id == id)
    }

    pub(super) fn is_daemon(&self) -> bool {
        self.spec.scheduling_strategy == SchedulingStrategy::Daemon
    }

    /// How many tasks there shall be.
    pub(super) fn desired(&mut self) -> u32 {
        match self.is_daemon() {
            true => daemon::desired(&self.instances()),
            false => self.spec.desired_count,
        }
    }

    pub(super) fn bounds(&mut self) -> Bounds {
        let (least, most) = percents(&self.spec.configuration);
        let most = match self.course() {
            Some(_) => most.max(BOTH_SIDES_PERCENT),
            None => most,
        };
        Bounds::of(self.desired(), least, most)
    }

    pub(super) fn definition(&self, of: &DeploymentState) -> Option<Versioned<TaskDefinitionRow>> {
        let revision = &of.revision;
        self.rows
            .task_definition(&revision.family, revision.task_definition)
    }

    /// The tasks that are meant to run, as the PRIMARY deployment sees them, in the order of their ids.
    /// Looked at once for each PRIMARY deployment: the tasks do not change in a pass.
    pub(super) fn replicas(&mut self) -> Rc<Vec<Replica>> {
        let primary = self.primary().map(|it| it.id.clone());
        if let Some((of, replicas)) = &self.seen
            && *of == primary
        {
            return replicas.clone();
        }
        let replicas = Rc::new(self.look_at_replicas(primary.as_deref()));
        self.seen = Some((primary, replicas.clone()));
        replicas
    }

    /// The same, each with the deployment that it is of.
    pub(super) fn replicas_by_deployment(&mut self) -> Vec<(String, Replica)> {
        let replicas = self.replicas();
        // Both are in the order of their ids, and every replica is one of the tasks.
        let mut tasks = self.tasks.iter();
        let of = |replica: &Replica| {
            let task = tasks.find(|task| task.spec.id == replica.id)?;
            let deployment = task.spec.started_by.clone().unwrap_or_default();
            Some((deployment, replica.clone()))
        };
        replicas.iter().filter_map(of).collect()
    }

    fn look_at_replicas(&mut self, primary: Option<&str>) -> Vec<Replica> {
        let grace = self.spec.health_check_grace_period_seconds.unwrap_or(0);
        let grace = Duration::from_secs(u64::from(grace));
        let is_meant_to_run = |task: &&TaskState| {
            task.desired_phase() == DesiredPhase::Running && !task.last_status().is_stopped()
        };
        let tasks: Vec<&TaskState> = self.tasks.iter().filter(is_meant_to_run).collect();
        let draining = self.draining(&tasks);
        // Of few deployments, however many tasks there are.
        let mut definitions: Vec<(&TaskRow, Option<Versioned<TaskDefinitionRow>>)> = Vec::new();
        let (mut replicas, mut wake) = (Vec::with_capacity(tasks.len()), None::<Timestamp>);
        for task in tasks {
            let spec = &*task.spec;
            // All tasks of a deployment are of its revision.
            let is_same = |of: &TaskRow| of.started_by == spec.started_by;
            let at = match definitions.iter().position(|(of, _)| is_same(of)) {
                Some(at) => at,
                None => {
                    let row = self.rows.task_definition(&spec.family, spec.revision);
                    definitions.push((spec, row));
                    definitions.len() - 1
                }
            };
            let Some((_, Some(definition))) = definitions.get(at) else {
                continue;
            };
            let (condition, changes_at) = condition(task, &definition.definition, grace, self.now);
            if let Some(at) = changes_at {
                wake = Some(wake.map_or(at, |before| before.min(at)));
            }
            replicas.push(Replica {
                id: spec.id,
                slot: spec.replica.as_ref().map_or(0, |replica| replica.slot),
                is_primary: spec.started_by.as_deref() == primary,
                condition,
                is_draining: draining.contains(&spec.container_instance),
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

    /// Those of the tasks' container instances that are not ACTIVE, or gone.
    fn draining(&self, tasks: &[&TaskState]) -> BTreeSet<ContainerInstanceId> {
        let mut all: Vec<ContainerInstanceId> = tasks
            .iter()
            .map(|task| task.spec.container_instance)
            .collect();
        all.sort_unstable();
        all.dedup();
        let statuses = self
            .rows
            .container_instance_statuses(&self.spec.cluster, &all);
        let is_draining = |status: &Option<_>| *status != Some(ContainerInstanceStatus::Active);
        all.into_iter()
            .zip(statuses)
            .filter(|(_, status)| is_draining(status))
            .map(|(id, _)| id)
            .collect()
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
