//! Which services a changed row concerns. Derived from the services' rows, and only there to wake
//! them: a service that is not found here is looked at by the next resync.

use std::collections::BTreeMap;

use gantry_store::{Key, RowChange, Table, Versioned};

use crate::tables::{
    AcsSessionRow, ContainerInstanceRow, ServiceDeploymentRow, ServiceRow, TASK_ID_PREFIX,
    task_id_prefix,
};

/// By account, region, and what the row names of the service's tasks begin with.
#[derive(Debug, Default)]
pub(super) struct ServiceIndex {
    by_tasks: BTreeMap<(String, String), Key>,
}

impl ServiceIndex {
    pub(super) fn begin_anew(&mut self, services: &[Versioned<ServiceRow>]) {
        self.by_tasks.clear();
        for service in services {
            self.add(&service.key, &service.row);
        }
    }

    fn add(&mut self, key: &Key, row: &ServiceRow) {
        let tasks = format!("{}/{}", row.cluster, task_id_prefix(&row.incarnation));
        self.by_tasks.insert((place(key), tasks), key.clone());
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
            ContainerInstanceRow::KIND if is_other_instance(change) => self.of_cluster(key),
            AcsSessionRow::KIND if is_other_connection(change) => self.of_cluster(key),
            ContainerInstanceRow::KIND | AcsSessionRow::KIND => Vec::new(),
            _ => {
                // Rows of tasks are named `<cluster>/<id>`.
                let end = name.find('/').map_or(0, |at| at + 1 + TASK_ID_PREFIX);
                let tasks = name.get(..end).unwrap_or_default().to_owned();
                let service = self.by_tasks.get(&(place(key), tasks));
                service.cloned().into_iter().collect()
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

fn is_other_connection(change: &RowChange) -> bool {
    let connected = |row: &Option<gantry_store::Row>| {
        let row = row.as_ref()?.decode::<AcsSessionRow>().ok()?;
        Some(row.connected)
    };
    connected(&change.row) != connected(&change.previous)
}
