//! One request: guarded, routed, answered, counted and logged.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::Instrument;
use tracing::field::Empty;

use super::body::{RequestBody, ResponseBody};
use super::listener::Connection;
use super::metrics::Counted;
use super::request_id::new_request_id;
use super::route::RequestFacts;
use super::{Shared, api, guard, websocket};
use crate::error::ApiError;
use crate::protocol::{self, Protocol, Reply, json};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const HEALTH_PATH: &str = "/_gantry/health";
const METRICS_PATH: &str = "/_gantry/metrics";

/// An answer and what it is counted under.
pub(super) struct Answer {
    pub(super) response: Response<ResponseBody>,
    pub(super) counted: Counted,
}

impl Answer {
    pub(super) fn new(response: Response<ResponseBody>, counted: Counted) -> Self {
        Self { response, counted }
    }
}

pub(super) async fn answer(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let started = shared.env.monotonic();
    let in_work = connection.pace.begin(&shared.env);
    let request_id = new_request_id(&*shared.env.entropy);
    let method = request.method().clone();
    let span = tracing::info_span!("request", request_id, service = Empty, operation = Empty);
    let work = route(&shared, &connection, request, &request_id).instrument(span.clone());
    let Answer {
        mut response,
        counted,
    } = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(answer) => answer,
        Err(panic) => {
            let error = panicked(&span, panic.as_ref());
            Answer::new(
                into_response(json::JSON_1_1.write_error(None, &error, &request_id)),
                Counted::UNKNOWN,
            )
        }
    };
    // A UUID is always a header value.
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let took = shared.env.monotonic().saturating_sub(started);
    shared.metrics.count(counted, status, took);
    // Whole microseconds: more digits would only be noise in the log.
    let duration_ms = took.as_micros() as f64 / 1000.0;
    let Counted {
        service,
        operation,
        protocol,
    } = counted;
    // An AWS call has recorded its own as soon as they were known, and a field is shown as often
    // as it is recorded.
    if matches!(protocol, "http" | "websocket") {
        span.record("service", service)
            .record("operation", operation);
    }
    let _entered = span.enter();
    tracing::info!(%method, protocol, status, duration_ms, "answered");
    let body = response.body_mut();
    let earlier = body.until_sent.take();
    body.until_sent = Some(Box::new((earlier, in_work)));
    response
}

async fn route(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
    request_id: &str,
) -> Answer {
    let (parts, incoming) = request.into_parts();
    let body = RequestBody::new(
        incoming,
        shared.env.clone(),
        shared.limits.body_progress_timeout,
    );
    let host = match guard::check(&parts.uri, &parts.headers, &shared.host_names) {
        Ok(host) => host,
        Err(refused) => return refuse(&parts, request_id, &refused),
    };
    let facts = RequestFacts {
        request_id: request_id.to_owned(),
        host,
        peer: connection.peer,
        secure: connection.secure,
    };
    let path = parts.uri.path();
    if let Some(route) = shared.websockets.get(path) {
        return websocket::answer(shared, connection, route.clone(), parts, facts).await;
    }
    if path == HEALTH_PATH || path == METRICS_PATH {
        return own_page(shared, &parts);
    }
    let Ok(slot) = shared.request_slots.clone().try_acquire_owned() else {
        return busy(&parts, request_id);
    };
    let raw = shared.raw_routes.iter().find(|(prefix, _)| {
        path.starts_with(prefix.as_str()) || Some(path) == prefix.strip_suffix('/')
    });
    let mut answer = match raw {
        Some((_, route)) => {
            let counted = Counted {
                service: route.name(),
                operation: "http",
                protocol: "http",
            };
            let response = route.handle(Request::from_parts(parts, body), facts).await;
            Answer::new(response, counted)
        }
        None => api::answer(shared, parts, body, facts).await,
    };
    answer.response.body_mut().until_sent = Some(Box::new(slot));
    answer
}

/// `/_gantry/health` and `/_gantry/metrics`: they hold no secret and need no signature.
fn own_page(shared: &Shared, parts: &Parts) -> Answer {
    let counted = |operation| Counted {
        service: "gantry",
        operation,
        protocol: "http",
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return Answer::new(response, counted("unknown"));
    }
    let (operation, content_type, text) = if parts.uri.path() == HEALTH_PATH {
        let services: Vec<&str> = shared.services.keys().copied().collect();
        let mut health = serde_json::json!({
            "status": "serving",
            "version": env!("CARGO_PKG_VERSION"),
            "services": services,
        });
        if let (Some(detail), Some(members)) = (&shared.health, health.as_object_mut()) {
            members.extend(detail());
        }
        ("health", "application/json", health.to_string())
    } else {
        let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ("metrics", openmetrics, shared.metrics.render())
    };
    let mut response = Response::new(ResponseBody::full(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Answer::new(response, counted(operation))
}

fn refuse(parts: &Parts, request_id: &str, refused: &guard::Refused) -> Answer {
    tracing::warn!(reason = %refused, "request refused");
    let code = if refused.status() == 400 {
        "BadRequest"
    } else {
        "AccessDeniedException"
    };
    let error = ApiError::sender(code, refused.to_string()).with_status(refused.status());
    let mut response = into_response(protocol_of(parts).write_error(None, &error, request_id));
    // Its body was not looked at, so nothing that follows on this connection can be trusted.
    close(&mut response);
    Answer::new(response, Counted::UNKNOWN)
}

fn busy(parts: &Parts, request_id: &str) -> Answer {
    let error = ApiError::sender("ThrottlingException", "Rate exceeded");
    let mut response = into_response(protocol_of(parts).write_error(None, &error, request_id));
    if parts.uri.path().starts_with("/v2") {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    close(&mut response);
    Answer::new(response, Counted::UNKNOWN)
}

pub(super) fn close(response: &mut Response<ResponseBody>) {
    if response.version() < http::Version::HTTP_2 {
        response
            .headers_mut()
            .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The protocol to answer in when nothing but the headers has been looked at.
pub(super) fn protocol_of(parts: &Parts) -> &'static dyn Protocol {
    match protocol::detect(parts, &[], None) {
        Ok(call) => call.protocol,
        Err(rejection) => rejection.protocol,
    }
}

pub(super) fn panicked(span: &tracing::Span, panic: &(dyn Any + Send)) -> ApiError {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    let _entered = span.enter();
    tracing::error!(message, "a handler panicked");
    ApiError::internal(message.to_owned())
}

pub(super) fn into_response(reply: Reply) -> Response<ResponseBody> {
    let body = match reply.events {
        Some(events) => ResponseBody::stream(events.frames()),
        None => ResponseBody::full(reply.body),
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        // Header values of answers are made from checked text; one that is not is left out.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(&value),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
