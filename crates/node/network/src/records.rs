//! What is written down before the kernel is touched: the range, and each container's address and ports.
//!
//! ```text
//! pool.json               the range of addresses
//! attachments/SLOT.json   one container: whose, what it asked for, which ports it has
//! ```
//! What always holds: a file is whole or not there. They outlive this process, not the machine: after a
//! restart of the machine nothing in the kernel is left that they speak of, so they are not synced to disk.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use gantry_arn::TaskId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attachment::{AttachRequest, PortBinding};
use crate::pool::Pool;

/// A container of a task.
pub(crate) type Key = (TaskId, String);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub task: TaskId,
    pub container: String,
    /// Which of the range's addresses it has.
    pub slot: u32,
    /// `None` while only its address is set aside, because another container has a link to it.
    #[serde(default)]
    pub request: Option<AttachRequest>,
    #[serde(default)]
    pub bindings: Vec<PortBinding>,
}

#[derive(Serialize, Deserialize)]
struct PoolFile {
    pool: Pool,
}

#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
    pub pool: Option<Pool>,
    by_key: BTreeMap<Key, Record>,
    by_slot: BTreeMap<u32, Key>,
    last_slot: u32,
}

impl Records {
    /// Reads what an earlier process wrote. A file that cannot be read speaks of nothing that came to be.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let attachments = dir.join("attachments");
        std::fs::create_dir_all(&attachments)?;
        let mut records = Self {
            dir: dir.to_owned(),
            pool: read::<PoolFile>(&dir.join("pool.json")).map(|file| file.pool),
            by_key: BTreeMap::new(),
            by_slot: BTreeMap::new(),
            last_slot: 0,
        };
        for entry in std::fs::read_dir(&attachments)? {
            let path = entry?.path();
            match read::<Record>(&path) {
                Some(record) => records.insert(record),
                None => std::fs::remove_file(&path)?,
            }
        }
        Ok(records)
    }

    pub fn set_pool(&mut self, pool: Pool) -> io::Result<()> {
        write(&self.dir.join("pool.json"), &PoolFile { pool })?;
        self.pool = Some(pool);
        Ok(())
    }

    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.by_key.get(key)
    }

    pub fn at(&self, slot: u32) -> Option<&Record> {
        self.by_key.get(self.by_slot.get(&slot)?)
    }

    pub fn all(&self) -> impl Iterator<Item = &Record> {
        self.by_key.values()
    }

    pub fn keys_of(&self, task: TaskId) -> Vec<Key> {
        let keys = self.by_key.keys().filter(|(of, _)| *of == task);
        keys.cloned().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub fn free_slot(&self, pool: Pool) -> Option<u32> {
        pool.next_slot(self.last_slot, |slot| !self.by_slot.contains_key(&slot))
    }

    pub fn save(&mut self, record: Record) -> io::Result<()> {
        write(&self.file(record.slot), &record)?;
        self.insert(record);
        Ok(())
    }

    pub fn remove(&mut self, key: &Key) -> io::Result<()> {
        let Some(record) = self.by_key.get(key) else {
            return Ok(());
        };
        match std::fs::remove_file(self.file(record.slot)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.by_slot.remove(&record.slot);
        self.by_key.remove(key);
        Ok(())
    }

    fn insert(&mut self, record: Record) {
        let key = (record.task, record.container.clone());
        self.last_slot = record.slot;
        self.by_slot.insert(record.slot, key.clone());
        self.by_key.insert(key, record);
    }

    fn file(&self, slot: u32) -> PathBuf {
        self.dir.join("attachments").join(format!("{slot:x}.json"))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, serde_json::to_vec(value)?)?;
    std::fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_finds_what_was_written_and_throws_away_half_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut records = Records::open(dir.path()).unwrap();
        let task: TaskId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let record = Record {
            task,
            container: "web".to_owned(),
            slot: 2,
            request: Some(AttachRequest::default()),
            bindings: Vec::new(),
        };
        records.set_pool("10.0.0.0/24".parse().unwrap()).unwrap();
        records.save(record.clone()).unwrap();
        std::fs::write(dir.path().join("attachments/3.json"), "{\"task\":").unwrap();
        let mut again = Records::open(dir.path()).unwrap();
        assert_eq!(again.pool, records.pool);
        assert_eq!(again.all().collect::<Vec<_>>(), [&record]);
        assert_eq!(again.at(2), Some(&record));
        again.remove(&(task, "web".to_owned())).unwrap();
        assert!(Records::open(dir.path()).unwrap().is_empty());
    }
}
