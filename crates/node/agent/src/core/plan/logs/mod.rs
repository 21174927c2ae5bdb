//! Where a container's output goes, from Docker's LogConfig.
//!
//! What always holds: an option that is not known here is a reason that names it; what a tag or a
//! label says is settled here, so the drivers know nothing of templates.
//! What it leaves to others: shipping the lines (the shell), keeping them (the runtime's spool).

mod drivers;
mod multiline;
mod options;

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_api::acs::DockerLogConfig;

use self::options::Options;
use super::unknown::not_built;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlan {
    None,
    Shipped(ShippedLog),
}

/// Output that is kept in a spool until its driver has delivered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShippedLog {
    pub mode: DeliveryMode,
    pub driver: LogDriverPlan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// A full spool stops reading the container's output.
    Blocking,
    /// A full spool drops, and counts what it drops.
    NonBlocking { max_buffer_bytes: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDriverPlan {
    AwsLogs(AwsLogsPlan),
    JsonFile(JsonFilePlan),
    Fluentd(FluentdPlan),
    Syslog(SyslogPlan),
    Gelf(GelfPlan),
    Loki(LokiPlan),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsLogsPlan {
    pub group: String,
    pub stream: String,
    pub region: String,
    pub create_group: bool,
    pub use_execution_role: bool,
    /// A regular expression: a line that it matches begins a new event, every other line goes on
    /// with the one before. `None`: every line is an event.
    pub begins_event: Option<String>,
    /// How long an event of several lines waits for its next line.
    pub flush_after: Duration,
}

/// Whose output it is, as drivers tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSource {
    pub container_id: String,
    pub container_name: String,
    pub image: String,
    pub command: String,
    pub tag: String,
    /// Labels and variables that the options ask for.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonFilePlan {
    /// `None`: one file that grows.
    pub max_bytes: Option<u64>,
    pub max_files: u32,
    pub source: LogSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluentdPlan {
    pub address: Address,
    /// Times with nanoseconds, in Fluentd's own extension type.
    pub sub_second_precision: bool,
    /// The container starts although nobody listens.
    pub asynchronous: bool,
    /// The receiver confirms each chunk.
    pub request_ack: bool,
    pub retry_wait: Duration,
    /// `None`: without end.
    pub max_retries: Option<u32>,
    pub source: LogSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogPlan {
    pub address: Address,
    pub facility: u8,
    pub format: SyslogFormat,
    pub source: LogSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogFormat {
    /// As programs write to their own machine's daemon: without a host name.
    Local,
    Rfc3164,
    Rfc5424,
    /// With microseconds.
    Rfc5424Micro,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GelfPlan {
    pub address: Address,
    pub compression: GelfCompression,
    pub source: LogSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GelfCompression {
    None,
    Gzip { level: u32 },
    Zlib { level: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LokiPlan {
    pub host: String,
    pub port: u16,
    pub path: String,
    pub labels: BTreeMap<String, String>,
    pub tenant: Option<String>,
    pub batch_bytes: usize,
    pub batch_wait: Duration,
    /// `None`: without end.
    pub max_retries: Option<u32>,
    pub backoff: (Duration, Duration),
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Udp { host: String, port: u16 },
    Unix { path: String },
    UnixDatagram { path: String },
}

/// What of a container and its task a log may be about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logged<'a> {
    pub container: &'a str,
    pub task_id: &'a str,
    pub image: &'a str,
    pub command: &'a [String],
    pub labels: &'a BTreeMap<String, String>,
    pub environment: &'a BTreeMap<String, String>,
    pub auth_strategy: Option<&'a str>,
}

/// ECS's buffer in non-blocking mode.
const DEFAULT_MAX_BUFFER_BYTES: u64 = 10 << 20;

pub(super) fn log_plan(
    config: Option<DockerLogConfig>,
    logged: Logged<'_>,
) -> Result<LogPlan, String> {
    let Some(DockerLogConfig { driver, options }) = config else {
        return Ok(LogPlan::None);
    };
    let driver = driver.unwrap_or_default();
    if matches!(driver.as_str(), "" | "none") {
        return Ok(LogPlan::None);
    }
    let mut options = Options::new(logged.container, &driver, options);
    // ECS's default since June 2025; the server has put in what the account's setting says.
    let mode = match options.take("mode").as_deref() {
        Some("blocking") => DeliveryMode::Blocking,
        None | Some("non-blocking") => DeliveryMode::NonBlocking {
            max_buffer_bytes: DEFAULT_MAX_BUFFER_BYTES,
        },
        Some(other) => return Err(options.bad("mode", other)),
    };
    let mut buffer = options.size("max-buffer-size")?;
    if driver == "fluentd" {
        // Docker's Fluentd driver has a buffer of its own, which is the spool here.
        buffer = options.size("fluentd-buffer-limit")?.or(buffer);
    }
    let log = ShippedLog {
        mode: match (mode, buffer) {
            (DeliveryMode::NonBlocking { .. }, Some(max_buffer_bytes)) => {
                DeliveryMode::NonBlocking { max_buffer_bytes }
            }
            (mode, _) => mode,
        },
        driver: match driver.as_str() {
            "awslogs" => LogDriverPlan::AwsLogs(drivers::awslogs(&mut options, logged)?),
            "json-file" => LogDriverPlan::JsonFile(drivers::json_file(&mut options, logged)?),
            "fluentd" => LogDriverPlan::Fluentd(drivers::fluentd(&mut options, logged)?),
            "syslog" => LogDriverPlan::Syslog(drivers::syslog(&mut options, logged)?),
            "gelf" => LogDriverPlan::Gelf(drivers::gelf(&mut options, logged)?),
            "loki" => LogDriverPlan::Loki(drivers::loki(&mut options, logged)?),
            other => return Err(not_built("logDriver", other, Some(logged.container))),
        },
    };
    options.end()?;
    Ok(LogPlan::Shipped(log))
}
