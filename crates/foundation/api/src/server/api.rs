//! An AWS call: its body bounded and read, its service found, its signature verified, its
//! operation run. Every failure is answered in the protocol of the request.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::request::Parts;

use super::authenticate::{authenticate, rejection_error};
use super::body::{BodyError, RequestBody};
use super::dispatch::{Answer, close, into_response, panicked, protocol_of};
use super::metrics::Counted;
use super::{RequestFacts, Shared, unsigned};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::protocol::{self, Call, Protocol};
use crate::sigv4::{Presented, Rejection};

/// Bodies up to this size are buffered without asking for a share of the budget.
const SMALL_BODY_BYTES: u64 = 64 * 1024;

pub(super) async fn answer(
    shared: &Shared,
    parts: Parts,
    body: RequestBody,
    facts: RequestFacts,
) -> Answer {
    let mut body = body.whole_within(shared.limits.body_timeout);
    let query = parts.uri.query().unwrap_or_default();
    let presented = match Presented::read(&parts.headers, query) {
        Ok(presented) => presented,
        Err(Rejection::MissingToken) if unsigned::may_be(&parts) => {
            return answer_unsigned(shared, &parts, &mut body, &facts).await;
        }
        Err(rejection) => {
            // Nobody buffers anything for a caller without credentials.
            discard(shared, &parts, &mut body).await;
            let protocol = protocol_of(&parts);
            let error = rejection_error(&rejection, protocol.name());
            return failed(protocol, Counted::UNKNOWN, &error, &facts);
        }
    };
    let limit = body_limit(shared, &parts, &presented);
    let bytes = match read_body(shared, limit, &mut body).await {
        Ok(bytes) => bytes,
        Err(error) => return unread(shared, &parts, &facts, body, error).await,
    };
    let call = match protocol::detect(&parts, &bytes, Some(&presented.service)) {
        Ok(call) => call,
        Err(rejection) => {
            return failed(
                rejection.protocol,
                Counted::UNKNOWN,
                &rejection.error,
                &facts,
            );
        }
    };
    run(shared, &presented, call, &parts, &bytes, &facts).await
}

/// A request that nobody signed, which is one of the few that need not be, or is refused.
async fn answer_unsigned(
    shared: &Shared,
    parts: &Parts,
    body: &mut RequestBody,
    facts: &RequestFacts,
) -> Answer {
    let bytes = read_body(shared, unsigned::BODY_BYTES, body).await;
    let Some((call, bytes)) = bytes
        .ok()
        .and_then(|bytes| Some((unsigned::detect(parts, &bytes)?, bytes)))
    else {
        discard(shared, parts, body).await;
        let protocol = protocol_of(parts);
        let error = rejection_error(&Rejection::MissingToken, protocol.name());
        return failed(protocol, Counted::UNKNOWN, &error, facts);
    };
    let context = unsigned::context(facts, shared.env.now());
    perform(shared, &context, &call, parts, &bytes, facts).await
}

async fn run(
    shared: &Shared,
    presented: &Presented,
    call: Call,
    parts: &Parts,
    body: &Bytes,
    facts: &RequestFacts,
) -> Answer {
    let signing_name = call.service.signing_name;
    let now = shared.env.now();
    let context = match authenticate(
        &shared.policy,
        presented,
        parts,
        body,
        signing_name,
        facts,
        now,
    )
    .await
    {
        Ok(context) => context,
        Err(rejection) => {
            let error = rejection_error(&rejection, call.protocol.name());
            return failed(call.protocol, counted(&call), &error, facts);
        }
    };
    perform(shared, &context, &call, parts, body, facts).await
}

