//! The face that an agent sees: async, one `Runtime` a data directory.
//!
//! What always holds: every call that changes something is durable when it returns; dropping the
//! `Runtime`, or killing its process, ends no container.

use std::path::PathBuf;
use std::time::Duration;

use gantry_arn::TaskId;
use gantry_env::{Env, Timestamp};

use crate::error::RuntimeError;
use crate::event::{Exit, RuntimeEvent};
use crate::image::{ImageReference, PulledImage, RegistryAccess};
use crate::logs::LogReader;
use crate::spec::{ContainerName, ContainerSpec, InstallationId, TaskSpec};

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
}

/// A container that has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedContainer {
    pub pid: i32,
    pub started_at: Timestamp,
}

/// Images, tasks and containers under one data directory. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Runtime {
    options: std::sync::Arc<RuntimeOptions>,
}

/// A task that has a shim. Cloning shares it.
#[derive(Debug, Clone)]
pub struct TaskHandle {
    task: TaskId,
}

fn not_yet(what: &str) -> RuntimeError {
    RuntimeError::runtime(format!("{what} is not built yet"))
}

impl Runtime {
    /// Opens the data directory, making what it lacks, and throws away what a crash left half way.
    pub async fn open(options: RuntimeOptions) -> Result<Self, RuntimeError> {
        Ok(Self {
            options: std::sync::Arc::new(options),
        })
    }

    pub fn installation(&self) -> &InstallationId {
        &self.options.installation
    }

    /// Asks the registry what the reference stands for and fetches what this machine lacks of it.
    /// Calls for the same image share the work.
    pub async fn pull(
        &self,
        _reference: &ImageReference,
        _access: &RegistryAccess,
    ) -> Result<PulledImage, RuntimeError> {
        Err(not_yet("pull"))
    }

    /// What the reference stood for when it was last pulled, if all of it is still here. No network.
    pub async fn cached(&self, _reference: &ImageReference) -> Option<PulledImage> {
        None
    }

    /// Makes the task's directory and starts its shim.
    pub async fn create_task(&self, _spec: TaskSpec) -> Result<TaskHandle, RuntimeError> {
        Err(not_yet("create_task"))
    }

    pub fn task(&self, _task: &TaskId) -> Option<TaskHandle> {
        None
    }

    /// Every task on disk, connected to its shim where that runs. Call once, after `open`. Containers
    /// whose shim is gone are killed first. Exits that happened meanwhile are in the answer, not events.
    pub async fn adopt(&self) -> Result<Vec<AdoptedTask>, RuntimeError> {
        Err(not_yet("adopt"))
    }

    /// The next event, of any task. `None` never comes while the `Runtime` lives.
    pub async fn next_event(&self) -> Option<RuntimeEvent> {
        std::future::pending().await
    }
}

impl TaskHandle {
    pub fn id(&self) -> &TaskId {
        &self.task
    }

    /// Makes and starts a container; it runs its own program when this returns.
    pub async fn start_container(
        &self,
        _spec: ContainerSpec,
    ) -> Result<StartedContainer, RuntimeError> {
        Err(not_yet("start_container"))
    }

    /// Sends a signal by number to the container's first process. Nothing if it has ended.
    pub async fn signal(
        &self,
        _container: &ContainerName,
        _signal: i32,
    ) -> Result<(), RuntimeError> {
        Err(not_yet("signal"))
    }

    /// Sends the image's stop signal (SIGTERM without one), and SIGKILL after `grace`. Returns once
    /// the shim has taken it on, which then happens whatever becomes of this process; the exit is an event.
    pub async fn stop(
        &self,
        _container: &ContainerName,
        _grace: Duration,
    ) -> Result<(), RuntimeError> {
        Err(not_yet("stop"))
    }

    /// No more containers will start: the shim goes once those that run have ended. State and
    /// logs stay until `remove`.
    pub async fn close(&self) -> Result<(), RuntimeError> {
        Err(not_yet("close"))
    }

    /// Kills what runs and removes everything of the task: processes, cgroups, files.
    pub async fn remove(&self) -> Result<(), RuntimeError> {
        Err(not_yet("remove"))
    }

    /// Reads the container's spool from an offset that a record ended at (0: from the start).
    pub fn logs(
        &self,
        _container: &ContainerName,
        _offset: u64,
    ) -> Result<LogReader, RuntimeError> {
        Err(not_yet("logs"))
    }
}
