//! What services cost: how a pass and a placement grow with their number, what it takes of the
//! processor until many have converged, and a service of thousands of tasks at rest and in a roll.
//!
//! `cargo run --release -p gantry-ecs --example services -- [services] [tasks]` runs the real operations
//! and the real controller on a store in memory and on virtual time, on as many container instances as
//! there are services. The agents are simulated: they report each task RUNNING or STOPPED at once. It
//! prints one line of JSON, and ends with an error if a service does not converge, if an instance
//! holds more than it has, or if a pass that has nothing to do plans something.

#![allow(clippy::print_stdout, reason = "the numbers are the result")]

mod fleet;
mod plane;

use std::time::Duration;

use gantry_api::ecs;
use gantry_env::Env;

use fleet::{Failure, cpu_seconds};
use plane::Plane;

/// How many tasks each of many services has.
const TASKS: u32 = 10;

fn main() -> Result<(), Failure> {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (services, tasks) = (number(0, 5000), number(1, 5000));
    let few = (services / 50).max(1);
    let sizes = [few, (services / 5).max(1), services];
    let many = sizes
        .iter()
        .map(|services| many(*services))
        .collect::<Result<Vec<_>, _>>()?;
    let large = large(u32::try_from(tasks)?)?;
    println!("{}", serde_json::json!({ "many": many, "large": large }));
    Ok(())
}

/// So many services of ten tasks, on as many instances.
fn many(services: u64) -> Result<serde_json::Value, Failure> {
    let real = Env::real();
    let mut plane = Plane::new(services)?;
    let before = cpu_seconds()?;
    for n in 0..services {
        plane.create(&format!("web-{n:05}"), &format!("size-{}", n % 5), TASKS)?;
    }
    plane.settle()?;
    plane.is_converged(services * u64::from(TASKS))?;
    let converged = cpu_seconds()? - before;

    let reconcile = plane.stepping().as_secs_f64() * 1e6 / plane.reconciled() as f64;

    // One after the other, so that no pass finds in the processor's caches what the one before read;
    // and each twice in a row, where the second does.
    let keys = plane.keys();
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..(2_000 / keys.len()).max(1) {
        for key in &keys {
            for passes in [&mut cold, &mut warm] {
                let began = real.monotonic();
                let plan = plane.plan(key);
                passes.push(real.monotonic() - began);
                if !plan.is_nothing() {
                    return Err(format!("{key} is at rest and something is planned").into());
                }
            }
        }
    }

    // One task more for each of some: the passes that start it.
    let mut placements = Vec::new();
    for (n, key) in keys.iter().enumerate().step_by((keys.len() / 100).max(1)) {
        plane.scale(&format!("web-{n:05}"), TASKS + 1)?;
        let began = real.monotonic();
        let plan = plane.plan(key);
        let planned = real.monotonic() - began;
        if !plan.transaction.has_writes() {
            return Err(format!("{key} starts no task").into());
        }
        plane.commit(plan.transaction)?;
        let began = real.monotonic();
        plane.settled(key);
        placements.push(planned + (real.monotonic() - began));
    }
    plane.settle()?;
    fleet::shares(plane.store())?;
    Ok(serde_json::json!({
        "services": services,
        "instances": services,
        "tasks": services * u64::from(TASKS),
        "converged_cpu_s": converged,
        "reconcile_us": reconcile,
        "cold_us": median_us(&mut cold),
        "warm_us": median_us(&mut warm),
        "placement_us": median_us(&mut placements),
    }))
}

/// One service of so many tasks, ten on each instance.
fn large(tasks: u32) -> Result<serde_json::Value, Failure> {
    let real = Env::real();
    let mut plane = Plane::new(u64::from(tasks.div_ceil(10)).max(1))?;
    let before = cpu_seconds()?;
    plane.create("web", "size-0", tasks)?;
    plane.settle()?;
    plane.is_converged(u64::from(tasks))?;
    let started = cpu_seconds()? - before;
    let key = plane.keys().remove(0);
    let revision = plane.store().snapshot().revision();
    let mut passes = Vec::new();
    for _ in 0..50 {
        let began = real.monotonic();
        let plan = plane.plan(&key);
        passes.push(real.monotonic() - began);
        if !plan.is_nothing() {
            return Err("the service is at rest and something is planned".into());
        }
    }
    if plane.store().snapshot().revision() != revision {
        return Err("a pass that had nothing to do has written".into());
    }
    // One of its tasks ends by itself. From the end to the start of another.
    plane.end_one()?;
    let began = cpu_seconds()?;
    plane.settle()?;
    let one = cpu_seconds()? - began;
    plane.is_converged(u64::from(tasks))?;

    let (began, passed) = (cpu_seconds()?, plane.reconciled());
    plane.update(ecs::UpdateServiceRequest {
        service: "web".to_owned(),
        force_new_deployment: Some(true),
        ..Default::default()
    })?;
    plane.settle()?;
    plane.is_converged(u64::from(tasks))?;
    let rolled = cpu_seconds()? - began;
    let roll_passes = plane.reconciled() - passed;
    let began = cpu_seconds()?;
    plane.scale("web", 0)?;
    plane.settle()?;
    plane.is_converged(0)?;
    Ok(serde_json::json!({
        "tasks": tasks,
        "started_cpu_s": started,
        "pass_ms": median_us(&mut passes) / 1e3,
        "one_replaced_cpu_s": one,
        "rolled_cpu_s": rolled,
        "rolled_passes": roll_passes,
        "scaled_in_cpu_s": cpu_seconds()? - began,
    }))
}

fn median_us(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(0.0, |time| time.as_secs_f64() * 1e6)
}
