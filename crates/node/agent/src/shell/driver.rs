//! The hands of the core: carries its runtime commands out and tells it what happened.
//!
//! What always holds: every command is answered by an event; starts share a bounded number of workers;
//! a task's spool is drained before it is removed.
//! What it leaves to others: containers (`gantry_runtime`), what to do next (the core).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_api::client::{Client, ClientError};
use gantry_arn::TaskId;
use gantry_env::Env;
use gantry_runtime::{
    ContainerName, ContainerSpec, HeldImage, ImageReference, Runtime, RuntimeEvent as Happened,
    TaskHandle,
};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::calls::Clients;
use super::container_spec::{container_spec, task_spec};
use super::endpoints::Endpoints;
use super::health::Starts;
use super::log_drivers::{self, JsonFiles, LogFolders, LogPlace, SavedOffset};
use super::network::Networks;
use super::registry::Registries;
use super::volumes::{Prepared, Volumes};
use crate::core::plan::{ContainerPlan, LogDriverPlan, LogPlan, NetworkMode, ShippedLog, TaskPlan};
use crate::core::step::{AdoptedContainer, AdoptedTask, Exit, RuntimeCommand, RuntimeEvent};

/// More starts at a time than this only wait for one another in the kernel.
const START_WORKERS: usize = 4;
const REMOVE_RETRY: Duration = Duration::from_secs(5);
const REMOVE_ATTEMPTS: u32 = 10;

pub type Tell = Arc<dyn Fn(RuntimeEvent) + Send + Sync>;

/// Cloning shares it.
#[derive(Clone)]
pub struct Driver(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    clients: Arc<Clients>,
    registries: Registries,
    offsets: PathBuf,
    log_files: JsonFiles,
    volumes: Arc<Volumes>,
    networks: Networks,
    endpoints: Endpoints,
    env: Env,
    tell: Tell,
    starts: Semaphore,
    tasks: Mutex<BTreeMap<TaskId, Arc<OnceCell<TaskHandle>>>>,
    images: Mutex<BTreeMap<(TaskId, String), HeldImage>>,
    logs: Mutex<BTreeMap<(TaskId, String), JoinHandle<()>>>,
    /// Of every container whose output is shipped, for when it starts again.
    shipped: Mutex<BTreeMap<(TaskId, String), ShippedLog>>,
    started: Starts,
}

impl Driver {
    pub fn new(
        runtime: Runtime,
        clients: Arc<Clients>,
        folders: LogFolders,
        volumes: Volumes,
        networks: Networks,
        endpoints: Endpoints,
        tell: Tell,
    ) -> Driver {
        let env = endpoints.env().clone();
        Driver(Arc::new(Inner {
            runtime,
            registries: Registries::new(clients.clone(), env.clone()),
            clients,
            offsets: folders.offsets,
            log_files: folders.files,
            volumes: Arc::new(volumes),
            networks,
            endpoints,
            env,
            tell,
            starts: Semaphore::new(START_WORKERS),
            tasks: Mutex::default(),
            images: Mutex::default(),
            logs: Mutex::default(),
            shipped: Mutex::default(),
            started: Starts::default(),
        }))
    }

    /// What still runs from before, and from now on every event of the runtime.
    pub async fn adopt(&self) -> Result<Vec<AdoptedTask>, gantry_runtime::RuntimeError> {
        let found = self.0.runtime.adopt().await?;
        let mut adopted = Vec::with_capacity(found.len());
        for task in found {
            let id = task.spec.id;
            let nothing_ran = task.containers.iter().all(|container| {
                container.started_at.is_none()
                    && container.exit.is_none()
                    && container.failed.is_none()
            });
            if nothing_ran && !task.shim_alive {
                // Its shim went because nobody told it to start anything, so this is a task that was never
                // started: it is made anew when it is needed.
                info!(task = %id, "a task that had not started is started anew");
                // What is left of one task must not keep the others from being adopted.
                if let Err(error) = task.handle.remove().await {
                    warn!(task = %id, %error, "what is left of a task could not be removed");
                }
                continue;
            }
            let mut containers = BTreeMap::new();
            for container in &task.containers {
                let state = adopted_container(&id, container, task.shim_alive);
                if container.started_at.is_some() {
                    let name = container.spec.name.as_str();
                    self.0.started.adopt(id, name, container.restarts);
                }
                if matches!(state, AdoptedContainer::Starting { restarts: 0 }) {
                    let (driver, handle) = (self.clone(), task.handle.clone());
                    let spec = container.spec.clone();
                    tokio::spawn(async move { driver.finish_start(id, handle, spec).await });
                }
                let name = container.spec.name.as_str();
                let environment = &container.spec.environment;
                self.0.endpoints.adopt(id, name, environment);
                self.0
                    .volumes
                    .remember(id, name, container.spec.mounts.clone());
                containers.insert(name.to_owned(), state);
            }
            lock(&self.0.tasks).insert(id, Arc::new(OnceCell::from(task.handle)));
            let ports = self.0.networks.ports_of(id, containers.keys());
            adopted.push(AdoptedTask {
                task: id,
                containers,
                ports,
            });
        }
        let alive: Vec<TaskId> = adopted.iter().map(|task| task.task).collect();
        let volumes = self.0.volumes.clone();
        self.0.networks.keep_only(&alive).await;
        // What is left of a removal that the last process did not finish. Nothing starts before this ends.
        let _ = tokio::task::spawn_blocking(move || volumes.keep_only(&alive)).await;
        let driver = self.clone();
        tokio::spawn(async move {
            while let Some(event) = driver.0.runtime.next_event().await {
                driver.happened(event);
            }
        });
        Ok(adopted)
    }

