//! The face that an agent sees: async, one `Runtime` a data directory.
//!
//! What always holds: every call that changes something is on disk when it returns; dropping the
//! `Runtime`, or killing its process, ends no container.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_arn::TaskId;
use gantry_env::{Env, Timestamp};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::cgroup::{self, layout::Layout};
use crate::container::ShimProgram;
use crate::error::{ErrorKind, RuntimeError};
use crate::event::{Exit, RuntimeEvent};
use crate::found::OnDisk;
use crate::handle::TaskHandle;
use crate::image::{ImageStore, ImageStoreOptions};
use crate::protocol::{Answer, ContainerState, Verb};
use crate::spec::{ContainerSpec, InstallationId, TaskSpec};
use crate::state::{
    CONTAINER_FILE, CONTAINERS, ContainerFile, Durability, FORMAT, FailedFile, SHIM_FILE, SHIM_LOG,
    SHIM_SOCKET, ShimFile, TASK_FILE, TaskFile, is_alive, read_json, task_cgroup, task_dir,
    tasks_dir, write_json,
};
use crate::task::TaskConnection;

/// How a shim is started: `exe args… <the shim's own arguments>`. Its `main` hands what follows
/// `args` to `gantry_runtime::shim::main` before it does anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimCommand {
    pub exe: PathBuf,
    pub args: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    pub data_dir: PathBuf,
    pub installation: InstallationId,
    pub shim: ShimCommand,
    pub env: Env,
}

/// A task found after a restart.
#[derive(Debug)]
pub struct AdoptedTask {
    pub spec: TaskSpec,
    pub handle: TaskHandle,
    /// Whether its shim runs. Where it does not, no container of the task runs either.
    pub shim_alive: bool,
    pub containers: Vec<AdoptedContainer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedContainer {
    pub spec: ContainerSpec,
    /// `None` where it was asked for but never came to run.
    pub pid: Option<i32>,
    pub started_at: Option<Timestamp>,
    /// `None` while it runs, and where it was lost with its shim.
    pub exit: Option<Exit>,
    /// Why it could not be started.
    pub failed: Option<RuntimeError>,
    /// How often it was started again.
    pub restarts: u32,
}

/// Images, tasks and containers under one data directory. Cloning shares it.
#[derive(Clone)]
pub struct Runtime(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) options: RuntimeOptions,
    pub(crate) images: ImageStore,
    pub(crate) tasks: Mutex<BTreeMap<TaskId, TaskHandle>>,
    events_in: mpsc::UnboundedSender<RuntimeEvent>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<RuntimeEvent>>,
    program: ShimProgram,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

/// Tells ext4 that the folders in this one have nothing to do with each other, so that each has its files in another part
/// of the disk. In one part, a new file is looked for past every one that was deleted within the last minute: after a
/// hundred tasks that costs a third of a start. Other file systems know no such hint, and need none.
fn spread_apart(folder: &Path) {
    let Ok(folder) = std::fs::File::open(folder) else {
        return;
    };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&folder) {
        let _ = rustix::fs::ioctl_setflags(&folder, flags | rustix::fs::IFlags::TOPDIR);
    }
}

impl Runtime {
    /// Opens the data directory, making what it lacks, and throws away what a crash left half way.
    pub async fn open(options: RuntimeOptions) -> Result<Self, RuntimeError> {
        Self::open_with(options, ImageStoreOptions::default()).await
    }

    /// The same, with what is particular about images and registries.
    pub async fn open_with(
        options: RuntimeOptions,
        images: ImageStoreOptions,
    ) -> Result<Self, RuntimeError> {
        let failed = |error: std::io::Error| {
            RuntimeError::runtime(format!(
                "the folder {}: {error}",
                options.data_dir.display()
            ))
        };
        let tasks = tasks_dir(&options.data_dir);
        std::fs::create_dir_all(&tasks).map_err(failed)?;
        spread_apart(&tasks);
        let folder = options.data_dir.join("images");
        let images = ImageStore::open_with(&folder, options.env.clone(), images)?;
        let (events_in, events) = mpsc::unbounded_channel();
        Ok(Self(Arc::new(Inner {
            options,
            images,
            tasks: Mutex::default(),
            events_in,
            events: tokio::sync::Mutex::new(events),
            program: ShimProgram::default(),
        })))
    }

    pub fn installation(&self) -> &InstallationId {
        &self.0.options.installation
    }

