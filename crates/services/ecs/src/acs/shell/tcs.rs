//! The telemetry socket, `/tcs/ws`: read, kept, acknowledged.
//!
//! What always holds: an acknowledgment of health means that it is durable; a frame that cannot be
//! read is answered with why and the socket stays; a deregistered container instance is hung up on.
//! What it leaves to others: what is kept of usage and state (`telemetry`), what becomes a row (`health`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use gantry_api::acs::{TelemetryAck, TelemetryFrame};
use gantry_api::server::{ServerSocket, UpgradeQuery, WebSocketRoute};
use gantry_api::{ApiError, RequestContext};
use gantry_env::Env;
use gantry_store::Store;
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, warn};

use crate::acs::health::{keep_health, task_of_instance};
use crate::acs::instance::ConnectingInstance;
use crate::acs::telemetry::Telemetry;

/// ECS sends one at least every minute.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// What this socket calls its container instance.
const MEMBER: &str = "containerInstance";

/// The route itself.
pub struct TcsRoute {
    store: Arc<dyn Store>,
    env: Env,
    telemetry: Arc<Telemetry>,
}

impl TcsRoute {
    pub fn new(store: Arc<dyn Store>, env: Env, telemetry: Arc<Telemetry>) -> TcsRoute {
        TcsRoute {
            store,
            env,
            telemetry,
        }
    }

    /// Keeps what one frame says. `None` where there is nothing to answer.
    async fn take(
        &self,
        context: &RequestContext,
        instance: &ConnectingInstance,
        text: &str,
    ) -> Option<TelemetryAck> {
        let frame = match TelemetryFrame::decode(text) {
            Ok(frame) => frame,
            Err(error) => {
                let reason = error.to_string();
                return Some(TelemetryAck::BadRequest { reason });
            }
        };
        match &frame {
            TelemetryFrame::Metrics(message) => {
                let snapshot = self.store.snapshot();
                let (arn, now) = (&instance.arn, self.env.now());
                self.telemetry.keep_usage(arn, message, now, |task| {
                    task_of_instance(&snapshot, context, instance, task).is_some()
                });
            }
            TelemetryFrame::InstanceStatus(message) => {
                self.telemetry.keep_status(&instance.arn, &message.statuses);
            }
            TelemetryFrame::Health(message) => {
                for task in &message.tasks {
                    if let Err(error) = keep_health(&self.store, context, instance, task).await {
                        // Not acknowledged, so the agent tells it again.
                        warn!(%error, task = task.task_arn, "the health of a task was not written down");
                        return None;
                    }
                }
            }
            TelemetryFrame::Unknown { kind } => debug!(kind, "telemetry that is not known here"),
        }
        frame.ack()
    }

    async fn converse(
        &self,
        context: &RequestContext,
        instance: &ConnectingInstance,
        mut socket: ServerSocket,
    ) {
        loop {
            let answer = tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        self.take(context, instance, text.as_str()).await
                    }
                    // The protocol is text; an agent that sends it as bytes is understood too.
                    Some(Ok(Message::Binary(bytes))) => match std::str::from_utf8(&bytes) {
                        Ok(text) => self.take(context, instance, text).await,
                        Err(error) => Some(TelemetryAck::BadRequest { reason: error.to_string() }),
                    },
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => None,
                },
                () = self.env.sleep(HEARTBEAT) => Some(TelemetryAck::Heartbeat),
            };
            if instance.check(context, &self.store.snapshot()).is_err() {
                // The agent may be gone already.
                let _ = socket.close(None).await;
                return;
            }
            if let Some(answer) = answer
                && socket.send(Message::text(answer.encode())).await.is_err()
            {
                return;
            }
        }
    }
}

#[async_trait]
impl WebSocketRoute for TcsRoute {
    fn name(&self) -> &'static str {
        "tcs"
    }

    async fn admit(&self, context: &RequestContext, query: &UpgradeQuery) -> Result<(), ApiError> {
        ConnectingInstance::read(context, query, MEMBER)?.check(context, &self.store.snapshot())
    }

    async fn serve(&self, context: RequestContext, query: UpgradeQuery, socket: ServerSocket) {
        let Ok(instance) = ConnectingInstance::read(&context, &query, MEMBER) else {
            return;
        };
        // Ended by the guard, because the server drops this future when it stops.
        let told = Told {
            connection: self.telemetry.connected(&instance.arn, self.env.now()),
            route: self,
            arn: &instance.arn,
        };
        self.converse(&context, &instance, socket).await;
        drop(told);
    }
}

/// An open socket, as the telemetry's memory knows it.
struct Told<'a> {
    route: &'a TcsRoute,
    arn: &'a str,
    connection: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let now = self.route.env.now();
        self.route
            .telemetry
            .disconnected(self.arn, self.connection, now);
    }
}
