//! The forked child that makes one container and ends.
//!
//! What always holds: the child tells what became of it over one pipe and leaves by `_exit`, so
//! nothing of the shim's state is written twice. Who the first process is stands on disk before it may become
//! the container's program. That process is then the shim's, which is the reaper of everything below it.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use gantry_env::Env;
use serde::{Deserialize, Serialize};

use crate::container::{self, Stdio};
use crate::error::{ErrorKind, RuntimeError};
use crate::state::{
    CONTAINER_FILE, ContainerFile, Durability, STARTING_FILE, StartedFile, read_json, start_ticks,
    write_json,
};

/// What the child tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Made {
        pid: i32,
        start_ticks: u64,
        /// The container's program, where the first process is an init.
        program: Option<i32>,
    },
    Failed {
        kind: String,
        message: String,
    },
}

/// A child at work.
pub(super) struct Maker {
    /// Holds the outcome once it is closed at the other end.
    pub outcome: OwnedFd,
}

/// Forks the child that makes the container of `dir`, for the so-many-th time.
pub(super) fn start(dir: &Path, run: u32, stdio: Stdio) -> std::io::Result<Maker> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the shim has one thread, so the child may do anything that its parent could.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => {
            drop(read);
            run_child(dir, run, stdio, write)
        }
        _ => Ok(Maker { outcome: read }),
    }
}

fn run_child(dir: &Path, run: u32, stdio: Stdio, write: OwnedFd) -> ! {
    unblock_signals();
    let outcome = match make(dir, run, stdio) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed {
            kind: error.kind.as_str().to_owned(),
            message: error.message,
        },
    };
    let bytes = serde_json::to_vec(&outcome).unwrap_or_default();
    // Nobody to tell means that the shim is gone, and the agent cleans up.
    let _ = std::fs::File::from(write).write_all(&bytes);
    // SAFETY: ends this child without running what the shim has registered for its own end.
    unsafe { libc::_exit(0) }
}

fn make(dir: &Path, run: u32, stdio: Stdio) -> Result<Outcome, RuntimeError> {
    let file: ContainerFile = read_json(&dir.join(CONTAINER_FILE))
        .ok_or_else(|| RuntimeError::runtime("container.json is missing or damaged"))?;
    let pid = container::create(&file, dir, stdio, |pid| {
        let starting = StartedFile {
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
            at: Env::real().now(),
            run,
        };
        write_json(&dir.join(STARTING_FILE), &starting, Durability::Process).map_err(|error| {
            RuntimeError::new(
                ErrorKind::CannotStartContainer,
                format!("writing that the container is about to start: {error}"),
            )
        })
    })?;
    // A process that has ended already is a zombie of ours, whose pid cannot have been used again.
    Ok(Outcome::Made {
        pid,
        start_ticks: start_ticks(pid).unwrap_or(0),
        program: file.spec.init_process.then(|| only_child(pid)).flatten(),
    })
}

/// The one child of an init that has just begun.
fn only_child(pid: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The shim reads its signals from a descriptor; a container must not inherit that they are blocked.
pub(super) fn unblock_signals() {
    // SAFETY: an empty set of signals, for this process only.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}
