//! Forgets client tokens that are too old to be repeated.

use gantry_env::Timestamp;
use gantry_reconcile::{Controller, Plan};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table, Transaction};

use super::CLIENT_TOKEN_RETENTION;
use crate::tables::ClientTokenRow;

#[derive(Debug, Clone, Copy, Default)]
pub struct ClientTokenExpiry;

impl Controller for ClientTokenExpiry {
    type Key = Key;

    fn name(&self) -> &'static str {
        "ecs-client-token-expiry"
    }

    fn watches(&self) -> Vec<Prefix> {
        vec![ClientTokenRow::everywhere()]
    }

    fn keys_of(&self, change: &RowChange) -> Vec<Key> {
        vec![change.key.clone()]
    }

    fn all_keys(&self, snapshot: &Snapshot) -> Vec<Key> {
        let prefix = ClientTokenRow::everywhere();
        snapshot
            .scan(&prefix)
            .map(|row| row.key().clone())
            .collect()
    }

    fn reconcile(&self, snapshot: &Snapshot, now: Timestamp, key: &Key) -> Plan {
        let Some(read) = snapshot.read_key::<ClientTokenRow>(key) else {
            return Plan::nothing();
        };
        let until = read.created_at + CLIENT_TOKEN_RETENTION;
        if now < until {
            return Plan::wait_until(until);
        }
        let mut transaction = Transaction::new();
        transaction.expect_read(&read).delete(key.clone());
        transaction.into()
    }
}
