//! Pumps the agent's core on a real machine: sockets, calls, timers, the journal and the runtime.
//!
//! What always holds: the core is stepped by one task only, so its inputs have one order; everything
//! slow is done elsewhere and comes back as an input.
//! What it leaves to others: every decision (`core`).

mod calls;
mod connection;
mod container_spec;
mod driver;
mod endpoints;
mod health;
mod images;
mod journal_file;
mod log_drivers;
mod name_files;
mod network;
mod registration;
mod registry;
mod telemetry;
mod tmpfs;
mod volumes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::acs::RoleType;
use gantry_api::client::{Client, ClientError, CredentialsProvider};
use gantry_arn::Region;
use gantry_env::{Env, Sleep};
use gantry_runtime::{InstallationId, Runtime, RuntimeError, RuntimeOptions, ShimCommand};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use self::calls::Clients;
use self::connection::{Connection, SocketEvent};
use self::driver::Driver;
use self::endpoints::{Answers, ControlPlaneDoor, Endpoints, Serving};
use self::images::{ImageSettings, collect_for_ever};
use self::journal_file::JournalWriter;
use self::network::Networks;
pub use self::network::network_dir;
pub use self::registration::MachineResources;
use self::telemetry::{HealthBoard, Publisher, Publishing};
use self::volumes::Volumes;
pub use self::volumes::cleanup as cleanup_volumes;
use crate::core::step::{Input, Output, PersistId, RuntimeCommand, Timer};
use crate::core::{AgentCore, Identity, Journal};

/// How long a node that is ending waits for its tasks to be stopped and reported.
const STOP_ALL_TIMEOUT: Duration = Duration::from_secs(150);

/// How long the shims that a killed agent was starting may take to show themselves.
const STARTS_SETTLE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct AgentConfig {
    /// The installation's directory; the agent keeps its own files in `agent` below it.
    pub data_dir: PathBuf,
    /// The control plane to join: `http://127.0.0.1:4566`.
    pub endpoint: String,
    pub region: Region,
    pub cluster: String,
    pub credentials: Arc<dyn CredentialsProvider>,
    pub installation: InstallationId,
    pub shim: ShimCommand,
    /// What the agent says it is.
    pub version: String,
    /// What this machine gives to tasks; None for all that it has.
    pub resources: Option<MachineResources>,
    /// Attributes of the container instance beside those that every agent has.
    pub attributes: Vec<(String, String)>,
}

/// What shall become of the tasks when the agent ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shutdown {
    #[default]
    No,
    /// The agent ends at once, its tasks run on.
    LeaveTasks,
    /// Stop them, report that, and end.
    StopTasks,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent's files in {path}: {cause}")]
    Files {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("the journal cannot be written: {0}")]
    Journal(std::io::Error),
    /// An environment variable that cannot be read.
    #[error("a setting of images: {0}")]
    Setting(String),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Network(#[from] gantry_network::NetworkError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The agent of one container instance.
pub struct Agent;

/// What comes to the task that steps the core.
enum Event {
    Input(Input),
    Socket {
        socket: u64,
        event: SocketEvent,
    },
    JournalFailed(std::io::Error),
    /// Somebody wants to see how things are.
    Look(Look),
}

type Look = Box<dyn FnOnce(&AgentCore) + Send>;

/// Lets others see the core between two steps. Cloning shares it.
#[derive(Clone)]
struct Onlooker(mpsc::UnboundedSender<Event>);

impl Onlooker {
    /// `None` once the agent has ended. What is done while looking must be short.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&AgentCore) -> T + Send + 'static,
    ) -> Option<T> {
        let (seen, wait) = tokio::sync::oneshot::channel();
        let look: Look = Box::new(move |core| {
            // Whoever asked may have gone.
            let _ = seen.send(look(core));
        });
        self.0.send(Event::Look(look)).ok()?;
        wait.await.ok()
    }
}

