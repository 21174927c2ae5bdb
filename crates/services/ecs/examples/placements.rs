//! How many placements a second are committed durably, and what a placement costs by itself.
//!
//! `cargo run --release -p gantry-ecs --example placements -- [instances] [tasks] [callers]` fills a
//! SQLite store (synchronous FULL) in a directory of its own with container instances, lets callers
//! in this process run tasks ten at a time until all are placed, and prints one line of JSON. It
//! ends with an error if a task found no place or an instance holds more than it has.

#![allow(clippy::print_stdout, reason = "the numbers are the result")]

mod fleet;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_api::ecs::{self, Ecs as _};
use gantry_arn::ContainerInstanceId;
use gantry_ecs::tables::{AllocationRow, TaskRow};
use gantry_ecs::{EcsOptions, EcsService};
use gantry_env::Env;
use gantry_placement::{Candidate, Capacity, Demand, InstanceIndex, Request, Resource, Strategy};
use gantry_store::{SqliteStore, Store};

use fleet::{Failure, context, cpu_seconds};

/// What RunTask takes at once.
const BATCH: u64 = 10;

fn main() -> Result<(), Failure> {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (instances, tasks, callers) = (number(0, 5000), number(1, 50_000), number(2, 16));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let durable = runtime.block_on(durable(instances, tasks, callers))?;
    let pure: BTreeMap<&str, serde_json::Value> = [
        ("default", &[][..]),
        ("binpack", &[Strategy::Binpack(Resource::Memory)][..]),
        ("random", &[Strategy::Random][..]),
    ]
    .into_iter()
    .map(|(name, strategies)| (name, pure(strategies)))
    .collect();
    println!(
        "{}",
        serde_json::json!({ "durable": durable, "pure": pure })
    );
    Ok(())
}

async fn durable(instances: u64, tasks: u64, callers: u64) -> Result<serde_json::Value, Failure> {
    let env = Env::real();
    let directory = tempfile::tempdir()?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(directory.path(), env.clone())?);
    let service = Arc::new(EcsService::new(
        store.clone(),
        env.clone(),
        EcsOptions::default(),
    ));
    register(&service, &store, &env, instances).await?;

    // The first ten are placed before the others, to ask for one while there are few.
    let left = Arc::new(AtomicU64::new(1));
    run(&service, &env, &left).await?;
    let among_few = describe(&service, &store, &env).await?;
    left.store((tasks / BATCH).saturating_sub(1), Ordering::Relaxed);
    let (began, cpu) = (env.monotonic(), cpu_seconds()?);
    let mut running = Vec::new();
    for _ in 0..callers {
        let (service, env, left) = (service.clone(), env.clone(), left.clone());
        running.push(tokio::spawn(
            async move { run(&service, &env, &left).await },
        ));
    }
    let mut latencies = Vec::new();
    for caller in running {
        latencies.extend(caller.await??);
    }
    let elapsed = env.monotonic() - began;
    let cpu = cpu_seconds()? - cpu;
    latencies.sort();
    let placed = check(&store, instances, tasks)?;
    let among_all = describe(&service, &store, &env).await?;
    let at = |q: f64| {
        let index = ((latencies.len() as f64 - 1.0) * q) as usize;
        latencies.get(index).map(|l| l.as_secs_f64() * 1000.0)
    };
    Ok(serde_json::json!({
        "instances": instances,
        "tasks": placed,
        "callers": callers,
        "batch": BATCH,
        "seconds": elapsed.as_secs_f64(),
        // What it takes of the processors, also where others keep them busy.
        "cpu_us_per_placement": cpu * 1e6 / placed as f64,
        "placements_per_second": placed as f64 / elapsed.as_secs_f64(),
        "run_task_ms": { "p50": at(0.5), "p99": at(0.99) },
        // Of the operation alone, without HTTP, signature and JSON.
        "describe_tasks_us": {
            "one_of_10": among_few.0,
            "one_of_all": among_all.0,
            "ten_of_10": among_few.1,
            "ten_of_all": among_all.1,
        },
    }))
}

