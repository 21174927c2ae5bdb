//! How fast SQLite commits: one row of 1 KiB each, by 1, 8 and 64 writers; and how fast a store of
//! 5,000 rows opens. `cargo xtask bench` runs it; by hand:
//! `cargo run --release -p gantry-store --example commit_bench [DIRECTORY]`.
//!
//! One line for each measurement, `name key=value …`, for people and for programs.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_arn::{AccountId, Region};
use gantry_env::Env;
use gantry_store::{Key, SqliteStore, Store, Transaction};

const ROW_BYTES: usize = 1024;
const ROWS: u64 = 5000;
const FOR: Duration = Duration::from_secs(5);

fn main() {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let root = directory.unwrap_or_else(|| temporary.path().to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    for writers in [1, 8, 64] {
        let place = root.join(format!("bench-{writers}"));
        let store = Arc::new(SqliteStore::open(&place, Env::real()).expect("a store"));
        runtime.block_on(measure_commits(store, writers));
        std::fs::remove_dir_all(&place).expect("the store is removed");
    }
    let place = root.join("bench-open");
    runtime.block_on(measure_open(&place));
    std::fs::remove_dir_all(&place).expect("the store is removed");
}

fn put(number: u64) -> Transaction {
    let (account, region) = (AccountId::default(), Region::default());
    let key = Key::new(
        &account,
        &region,
        "bench",
        "row",
        &format!("{:05}", number % ROWS),
    );
    let mut transaction = Transaction::new();
    transaction.put(key, 1, format!("{number:0>ROW_BYTES$}"));
    transaction
}

async fn measure_commits(store: Arc<SqliteStore>, writers: u64) {
    let env = Env::real();
    let began = env.monotonic();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (store, env) = (store.clone(), env.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            // A stride that is prime to the number of rows visits all of them, out of order.
            let mut number = writer * 83;
            while env.monotonic() - began < FOR {
                let before = env.monotonic();
                store.commit(put(number)).await.expect("a commit");
                took.push(env.monotonic() - before);
                number += 2003;
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let seconds = (env.monotonic() - began).as_secs_f64();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let counters = store.counters();
    println!(
        "store-commit writers={writers} rows_per_s={:.0} p50_ms={:.3} p99_ms={:.3} max_ms={:.3} commits_per_sync={:.2}",
        took.len() as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0),
        counters.commits as f64 / counters.syncs as f64,
    );
}

async fn measure_open(place: &std::path::Path) {
    let store = SqliteStore::open(place, Env::real()).expect("a store");
    for number in 0..ROWS {
        store.commit(put(number)).await.expect("a commit");
    }
    drop(store);
    let env = Env::real();
    let before = env.monotonic();
    let store = SqliteStore::open(place, Env::real()).expect("a store");
    let took = env.monotonic() - before;
    println!(
        "store-open rows={} ms={:.1}",
        store.snapshot().len(),
        took.as_secs_f64() * 1000.0
    );
}
