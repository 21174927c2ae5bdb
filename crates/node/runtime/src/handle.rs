//! One task, as an agent holds it: starting, stopping, looking at its containers.
//!
//! What always holds: every call that changes something is on disk, or taken on by the task's shim, when it returns.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_arn::TaskId;
use gantry_env::{Env, Timestamp};

use crate::cgroup::{self, layout::Layout};
use crate::error::{ErrorKind, RuntimeError};
use crate::logs::LogReader;
use crate::protocol::{Answer, Verb};
use crate::runtime::{Inner, blocking, lock};
use crate::spec::{ContainerName, ContainerSpec, ExecResult, ExecSpec, LogSpec, TaskSpec};
use crate::state::{
    CONTAINER_FILE, ContainerFile, Durability, SPOOL, container_dir, read_json, write_json,
};
use crate::stats::ContainerStats;
use crate::task::TaskConnection;

/// How long a killed task's shim may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// A container that has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedContainer {
    pub pid: i32,
    pub started_at: Timestamp,
}

/// A task that has a shim. Cloning shares it.
#[derive(Clone)]
pub struct TaskHandle {
    pub(crate) runtime: std::sync::Weak<Inner>,
    pub(crate) env: Env,
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) connection: TaskConnection,
}

impl std::fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskHandle")
            .field("task", &self.spec.id)
            .finish_non_exhaustive()
    }
}

impl TaskHandle {
    pub fn id(&self) -> &TaskId {
        &self.spec.id
    }

    /// Makes and starts a container; it runs its own program when this returns.
    pub async fn start_container(
        &self,
        spec: ContainerSpec,
    ) -> Result<StartedContainer, RuntimeError> {
        let runtime = self
            .runtime
            .upgrade()
            .ok_or_else(|| RuntimeError::runtime("the runtime is gone"))?;
        if !spec.is_of_the_first_protocol() {
            self.connection.must_speak(2).await?;
        }
        // Until the container's file says that it is used.
        let _hold = runtime.images.hold(&spec.image);
        let image = runtime.images.image(&spec.image)?;
        let layers_dir = runtime.images.layers_dir();
        let lowers = runtime.images.lowers(&spec.image)?;
        let layers = lowers
            .iter()
            .rev()
            .filter_map(|lower| {
                Some(
                    lower
                        .strip_prefix(&layers_dir)
                        .ok()?
                        .to_string_lossy()
                        .into_owned(),
                )
            })
            .collect();
        let dir = container_dir(self.connection.dir(), &spec.name);
        let failed = |error: std::io::Error| {
            RuntimeError::create(format!("the container's folder: {error}"))
        };
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let file = ContainerFile {
            task: (*self.spec).clone(),
            image: image.config,
            layers_dir,
            layers,
            cgroup: format!("{}/{}", self.connection.cgroup(), spec.name),
            // A start that is asked for once more, because the first asker died, is of the same container.
            spool_id: read_json::<ContainerFile>(&dir.join(CONTAINER_FILE))
                .map(|before| before.spool_id)
                .unwrap_or_else(|| hex::encode(self.env.entropy.bytes16())),
            spec,
        };
        write_json(&dir.join(CONTAINER_FILE), &file, Durability::Process).map_err(failed)?;
        let (container, logs) = (file.spec.name, file.spec.logs);
        let answer = self
            .connection
            .ask(Verb::Start {
                container: container.clone(),
                logs,
            })
            .await?;
        started(answer)
    }

    /// Starts a container again that has ended: its writable layer, cgroup, network and spool are the same.
    /// It runs its own program when this returns, and `RuntimeEvent::ContainerStarted` is told again.
    pub async fn restart_container(
        &self,
        container: &ContainerName,
    ) -> Result<StartedContainer, RuntimeError> {
        let verb = Verb::Restart {
            container: container.clone(),
        };
        started(self.connection.ask(verb).await?)
    }

    /// Runs a program beside a running container's own and waits for its end. It is killed, with all that it
    /// started, at its time-out and when the container ends.
    pub async fn exec(
        &self,
        container: &ContainerName,
        exec: ExecSpec,
    ) -> Result<ExecResult, RuntimeError> {
        let verb = Verb::Exec {
            container: container.clone(),
            exec,
        };
        match self.connection.ask(verb).await? {
            Answer::Executed {
                exit_code,
                output,
                timed_out,
            } => Ok(ExecResult {
                exit_code,
                output: STANDARD.decode(output).map_err(|error| {
                    RuntimeError::runtime(format!("the output of a program: {error}"))
                })?,
                timed_out,
            }),
            other => Err(RuntimeError::runtime(format!(
                "the shim answered {other:?} to a program"
            ))),
        }
    }

    /// Sends a signal by number to the container's first process. Nothing if it has ended.
    pub async fn signal(&self, container: &ContainerName, signal: i32) -> Result<(), RuntimeError> {
        self.connection
            .ask(Verb::Signal {
                container: container.clone(),
                signal,
            })
            .await
            .map(drop)
    }

