//! Which services a changed row concerns. Derived from the services' rows, and only there to wake
//! them: a service that is not found here is looked at by the next resync.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_api::ecs::SchedulingStrategy;
use gantry_store::{Key, RowChange, Table, Versioned};

use super::known_clusters::KnownClusters;
use crate::tables::{
    AcsSessionRow, ContainerInstanceRow, ServiceDeploymentRow, ServiceRow, TASK_ID_PREFIX,
    TaskReportRow, task_id_prefix,
};

/// By account, region, and what the row names of the service's tasks begin with.
#[derive(Debug, Default)]
pub(super) struct ServiceIndex {
    by_tasks: BTreeMap<(String, String), Key>,
    /// Those of daemons, by account, region and cluster.
    daemons: BTreeMap<(String, String), BTreeSet<Key>>,
    clusters: KnownClusters,
}

impl ServiceIndex {
    pub(super) fn begin_anew(
        &mut self,
        services: &[Versioned<ServiceRow>],
        instances: &[Versioned<ContainerInstanceRow>],
    ) {
        self.by_tasks.clear();
        self.daemons.clear();
        self.clusters.begin_anew(instances);
        for service in services {
            self.add(&service.key, &service.row);
        }
    }

    fn add(&mut self, key: &Key, row: &ServiceRow) {
        let tasks = format!("{}/{}", row.cluster, task_id_prefix(&row.incarnation));
        self.by_tasks.insert((place(key), tasks), key.clone());
        let cluster = (place(key), row.cluster.to_string());
        let daemons = self.daemons.entry(cluster).or_default();
        match row.scheduling_strategy {
            SchedulingStrategy::Daemon => daemons.insert(key.clone()),
            _ => daemons.remove(key),
        };
    }

    /// In which zones of the service's cluster there are instances.
    pub(super) fn zones(&self, service: &Key) -> Option<Arc<BTreeSet<String>>> {
        self.clusters.zones(service)
    }

    pub(super) fn concerned(&mut self, change: &RowChange) -> Vec<Key> {
        let (key, name) = (&change.key, change.key.name());
        match key.kind() {
            ServiceRow::KIND => {
                let row = change
                    .row
                    .as_ref()
                    .and_then(|row| row.decode::<ServiceRow>().ok());
                if let Some(row) = row {
                    self.add(key, &row);
                }
                vec![key.clone()]
            }
            ServiceDeploymentRow::KIND => {
                let service = name.rsplit_once('/').map_or(name, |(service, _)| service);
                vec![ServiceRow::key(&key.account(), &key.region(), service)]
            }
            ContainerInstanceRow::KIND if is_other_instance(change) => {
                self.clusters.changed(change);
                self.of_cluster(key)
            }
            AcsSessionRow::KIND if is_other_connection(change) => self.of_cluster(key),
            ContainerInstanceRow::KIND | AcsSessionRow::KIND => Vec::new(),
            _ => {
                // Rows of tasks are named `<cluster>/<id>`.
                let end = name.find('/').map_or(0, |at| at + 1 + TASK_ID_PREFIX);
                let tasks = name.get(..end).unwrap_or_default().to_owned();
                let service = self.by_tasks.get(&(place(key), tasks));
                let mut all: Vec<Key> = service.cloned().into_iter().collect();
                if has_stopped(change) && self.clusters.is_any_draining(key) {
                    // Daemons wait for the others on an instance that drains.
                    let cluster = name.split('/').next().unwrap_or_default();
                    let daemons = self.daemons.get(&(place(key), cluster.to_owned()));
                    all.extend(daemons.into_iter().flatten().cloned());
                }
                all
            }
        }
    }

    /// Every service of the cluster that the row is in.
    fn of_cluster(&self, key: &Key) -> Vec<Key> {
        let cluster = key.name().split('/').next().unwrap_or_default();
        let prefix = format!("{cluster}/");
        let from = (place(key), prefix.clone());
        self.by_tasks
            .range(from.clone()..)
            .take_while(|((place, tasks), _)| *place == from.0 && tasks.starts_with(&prefix))
            .map(|(_, service)| service.clone())
            .collect()
    }
}

fn place(key: &Key) -> String {
    format!("{}/{}", key.account(), key.region())
}

/// It came, went, or takes tasks where it did not; its other changes are of no account here.
fn is_other_instance(change: &RowChange) -> bool {
    let status = |row: &Option<gantry_store::Row>| {
        let row = row.as_ref()?.decode::<ContainerInstanceRow>().ok()?;
        Some((row.status, row.attributes.clone()))
    };
    status(&change.row) != status(&change.previous)
}

/// A task's node reports that it has.
fn has_stopped(change: &RowChange) -> bool {
    let report = || change.row.as_ref()?.decode::<TaskReportRow>().ok();
    change.key.kind() == TaskReportRow::KIND
        && report().is_some_and(|report| report.status.is_stopped())
}

fn is_other_connection(change: &RowChange) -> bool {
    let connected = |row: &Option<gantry_store::Row>| {
        let row = row.as_ref()?.decode::<AcsSessionRow>().ok()?;
        Some(row.connected)
    };
    connected(&change.row) != connected(&change.previous)
}
