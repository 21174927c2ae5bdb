//! Programs that run beside a container's own.
//!
//! What always holds: each has a cgroup of its own below its container's, so that it is found and killed with
//! everything it started. It is killed at its time-out, with its container, and when whoever asked for it
//! is gone; its answer is given when nothing of it runs any more.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cgroup::{self, layout::Layout};
use crate::container::exec::{self, Beside};
use crate::protocol::Answer;
use crate::spec::{ContainerName, ExecSpec};
use crate::state::{CONTAINER_FILE, ContainerFile, read_json};

/// What is kept of an output in any case fits into a frame.
const OUTPUT_BYTES_MAX: usize = 512 << 10;
/// How soon what is being killed is looked at again.
const KILL_RETRY: Duration = Duration::from_millis(2);
const KILLED: i32 = 128 + libc::SIGKILL;

pub(super) struct Exec {
    pub connection: u64,
    pub request: u64,
    pub container: ContainerName,
    cgroup: String,
    output: Option<OwnedFd>,
    /// Holds the wait status once it is closed at the other end.
    outcome: Option<OwnedFd>,
    collected: Vec<u8>,
    bytes_max: usize,
    deadline: Duration,
    exit_code: Option<i32>,
    timed_out: bool,
    is_being_killed: bool,
}

/// What of it became ready.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Output,
    Outcome,
}

/// Whom it is for, and where it runs.
pub(super) struct Place<'a> {
    pub connection: u64,
    pub request: u64,
    pub container: &'a ContainerName,
    pub dir: &'a Path,
    pub cgroup: &'a str,
    pub first: i32,
    /// Tells this one's cgroup from the others'.
    pub number: u64,
}

impl Exec {
    pub fn start(place: Place<'_>, spec: &ExecSpec, now: Duration) -> io::Result<Exec> {
        let file: ContainerFile = read_json(&place.dir.join(CONTAINER_FILE))
            .ok_or_else(|| io::Error::other("container.json is missing or damaged"))?;
        let cgroup = format!("{}/exec-{}", place.cgroup, place.number);
        let groups = make_groups(place.cgroup, &cgroup)?;
        let (output_read, output) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&output_read, true)?;
        let (outcome, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: the shim has one thread, so the child may do anything that its parent could.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop((output_read, outcome));
                super::maker::unblock_signals();
                let also_output = output.try_clone();
                let result = exec::run(Beside {
                    file: &file,
                    dir: place.dir,
                    first: place.first,
                    exec: spec,
                    groups,
                    output,
                });
                let status = match (result, also_output) {
                    (Ok(status), _) => status,
                    (Err(error), Ok(output)) => {
                        // Nobody to tell means that the shim is gone.
                        let _ = rustix::io::write(output, error.to_string().as_bytes());
                        126 << 8
                    }
                    (Err(_), Err(_)) => 126 << 8,
                };
                let _ = rustix::io::write(tell, &status.to_le_bytes());
                // SAFETY: ends this child without running what the shim has registered for its own end.
                unsafe { libc::_exit(0) }
            }
            _ => Ok(Exec {
                connection: place.connection,
                request: place.request,
                container: place.container.clone(),
                cgroup,
                output: Some(output_read),
                outcome: Some(outcome),
                collected: Vec::new(),
                bytes_max: spec.output_bytes_max.min(OUTPUT_BYTES_MAX),
                deadline: now + spec.timeout,
                exit_code: None,
                timed_out: false,
                is_being_killed: false,
            }),
        }
    }

    pub fn waits_for(&self) -> impl Iterator<Item = (Part, BorrowedFd<'_>)> {
        let output = self.output.as_ref().map(|fd| (Part::Output, fd.as_fd()));
        let outcome = self.outcome.as_ref().map(|fd| (Part::Outcome, fd.as_fd()));
        output.into_iter().chain(outcome)
    }

    pub fn deadline(&self, now: Duration) -> Duration {
        if self.is_being_killed {
            now + KILL_RETRY
        } else {
            self.deadline
        }
    }

    pub fn ready(&mut self, part: Part) {
        match part {
            Part::Output => self.take_output(),
            Part::Outcome => {
                let mut status = [0; 4];
                if let Some(outcome) = &self.outcome
                    && rustix::io::read(outcome, &mut status).is_ok_and(|read| read == 4)
                {
                    let status = i32::from_le_bytes(status);
                    self.exit_code = Some(if libc::WIFSIGNALED(status) {
                        128 + libc::WTERMSIG(status)
                    } else {
                        libc::WEXITSTATUS(status)
                    });
                }
                self.outcome = None;
                // What it left running does not stay.
                self.is_being_killed = true;
            }
        }
    }

    fn take_output(&mut self) {
        let mut piece = [0; 4096];
        while let Some(output) = &self.output {
            match rustix::io::read(output, &mut piece) {
                Ok(0) => self.output = None,
                Ok(read) => {
                    let room = self.bytes_max - self.collected.len();
                    self.collected.extend_from_slice(&piece[..read.min(room)]);
                    if read < piece.len() {
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// Its container has ended, or whoever asked for it is gone.
    pub fn abandon(&mut self) {
        self.is_being_killed = true;
    }

    /// Goes on with the end of it; the answer once it is over.
    pub fn turn(&mut self, now: Duration) -> Option<Answer> {
        if !self.is_being_killed && now >= self.deadline {
            self.timed_out = true;
            self.is_being_killed = true;
        }
        if !self.is_being_killed || !cgroup::kill_once(&self.cgroup) {
            return None;
        }
        // What the kernel lets go of a moment later goes with the container's cgroup.
        let _ = cgroup::remove(&self.cgroup);
        self.take_output();
        Some(Answer::Executed {
            exit_code: self.exit_code.unwrap_or(KILLED),
            output: STANDARD.encode(&self.collected),
            timed_out: self.timed_out,
        })
    }
}

/// The folders to join: the container's own in every hierarchy, but in one of them a new one below that, which
/// tells this program's processes from the container's. That one gets no controllers of its own, which on v2
/// it could not have beside the container's processes.
fn make_groups(container: &str, own: &str) -> io::Result<Vec<PathBuf>> {
    let tracking = Layout::of_this_machine()
        .controller("pids")
        .ok_or_else(|| io::Error::other("this machine has no cgroup controller \"pids\""))?;
    let of_container = tracking.folder(container);
    let of_own = tracking.folder(own);
    fs::create_dir_all(&of_own)?;
    let mut groups: Vec<PathBuf> = cgroup::folders(container)
        .filter(|folder| *folder != of_container)
        .collect();
    groups.push(of_own);
    Ok(groups)
}
