//! One task's shim, as this process is connected to it.
//!
//! What always holds: an end of the connection without the shim's good-bye is its death; the task's cgroup is then
//! killed before anybody is told. Requests that were under way fail with a reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_arn::TaskId;
use gantry_env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::cgroup;
use crate::error::{ErrorKind, RuntimeError};
use crate::event::RuntimeEvent;
use crate::protocol::{Answer, Event, Message, Request, Verb, encode, take_frame};
use crate::spec::{ContainerName, InstallationId};
use crate::state::{CONTAINERS, EXIT_FILE, STARTED_FILE, task_cgroup};

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
    logs: Mutex<BTreeMap<ContainerName, watch::Sender<LogEnd>>>,
}

#[derive(Debug)]
struct Asked {
    verb: Verb,
    answer: oneshot::Sender<Answer>,
}

/// How far a spool is known to go.
#[derive(Debug, Clone, Copy, Default)]
struct LogEnd {
    end: u64,
    ended: bool,
}

pub(crate) type Events = mpsc::UnboundedSender<RuntimeEvent>;

impl TaskConnection {
    /// A task whose shim is at the other end of `stream`.
    pub fn new(
        task: TaskId,
        installation: &InstallationId,
        dir: PathBuf,
        stream: UnixStream,
        env: Env,
        events: Events,
    ) -> TaskConnection {
        let (requests, asked) = mpsc::unbounded_channel();
        let connection = TaskConnection::of(task, installation, dir, Some(requests));
        tokio::spawn(pump(connection.clone(), stream, asked, env, events));
        connection
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

    /// Asks the shim; an error where it is gone or refuses.
    pub async fn ask(&self, verb: Verb) -> Result<Answer, RuntimeError> {
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

    fn happened(&self, event: Event, events: &Events) -> Next {
        match event {
            Event::Ready { .. } => {}
            Event::Exited { container, exit } => {
                let event = RuntimeEvent::ContainerExited {
                    task: self.0.task,
                    container,
                    exit,
                };
                // Nobody listens only while the process ends.
                let _ = events.send(event);
            }
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
            .filter(|entry| {
                entry.path().join(STARTED_FILE).exists() && !entry.path().join(EXIT_FILE).exists()
            })
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

async fn pump(
    connection: TaskConnection,
    stream: UnixStream,
    mut asked: mpsc::UnboundedReceiver<Asked>,
    env: Env,
    events: Events,
) {
    let (mut read, mut write) = stream.into_split();
    let mut open: BTreeMap<u64, (Option<ContainerName>, oneshot::Sender<Answer>)> = BTreeMap::new();
    let mut next_id = 0;
    let mut incoming = Vec::new();
    let mut over = false;
    'serve: loop {
        tokio::select! {
            request = asked.recv() => {
                let Some(Asked { verb, answer }) = request else { break };
                next_id += 1;
                let starts = match &verb {
                    Verb::Start { container, .. } => Some(container.clone()),
                    _ => None,
                };
                open.insert(next_id, (starts, answer));
                // What cannot be written is noticed by the reading half.
                let _ = write.write_all(&encode(&Request { id: next_id, verb })).await;
            }
            came = read.read_buf(&mut incoming) => {
                if !came.is_ok_and(|bytes| bytes > 0) {
                    break;
                }
                loop {
                    let frame = match take_frame(&mut incoming) {
                        Ok(Some(frame)) => frame,
                        Ok(None) => break,
                        Err(_) => break 'serve,
                    };
                    match serde_json::from_slice::<Message>(&frame) {
                        Ok(Message::Reply { id, answer }) => {
                            if let Some((starts, waiting)) = open.remove(&id) {
                                // Told from here, so that it comes before the end that may follow at once.
                                if let (Some(container), Answer::Started { pid, at }) = (starts, &answer) {
                                    let (task, pid, at) = (connection.0.task, *pid, *at);
                                    let _ = events.send(RuntimeEvent::ContainerStarted { task, container, pid, at });
                                }
                                let _ = waiting.send(answer);
                            }
                        }
                        Ok(Message::Event(event)) => over |= connection.happened(event, &events) == Next::Over,
                        // An event of a newer shim.
                        Err(error) => tracing::debug!(%error, "a shim said something unknown"),
                    }
                }
            }
        }
    }
    lock(&connection.0.requests).take();
    drop(open);
    if !over {
        died(&connection, &env, &events).await;
    }
    connection.0.gone.send_replace(true);
}

/// The shim is dead: so shall be everything it held.
async fn died(connection: &TaskConnection, env: &Env, events: &Events) {
    let containers = connection.without_exit();
    let (cgroup_name, clock) = (connection.0.cgroup.clone(), env.clone());
    let dir = connection.0.dir.clone();
    let killed = tokio::task::spawn_blocking(move || {
        crate::cleanup::end_shim_of(&dir, &clock)?;
        cgroup::destroy(&clock, &cgroup_name)
    })
    .await;
    if !matches!(killed, Ok(Ok(()))) {
        tracing::error!(task = %connection.0.task, ?killed, "what a dead shim left could not be killed");
    }
    let _ = events.send(RuntimeEvent::ShimDied {
        task: connection.0.task,
        containers,
        at: env.now(),
    });
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
