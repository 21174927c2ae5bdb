//! One task's shim, as this process is connected to it.
//!
//! What always holds: the end of a run is told once, by an event or by the answer of an adoption, whatever becomes of
//! the connection. A shim that is dead takes its containers along: the task's cgroup is killed before anybody
//! is told, and requests that were under way fail with a reason.
//! What it leaves to others: what goes over the socket (`pump`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_arn::TaskId;
use gantry_env::Env;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{ErrorKind, RuntimeError};
use crate::event::{Exit, RuntimeEvent};
use crate::found;
use crate::protocol::{Answer, Event, Verb};
use crate::spec::{ContainerName, InstallationId};
use crate::state::{CONTAINERS, task_cgroup};

mod pump;

/// Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct TaskConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    task: TaskId,
    dir: PathBuf,
    cgroup: String,
    /// None once the shim is gone.
    requests: Mutex<Option<mpsc::UnboundedSender<Asked>>>,
    gone: watch::Sender<bool>,
    /// What the shim speaks, once it has said so.
    protocol: watch::Sender<Option<u32>>,
    told: Mutex<Told>,
    logs: Mutex<BTreeMap<ContainerName, watch::Sender<LogEnd>>>,
}

#[derive(Debug)]
struct Asked {
    verb: Verb,
    answer: oneshot::Sender<Answer>,
}

/// Which ends of runs are known to whoever uses this.
#[derive(Debug, Default)]
struct Told {
    last_runs: BTreeMap<ContainerName, u32>,
    /// While a task is being adopted: what came meanwhile, which may be in the adoption's answer as well.
    held: Option<Vec<(ContainerName, u32, Exit)>>,
}

/// How far a spool is known to go.
#[derive(Debug, Clone, Copy, Default)]
struct LogEnd {
    end: u64,
    ended: bool,
}

pub(crate) type Events = mpsc::UnboundedSender<RuntimeEvent>;

impl TaskConnection {
    /// A task whose shim is at the other end of `stream`. Where it is adopted, ends are kept back until
    /// `adopted` says which ones are known.
    pub fn new(
        task: TaskId,
        installation: &InstallationId,
        dir: PathBuf,
        stream: UnixStream,
        is_adopted: bool,
        env: Env,
        events: Events,
    ) -> TaskConnection {
        let (requests, asked) = mpsc::unbounded_channel();
        let connection = TaskConnection::of(task, installation, dir, Some(requests));
        lock(&connection.0.told).held = is_adopted.then(Vec::new);
        tokio::spawn(pump::run(connection.clone(), stream, asked, env, events));
        connection
    }

    /// Adoption has answered with the ends of these runs; what came meanwhile and is not among them is told.
    pub fn adopted(&self, known: &[(ContainerName, u32)], events: &Events) {
        let held = {
            let mut told = lock(&self.0.told);
            told.last_runs.extend(known.iter().cloned());
            told.held.take()
        };
        for (container, run, exit) in held.into_iter().flatten() {
            self.tell_end(container, run, exit, events);
        }
    }

    /// Tells the end of a run, unless it is known already.
    fn tell_end(&self, container: ContainerName, run: u32, exit: Exit, events: &Events) {
        let mut told = lock(&self.0.told);
        if let Some(held) = &mut told.held {
            held.push((container, run, exit));
            return;
        }
        if told
            .last_runs
            .get(&container)
            .is_some_and(|last| *last >= run)
        {
            return;
        }
        told.last_runs.insert(container.clone(), run);
        let event = RuntimeEvent::ContainerExited {
            task: self.0.task,
            container,
            exit,
        };
        // Nobody listens only while the process ends.
        let _ = events.send(event);
    }

    /// A task whose shim is gone.
    pub fn without_shim(
        task: TaskId,
        installation: &InstallationId,
        dir: PathBuf,
    ) -> TaskConnection {
        TaskConnection::of(task, installation, dir, None)
    }

    fn of(
        task: TaskId,
        installation: &InstallationId,
        dir: PathBuf,
        requests: Option<mpsc::UnboundedSender<Asked>>,
    ) -> TaskConnection {
        TaskConnection(Arc::new(Inner {
            cgroup: task_cgroup(installation, &task),
            gone: watch::Sender::new(requests.is_none()),
            protocol: watch::Sender::new(None),
            told: Mutex::default(),
            task,
            dir,
            requests: Mutex::new(requests),
            logs: Mutex::default(),
        }))
    }

    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub fn cgroup(&self) -> &str {
        &self.0.cgroup
    }

