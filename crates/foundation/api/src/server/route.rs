//! What a crate implements to be served beside the AWS APIs: the registry under `/v2/`, Gantry's
//! own paths, and the WebSockets of the agent protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;

use super::body::{RequestBody, ResponseBody};
use crate::context::RequestContext;
use crate::error::ApiError;

/// What the server knows of a request beside its HTTP parts.
#[derive(Clone, Debug)]
pub struct RequestFacts {
    /// Goes out as `x-amzn-RequestId`, whatever the route answers.
    pub request_id: String,
    /// The Host header (or `:authority`), checked not to be a foreign one.
    pub host: String,
    pub peer: SocketAddr,
    /// Whether it came over TLS.
    pub secure: bool,
}

impl RequestFacts {
    /// `http://host` or `https://host`, as the client wrote it: what links in answers begin with.
    pub fn origin(&self) -> String {
        format!(
            "{}://{}",
            if self.secure { "https" } else { "http" },
            self.host
        )
    }
}

/// Everything under a path prefix, with bodies streamed both ways. It has its own protocol,
/// errors and authentication; only the guards against foreign hosts and origins come before it.
#[async_trait]
pub trait RawRoute: Send + Sync {
    /// Its name in logs and metrics.
    fn name(&self) -> &'static str;

    async fn handle(
        &self,
        request: Request<RequestBody>,
        facts: RequestFacts,
    ) -> Response<ResponseBody>;
}

/// A server's end of a WebSocket.
pub type ServerSocket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// The query of an upgrade request, decoded. Of a repeated parameter the last one counts.
pub type UpgradeQuery = BTreeMap<String, String>;

/// One path where verified callers get a WebSocket.
#[async_trait]
pub trait WebSocketRoute: Send + Sync {
    fn name(&self) -> &'static str;

    /// The service that the upgrade request must be signed for.
    fn signing_name(&self) -> &'static str {
        "ecs"
    }

    /// Decides before the upgrade; an error is answered with its status, in a form that the
    /// Amazon ECS agent and awsJson clients both read.
    async fn admit(&self, context: &RequestContext, query: &UpgradeQuery) -> Result<(), ApiError>;

    /// Runs the session. The server drops this future when it shuts down, so everything that
    /// must outlive the process is durable already.
    async fn serve(&self, context: RequestContext, query: UpgradeQuery, socket: ServerSocket);
}
