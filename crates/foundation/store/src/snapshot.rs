//! Every row at one revision.
//!
//! The rows stand in a persistent ordered map, so a snapshot is cloned by copying one pointer and
//! committing on top of one copies only the path to the row that changes.

use std::ops::Bound;
use std::sync::Arc;

use gantry_arn::{AccountId, Region};
use rpds::RedBlackTreeMapSync;

use crate::table::value_of;
use crate::{Key, Prefix, Revision, Row, RowError, Table, Versioned};

/// How far the next of some names may be from the one before it to be walked to rather than sought.
const STEPS_MAX: usize = 8;

#[derive(Clone)]
pub struct Snapshot {
    rows: RedBlackTreeMapSync<Key, Row>,
    revision: Revision,
}

impl Snapshot {
    pub(crate) fn empty() -> Self {
        Self {
            rows: RedBlackTreeMapSync::new_sync(),
            revision: Revision::default(),
        }
    }

    /// The commit that this shows the rows after.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &Key) -> Option<&Row> {
        self.rows.get(key)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.size()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows under `prefix`, in the order of their keys.
    pub fn scan<'a>(&'a self, prefix: &'a Prefix) -> Box<dyn Iterator<Item = &'a Row> + 'a> {
        if !prefix.is_everywhere() {
            return Box::new(self.starting_with(prefix.text().to_owned()));
        }
        Box::new(
            Places {
                snapshot: self,
                next: Some(String::new()),
            }
            .flat_map(|place| {
                let text = format!("{place}{}", prefix.text());
                self.starting_with(text)
            }),
        )
    }

    /// The accounts and regions in which there are rows.
    pub fn places(&self) -> Vec<(AccountId, Region)> {
        let places = Places {
            snapshot: self,
            next: Some(String::new()),
        };
        places
            .filter_map(|place| {
                let (account, region) = place.split_once('\0')?;
                Some((
                    account.parse().ok()?,
                    region.trim_end_matches('\0').parse().ok()?,
                ))
            })
            .collect()
    }

    /// One row of a table.
    ///
    /// # Panics
    /// If the row is there but is not what the table says ([`RowError`]). To take it for absent
    /// would let somebody write over it; whoever opens a store calls [`Snapshot::check`] for each
    /// table first, so this ends nothing but a process whose memory or program is broken.
    pub fn read<T: Table>(
        &self,
        account: &AccountId,
        region: &Region,
        name: &str,
    ) -> Option<Versioned<T::Row>> {
        self.read_key::<T>(&T::key(account, region, name))
    }

    /// [`Snapshot::read`] by key: for the key of a change, or one that was kept.
    pub fn read_key<T: Table>(&self, key: &Key) -> Option<Versioned<T::Row>> {
        self.get(key).map(Versioned::of::<T>)
    }

    /// All rows of a table in one account and region, in the order of their names.
    /// Panics as [`Snapshot::read`] does.
    pub fn list<T: Table>(&self, account: &AccountId, region: &Region) -> Vec<Versioned<T::Row>> {
        self.list_prefix::<T>(account, region, "")
    }

    /// The rows of a table whose names begin with `name_prefix`.
    /// Panics as [`Snapshot::read`] does.
    pub fn list_prefix<T: Table>(
        &self,
        account: &AccountId,
        region: &Region,
        name_prefix: &str,
    ) -> Vec<Versioned<T::Row>> {
        let prefix = Prefix::names(account, region, T::SERVICE, T::KIND, name_prefix);
        self.scan(&prefix).map(Versioned::of::<T>).collect()
    }

    /// The values of a table's rows whose names begin with `name_prefix`, with their names and in
    /// their order: [`Snapshot::list_prefix`] for who reads thousands and writes none of them.
    /// Panics as [`Snapshot::read`] does.
    pub fn each<'a, T: Table>(
        &'a self,
        account: &AccountId,
        region: &Region,
        name_prefix: &str,
    ) -> impl Iterator<Item = (&'a str, Arc<T::Row>)> + use<'a, T> {
        let prefix = Prefix::names(account, region, T::SERVICE, T::KIND, name_prefix);
        self.starting_with(prefix.text().to_owned())
            .map(|row| (row.key().name(), value_of::<T>(row)))
    }

    /// The values of a table's rows by their names, which are given in ascending order: neighbours
    /// are found by walking from one to the next, which costs a tenth of looking each up.
    /// Panics as [`Snapshot::read`] does.
    pub fn read_in_order<T: Table>(
        &self,
        account: &AccountId,
        region: &Region,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Vec<Option<Arc<T::Row>>> {
        let prefix = Prefix::kind(account, region, T::SERVICE, T::KIND);
        let table = prefix.text();
        let mut walk = None;
        let mut find = |name: &str| {
            let mut steps = 0;
            loop {
                let Some(rows) = &mut walk else {
                    let from = Key::least_of(&format!("{table}{name}"));
                    let range = (Bound::Included(from), Bound::Unbounded);
                    walk = Some(self.rows.range(range).map(|(_, row)| row).peekable());
                    continue;
                };
                let row: Option<&Row> = rows.peek().copied();
                match row.and_then(|row| row.key().text().strip_prefix(table)) {
                    Some(at) if at < name && steps < STEPS_MAX => {
                        rows.next();
                        steps += 1;
                    }
                    Some(at) if at < name => walk = None,
                    Some(at) if at == name => return row.map(value_of::<T>),
                    _ => return None,
                }
            }
        };
        names.into_iter().map(|name| find(name.as_ref())).collect()
    }

    /// All rows of a table in every account and region. Panics as [`Snapshot::read`] does.
    pub fn list_everywhere<T: Table>(&self) -> Vec<Versioned<T::Row>> {
        let prefix = Prefix::everywhere(T::SERVICE, T::KIND);
        self.scan(&prefix).map(Versioned::of::<T>).collect()
    }

    /// Whether every row of a table can be read. To be called for each table when a store is
    /// opened, before anything is served, so that a store from a newer Gantry is refused in words.
    pub fn check<T: Table>(&self) -> Result<(), RowError> {
        let prefix = Prefix::everywhere(T::SERVICE, T::KIND);
        self.scan(&prefix)
            .try_for_each(|row| row.decode::<T>().map(drop))
    }

    pub(crate) fn insert(&mut self, row: Row) {
        self.rows.insert_mut(row.key().clone(), row);
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        self.rows.remove_mut(key);
    }

    pub(crate) fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    fn starting_with(&self, text: String) -> impl Iterator<Item = &Row> {
        let from = Key::least_of(&text);
        let range = self.rows.range((Bound::Included(from), Bound::Unbounded));
        range
            .map(|(_, row)| row)
            .take_while(move |row| row.key().text().starts_with(&text))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({:?}, {} rows)", self.revision, self.len())
    }
}

/// Walks from one account and region to the next by seeking, not by reading all that is between.
struct Places<'a> {
    snapshot: &'a Snapshot,
    next: Option<String>,
}

impl Iterator for Places<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let from = self.next.take()?;
        let bounds = (Bound::Included(Key::least_of(&from)), Bound::Unbounded);
        let (key, _) = self.snapshot.rows.range(bounds).next()?;
        let place = key.place();
        // A place ends with NUL, so what ends with the byte after it comes after all of its rows.
        self.next = Some(format!("{}\u{1}", &place[..place.len() - 1]));
        Some(place.to_owned())
    }
}
