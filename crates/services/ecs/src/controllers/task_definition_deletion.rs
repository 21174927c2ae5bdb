//! Removes a task definition that is DELETE_IN_PROGRESS once no task and no service names it any more.

use gantry_api::ecs::TaskDefinitionStatus;
use gantry_env::Timestamp;
use gantry_reconcile::{Controller, Plan};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table, Transaction};

use crate::tables::{
    RevisionReference, ServiceRow, ServiceStateRow, TaskDefinitionRow, TaskRow,
    task_definition_name,
};

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
        if is_deployed(snapshot, key) {
            return Plan::nothing();
        }
        let mut transaction = Transaction::new();
        transaction.expect_read(&read).delete(key.clone());
        transaction.into()
    }
}

/// Whether a service runs the definition, or may return to it.
fn is_deployed(snapshot: &Snapshot, key: &Key) -> bool {
    let is_it = |revision: &RevisionReference| {
        task_definition_name(&revision.family, revision.task_definition) == key.name()
    };
    let (account, region) = (key.account(), key.region());
    let asked = snapshot.list::<ServiceRow>(&account, &region);
    let states = snapshot.list::<ServiceStateRow>(&account, &region);
    asked
        .iter()
        .any(|row| row.deleted_at.is_none() && is_it(&row.target.revision))
        || states
            .iter()
            .filter(|state| state.drained_at.is_none())
            .any(|state| {
                let deployed = state.deployments.iter().map(|it| &it.revision);
                deployed.chain(&state.completed).any(is_it)
            })
}
