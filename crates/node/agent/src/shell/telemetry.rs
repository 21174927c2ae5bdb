//! The TCS socket: what containers use, whether they are healthy, and whether this machine can run any.
//!
//! What always holds: a change of health is published at once, and again until it is acknowledged;
//! usage every 20 seconds, and only the kernel's own numbers. What was lost with a connection is told
//! again with the next one. Losing telemetry disturbs no task.
//! What it leaves to others: what is healthy (the core), what is made of it (the control plane).

mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gantry_api::acs::{
    ContainerHealth as PublishedHealth, ContainerHealthStatus, InstanceStatus,
    PublishHealthRequest, PublishInstanceStatusRequest, PublishMetricsRequest, TaskHealth,
    TelemetryFrame, TelemetryMetadata, TelemetryTime,
};
use gantry_api::client::{ClientError, ClientSocket, backoff};
use gantry_api::ecs;
use gantry_arn::TaskId;
use gantry_env::{Env, Timestamp};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info};

use self::usage::Usage;
use super::Onlooker;
use super::calls::Clients;
use super::driver::Driver;
use super::network::Networks;
use super::registration::Registration;
use crate::core::step::ContainerHealth;
use crate::core::{AgentCore, HealthStatus};

/// As the Amazon ECS agent.
const METRICS_INTERVAL: Duration = Duration::from_secs(20);
/// How often the machine itself is looked at: every third time.
const INSTANCE_CHECK_EVERY: u32 = 3;
const TASKS_A_MESSAGE_MAX: usize = 10;
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// The control plane sends a heartbeat at least every minute.
const SILENCE: Duration = Duration::from_secs(150);

/// The health that is to be published. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct HealthBoard(Arc<Board>);

#[derive(Default)]
struct Board {
    health: Mutex<Health>,
    news: Notify,
}

#[derive(Default)]
struct Health {
    known: BTreeMap<TaskId, BTreeMap<String, ContainerHealth>>,
    unpublished: BTreeSet<TaskId>,
}

impl HealthBoard {
    /// What is known of a task now; without containers nothing is to be told any more.
    pub fn put(&self, task: TaskId, containers: BTreeMap<String, ContainerHealth>) {
        let mut health = self.lock();
        if containers.is_empty() {
            health.known.remove(&task);
            health.unpublished.remove(&task);
            return;
        }
        health.known.insert(task, containers);
        health.unpublished.insert(task);
        self.0.news.notify_one();
    }

    /// Everything is to be told again.
    fn begin_anew(&self) {
        let mut health = self.lock();
        health.unpublished = health.known.keys().copied().collect();
        self.0.news.notify_one();
    }

