//! A thousand tasks on one machine: what control plane and agent cost while all of them run, and
//! that nothing of them is left once they have stopped.
//!
//! The tasks are real containers of `/bin/sleep`. Processor time is what `/proc` says of the one
//! process that holds the control plane and the agent; the shims' is told beside it. What is
//! counted on the machine is only what bears this installation's name, so others may work meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Bench;
use super::installation::{Installation, cpu_ticks, ticks_per_second};
use super::report::Report;
use crate::shell::say;

const TASKS: usize = 1_000;
/// A part of them runs and stops first, so that what is made once (pools, an image) is there.
const FIRST: usize = 20;
/// Long enough for every periodic loop of an agent to come by several times.
const REST: Duration = Duration::from_secs(60);
/// After the last STOPPED: for what is closed when it was idle for long enough, such as a
/// connection between agent and control plane.
const SETTLED: Duration = Duration::from_secs(150);

pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let gantry = Installation::start(&bench.folder.join("many"), &bench.release)?;
    gantry.load(&["prepare"])?;
    gantry.load(&["many", "--count", &FIRST.to_string()])?;
    gantry.load(&["stop-all"])?;
    let before = least(&gantry, None)?;
    say(&format!("before: {before}"));

    say(&format!("{TASKS} tasks from nothing to RUNNING"));
    let took_ms = gantry.load_number(&["many", "--count", &TASKS.to_string()])?;
    let during = Belongings::of(&gantry)?;
    say(&format!(
        "all RUNNING after {:.1} s: {during}",
        took_ms / 1_000.0
    ));
    anyhow::ensure!(
        // A shim and a container each.
        during.processes >= before.processes + 2 * TASKS
            && during.cgroups >= before.cgroups + TASKS,
        "{TASKS} tasks are RUNNING, but the machine does not show them"
    );
    say(&format!("at rest with {TASKS} tasks, {} s", REST.as_secs()));
    let (own, shims) = at_rest(&gantry)?;
    report.at_most(
        &format!("control plane and agent at rest with {TASKS} tasks, processor"),
        own,
        "% of a core",
        2.0,
    );
    report.told(
        &format!("shims and containers of those {TASKS} tasks meanwhile, processor"),
        shims,
        "% of a core",
    );

    say("stopping them");
    gantry.load(&["stop-all"])?;
    let after = least(&gantry, Some(&before))?;
    say(&format!("afterwards: {after}"));
    for (what, was, is) in [
        (
            "descriptors of the process",
            before.descriptors,
            after.descriptors,
        ),
        ("mounts", before.mounts, after.mounts),
        ("control groups", before.cgroups, after.cgroups),
        ("processes", before.processes, after.processes),
    ] {
        report.at_most(
            &format!("{what} left by {TASKS} tasks (there were {was} before)"),
            is as f64 - was as f64,
            "",
            0.0,
        );
    }
    gantry.stop()
}

/// What an installation has of the machine.
struct Belongings {
    descriptors: usize,
    mounts: usize,
    cgroups: usize,
    processes: usize,
}

impl std::fmt::Display for Belongings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} descriptors, {} mounts, {} control groups, {} processes",
            self.descriptors, self.mounts, self.cgroups, self.processes
        )
    }
}

impl Belongings {
    fn of(gantry: &Installation) -> anyhow::Result<Belongings> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", gantry.pid()))?.count();
        // Of the machine and of the process, which may see others.
        let mut mounts = BTreeSet::new();
        let folder = gantry.data_dir().display().to_string();
        let id = gantry.id()?;
        for whose in ["self", &gantry.pid().to_string()] {
            let table = std::fs::read_to_string(format!("/proc/{whose}/mountinfo"))?;
            let ours = |line: &&str| line.contains(&folder) || line.contains(&id);
            mounts.extend(table.lines().filter(ours).map(str::to_owned));
        }
        let mut cgroups = 0;
        for hierarchy in roots()? {
            cgroups += folders(&hierarchy.join(format!("gantry-{id}")));
        }
        Ok(Belongings {
            descriptors,
            mounts: mounts.len(),
            cgroups,
            processes: processes(gantry)?.len(),
        })
    }

    fn is_at_most(&self, other: &Belongings) -> bool {
        self.descriptors <= other.descriptors
            && self.mounts <= other.mounts
            && self.cgroups <= other.cgroups
            && self.processes <= other.processes
    }
}

/// What there is once everything is closed that is closed for being idle: as little as `start`, or
/// without one, what stayed the same for some seconds.
fn least(gantry: &Installation, start: Option<&Belongings>) -> anyhow::Result<Belongings> {
    let since = Instant::now();
    let mut last = Belongings::of(gantry)?;
    let mut unchanged = Instant::now();
    loop {
        let settled = match start {
            Some(start) => last.is_at_most(start),
            None => unchanged.elapsed() > Duration::from_secs(10),
        };
        if settled || since.elapsed() > SETTLED {
            return Ok(last);
        }
        std::thread::sleep(Duration::from_millis(500));
        let now = Belongings::of(gantry)?;
        if !(now.is_at_most(&last) && last.is_at_most(&now)) {
            unchanged = Instant::now();
        }
        last = now;
    }
}

/// Per cent of a core: of control plane and agent, and of everything that runs for the tasks.
fn at_rest(gantry: &Installation) -> anyhow::Result<(f64, f64)> {
    let tasks = processes(gantry)?;
    let ticks = || -> anyhow::Result<(u64, u64)> {
        let own = cpu_ticks(gantry.pid())?;
        let theirs = tasks.iter().map(|pid| cpu_ticks(*pid));
        Ok((own, theirs.sum::<anyhow::Result<u64>>()?))
    };
    let (own_before, tasks_before) = ticks()?;
    std::thread::sleep(REST);
    let (own, tasks) = ticks()?;
    let per_cent = ticks_per_second()? * REST.as_secs_f64() / 100.0;
    Ok((
        (own - own_before) as f64 / per_cent,
        (tasks - tasks_before) as f64 / per_cent,
    ))
}

/// Every hierarchy of control groups: of version 1 one a controller, of version 2 one.
fn roots() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut roots = BTreeSet::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, at, kind, ..] = fields.as_slice()
            && kind.starts_with("cgroup")
        {
            roots.insert(PathBuf::from(at));
        }
    }
    anyhow::ensure!(!roots.is_empty(), "no control groups are mounted");
    Ok(roots.into_iter().collect())
}

/// How many folders there are, this one included.
fn folders(root: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(root) else {
        return 0;
    };
    let below = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    1 + below.map(|entry| folders(&entry.path())).sum::<usize>()
}

/// What runs for tasks: containers, by the installation's control groups, and shims, by their words.
fn processes(gantry: &Installation) -> anyhow::Result<Vec<u32>> {
    let (id, folder) = (gantry.id()?, gantry.data_dir().display().to_string());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // One that ends meanwhile is not there.
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let is_shim = words.contains("shim") && words.contains(&folder);
        if is_shim || groups.contains(&format!("/gantry-{id}")) {
            found.push(pid);
        }
    }
    Ok(found)
}

impl Installation {
    /// By which everything of it in the kernel is named.
    fn id(&self) -> anyhow::Result<String> {
        let file = std::fs::read(self.data_dir().join("installation.json"))?;
        let file: serde_json::Value = serde_json::from_slice(&file)?;
        let id = file["installation_id"].as_str();
        Ok(id.context("installation_id")?.to_owned())
    }
}
