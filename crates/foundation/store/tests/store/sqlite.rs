//! What is SQLite's own: files, locks, versions, full disks, shared fsyncs.

use std::path::Path;
use std::sync::{Arc, Barrier};

use gantry_env::{Env, VirtualEnv};
use gantry_store::{CommitError, OpenError, Revision, SqliteStore, Store, Transaction};

use crate::backends::{key, rows, run};

fn open(directory: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(directory, VirtualEnv::seeded(5).env())
}

fn put(name: &str, value: impl Into<Vec<u8>>) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.put(key(name), 1, value.into());
    transaction
}

#[test]
fn a_store_opened_again_is_the_same_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    run(store.commit(put("a", "1"))).unwrap();
    run(store.commit(put("b", "2"))).unwrap();
    let (before, incarnation) = (rows(&store.snapshot()), store.incarnation());
    drop(store);
    // Another seed would draw another incarnation.
    let store = SqliteStore::open(directory.path(), VirtualEnv::seeded(6).env()).unwrap();
    assert_eq!(rows(&store.snapshot()), before);
    assert_eq!(store.incarnation(), incarnation);
    assert_eq!(run(store.commit(put("c", "3"))), Ok(Revision(4)));
}

#[test]
fn a_directory_in_use_is_refused_and_says_by_whom() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let refused = open(directory.path()).err().unwrap().to_string();
    assert!(
        refused.contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    drop(store);
    open(directory.path()).unwrap();
}

#[test]
fn an_unknown_version_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let path = directory.path().join("rows.sqlite");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let refused = open(directory.path()).err().unwrap();
    assert!(matches!(
        refused,
        OpenError::UnknownVersion { found: 2, .. }
    ));
    assert!(
        refused
            .to_string()
            .contains("store version 2, and this Gantry knows version 1"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.sqlite");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(
        open(directory.path()),
        Err(OpenError::NotAStore { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let text = b"this is not a database at all, only some text that stands here".repeat(20);
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(
        open(directory.path()),
        Err(OpenError::NotAStore { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), text);
}

#[test]
fn commits_that_wait_together_share_one_sync() {
    const WRITERS: usize = 64;
    const EACH: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()).unwrap());
    let start = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                start.wait();
                for number in 0..EACH {
                    run(store.commit(put(&format!("{writer}/{number}"), "x"))).unwrap();
                }
            });
        }
    });
    let counters = store.counters();
    assert_eq!(counters.commits, (WRITERS * EACH) as u64);
    // With one sync a commit there would be as many; how few there are depends on the disk.
    assert!(counters.syncs < counters.commits / 2, "{counters:?}");
    assert_eq!(store.snapshot().revision(), Revision(1 + counters.commits));
}

#[test]
fn everything_handed_in_is_committed_before_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
    for number in 0..50 {
        let mut commit = store.commit(put(&number.to_string(), "x"));
        // Polled once, it is handed in; dropped, nobody waits for its answer.
        let _ = commit.as_mut().poll(&mut waker);
    }
    drop(store);
    assert_eq!(rows(&open(directory.path()).unwrap().snapshot()).len(), 50);
}

#[test]
fn thousands_of_rows_are_loaded_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    for batch in 0..50 {
        let mut transaction = Transaction::new();
        for number in 0..100 {
            transaction.put(key(&format!("{number:03}/{batch:03}")), 1, vec![b'x'; 1024]);
        }
        run(store.commit(transaction)).unwrap();
    }
    let before = rows(&store.snapshot());
    drop(store);
    let after = rows(&open(directory.path()).unwrap().snapshot());
    assert_eq!(after.len(), 5000);
    assert_eq!(after, before);
}

#[test]
fn the_log_stays_small_under_writers_that_never_pause() {
    const WRITERS: usize = 64;
    const EACH: usize = 1200;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    run(async {
        let commits = (0..WRITERS).map(|writer| {
            let store = &store;
            async move {
                for number in 0..EACH {
                    // A stride that is prime to the number of rows: neighbours in time are on
                    // different pages, so that each commit costs the log a page or more.
                    let name = format!("{:04}", (writer * EACH + number) * 83 % 5000);
                    store.commit(put(&name, vec![b'x'; 1000])).await.unwrap();
                }
            }
        });
        futures_util::future::join_all(commits).await
    });
    let log = directory.path().join("rows.sqlite-wal");
    let mebibytes = std::fs::metadata(log).unwrap().len() / (1024 * 1024);
    eprintln!("{mebibytes} MiB");
    assert!(mebibytes < 50, "{mebibytes} MiB");
}

/// A tiny file system of its own, unmounted when it is dropped.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    /// `None` where mounting is not allowed.
    fn mount(kibibytes: usize) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={kibibytes}k"),
                "gantry-test",
            ])
            .arg(directory.path())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(directory))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

#[test]
fn a_full_disk_is_an_error_that_changes_nothing_and_passes() {
    let Some(disk) = TinyDisk::mount(2048) else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 512 * 1024]).unwrap();
    let directory = disk.0.path().join("store");
    let store = SqliteStore::open(&directory, Env::real()).unwrap();
    let mut last = store.snapshot().revision();
    let mut number = 0;
    let refused = loop {
        // Two rows each, so that half of a commit could be seen.
        let mut transaction = put(&format!("a{number}"), vec![b'x'; 20_000]);
        transaction.put(key(&format!("b{number}")), 1, vec![b'x'; 20_000]);
        match run(store.commit(transaction)) {
            Ok(revision) => last = revision,
            Err(error) => break error,
        }
        number += 1;
        assert!(number < 1000, "the disk was never full");
    };
    assert!(matches!(refused, CommitError::Io { .. }), "{refused}");
    assert_eq!(store.snapshot().revision(), last);
    assert_eq!(rows(&store.snapshot()).len(), 2 * number);
    assert!(store.counters().failed_syncs > 0);

    // Small ones may or may not fit still; none is half done, and once there is space all fit.
    std::fs::remove_file(&ballast).unwrap();
    run(store.commit(put("after", vec![b'x'; 20_000]))).unwrap();
    let before = rows(&store.snapshot());
    assert_eq!(before.len(), 2 * number + 1);
    drop(store);
    let store = SqliteStore::open(&directory, Env::real()).unwrap();
    assert_eq!(rows(&store.snapshot()), before);
}
