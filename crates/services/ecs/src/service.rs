//! The service: what operations stand on, and the one place where they touch the store.
//!
//! What always holds: an operation reads one snapshot, decides, and commits with everything that
//! its decision rested on as a condition. On a conflict it waits for its turn at the row and decides
//! again from a new snapshot, so a caller is never answered from rows that were already gone, and
//! however many change one row at once, each gets to it in the order of coming.

use std::sync::Arc;

use gantry_api::ApiError;
use gantry_api::ecs::EcsError;
use gantry_env::Env;
use gantry_store::{CommitError, Snapshot, Store, Transaction, Turns};

use crate::acs::Telemetry;
use crate::api::placing::Placing;
use crate::api::registrations::Registrations;
use crate::model::page::PageKey;

/// How often an operation decides anew before it gives up. Those of this process wait for each other,
/// so only other replicas and the agents' reports can use these up.
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

/// ECS on a store.
pub struct EcsService {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) env: Env,
    pub(crate) options: EcsOptions,
    pub(crate) page_key: PageKey,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) placing: Arc<Placing>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) registrations: Registrations,
}

/// What deciding and committing takes: a part of the service that outlives a request.
#[derive(Clone)]
pub(crate) struct Committer {
    store: Arc<dyn Store>,
    turns: Arc<Turns>,
}

impl EcsService {
    pub fn new(store: Arc<dyn Store>, env: Env, options: EcsOptions) -> Self {
        // Drawn, so that two replicas do not both go for the same one of many equal instances.
        let placing = Arc::new(Placing::new(store.clone(), env.entropy.u64()));
        let page_key = PageKey::of_store(&store.incarnation());
        Self {
            store,
            env,
            options,
            page_key,
            telemetry: Arc::default(),
            placing,
            turns: Arc::default(),
            registrations: Registrations::default(),
        }
    }

    /// What agents publish: written by the telemetry sockets, and offered to who collects metrics.
    pub fn telemetry(&self) -> Arc<Telemetry> {
        self.telemetry.clone()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    pub(crate) fn committer(&self) -> Committer {
        Committer {
            store: self.store.clone(),
            turns: self.turns.clone(),
        }
    }

    /// [`Committer::transact`].
    pub(crate) async fn transact<T>(
        &self,
        decide: impl FnMut(&Snapshot) -> Result<(Transaction, T), EcsError> + Send,
    ) -> Result<T, EcsError>
    where
        T: Send,
    {
        self.committer().transact(decide).await
    }
}

impl Committer {
    /// Decides on a snapshot and commits, until the commit stands on what was read.
    pub(crate) async fn transact<T>(
        &self,
        mut decide: impl FnMut(&Snapshot) -> Result<(Transaction, T), EcsError> + Send,
    ) -> Result<T, EcsError>
    where
        T: Send,
    {
        let mut turn = self.turns.request();
        for _ in 0..ATTEMPTS_MAX {
            turn.come().await;
            let (transaction, answer) = decide(&self.store.snapshot())?;
            if !transaction.has_writes() {
                return Ok(answer);
            }
            match turn.commit(&*self.store, transaction).await {
                Ok(_) => return Ok(answer),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(ApiError::internal(error).into()),
            }
        }
        Err(EcsError::server_exception(
            "The resource is being changed by too many requests at once. Try again.",
        ))
    }
}
