//! The one port: HTTP/1.1 and HTTP/2, plain and TLS, for every service at once.
//!
//! What always holds: every request passes the guard against foreign hosts and origins first;
//! every AWS call and every WebSocket is verified by SigV4, but for the two calls that AWS takes unsigned (`unsigned`); every answer and its log line carry
//! one request id; every wait on a peer is bounded ([`Limits`]); a panic is answered as
//! `InternalFailure` and the process goes on.
//! What it leaves to others: reading and writing values (`protocol`), what operations do (the
//! services), everything under a raw route's prefix, and choosing the tokio runtime (the binary).

mod api;
mod authenticate;
mod authorization;
mod body;
mod dispatch;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod limits;
mod listener;
mod metrics;
mod paced_io;
mod plain_http;
mod request_id;
mod route;
mod unsigned;
mod websocket;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use gantry_env::Env;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub(crate) use authorization::Authorized;
pub use authorization::Authorizer;
pub use body::{BodyError, RequestBody, ResponseBody};
pub use limits::Limits;
pub use metrics::Metrics;
pub use plain_http::{InvalidNetwork, Network, PlainHttp};
pub use route::{RawRoute, RequestFacts, ServerSocket, UpgradeQuery, WebSocketRoute};
pub(crate) use websocket::socket_config;

use crate::auth::CredentialPolicy;
use crate::service::Service;

/// Where the API and all routes are served. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

/// What every connection looks at.
struct Shared {
    env: Env,
    policy: CredentialPolicy,
    services: BTreeMap<&'static str, Service>,
    /// By prefix, the longest first.
    raw_routes: Vec<(String, Arc<dyn RawRoute>)>,
    websockets: BTreeMap<String, Arc<dyn WebSocketRoute>>,
    host_names: Vec<String>,
    tls: Option<Arc<rustls::ServerConfig>>,
    plain_http: PlainHttp,
    limits: Limits,
    metrics: Arc<Metrics>,
    authorizer: Option<Arc<dyn Authorizer>>,
    health: Option<Arc<HealthDetail>>,
    request_slots: Arc<Semaphore>,
    /// In KiB, shared by the bodies that are being buffered.
    buffer_budget: Semaphore,
    /// Becomes true once, when the server is asked to stop.
    stopping: watch::Sender<bool>,
}

/// What a process says of itself in `/_gantry/health`, beside that it serves.
pub type HealthDetail = dyn Fn() -> serde_json::Map<String, serde_json::Value> + Send + Sync;

pub struct ServerBuilder {
    shared: Shared,
}

impl Server {
    pub fn builder(env: Env, policy: CredentialPolicy) -> ServerBuilder {
        let limits = Limits::default();
        ServerBuilder {
            shared: Shared {
                env,
                policy,
                services: BTreeMap::new(),
                raw_routes: Vec::new(),
                websockets: BTreeMap::new(),
                host_names: Vec::new(),
                tls: None,
                plain_http: PlainHttp::SameMachineAnd(Vec::new()),
                metrics: Arc::new(Metrics::new()),
                authorizer: None,
                health: None,
                request_slots: Arc::new(Semaphore::new(0)),
                buffer_budget: Semaphore::new(0),
                stopping: watch::Sender::new(false),
                limits,
            },
        }
    }

    /// Serves until `shutdown` ends, then lets requests in work finish for the grace period.
    /// Needs a tokio runtime with I/O.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        listener::run(self.shared.clone(), listener, shutdown).await;
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.metrics.clone()
    }
}

impl ServerBuilder {
    pub fn service(mut self, service: Service) -> Self {
        self.shared.services.insert(service.model().name, service);
        self
    }

    /// Serves everything under `prefix` (`/v2/`), and the prefix without its final slash.
    pub fn raw_route(mut self, prefix: impl Into<String>, route: Arc<dyn RawRoute>) -> Self {
        self.shared.raw_routes.push((prefix.into(), route));
        self.shared
            .raw_routes
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self
    }

    /// Serves WebSockets on exactly `path` (`/acs/ws`).
    pub fn websocket(mut self, path: impl Into<String>, route: Arc<dyn WebSocketRoute>) -> Self {
        self.shared.websockets.insert(path.into(), route);
        self
    }

    /// Names beside localhost by which this endpoint may be called: `builder.lan`, or
    /// `*.builder.lan` for all below it.
    pub fn host_names(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.shared.host_names.extend(names);
        self
    }

    /// TLS on the same port; see [`crate::tls`].
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.shared.tls = Some(config);
        self
    }

    pub fn plain_http(mut self, plain_http: PlainHttp) -> Self {
        self.shared.plain_http = plain_http;
        self
    }

    pub fn limits(mut self, limits: Limits) -> Self {
        self.shared.limits = limits;
        self
    }

    /// Shares metrics with the rest of the process.
    pub fn metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.shared.metrics = metrics;
        self
    }

    /// Asked before every operation and every WebSocket. Without one, whoever is verified may do
    /// everything.
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.shared.authorizer = Some(authorizer);
        self
    }

    /// What else `/_gantry/health` says. Nobody is asked who they are there, so it holds no secret.
    pub fn health(mut self, health: Arc<HealthDetail>) -> Self {
        self.shared.health = Some(health);
        self
    }

    pub fn build(mut self) -> Server {
        if let Some(authorizer) = &self.shared.authorizer {
            let services = std::mem::take(&mut self.shared.services);
            let authorized = services
                .into_iter()
                .map(|(name, service)| (name, service.authorized_by(authorizer.clone())));
            self.shared.services = authorized.collect();
        }
        let limits = &self.shared.limits;
        self.shared.request_slots = Arc::new(Semaphore::new(limits.requests));
        self.shared.buffer_budget = Semaphore::new(limits.buffered_bytes / 1024);
        Server {
            shared: Arc::new(self.shared),
        }
    }
}
