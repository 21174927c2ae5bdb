//! Removes service deployments, and the revisions that nothing names any more, once they have been
//! shown long enough.
//!
//! What always holds: whatever a service runs, is about to run or would return to stays, with its revision; so does
//! what is not over. Of the rest, what is ninety days old goes, as at AWS, and of a service that is deployed
//! more often than anybody could read, what is beyond the last [`SERVICE_DEPLOYMENTS_MAX`]. What an earlier
//! service of the same name left goes at once.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_env::Timestamp;
use gantry_reconcile::{Controller, Plan};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table, Transaction, Versioned};

use crate::api::lookup::Rows;
use crate::model::reference::Scope;
use crate::tables::{
    ServiceDeploymentRow, ServiceDeploymentStateRow, ServiceRevisionRow, ServiceRow,
    service_part_name,
};

/// How long a service deployment is shown after it is over.
pub const SERVICE_DEPLOYMENT_RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How many deployments of one service are shown at most: the limit is Gantry's.
pub const SERVICE_DEPLOYMENTS_MAX: usize = 500;

/// How many rows one commit removes.
const REMOVED_AT_ONCE: usize = 60;

/// Looks at one service: by the key of its row.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceHistory;

impl Controller for ServiceHistory {
    type Key = Key;

    fn name(&self) -> &'static str {
        "ecs-service-history"
    }

    fn watches(&self) -> Vec<Prefix> {
        vec![ServiceDeploymentStateRow::everywhere()]
    }

    fn keys_of(&self, change: &RowChange) -> Vec<Key> {
        let name = change.key.name();
        let service = name.rsplit_once('/').map_or(name, |(service, _)| service);
        let (account, region) = (change.key.account(), change.key.region());
        vec![ServiceRow::key(&account, &region, service)]
    }

    fn all_keys(&self, snapshot: &Snapshot) -> Vec<Key> {
        let prefix = ServiceRow::everywhere();
        snapshot
            .scan(&prefix)
            .map(|row| row.key().clone())
            .collect()
    }

    fn reconcile(&self, snapshot: &Snapshot, now: Timestamp, key: &Key) -> Plan {
        let Some(spec) = snapshot.read_key::<ServiceRow>(key) else {
            return Plan::nothing();
        };
        let scope = Scope {
            account: key.account(),
            region: key.region(),
        };
        let rows = Rows::new(snapshot, &scope);
        History::read(&rows, &spec).plan(&spec, now)
    }
}

/// What is known of a service's past.
struct History {
    /// Newest first, each with the time at which it was over.
    deployments: Vec<(Versioned<ServiceDeploymentRow>, Option<Timestamp>)>,
    revisions: Vec<Versioned<ServiceRevisionRow>>,
    states: Vec<Versioned<ServiceDeploymentStateRow>>,
    /// The service deployments and the revisions that the service needs.
    needed: BTreeSet<String>,
}

impl History {
    fn read(rows: &Rows<'_>, spec: &Versioned<ServiceRow>) -> Self {
        let prefix = service_part_name(&spec.cluster, &spec.name, "");
        let states = rows.list::<ServiceDeploymentStateRow>(&prefix);
        let over_at = |name: &str| {
            let state = states.iter().find(|state| state.name() == name)?;
            state.finished_at
        };
        let mut deployments: Vec<_> = rows
            .list::<ServiceDeploymentRow>(&prefix)
            .into_iter()
            .map(|row| {
                let is_known = states.iter().any(|state| state.name() == row.name());
                let is_next = row.target.service_deployment == spec.target.service_deployment;
                // What was overtaken before it was begun has no state, and was over at once.
                let over = match is_known || is_next {
                    true => over_at(row.name()),
                    false => Some(row.target.at),
                };
                (row, over)
            })
            .collect();
        deployments.sort_by_key(|(row, _)| std::cmp::Reverse(row.target.at));
        let mut needed = BTreeSet::from([
            spec.target.service_deployment.clone(),
            spec.target.revision.id.clone(),
        ]);
        if let Some(state) = rows.service_state(spec) {
            for deployment in &state.deployments {
                needed.insert(deployment.service_deployment.clone());
                needed.insert(deployment.revision.id.clone());
            }
            needed.extend(state.completed.iter().map(|revision| revision.id.clone()));
        }
        Self {
            deployments,
            revisions: rows.list::<ServiceRevisionRow>(&prefix),
            states,
            needed,
        }
    }

    fn plan(mut self, spec: &Versioned<ServiceRow>, now: Timestamp) -> Plan {
        let mut again_at: Option<Timestamp> = None;
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for (at, (row, over_at)) in self.deployments.iter().enumerate() {
            let id = &row.target.service_deployment;
            let until = over_at.map(|over| over + SERVICE_DEPLOYMENT_RETENTION);
            let is_of_another = row.incarnation != spec.incarnation;
            let is_needed = self.needed.contains(id);
            let goes = match until {
                _ if is_of_another => true,
                None => false,
                Some(_) if is_needed => false,
                Some(until) => until <= now || at >= SERVICE_DEPLOYMENTS_MAX,
            };
            if goes {
                gone.insert(row.name().to_owned());
            } else if let Some(until) = until.filter(|_| !is_needed) {
                again_at = Some(again_at.map_or(until, |before| before.min(until)));
            }
        }
        for (row, _) in self
            .deployments
            .iter()
            .filter(|it| !gone.contains(it.0.name()))
        {
            self.needed.insert(row.target.revision.id.clone());
            self.needed.extend(row.sources.iter().cloned());
        }
        let deployments = self.deployments.iter().map(|(row, _)| row);
        let keys = deployments
            .filter(|row| gone.contains(row.name()))
            .map(|row| row.key.clone())
            .chain(
                self.states
                    .iter()
                    .filter(|state| gone.contains(state.name()))
                    .map(|state| state.key.clone()),
            )
            .chain(
                self.revisions
                    .iter()
                    .filter(|row| !self.needed.contains(&row.reference.id))
                    .map(|row| row.key.clone()),
            );
        let keys: Vec<Key> = keys.collect();
        if keys.is_empty() {
            return Plan {
                again_at,
                ..Plan::nothing()
            };
        }
        let mut transaction = Transaction::new();
        transaction.expect_read(spec);
        if keys.len() > REMOVED_AT_ONCE {
            again_at = Some(now);
        }
        for key in keys.into_iter().take(REMOVED_AT_ONCE) {
            transaction.delete(key);
        }
        Plan {
            again_at,
            ..Plan::from(transaction)
        }
    }
}
