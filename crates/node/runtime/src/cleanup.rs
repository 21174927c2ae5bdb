//! Removing what an installation left on a machine, alive or dead: for `gantry down`.
//!
//! What always holds: only what carries the installation's id or stands in its data directory is touched; a
//! second run finds nothing to do. Works when half of the state is missing: processes are found by cgroup
//! and, for shims, by their command line in this data directory.

use std::io;
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
        shims: kill_shims(data_dir),
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

fn kill_shims(data_dir: &Path) -> usize {
    let mut killed = 0;
    for entry in std::fs::read_dir(tasks_dir(data_dir))
        .into_iter()
        .flatten()
        .flatten()
    {
        let known = read_json::<ShimFile>(&entry.path().join(SHIM_FILE))
            .filter(|shim| is_alive(shim.pid, shim.start_ticks))
            .map(|shim| shim.pid);
        // A shim that has not written its file yet, or is making a container, is known by its command line.
        let found = processes_of(&entry.path());
        for pid in known.into_iter().chain(found) {
            if let Some(pid) = Pid::from_raw(pid) {
                // Gone already is what we want.
                if kill_process(pid, Signal::KILL).is_ok() {
                    killed += 1;
                }
            }
        }
    }
    killed
}

/// How long killed processes may take to go.
const KILL_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Ends a shim that nobody is connected to and the children of a dead one: they would go on making what
/// they were told to, after whoever looks at the task's cgroup found nothing there. Blocks.
pub(crate) fn end_shim_of(task_dir: &Path, env: &Env) -> io::Result<()> {
    let deadline = env.monotonic() + KILL_DEADLINE;
    loop {
        let pids = processes_of(task_dir);
        if pids.is_empty() {
            return Ok(());
        }
        if env.monotonic() > deadline {
            return Err(io::Error::other(format!(
                "the shim processes {pids:?} do not end"
            )));
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            // Gone already is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
        gantry_env::pause_thread(std::time::Duration::from_millis(1));
    }
}

/// Processes whose last argument is this task's folder: its shim, and the shim's children that make containers.
fn processes_of(task_dir: &Path) -> Vec<i32> {
    // By the task's id, because the folder may have been named in another way then.
    let Some(wanted) = task_dir.file_name() else {
        return Vec::new();
    };
    let wanted = wanted.as_encoded_bytes();
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
            words.any(|word| word == b"shim")
                && words.next_back().is_some_and(|last| last.ends_with(wanted))
        })
        .collect()
}
