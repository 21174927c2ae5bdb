//! What is to change, and what must not have changed since it was read.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_arn::{AccountId, Region};

use crate::replica::Staged;
use crate::{CommitError, Key, Revision, Row, RowChange, Snapshot, Table, Versioned};

/// The most expectations and writes together, on every backend. etcd allows 128.
pub const MAX_OPERATIONS: usize = 100;

/// The most bytes of keys and values, on every backend. etcd allows 1.5 MiB.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Expectations and writes that hold or fail together. The last write of a key counts.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    expected: BTreeMap<Key, Option<Revision>>,
    writes: BTreeMap<Key, Write>,
    /// Why this can never be committed. It is told at the commit, so that whoever builds a
    /// transaction, a pure reconciler above all, has no errors to handle.
    refused: Option<CommitError>,
}

#[derive(Debug, Clone)]
enum Write {
    Put { schema: u16, value: Bytes },
    Delete,
}

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    /// The row must stand at this revision, or with `None` must not exist.
    pub fn expect(&mut self, key: Key, revision: Option<Revision>) -> &mut Self {
        if let Some(before) = self.expected.insert(key.clone(), revision)
            && before != revision
        {
            // Both cannot hold: whoever read the row twice saw it change.
            self.refused.get_or_insert(CommitError::Conflict { key });
        }
        self
    }

    pub fn put(&mut self, key: Key, schema: u16, value: impl Into<Bytes>) -> &mut Self {
        let value = value.into();
        self.writes.insert(key, Write::Put { schema, value });
        self
    }

    pub fn delete(&mut self, key: Key) -> &mut Self {
        self.writes.insert(key, Write::Delete);
        self
    }

    /// Puts a row of a table, whatever is there. See [`Transaction::expect_read`].
    pub fn write<T: Table>(
        &mut self,
        account: &AccountId,
        region: &Region,
        name: &str,
        row: &T::Row,
    ) -> &mut Self {
        self.write_key::<T>(T::key(account, region, name), row)
    }

    /// [`Transaction::write`] by key: for the key of a row that was read.
    pub fn write_key<T: Table>(&mut self, key: Key, row: &T::Row) -> &mut Self {
        match serde_json::to_vec(row) {
            Ok(value) => self.put(key, T::SCHEMA, value),
            Err(error) => {
                let reason = error.to_string();
                self.refused
                    .get_or_insert(CommitError::Invalid { key, reason });
                self
            }
        }
    }

    /// Puts a row of a table that must not exist yet.
    pub fn create<T: Table>(
        &mut self,
        account: &AccountId,
        region: &Region,
        name: &str,
        row: &T::Row,
    ) -> &mut Self {
        self.expect(T::key(account, region, name), None);
        self.write::<T>(account, region, name, row)
    }

    /// Puts a row on top of the one that was read, which must still be as it was.
    pub fn update<T: Table>(&mut self, read: &Versioned<T::Row>, row: &T::Row) -> &mut Self {
        self.expect_read(read);
        self.write_key::<T>(read.key.clone(), row)
    }

    /// Deletes a row of a table, whatever is there.
    pub fn remove<T: Table>(
        &mut self,
        account: &AccountId,
        region: &Region,
        name: &str,
    ) -> &mut Self {
        self.delete(T::key(account, region, name))
    }

    /// The row must still be as it was read.
    pub fn expect_read<R>(&mut self, read: &Versioned<R>) -> &mut Self {
        self.expect(read.key.clone(), Some(read.revision))
    }

    /// The row of a table must not exist.
    pub fn expect_absent<T: Table>(
        &mut self,
        account: &AccountId,
        region: &Region,
        name: &str,
    ) -> &mut Self {
        self.expect(T::key(account, region, name), None)
    }

    /// Adds all that `other` expects and writes; where both write a key, `other` counts.
    pub fn merge(&mut self, other: Self) -> &mut Self {
        for (key, revision) in other.expected {
            self.expect(key, revision);
        }
        self.writes.extend(other.writes);
        if let Some(refused) = other.refused {
            self.refused.get_or_insert(refused);
        }
        self
    }

    /// Every row that it expects or writes, some of them twice.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.expected.keys().chain(self.writes.keys())
    }

    /// How many operations this counts as.
    pub fn len(&self) -> usize {
        self.expected.len() + self.writes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.refused.is_none()
    }

    /// Whether this would write anything.
    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// The bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        let expected = self.expected.keys().map(|key| key.text().len());
        let writes = self.writes.iter().map(|(key, write)| {
            key.text().len()
                + match write {
                    Write::Put { value, .. } => value.len(),
                    Write::Delete => 0,
                }
        });
        expected.chain(writes).sum()
    }

    /// Whether any backend may take this.
    pub(crate) fn admit(&self) -> Result<(), CommitError> {
        let within = |unit, limit, actual| {
            if actual > limit {
                return Err(CommitError::TooLarge {
                    unit,
                    limit,
                    actual,
                });
            }
            Ok(())
        };
        within("operations", MAX_OPERATIONS, self.len())?;
        within("bytes", MAX_BYTES, self.bytes())?;
        self.refused.clone().map_or(Ok(()), Err)
    }

    /// Applies this to `rows` if they are as expected; otherwise leaves them as they are. All
    /// backends decide here, so none of them can decide differently.
    pub(crate) fn stage(&self, rows: &mut Snapshot) -> Result<Option<Staged>, CommitError> {
        for (key, expected) in &self.expected {
            if rows.get(key).map(Row::revision) != *expected {
                return Err(CommitError::Conflict { key: key.clone() });
            }
        }
        let revision = rows.revision().next();
        let mut changes = Vec::with_capacity(self.writes.len());
        for (key, write) in &self.writes {
            let previous = rows.get(key).cloned();
            let row = match write {
                Write::Put { schema, value } => {
                    let row = Row::new(key.clone(), *schema, value.clone(), revision);
                    rows.insert(row.clone());
                    Some(row)
                }
                Write::Delete if previous.is_none() => continue,
                Write::Delete => {
                    rows.remove(key);
                    None
                }
            };
            changes.push(RowChange {
                key: key.clone(),
                revision,
                row,
                previous,
            });
        }
        if changes.is_empty() {
            return Ok(None);
        }
        rows.set_revision(revision);
        Ok(Some(Staged { revision, changes }))
    }
}
