//! Which store this is.
//!
//! One row, written by the store's first commit and never again. Agents remember it: a store that
//! was restored from an older copy, or made anew, must not tell them to stop tasks it knows nothing of.

use gantry_arn::{AccountId, Region};
use gantry_env::{Env, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Snapshot, Table, Transaction};

const NAME: &str = "incarnation";

/// The table that holds the one row.
#[derive(Debug)]
pub struct Incarnation;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationRow {
    pub id: String,
    pub created_at: Timestamp,
}

impl Table for Incarnation {
    type Row = IncarnationRow;
    const SERVICE: &'static str = "gantry";
    const KIND: &'static str = "store";
    const SCHEMA: u16 = 1;
}

impl Incarnation {
    /// The first transaction of every store.
    pub(crate) fn creation(id: String, created_at: Timestamp) -> Transaction {
        let row = IncarnationRow { id, created_at };
        let mut transaction = Transaction::new();
        transaction.create::<Self>(&AccountId::default(), &Region::global(), NAME, &row);
        transaction
    }
}

pub(crate) fn draw(env: &Env) -> String {
    hex::encode(env.entropy.bytes16())
}

pub(crate) fn of(snapshot: &Snapshot) -> String {
    let row = snapshot.read::<Incarnation>(&AccountId::default(), &Region::global(), NAME);
    row.map(|row| row.id.clone()).unwrap_or_default()
}
