//! Tasks from call to STOPPED and from nothing to many, against Docker; what everything costs at rest.

use super::Bench;
use super::docker::Docker;
use super::installation::Installation;
use super::report::{Report, median};
use crate::shell::say;

/// How many tasks the start-up of many is measured with.
const MANY: usize = 100;

/// Rows in the store when the time to serve is measured.
const STORED_TASKS: usize = 5_000;

pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let docker = bench.peer("Docker", || Docker::start(&bench.folder.join("docker")));
    let gantry = Installation::start(&bench.folder.join("tasks"), &bench.release)?;
    gantry.load(&["prepare"])?;
    one(bench, &gantry, docker.as_ref(), report)?;
    at_rest(&gantry, report)?;
    many(bench, &gantry, docker.as_ref(), report)?;
    say(&format!(
        "time to serve with {STORED_TASKS} tasks in the store"
    ));
    gantry.load(&["fill", "--count", &STORED_TASKS.to_string()])?;
    let serving = median(&gantry.restarts(5)?);
    report.at_most(
        "start → serving, 5,000 tasks in the store",
        serving,
        "ms",
        500.0,
    );
    report.at_most("release binary", gantry.binary_mib()?, "MiB", 40.0);
    gantry.stop()
}

fn one(
    bench: &Bench,
    gantry: &Installation,
    docker: Option<&Docker>,
    report: &mut Report,
) -> anyhow::Result<()> {
    say(&format!("one task of /bin/true, {} rounds", bench.rounds));
    // The first of each fills caches and is not counted.
    gantry.load(&["one"])?;
    if let Some(docker) = docker {
        docker.run_true()?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        ours.push(gantry.load_number(&["one"])?);
        if let Some(docker) = docker {
            theirs.push(docker.run_true()?);
        }
    }
    report.times(
        "RunTask → STOPPED of /bin/true, against `docker run --rm --network none`",
        &ours,
        &theirs,
        5.0,
    );
    Ok(())
}

fn at_rest(gantry: &Installation, report: &mut Report) -> anyhow::Result<()> {
    say("at rest");
    let rest = gantry.at_rest()?;
    report.at_most("everything at rest, PSS", rest.pss_mib, "MiB", 40.0);
    report.at_most(
        "everything at rest, processor",
        rest.cpu_percent,
        "% of a core",
        0.5,
    );
    Ok(())
}

fn many(
    bench: &Bench,
    gantry: &Installation,
    docker: Option<&Docker>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rounds = bench.rounds.div_ceil(5).max(3);
    say(&format!(
        "{MANY} tasks from nothing to RUNNING, {rounds} rounds"
    ));
    if let Some(docker) = docker {
        docker.swarm()?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut shim_mib = None;
    for _ in 0..rounds {
        ours.push(gantry.load_number(&["many", "--count", &MANY.to_string()])?);
        if shim_mib.is_none() {
            shim_mib = Some(gantry.shim_pss_kib()? / 1024.0);
        }
        gantry.load(&["stop-all"])?;
        if let Some(docker) = docker {
            theirs.push(docker.scale_to_many(MANY)?);
        }
    }
    report.times(
        "100 tasks, first call → all RUNNING, against Docker Swarm 0 → 100",
        &ours,
        &theirs,
        6.0,
    );
    if let Some(shim_mib) = shim_mib {
        report.at_most("a shim, PSS", shim_mib, "MiB", 0.5);
    }
    Ok(())
}
