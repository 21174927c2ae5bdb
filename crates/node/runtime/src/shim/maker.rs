//! The forked child that makes one container and ends.
//!
//! What always holds: the child tells what became of it over one pipe and leaves by `_exit`, so
//! nothing of the shim's state is written twice. The container's first process is then the shim's, which is
//! the reaper of everything below it.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::container::{self, Stdio};
use crate::error::RuntimeError;
use crate::state::{CONTAINER_FILE, ContainerFile, read_json, start_ticks};

/// What the child tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Made { pid: i32, start_ticks: u64 },
    Failed { kind: String, message: String },
}

/// A child at work.
pub(super) struct Maker {
    /// Holds the outcome once it is closed at the other end.
    pub outcome: OwnedFd,
}

/// Forks the child that makes the container of `dir`.
pub(super) fn start(dir: &Path, stdio: Stdio) -> std::io::Result<Maker> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the shim has one thread, so the child may do anything that its parent could.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => {
            drop(read);
            run_child(dir, stdio, write)
        }
        _ => Ok(Maker { outcome: read }),
    }
}

fn run_child(dir: &Path, stdio: Stdio, write: OwnedFd) -> ! {
    unblock_signals();
    let outcome = match make(dir, stdio) {
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

fn make(dir: &Path, stdio: Stdio) -> Result<Outcome, RuntimeError> {
    let file: ContainerFile = read_json(&dir.join(CONTAINER_FILE))
        .ok_or_else(|| RuntimeError::runtime("container.json is missing or damaged"))?;
    let pid = container::create(&file, dir, stdio)?;
    // A process that has ended already is a zombie of ours, whose pid cannot have been used again.
    Ok(Outcome::Made {
        pid,
        start_ticks: start_ticks(pid).unwrap_or(0),
    })
}

/// The shim reads its signals from a descriptor; a container must not inherit that they are blocked.
fn unblock_signals() {
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
