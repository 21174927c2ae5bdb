//! The service: what operations stand on, and the one place where they touch the store.
//!
//! What always holds: an operation reads one snapshot, decides, and commits with everything that
//! its decision rested on as a condition. On a conflict it decides again from a new snapshot, a
//! bounded number of times, so a caller is never answered from rows that were already gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::lock::Mutex as AsyncMutex;
use gantry_api::ApiError;
use gantry_api::ecs::EcsError;
use gantry_arn::ClusterName;
use gantry_env::Env;
use gantry_store::{CommitError, Snapshot, Store, Transaction};

use crate::acs::Telemetry;
use crate::model::page::PageKey;
use crate::model::reference::Scope;

/// How often an operation decides anew before it gives up. Placements of one cluster wait for each
/// other in this process, so only other replicas and reports make conflicts.
const ATTEMPTS_MAX: u32 = 32;

/// What differs between installations.
#[derive(Debug, Clone, Default)]
pub struct EcsOptions {
    /// Where agents find their control and telemetry sockets, such as `https://ecs.example:4566`.
    /// Without it, they are sent back to the host by which they found the API, over plain HTTP.
    pub poll_endpoint: Option<String>,
    /// The availability zone of an instance that names none; without it, the region's zone `a`.
    pub availability_zone: Option<String>,
}

/// Whose turn it is to place in a cluster: who holds the lock.
type Turn = Arc<AsyncMutex<()>>;

/// ECS on a store.
pub struct EcsService {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) env: Env,
    pub(crate) options: EcsOptions,
    pub(crate) page_key: PageKey,
    pub(crate) telemetry: Arc<Telemetry>,
    placing: Mutex<BTreeMap<(Scope, ClusterName), Turn>>,
}

impl EcsService {
    pub fn new(store: Arc<dyn Store>, env: Env, options: EcsOptions) -> Self {
        let page_key = PageKey::of_store(&store.incarnation());
        Self {
            store,
            env,
            options,
            page_key,
            telemetry: Arc::default(),
            placing: Mutex::default(),
        }
    }

    /// What agents publish: written by the telemetry sockets, and offered to who collects metrics.
    pub fn telemetry(&self) -> Arc<Telemetry> {
        self.telemetry.clone()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// Decides on a snapshot and commits, until the commit stands on what was read.
    pub(crate) async fn transact<T>(
        &self,
        mut decide: impl FnMut(&Snapshot) -> Result<(Transaction, T), EcsError> + Send,
    ) -> Result<T, EcsError>
    where
        T: Send,
    {
        for _ in 0..ATTEMPTS_MAX {
            let (transaction, answer) = decide(&self.store.snapshot())?;
            if !transaction.has_writes() {
                return Ok(answer);
            }
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(answer),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(ApiError::internal(error).into()),
            }
        }
        Err(EcsError::server_exception(
            "The resource is being changed by too many requests at once. Try again.",
        ))
    }

    /// The turn of a cluster's placements: who holds it plans and commits, the others wait in
    /// order instead of conflicting. Safety does not rest on this but on the allocation rows.
    pub(crate) fn placing(&self, scope: &Scope, cluster: &ClusterName) -> Turn {
        let mut turns = self
            .placing
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        // Nobody but this map holds the turn of a cluster where nothing is being placed.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns
            .entry((scope.clone(), cluster.clone()))
            .or_default()
            .clone()
    }
}
