//! What is durable about an agent's connection: the number of its session, and whether it is connected.
//!
//! What always holds: a number is committed before the first frame of its session is sent, and only
//! grows; the end of a session never undoes a later one.
//! What it leaves to others: the socket (`shell`; in the world, its network).

use std::sync::Arc;

use gantry_arn::{AccountId, Region};
use gantry_env::Env;
use gantry_store::{CommitError, Store, Transaction};
use tracing::warn;

use crate::tables::AcsSessionRow;

/// How often a commit that lost a race is tried again.
const COMMIT_ATTEMPTS: u32 = 16;

/// What an agent says of itself when it connects.
#[derive(Clone, Debug, Default)]
pub struct AgentFacts {
    pub version: Option<String>,
    pub hash: Option<String>,
}

/// Writes the [`AcsSessionRow`]s.
#[derive(Clone)]
pub struct Connections {
    store: Arc<dyn Store>,
    env: Env,
}

impl Connections {
    pub fn new(store: Arc<dyn Store>, env: Env) -> Connections {
        Connections { store, env }
    }

    /// Commits the next session's number and that its agent is connected. `row_name` is the container
    /// instance's.
    pub async fn begin(
        &self,
        (account, region): (&AccountId, &Region),
        row_name: &str,
        agent: AgentFacts,
    ) -> Result<u64, CommitError> {
        let mut attempt = 0;
        loop {
            let snapshot = self.store.snapshot();
            let read = snapshot.read::<AcsSessionRow>(account, region, row_name);
            let row = AcsSessionRow {
                session: read.as_ref().map_or(0, |row| row.session) + 1,
                connected: true,
                since: Some(self.env.now()),
                agent_version: agent.version.clone(),
                agent_hash: agent.hash.clone(),
            };
            let mut transaction = Transaction::new();
            match &read {
                Some(read) => transaction.update::<AcsSessionRow>(read, &row),
                None => transaction.create::<AcsSessionRow>(account, region, row_name, &row),
            };
            attempt += 1;
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(row.session),
                Err(CommitError::Conflict { .. }) if attempt < COMMIT_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that the agent is gone, unless a later session says otherwise.
    pub async fn end(
        &self,
        (account, region): (&AccountId, &Region),
        row_name: &str,
        session: u64,
    ) {
        for _ in 0..COMMIT_ATTEMPTS {
            let snapshot = self.store.snapshot();
            let Some(read) = snapshot.read::<AcsSessionRow>(account, region, row_name) else {
                return;
            };
            if read.session != session {
                return;
            }
            let row = AcsSessionRow {
                connected: false,
                since: Some(self.env.now()),
                ..(*read.row).clone()
            };
            let mut transaction = Transaction::new();
            transaction.update::<AcsSessionRow>(&read, &row);
            match self.store.commit(transaction).await {
                Ok(_) => return,
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => {
                    warn!(%error, "an agent's disconnection could not be written down");
                    return;
                }
            }
        }
    }
}

/// Says of every agent that it is not connected. Called once before serving: the sessions of the
/// last process ended with it.
pub async fn forget_connections(store: &Arc<dyn Store>, env: &Env) -> Result<(), CommitError> {
    let connected = store.snapshot().list_everywhere::<AcsSessionRow>();
    for read in connected.into_iter().filter(|read| read.connected) {
        let row = AcsSessionRow {
            connected: false,
            since: Some(env.now()),
            ..(*read.row).clone()
        };
        let mut transaction = Transaction::new();
        transaction.update::<AcsSessionRow>(&read, &row);
        match store.commit(transaction).await {
            // A conflict is a session that has begun meanwhile.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