impl Agent {
    /// Runs until `shutdown` says otherwise. A dropped sender leaves the tasks running.
    pub async fn run(
        config: AgentConfig,
        env: Env,
        mut shutdown: watch::Receiver<Shutdown>,
    ) -> Result<(), AgentError> {
        let directory = config.data_dir.join("agent");
        let offsets = directory.join("log-offsets");
        let files = |cause| AgentError::Files {
            path: directory.clone(),
            cause,
        };
        std::fs::create_dir_all(&offsets).map_err(files)?;
        let clients = Arc::new(Clients::new(
            config.endpoint.clone(),
            config.region.clone(),
            config.credentials.clone(),
            env.clone(),
        ));
        let own = clients.own()?;
        let images =
            ImageSettings::from(|name| std::env::var(name).ok()).map_err(AgentError::Setting)?;
        let options = RuntimeOptions {
            data_dir: config.data_dir.clone(),
            installation: config.installation.clone(),
            shim: config.shim.clone(),
            env: env.clone(),
        };
        let runtime = Runtime::open_with(options, images.store).await?;
        let resources = match config.resources {
            Some(resources) => resources,
            None => MachineResources::of_this_machine().map_err(files)?,
        };
        let registering = registration::register(
            &own,
            &directory,
            &config.cluster,
            &config.version,
            resources,
            &config.attributes,
            &env,
        );
        let registration = tokio::select! {
            registration = registering => registration.map_err(files)?,
            _ = asked_to_end(&mut shutdown, false) => return Ok(()),
        };
        let (events_in, events) = mpsc::unbounded_channel();
        let told = events_in.clone();
        let (journal, records) = JournalWriter::open(&directory, move |result| {
            // The agent may have ended by now.
            let _ = told.send(match result {
                Ok(id) => Event::Input(Input::Persisted(id)),
                Err(error) => Event::JournalFailed(error),
            });
        })
        .map_err(files)?;
        let told = events_in.clone();
        let networks = Networks::open(&config.installation, &config.data_dir, env.clone())?;
        let (endpoints, loopback) =
            Endpoints::open(&directory, config.endpoint.clone(), env.clone()).map_err(files)?;
        let link = networks.endpoint_listener()?;
        let control_plane = ControlPlaneDoor::open(&config.endpoint, &networks, &env)?;
        // Ends with this agent.
        let mut collecting = JoinSet::new();
        if let Some(policy) = images.collection {
            collecting.spawn(collect_for_ever(runtime.clone(), policy, env.clone()));
        }
        let driver = Driver::new(
            runtime,
            clients.clone(),
            log_drivers::LogFolders {
                offsets,
                files: log_drivers::JsonFiles::in_directory(&directory),
            },
            Volumes::new(&config.data_dir),
            networks.clone(),
            endpoints.clone(),
            Arc::new(move |event| {
                let _ = told.send(Event::Input(Input::Runtime(event)));
            }),
        );
        if Journal::of(&records).has_starts_under_way() {
            // A shim that the last process had just begun is not to be seen yet. Once it is, it either has
            // what it was told to start, or goes.
            env.sleep(STARTS_SETTLE).await;
        }
        let adopted = driver.adopt().await?;
        info!(tasks = adopted.len(), "adopted what still runs");
        let identity = Identity {
            cluster_arn: registration.cluster_arn.clone(),
            container_instance_arn: registration.container_instance_arn.clone(),
        };
        let answers = Answers {
            endpoints: endpoints.clone(),
            driver: driver.clone(),
            networks: networks.clone(),
            onlooker: Onlooker(events_in.clone()),
            own: own.clone(),
            registration: registration.clone(),
            machine_memory_bytes: machine_memory_bytes().map_err(files)?,
            availability_zone: tokio::sync::OnceCell::new(),
        };
        let board = HealthBoard::default();
        let publisher = Publisher {
            clients: clients.clone(),
            registration: registration.clone(),
            version: config.version.clone(),
            driver: driver.clone(),
            networks,
            onlooker: Onlooker(events_in.clone()),
            board: board.clone(),
            env: env.clone(),
        };
        let pump = Pump {
            board,
            _publishing: publisher.begin(),
            endpoints,
            _serving: Serving::begin(answers, link, loopback),
            _control_plane: control_plane,
            core: AgentCore::new(identity, env.entropy.u64()),
            connection: Connection::new(clients.clone(), config.version.clone(), registration),
            own,
            clients,
            driver,
            journal,
            timers: BTreeMap::new(),
            env,
            events_in,
            events,
        };
        pump.run(Input::Loaded { records, adopted }, shutdown).await
    }
}

/// Returns once the agent shall end, and how. While it is ending already, only a second wish that the
/// tasks be left counts.
async fn asked_to_end(shutdown: &mut watch::Receiver<Shutdown>, ending: bool) -> Shutdown {
    let counts = |asked: &Shutdown| match asked {
        Shutdown::No => false,
        Shutdown::StopTasks => !ending,
        Shutdown::LeaveTasks => true,
    };
    // Copied out at once: the guard that `wait_for` gives must not be held across a wait.
    let asked = shutdown.wait_for(counts).await.map(|asked| *asked);
    match asked {
        Ok(asked) => asked,
        Err(_) if ending => std::future::pending().await,
        Err(_) => Shutdown::LeaveTasks,
    }
}

