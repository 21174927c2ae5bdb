//! Typed rows: a table names its service, kind and schema version, and the type of its rows.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use gantry_arn::{AccountId, Region};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Key, Prefix, Revision, Row};

/// The rows of one kind. Usually implemented by the row's own type, with `type Row = Self`.
pub trait Table {
    type Row: Serialize + DeserializeOwned + Send + Sync + 'static;

    const SERVICE: &'static str;
    const KIND: &'static str;
    /// The version of the row's form. It grows when rows that are already stored would no longer
    /// mean the same, and [`Table::upgrade`] then reads the older ones.
    const SCHEMA: u16;

    /// Reads a row that was written with an older schema. The error says what is in the way.
    fn upgrade(from: u16, value: &[u8]) -> Result<Self::Row, String> {
        let _ = value;
        Err(format!(
            "its schema {from} is no longer understood (now {})",
            Self::SCHEMA
        ))
    }

    fn key(account: &AccountId, region: &Region, name: &str) -> Key {
        Key::new(account, region, Self::SERVICE, Self::KIND, name)
    }

    /// All rows of this table in one account and region.
    fn prefix(account: &AccountId, region: &Region) -> Prefix {
        Prefix::kind(account, region, Self::SERVICE, Self::KIND)
    }

    /// All rows of this table.
    fn everywhere() -> Prefix {
        Prefix::everywhere(Self::SERVICE, Self::KIND)
    }

    /// Whether `key` names a row of this table.
    fn holds(key: &Key) -> bool {
        key.service() == Self::SERVICE && key.kind() == Self::KIND
    }
}

/// A row that was read: its value, and the revision to expect when writing on top of it.
pub struct Versioned<R> {
    pub key: Key,
    pub revision: Revision,
    pub row: Arc<R>,
}

/// A row's value.
#[allow(clippy::panic, reason = "the promise of `Snapshot::read`, see there")]
pub(crate) fn value_of<T: Table>(row: &Row) -> Arc<T::Row> {
    match row.decode::<T>() {
        Ok(decoded) => decoded,
        Err(error) => panic!("{error}"),
    }
}

impl<R> Versioned<R> {
    pub(crate) fn of<T: Table<Row = R>>(row: &Row) -> Self {
        Self {
            key: row.key().clone(),
            revision: row.revision(),
            row: value_of::<T>(row),
        }
    }

    pub fn name(&self) -> &str {
        self.key.name()
    }
}

impl<R> Deref for Versioned<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.row
    }
}

impl<R> Clone for Versioned<R> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            revision: self.revision,
            row: self.row.clone(),
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for Versioned<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} {:?}", self.key, self.revision, self.row)
    }
}
