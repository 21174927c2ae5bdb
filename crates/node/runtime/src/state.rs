//! What is on disk of a task, and where.
//!
//! What always holds: a file is either absent or whole, because it is written beside itself and
//! renamed. Who wrote a file is its only writer: the agent's side the task and the containers asked
//! for, the shim everything about what became of them. An exit is synced before it is told, so even a
//! power failure does not take back what was reported; the rest need only outlive processes, since a
//! machine that stops ends the containers too.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gantry_arn::TaskId;
use gantry_env::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::Exit;
use crate::image::ImageConfig;
use crate::spec::{ContainerName, ContainerSpec, InstallationId, TaskSpec};

/// The form of these files. A build reads its own and older ones.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const TASK_FILE: &str = "task.json";
pub(crate) const SHIM_FILE: &str = "shim.json";
pub(crate) const SHIM_SOCKET: &str = "shim.sock";
pub(crate) const SHIM_LOG: &str = "shim.log";
/// A task's containers, each in a folder by its name.
pub(crate) const CONTAINERS: &str = "c";
pub(crate) const CONTAINER_FILE: &str = "container.json";
pub(crate) const STARTING_FILE: &str = "starting.json";
pub(crate) const STARTED_FILE: &str = "started.json";
pub(crate) const FAILED_FILE: &str = "failed.json";
pub(crate) const EXIT_FILE: &str = "exit.json";
pub(crate) const SPOOL: &str = "spool";

/// `task.json`: the intent to run a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TaskFile {
    pub format: u32,
    pub installation: InstallationId,
    pub spec: TaskSpec,
}

/// `container.json`: the intent to run a container, with all that the builder needs, so that
/// neither it nor the shim looks anything up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerFile {
    pub spec: ContainerSpec,
    pub task: TaskSpec,
    pub image: ImageConfig,
    /// The store of layers, and the layers' names in it, bottom first.
    pub layers_dir: PathBuf,
    pub layers: Vec<String>,
    /// Under every controller.
    pub cgroup: String,
    pub spool_id: String,
}

/// `starting.json`, written before a container's program may run, and `started.json`, after it does. So a
/// container without the first has certainly not run, whatever was killed, and may be started anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartedFile {
    pub pid: i32,
    /// Clock ticks after boot, as in `/proc/PID/stat`: with the pid, it names one process for ever.
    pub start_ticks: u64,
    pub at: Timestamp,
    /// How often the container was started again before.
    #[serde(default)]
    pub run: u32,
}

/// `exit.json`. It counts only for the latest run that was begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExitFile {
    #[serde(flatten)]
    pub exit: Exit,
    #[serde(default)]
    pub run: u32,
}

/// `failed.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FailedFile {
    pub kind: String,
    pub message: String,
    #[serde(default)]
    pub run: u32,
}

/// `shim.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShimFile {
    pub pid: i32,
    pub start_ticks: u64,
    pub protocol: u32,
}

pub(crate) fn tasks_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("tasks")
}

pub(crate) fn task_dir(data_dir: &Path, task: &TaskId) -> PathBuf {
    tasks_dir(data_dir).join(task.as_str())
}

pub(crate) fn container_dir(task_dir: &Path, container: &ContainerName) -> PathBuf {
    task_dir.join(CONTAINERS).join(container.as_str())
}

/// The cgroup of everything this installation runs, under every controller.
pub(crate) fn installation_cgroup(installation: &InstallationId) -> String {
    format!("/gantry-{installation}")
}

pub(crate) fn task_cgroup(installation: &InstallationId, task: &TaskId) -> String {
    format!("/gantry-{installation}/{task}")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Outlives every process.
    Process,
    /// Outlives a power failure.
    Disk,
}

/// Writes a whole file, or leaves what was there.
pub(crate) fn write_json<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = fs::File::create(&beside)?;
    file.write_all(&bytes)?;
    if durability == Durability::Disk {
        file.sync_data()?;
    }
    drop(file);
    fs::rename(&beside, path)?;
    if durability == Durability::Disk
        && let Some(parent) = path.parent()
    {
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// `None` where there is no such file, or what is there is not one of ours.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// The moment a process started, in ticks after boot; `None` when there is no such process.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may hold anything, so count from the last one.
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether the very process that is meant still runs.
pub(crate) fn is_alive(pid: i32, ticks: u64) -> bool {
    start_ticks(pid) == Some(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_start_is_not_it() {
        let pid = std::process::id() as i32;
        let ticks = start_ticks(pid).unwrap();
        assert!(is_alive(pid, ticks));
        assert!(!is_alive(pid, ticks + 1));
        assert_eq!(start_ticks(i32::MAX), None);
    }

    #[test]
    fn a_half_written_file_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, b"{\"pid\":1").unwrap();
        assert!(read_json::<ShimFile>(&path).is_none());
        let file = ShimFile {
            pid: 1,
            start_ticks: 2,
            protocol: 1,
        };
        write_json(&path, &file, Durability::Disk).unwrap();
        assert_eq!(read_json::<ShimFile>(&path).unwrap().start_ticks, 2);
    }
}
