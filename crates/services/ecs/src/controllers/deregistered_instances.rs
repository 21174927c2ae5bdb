//! What becomes of the tasks of a container instance that was deregistered, and later of its rows.
//!
//! Its agent is turned away from now on, so nobody would ever report its tasks: they are given up,
//! which stops them as far as ECS can know.

use gantry_env::Timestamp;
use gantry_reconcile::{Controller, Plan};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table, Transaction};

use super::INACTIVE_INSTANCE_RETENTION;
use crate::api::describe_tasks::task_event;
use crate::api::lookup::Rows;
use crate::model::reference::Scope;
use crate::model::state_changes;
use crate::model::task_view::TaskState;
use crate::tables::{
    AcsSessionRow, AllocationRow, ContainerInstanceRow, ContainerInstanceStatus, DesiredPhase,
    StopCode, TaskDesiredRow, TaskReportRow, task_name,
};

/// Each takes four operations of a transaction's hundred.
const TASKS_AT_ONCE_MAX: usize = 20;

#[derive(Debug, Clone, Copy, Default)]
pub struct DeregisteredInstances;

impl Controller for DeregisteredInstances {
    type Key = Key;

    fn name(&self) -> &'static str {
        "ecs-deregistered-instances"
    }

    fn watches(&self) -> Vec<Prefix> {
        vec![ContainerInstanceRow::everywhere()]
    }

    fn keys_of(&self, change: &RowChange) -> Vec<Key> {
        vec![change.key.clone()]
    }

    fn all_keys(&self, snapshot: &Snapshot) -> Vec<Key> {
        let prefix = ContainerInstanceRow::everywhere();
        snapshot
            .scan(&prefix)
            .map(|row| row.key().clone())
            .collect()
    }

    fn reconcile(&self, snapshot: &Snapshot, now: Timestamp, key: &Key) -> Plan {
        let instance = snapshot.read_key::<ContainerInstanceRow>(key);
        let Some(instance) = instance.filter(|row| row.status == ContainerInstanceStatus::Inactive)
        else {
            return Plan::nothing();
        };
        let scope = Scope {
            account: key.account(),
            region: key.region(),
        };
        let rows = Rows::new(snapshot, &scope);
        let tasks = rows.allocation(&instance.cluster, &instance.id).tasks;
        if !tasks.is_empty() {
            let mut transaction = Transaction::new();
            transaction.expect_read(&instance);
            let mut told = Vec::new();
            for task in tasks.iter().take(TASKS_AT_ONCE_MAX) {
                let given_up = give_up(&rows, task, now, &mut transaction);
                told.extend(task_event(&rows, Some(task), &given_up, now));
            }
            state_changes::write(&scope, now, told, &mut transaction);
            let more = tasks.len() > TASKS_AT_ONCE_MAX;
            return Plan {
                transaction,
                again_at: more.then_some(now),
                ..Plan::default()
            };
        }
        let Some(deregistered_at) = instance.deregistered_at else {
            return Plan::nothing();
        };
        let until = deregistered_at + INACTIVE_INSTANCE_RETENTION;
        if now < until {
            return Plan::wait_until(until);
        }
        let mut transaction = Transaction::new();
        transaction.expect_read(&instance).delete(key.clone());
        let (account, region) = (&scope.account, &scope.region);
        transaction.remove::<AllocationRow>(account, region, key.name());
        transaction.remove::<AcsSessionRow>(account, region, key.name());
        transaction.into()
    }
}

/// A stop that was decided before keeps its reason. Answers what becomes of the task.
fn give_up(
    rows: &Rows<'_>,
    task: &TaskState,
    now: Timestamp,
    transaction: &mut Transaction,
) -> TaskState {
    let name = &task_name(&task.spec.cluster, &task.spec.id);
    let (account, region) = (&rows.scope.account, &rows.scope.region);
    match rows.read::<TaskReportRow>(name) {
        Some(report) => transaction.expect_read(&report),
        None => transaction.expect_absent::<TaskReportRow>(account, region, name),
    };
    let desired = match rows.read::<TaskDesiredRow>(name) {
        Some(read) => {
            let mut desired = (*read.row).clone();
            desired.given_up_at = Some(now);
            transaction.update::<TaskDesiredRow>(&read, &desired);
            desired
        }
        None => {
            let desired = TaskDesiredRow {
                phase: DesiredPhase::Stopped,
                stop_code: StopCode::UserInitiated,
                stopped_reason: Some("Container instance deregistration forced by user".to_owned()),
                since: now,
                given_up_at: Some(now),
            };
            transaction.create::<TaskDesiredRow>(account, region, name, &desired);
            desired
        }
    };
    TaskState {
        desired: Some(desired.into()),
        ..task.clone()
    }
}