/// A cluster with a definition to place and instances to place it on.
async fn register(
    service: &EcsService,
    store: &Arc<dyn Store>,
    env: &Env,
    instances: u64,
) -> Result<(), Failure> {
    let context = context(env);
    service
        .create_cluster(&context, ecs::CreateClusterRequest::default())
        .await?;
    service
        .register_task_definition(&context, fleet::definition("web", 64, 128))
        .await?;
    fleet::join(store, env, instances).await
}

async fn run(service: &EcsService, env: &Env, left: &AtomicU64) -> Result<Vec<Duration>, Failure> {
    let mut latencies = Vec::new();
    let take = |n: u64| n.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .is_ok()
    {
        let began = env.monotonic();
        let input = ecs::RunTaskRequest {
            task_definition: "web".to_owned(),
            count: Some(BATCH as i32),
            ..Default::default()
        };
        let answer = service.run_task(&context(env), input).await?;
        if answer.tasks.map_or(0, |tasks| tasks.len()) as u64 != BATCH {
            return Err("a task found no place".into());
        }
        latencies.push(env.monotonic() - began);
    }
    Ok(latencies)
}

/// Microseconds that DescribeTasks takes of one task and of ten.
async fn describe(
    service: &EcsService,
    store: &Arc<dyn Store>,
    env: &Env,
) -> Result<(f64, f64), Failure> {
    let rows = store.snapshot().list_everywhere::<TaskRow>();
    let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
    let context = context(env);
    let mut means = Vec::new();
    for count in [1, BATCH as usize] {
        let rounds = 5000u32;
        let began = env.monotonic();
        for n in 0..rounds as usize {
            let first = n * count % (ids.len() - count + 1);
            let input = ecs::DescribeTasksRequest {
                tasks: ids.iter().skip(first).take(count).cloned().collect(),
                ..Default::default()
            };
            let answer = service.describe_tasks(&context, input).await?;
            if answer.tasks.map_or(0, |tasks| tasks.len()) != count {
                return Err("a task is not described".into());
            }
        }
        means.push((env.monotonic() - began).as_secs_f64() * 1e6 / f64::from(rounds));
    }
    Ok((means[0], means[1]))
}

/// Counts what the rows hold, and that no instance holds more than it has.
fn check(store: &Arc<dyn Store>, instances: u64, tasks: u64) -> Result<u64, Failure> {
    let placed = fleet::shares(store)? as u64;
    let rows = store.snapshot().list_everywhere::<AllocationRow>().len();
    if rows as u64 != instances || placed != tasks / BATCH * BATCH {
        return Err(format!("{placed} of {tasks} tasks are in the rows").into());
    }
    Ok(placed)
}

/// Nanoseconds of one placement among 1,000 and among 10,000 instances, a third of which is full.
fn pure(strategies: &[Strategy]) -> serde_json::Value {
    let of = |instances: u64| {
        let mut index = InstanceIndex::new(7);
        for n in 0..instances {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            let mut candidate = Candidate::new(ContainerInstanceId::from_random(id));
            let full = n % 3 == 0;
            candidate.free = Capacity {
                cpu: if full { 0 } else { 1 << 40 },
                memory: if full { 0 } else { 1 << 40 },
            };
            candidate.attributes = Arc::new(
                fleet::attributes(n)
                    .into_iter()
                    .map(|attribute| (attribute.name, attribute.value))
                    .collect(),
            );
            index.put(candidate);
        }
        let demand = Demand {
            needs: Capacity {
                cpu: 64,
                memory: 128,
            },
            group: "family:web".to_owned(),
            ..Demand::default()
        };
        let mut place = |count: u32, seed: u64| {
            index.place(&Request {
                demand: &demand,
                count,
                constraints: &[],
                strategies,
                seed,
            })
        };
        // Not measured: the order is made with the first placement.
        place(BATCH as u32, 0);
        let env = Env::real();
        // As many tasks on each instance, however many there are: an instance's first task of a
        // group costs more than its next ones.
        let rounds = instances;
        let began = env.monotonic();
        for seed in 1..=rounds {
            place(BATCH as u32, seed);
        }
        (env.monotonic() - began).as_nanos() as f64 / (rounds * BATCH) as f64
    };
    let (small, large) = (of(1000), of(10_000));
    serde_json::json!({
        "ns_at_1000": small,
        "ns_at_10000": large,
        "ratio": large / small,
    })
}
