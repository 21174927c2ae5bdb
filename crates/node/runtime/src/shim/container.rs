//! One container as its shim holds it: being made, running, ended, started again; its output on the way into
//! the spool.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_env::Timestamp;

use super::maker::{Maker, Outcome};
use super::oom;
use super::spool::Spool;
use super::stdio::{self, Ends};
use crate::cgroup;
use crate::event::Exit;
use crate::logs::LogStream;
use crate::protocol::ContainerState;
use crate::spec::{ContainerName, LogSpec, PidMode};
use crate::state::{
    CONTAINER_FILE, ContainerFile, Durability, EXIT_FILE, ExitFile, FAILED_FILE, FailedFile, SPOOL,
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

/// One pipe, or a terminal's end.
struct Output {
    id: usize,
    stream: LogStream,
    fd: OwnedFd,
}

pub(super) struct Container {
    pub name: ContainerName,
    dir: PathBuf,
    cgroup: String,
    pub state: State,
    /// How often it was started again.
    pub run: u32,
    started: Option<StartedFile>,
    exit: Option<Exit>,
    failed: Option<FailedFile>,
    /// An exit that the disk has not taken yet.
    unwritten: Option<ExitFile>,
    /// Its processes do not end with the first one.
    shares_processes: bool,
    /// The first process is an init, and this is the program's.
    has_init: bool,
    program: Option<i32>,
    spool: Option<Spool>,
    outputs: Vec<Output>,
    next_output: usize,
    ends: Ends,
    /// When SIGKILL is due.
    pub kill_at: Option<Duration>,
    /// A signal that came while it was being made.
    waiting_signal: Option<i32>,
    /// How often the kernel had killed for want of memory before this run, or when this shim itself sent
    /// SIGKILL: an end by that signal is then the kernel's only if it killed once more.
    oom_kills_before: std::cell::Cell<u64>,
    /// On the clock of the kernel's log.
    made_at: Duration,
}

impl Container {
    /// Begins to make the container whose `container.json` is on disk.
    pub fn make(name: ContainerName, dir: &Path, logs: &LogSpec) -> io::Result<Container> {
        let file = container_file(dir)?;
        let spool = match logs {
            LogSpec::None => None,
            LogSpec::Spool { mode, bytes_max } => {
                Some(Spool::create(dir.join(SPOOL), *mode, *bytes_max)?)
            }
        };
        let mut container = Container {
            name,
            dir: dir.to_owned(),
            cgroup: file.cgroup.clone(),
            state: State::Ended,
            run: 0,
            started: None,
            exit: None,
            failed: None,
            unwritten: None,
            shares_processes: file.task.pid_mode != PidMode::Container,
            has_init: file.spec.init_process,
            program: None,
            spool,
            outputs: Vec::new(),
            next_output: 0,
            ends: Ends::default(),
            kill_at: None,
            waiting_signal: None,
            oom_kills_before: std::cell::Cell::new(0),
            made_at: Duration::ZERO,
        };
        container.begin(&file, 0)?;
        Ok(container)
    }

    /// Begins to make it once more. What it wrote before stays, in its root and in its spool.
    pub fn restart(&mut self) -> io::Result<()> {
        if !self.is_ended() || self.started.is_none() {
            return Err(io::Error::other(format!(
                "the container {} has not ended",
                self.name
            )));
        }
        let file = container_file(&self.dir)?;
        self.begin(&file, self.run + 1)?;
        self.run += 1;
        Ok(())
    }

    fn begin(&mut self, file: &ContainerFile, run: u32) -> io::Result<()> {
        let (stdio, ends, outputs) = stdio::make(&file.spec)?;
        // A cgroup of an earlier run that was still busy goes on counting.
        self.oom_kills_before.set(cgroup::oom_kills(&self.cgroup));
        let maker = super::maker::start(&self.dir, run, stdio)?;
        self.state = State::Making(maker);
        self.ends = ends;
        for (stream, fd) in outputs {
            self.add_output(stream, fd);
        }
        (self.started, self.exit, self.failed, self.program) = (None, None, None, None);
        (self.kill_at, self.waiting_signal) = (None, None);
        Ok(())
    }

    fn add_output(&mut self, stream: LogStream, fd: OwnedFd) {
        let id = self.next_output;
        self.next_output += 1;
        self.outputs.push(Output { id, stream, fd });
    }

    /// The forked child has told its outcome. Gives the start, or why there is none.
    pub fn made(
        &mut self,
        outcome: Option<Outcome>,
        now: Timestamp,
        made_at: Duration,
    ) -> Result<StartedFile, FailedFile> {
        let run = self.run;
        let failed = match outcome {
            Some(Outcome::Made {
                pid,
                start_ticks,
                program,
            }) => {
                let started = StartedFile {
                    pid,
                    start_ticks,
                    at: now,
                    run,
                };
                self.state = State::Running { pid };
                self.program = program;
                self.made_at = made_at;
                self.started = Some(started.clone());
                if let Some(terminal) = self.ends.take_terminal() {
                    self.add_output(LogStream::Stdout, terminal);
                }
                // That it was about to start is on disk already, which is enough for whoever comes later.
                if let Err(error) =
                    write_json(&self.dir.join(STARTED_FILE), &started, Durability::Process)
                {
                    super::note(&format!("the start of {}: {error}", self.name));
                }
                if let Some(signal) = self.waiting_signal.take() {
                    // Gone already is what the signal was for.
                    let _ = self.signal(signal);
                }
                return Ok(started);
            }
            Some(Outcome::Failed { kind, message }) => FailedFile { kind, message, run },
            None => FailedFile {
                kind: "ContainerRuntimeError".to_owned(),
                message: "the process that makes the container died".to_owned(),
                run,
            },
        };
        self.state = State::Ended;
        self.outputs.clear();
        self.ends = Ends::default();
        self.failed = Some(failed.clone());
        // What the maker left: a first process that waits for its start, and its cgroup.
        cgroup::kill_once(&self.cgroup);
        if let Err(error) = write_json(&self.dir.join(FAILED_FILE), &failed, Durability::Process) {
            super::note(&format!("the failure of {}: {error}", self.name));
        }
        Err(failed)
    }

    /// The first process has ended with this wait status; the exit is on disk when this returns, unless the
    /// disk refuses it.
    pub fn ended(&mut self, status: i32, now: Timestamp) -> Exit {
        let first = match self.state {
            State::Running { pid } => pid,
            _ => 0,
        };
        self.state = State::Ended;
        self.kill_at = None;
        self.ends = Ends::default();
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        let exit_code = match signal {
            Some(signal) => 128 + signal,
            None => libc::WEXITSTATUS(status),
        };
        // An init passes on how its program ended by the code alone.
        let killed = signal == Some(libc::SIGKILL)
            || (self.has_init && signal.is_none() && exit_code == 128 + libc::SIGKILL);
        // Only a killed program is the kernel's victim: a killed child is the container's own affair.
        let out_of_memory = killed
            && cgroup::oom_kills(&self.cgroup) > self.oom_kills_before.get()
            && oom::was_victim(self.program.unwrap_or(first), self.made_at).unwrap_or(true);
        let exit = Exit {
            exit_code,
            signal,
            out_of_memory,
            at: now,
        };
        self.exit = Some(exit.clone());
        self.unwritten = Some(ExitFile {
            exit: exit.clone(),
            run: self.run,
        });
        self.write_exit();
        if self.shares_processes {
            cgroup::kill_once(&self.cgroup);
        }
        // A busy cgroup is used again by the next run, or removed with the task.
        let _ = cgroup::remove(&self.cgroup);
        exit
    }

    /// On a full disk the agents that are connected hear of it all the same, and ask for it when they connect.
    fn write_exit(&mut self) {
        if let Some(exit) = &self.unwritten {
            match write_json(&self.dir.join(EXIT_FILE), exit, Durability::Disk) {
                Ok(()) => self.unwritten = None,
                Err(error) => {
                    super::note(&format!("the exit of {}: {error}", self.name));
                }
            }
        }
    }

    /// Sends a signal to the first process, as soon as there is one; nothing if it has ended.
    pub fn signal(&mut self, signal: i32) -> io::Result<()> {
        match self.state {
            State::Making(_) => self.waiting_signal = Some(signal),
            State::Running { pid } => {
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
            State::Ended => {}
        }
        Ok(())
    }

    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn state_of(&self) -> ContainerState {
        ContainerState {
            name: self.name.clone(),
            run: self.run,
            is_being_made: matches!(self.state, State::Making(_)),
            pid: self.started.as_ref().map(|started| started.pid),
            started_at: self.started.as_ref().map(|started| started.at),
            exit: self.exit.clone(),
            failed: self.failed.clone(),
        }
    }

    /// Nothing more will come into its spool, unless it is started again.
    pub fn log_ended(&self) -> bool {
        self.is_ended() && self.outputs.is_empty()
    }

    /// All that whoever comes later must find is on disk.
    pub fn is_settled(&self) -> bool {
        self.log_ended() && self.unwritten.is_none() && !self.is_stalled()
    }

    pub fn log_end(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::end)
    }

    pub fn trim(&mut self, offset: u64) {
        if let Some(spool) = &mut self.spool {
            spool.trim(offset);
        }
    }

    /// Whether the disk refused something that has to be offered again.
    pub fn is_stalled(&self) -> bool {
        self.unwritten.is_some() || self.spool.as_ref().is_some_and(Spool::is_stalled)
    }

    pub fn retry(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.retry();
        }
        self.write_exit();
    }

    /// The pipes that may be read now; none while the spool is full and the container has to wait. What an
    /// ended container left in its pipes is taken in all the same: it is little, and nobody would come for it.
    pub fn readable(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let holds_back =
            !self.is_ended() && self.spool.as_ref().is_some_and(|spool| !spool.accepts());
        self.outputs
            .iter()
            .filter(move |_| !holds_back)
            .map(|output| (output.id, output.fd.as_fd()))
    }

    /// Reads one piece of one output.
    pub fn pump(&mut self, id: usize, now: Timestamp) {
        let Some(at) = self.outputs.iter().position(|output| output.id == id) else {
            return;
        };
        let output = &self.outputs[at];
        let stream = output.stream;
        let mut piece = [0; PIECE_BYTES];
        let ended = match rustix::io::read(&output.fd, &mut piece) {
            Ok(0) => true,
            Ok(read) => {
                if let Some(spool) = &mut self.spool {
                    spool.write(now, stream, &piece[..read]);
                }
                false
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            // Nobody has the other end of a terminal open any more.
            Err(rustix::io::Errno::IO) => true,
            Err(error) => {
                super::note(&format!("the output of {}: {error}", self.name));
                true
            }
        };
        if ended {
            self.outputs.remove(at);
            if let Some(spool) = &mut self.spool {
                spool.end_stream(now, stream);
            }
        }
    }
}

fn container_file(dir: &Path) -> io::Result<ContainerFile> {
    read_json(&dir.join(CONTAINER_FILE))
        .ok_or_else(|| io::Error::other("container.json is missing or damaged"))
}
