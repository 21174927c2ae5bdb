//! The archive's tests: against a model, through restarts and deletions, and under kills.

mod crash;
mod lifecycle;
mod model;

use std::path::Path;

use gantry_archive::{Archive, Read, StoredRecord};
use gantry_env::VirtualEnv;

/// An archive that makes a segment of every few KiB.
pub async fn open(directory: &Path) -> Archive {
    let env = VirtualEnv::seeded(1).env();
    Archive::open_with(directory, env, 4 * 1024).await.unwrap()
}

pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

/// All pages of a read, one after the other.
pub async fn read_all(archive: &Archive, mut read: Read) -> Vec<StoredRecord> {
    let mut records = Vec::new();
    loop {
        let page = archive.read(&read).await.unwrap();
        let is_empty = page.records.is_empty();
        records.extend(page.records);
        if page.is_end || is_empty {
            return records;
        }
        read.from = page.next;
    }
}
