//! Kills a process in the middle of its commits, again and again, and looks at what is left.
//!
//! Each commit writes four rows with one number, by several writers at once, and is printed only
//! when it was acknowledged. So afterwards every printed number must be there, and the four rows
//! of each writer must agree: a commit is whole or it never was.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use gantry_env::{Env, VirtualEnv};
use gantry_store::{Snapshot, SqliteStore, Store, Transaction};

use crate::backends::{key, run};

const DIRECTORY: &str = "GANTRY_CRASH_TEST_DIRECTORY";
const WRITERS: usize = 4;
const ROWS: usize = 4;
const LIVES: usize = 300;

/// Not a test of its own: the process that is killed. It ends only that way.
#[test]
#[allow(
    clippy::print_stdout,
    reason = "the acknowledgements go to the parent by the pipe"
)]
#[ignore = "run by `nothing_acknowledged_is_lost_and_nothing_is_half_done`"]
fn the_process_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let store = SqliteStore::open(directory, Env::real()).unwrap();
    let output = Mutex::new(());
    println!("open");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, output) = (&store, &output);
            scope.spawn(move || {
                let mut number = number_of(&store.snapshot(), writer, 0);
                loop {
                    number += 1;
                    run(store.commit(commit_of(writer, number))).unwrap();
                    let _one_line = output.lock().unwrap();
                    println!("{writer} {number}");
                }
            });
        }
    });
}

fn commit_of(writer: usize, number: u64) -> Transaction {
    let mut transaction = Transaction::new();
    for row in 0..ROWS {
        // Of changing sizes, so that pages are split and overflow.
        let padding = "x".repeat((number as usize * 997 + row * 61) % 6000);
        transaction.put(name_of(writer, row), 1, format!("{number} {padding}"));
    }
    // Rows that come and go, so that pages are freed as well.
    transaction.put(key(&format!("{writer}/{number}")), 1, "x");
    if number > 20 {
        transaction.delete(key(&format!("{writer}/{}", number - 20)));
    }
    transaction
}

fn name_of(writer: usize, row: usize) -> gantry_store::Key {
    key(&format!("{writer}-{row}"))
}

fn number_of(snapshot: &Snapshot, writer: usize, row: usize) -> u64 {
    let Some(row) = snapshot.get(&name_of(writer, row)) else {
        return 0;
    };
    let text = std::str::from_utf8(row.value()).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Runs the process for about `life` after it has opened the store, and gives back the last number
/// of each writer that it printed.
fn live_and_die(directory: &Path, life: Duration) -> [u64; WRITERS] {
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
            let mut printed = [0; WRITERS];
            // The last line may have been cut off: then nobody was told of it.
            for line in lines.map_while(Result::ok) {
                let mut words = line.split(' ').map(str::parse::<u64>);
                if let (Some(Ok(writer)), Some(Ok(number))) = (words.next(), words.next()) {
                    printed[writer as usize] = number;
                }
            }
            printed
        });
        // A life is a length of time, not a condition to wait for.
        std::thread::sleep(life);
        child.kill().unwrap();
        child.wait().unwrap();
        reading.join().unwrap()
    })
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_done() {
    let directory = tempfile::tempdir().unwrap();
    let chance = Env::real().entropy;
    let mut acknowledged = [0; WRITERS];
    let (mut all, mut opened_with) = (0, gantry_store::Revision(0));
    for life in 0..LIVES {
        let printed = live_and_die(
            directory.path(),
            Duration::from_micros(chance.u64() % 30_000),
        );
        let store = SqliteStore::open(directory.path(), VirtualEnv::seeded(1).env()).unwrap();
        let snapshot = store.snapshot();
        for writer in 0..WRITERS {
            acknowledged[writer] = printed[writer].max(acknowledged[writer]);
            let numbers: Vec<u64> = (0..ROWS)
                .map(|row| number_of(&snapshot, writer, row))
                .collect();
            assert!(
                numbers.iter().all(|number| *number == numbers[0]),
                "life {life}: writer {writer} has half a commit: {numbers:?}"
            );
            assert!(
                // At most the one commit that was under way may be there unacknowledged.
                (acknowledged[writer]..=acknowledged[writer] + 1).contains(&numbers[0]),
                "life {life}: writer {writer} was told {}, and has {}",
                acknowledged[writer],
                numbers[0]
            );
            acknowledged[writer] = numbers[0];
        }
        assert!(snapshot.revision() >= opened_with);
        opened_with = snapshot.revision();
        all = acknowledged.iter().sum();
        // The revision counts commits: none was counted that is not there, or the reverse.
        assert_eq!(snapshot.revision().0, 1 + all);
    }
    assert!(
        all > LIVES as u64,
        "only {all} commits in {LIVES} lives prove nothing"
    );
    eprintln!("{LIVES} lives, {all} commits");
}