    /// Makes the task's directory and starts its shim.
    pub async fn create_task(&self, spec: TaskSpec) -> Result<TaskHandle, RuntimeError> {
        let dir = task_dir(&self.0.options.data_dir, &spec.id);
        let failed = |error: std::io::Error| {
            RuntimeError::new(
                ErrorKind::CannotCreateContainer,
                format!("starting the task's shim: {error}"),
            )
        };
        std::fs::create_dir(&dir).map_err(failed)?;
        let file = TaskFile {
            format: FORMAT,
            installation: self.installation().clone(),
            spec: spec.clone(),
        };
        write_json(&dir.join(TASK_FILE), &file, Durability::Process).map_err(failed)?;
        if !spec.limits.is_none()
            && let Err(error) = self.set_limits(&spec).await
        {
            // Nothing of the task has begun, so nothing of it stays.
            let _ = cgroup::remove(&task_cgroup(self.installation(), &spec.id));
            let _ = std::fs::remove_dir_all(&dir);
            return Err(error);
        }
        let stream = self.start_shim(&dir).map_err(failed)?;
        let connection = self.connect(&spec, dir, stream, false);
        Ok(self.keep(spec, connection))
    }

    async fn set_limits(&self, spec: &TaskSpec) -> Result<(), RuntimeError> {
        let (group, limits) = (task_cgroup(self.installation(), &spec.id), spec.limits);
        tokio::task::spawn_blocking(move || {
            cgroup::limits::set(&Layout::of_this_machine(), &group, &limits)
        })
        .await
        .map_err(|error| RuntimeError::runtime(error.to_string()))?
        .map_err(|error| RuntimeError::create(format!("the task's limits: {error}")))
    }

    pub fn task(&self, task: &TaskId) -> Option<TaskHandle> {
        lock(&self.0.tasks).get(task).cloned()
    }

    /// Every task on disk, connected to its shim where that runs. Call once, after `open`. Containers
    /// whose shim is gone are killed first. Exits that happened meanwhile are in the answer, not events.
    pub async fn adopt(&self) -> Result<Vec<AdoptedTask>, RuntimeError> {
        let folder = tasks_dir(&self.0.options.data_dir);
        let entries = std::fs::read_dir(&folder).map_err(|error| {
            RuntimeError::runtime(format!("the folder {}: {error}", folder.display()))
        })?;
        let mut adopted = Vec::new();
        for entry in entries.flatten() {
            let dir = entry.path();
            match read_json::<TaskFile>(&dir.join(TASK_FILE)) {
                Some(file) => adopted.push(self.adopt_task(file.spec, dir).await?),
                // Nothing was started before the task's file was there.
                None => {
                    let _ = std::fs::remove_dir_all(&dir);
                }
            }
        }
        Ok(adopted)
    }

    /// The next event, of any task. `None` never comes while the `Runtime` lives.
    pub async fn next_event(&self) -> Option<RuntimeEvent> {
        self.0.events.lock().await.recv().await
    }