    /// The last process died while it had a container started. A shim that never heard of it starts it
    /// now. One that did refuses, and since it does not say what became of that start, the container
    /// counts as failed; removing the task ends it in any case, so it never runs twice.
    async fn finish_start(&self, task: TaskId, handle: TaskHandle, spec: ContainerSpec) {
        let container = spec.name.as_str().to_owned();
        if let Err(error) = handle.start_container(spec).await {
            let reason = error.to_string();
            self.tell(RuntimeEvent::StartFailed {
                task,
                container,
                reason,
            });
        }
    }

    /// Begins a command and returns.
    pub fn begin(&self, command: RuntimeCommand) {
        let driver = self.clone();
        tokio::spawn(async move { driver.carry_out(command).await });
    }

    async fn carry_out(&self, command: RuntimeCommand) {
        match command {
            RuntimeCommand::Pull { task, plan } => {
                let networks = self.0.networks.clone();
                let (expected, ports) = (task, plan.clone());
                // The network's state may be locked for as long as the kernel takes.
                let expecting =
                    tokio::task::spawn_blocking(move || networks.expect_ports(expected, &ports));
                let _ = expecting.await;
                self.pull(task, *plan).await;
            }
            RuntimeCommand::PrepareLog {
                task,
                container,
                log,
            } => {
                let place = self.log_place(task, &container);
                let client = self.log_client(task, &log);
                let result = log_drivers::prepare(client, &log, &place).await;
                self.tell(match result {
                    Ok(()) => RuntimeEvent::LogReady { task, container },
                    Err(reason) => RuntimeEvent::LogFailed {
                        task,
                        container,
                        reason,
                    },
                });
            }
            RuntimeCommand::Start {
                task,
                task_plan,
                plan,
            } => {
                let container = plan.name.clone();
                // What has started is told by the runtime's own event, in order with its exit.
                if let Err(reason) = self.start(task, &task_plan, &plan).await {
                    self.tell(RuntimeEvent::StartFailed {
                        task,
                        container,
                        reason,
                    });
                }
            }
            RuntimeCommand::Stop {
                task,
                container,
                grace,
            } => {
                self.stop(task, &container, grace).await;
            }
            RuntimeCommand::Restart {
                task,
                container,
                restarts,
            } => self.restart(task, container, restarts).await,
            RuntimeCommand::CheckHealth {
                task,
                container,
                restarts,
                check,
            } => self.check_health(task, container, restarts, check).await,
            RuntimeCommand::ResumeLog {
                task,
                container,
                log,
            } => {
                self.forward_log(task, &container, log);
            }
            RuntimeCommand::Remove { task } => self.remove(task).await,
        }
    }

    async fn pull(&self, task: TaskId, plan: ContainerPlan) {
        let container = plan.name.clone();
        match self.pull_image(task, &plan).await {
            Ok(image) => {
                let digest = image.digest.clone();
                lock(&self.0.images).insert((task, container.clone()), image);
                self.tell(RuntimeEvent::Pulled {
                    task,
                    container,
                    digest,
                });
            }
            Err(reason) => self.tell(RuntimeEvent::PullFailed {
                task,
                container,
                reason,
            }),
        }
    }

    async fn pull_image(&self, task: TaskId, plan: &ContainerPlan) -> Result<HeldImage, String> {
        let reference: ImageReference = plan.image.parse().map_err(|error| {
            format!(
                "CannotPullContainerError: '{}' is not the name of an image: {error}",
                plan.image
            )
        })?;
        let access = self.0.registries.access(task, &plan.registry).await?;
        match self.0.runtime.pull_held(&reference, &access).await {
            Ok(image) => Ok(image),
            Err(error) => {
                // The password may be what is wrong; the next pull gets a new one.
                self.0.registries.forget(&plan.registry);
                Err(error.to_string())
            }
        }
    }

