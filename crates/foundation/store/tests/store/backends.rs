//! Each backend behind one handle, so that one test runs on all of them.

use std::future::Future;
use std::sync::Arc;

use gantry_arn::{AccountId, Region};
use gantry_env::VirtualEnv;
use gantry_store::{Key, MemoryStore, Revision, Snapshot, SqliteStore, Store};
use tempfile::TempDir;

pub struct Backend {
    pub store: Arc<dyn Store>,
    /// Holds SQLite's files until the test is over; dropped after the store.
    _directory: Option<TempDir>,
}

pub fn memory() -> Backend {
    Backend {
        store: Arc::new(MemoryStore::new()),
        _directory: None,
    }
}

pub fn sqlite() -> Backend {
    let directory = tempfile::tempdir().unwrap();
    let env = VirtualEnv::seeded(1).env();
    Backend {
        store: Arc::new(SqliteStore::open(directory.path(), env).unwrap()),
        _directory: Some(directory),
    }
}

/// Drives a future on this thread. Commits to SQLite are finished by its own thread, so any
/// runtime will do.
pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

pub fn key(name: &str) -> Key {
    key_in(&Region::default(), "task", name)
}

pub fn key_in(region: &Region, kind: &str, name: &str) -> Key {
    Key::new(&AccountId::default(), region, "ecs", kind, name)
}

/// Every row as text, to compare stores by.
pub fn rows(snapshot: &Snapshot) -> Vec<(String, u16, Vec<u8>, Revision)> {
    let all = gantry_store::Prefix::service_everywhere("ecs");
    let text = |row: &gantry_store::Row| {
        let key = row.key().to_string();
        (key, row.schema(), row.value().to_vec(), row.revision())
    };
    snapshot.scan(&all).map(text).collect()
}