/// Runs an operation for a caller that may call it.
async fn perform(
    shared: &Shared,
    context: &RequestContext,
    call: &Call,
    parts: &Parts,
    body: &Bytes,
    facts: &RequestFacts,
) -> Answer {
    let protocol = call.protocol;
    let counted = counted(call);
    let span = tracing::Span::current();
    span.record("service", counted.service)
        .record("operation", counted.operation);
    let Some(service) = shared.services.get(call.service.name) else {
        let error = ApiError::not_built(call.service.name, &call.operation);
        return failed(protocol, counted, &error, facts);
    };
    let work = AssertUnwindSafe(service.handle(context, call, parts, body));
    match work.catch_unwind().await {
        Ok((reply, error)) => {
            if let Some(error) = &error {
                log(error);
            }
            Answer::new(into_response(reply), counted)
        }
        Err(panic) => {
            let error = panicked(&span, panic.as_ref());
            failed(protocol, counted, &error, facts)
        }
    }
}

/// Labels from the model: a made-up operation is only ever `unknown`.
fn counted(call: &Call) -> Counted {
    let operation = match call.service.operation(&call.operation) {
        Some((_, model)) => model.name,
        None if call.service.knows(&call.operation) => "not_built",
        None => "unknown",
    };
    Counted {
        service: call.service.name,
        operation,
        protocol: call.protocol.name(),
    }
}

fn log(error: &ApiError) {
    match &error.cause {
        Some(cause) => tracing::error!(code = error.code, %cause, "the operation failed"),
        None => tracing::debug!(
            code = error.code,
            message = error.message,
            "the operation was refused"
        ),
    }
}

fn failed(
    protocol: &dyn Protocol,
    counted: Counted,
    error: &ApiError,
    facts: &RequestFacts,
) -> Answer {
    log(error);
    let reply = protocol.write_error(None, error, &facts.request_id);
    Answer::new(
        into_response(reply),
        Counted {
            protocol: protocol.name(),
            ..counted
        },
    )
}

async fn read_body(
    shared: &Shared,
    limit: usize,
    body: &mut RequestBody,
) -> Result<Bytes, BodyError> {
    let expected = body.length().unwrap_or(limit as u64);
    if expected > limit as u64 {
        return Err(BodyError::TooLarge { limit });
    }
    let _share = if expected > SMALL_BODY_BYTES {
        // Never more than there is at all, or the wait would have no end.
        let whole = shared.limits.buffered_bytes as u64;
        let kib = u32::try_from(expected.min(whole) / 1024).unwrap_or(u32::MAX);
        // The semaphore is never closed, so waiting for it cannot fail.
        shared.buffer_budget.acquire_many(kib).await.ok()
    } else {
        None
    };
    body.whole(limit).await
}

fn body_limit(shared: &Shared, parts: &Parts, presented: &Presented) -> usize {
    let form = parts.headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    shared.limits.body_bytes(Some(&presented.service), form)
}

async fn unread(
    shared: &Shared,
    parts: &Parts,
    facts: &RequestFacts,
    mut body: RequestBody,
    error: BodyError,
) -> Answer {
    let protocol = protocol_of(parts);
    let json = protocol.name() == "json";
    let error = match error {
        BodyError::TooLarge { limit } => {
            discard(shared, parts, &mut body).await;
            let code = if json {
                "RequestEntityTooLargeException"
            } else {
                "RequestEntityTooLarge"
            };
            let message = format!(
                "The request body is larger than the {limit} bytes that this service accepts."
            );
            ApiError::sender(code, message).with_status(413)
        }
        BodyError::TimedOut => {
            let code = if json {
                "RequestTimeoutException"
            } else {
                "RequestTimeout"
            };
            ApiError::sender(code, "The request body did not arrive in time.").with_status(408)
        }
        BodyError::Broken(cause) => {
            ApiError::sender("IncompleteBody", "The request body broke off.").with_cause(cause)
        }
    };
    let mut answer = failed(protocol, Counted::UNKNOWN, &error, facts);
    close(&mut answer.response);
    answer
}

/// A client that waits for `100 Continue` has sent nothing that is in the way.
async fn discard(shared: &Shared, parts: &Parts, body: &mut RequestBody) {
    let waits = parts.headers.contains_key(EXPECT) && parts.headers.contains_key(CONTENT_LENGTH);
    if !waits {
        body.discard(shared.limits.discarded_bytes).await;
    }
}