    async fn start(
        &self,
        task: TaskId,
        task_plan: &TaskPlan,
        plan: &ContainerPlan,
    ) -> Result<(), String> {
        let image = lock(&self.0.images)
            .remove(&(task, plan.name.clone()))
            .ok_or_else(|| {
                "CannotCreateContainerError: the image is not here any more".to_owned()
            })?;
        let Prepared { mounts, copy_up } =
            self.0
                .volumes
                .prepare(task, task_plan, plan, &image.config.volumes)?;
        let mut spec = container_spec(task_plan, plan, &image, mounts)?;
        spec.copy_up = copy_up;
        self.0
            .endpoints
            .join(task, task_plan, plan, &image.config.env, &mut spec);
        let cell = lock(&self.0.tasks).entry(task).or_default().clone();
        let _worker = self
            .0
            .starts
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        if task_plan.network_mode == NetworkMode::Bridge && !plan.network_disabled {
            let attached = self.0.networks.attach(task, plan).await?;
            if !attached.ports.is_empty() {
                self.tell(RuntimeEvent::PortsBound {
                    task,
                    container: plan.name.clone(),
                    bindings: attached.ports.clone(),
                });
            }
            attached.join(&mut spec);
        }
        let handle = cell
            .get_or_try_init(|| self.0.runtime.create_task(task_spec(task, task_plan)))
            .await
            .map_err(|error| error.to_string())?;
        handle
            .start_container(spec)
            .await
            .map_err(|error| error.to_string())?;
        if let LogPlan::Shipped(log) = &plan.log {
            self.forward_log(task, &plan.name, log.clone());
        }
        Ok(())
    }

    async fn stop(&self, task: TaskId, container: &str, grace: Duration) {
        let Some((handle, name)) = self.handle(task).zip(container.parse().ok()) else {
            return;
        };
        if let Err(error) = handle.stop(&name, grace).await {
            // What could not be stopped is gone or its shim is: the runtime tells either.
            warn!(%task, container, %error, "a container could not be stopped");
        }
    }

    fn log_place(&self, task: TaskId, container: &str) -> LogPlace {
        LogPlace {
            task: task.as_str().to_owned(),
            container: container.to_owned(),
            files: self.0.log_files.clone(),
            env: self.0.env.clone(),
        }
    }

    /// The client of CloudWatch Logs that a container's driver speaks through, made anew each time,
    /// because credentials change.
    fn log_client(
        &self,
        task: TaskId,
        log: &ShippedLog,
    ) -> impl Fn() -> Result<Client, ClientError> + Send + Sync + use<> {
        let clients = self.0.clients.clone();
        let (region, role) = match &log.driver {
            LogDriverPlan::AwsLogs(plan) => (plan.region.clone(), plan.use_execution_role),
            _ => (String::new(), false),
        };
        move || clients.for_task(task, &region, role)
    }

    fn forward_log(&self, task: TaskId, container: &str, log: ShippedLog) {
        let Some((handle, name)) = self
            .handle(task)
            .zip(container.parse::<ContainerName>().ok())
        else {
            return;
        };
        let key = (task, container.to_owned());
        lock(&self.0.shipped).insert(key.clone(), log.clone());
        let client = self.log_client(task, &log);
        let place = self.log_place(task, container);
        let mut logs = lock(&self.0.logs);
        // One at a time: the forwarder of the run before may still have something to deliver.
        let before = logs.remove(&key);
        let saved = SavedOffset::new(&self.0.offsets, task.as_str(), container);
        let forwarder = tokio::spawn(async move {
            if let Some(before) = before {
                // One that panicked has nothing more to deliver.
                let _ = before.await;
            }
            match handle.logs(&name, saved.load()) {
                Ok(reader) => log_drivers::forward(client, reader, log, saved, place).await,
                Err(error) => {
                    warn!(%task, container = %name, %error, "a container's log cannot be read");
                }
            }
        });
        logs.insert(key, forwarder);
    }

