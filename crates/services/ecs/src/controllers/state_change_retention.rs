//! Removes events that were there long enough to be delivered, the oldest first.
//!
//! What always holds: what is left is at most so old, at most so many rows and at most so many bytes, as of
//! the last look, which is once a minute: events are written all the time, and none of them wakes this.
//! Whoever delivers them, or keeps them for the history, has that long to fall behind.

use std::time::Duration;

use gantry_env::Timestamp;
use gantry_reconcile::{Controller, Plan};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table, Transaction};

use crate::tables::StateChangesRow;

/// How long an event waits for whoever delivers it.
pub const STATE_CHANGE_RETENTION: Duration = Duration::from_secs(60 * 60);

/// How many rows, of one or more events each, an account has in a region.
const ROWS_MAX: usize = 10_000;

/// How many bytes they take.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many one commit removes.
const REMOVED_AT_ONCE: usize = 90;

/// Looks at the events of one account and region: by the key of the oldest row.
#[derive(Debug, Clone, Copy)]
pub struct StateChangeRetention {
    rows_max: usize,
    bytes_max: usize,
}

impl Default for StateChangeRetention {
    fn default() -> Self {
        Self {
            rows_max: ROWS_MAX,
            bytes_max: BYTES_MAX,
        }
    }
}

impl StateChangeRetention {
    /// With other bounds, for tests that want to see them without writing much.
    pub fn bounded(rows_max: usize, bytes_max: usize) -> Self {
        Self {
            rows_max,
            bytes_max,
        }
    }
}

impl Controller for StateChangeRetention {
    type Key = Key;

    fn name(&self) -> &'static str {
        "ecs-state-change-retention"
    }

    fn watches(&self) -> Vec<Prefix> {
        Vec::new()
    }

    fn keys_of(&self, _change: &RowChange) -> Vec<Key> {
        Vec::new()
    }

    fn all_keys(&self, snapshot: &Snapshot) -> Vec<Key> {
        let places = snapshot.places().into_iter();
        places
            .map(|(account, region)| StateChangesRow::key(&account, &region, ""))
            .collect()
    }

    fn reconcile(&self, snapshot: &Snapshot, now: Timestamp, key: &Key) -> Plan {
        let prefix = StateChangesRow::prefix(&key.account(), &key.region());
        let (mut rows, mut bytes) = (0, 0);
        for row in snapshot.scan(&prefix) {
            rows += 1;
            bytes += row.value().len();
        }
        let mut transaction = Transaction::new();
        for (removed, row) in snapshot.scan(&prefix).enumerate() {
            // The names begin with the time, so the first that is young enough is followed by none older.
            let is_old =
                written_at(row.key().name()).is_none_or(|at| at + STATE_CHANGE_RETENTION <= now);
            if !is_old && rows <= self.rows_max && bytes <= self.bytes_max {
                break;
            }
            if removed == REMOVED_AT_ONCE {
                return Plan {
                    again_at: Some(now),
                    ..Plan::from(transaction)
                };
            }
            rows -= 1;
            bytes -= row.value().len();
            transaction.delete(row.key().clone());
        }
        transaction.into()
    }
}

fn written_at(name: &str) -> Option<Timestamp> {
    let (millis, _) = name.split_once('-')?;
    millis.parse().ok().map(Timestamp::from_millis)
}
