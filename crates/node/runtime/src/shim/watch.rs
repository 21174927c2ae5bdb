//! The shim's loop: it waits for its children, its agents, its containers' output and its deadlines.
//!
//! What always holds: nothing here blocks, so a container that writes without end or an agent that does
//! not read delays nobody else.
//! What it leaves to others: what an agent asks for (`requests`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock::ShimClock;
use super::connection::Connection;
use super::container::{Container, State};
use super::exec::{Exec, Part};
use super::maker::Outcome;
use crate::cgroup;
use crate::protocol::{Answer, Event, Message, PROTOCOL};
use crate::spec::ContainerName;
use crate::state::{
    Durability, SHIM_FILE, SHIM_SOCKET, ShimFile, TASK_FILE, TaskFile, read_json, start_ticks,
    task_cgroup, write_json,
};

/// How soon output that a full disk refused is offered again.
const DISK_RETRY: Duration = Duration::from_millis(500);

/// A request to start a container that is being made: whom to answer, and under which number.
pub(super) struct Asked {
    pub connection: u64,
    pub request: u64,
}

pub(super) struct Shim {
    pub clock: ShimClock,
    pub task: TaskFile,
    pub task_dir: std::path::PathBuf,
    listener: UnixListener,
    signals: OwnedFd,
    pub connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    pub containers: BTreeMap<ContainerName, Container>,
    pub making: BTreeMap<ContainerName, Asked>,
    pub execs: BTreeMap<u64, Exec>,
    pub next_exec: u64,
    /// First processes that ended before their maker told who they are.
    early: BTreeMap<i32, i32>,
    pub ending: Ending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    No,
    /// When nothing runs any more and all output is taken in.
    WhenEmpty,
    /// When nothing runs any more.
    Killed,
}

/// What became ready.
#[derive(Clone)]
enum Ready {
    Signals,
    Listener,
    Connection(u64),
    Output(ContainerName, usize),
    Outcome(ContainerName),
    Exec(u64, Part),
}

/// Serves the task of this folder until it is over. The agent that started this is on the standard input.
pub(super) fn run(folder: &Path) -> io::Result<()> {
    close_what_was_inherited();
    become_reaper()?;
    std::env::set_current_dir(folder)?;
    let task_dir = std::env::current_dir()?;
    let task: TaskFile =
        read_json(Path::new(TASK_FILE)).ok_or_else(|| io::Error::other("task.json is missing"))?;
    let pid = std::process::id() as i32;
    let file = ShimFile {
        pid,
        start_ticks: start_ticks(pid).unwrap_or(0),
        protocol: PROTOCOL,
    };
    // A relative name: the whole path may be longer than a socket's name can be.
    let listener = UnixListener::bind(SHIM_SOCKET)?;
    listener.set_nonblocking(true)?;
    write_json(Path::new(SHIM_FILE), &file, Durability::Process)?;
    let mut shim = Shim {
        clock: ShimClock::new(),
        task,
        task_dir,
        listener,
        signals: signal_descriptor()?,
        connections: BTreeMap::new(),
        next_connection: 0,
        containers: BTreeMap::new(),
        making: BTreeMap::new(),
        execs: BTreeMap::new(),
        next_exec: 0,
        early: BTreeMap::new(),
        ending: Ending::No,
    };
    shim.connect(first_agent()?)?;
    while !shim.is_over() {
        shim.turn()?;
    }
    shim.tell(&Event::Bye);
    // The task's cgroup is empty now; the agent removes what is busy for a moment longer.
    let _ = cgroup::remove(&task_cgroup(&shim.task.installation, &shim.task.spec.id));
    let _ = std::fs::remove_file(SHIM_SOCKET);
    Ok(())
}

