//! One HTTP client for all registries.
//!
//! What always holds: every wait has an end, what is read into memory has a limit, and only what may pass by
//! itself (a broken connection, a busy server) is tried again. What it leaves to others: logins, redirects, and what
//! an answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_env::Env;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::image::tls::{Connector, Trust};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the answer's head.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two pieces of a body. A slow line is fine, a dead one is not.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Before the second, third and fourth try.
const RETRY_AFTER: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// What became of a request that did not succeed.
#[derive(Debug, Clone)]
pub(crate) enum RegistryError {
    NotFound,
    /// The registry wants another login, or none will do.
    Denied(String),
    /// May work the next time.
    Transient(String),
    Refused(String),
}

/// The connections to all registries.
#[derive(Clone)]
pub(crate) struct HttpClient {
    client: Client<Connector, Empty<Bytes>>,
    env: Env,
}

impl HttpClient {
    pub fn new(trust: Trust, env: Env) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build(Connector::new(Arc::new(trust), CONNECT_TIMEOUT));
        Self { client, env }
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    /// For one thing that is tried again a few times.
    pub fn tries(&self) -> Tries<'_> {
        Tries {
            http: self,
            delays: RETRY_AFTER.iter(),
        }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        future: impl Future<Output = T>,
    ) -> Result<T, RegistryError> {
        let timer = self.env.sleep(limit);
        tokio::select! {
            result = future => Ok(result),
            () = timer => Err(RegistryError::Transient(format!("{what} took longer than {} s", limit.as_secs()))),
        }
    }

    pub async fn get(
        &self,
        uri: &Uri,
        accept: Option<&'static str>,
        authorization: Option<&HeaderValue>,
        from: u64,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut request = Request::builder().method(Method::GET).uri(uri).header(
            header::USER_AGENT,
            concat!("gantry/", env!("CARGO_PKG_VERSION")),
        );
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| RegistryError::Refused(error.to_string()))?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        self.within(
            ANSWER_TIMEOUT,
            &format!("an answer of {host}"),
            self.client.request(request),
        )
        .await?
        .map_err(|error| {
            let text = format!("{host}: {}", whole_chain(&error));
            // Whom nobody vouches for now, nobody will in a second.
            match is_about_tls(&error) {
                true => RegistryError::Refused(text),
                false => RegistryError::Transient(text),
            }
        })
    }

    /// Collects a body of at most `limit` bytes.
    pub async fn collect(&self, mut body: Incoming, limit: u64) -> Result<Bytes, RegistryError> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.next_chunk(&mut body).await? {
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                return Err(RegistryError::Refused(format!(
                    "the answer is longer than {limit} bytes"
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The next piece of a body; `None` at its end.
    pub async fn next_chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let frame = self
                .within(BODY_IDLE_TIMEOUT, "the next bytes", body.frame())
                .await?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(RegistryError::Transient(format!(
                        "the connection broke: {}",
                        whole_chain(&error)
                    )));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// How often something may still be tried.
pub(crate) struct Tries<'a> {
    http: &'a HttpClient,
    delays: std::slice::Iter<'static, Duration>,
}

impl Tries<'_> {
    /// Waits for the next try, or gives the error back where there is none.
    pub async fn again_after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        match (&error, self.delays.next()) {
            (RegistryError::Transient(_), Some(delay)) => {
                tracing::debug!(?error, "tried again");
                self.http.env.sleep(*delay).await;
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// hyper's errors say little without their causes.
fn whole_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// An answer in TLS that is not to our liking, as against a connection that broke.
fn is_about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .is_some_and(|inner| inner.is::<rustls::Error>())
    })
}
