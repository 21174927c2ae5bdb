//! `cargo xtask world`: thousands of worlds, each of another seed, as a night allows.
//!
//! What always holds: seeds are run in order and on every core; the first that fails is named, with the
//! line that replays it alone, and ends the run. Without limits it runs a hundred seeds.
//! What it leaves to others: the worlds (`crates/world`), built with optimisation.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::shell::{command, root, run, say};

/// So many seeds are given to one process at a time, so that a time limit is kept well.
const SEEDS_A_PROCESS: u64 = 20;

pub struct Options {
    /// How many seeds; without it and without a time limit, a hundred.
    pub seeds: Option<u64>,
    /// The first seed.
    pub from: u64,
    /// No further seeds are begun after so many minutes.
    pub minutes: Option<u64>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a night is measured in real time"
)]
pub fn run_worlds(options: &Options) -> anyhow::Result<()> {
    say("building the world");
    let example = [
        "build",
        "--release",
        "--quiet",
        "--package",
        "gantry-world",
        "--example",
        "world",
    ];
    run(command("cargo").args(example))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    let program = target.join("release/examples/world");
    let count = match (options.seeds, options.minutes) {
        (Some(seeds), _) => seeds,
        (None, Some(_)) => u64::MAX - options.from,
        (None, None) => 100,
    };
    let end = options.from.saturating_add(count);
    let begun = Instant::now();
    let limit = options
        .minutes
        .map(|minutes| Duration::from_secs(60 * minutes));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut next = options.from;
    let mut running = Vec::new();
    let mut done = 0;
    say(&format!(
        "running worlds from seed {next} on {workers} cores"
    ));
    loop {
        let is_late = limit.is_some_and(|limit| begun.elapsed() >= limit);
        while running.len() < workers && next < end && !is_late {
            let many = SEEDS_A_PROCESS.min(end - next);
            let child = command(&program)
                .args([next.to_string(), many.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("could not start {}", program.display()))?;
            running.push((next, many, child));
            next += many;
        }
        if running.is_empty() {
            break;
        }
        let (first, many, mut child) = running.remove(0);
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        if !child.wait()?.success() {
            for (_, _, mut other) in running {
                // What has ended by itself cannot be ended again.
                let _ = other.kill();
                let _ = other.wait();
            }
            let lines: Vec<&str> = said
                .lines()
                .filter(|line| !line.starts_with("Report"))
                .collect();
            eprintln!("{}", lines.join("\n"));
            let seed = first
                + said
                    .lines()
                    .filter(|line| line.starts_with("Report"))
                    .count() as u64;
            bail!("seed {seed} failed; replay it with `cargo xtask world --from {seed} --seeds 1`");
        }
        done += many;
        eprint!("\r{done} worlds in {} s", begun.elapsed().as_secs());
    }
    eprintln!();
    say(&format!(
        "{done} worlds, and all came to rest as they should"
    ));
    Ok(())
}
