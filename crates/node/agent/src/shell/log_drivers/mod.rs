//! Log drivers: from a container's spool to where its output is wanted.
//!
//! What always holds: a line is delivered at least once and in order; the offset up to which a log
//! has been delivered is saved after the delivery, never before; what waits in memory is bounded by
//! two batches, because the spool holds the rest, in one of ECS's two modes. CloudWatch Logs
//! recognises a repeat, so there a line is delivered exactly once.
//! What it leaves to others: the bounded spool itself (`gantry_runtime`), options (`core::plan`).

mod awslogs;
mod fluentd;
mod gelf;
mod json_file;
mod lines;
mod loki;
mod multiline;
mod network;
mod saved_offset;
mod syslog;
mod time;

use std::path::PathBuf;
use std::time::Duration;

use gantry_api::client::{Client, ClientError, backoff};
use gantry_env::Env;
use gantry_runtime::LogReader;
use tracing::{debug, warn};

use self::lines::{Batch, Lines, Shape};
use crate::core::plan::{LogDriverPlan, ShippedLog};

pub use self::json_file::JsonFiles;
pub use self::saved_offset::SavedOffset;

/// The least time between two batches: the first line leaves at once, those that follow it together.
const LINGER: Duration = Duration::from_millis(100);
const READ_RECORDS_MAX: usize = 2_000;

/// Where an agent keeps what belongs to logs.
#[derive(Clone, Debug)]
pub struct LogFolders {
    /// See [`SavedOffset`].
    pub offsets: PathBuf,
    pub files: JsonFiles,
}

/// What drivers need beside their own options.
#[derive(Clone)]
pub struct LogPlace {
    pub task: String,
    pub container: String,
    pub files: JsonFiles,
    pub env: Env,
}

/// Makes what must be there before the container starts. The error is the task's reason.
pub async fn prepare(
    client: impl Fn() -> Result<Client, ClientError>,
    log: &ShippedLog,
    place: &LogPlace,
) -> Result<(), String> {
    let failed = |what: String| {
        format!("CannotStartContainerError: failed to initialize logging driver: {what}")
    };
    match &log.driver {
        LogDriverPlan::AwsLogs(plan) => match client() {
            Ok(client) => awslogs::prepare(&client, plan, &place.env).await,
            Err(error) => Err(format!("ResourceInitializationError: {error}")),
        },
        LogDriverPlan::JsonFile(_) => place
            .files
            .prepare(&place.task, &place.container, &place.env)
            .map_err(|error| failed(format!("json-file: {error}"))),
        LogDriverPlan::Fluentd(plan) if plan.asynchronous => Ok(()),
        LogDriverPlan::Fluentd(plan) => network::try_connect(&plan.address, &place.env)
            .await
            .map_err(|error| failed(format!("fluentd: {error}"))),
        LogDriverPlan::Syslog(plan) => network::try_connect(&plan.address, &place.env)
            .await
            .map_err(|error| failed(format!("syslog: {error}"))),
        LogDriverPlan::Gelf(plan) => network::try_connect(&plan.address, &place.env)
            .await
            .map_err(|error| failed(format!("gelf: {error}"))),
        // Loki's own driver starts containers whether or not Loki is there.
        LogDriverPlan::Loki(_) => Ok(()),
    }
}

/// Delivers everything a container writes. Ends when it has ended and all of it is delivered.
pub async fn forward(
    client: impl Fn() -> Result<Client, ClientError>,
    mut reader: LogReader,
    log: ShippedLog,
    saved: SavedOffset,
    place: LogPlace,
) {
    let env = place.env.clone();
    let spool = reader.spool_id().to_owned();
    let (mut sink, shape) = Sink::of(log.driver, client, spool, &place);
    let (linger, flush_after) = (shape.linger.max(LINGER), shape.flush_after);
    let mut lines = Lines::new(saved.load(), shape);
    let mut last_sent = None;
    loop {
        // An event of several lines is over when no further line came for a while.
        let records = match lines.is_open() {
            false => reader.next_batch(READ_RECORDS_MAX).await,
            true => {
                let quiet = env.sleep(flush_after);
                tokio::select! {
                    records = reader.next_batch(READ_RECORDS_MAX) => records,
                    () = quiet => {
                        lines.close_event();
                        send(&mut sink, &mut lines, &saved, &reader, &env).await;
                        continue;
                    }
                }
            }
        };
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                warn!(%error, "a container's log cannot be read any further");
                return;
            }
        };
        let ended = records.is_empty();
        for record in records {
            lines.push(record);
        }
        if ended {
            lines.end();
        }
        send(&mut sink, &mut lines, &saved, &reader, &env).await;
        if ended {
            sink.close(&env);
            return;
        }
        // What is written meanwhile goes together with the next batch.
        let now = env.monotonic();
        if last_sent.is_some_and(|at| now < at + linger) {
            env.sleep(linger).await;
        }
        last_sent = Some(env.monotonic());
    }
}