    fn start_shim(&self, dir: &Path) -> std::io::Result<std::os::unix::net::UnixStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let log = std::fs::File::create(dir.join(SHIM_LOG))?;
        let shim = &self.0.options.shim;
        // A container that finds the program which made it finds it read-only.
        let program = self.0.program.at(&shim.exe)?;
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let mut child = tokio::process::Command::new(path)
            .arg0(&shim.exe)
            .args(&shim.args)
            .arg(dir)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(log)
            // A terminal's Ctrl-C is for this process, not for the tasks.
            .process_group(0)
            .kill_on_drop(false)
            .spawn()?;
        // Somebody must take the end of this child when it comes, which may be much later.
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        Ok(ours)
    }

    fn connect(
        &self,
        spec: &TaskSpec,
        dir: PathBuf,
        stream: std::os::unix::net::UnixStream,
        is_adopted: bool,
    ) -> TaskConnection {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream));
        match stream {
            Ok(stream) => TaskConnection::new(
                spec.id,
                self.installation(),
                dir,
                stream,
                is_adopted,
                self.0.options.env.clone(),
                self.0.events_in.clone(),
            ),
            Err(_) => TaskConnection::without_shim(spec.id, self.installation(), dir),
        }
    }

    fn keep(&self, spec: TaskSpec, connection: TaskConnection) -> TaskHandle {
        let handle = TaskHandle {
            runtime: Arc::downgrade(&self.0),
            env: self.0.options.env.clone(),
            spec: Arc::new(spec),
            connection,
        };
        lock(&self.0.tasks).insert(handle.spec.id, handle.clone());
        handle
    }

    async fn adopt_task(&self, spec: TaskSpec, dir: PathBuf) -> Result<AdoptedTask, RuntimeError> {
        let alive = read_json::<ShimFile>(&dir.join(SHIM_FILE))
            .is_some_and(|shim| is_alive(shim.pid, shim.start_ticks));
        let stream = if alive { connect_in(&dir).ok() } else { None };
        let connection = match stream {
            Some(stream) => self.connect(&spec, dir.clone(), stream, true),
            None => TaskConnection::without_shim(spec.id, self.installation(), dir.clone()),
        };
        let shim_alive = !connection.is_gone() && connection.ask(Verb::Hello).await.is_ok();
        if !shim_alive {
            let (env, cgroup_name) = (
                self.0.options.env.clone(),
                task_cgroup(self.installation(), &spec.id),
            );
            // One that went as it should took its socket along, and left no process.
            let unsettled = !dir.join(SHIM_FILE).exists() || dir.join(SHIM_SOCKET).exists();
            let folder = dir.clone();
            blocking(move || {
                if unsettled {
                    crate::cleanup::end_shim_of(&folder, &env)?;
                }
                cgroup::destroy(&env, &cgroup_name)
            })
            .await?;
        }
        // Read only now that nothing goes on unseen: either the shim tells, or nobody writes any more.
        let told = if shim_alive {
            self.wait_until_made(&connection, &dir).await
        } else {
            Vec::new()
        };
        let mut containers = Vec::new();
        let mut known = Vec::new();
        for entry in std::fs::read_dir(dir.join(CONTAINERS))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Some(file) = read_json::<ContainerFile>(&entry.path().join(CONTAINER_FILE)) else {
                continue;
            };
            let container = match told.iter().find(|told| told.name == file.spec.name) {
                Some(told) => adopted_as_told(file.spec, told),
                None => adopted_as_found(file.spec, OnDisk::of(&entry.path())),
            };
            if container.exit.is_some() {
                known.push((container.spec.name.clone(), container.restarts));
            }
            containers.push(container);
        }
        connection.adopted(&known, &self.0.events_in);
        let handle = self.keep(spec.clone(), connection);
        Ok(AdoptedTask {
            spec,
            handle,
            shim_alive,
            containers,
        })
    }

    /// The last owner may have died while a container was being made: what becomes of it is known in a
    /// moment, and would otherwise look as if it had never been asked for.
    async fn wait_until_made(
        &self,
        connection: &TaskConnection,
        dir: &Path,
    ) -> Vec<ContainerState> {
        let env = &self.0.options.env;
        let deadline = env.monotonic() + MAKING_PATIENCE;
        loop {
            let told = match connection.ask(Verb::State).await {
                Ok(Answer::State { containers }) => Some(containers),
                // A shim of the first protocol, which leaves it to its files.
                _ => None,
            };
            let is_making = match &told {
                Some(containers) => containers.iter().any(|container| container.is_being_made),
                None => has_unsettled(dir),
            };
            if !is_making || env.monotonic() >= deadline {
                return told.unwrap_or_default();
            }
            env.sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A container that a living shim knows: what it could not write on a full disk counts as well.
fn adopted_as_told(spec: ContainerSpec, told: &ContainerState) -> AdoptedContainer {
    AdoptedContainer {
        spec,
        pid: told.pid,
        started_at: told.started_at,
        exit: told.exit.clone(),
        failed: told.failed.as_ref().map(failure),
        restarts: told.run,
    }
}

fn adopted_as_found(spec: ContainerSpec, found: OnDisk) -> AdoptedContainer {
    AdoptedContainer {
        spec,
        restarts: found.run(),
        pid: found.started.as_ref().map(|started| started.pid),
        started_at: found.started.map(|started| started.at),
        exit: found.exit,
        failed: found.failed.as_ref().map(failure),
    }
}

fn failure(failed: &FailedFile) -> RuntimeError {
    RuntimeError::new(ErrorKind::from_name(&failed.kind), failed.message.clone())
}

/// Whether a container was asked for of which nothing is known yet.
fn has_unsettled(task_dir: &Path) -> bool {
    let folders = std::fs::read_dir(task_dir.join(CONTAINERS));
    folders.into_iter().flatten().flatten().any(|entry| {
        let folder = entry.path();
        folder.join(CONTAINER_FILE).exists() && !OnDisk::of(&folder).is_settled()
    })
}

/// How long adoption waits for a container that is being made.
const MAKING_PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the shim of a task's folder, whatever the length of its path.
pub(crate) fn connect_in(dir: &Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    let folder = std::fs::File::open(dir)?;
    std::os::unix::net::UnixStream::connect(format!(
        "/proc/self/fd/{}/{SHIM_SOCKET}",
        folder.as_raw_fd()
    ))
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RuntimeError::runtime(error.to_string()))?
        .map_err(|error| RuntimeError::runtime(error.to_string()))
}

pub(crate) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