    /// Sends the image's stop signal (SIGTERM without one), and SIGKILL after `grace`. Returns once
    /// the shim has taken it on, which then happens whatever becomes of this process; the exit is an event.
    pub async fn stop(
        &self,
        container: &ContainerName,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let dir = container_dir(self.connection.dir(), container);
        let file = read_json::<ContainerFile>(&dir.join(CONTAINER_FILE));
        let wanted = file.and_then(|file| file.image.stop_signal);
        let signal = wanted
            .as_deref()
            .and_then(signal_number)
            .unwrap_or(libc::SIGTERM);
        let grace_ms = grace.as_millis().min(u128::from(u64::MAX)) as u64;
        self.connection
            .ask(Verb::Stop {
                container: container.clone(),
                signal,
                grace_ms,
            })
            .await
            .map(drop)
    }

    /// No more containers will start: the shim goes once those that run have ended. State and
    /// logs stay until `remove`.
    pub async fn close(&self) -> Result<(), RuntimeError> {
        if self.connection.is_gone() {
            return Ok(());
        }
        match self.connection.ask(Verb::Close).await {
            // It went before it could answer.
            Err(_) if self.connection.is_gone() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Kills what runs and removes everything of the task: processes, cgroups, files.
    pub async fn remove(&self) -> Result<(), RuntimeError> {
        if !self.connection.is_gone() && self.connection.ask(Verb::Kill).await.is_ok() {
            tokio::select! {
                () = self.connection.gone() => {}
                () = self.env.sleep(KILL_PATIENCE) => {}
            }
        }
        let (env, cgroup_name, dir) = (
            self.env.clone(),
            self.connection.cgroup().to_owned(),
            self.connection.dir().to_owned(),
        );
        let is_gone = self.connection.is_gone();
        blocking(move || {
            if !is_gone {
                crate::cleanup::end_shim_of(&dir, &env)?;
            }
            cgroup::destroy(&env, &cgroup_name)?;
            crate::cleanup::remove_task_dir(&dir)
        })
        .await?;
        if let Some(runtime) = self.runtime.upgrade() {
            lock(&runtime.tasks).remove(&self.spec.id);
        }
        Ok(())
    }

    /// What a running container has used so far. No shim is asked.
    pub async fn stats(&self, container: &ContainerName) -> Result<ContainerStats, RuntimeError> {
        let cgroup = format!("{}/{container}", self.connection.cgroup());
        self.read_stats(cgroup, format!("the container {container}"))
            .await
    }

    /// What all containers of the task have used together.
    pub async fn task_stats(&self) -> Result<ContainerStats, RuntimeError> {
        self.read_stats(self.connection.cgroup().to_owned(), "the task".to_owned())
            .await
    }

    async fn read_stats(
        &self,
        cgroup: String,
        whose: String,
    ) -> Result<ContainerStats, RuntimeError> {
        let at = self.env.now();
        let failed = |why: String| RuntimeError::new(ErrorKind::CannotInspectContainer, why);
        tokio::task::spawn_blocking(move || {
            cgroup::usage::read(&Layout::of_this_machine(), &cgroup, at)
        })
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|_| failed(format!("{whose} is not running")))
    }

    /// Reads the container's spool from an offset that a record ended at (0: from the start).
    pub fn logs(&self, container: &ContainerName, offset: u64) -> Result<LogReader, RuntimeError> {
        let dir = container_dir(self.connection.dir(), container);
        let file: ContainerFile = read_json(&dir.join(CONTAINER_FILE))
            .ok_or_else(|| RuntimeError::runtime(format!("there is no container {container}")))?;
        if file.spec.logs == LogSpec::None {
            return Err(RuntimeError::runtime(format!(
                "the container {container} has no spool"
            )));
        }
        Ok(LogReader::new(
            file.spool_id,
            dir.join(SPOOL),
            container.clone(),
            self.connection.clone(),
            offset,
        ))
    }
}

fn started(answer: Answer) -> Result<StartedContainer, RuntimeError> {
    match answer {
        Answer::Started { pid, at, .. } => Ok(StartedContainer {
            pid,
            started_at: at,
        }),
        other => Err(RuntimeError::runtime(format!(
            "the shim answered {other:?} to a start"
        ))),
    }
}

/// A signal by its name (`SIGQUIT`, `QUIT`) or number, as an image says it.
fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let short = name.strip_prefix("SIG").unwrap_or(name);
    SIGNALS
        .iter()
        .find(|(known, _)| *known == short)
        .map(|(_, number)| *number)
}

/// Those that an image could name to stop a program.
const SIGNALS: [(&str, i32); 12] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ABRT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CONT", libc::SIGCONT),
    ("WINCH", libc::SIGWINCH),
    ("PWR", libc::SIGPWR),
];
