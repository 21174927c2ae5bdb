//! `cargo xtask bench`: speed and size, as ratios against what a user would pick instead.
//!
//! Gantry and its peer are measured in the same run, in turns, so that a busy machine slows both.
//! The peer, Debian's Docker, is started here in a network namespace and folders of its own; where it
//! cannot be had, that is said and no ratio is printed. Timing constants have their AWS values.

use crate::setup::{self, Wanted};
use crate::shell::{self, command, is_root, say};

mod docker;
mod installation;
mod report;

use docker::Docker;
use installation::Installation;
use report::Report;

/// What the user said on the command line.
pub struct Options {
    pub peer: bool,
    pub rounds: usize,
}

/// How many tasks the start-up of many is measured with.
const MANY: usize = 100;

/// Rows in the store when the time to serve is measured.
const STORED_TASKS: usize = 5_000;

/// Measures everything and prints a table; exits with an error if a limit is missed.
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
    })?;
    say("building release binaries");
    shell::run(command("cargo").args([
        "build",
        "--release",
        "--package",
        "gantry",
        "--bins",
        "--examples",
    ]))?;

    let folder = shell::output(command("mktemp").args(["-d", "/tmp/gantry-bench-XXXXXX"]))?;
    let folder = std::path::PathBuf::from(folder.trim());
    let outcome = measure(options, &folder);
    let removed = std::fs::remove_dir_all(&folder);
    let report = outcome?;
    removed?;
    report.print();
    report.verdict()
}

fn measure(options: &Options, folder: &std::path::Path) -> anyhow::Result<Report> {
    let mut report = Report::new(options.rounds);
    let docker = if options.peer {
        match Docker::start(&folder.join("docker")) {
            Ok(docker) => Some(docker),
            Err(error) => {
                say(&format!(
                    "no peer: Docker could not be started here, so no ratio is printed ({error:#})"
                ));
                None
            }
        }
    } else {
        say("no peer was asked for, so no ratio is printed");
        None
    };
    let gantry = Installation::start(&folder.join("gantry"))?;
    gantry.load(&["prepare"])?;

    say(&format!("one task of /bin/true, {} rounds", options.rounds));
    // The first of each fills caches and is not counted.
    gantry.load(&["one"])?;
    if let Some(docker) = &docker {
        docker.run_true()?;
    }
    for _ in 0..options.rounds {
        report.one.gantry_ms.push(gantry.load_number(&["one"])?);
        if let Some(docker) = &docker {
            report.one.peer_ms.push(docker.run_true()?);
        }
    }

    say("at rest");
    report.rest = Some(gantry.at_rest()?);

    let rounds_of_many = options.rounds.div_ceil(5).max(3);
    say(&format!(
        "{MANY} tasks from nothing to RUNNING, {rounds_of_many} rounds"
    ));
    if let Some(docker) = &docker {
        docker.swarm()?;
    }
    for round in 0..rounds_of_many {
        report
            .many
            .gantry_ms
            .push(gantry.load_number(&["many", "--count", &MANY.to_string()])?);
        if round == 0 {
            report.shim_kib = Some(gantry.shim_pss_kib()?);
        }
        gantry.load(&["stop-all"])?;
        if let Some(docker) = &docker {
            report.many.peer_ms.push(docker.scale_to_many(MANY)?);
        }
    }

    say(&format!(
        "time to serve with {STORED_TASKS} tasks in the store"
    ));
    gantry.load(&["fill", "--count", &STORED_TASKS.to_string()])?;
    report.serving_ms = gantry.restarts(5)?;
    report.binary_mib = Some(gantry.binary_mib()?);
    gantry.stop()?;
    Ok(report)
}
