//! What must hold after every event.
//!
//! What always holds: every commit is looked at, in order, whoever lived when it was made; what must
//! hold of all rows is kept up to date from their changes, so a step costs what it changed.
//! What it leaves to others: what a machine asks for (`runtime::promises`, `machine`) and what users
//! see (`user`).

use std::collections::{BTreeMap, BTreeSet};

use gantry_arn::{AccountId, Region, TaskId};
use gantry_ecs::controllers::STOPPED_TASK_RETENTION;
use gantry_ecs::model::last_status::LastStatus;
use gantry_ecs::tables::{
    AcsSessionRow, AllocationRow, ContainerInstanceRow, DesiredPhase, TaskDesiredRow,
    TaskReportRow, TaskRow, container_instance_name, task_name,
};
use gantry_env::Timestamp;
use gantry_store::{Row, RowChange, Snapshot, Table};

use crate::control::ControlPlane;
use crate::founding::{Size, demand};
use crate::machine::Machine;

/// What was seen before, as far as it must not be undone.
#[derive(Debug, Default)]
pub struct Invariants {
    stopping: BTreeSet<String>,
    /// When the tasks that have stopped had.
    stopped: BTreeMap<String, Timestamp>,
    seen: BTreeMap<usize, i64>,
    /// By the name of its row.
    instances: BTreeMap<String, Instance>,
    /// Tasks that were created and have not stopped, by the name of their rows.
    living: BTreeMap<String, Held>,
    /// The ids of all tasks and containers that there ever were.
    ids: BTreeSet<String>,
}

/// One container instance, as its tasks tell: nobody's sums are taken for granted.
#[derive(Debug, Default)]
struct Instance {
    size: Size,
    taken: Size,
    tasks: BTreeMap<TaskId, Size>,
}

#[derive(Debug)]
struct Held {
    instance: String,
    id: TaskId,
    size: Size,
}

impl Invariants {
    /// Checks everything that these changes can have broken.
    pub fn check(&mut self, snapshot: &Snapshot, control: &ControlPlane, changes: &[RowChange]) {
        let place = control.place();
        let mut allocated = BTreeSet::new();
        for change in changes {
            let name = change.key.name();
            match change.key.kind() {
                ContainerInstanceRow::KIND => self.registered(name, change),
                TaskRow::KIND => self
                    .created(name, change, control.now())
                    .and_then(|instance| allocated.insert(instance).then_some(())),
                TaskReportRow::KIND => self.reported(name, change, snapshot, control),
                TaskDesiredRow::KIND => self.desired(name, change, control.now()),
                AllocationRow::KIND => allocated.insert(name.to_owned()).then_some(()),
                AcsSessionRow::KIND => check_session(name, change, snapshot, control),
                "client-token" => {
                    assert!(change.row.is_some(), "the token {name} was forgotten");
                    Some(())
                }
                _ => Some(()),
            };
        }
        for instance in allocated {
            self.check_allocation(snapshot, place, &instance);
        }
    }

    fn registered(&mut self, name: &str, change: &RowChange) -> Option<()> {
        let row = now::<ContainerInstanceRow>(change.row.as_ref())?;
        let registered = |wanted: &str| {
            let mut resources = row.registered_resources.iter();
            let found = resources.find(|resource| resource.name.as_deref() == Some(wanted));
            found
                .and_then(|resource| resource.integer_value)
                .map_or(0, i64::from)
        };
        self.instances.entry(name.to_owned()).or_default().size = Size {
            cpu: registered("CPU"),
            memory: registered("MEMORY"),
        };
        Some(())
    }

    /// Nothing is ever oversubscribed. Gives the instance's name.
    fn created(&mut self, name: &str, change: &RowChange, at: Timestamp) -> Option<String> {
        let Some(row) = now::<TaskRow>(change.row.as_ref()) else {
            self.check_forgotten(name, at);
            return None;
        };
        let instance = container_instance_name(&row.cluster, &row.container_instance);
        if change.previous.is_some() {
            return Some(instance);
        }
        let containers = row.containers.iter().map(|container| container.id.clone());
        for id in containers.chain([row.id.to_string()]) {
            assert!(self.ids.insert(id), "an id of {name} was used before");
        }
        assert_eq!(name, task_name(&row.cluster, &row.id), "the name of a row");
        let size = demand(row.family.as_ref(), row.revision);
        let on = self.instances.entry(instance.clone()).or_default();
        on.taken = on.taken.plus(size);
        on.tasks.insert(row.id, size);
        assert!(
            on.size.holds(on.taken),
            "{instance} is oversubscribed: {:?} of {:?}",
            on.taken,
            on.size
        );
        let held = Held {
            instance: instance.clone(),
            id: row.id,
            size,
        };
        self.living.insert(name.to_owned(), held);
        Some(instance)
    }

