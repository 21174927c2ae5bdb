//! Cursors, tails, deletion, many small streams, damage, locks and versions.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use gantry_archive::{Append, Archive, ArchiveError, MAX_APPEND_BYTES, Read, Record};
use gantry_env::{Env, Timestamp, VirtualEnv};

use crate::{open, read_all, run};

fn records(from: i64, count: i64) -> Vec<Record> {
    let record = |ms: i64| Record::new(Timestamp::from_millis(ms), format!("the line of {ms}"));
    (from..from + count).map(record).collect()
}

fn segments(directory: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(directory.join("segments")) else {
        return Vec::new();
    };
    // One may be deleted while we look.
    let length =
        |entry: std::io::Result<std::fs::DirEntry>| Some(entry.ok()?.metadata().ok()?.len());
    entries.filter_map(length).collect()
}

/// Waits until `is_so`, which other threads bring about.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let env = Env::real();
    let deadline = env.monotonic() + Duration::from_secs(20);
    while !is_so() {
        assert!(env.monotonic() < deadline, "{what} never came");
        env.sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_cursor_moves_with_its_records_or_not_at_all() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(directory.path()).await;
        let append = |before: Option<&'static str>, after: &'static str| {
            let append = Append::new("a", records(0, 2));
            append.with_cursor(before.map(Bytes::from), Bytes::from(after))
        };
        archive.append(vec![append(None, "1")]).await.unwrap();
        archive.append(vec![append(Some("1"), "2")]).await.unwrap();
        // The same batch sent again, by somebody who did not see the answer. Nothing of what
        // comes with it is taken either.
        let other = Append::new("b", records(0, 2));
        let refused = archive
            .append(vec![other, append(Some("1"), "2")])
            .await
            .unwrap_err();
        assert_eq!(refused, ArchiveError::CursorMoved { stream: "a".into() });
        assert_eq!(archive.stream("b").unwrap(), None);
        // An append without one leaves it.
        archive
            .append(vec![Append::new("a", records(4, 1))])
            .await
            .unwrap();
        drop(archive);
        let info = open(directory.path()).await.stream("a").unwrap().unwrap();
        assert_eq!((info.next_offset, info.cursor), (5, Some(Bytes::from("2"))));
        assert_eq!(
            (info.first_time, info.last_time),
            (Some(Timestamp::EPOCH), Some(Timestamp::from_millis(4)))
        );
    });
}

#[test]
fn a_cursor_may_move_without_records() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(directory.path()).await;
        let append = Append::new("a", Vec::new()).with_cursor(None, Bytes::from("x"));
        assert_eq!(archive.append(vec![append]).await.unwrap(), [0]);
        let info = archive.stream("a").unwrap().unwrap();
        assert_eq!(
            (info.first_offset, info.next_offset, info.first_time),
            (0, 0, None)
        );
        assert_eq!(info.cursor, Some(Bytes::from("x")));
    });
}

#[test]
fn of_many_who_expect_one_cursor_one_gets_through() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(directory.path()).await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..16 {
            let archive = archive.clone();
            let append = Append::new("a", records(number, 1));
            let append = append.with_cursor(None, Bytes::from(number.to_string()));
            tasks.spawn(async move { archive.append(vec![append]).await });
        }
        let outcomes = tasks.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert_eq!(archive.stream("a").unwrap().unwrap().next_offset, 1);
    });
}

#[test]
fn appends_that_wait_together_share_one_sync() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(directory.path()).await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..200 {
            let archive = archive.clone();
            let append = Append::new(format!("s{}", number % 7), records(number, 1));
            tasks.spawn(async move { archive.append(vec![append]).await.unwrap() });
        }
        tasks.join_all().await;
        let counters = archive.counters();
        assert_eq!(counters.appended_records, 200);
        assert!(counters.syncs < 150, "{counters:?}");
    });
}

#[test]
fn a_tail_is_told_of_each_append_and_of_no_other_stream() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(directory.path()).await;
        let (mut tail, other) = (archive.tail("a"), archive.tail("b"));
        let writer = archive.clone();
        let writing = tokio::spawn(async move {
            for number in 0..50 {
                writer
                    .append(vec![Append::new("a", records(number, 1))])
                    .await
                    .unwrap();
            }
        });
        let mut read = Read::forward("a");
        let mut seen = Vec::new();
        while seen.len() < 50 {
            tail.changed().await;
            let page = archive.read(&read).await.unwrap();
            read.from = page.next;
            seen.extend(page.records.into_iter().map(|record| record.offset));
        }
        writing.await.unwrap();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert!(!other.has_changed());
    });
}

#[test]
fn thousands_of_small_streams_are_a_handful_of_files() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::open_with(directory.path(), VirtualEnv::seeded(1).env(), 64 * 1024)
            .await
            .unwrap();
        for batch in 0..30 {
            let stream =
                |number| Append::new(format!("task/{:04}", batch * 100 + number), records(0, 3));
            archive
                .append((0..100).map(stream).collect())
                .await
                .unwrap();
        }
        eventually("a segment", || archive.counters().sealed_segments > 0).await;
        assert!(segments(directory.path()).len() < 10);
        assert_eq!(archive.streams("task/", None, 5000).unwrap().len(), 3000);
        let page = archive.streams("task/12", Some("task/1249"), 10).unwrap();
        assert_eq!((page.len(), page[0].name.as_str()), (10, "task/1250"));
        for name in ["task/0000", "task/1234", "task/2999"] {
            assert_eq!(read_all(&archive, Read::forward(name)).await.len(), 3);
        }
    });
}

