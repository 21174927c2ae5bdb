//! One row, its revision, and one change of a row.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Key, Table};

/// How many commits have changed something, up to and including this one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// A row as it stands at one revision. Cloning shares it.
#[derive(Clone)]
pub struct Row {
    inner: Arc<Inner>,
}

struct Inner {
    key: Key,
    schema: u16,
    value: Bytes,
    revision: Revision,
    /// The value as its table's type, kept from the first time that somebody asked, so that
    /// listing thousands of rows does not parse their JSON each time.
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Row {
    pub(crate) fn new(key: Key, schema: u16, value: Bytes, revision: Revision) -> Self {
        Self {
            inner: Arc::new(Inner {
                key,
                schema,
                value,
                revision,
                decoded: OnceLock::new(),
            }),
        }
    }

    pub fn key(&self) -> &Key {
        &self.inner.key
    }

    /// The version of the value's form.
    pub fn schema(&self) -> u16 {
        self.inner.schema
    }

    /// JSON.
    pub fn value(&self) -> &Bytes {
        &self.inner.value
    }

    /// The commit that last wrote this row.
    pub fn revision(&self) -> Revision {
        self.inner.revision
    }

    /// The value as `T`'s type, decoded at most once as long as one type is asked for.
    pub fn decode<T: Table>(&self) -> Result<Arc<T::Row>, RowError> {
        if let Some(decoded) = self.inner.decoded.get()
            && let Ok(row) = decoded.clone().downcast::<T::Row>()
        {
            return Ok(row);
        }
        let row = Arc::new(self.parse::<T>()?);
        // Whoever comes second keeps a copy of his own: both are right.
        let _ = self.inner.decoded.set(row.clone());
        Ok(row)
    }

    fn parse<T: Table>(&self) -> Result<T::Row, RowError> {
        let parsed = match self.schema() {
            schema if schema == T::SCHEMA => {
                serde_json::from_slice(self.value()).map_err(|error| error.to_string())
            }
            older if older < T::SCHEMA => T::upgrade(older, self.value()),
            newer => Err(format!(
                "it was written by a newer Gantry (schema {newer}, this one knows {})",
                T::SCHEMA
            )),
        };
        parsed.map_err(|reason| RowError {
            key: self.key().clone(),
            reason,
        })
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        let of = |row: &Self| (row.schema(), row.revision());
        Arc::ptr_eq(&self.inner, &other.inner)
            || (of(self) == of(other) && self.key() == other.key() && self.value() == other.value())
    }
}

impl Eq for Row {}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the value: it may hold a secret, and rows end up in logs.
        write!(f, "{}@{}", self.key(), self.revision())
    }
}

/// A row whose value is not what its table says. That is a fault of a program or a disk, or a
/// store from a newer Gantry; it is never made by a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row {key} cannot be read: {reason}")]
pub struct RowError {
    pub key: Key,
    pub reason: String,
}

/// What one commit did to one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    pub key: Key,
    /// The commit's revision.
    pub revision: Revision,
    /// The row now, or `None` if it was deleted.
    pub row: Option<Row>,
    /// The row before, or `None` if it was created.
    pub previous: Option<Row>,
}

impl RowChange {
    /// The row now, or if it was deleted, as it was last: what tells a controller whose row it is.
    pub fn latest(&self) -> Option<&Row> {
        self.row.as_ref().or(self.previous.as_ref())
    }
}