    async fn remove(&self, task: TaskId) {
        let handle = self.handle(task);
        if let Some(handle) = &handle
            && let Err(error) = handle.close().await
        {
            debug!(%task, %error, "a task's shim could not be told that it is over");
        }
        let forwarders: Vec<_> = {
            let mut logs = lock(&self.0.logs);
            let keys: Vec<_> = logs.keys().filter(|(of, _)| *of == task).cloned().collect();
            keys.into_iter()
                .filter_map(|key| logs.remove_entry(&key))
                .collect()
        };
        for ((_, container), forwarder) in forwarders {
            // A forwarder that panicked has nothing more to deliver.
            let _ = forwarder.await;
            SavedOffset::new(&self.0.offsets, task.as_str(), &container).remove();
        }
        if let Some(handle) = handle {
            for attempt in 1..=REMOVE_ATTEMPTS {
                match handle.remove().await {
                    Ok(()) => break,
                    Err(error) => {
                        warn!(%task, %error, attempt, "a task could not be removed");
                        self.0.env.sleep(REMOVE_RETRY).await;
                    }
                }
            }
        }
        self.0.networks.detach(task).await;
        let volumes = self.0.volumes.clone();
        let removed = tokio::task::spawn_blocking(move || volumes.remove(task)).await;
        if let Ok(Err(error)) = removed {
            warn!(%task, %error, "a task's volumes could not be removed");
        }
        lock(&self.0.tasks).remove(&task);
        lock(&self.0.images).retain(|(of, _), _| *of != task);
        lock(&self.0.shipped).retain(|(of, _), _| *of != task);
        self.0.started.forget(task);
        self.0.endpoints.forget(task);
        self.0.clients.forget_task(task);
        self.tell(RuntimeEvent::Removed { task });
    }

    fn happened(&self, event: Happened) {
        match event {
            Happened::ContainerStarted {
                task,
                container,
                pid: _,
                at,
            } => {
                let container = container.as_str().to_owned();
                let runtime_id = runtime_id(&task, &container);
                if self.0.started.count(task, &container) {
                    let shipped = lock(&self.0.shipped);
                    let log = shipped.get(&(task, container.clone())).cloned();
                    drop(shipped);
                    if let Some(log) = log {
                        self.forward_log(task, &container, log);
                    }
                }
                self.tell(RuntimeEvent::Started {
                    task,
                    container,
                    runtime_id,
                    at,
                });
            }
            Happened::ContainerExited {
                task,
                container,
                exit,
            } => {
                let container = container.as_str().to_owned();
                let runtime_id = runtime_id(&task, &container);
                let exit = exit_of(&exit);
                self.tell(RuntimeEvent::Exited {
                    task,
                    container,
                    runtime_id,
                    exit,
                });
            }
            Happened::ShimDied {
                task,
                containers: _,
                at: _,
            } => {
                self.tell(RuntimeEvent::ShimDied {
                    task,
                    reason: "ContainerRuntimeError: the task's shim ended".to_owned(),
                });
            }
        }
    }

    pub(super) fn env(&self) -> &Env {
        &self.0.env
    }

    pub(super) fn starts(&self) -> &Starts {
        &self.0.started
    }

    pub(super) fn mounts(&self, task: TaskId, container: &str) -> Vec<gantry_runtime::BindMount> {
        self.0.volumes.mounts(task, container)
    }

    pub(super) fn handle(&self, task: TaskId) -> Option<TaskHandle> {
        lock(&self.0.tasks)
            .get(&task)
            .and_then(|cell| cell.get().cloned())
    }

    pub(super) fn tell(&self, event: RuntimeEvent) {
        (self.0.tell)(event);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the API shows as `runtimeId`: in the form of Fargate's, the same after a restart.
fn runtime_id(task: &TaskId, container: &str) -> String {
    format!("{task}-{container}")
}

fn exit_of(exit: &gantry_runtime::Exit) -> Exit {
    Exit {
        exit_code: exit.exit_code,
        out_of_memory: exit.out_of_memory,
        at: exit.at,
    }
}

fn adopted_container(
    task: &TaskId,
    container: &gantry_runtime::AdoptedContainer,
    shim_alive: bool,
) -> AdoptedContainer {
    let runtime_id = runtime_id(task, container.spec.name.as_str());
    let lost = || AdoptedContainer::Lost {
        reason: "ContainerRuntimeError: the task's shim ended".to_owned(),
    };
    if let Some(error) = &container.failed {
        return AdoptedContainer::Lost {
            reason: error.to_string(),
        };
    }
    match (&container.exit, container.started_at) {
        (Some(exit), started_at) => AdoptedContainer::Exited {
            runtime_id,
            started_at: started_at.unwrap_or(exit.at),
            restarts: container.restarts,
            exit: exit_of(exit),
        },
        (None, Some(started_at)) if shim_alive => AdoptedContainer::Running {
            runtime_id,
            started_at,
            restarts: container.restarts,
        },
        (None, None) if shim_alive => AdoptedContainer::Starting {
            restarts: container.restarts,
        },
        (None, _) => lost(),
    }
}