impl Shim {
    /// Waits for something, and does what it asks for.
    fn turn(&mut self) -> io::Result<()> {
        for ready in self.wait()? {
            match ready {
                Ready::Signals => self.reap()?,
                Ready::Listener => self.accept()?,
                Ready::Connection(id) => self.serve(id)?,
                Ready::Output(name, index) => self.pump(&name, index)?,
                Ready::Outcome(name) => self.made(&name)?,
                Ready::Exec(number, part) => {
                    if let Some(exec) = self.execs.get_mut(&number) {
                        exec.ready(part);
                    }
                }
            }
        }
        self.kill_what_is_due()?;
        self.connections.retain(|_, connection| !connection.is_gone);
        self.end_execs();
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut what = vec![Ready::Signals, Ready::Listener];
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for (id, connection) in &self.connections {
            let mut flags = PollFlags::empty();
            if connection.wants_to_read() {
                flags |= PollFlags::IN;
            }
            if connection.wants_to_write() {
                flags |= PollFlags::OUT;
            }
            what.push(Ready::Connection(*id));
            fds.push(PollFd::from_borrowed_fd(connection.fd(), flags));
        }
        for (name, container) in &self.containers {
            if let State::Making(maker) = &container.state {
                what.push(Ready::Outcome(name.clone()));
                fds.push(PollFd::from_borrowed_fd(
                    maker.outcome.as_fd(),
                    PollFlags::IN,
                ));
            }
            for (index, fd) in container.readable() {
                what.push(Ready::Output(name.clone(), index));
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        for (number, exec) in &self.execs {
            for (part, fd) in exec.waits_for() {
                what.push(Ready::Exec(*number, part));
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let timeout = self.next_deadline().map(|deadline| {
            let left = deadline.saturating_sub(self.clock.monotonic());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fds
            .iter()
            .zip(what)
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, ready)| ready)
            .collect())
    }

    fn next_deadline(&self) -> Option<Duration> {
        let kill = self
            .containers
            .values()
            .filter_map(|container| container.kill_at)
            .min();
        let now = self.clock.monotonic();
        let stalled = self.containers.values().any(Container::is_stalled);
        let retry = stalled.then(|| now + DISK_RETRY);
        let exec = self.execs.values().map(|exec| exec.deadline(now)).min();
        kill.into_iter().chain(retry).chain(exec).min()
    }

    fn kill_what_is_due(&mut self) -> io::Result<()> {
        let now = self.clock.monotonic();
        for container in self.containers.values_mut() {
            if container.is_stalled() {
                container.retry();
            }
            if container.kill_at.is_some_and(|at| at <= now) {
                container.kill_at = None;
                container.signal(libc::SIGKILL)?;
            }
        }
        Ok(())
    }

    /// Programs beside containers end with whoever asked for them; their answers are given when they have.
    fn end_execs(&mut self) {
        let now = self.clock.monotonic();
        let mut over = Vec::new();
        for (number, exec) in &mut self.execs {
            let has_ended = self
                .containers
                .get(&exec.container)
                .is_none_or(Container::is_ended);
            if has_ended || !self.connections.contains_key(&exec.connection) {
                exec.abandon();
            }
            if let Some(answer) = exec.turn(now) {
                over.push((*number, answer));
            }
        }
        for (number, answer) in over {
            if let Some(exec) = self.execs.remove(&number) {
                self.reply(exec.connection, exec.request, answer);
            }
        }
    }

    /// It was told to go, and nothing runs or is being made any more. A task that is open keeps its shim,
    /// also when nobody is connected: the next agent may start more in it.
    fn is_over(&self) -> bool {
        let at_rest = self.containers.values().all(Container::is_ended) && self.execs.is_empty();
        match self.ending {
            Ending::Killed => at_rest,
            Ending::WhenEmpty => at_rest && self.containers.values().all(Container::is_settled),
            Ending::No => false,
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        match self.listener.accept() {
            Ok((stream, _)) => self.connect(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn connect(&mut self, stream: UnixStream) -> io::Result<()> {
        let mut connection = Connection::new(stream)?;
        connection.send(&Message::Event(Event::Ready { protocol: PROTOCOL }));
        self.connections.insert(self.next_connection, connection);
        self.next_connection += 1;
        Ok(())
    }

    fn pump(&mut self, name: &ContainerName, index: usize) -> io::Result<()> {
        let now = self.clock.now();
        let Some(container) = self.containers.get_mut(name) else {
            return Ok(());
        };
        container.pump(index, now);
        self.tell_log(name);
        Ok(())
    }

    pub fn tell_log(&mut self, name: &ContainerName) {
        let Some(container) = self.containers.get(name) else {
            return;
        };
        let (end, ended) = (container.log_end(), container.log_ended());
        for connection in self.connections.values_mut() {
            if connection
                .watched_logs
                .get(name)
                .is_some_and(|offset| end > *offset || ended)
            {
                connection.watched_logs.remove(name);
                connection.send(&Message::Event(Event::Log {
                    container: name.clone(),
                    end,
                    ended,
                }));
            }
        }
    }

    /// A maker has told its outcome, or died.
    fn made(&mut self, name: &ContainerName) -> io::Result<()> {
        let Some(container) = self.containers.get_mut(name) else {
            return Ok(());
        };
        let State::Making(maker) = &container.state else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        // The outcome is small and its writer is done or gone, so this ends at once.
        File::from(maker.outcome.try_clone()?).read_to_end(&mut bytes)?;
        let (now, since_boot) = (self.clock.now(), self.clock.since_boot());
        let outcome = serde_json::from_slice::<Outcome>(&bytes).ok();
        let answer = match container.made(outcome, now, since_boot) {
            Ok(started) => Answer::Started {
                pid: started.pid,
                at: started.at,
                run: started.run,
            },
            Err(failed) => Answer::Failed {
                kind: failed.kind,
                message: failed.message,
            },
        };
        if let Some(asked) = self.making.remove(name) {
            self.reply(asked.connection, asked.request, answer);
        }
        self.tell_log(name);
        if self.ending == Ending::Killed {
            // It was not there to be killed when everything was.
            self.kill_task();
        }
        if let Some(State::Running { pid }) = self.containers.get(name).map(|c| &c.state)
            && let Some(status) = self.early.remove(&{ *pid })
        {
            self.ended(name.clone(), status)?;
        }
        if self.making.is_empty() {
            // What is left are makers' own ends; a later first process may get one of their pids.
            self.early.clear();
        }
        Ok(())
    }

    /// Takes the end of every child that has ended.
    fn reap(&mut self) -> io::Result<()> {
        let mut information = [0u8; size_of::<libc::signalfd_siginfo>() * 4];
        // Many ends may be one signal, so what the signals say is not looked at.
        while rustix::io::read(&self.signals, &mut information).is_ok_and(|read| read > 0) {}
        loop {
            let mut status = 0;
            // SAFETY: takes the status of a child of this process; the pointer is to a local.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return Ok(());
            }
            let name = self
                .containers
                .values()
                .find(|container| matches!(container.state, State::Running { pid: first } if first == pid))
                .map(|container| container.name.clone());
            match name {
                Some(name) => self.ended(name, status)?,
                None if !self.making.is_empty() => {
                    self.early.insert(pid, status);
                }
                // An orphan of a maker.
                None => {}
            }
        }
    }

    fn ended(&mut self, name: ContainerName, status: i32) -> io::Result<()> {
        let now = self.clock.now();
        if let Some(container) = self.containers.get_mut(&name) {
            let exit = container.ended(status, now);
            let run = container.run;
            self.tell(&Event::Exited {
                container: name.clone(),
                exit,
                run,
            });
            self.tell_log(&name);
        }
        if self.making.is_empty() {
            self.early.clear();
        }
        Ok(())
    }

    pub fn kill_task(&self) {
        cgroup::kill_once(&task_cgroup(&self.task.installation, &self.task.spec.id));
    }

    fn tell(&mut self, event: &Event) {
        for connection in self.connections.values_mut() {
            connection.send(&Message::Event(event.clone()));
        }
    }

    pub fn reply(&mut self, connection: u64, id: u64, answer: Answer) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.send(&Message::Reply { id, answer });
        }
    }
}

/// Whoever started the agent may have left descriptors open across its start: a task would hold them for
/// its whole life, and somebody may be waiting for the end of such a pipe.
fn close_what_was_inherited() {
    // SAFETY: this is the first thing that a shim does, so nothing here owns a descriptor above the
    // standard three. A kernel without the call leaves them open, which only costs what is said above.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
    }
}

/// The children of whatever runs below become this process's when their parents end; and no terminal's
/// signals reach it.
fn become_reaper() -> io::Result<()> {
    // A process that leads a group already cannot begin a session; then it has left the agent's group.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // SAFETY: sets how this process takes three signals; no handler runs.
    unsafe {
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    Ok(())
}

/// SIGCHLD as something to poll.
fn signal_descriptor() -> io::Result<OwnedFd> {
    // SAFETY: blocks one signal in this thread, which is the only one, and gives a new descriptor.
    unsafe {
        let mut children: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut children);
        libc::sigaddset(&mut children, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &children, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = libc::signalfd(-1, &children, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// The socket that the agent gave as standard input; afterwards that is `/dev/null`.
fn first_agent() -> io::Result<UnixStream> {
    let stream = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    // SAFETY: replaces descriptor 0 by another open one.
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(UnixStream::from(stream))
}
