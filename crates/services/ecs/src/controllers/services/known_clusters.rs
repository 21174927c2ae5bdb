//! What is known of the container instances of clusters: in which zones there are some, and whether any
//! drains. Derived from their rows, and only there to spare and to wake: what is planned is planned
//! from the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_store::{Key, RowChange, Versioned};

use crate::api::service_instances::zone;
use crate::tables::{ContainerInstanceRow, ContainerInstanceStatus};

/// Clusters by account, region and name.
#[derive(Debug, Default)]
pub(super) struct KnownClusters(BTreeMap<(String, String), Known>);

#[derive(Debug, Default)]
struct Known {
    /// The zone of each ACTIVE instance.
    zone_of: BTreeMap<String, String>,
    /// Those in which there is one.
    zones: Arc<BTreeSet<String>>,
    draining: BTreeSet<String>,
}

impl KnownClusters {
    pub(super) fn begin_anew(&mut self, instances: &[Versioned<ContainerInstanceRow>]) {
        self.0.clear();
        for row in instances {
            self.known(&row.key).note(row.key.name(), Some(&row.row));
        }
        self.0.values_mut().for_each(Known::count_zones);
    }

    pub(super) fn changed(&mut self, change: &RowChange) {
        let row = change.row.as_ref();
        let row = row.and_then(|row| row.decode::<ContainerInstanceRow>().ok());
        let known = self.known(&change.key);
        if known.note(change.key.name(), row.as_deref()) {
            known.count_zones();
        }
    }

    fn known(&mut self, key: &Key) -> &mut Known {
        self.0.entry(cluster_of(key)).or_default()
    }

    /// The zones of the cluster that the row is in.
    pub(super) fn zones(&self, key: &Key) -> Option<Arc<BTreeSet<String>>> {
        Some(self.0.get(&cluster_of(key))?.zones.clone())
    }

    pub(super) fn is_any_draining(&self, key: &Key) -> bool {
        let known = self.0.get(&cluster_of(key));
        known.is_some_and(|known| !known.draining.is_empty())
    }
}

impl Known {
    /// True if zones may have come or gone.
    fn note(&mut self, name: &str, row: Option<&ContainerInstanceRow>) -> bool {
        let status = row.map(|row| row.status);
        match status {
            Some(ContainerInstanceStatus::Draining) => self.draining.insert(name.to_owned()),
            _ => self.draining.remove(name),
        };
        let active = row.filter(|row| row.status == ContainerInstanceStatus::Active);
        let now = active.and_then(zone);
        let before = match now {
            Some(zone) => self.zone_of.insert(name.to_owned(), zone.to_owned()),
            None => self.zone_of.remove(name),
        };
        before.as_deref() != now
    }

    fn count_zones(&mut self) {
        self.zones = Arc::new(self.zone_of.values().cloned().collect());
    }
}

fn cluster_of(key: &Key) -> (String, String) {
    let cluster = key.name().split('/').next().unwrap_or_default();
    let place = format!("{}/{}", key.account(), key.region());
    (place, cluster.to_owned())
}