#[test]
fn what_is_deleted_gives_its_space_back() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(directory.path()).await;
        for number in 0..40 {
            // Bytes that do not compress, so that sizes mean something.
            let payload = |seed| {
                let mut payload = vec![0; 500];
                VirtualEnv::seeded(seed).env().entropy.fill(&mut payload);
                payload
            };
            let of = |stream: &str, seed| {
                let record = Record::new(Timestamp::from_millis(number), payload(seed));
                Append::new(stream, vec![record])
            };
            let seed = number as u64;
            archive
                .append(vec![
                    of("kept", seed),
                    of("dropped", seed + 1000),
                    of("old", seed + 2000),
                ])
                .await
                .unwrap();
        }
        let kept = read_all(&archive, Read::forward("kept")).await;
        eventually("segments", || {
            segments(directory.path()).iter().sum::<u64>() > 40_000
        })
        .await;

        assert_eq!(
            archive
                .delete_streams(vec!["dropped".into(), "nothing".into()])
                .await
                .unwrap(),
            1
        );
        assert!(
            archive
                .delete_before("old", Timestamp::from_millis(1000))
                .await
                .unwrap()
                == 40
        );
        let old = archive.stream("old").unwrap().unwrap();
        assert_eq!((old.first_offset, old.next_offset, old.bytes), (40, 40, 0));
        eventually("space", || {
            segments(directory.path()).iter().sum::<u64>() < 45_000
        })
        .await;
        assert_eq!(archive.stream("dropped").unwrap(), None);
        assert_eq!(read_all(&archive, Read::forward("kept")).await, kept);

        // The last stream gone, nothing is left; and a new one of the same name begins anew.
        archive
            .delete_streams(vec!["kept".into(), "old".into()])
            .await
            .unwrap();
        eventually("no segment", || {
            segments(directory.path()).is_empty() && archive.counters().sealed_segments > 0
        })
        .await;
        assert_eq!(
            archive
                .append(vec![Append::new("kept", records(0, 1))])
                .await
                .unwrap(),
            [0]
        );
    });
}

#[test]
fn a_segment_that_was_never_recorded_is_deleted_at_the_next_start() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()).await);
        let orphan = directory.path().join("segments").join("000000000009.seg");
        std::fs::write(&orphan, "half a segment").unwrap();
        drop(open(directory.path()).await);
        assert!(!orphan.exists());
    });
}

#[test]
fn a_damaged_segment_is_an_error_and_not_wrong_records() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(directory.path()).await;
        archive
            .append(vec![Append::new("a", records(0, 500))])
            .await
            .unwrap();
        eventually("a segment", || archive.counters().sealed_segments > 0).await;
        let entry = std::fs::read_dir(directory.path().join("segments"))
            .unwrap()
            .next()
            .unwrap();
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        let refused = archive.read(&Read::forward("a")).await.unwrap_err();
        assert!(matches!(refused, ArchiveError::Io { .. }), "{refused}");
    });
}

#[test]
fn limits_locks_and_versions_are_refused_in_words() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let archive = open(directory.path()).await;
        let big = Record::new(Timestamp::EPOCH, vec![0; MAX_APPEND_BYTES]);
        let refused = archive
            .append(vec![Append::new("a", vec![big])])
            .await
            .unwrap_err();
        assert!(matches!(refused, ArchiveError::TooLarge { .. }));

        let again = Archive::open(directory.path(), VirtualEnv::seeded(1).env()).await;
        let refused = again.err().unwrap().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(archive);

        let catalog = rusqlite::Connection::open(directory.path().join("catalog.sqlite")).unwrap();
        catalog.pragma_update(None, "user_version", 9).unwrap();
        drop(catalog);
        let again = Archive::open(directory.path(), VirtualEnv::seeded(1).env()).await;
        let refused = again.err().unwrap().to_string();
        assert!(
            refused.contains("archive version 9, and this Gantry knows version 1"),
            "{refused}"
        );
    });
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
    let Some(disk) = TinyDisk::mount(3072) else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    run(async {
        let ballast = disk.0.path().join("ballast");
        std::fs::write(&ballast, vec![0; 1024 * 1024]).unwrap();
        let directory = disk.0.path().join("archive");
        let env = VirtualEnv::seeded(1).env();
        let archive = Archive::open_with(&directory, env.clone(), 64 * 1024)
            .await
            .unwrap();
        let append = |number: u64| {
            let mut payload = vec![0; 10_000];
            env.entropy.fill(&mut payload);
            let record = Record::new(Timestamp::from_millis(number as i64), payload);
            let before = (number > 0).then(|| Bytes::from(number.to_string()));
            let after = Bytes::from((number + 1).to_string());
            vec![Append::new("a", vec![record]).with_cursor(before, after)]
        };
        let mut number = 0;
        let refused = loop {
            match archive.append(append(number)).await {
                Ok(_) => number += 1,
                Err(error) => break error,
            }
            assert!(number < 1000, "the disk was never full");
        };
        assert!(matches!(refused, ArchiveError::Io { .. }), "{refused}");
        assert_eq!(archive.stream("a").unwrap().unwrap().next_offset, number);

        std::fs::remove_file(&ballast).unwrap();
        archive.append(append(number)).await.unwrap();
        let before = read_all(&archive, Read::forward("a")).await;
        assert_eq!(before.len() as u64, number + 1);
        drop(archive);
        let archive = Archive::open_with(&directory, env.clone(), 64 * 1024)
            .await
            .unwrap();
        assert_eq!(read_all(&archive, Read::forward("a")).await, before);
    });
}