    pub fn is_gone(&self) -> bool {
        *self.0.gone.borrow()
    }

    /// What the shim speaks; `None` where it is gone.
    pub async fn protocol(&self) -> Option<u32> {
        let (mut protocol, mut gone) = (self.0.protocol.subscribe(), self.0.gone.subscribe());
        tokio::select! {
            known = protocol.wait_for(Option::is_some) => known.ok().and_then(|known| *known),
            _ = gone.wait_for(|gone| *gone) => None,
        }
    }

    /// An error where the shim is too old.
    pub async fn must_speak(&self, needed: u32) -> Result<(), RuntimeError> {
        if needed > 1
            && let Some(spoken) = self.protocol().await
            && spoken < needed
        {
            return Err(RuntimeError::runtime(format!(
                "the shim of task {} was started by an older agent and cannot do this: it speaks \
                 protocol {spoken}, and this takes {needed}",
                self.0.task
            )));
        }
        Ok(())
    }

    /// Asks the shim; an error where it is gone, refuses, or is too old to know what is meant.
    pub async fn ask(&self, verb: Verb) -> Result<Answer, RuntimeError> {
        // The first shims leave unanswered what they do not know.
        self.must_speak(verb.since()).await?;
        let (answer, answered) = oneshot::channel();
        let asked = lock(&self.0.requests)
            .as_ref()
            .is_some_and(|to| to.send(Asked { verb, answer }).is_ok());
        let gone = || RuntimeError::runtime(format!("the shim of task {} is gone", self.0.task));
        if !asked {
            return Err(gone());
        }
        match answered.await.map_err(|_| gone())? {
            Answer::Failed { kind, message } => {
                Err(RuntimeError::new(ErrorKind::from_name(&kind), message))
            }
            answer => Ok(answer),
        }
    }

    /// Waits until the shim is gone.
    pub async fn gone(&self) {
        let mut gone = self.0.gone.subscribe();
        // The sender lives as long as this connection.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Nothing more will come into the container's spool.
    pub fn log_has_ended(&self, container: &ContainerName) -> bool {
        self.is_gone() || self.log(container).borrow().ended
    }

    /// Waits until the spool is longer than `offset`, or has ended.
    pub async fn wait_for_log(&self, container: &ContainerName, offset: u64) {
        let mut log = self.log(container).subscribe();
        let reaches = |log: &LogEnd| log.end > offset || log.ended;
        if !reaches(&log.borrow()) {
            let watch = Verb::WatchLog {
                container: container.clone(),
                offset,
            };
            if self.ask(watch).await.is_err() {
                return;
            }
        }
        let mut gone = self.0.gone.subscribe();
        tokio::select! {
            _ = log.wait_for(reaches) => {}
            _ = gone.wait_for(|gone| *gone) => {}
        }
    }

    pub async fn trim(&self, container: &ContainerName, offset: u64) -> Result<(), RuntimeError> {
        if self.is_gone() {
            // Nobody writes any more, and the files go with the task.
            return Ok(());
        }
        match self
            .ask(Verb::Trim {
                container: container.clone(),
                offset,
            })
            .await
        {
            Err(error) if !self.is_gone() => Err(error),
            _ => Ok(()),
        }
    }

    fn log(&self, container: &ContainerName) -> watch::Sender<LogEnd> {
        lock(&self.0.logs)
            .entry(container.clone())
            .or_default()
            .clone()
    }

    /// The container's spool goes on.
    fn log_goes_on(&self, container: &ContainerName) {
        self.log(container).send_modify(|log| log.ended = false);
    }

    fn happened(&self, event: Event, events: &Events) -> Next {
        match event {
            Event::Ready { protocol } => {
                self.0.protocol.send_replace(Some(protocol));
            }
            Event::Exited {
                container,
                exit,
                run,
            } => self.tell_end(container, run, exit, events),
            Event::Log {
                container,
                end,
                ended,
            } => {
                self.log(&container).send_modify(|log| {
                    log.end = log.end.max(end);
                    log.ended |= ended;
                });
            }
            Event::Bye => return Next::Over,
        }
        Next::GoOn
    }

    /// The containers that ran when the shim died.
    fn without_exit(&self) -> Vec<ContainerName> {
        std::fs::read_dir(self.0.dir.join(CONTAINERS))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| found::OnDisk::of(&entry.path()).was_running())
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// The shim went as it was told.
    Over,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