struct Pump {
    core: AgentCore,
    connection: Connection,
    own: Client,
    clients: Arc<Clients>,
    driver: Driver,
    endpoints: Endpoints,
    board: HealthBoard,
    _serving: Serving,
    _control_plane: Option<ControlPlaneDoor>,
    _publishing: Publishing,
    journal: JournalWriter,
    /// When each timer is due, on the monotonic clock.
    timers: BTreeMap<Timer, Duration>,
    env: Env,
    events_in: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Pump {
    async fn run(
        mut self,
        loaded: Input,
        mut shutdown: watch::Receiver<Shutdown>,
    ) -> Result<(), AgentError> {
        self.step(loaded);
        let mut ending: Option<Sleep> = None;
        loop {
            let due = self
                .timers
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(t, at)| (t.clone(), *at));
            let timers = self.env.timers.clone();
            tokio::select! {
                biased;
                asked = asked_to_end(&mut shutdown, ending.is_some()) => {
                    if asked == Shutdown::LeaveTasks {
                        return Ok(());
                    }
                    ending = Some(self.env.sleep(STOP_ALL_TIMEOUT));
                    let reason = "The agent is shutting down".to_owned();
                    self.step(Input::StopAll { reason });
                }
                Some(event) = self.events.recv() => match event {
                    Event::Input(input) => self.step(input),
                    Event::Socket { socket, event } => {
                        if let Some(input) = self.connection.input(socket, event) {
                            self.step(input);
                        }
                    }
                    // What cannot be written down may not be acknowledged, and then nothing can be
                    // done. The tasks run on.
                    Event::JournalFailed(error) => return Err(AgentError::Journal(error)),
                    Event::Look(look) => look(&self.core),
                },
                () = async {
                    match &due {
                        Some((_, at)) => timers.sleep_until_monotonic(*at).await,
                        None => std::future::pending().await,
                    }
                } => {
                    if let Some((timer, _)) = due {
                        self.timers.remove(&timer);
                        self.step(Input::Timer(timer));
                    }
                }
                () = until(&mut ending) => {
                    warn!("some tasks could not be stopped and reported in time");
                    return Ok(());
                }
            }
            if ending.is_some() && self.core.tasks().next().is_none() {
                return Ok(());
            }
        }
    }

    fn step(&mut self, input: Input) {
        let outputs = self.core.step(self.env.now(), input);
        for output in outputs {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect => {
                let events = self.events_in.clone();
                self.connection.open(move |socket, event| {
                    let _ = events.send(Event::Socket { socket, event });
                });
            }
            Output::Disconnect => self.connection.close(),
            Output::Send(frame) => {
                debug!(kind = frame.kind(), "to the control plane");
                self.connection.send(frame);
            }
            Output::Call { call, request } => {
                let (client, events) = (self.own.clone(), self.events_in.clone());
                tokio::spawn(async move {
                    let (task, status) = (request.task_arn.clone(), request.status);
                    let result = calls::submit(&client, request).await;
                    match &result {
                        Ok(()) => debug!(task, ?status, "reported"),
                        Err(error) => warn!(task, ?status, ?error, "a report was not taken"),
                    }
                    let _ = events.send(Event::Input(Input::Reply { call, result }));
                });
            }
            Output::Runtime(command) => {
                if let RuntimeCommand::Remove { task } = &command {
                    // Timers of a task that is over mean nothing any more.
                    let task = *task;
                    self.timers.retain(|timer, _| timer.task() != Some(task));
                }
                self.driver.begin(command);
            }
            Output::SetTimer { timer, after } => {
                self.timers.insert(timer, self.env.monotonic() + after);
            }
            Output::Persist { id, records } => self.persist(id, records),
            Output::Health { task, containers } => self.board.put(task, containers),
            Output::Credentials {
                task,
                role,
                credentials,
            } => {
                if role == RoleType::TaskApplication {
                    self.endpoints.keep_credentials(task, credentials.clone());
                }
                self.clients.keep_role(task, role, credentials);
            }
        }
    }

    fn persist(&self, id: PersistId, records: Vec<crate::core::JournalRecord>) {
        self.journal.append(id, records);
    }
}

/// What bounds a container that has no limit of its own.
fn machine_memory_bytes() -> std::io::Result<u64> {
    let MachineResources { memory_mib, .. } = MachineResources::of_this_machine()?;
    Ok(u64::try_from(memory_mib).unwrap_or_default() << 20)
}

async fn until(deadline: &mut Option<Sleep>) {
    match deadline {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}
