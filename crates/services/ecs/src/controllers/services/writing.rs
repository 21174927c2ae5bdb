//! The end of a pass: what has changed is written, and a deleted service is taken down.

use std::sync::Arc;
use std::time::Duration;

use gantry_reconcile::Plan;
use gantry_store::{Key, Table};

use super::pass::{Pass, Passed, beside};
use crate::tables::{
    ServiceDeploymentRow, ServiceDeploymentStateRow, ServiceEventsRow, ServiceRevisionRow,
    ServiceRow, ServiceStateRow, service_part_name, service_row_name,
};

/// How long an INACTIVE service is described.
pub const INACTIVE_SERVICE_RETENTION: Duration = Duration::from_secs(60 * 60);

/// A service is looked at for the changes of its tasks' rows again after so long for each of its tasks,
/// so that it costs a small part of one processor however many of them report at once: a hundred tasks
/// are looked at a hundred times a second, five thousand twice.
const REST_A_TASK: Duration = Duration::from_micros(100);

/// How many rows one commit removes.
const REMOVED_AT_ONCE: usize = 40;

impl Pass<'_> {
    /// Stops the tasks of a deleted service, calls it INACTIVE when they have, and forgets it in time.
    pub(super) fn drain(&mut self) {
        let Some(drained_at) = self.state.drained_at else {
            self.stop_deployments();
            self.stop_all();
            let all_stopped = |pass: &Self| {
                let mut tasks = pass.tasks.iter();
                tasks.all(|task| task.last_status().is_stopped())
            };
            if all_stopped(self) {
                self.state.drained_at = Some(self.now);
                self.look_again(self.now + INACTIVE_SERVICE_RETENTION);
            }
            return;
        };
        let until = drained_at + INACTIVE_SERVICE_RETENTION;
        if self.now < until {
            self.look_again(until);
            return;
        }
        self.forget();
    }

    /// Removes the service's rows, its own the last, so that nothing is left that no key leads to.
    fn forget(&mut self) {
        let (rows, spec) = (self.rows, self.spec.clone());
        let prefix = service_part_name(&spec.cluster, &spec.name, "");
        let parts = keys_of::<ServiceRevisionRow>(self, &prefix)
            .into_iter()
            .chain(keys_of::<ServiceDeploymentRow>(self, &prefix))
            .chain(keys_of::<ServiceDeploymentStateRow>(self, &prefix));
        let parts: Vec<Key> = parts.collect();
        self.transaction.expect_read(&spec);
        let is_last = parts.len() <= REMOVED_AT_ONCE;
        for key in parts.into_iter().take(REMOVED_AT_ONCE) {
            self.transaction.delete(key);
        }
        if !is_last {
            self.look_again(self.now);
            return;
        }
        let name = service_row_name(&spec.cluster, &spec.name);
        self.transaction
            .delete(beside::<ServiceStateRow>(rows, &name))
            .delete(beside::<ServiceEventsRow>(rows, &name))
            .delete(beside::<ServiceRow>(rows, &name));
    }

    pub(super) fn finish(mut self) -> Passed {
        self.write_told();
        let (account, region) = (&self.rows.scope.account, &self.rows.scope.region);
        let name = service_row_name(&self.spec.cluster, &self.spec.name);
        match &self.state_before {
            Some(read) if *read.row == self.state => {}
            Some(read) => {
                self.transaction
                    .update::<ServiceStateRow>(read, &self.state);
            }
            None => {
                self.transaction
                    .create::<ServiceStateRow>(account, region, &name, &self.state);
            }
        }
        match &self.events_before {
            Some(read) if Arc::ptr_eq(&read.row, &self.events) || read.row == self.events => {}
            Some(read) => {
                self.transaction
                    .update::<ServiceEventsRow>(read, &self.events);
            }
            None if self.events.events.is_empty() => {}
            None => {
                self.transaction
                    .create::<ServiceEventsRow>(account, region, &name, &self.events);
            }
        }
        for (id, mut progress) in std::mem::take(&mut self.progress) {
            let name = service_part_name(&self.spec.cluster, &self.spec.name, &id);
            match &progress.before {
                Some(read) if *read.row == progress.after => {}
                Some(read) => {
                    progress.after.updated_at = self.now;
                    self.transaction
                        .update::<ServiceDeploymentStateRow>(read, &progress.after);
                }
                None => {
                    self.transaction.create::<ServiceDeploymentStateRow>(
                        account,
                        region,
                        &name,
                        &progress.after,
                    );
                }
            }
        }
        if self.transaction.has_writes() {
            // Whatever was decided was decided for this wish of the user's.
            self.transaction.expect_read(&self.spec);
        }
        let tasks = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        Passed {
            plan: Plan {
                again_at: self.again_at,
                rests_until: Some(self.now + REST_A_TASK.saturating_mul(tasks)),
                ..Plan::from(self.transaction)
            },
            reservation: self.reservation,
            waits: self.waits,
        }
    }
}

fn keys_of<T: Table>(pass: &Pass<'_>, prefix: &str) -> Vec<Key> {
    let rows = pass.rows.list::<T>(prefix);
    rows.into_iter().map(|row| row.key).collect()
}
