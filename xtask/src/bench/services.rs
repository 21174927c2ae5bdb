//! Services: from nothing, or from half, to a hundred tasks and back to none, against Docker Swarm in
//! turns; a thousand of them at rest; and what they cost where nothing real is started.

use serde_json::Value;

use super::Bench;
use super::docker::Docker;
use super::installation::Installation;
use super::loads::{example, number};
use super::report::{Report, median};
use crate::shell::say;

/// How many tasks the service has that is measured.
const MANY: usize = 100;

/// What a container is given to end, in both: nothing in it heeds the signal, so all of it goes by.
const STOP_TIMEOUT_MS: f64 = 2_000.0;

/// How many services are at rest, and how many of them have a task.
const RESTING: usize = 1_000;
const RESTING_WITH_A_TASK: usize = 100;

pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let docker = bench.peer("Docker", || Docker::start(&bench.folder.join("swarm")));
    let gantry = Installation::start(&bench.folder.join("services"), &bench.release)?;
    gantry.load(&["prepare"])?;
    many(bench, &gantry, docker.as_ref(), report)?;
    // Its daemon would be measured with what follows.
    drop(docker);
    at_rest(&gantry, report)?;
    gantry.stop()?;
    growth(bench, report)
}

/// Times of one of the two.
#[derive(Default)]
struct Times {
    from_none: Vec<f64>,
    from_half: Vec<f64>,
    to_none: Vec<f64>,
}

fn many(
    bench: &Bench,
    gantry: &Installation,
    docker: Option<&Docker>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let rounds = bench.rounds.div_ceil(5).max(3);
    say(&format!("a service of {MANY} tasks, {rounds} rounds"));
    if let Some(docker) = docker {
        docker.swarm()?;
    }
    let to = |count: usize| gantry.load_number(&["service", "--count", &count.to_string()]);
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    // The first of each makes what is made once, and is not counted.
    to(10)?;
    gantry.load(&["delete-service"])?;
    if let Some(docker) = docker {
        docker.scale_to_many(10)?;
    }
    for _ in 0..rounds {
        ours.from_none.push(to(MANY)?);
        ours.to_none.push(to(0)? - STOP_TIMEOUT_MS);
        gantry.load(&["delete-service"])?;
        if let Some(docker) = docker {
            theirs.from_none.push(docker.create_service(MANY)?);
            theirs
                .to_none
                .push(docker.scale_service(0)? - STOP_TIMEOUT_MS);
            docker.remove_service()?;
        }
        to(MANY / 2)?;
        ours.from_half.push(to(MANY)?);
        gantry.load(&["delete-service"])?;
        gantry.load(&["stop-all"])?;
        if let Some(docker) = docker {
            docker.create_service(MANY / 2)?;
            theirs.from_half.push(docker.scale_service(MANY)?);
            docker.remove_service()?;
        }
    }
    report.times(
        "a service 0 → 100, host network, call → all RUNNING, against Docker Swarm",
        &ours.from_none,
        &theirs.from_none,
        6.0,
    );
    report.times(
        "a service 50 → 100, against Docker Swarm",
        &ours.from_half,
        &theirs.from_half,
        6.0,
    );
    report.times(
        "a service 100 → 0, call → all gone, beyond the stop time-out, against Docker Swarm",
        &ours.to_none,
        &theirs.to_none,
        5.0,
    );
    Ok(())
}

fn at_rest(gantry: &Installation, report: &mut Report) -> anyhow::Result<()> {
    say(&format!("{RESTING} services at rest"));
    let (count, running) = (RESTING.to_string(), RESTING_WITH_A_TASK.to_string());
    gantry.load(&["services", "--count", &count, "--running", &running])?;
    // Until those with a task are steady.
    std::thread::sleep(std::time::Duration::from_secs(50));
    let rest = gantry.at_rest()?;
    report.at_most(
        &format!(
            "{RESTING} services at rest, {RESTING_WITH_A_TASK} of them with a task, everything, processor"
        ),
        rest.cpu_percent,
        "% of a core",
        1.0,
    );
    report.told("memory of everything meanwhile, PSS", rest.pss_mib, "MiB");
    Ok(())
}

/// On a store in memory and on virtual time, with agents that report at once. Medians of some processes, since where
/// the rows of one happen to lie in memory weighs as much as how many there are.
fn growth(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    say("5,000 services of 10 tasks on 5,000 container instances, in simulation");
    let mut runs = Vec::new();
    for _ in 0..bench.rounds.max(3) {
        runs.push(example(bench, "services", &["5000", "5000"])?);
    }
    let number = |runs: &[Value], pointer: &str| -> anyhow::Result<f64> {
        let seen: anyhow::Result<Vec<f64>> = runs.iter().map(|run| number(run, pointer)).collect();
        Ok(median(&seen?))
    };
    let seen = runs;
    report.at_most(
        "5,000 services of 10 tasks on 5,000 instances, until converged, processor",
        number(&seen, "/many/2/converged_cpu_s")?,
        "s",
        60.0,
    );
    let cost = |at: usize, of: &str| number(&seen, &format!("/many/{at}/{of}"));
    for (what, of) in [
        ("a pass while they converge", "reconcile_us"),
        (
            "a pass that has nothing to do, in the processor's caches",
            "warm_us",
        ),
        ("a placement of a service", "placement_us"),
    ] {
        for at in 0..3 {
            let services = number(&seen, &format!("/many/{at}/services"))?;
            report.told(&format!("{what}, {services} services"), cost(at, of)?, "µs");
        }
        report.at_most(
            &format!("{what}, 5,000 services over 100"),
            cost(2, of)? / cost(0, of)?,
            "×",
            1.5,
        );
    }
    report.told(
        "a pass that has nothing to do, not in the caches, 5,000 services over 100",
        cost(2, "cold_us")? / cost(0, "cold_us")?,
        "×",
    );
    report.at_most(
        "a pass over a service of 5,000 tasks with nothing to do",
        number(&seen, "/large/pass_ms")?,
        "ms",
        5.0,
    );
    report.told(
        "a roll of 5,000 tasks, processor",
        number(&seen, "/large/rolled_cpu_s")?,
        "s",
    );
    Ok(())
}