async fn send<C: Fn() -> Result<Client, ClientError>>(
    sink: &mut Sink<C>,
    lines: &mut Lines,
    saved: &SavedOffset,
    reader: &LogReader,
    env: &Env,
) {
    while let Some(batch) = lines.batch() {
        let end = batch.end;
        sink.deliver(batch, env).await;
        if let Err(error) = saved.save(end) {
            warn!(%error, "a log's offset could not be saved; its last lines may be sent again");
        }
        if let Err(error) = reader.trim(end).await {
            debug!(%error, "a log's spool could not be trimmed");
        }
    }
}

/// Where batches go.
enum Sink<C> {
    AwsLogs(awslogs::Stream<C>),
    JsonFile(json_file::JsonFile),
    Fluentd(fluentd::Fluentd),
    Syslog(syslog::Syslog),
    Gelf(gelf::Gelf),
    Loki(loki::Loki),
}

impl<C: Fn() -> Result<Client, ClientError>> Sink<C> {
    fn of(driver: LogDriverPlan, client: C, spool: String, place: &LogPlace) -> (Self, Shape) {
        match driver {
            LogDriverPlan::AwsLogs(plan) => {
                let shape = Shape::of_events(&plan);
                (
                    Self::AwsLogs(awslogs::Stream::new(client, plan, spool)),
                    shape,
                )
            }
            LogDriverPlan::JsonFile(plan) => {
                let file = place.files.open(&place.task, &place.container, plan);
                (Self::JsonFile(file), Shape::of_lines())
            }
            LogDriverPlan::Fluentd(plan) => (
                Self::Fluentd(fluentd::Fluentd::new(plan)),
                Shape::of_lines(),
            ),
            LogDriverPlan::Syslog(plan) => {
                (Self::Syslog(syslog::Syslog::new(plan)), Shape::of_lines())
            }
            LogDriverPlan::Gelf(plan) => (Self::Gelf(gelf::Gelf::new(plan)), Shape::of_lines()),
            LogDriverPlan::Loki(plan) => {
                let shape = Shape {
                    batch_bytes: plan.batch_bytes,
                    linger: plan.batch_wait,
                    ..Shape::of_lines()
                };
                (Self::Loki(loki::Loki::new(plan)), shape)
            }
        }
    }

    /// Returns once the batch is delivered, or never will be.
    async fn deliver(&mut self, batch: Batch, env: &Env) {
        if batch.lines.is_empty() {
            return;
        }
        match self {
            Self::AwsLogs(stream) => stream.deliver(batch, env).await,
            Self::JsonFile(file) => {
                let retries = Retries::without_end();
                retry(env, retries, "json-file", || {
                    std::future::ready(file.append(&batch))
                })
                .await;
            }
            Self::Fluentd(fluentd) => fluentd.deliver(&batch, env).await,
            Self::Syslog(syslog) => syslog.deliver(&batch, env).await,
            Self::Gelf(gelf) => gelf.deliver(&batch, env).await,
            Self::Loki(loki) => loki.deliver(&batch, env).await,
        }
    }

    fn close(&mut self, env: &Env) {
        if let Self::JsonFile(file) = self {
            file.close(env);
        }
    }
}

/// How often a delivery is tried.
#[derive(Clone, Copy, Debug)]
struct Retries {
    max: Option<u32>,
    wait: (Duration, Duration),
}

impl Retries {
    fn without_end() -> Self {
        Self {
            max: None,
            wait: (Duration::from_millis(200), Duration::from_secs(30)),
        }
    }
}

/// Tries until it works or has been tried often enough.
async fn retry<F: Future<Output = std::io::Result<()>>>(
    env: &Env,
    retries: Retries,
    driver: &str,
    mut attempt: impl FnMut() -> F,
) {
    let mut failed = 0;
    while let Err(error) = attempt().await {
        if retries.max.is_some_and(|max| failed >= max) {
            warn!(%error, driver, "log lines are given up");
            return;
        }
        let wait = backoff(failed, retries.wait.0, retries.wait.1, env.entropy.u64());
        debug!(%error, driver, ?wait, "log lines wait");
        failed = failed.saturating_add(1);
        env.sleep(wait).await;
    }
}