    /// A message's worth of what has not been told.
    fn take(&self) -> Vec<(TaskId, BTreeMap<String, ContainerHealth>)> {
        let mut health = self.lock();
        let mut taken = Vec::new();
        while taken.len() < TASKS_A_MESSAGE_MAX
            && let Some(task) = health.unpublished.pop_first()
        {
            let containers = health.known.get(&task).cloned();
            taken.extend(containers.map(|containers| (task, containers)));
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes for as long as this is held.
pub(super) struct Publishing(tokio::task::JoinHandle<()>);

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Everything that is published from.
pub(super) struct Publisher {
    pub clients: Arc<Clients>,
    pub registration: Registration,
    pub version: String,
    pub driver: Driver,
    pub networks: Networks,
    pub onlooker: Onlooker,
    pub board: HealthBoard,
    pub env: Env,
}

impl Publisher {
    pub fn begin(self) -> Publishing {
        Publishing(tokio::spawn(self.run()))
    }

    async fn run(self) {
        let mut failures = 0;
        loop {
            match self.connect().await {
                Ok(socket) => {
                    info!("telemetry is published");
                    let since = self.env.monotonic();
                    let reason = self.publish(socket).await;
                    // One that hangs up at once is no better than one that does not answer.
                    if self.env.monotonic().saturating_sub(since) > RETRY.1 {
                        failures = 0;
                    }
                    info!(reason, "telemetry is not published for now");
                }
                Err(error) => debug!(%error, "telemetry cannot be published"),
            }
            failures += 1;
            let random = self.env.entropy.u64();
            let wait = backoff(failures, RETRY.0, RETRY.1, random);
            self.env.sleep(wait).await;
        }
    }

    async fn connect(&self) -> Result<ClientSocket, ClientError> {
        let Registration {
            cluster,
            cluster_arn,
            container_instance_arn,
        } = &self.registration;
        let request = ecs::DiscoverPollEndpointRequest {
            cluster: Some(cluster.clone()),
            container_instance: Some(container_instance_arn.clone()),
        };
        let discovered = self
            .clients
            .own()?
            .call::<ecs::DiscoverPollEndpoint>(request)
            .await?;
        let endpoint = discovered.telemetry_endpoint.ok_or_else(|| {
            ClientError::misuse("DiscoverPollEndpoint answered without a telemetryEndpoint")
        })?;
        let query = [
            ("agentHash", "gantry"),
            ("agentVersion", self.version.as_str()),
            ("cluster", cluster_arn.as_str()),
            ("containerInstance", container_instance_arn.as_str()),
            // There is no Docker; the Amazon agent always names one.
            ("dockerVersion", "gantry"),
        ];
        self.clients.at(&endpoint)?.websocket("/ws", &query).await
    }

    /// Publishes until the socket is over. The answer is why.
    async fn publish(&self, mut socket: ClientSocket) -> String {
        let mut usage = Usage::default();
        let mut instance = Instance::default();
        let mut unacknowledged = 0u32;
        let mut rounds = 0u32;
        let mut heard_at = self.env.monotonic();
        self.board.begin_anew();
        // The first look is only what the next one is compared with.
        let mut next = self.env.monotonic();
        loop {
            tokio::select! {
                message = socket.next() => {
                    heard_at = self.env.monotonic();
                    match message {
                        Some(Ok(Message::Text(text))) => match kind_of(text.as_str()).as_deref() {
                            Some("AckPublishHealth") => {
                                unacknowledged = unacknowledged.saturating_sub(1);
                            }
                            Some("BadRequestException") => return "the control plane did not understand".to_owned(),
                            _ => {}
                        },
                        Some(Ok(Message::Close(_))) | None => return "closed by the control plane".to_owned(),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return error.to_string(),
                    }
                }
                () = self.board.0.news.notified() => {
                    loop {
                        let tasks = self.board.take();
                        if tasks.is_empty() {
                            break;
                        }
                        let Some(frame) = self.health(tasks).await else { continue };
                        if let Err(reason) = send(&mut socket, &frame).await {
                            return reason;
                        }
                        unacknowledged += 1;
                    }
                }
                () = self.env.timers.sleep_until_monotonic(next) => {
                    next += METRICS_INTERVAL;
                    if self.env.monotonic().saturating_sub(heard_at) > SILENCE {
                        return "nothing is heard".to_owned();
                    }
                    if rounds.is_multiple_of(INSTANCE_CHECK_EVERY)
                        && let Err(reason) = send(&mut socket, &self.instance(&mut instance).await).await
                    {
                        return reason;
                    }
                    rounds += 1;
                    // By now everything that was taken has been acknowledged. Acknowledgements do not
                    // say of what they are, so where one is missing all is told again.
                    if unacknowledged > 0 {
                        unacknowledged = 0;
                        self.board.begin_anew();
                    }
                    for frame in self.metrics(&mut usage).await {
                        if let Err(reason) = send(&mut socket, &frame).await {
                            return reason;
                        }
                    }
                }
            }
        }
    }

    fn metadata(&self, fin: bool) -> TelemetryMetadata {
        let id = u128::from_be_bytes(self.env.entropy.bytes16());
        TelemetryMetadata {
            cluster: Some(self.registration.cluster_arn.clone()),
            container_instance: Some(self.registration.container_instance_arn.clone()),
            message_id: Some(format!("{id:032x}")),
            fin: Some(fin),
            ..TelemetryMetadata::default()
        }
    }

    /// `None` where all of them are gone by now.
    async fn health(
        &self,
        tasks: Vec<(TaskId, BTreeMap<String, ContainerHealth>)>,
    ) -> Option<TelemetryFrame> {
        let look = |core: &AgentCore| -> Vec<TaskHealth> {
            let told = tasks.into_iter().filter_map(|(id, containers)| {
                let task = core.task(id)?;
                Some(TaskHealth {
                    task_arn: task.payload.arn.clone(),
                    cluster_arn: Some(task.cluster.clone()),
                    task_definition_family: task.payload.family.clone(),
                    task_definition_version: task.payload.version.clone(),
                    containers: containers.into_iter().map(published).collect(),
                })
            });
            told.collect()
        };
        let tasks = self.onlooker.look(look).await?;
        (!tasks.is_empty()).then(|| {
            TelemetryFrame::Health(PublishHealthRequest {
                metadata: Some(self.metadata(true)),
                tasks,
                timestamp: Some(TelemetryTime(self.env.now())),
            })
        })
    }

    async fn metrics(&self, usage: &mut Usage) -> Vec<TelemetryFrame> {
        let Some(tasks) = usage
            .measure(&self.onlooker, &self.driver, &self.networks)
            .await
        else {
            return Vec::new();
        };
        let frame = |tasks: Vec<_>, idle: bool, fin: bool| {
            TelemetryFrame::Metrics(PublishMetricsRequest {
                metadata: Some(TelemetryMetadata {
                    idle: Some(idle),
                    ..self.metadata(fin)
                }),
                task_metrics: tasks,
                timestamp: Some(TelemetryTime(self.env.now())),
            })
        };
        if tasks.is_empty() {
            return vec![frame(Vec::new(), true, true)];
        }
        let mut frames = Vec::new();
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let some = tasks.by_ref().take(TASKS_A_MESSAGE_MAX).collect();
            frames.push(frame(some, false, tasks.peek().is_none()));
        }
        frames
    }

    /// Whether the kernel has what containers need.
    async fn instance(&self, before: &mut Instance) -> TelemetryFrame {
        let looked = tokio::task::spawn_blocking(|| {
            let requirements = gantry_runtime::requirements();
            requirements.iter().all(|requirement| requirement.is_met)
        });
        let now = self.env.now();
        let status = match looked.await {
            Ok(true) => "OK",
            Ok(false) => "IMPAIRED",
            Err(_) => "INSUFFICIENT_DATA",
        };
        if before.status != Some(status) {
            *before = Instance {
                status: Some(status),
                since: now,
            };
        }
        TelemetryFrame::InstanceStatus(PublishInstanceStatusRequest {
            metadata: Some(TelemetryMetadata {
                request_id: self.metadata(true).message_id,
                message_id: None,
                fin: None,
                ..self.metadata(true)
            }),
            statuses: vec![InstanceStatus {
                kind: Some("CONTAINER_RUNTIME".to_owned()),
                status: Some(status.to_owned()),
                last_updated: Some(TelemetryTime(now)),
                last_status_change: Some(TelemetryTime(before.since)),
            }],
            timestamp: Some(TelemetryTime(now)),
        })
    }
}

/// What was last found of this machine.
#[derive(Default)]
struct Instance {
    status: Option<&'static str>,
    since: Timestamp,
}

fn published((name, health): (String, ContainerHealth)) -> PublishedHealth {
    PublishedHealth {
        container_name: Some(name),
        health_status: Some(match health.status {
            HealthStatus::Healthy => ContainerHealthStatus::Healthy,
            HealthStatus::Unhealthy => ContainerHealthStatus::Unhealthy,
            HealthStatus::Unknown => {
                ContainerHealthStatus::Unknown(health.status.as_reported().to_owned())
            }
        }),
        status_since: Some(TelemetryTime(health.since)),
        status_message: Some(health.output).filter(|output| !output.is_empty()),
    }
}

async fn send(socket: &mut ClientSocket, frame: &TelemetryFrame) -> Result<(), String> {
    let sent = socket.send(Message::text(frame.encode())).await;
    sent.map_err(|error| error.to_string())
}

fn kind_of(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let parsed: Kind = serde_json::from_str(text).ok()?;
    Some(parsed.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: u8) -> TaskId {
        TaskId::from_random([number; 16])
    }

    fn healthy() -> BTreeMap<String, ContainerHealth> {
        let health = ContainerHealth {
            status: HealthStatus::Healthy,
            since: Timestamp::from_millis(1),
            output: String::new(),
        };
        BTreeMap::from([("web".to_owned(), health)])
    }

    #[test]
    fn health_is_told_once_and_again_with_the_next_socket() {
        let board = HealthBoard::default();
        board.put(task(1), healthy());
        board.put(task(2), healthy());
        assert_eq!(board.take().len(), 2);
        assert!(board.take().is_empty());
        board.put(task(2), BTreeMap::new());
        board.begin_anew();
        assert_eq!(board.take(), vec![(task(1), healthy())]);
    }

    #[test]
    fn a_message_has_a_bounded_number_of_tasks() {
        let board = HealthBoard::default();
        for number in 0..25 {
            board.put(task(number), healthy());
        }
        let sizes: Vec<usize> = (0..4).map(|_| board.take().len()).collect();
        assert_eq!(sizes, [10, 10, 5, 0]);
    }
}
