//! The cgroups of tasks, on v1, v2 and hybrid hosts, with nothing but the file system.
//!
//! What always holds: every path given here is below `/gantry-<installation>`, so nothing of anybody
//! else's is read, killed or removed. libcontainer makes a container's cgroup; everything after that
//! is done here, by the shim while it lives and by the agent when it does not.

pub(crate) mod layout;
pub(crate) mod limits;
pub(crate) mod usage;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_env::Env;
use rustix::process::{Pid, Signal, kill_process};

use layout::{Layout, Version};

/// Where the hierarchies are mounted: one on v2, one a controller on v1, both on a hybrid host.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    Layout::of_this_machine().hierarchies()
}

/// The folders of a cgroup that exist, one a hierarchy.
pub(crate) fn folders(cgroup: &str) -> impl Iterator<Item = PathBuf> {
    let below = cgroup.trim_start_matches('/').to_owned();
    let ours = below.starts_with("gantry-") && !below.split('/').any(|part| part == "..");
    hierarchies()
        .into_iter()
        .filter(move |_| ours)
        .map(move |hierarchy| hierarchy.join(&below))
        .filter(|folder| folder.exists())
}

/// Every process in the cgroup and below it.
pub(crate) fn processes(cgroup: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    for folder in folders(cgroup) {
        collect_processes(&folder, &mut pids);
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn collect_processes(folder: &Path, pids: &mut Vec<i32>) {
    if let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) {
        // 0 is a process of another pid namespace; it cannot be ours.
        pids.extend(
            text.lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|pid| *pid > 0),
        );
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&entry.path(), pids);
        }
    }
}

/// Kills everything in the cgroup. Whether nothing was left to kill.
pub(crate) fn kill_once(cgroup: &str) -> bool {
    let pids = processes(cgroup);
    for pid in &pids {
        if let Some(pid) = Pid::from_raw(*pid) {
            // Gone already is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    pids.is_empty()
}

/// Removes the cgroup and those below it, deepest first. Busy ones stay and are the error.
pub(crate) fn remove(cgroup: &str) -> io::Result<()> {
    let mut result = Ok(());
    for folder in folders(cgroup) {
        if let Err(error) = remove_folder(&folder) {
            result = Err(error);
        }
    }
    result
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folder(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How often the kernel has killed in this cgroup for want of memory, whichever limit was reached.
pub(crate) fn oom_kills(cgroup: &str) -> u64 {
    let Some(memory) = Layout::of_this_machine().controller("memory") else {
        return 0;
    };
    let file = memory.folder(cgroup).join(match memory.version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    });
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .find_map(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// How long a killed process may take to leave its cgroup.
const KILL_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Kills and removes the cgroup, waiting for the processes to be gone. Blocks.
pub(crate) fn destroy(env: &Env, cgroup: &str) -> io::Result<()> {
    let deadline = env.monotonic() + KILL_DEADLINE;
    loop {
        let empty = kill_once(cgroup);
        if empty {
            match remove(cgroup) {
                Ok(()) => return Ok(()),
                // The kernel lets go of a cgroup a moment after its last process.
                Err(error) if env.monotonic() > deadline => return Err(error),
                Err(_) => {}
            }
        } else if env.monotonic() > deadline {
            return Err(io::Error::other(format!(
                "processes {:?} in cgroup {cgroup} do not end",
                processes(cgroup)
            )));
        }
        gantry_env::pause_thread(std::time::Duration::from_millis(2));
    }
}
