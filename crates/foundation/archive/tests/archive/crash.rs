//! Kills a process in the middle of appending and sealing, again and again.
//!
//! Every append writes two records to each of two streams, with a cursor that counts appends, and
//! is printed only when it was acknowledged. Afterwards the cursors, the streams and what was
//! printed must agree.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use gantry_archive::{Append, Archive, Read, Record};
use gantry_env::{Env, Timestamp};

use crate::{open, read_all, run};

const DIRECTORY: &str = "GANTRY_ARCHIVE_CRASH_TEST_DIRECTORY";
const LIVES: usize = 150;

/// Not a test of its own: the process that is killed. It ends only that way.
#[test]
#[allow(
    clippy::print_stdout,
    reason = "the acknowledgements go to the parent by the pipe"
)]
#[ignore = "run by `nothing_acknowledged_is_lost_doubled_or_half_done`"]
fn the_process_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    run(async {
        let archive = open(Path::new(&directory)).await;
        println!("open");
        let mut number = number_of(&archive, "a");
        loop {
            archive.append(append_of(number)).await.unwrap();
            number += 1;
            println!("{number}");
        }
    });
}

fn append_of(number: u64) -> Vec<Append> {
    let of = |stream: &str| {
        let padding = "x".repeat((number as usize * 97) % 400);
        let record = |half| {
            let at = Timestamp::from_millis(number as i64);
            Record::new(at, format!("{stream} {number}/{half} {padding}"))
        };
        let before = (number > 0).then(|| Bytes::from(number.to_string()));
        Append::new(stream, vec![record(0), record(1)])
            .with_cursor(before, Bytes::from((number + 1).to_string()))
    };
    vec![of("a"), of("b")]
}

fn number_of(archive: &Archive, stream: &str) -> u64 {
    let cursor = archive.stream(stream).unwrap().and_then(|info| info.cursor);
    let text = cursor.map(|cursor| String::from_utf8(cursor.to_vec()).unwrap());
    text.map_or(0, |text| text.parse().unwrap())
}

fn live_and_die(directory: &Path, life: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "crash::the_process_that_is_killed",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The test harness prints a line or two before.
    while lines.next().unwrap().unwrap() != "open" {}
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let lines = lines.map_while(Result::ok);
            lines
                .filter_map(|line| line.parse().ok())
                .last()
                .unwrap_or(0)
        });
        // A life is a length of time, not a condition to wait for.
        std::thread::sleep(life);
        child.kill().unwrap();
        child.wait().unwrap();
        reading.join().unwrap()
    })
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_half_done() {
    let directory = tempfile::tempdir().unwrap();
    let chance = Env::real().entropy;
    let mut acknowledged = 0;
    for life in 0..LIVES {
        let printed = live_and_die(
            directory.path(),
            Duration::from_micros(chance.u64() % 30_000),
        );
        let floor = acknowledged.max(printed);
        run(async {
            let archive = open(directory.path()).await;
            let number = number_of(&archive, "a");
            assert!(
                // At most the one append that was under way may be there unacknowledged.
                (floor..=floor + 1).contains(&number),
                "life {life}: {floor} were acknowledged, {number} are there"
            );
            assert_eq!(
                number_of(&archive, "b"),
                number,
                "life {life}: half an append"
            );
            for stream in ["a", "b"] {
                let info = archive.stream(stream).unwrap();
                assert_eq!(
                    info.map_or(0, |info| info.next_offset),
                    number * 2,
                    "life {life}"
                );
                // The end each time, everything now and then: reading it all would take longest.
                let from = if life % 25 == 0 {
                    0
                } else {
                    (number * 2).saturating_sub(100)
                };
                let records = read_all(&archive, Read::forward(stream).from_offset(from)).await;
                assert_eq!(records.len() as u64, number * 2 - from);
                for (offset, record) in (from..).zip(records) {
                    let begins = format!("{stream} {}/{} ", offset / 2, offset % 2);
                    assert_eq!(record.offset, offset);
                    assert!(
                        record.payload.starts_with(begins.as_bytes()),
                        "life {life}: {record:?}"
                    );
                }
            }
            acknowledged = number;
        });
    }
    assert!(
        acknowledged > LIVES as u64,
        "only {acknowledged} appends prove nothing"
    );
    let segments = std::fs::read_dir(directory.path().join("segments"))
        .unwrap()
        .count();
    assert!(segments > 10, "only {segments} segments");
    eprintln!("{LIVES} lives, {acknowledged} appends, {segments} segments");
}
