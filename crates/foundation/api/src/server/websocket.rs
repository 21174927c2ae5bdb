//! WebSocket upgrades: verified like any call, admitted by the route, then handed over.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::Instrument;

use super::Shared;
use super::authenticate::{authenticate, rejection_error};
use super::body::ResponseBody;
use super::dispatch::{Answer, panicked};
use super::listener::{Connection, stopped};
use super::metrics::Counted;
use super::route::{RequestFacts, UpgradeQuery, WebSocketRoute};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::sigv4::{Presented, percent_decoded};

/// Agents send small frames; a connection that rests should hold little.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// The bounds of a WebSocket, on both ends of it.
pub(crate) fn socket_config(message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * message_bytes)
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes))
}

pub(super) async fn answer(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    route: Arc<dyn WebSocketRoute>,
    parts: Parts,
    facts: RequestFacts,
) -> Answer {
    let counted = Counted {
        service: route.name(),
        operation: "connect",
        protocol: "websocket",
    };
    match accept(shared, connection, route, parts, &facts).await {
        Ok(response) => Answer::new(response, counted),
        Err(error) => Answer::new(refusal(&error), counted),
    }
}

/// A refused upgrade. The Amazon ECS agent reads the body as one of its frames (`type`, and the
/// exception as `message`), other clients as an awsJson error; this is both at once.
fn refusal(error: &ApiError) -> Response<ResponseBody> {
    if let Some(cause) = &error.cause {
        tracing::error!(code = error.code, %cause, "the upgrade failed");
    }
    let body = serde_json::json!({
        "type": error.code,
        "message": { "message": error.message },
        "__type": error.code,
        "Message": error.message,
    });
    let mut response = Response::new(ResponseBody::full(body.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(error.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

async fn accept(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    route: Arc<dyn WebSocketRoute>,
    mut parts: Parts,
    facts: &RequestFacts,
) -> Result<Response<ResponseBody>, ApiError> {
    let query_text = parts.uri.query().unwrap_or_default();
    let verified = match Presented::read(&parts.headers, query_text) {
        Ok(presented) => {
            let (policy, now) = (&shared.policy, shared.env.now());
            let service = route.signing_name();
            authenticate(
                policy,
                &presented,
                &parts,
                &Bytes::new(),
                service,
                facts,
                now,
            )
            .await
        }
        Err(rejection) => Err(rejection),
    };
    let context = verified.map_err(|rejection| rejection_error(&rejection, "json"))?;
    let key = upgrade_key(&parts)?;
    let query = decoded_query(query_text);
    if let Some(authorizer) = &shared.authorizer {
        authorizer.websocket(&context, route.name(), &query)?;
    }
    route.admit(&context, &query).await?;
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return Err(ApiError::internal("the connection cannot be upgraded"));
    };
    connection.pace.upgrade();
    let session = run(
        shared.clone(),
        connection.clone(),
        upgrade,
        route,
        context,
        query,
    );
    tokio::spawn(session.instrument(tracing::Span::current()));
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // A digest in base64 is always a header value.
    if let Ok(value) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    Ok(response)
}

/// One session, from the upgrade until either end is done or the server stops.
async fn run(
    shared: Arc<Shared>,
    // Keeps the connection counted for as long as the session lives.
    _connection: Arc<Connection>,
    upgrade: OnUpgrade,
    route: Arc<dyn WebSocketRoute>,
    context: RequestContext,
    query: UpgradeQuery,
) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "the upgrade broke off");
            return;
        }
    };
    let config = socket_config(shared.limits.websocket_message_bytes);
    let socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    shared.metrics.websockets.inc();
    let mut stopping = shared.stopping.subscribe();
    let session = AssertUnwindSafe(route.serve(context, query, socket)).catch_unwind();
    tokio::select! {
        ended = session => {
            if let Err(panic) = ended {
                panicked(&tracing::Span::current(), panic.as_ref());
            }
        }
        () = stopped(&mut stopping) => {}
    }
    shared.metrics.websockets.dec();
}

fn upgrade_key(parts: &Parts) -> Result<String, ApiError> {
    let bad = |message: &str| ApiError::sender("BadRequest", message);
    let has = |name: HeaderName, token: &str| has_token(&parts.headers, name, token);
    if parts.method != Method::GET || !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Err(bad("This path speaks WebSocket only.").with_status(426));
    }
    if parts
        .headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(bad("Only version 13 of WebSocket is spoken here.").with_status(426));
    }
    parts
        .headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok())
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| bad("The upgrade request has no Sec-WebSocket-Key."))
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn decoded_query(query: &str) -> BTreeMap<String, String> {
    let text = |part: &str| String::from_utf8_lossy(&percent_decoded(part)).into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}
