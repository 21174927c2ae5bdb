//! Removes stopped tasks once they have been shown long enough.

use std::time::Duration;

use gantry_env::Timestamp;
use gantry_reconcile::{Controller, Plan};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table, Transaction};

use super::STOPPED_TASK_RETENTION;
use crate::model::task_view::TaskState;
use crate::tables::{TaskDesiredRow, TaskHealthRow, TaskProtectionRow, TaskReportRow, TaskRow};

/// Looks at one task: by the key of its spec row.
#[derive(Debug, Clone, Copy)]
pub struct StoppedTaskRetention {
    keep: Duration,
}

impl Default for StoppedTaskRetention {
    fn default() -> Self {
        Self::keeping(STOPPED_TASK_RETENTION)
    }
}

impl StoppedTaskRetention {
    /// Shows stopped tasks for so long, but never for less than AWS does.
    pub fn keeping(keep: Duration) -> Self {
        Self {
            keep: keep.max(STOPPED_TASK_RETENTION),
        }
    }
}

fn spec_key(key: &Key) -> Key {
    TaskRow::key(&key.account(), &key.region(), key.name())
}

impl Controller for StoppedTaskRetention {
    type Key = Key;

    fn name(&self) -> &'static str {
        "ecs-stopped-task-retention"
    }

    fn watches(&self) -> Vec<Prefix> {
        vec![TaskReportRow::everywhere(), TaskDesiredRow::everywhere()]
    }

    fn keys_of(&self, change: &RowChange) -> Vec<Key> {
        vec![spec_key(&change.key)]
    }

    fn all_keys(&self, snapshot: &Snapshot) -> Vec<Key> {
        let prefix = TaskRow::everywhere();
        snapshot
            .scan(&prefix)
            .map(|row| row.key().clone())
            .collect()
    }

    fn reconcile(&self, snapshot: &Snapshot, now: Timestamp, key: &Key) -> Plan {
        let Some(spec) = snapshot.read_key::<TaskRow>(key) else {
            return Plan::nothing();
        };
        let (account, region) = (key.account(), key.region());
        let desired = snapshot.read::<TaskDesiredRow>(&account, &region, key.name());
        let report = snapshot.read::<TaskReportRow>(&account, &region, key.name());
        let state = TaskState {
            spec: spec.row.clone(),
            desired: desired.as_ref().map(|row| row.row.clone()),
            report: report.as_ref().map(|row| row.row.clone()),
            health: None,
        };
        let Some(stopped_at) = state
            .stopped_at()
            .filter(|_| state.last_status().is_stopped())
        else {
            return Plan::nothing();
        };
        let until = stopped_at + self.keep;
        if now < until {
            return Plan::wait_until(until);
        }
        let mut transaction = Transaction::new();
        transaction.expect_read(&spec).delete(key.clone());
        transaction.remove::<TaskHealthRow>(&account, &region, key.name());
        transaction.remove::<TaskProtectionRow>(&account, &region, key.name());
        if let Some(desired) = &desired {
            transaction.expect_read(desired).delete(desired.key.clone());
        }
        if let Some(report) = &report {
            transaction.expect_read(report).delete(report.key.clone());
        }
        transaction.into()
    }
}
