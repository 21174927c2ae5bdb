//! `cargo xtask bench`: speed and size, as ratios against what a user would pick instead.
//!
//! Gantry and its peer are measured in the same run, in turns, so that a busy machine slows both.
//! Each peer is started here, in folders (and where it needs one, a network namespace) of its own;
//! where it cannot be had, that is said and no ratio is printed. Timing constants have their AWS values.
#![allow(
    clippy::disallowed_methods,
    reason = "a bench measures real time, and waits for real programs"
)]

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;

use crate::setup::{self, Wanted};
use crate::shell::{self, command, is_root, say};

mod api;
mod docker;
mod installation;
mod loads;
mod many;
mod moto;
mod pull;
mod registry;
mod report;
mod services;
mod tasks;

use report::Report;

/// What is measured together, with the same peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Tasks from call to STOPPED, many at once, and everything at rest: against Docker and Swarm.
    Tasks,
    /// Calls a second: against moto[server].
    Api,
    /// Layers in and out: against Debian's docker-registry.
    Registry,
    /// An image from a registry to a root file system: against containerd.
    Pull,
    /// Placements a second, and what one costs as a cluster grows.
    Placements,
    /// Log events in, and looking through many.
    Logs,
    /// A service on its way to many tasks and to none, against Swarm; many services at rest; what a pass
    /// and a placement cost as services and instances grow.
    Services,
    /// A thousand tasks: what control plane and agent cost at rest, and what is left afterwards.
    Many,
}

/// What the user said on the command line.
pub struct Options {
    pub peer: bool,
    pub rounds: usize,
    /// Empty means all.
    pub suites: Vec<Suite>,
}

/// What every suite is given.
struct Bench {
    peers: bool,
    rounds: usize,
    /// A place of this run's own, removed afterwards.
    folder: PathBuf,
    /// Where the release build lies.
    release: PathBuf,
}

impl Bench {
    /// Starts a peer, or says why there is none.
    fn peer<T>(&self, name: &str, start: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        if !self.peers {
            say(&format!("{name} was not asked for, so no ratio is printed"));
            return None;
        }
        match start() {
            Ok(peer) => Some(peer),
            Err(error) => {
                say(&format!(
                    "no peer: {name} could not be started here, so no ratio is printed ({error:#})"
                ));
                None
            }
        }
    }
}

/// Measures, and prints a table; an error if a limit is missed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !is_root() {
        anyhow::bail!(
            "the benchmarks run containers, which needs root: use `sudo -E cargo xtask bench`"
        );
    }
    setup::run(Wanted {
        sample: true,
        tests: true,
        bench: options.peer,
        ..Wanted::default()
    })?;
    say("building release binaries");
    shell::run(command("cargo").args([
        "build",
        "--release",
        "--package",
        "gantry",
        "--package",
        "gantry-ecs",
        "--package",
        "gantry-logs",
        "--package",
        "gantry-runtime",
        "--bins",
        "--examples",
    ]))?;

    let folder = shell::output(command("mktemp").args(["-d", "/tmp/gantry-bench-XXXXXX"]))?;
    let bench = Bench {
        peers: options.peer,
        rounds: options.rounds,
        folder: PathBuf::from(folder.trim()),
        release: release_folder()?,
    };
    let mut report = Report::default();
    let outcome = measure(&bench, options, &mut report);
    let removed = std::fs::remove_dir_all(&bench.folder);
    report.print();
    outcome?;
    removed.context("the bench's folder could not be removed")?;
    report.verdict()
}

fn measure(bench: &Bench, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let all = Suite::value_variants();
    let wanted = all
        .iter()
        .filter(|suite| options.suites.is_empty() || options.suites.contains(suite));
    for suite in wanted {
        match suite {
            Suite::Tasks => tasks::measure(bench, report)?,
            Suite::Api => api::measure(bench, report)?,
            Suite::Registry => registry::measure(bench, report)?,
            Suite::Pull => pull::measure(bench, report)?,
            Suite::Placements => loads::placements(bench, report)?,
            Suite::Logs => loads::logs(bench, report)?,
            Suite::Services => services::measure(bench, report)?,
            Suite::Many => many::measure(bench, report)?,
        }
    }
    Ok(())
}

fn release_folder() -> anyhow::Result<PathBuf> {
    let metadata: serde_json::Value =
        serde_json::from_str(&shell::output(command("cargo").args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--offline",
        ]))?)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo's target directory")?;
    Ok(PathBuf::from(target).join("release"))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
