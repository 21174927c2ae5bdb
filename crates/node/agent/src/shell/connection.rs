//! The ACS socket: found, opened, read and written. One at a time.
//!
//! What always holds: a frame reaches the core only if it came from the socket that was opened last;
//! frames leave in the order in which they were given.
//! What it leaves to others: when to open and close it (the core).

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use gantry_api::acs::{ErrorMessage, Frame};
use gantry_api::client::{ClientError, ClientSocket};
use gantry_api::ecs;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tracing::{info, warn};

use super::calls::Clients;
use super::registration::Registration;
use crate::core::Input;

/// The version of the protocol that the Amazon ECS agent speaks.
const PROTOCOL_VERSION: &str = "2";
/// A peer that takes no frames is given this many before they are dropped.
const FRAMES_WAITING_MAX: usize = 4096;

#[derive(Debug)]
pub enum SocketEvent {
    Connected,
    Frame(Frame),
    Closed {
        reason: String,
    },
    /// The control plane says that this container instance is not active.
    Inactive,
}

pub struct Connection {
    clients: Arc<Clients>,
    version: String,
    registration: Registration,
    /// Grows with every socket, so that what an old one still delivers is known as such.
    socket: u64,
    worker: Option<Worker>,
}

struct Worker {
    task: JoinHandle<()>,
    frames: mpsc::Sender<Frame>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    pub fn new(clients: Arc<Clients>, version: String, registration: Registration) -> Connection {
        Connection {
            clients,
            version,
            registration,
            socket: 0,
            worker: None,
        }
    }

    /// Opens a new socket instead of the old one. What becomes of it is told.
    pub fn open(&mut self, tell: impl Fn(u64, SocketEvent) + Send + Sync + 'static) {
        self.socket += 1;
        let (frames, queue) = mpsc::channel(FRAMES_WAITING_MAX);
        let (clients, registration) = (self.clients.clone(), self.registration.clone());
        let (version, socket) = (self.version.clone(), self.socket);
        let task = tokio::spawn(async move {
            let end = match connect(&clients, &registration, &version).await {
                Ok(stream) => {
                    info!("connected to the control plane");
                    tell(socket, SocketEvent::Connected);
                    let reason = pump(stream, queue, |frame| {
                        tell(socket, SocketEvent::Frame(frame));
                    })
                    .await;
                    SocketEvent::Closed { reason }
                }
                Err(error) if error.code == "InactiveInstanceException" => SocketEvent::Inactive,
                Err(error) => SocketEvent::Closed {
                    reason: error.to_string(),
                },
            };
            tell(socket, end);
        });
        self.worker = Some(Worker { task, frames });
    }

    pub fn close(&mut self) {
        self.socket += 1;
        self.worker = None;
    }

    pub fn send(&mut self, frame: Frame) {
        let Some(worker) = &self.worker else { return };
        if worker.frames.try_send(frame).is_err() {
            // A peer that reads nothing is no peer: the socket's end is told by its worker.
            warn!("the control plane takes no frames");
        }
    }

    /// What an event means for the core; nothing if it is an old socket's.
    pub fn input(&mut self, socket: u64, event: SocketEvent) -> Option<Input> {
        if socket != self.socket {
            return None;
        }
        Some(match event {
            SocketEvent::Connected => Input::Connected,
            SocketEvent::Frame(frame) => Input::Frame(frame),
            SocketEvent::Closed { reason } => {
                warn!(reason, "not connected to the control plane");
                self.worker = None;
                Input::Disconnected { reason }
            }
            SocketEvent::Inactive => {
                self.worker = None;
                let message = Some("the container instance is not active".to_owned());
                Input::Frame(Frame::InactiveInstance(ErrorMessage { message }))
            }
        })
    }
}

async fn connect(
    clients: &Clients,
    registration: &Registration,
    version: &str,
) -> Result<ClientSocket, ClientError> {
    let discovered = clients
        .own()?
        .call::<ecs::DiscoverPollEndpoint>(ecs::DiscoverPollEndpointRequest {
            cluster: Some(registration.cluster.clone()),
            container_instance: Some(registration.container_instance_arn.clone()),
        })
        .await?;
    let endpoint = discovered
        .endpoint
        .ok_or_else(|| ClientError::misuse("DiscoverPollEndpoint answered without an endpoint"))?;
    let socket_client = clients.at(&endpoint)?;
    let query = [
        ("agentHash", "gantry"),
        ("agentVersion", version),
        ("clusterArn", registration.cluster_arn.as_str()),
        (
            "containerInstanceArn",
            registration.container_instance_arn.as_str(),
        ),
        ("protocolVersion", PROTOCOL_VERSION),
        ("sendCredentials", "true"),
        ("seqNum", "1"),
    ];
    socket_client.websocket("/ws", &query).await
}

/// Reads and writes until either end is over. The answer is why.
async fn pump(
    stream: ClientSocket,
    mut queue: mpsc::Receiver<Frame>,
    mut on_frame: impl FnMut(Frame),
) -> String {
    let (mut sink, mut stream) = stream.split();
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) => match Frame::decode(text.as_str()) {
                    Ok(frame) => on_frame(frame),
                    Err(error) => return error.to_string(),
                },
                Some(Ok(Message::Close(_))) | None => return "closed by the control plane".to_owned(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.to_string(),
            },
            frame = queue.recv() => {
                let Some(frame) = frame else { return "closed".to_owned() };
                if let Err(error) = sink.feed(Message::text(frame.encode())).await {
                    return error.to_string();
                }
                // What waits goes out in one write.
                while let Ok(frame) = queue.try_recv() {
                    if let Err(error) = sink.feed(Message::text(frame.encode())).await {
                        return error.to_string();
                    }
                }
                if let Err(error) = sink.flush().await {
                    return error.to_string();
                }
            }
        }
    }
}
