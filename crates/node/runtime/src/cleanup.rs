//! Removing what an installation left on a machine, alive or dead: for `gantry down`.
//!
//! What always holds: only what carries the installation's id or stands in its data directory is touched; a
//! second run finds nothing to do. Works when half of the state is missing: processes are found by cgroup
//! and, for shims, by their command line in this data directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use gantry_env::Env;
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup;
use crate::error::RuntimeError;
use crate::spec::InstallationId;
use crate::state::{SHIM_FILE, ShimFile, installation_cgroup, is_alive, read_json, tasks_dir};

/// What was found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub tasks: usize,
    pub shims: usize,
    pub processes: usize,
}

/// Ends every process, and removes every cgroup and task folder of the installation. Images stay. Blocks.
pub fn cleanup(
    data_dir: &Path,
    installation: &InstallationId,
    env: &Env,
) -> Result<Removed, RuntimeError> {
    let failed = |error: io::Error| RuntimeError::runtime(format!("cleaning up: {error}"));
    // Shims first, so that none starts anything anew.
    let mut removed = Removed {
        shims: end_all_shims(data_dir, env).map_err(failed)?,
        ..Removed::default()
    };
    let group = installation_cgroup(installation);
    removed.processes = cgroup::processes(&group).len();
    cgroup::destroy(env, &group).map_err(failed)?;
    let tasks = tasks_dir(data_dir);
    for entry in std::fs::read_dir(&tasks).into_iter().flatten().flatten() {
        remove_task_dir(&entry.path()).map_err(failed)?;
        removed.tasks += 1;
    }
    Ok(removed)
}

/// Removes a task's folder. Its containers' mounts ended with their mount namespaces.
pub(crate) fn remove_task_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Ends every shim and every child of one, also those that are not known by their files yet, and only returns when
/// nobody is found any more: one that was forked during the last look would make its container after it. How many
/// there were.
fn end_all_shims(data_dir: &Path, env: &Env) -> io::Result<usize> {
    let tasks: Vec<_> = std::fs::read_dir(tasks_dir(data_dir))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let known = tasks.iter().filter_map(|task| {
        read_json::<ShimFile>(&task.join(SHIM_FILE))
            .filter(|shim| is_alive(shim.pid, shim.start_ticks))
            .map(|shim| shim.pid)
    });
    let known: Vec<i32> = known.collect();
    let names: BTreeSet<&OsStr> = tasks.iter().filter_map(|task| task.file_name()).collect();
    kill_all(&known);
    let found = end_processes_of(&names, env)?;
    Ok(found.union(&known.into_iter().collect()).count())
}

/// How long killed processes may take to go.
const KILL_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Ends a shim that nobody is connected to and the children of a dead one: they would go on making what
/// they were told to, after whoever looks at the task's cgroup found nothing there. Blocks.
pub(crate) fn end_shim_of(task_dir: &Path, env: &Env) -> io::Result<()> {
    let names = task_dir.file_name().into_iter().collect();
    end_processes_of(&names, env).map(drop)
}

/// Kills the processes of these tasks until there are none. Who they were.
fn end_processes_of(tasks: &BTreeSet<&OsStr>, env: &Env) -> io::Result<BTreeSet<i32>> {
    let deadline = env.monotonic() + KILL_DEADLINE;
    let mut killed = BTreeSet::new();
    loop {
        let pids = processes_of(tasks);
        if pids.is_empty() {
            return Ok(killed);
        }
        if env.monotonic() > deadline {
            return Err(io::Error::other(format!(
                "the shim processes {pids:?} do not end"
            )));
        }
        kill_all(&pids);
        killed.extend(pids);
        gantry_env::pause_thread(std::time::Duration::from_millis(1));
    }
}

fn kill_all(pids: &[i32]) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // Gone already is what we want.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Processes whose last argument is the folder of one of these tasks: its shim, and the shim's children that make
/// containers.
fn processes_of(tasks: &BTreeSet<&OsStr>) -> Vec<i32> {
    let own = std::process::id() as i32;
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line
                .split(|byte| *byte == 0)
                .filter(|word| !word.is_empty());
            // By the task's id, because the folder may have been named in another way then.
            words.any(|word| word == b"shim")
                && words
                    .next_back()
                    .and_then(|last| Path::new(OsStr::from_bytes(last)).file_name())
                    .is_some_and(|last| tasks.contains(last))
        })
        .collect()
}
