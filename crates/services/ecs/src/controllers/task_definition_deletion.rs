//! Removes a task definition that is DELETE_IN_PROGRESS once no task names it any more.

use gantry_api::ecs::TaskDefinitionStatus;
use gantry_env::Timestamp;
use gantry_reconcile::{Controller, Plan};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table, Transaction};

use crate::tables::{TaskDefinitionRow, TaskRow, task_definition_name};

#[derive(Debug, Clone, Copy, Default)]
pub struct TaskDefinitionDeletion;

impl Controller for TaskDefinitionDeletion {
    type Key = Key;

    fn name(&self) -> &'static str {
        "ecs-task-definition-deletion"
    }

    fn watches(&self) -> Vec<Prefix> {
        vec![TaskDefinitionRow::everywhere(), TaskRow::everywhere()]
    }

    fn keys_of(&self, change: &RowChange) -> Vec<Key> {
        if TaskDefinitionRow::holds(&change.key) {
            return vec![change.key.clone()];
        }
        // Only the last task that goes can make a difference.
        let gone = change.previous.as_ref().filter(|_| change.row.is_none());
        let task = gone.and_then(|row| row.decode::<TaskRow>().ok());
        let definition = |task: &TaskRow| {
            let name = task_definition_name(&task.family, task.revision);
            TaskDefinitionRow::key(&change.key.account(), &change.key.region(), &name)
        };
        task.iter().map(|task| definition(task)).collect()
    }

    fn all_keys(&self, snapshot: &Snapshot) -> Vec<Key> {
        let prefix = TaskDefinitionRow::everywhere();
        snapshot
            .scan(&prefix)
            .map(|row| row.key().clone())
            .collect()
    }

    fn reconcile(&self, snapshot: &Snapshot, _now: Timestamp, key: &Key) -> Plan {
        let Some(read) = snapshot.read_key::<TaskDefinitionRow>(key) else {
            return Plan::nothing();
        };
        if read.definition.status != Some(TaskDefinitionStatus::DeleteInProgress) {
            return Plan::nothing();
        }
        // No task can come to it meanwhile: RunTask takes only ACTIVE ones, and expects the row.
        let uses = |task: &TaskRow| task_definition_name(&task.family, task.revision) == key.name();
        let tasks = snapshot.list::<TaskRow>(&key.account(), &key.region());
        if tasks.iter().any(|task| uses(&task.row)) {
            return Plan::nothing();
        }
        let mut transaction = Transaction::new();
        transaction.expect_read(&read).delete(key.clone());
        transaction.into()
    }
}