    /// What has stopped is shown for an hour, and only what has stopped is forgotten.
    fn check_forgotten(&self, name: &str, at: Timestamp) {
        let stopped = self.stopped.get(name);
        assert!(
            stopped.is_some_and(|stopped| *stopped + STOPPED_TASK_RETENTION <= at),
            "{name} was forgotten; it stopped: {stopped:?}"
        );
    }

    fn reported(
        &mut self,
        name: &str,
        change: &RowChange,
        snapshot: &Snapshot,
        control: &ControlPlane,
    ) -> Option<()> {
        let (account, region) = control.place();
        let Some(row) = now::<TaskReportRow>(change.row.as_ref()) else {
            self.check_forgotten(name, control.now());
            return None;
        };
        let previous = now::<TaskReportRow>(change.previous.as_ref());
        let before = previous.map(|row| row.status);
        assert!(
            before <= Some(row.status),
            "the report of {name} went back: {before:?} to {:?}",
            row.status
        );
        if row.status < LastStatus::Stopped || before >= Some(LastStatus::Stopped) {
            return None;
        }
        self.stopped.insert(name.to_owned(), row.stopped_at?);
        let held = self.living.remove(name)?;
        let on = self.instances.get_mut(&held.instance)?;
        on.taken = on.taken.minus(held.size);
        on.tasks.remove(&held.id);
        let task = snapshot.read::<TaskRow>(account, region, name)?;
        let ran = row.containers.len() == task.containers.len()
            && row.containers.iter().all(|c| c.runtime_id.is_some());
        assert!(
            !ran || before >= Some(LastStatus::Running),
            "STOPPED overtook RUNNING: {name}"
        );
        Some(())
    }

    fn desired(&mut self, name: &str, change: &RowChange, at: Timestamp) -> Option<()> {
        let Some(row) = now::<TaskDesiredRow>(change.row.as_ref()) else {
            self.check_forgotten(name, at);
            return None;
        };
        let stops = row.phase == DesiredPhase::Stopped;
        assert!(
            stops || !self.stopping.contains(name),
            "{name} was to stop and is to run again"
        );
        if stops {
            self.stopping.insert(name.to_owned());
        }
        assert_eq!(
            row.given_up_at, None,
            "{name} was given up, and nobody deregistered"
        );
        Some(())
    }

    /// Every task that has not stopped has its share written down.
    fn check_allocation(
        &self,
        snapshot: &Snapshot,
        (account, region): (&AccountId, &Region),
        name: &str,
    ) {
        let row = snapshot.read::<AllocationRow>(account, region, name);
        for (task, size) in self.instances.get(name).into_iter().flat_map(|i| &i.tasks) {
            let reserved = row.as_ref().and_then(|row| row.tasks.get(task));
            let written = reserved.map(|reserved| Size {
                cpu: reserved.cpu,
                memory: reserved.memory,
            });
            assert_eq!(
                written,
                Some(*size),
                "{name} keeps no share for {task}, which has not stopped"
            );
        }
    }

    /// What found no place would have fitted nowhere.
    pub fn check_unplaced(&self, control: &ControlPlane, wanted: Size) {
        let snapshot = control.store().snapshot();
        let (account, region) = control.place();
        for (name, instance) in &self.instances {
            let connected = || {
                snapshot
                    .read::<AcsSessionRow>(account, region, name)
                    .is_some_and(|session| session.connected)
            };
            assert!(
                !instance.size.minus(instance.taken).holds(wanted) || !connected(),
                "a task found no place, and {name} has room: {:?} of {:?} are taken",
                instance.taken,
                instance.size
            );
        }
    }

    /// What a machine may never do, whatever the control plane says.
    pub fn check_machine(&mut self, number: usize, machine: &Machine) {
        let doubled = machine.runtime().doubled();
        assert!(
            doubled.is_empty(),
            "machine {number} started containers twice: {doubled:?}"
        );
        let seen = machine.journal().seen;
        let before = self.seen.insert(number, seen).unwrap_or(i64::MIN);
        assert!(
            seen >= before,
            "machine {number} took something older after something newer"
        );
    }
}

/// A later session ends every earlier one, and the row says whether there is one.
fn check_session(
    name: &str,
    change: &RowChange,
    snapshot: &Snapshot,
    control: &ControlPlane,
) -> Option<()> {
    let (account, region) = control.place();
    let number = |row: Option<&Row>| now::<AcsSessionRow>(row).map(|row| row.session);
    let (before, after) = (
        number(change.previous.as_ref()),
        number(change.row.as_ref()),
    );
    assert!(before <= after, "the session of {name} went back");
    let row = snapshot.read::<AcsSessionRow>(account, region, name)?;
    if control.is_up() {
        let open = control.sessions_of(name);
        let told: Vec<u64> = row.connected.then_some(row.session).into_iter().collect();
        assert_eq!(open, told, "the sessions of {name}, and what its row says");
    }
    Some(())
}

fn now<T: Table>(row: Option<&Row>) -> Option<std::sync::Arc<T::Row>> {
    row.map(|row| row.decode::<T>().expect("a row of this program"))
}
