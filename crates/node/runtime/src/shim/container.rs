//! One container as its shim holds it: being made, running, ended; its output on the way into the spool.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_env::Timestamp;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};

use super::maker::{Maker, Outcome};
use super::spool::Spool;
use crate::cgroup;
use crate::container::Stdio;
use crate::event::Exit;
use crate::logs::LogStream;
use crate::spec::{ContainerName, LogSpec};
use crate::state::{
    CONTAINER_FILE, ContainerFile, Durability, EXIT_FILE, FAILED_FILE, FailedFile, SPOOL,
    STARTED_FILE, StartedFile, read_json, write_json,
};

/// What is read of a pipe at once.
const PIECE_BYTES: usize = 16 * 1024;

pub(super) enum State {
    /// The forked child is at work.
    Making(Maker),
    Running {
        pid: i32,
    },
    Ended,
}

pub(super) struct Container {
    pub name: ContainerName,
    dir: PathBuf,
    cgroup: String,
    pub state: State,
    spool: Option<Spool>,
    outputs: [Option<OwnedFd>; 2],
    /// When SIGKILL is due.
    pub kill_at: Option<Duration>,
    /// How often the kernel had killed for want of memory when this shim itself sent SIGKILL: an end
    /// by that signal is then the kernel's only if it killed once more.
    oom_kills_before: std::cell::Cell<u64>,
}

pub(super) const STREAMS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

impl Container {
    /// Begins to make the container whose `container.json` is on disk.
    pub fn make(name: ContainerName, dir: &Path, logs: &LogSpec) -> io::Result<Container> {
        let file: ContainerFile = read_json(&dir.join(CONTAINER_FILE))
            .ok_or_else(|| io::Error::other("container.json is missing or damaged"))?;
        let spool = match logs {
            LogSpec::None => None,
            LogSpec::Spool { mode, bytes_max } => {
                Some(Spool::create(dir.join(SPOOL), *mode, *bytes_max)?)
            }
        };
        // Pipes also where the output goes nowhere: libcontainer opens a `/dev/null` again inside the
        // container, for reading only, so that a program's writes to it would fail.
        let (out_read, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err_read, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        for end in [&out_read, &err_read] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        let outputs = [Some(out_read), Some(err_read)];
        let stdin = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let stdio = Stdio {
            stdin,
            stdout,
            stderr,
        };
        let maker = super::maker::start(dir, stdio)?;
        Ok(Container {
            name,
            dir: dir.to_owned(),
            cgroup: file.cgroup,
            state: State::Making(maker),
            spool,
            outputs,
            kill_at: None,
            oom_kills_before: std::cell::Cell::new(0),
        })
    }

    /// The forked child has told its outcome. Gives the start, or why there is none.
    pub fn made(
        &mut self,
        outcome: Option<Outcome>,
        now: Timestamp,
    ) -> Result<StartedFile, FailedFile> {
        let failed = match outcome {
            Some(Outcome::Made { pid, start_ticks }) => {
                let started = StartedFile {
                    pid,
                    start_ticks,
                    at: now,
                };
                self.state = State::Running { pid };
                return match write_json(&self.dir.join(STARTED_FILE), &started, Durability::Process)
                {
                    Ok(()) => Ok(started),
                    Err(error) => Err(FailedFile {
                        kind: "ContainerRuntimeError".to_owned(),
                        message: format!("writing that the container started: {error}"),
                    }),
                };
            }
            Some(Outcome::Failed { kind, message }) => FailedFile { kind, message },
            None => FailedFile {
                kind: "ContainerRuntimeError".to_owned(),
                message: "the process that makes the container died".to_owned(),
            },
        };
        self.state = State::Ended;
        self.outputs = [None, None];
        // What the maker left: a first process that waits for its start, and its cgroup.
        cgroup::kill_once(&self.cgroup);
        let _ = write_json(&self.dir.join(FAILED_FILE), &failed, Durability::Process);
        Err(failed)
    }

    /// The first process has ended with this wait status; the exit is on disk when this returns.
    pub fn ended(&mut self, status: i32, now: Timestamp) -> Exit {
        self.state = State::Ended;
        self.kill_at = None;
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        let exit_code = match signal {
            Some(signal) => 128 + signal,
            None => libc::WEXITSTATUS(status),
        };
        // Only a signalled first process is the kernel's victim: a killed child is the container's own affair.
        let kills = cgroup::oom_kills(&self.cgroup);
        let out_of_memory = signal == Some(libc::SIGKILL) && kills > self.oom_kills_before.get();
        let exit = Exit {
            exit_code,
            signal,
            out_of_memory,
            at: now,
        };
        // On a full disk the agent that is connected still hears of it; only one that comes later does not.
        if let Err(error) = write_json(&self.dir.join(EXIT_FILE), &exit, Durability::Disk) {
            super::note(&format!(
                "the exit of {} could not be written: {error}",
                self.name
            ));
        }
        // A busy cgroup is removed with the task.
        let _ = cgroup::remove(&self.cgroup);
        exit
    }

    /// Sends a signal to the first process; nothing if it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if let State::Running { pid } = self.state {
            if signal == libc::SIGKILL {
                self.oom_kills_before.set(cgroup::oom_kills(&self.cgroup));
            }
            // SAFETY: the process is our child and not reaped yet, so the pid is still its own.
            if unsafe { libc::kill(pid, signal) } < 0 {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ESRCH) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Nothing more will come into its spool.
    pub fn log_ended(&self) -> bool {
        self.is_ended() && self.outputs.iter().all(Option::is_none)
    }

    pub fn log_end(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::end)
    }

    pub fn trim(&mut self, offset: u64) {
        if let Some(spool) = &mut self.spool {
            spool.trim(offset);
        }
    }

    /// Whether the disk refused output that has to be offered again.
    pub fn is_stalled(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::is_stalled)
    }

    pub fn retry(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.retry();
        }
    }

    /// The pipes that may be read now; none while the spool is full and the container has to wait. What an
    /// ended container left in its pipes is taken in all the same: it is little, and nobody would come for it.
    pub fn readable(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let holds_back =
            !self.is_ended() && self.spool.as_ref().is_some_and(|spool| !spool.accepts());
        self.outputs
            .iter()
            .enumerate()
            .filter(move |_| !holds_back)
            .filter_map(|(index, output)| Some((index, output.as_ref()?.as_fd())))
    }

    /// Reads one piece of one pipe.
    pub fn pump(&mut self, index: usize, now: Timestamp) {
        let Some(output) = &self.outputs[index] else {
            return;
        };
        let mut piece = [0; PIECE_BYTES];
        match rustix::io::read(output, &mut piece) {
            Ok(0) => {
                self.outputs[index] = None;
                if let Some(spool) = &mut self.spool {
                    spool.end_stream(now, STREAMS[index]);
                }
            }
            Ok(read) => {
                if let Some(spool) = &mut self.spool {
                    spool.write(now, STREAMS[index], &piece[..read]);
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => {
                self.outputs[index] = None;
                super::note(&format!("the output of {}: {error}", self.name));
            }
        }
    }
}
