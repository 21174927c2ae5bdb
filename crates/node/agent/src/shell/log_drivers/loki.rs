//! The loki driver: Loki's push API, JSON over HTTP.
//!
//! What always holds: a batch counts as delivered when Loki has said so. What Loki refuses for good
//! (a status of 400 and more but 429 and below 500) is given up, because it would be refused again.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use gantry_env::Env;
use gantry_runtime::LogStream;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tracing::warn;

use super::lines::{Batch, Line};
use super::network::within;
use super::{Retries, retry};
use crate::core::plan::LokiPlan;

/// More of an answer than this is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ANSWER_BYTES_SHOWN: usize = 512;

pub(super) struct Loki {
    plan: LokiPlan,
}

#[derive(Serialize)]
struct Push {
    streams: Vec<PushStream>,
}

#[derive(Serialize)]
struct PushStream {
    stream: BTreeMap<String, String>,
    /// Nanoseconds and a line.
    values: Vec<(String, String)>,
}

impl Loki {
    pub fn new(plan: LokiPlan) -> Self {
        Self { plan }
    }

    pub async fn deliver(&self, batch: &Batch, env: &Env) {
        // Nothing of a push can fail to be written as JSON.
        let body =
            Bytes::from(serde_json::to_vec(&push(&self.plan, &batch.lines)).unwrap_or_default());
        let retries = Retries {
            max: self.plan.max_retries,
            wait: self.plan.backoff,
        };
        let send = || within(env, self.plan.timeout, self.send(body.clone()));
        retry(env, retries, "loki", send).await;
    }

    async fn send(&self, body: Bytes) -> io::Result<()> {
        let LokiPlan {
            host, port, path, ..
        } = &self.plan;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // It ends with its one request.
        let connection = tokio::spawn(connection);
        let mut request = http::Request::post(path.as_str())
            .header(HOST, format!("{host}:{port}"))
            .header(USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        if let Some(tenant) = &self.plan.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        connection.abort();
        if status.is_success() {
            return Ok(());
        }
        let said = body.map(|body| body.to_bytes()).unwrap_or_default();
        let said =
            String::from_utf8_lossy(&said[..said.len().min(ANSWER_BYTES_SHOWN)]).into_owned();
        if status.is_client_error() && status != http::StatusCode::TOO_MANY_REQUESTS {
            warn!(%status, said, "log lines are given up: Loki refuses them");
            return Ok(());
        }
        Err(io::Error::other(format!("Loki answered {status}: {said}")))
    }
}

fn push(plan: &LokiPlan, lines: &[Line]) -> Push {
    let of = |stream: LogStream, source: &str| {
        let its = lines.iter().filter(|line| line.stream == stream);
        let values: Vec<_> = its
            .map(|line| (format!("{}000000", line.at_ms), line.message.clone()))
            .collect();
        let mut labels = plan.labels.clone();
        labels.insert("source".to_owned(), source.to_owned());
        (!values.is_empty()).then_some(PushStream {
            stream: labels,
            values,
        })
    };
    let streams = [
        of(LogStream::Stdout, "stdout"),
        of(LogStream::Stderr, "stderr"),
    ];
    Push {
        streams: streams.into_iter().flatten().collect(),
    }
}
