//! The frames of the TCS socket: health, usage and state, published by the agent and acknowledged.
//!
//! What always holds: the Amazon ECS agent puts HTTP header text and a blank line before the JSON
//! of each of its frames; both forms, with and without, are read. Members are those of Amazon's
//! model, all of them optional on the wire; what is not known here is skipped, because telemetry
//! that is lost is measured again.
//! What it leaves to others: what is kept of it, and for how long (`gantry_ecs::acs`).

use gantry_env::Timestamp;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{FrameError, MAX_FRAME_BYTES};

/// A moment in telemetry: seconds since 1970 with a fraction, as awsJson carries them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TelemetryTime(pub Timestamp);

impl Serialize for TelemetryTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_epoch_seconds_f64())
    }
}

impl<'de> Deserialize<'de> for TelemetryTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if seconds.is_finite() {
            Ok(Self(Timestamp::from_epoch_seconds_f64(seconds)))
        } else {
            Err(D::Error::custom("a moment is a number of seconds"))
        }
    }
}

/// An agent may write an absent list as `null`.
fn absent_or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Which instance speaks, and which part of how many this is: an agent splits what it has to say
/// into messages of at most ten tasks, and the last one has `fin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetryMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Of metrics only: no task runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fin: Option<bool>,
    /// Of instance status only, in place of `messageId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// What was measured since the last message, summed up. Numbers beyond 63 bits go on in `overflow…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatsSet {
    pub min: f64,
    pub max: f64,
    pub sample_count: i64,
    pub sum: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow_max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow_sum: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkStatsSet {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes_per_second: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_dropped: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_errors: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_packets: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes_per_second: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_dropped: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_errors: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_packets: Option<StatsSet>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageStatsSet {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_size_bytes: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_size_bytes: Option<StatsSet>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartStatsSet {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<i64>,
}

/// The usage of one container: cpu in percent of the whole machine (100 is every core busy, whatever share it has), memory in MiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerMetric {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_stats_set: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_stats_set: Option<StatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_stats_set: Option<NetworkStatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_stats_set: Option<StorageStatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_stats_set: Option<RestartStatsSet>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskMetric {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_definition_family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_definition_version: Option<String>,
    #[serde(deserialize_with = "absent_or_null")]
    pub container_metrics: Vec<ContainerMetric>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishMetricsRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TelemetryMetadata>,
    #[serde(deserialize_with = "absent_or_null")]
    pub task_metrics: Vec<TaskMetric>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TelemetryTime>,
}

/// What a container's health check found last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ContainerHealthStatus {
    #[serde(rename = "HEALTHY")]
    Healthy,
    #[serde(rename = "UNHEALTHY")]
    Unhealthy,
    #[serde(untagged)]
    Unknown(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerHealth {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_status: Option<ContainerHealthStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_since: Option<TelemetryTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskHealth {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_definition_family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_definition_version: Option<String>,
    #[serde(deserialize_with = "absent_or_null")]
    pub containers: Vec<ContainerHealth>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishHealthRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TelemetryMetadata>,
    #[serde(deserialize_with = "absent_or_null")]
    pub tasks: Vec<TaskHealth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TelemetryTime>,
}

/// One of the things on the container instance that its agent looks after: `CONTAINER_RUNTIME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceStatus {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// OK, IMPAIRED, INSUFFICIENT_DATA or INITIALIZING.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<TelemetryTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status_change: Option<TelemetryTime>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishInstanceStatusRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TelemetryMetadata>,
    #[serde(deserialize_with = "absent_or_null")]
    pub statuses: Vec<InstanceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TelemetryTime>,
}

/// What an agent publishes, usually every 20 seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum TelemetryFrame {
    Metrics(PublishMetricsRequest),
    Health(PublishHealthRequest),
    InstanceStatus(PublishInstanceStatusRequest),
    /// A type that is not known here. It is not answered.
    Unknown {
        kind: String,
    },
}

/// What the control plane answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TelemetryAck {
    Metric,
    Health,
    InstanceStatus,
    Heartbeat,
    /// The frame could not be read. The next one may be.
    BadRequest {
        reason: String,
    },
}

const METRICS: &str = "PublishMetricsRequest";
const HEALTH: &str = "PublishHealthRequest";
const INSTANCE_STATUS: &str = "PublishInstanceStatusRequest";

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    #[serde(rename = "type")]
    kind: String,
    message: T,
}

impl TelemetryFrame {
    pub fn decode(text: &str) -> Result<TelemetryFrame, FrameError> {
        #[derive(Deserialize)]
        struct Incoming {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            message: Value,
        }
        if text.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge { bytes: text.len() });
        }
        let Incoming { kind, message } = serde_json::from_str(split_header_text(text))
            .map_err(|e| FrameError::Malformed(e.to_string()))?;
        Ok(match kind.as_str() {
            METRICS => TelemetryFrame::Metrics(read(METRICS, message)?),
            HEALTH => TelemetryFrame::Health(read(HEALTH, message)?),
            INSTANCE_STATUS => TelemetryFrame::InstanceStatus(read(INSTANCE_STATUS, message)?),
            _ => TelemetryFrame::Unknown { kind },
        })
    }

    /// The text that goes on the socket, without header text.
    pub fn encode(&self) -> String {
        match self {
            TelemetryFrame::Metrics(message) => write(METRICS, message),
            TelemetryFrame::Health(message) => write(HEALTH, message),
            TelemetryFrame::InstanceStatus(message) => write(INSTANCE_STATUS, message),
            TelemetryFrame::Unknown { kind } => write(kind, &Value::Object(Default::default())),
        }
    }

    /// The answer that this frame waits for. Unknown frames get none.
    pub fn ack(&self) -> Option<TelemetryAck> {
        match self {
            TelemetryFrame::Metrics(_) => Some(TelemetryAck::Metric),
            TelemetryFrame::Health(_) => Some(TelemetryAck::Health),
            TelemetryFrame::InstanceStatus(_) => Some(TelemetryAck::InstanceStatus),
            TelemetryFrame::Unknown { .. } => None,
        }
    }
}

fn read<T: DeserializeOwned>(kind: &str, message: Value) -> Result<T, FrameError> {
    serde_json::from_value(message).map_err(|cause| FrameError::Message {
        kind: kind.to_owned(),
        cause: cause.to_string(),
    })
}

fn write<T: Serialize>(kind: &str, message: &T) -> String {
    // Structs, strings, finite numbers and lists: none of them can fail to encode.
    serde_json::to_string(&Envelope {
        kind: kind.to_owned(),
        message,
    })
    .unwrap_or_default()
}

impl TelemetryAck {
    pub fn encode(&self) -> String {
        let empty = || serde_json::json!({});
        match self {
            TelemetryAck::Metric => write("AckPublishMetric", &empty()),
            TelemetryAck::Health => write("AckPublishHealth", &empty()),
            TelemetryAck::InstanceStatus => write("AckPublishInstanceStatus", &empty()),
            TelemetryAck::Heartbeat => {
                write("HeartbeatMessage", &serde_json::json!({"healthy": true}))
            }
            TelemetryAck::BadRequest { reason } => write(
                "BadRequestException",
                &serde_json::json!({ "message": reason }),
            ),
        }
    }
}

/// Takes the header text off a frame of the telemetry socket, where there is any.
pub fn split_header_text(frame: &str) -> &str {
    if frame.trim_start().starts_with('{') {
        return frame;
    }
    match frame.split_once("\r\n\r\n") {
        Some((_, body)) => body,
        None => frame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_text_before_the_json_is_split_off() {
        let frame = "Authorization: AWS4-HMAC-SHA256 …\r\nHost: x\r\nX-Amz-Date: 1\r\n\r\n{\"type\":\"PublishMetricsRequest\",\"message\":{\"metadata\":{\"cluster\":\"\\r\\n\\r\\n\"}}}";
        let decoded = TelemetryFrame::decode(frame).unwrap();
        let TelemetryFrame::Metrics(metrics) = &decoded else {
            panic!("{decoded:?}");
        };
        assert_eq!(
            metrics.metadata.as_ref().unwrap().cluster.as_deref(),
            Some("\r\n\r\n")
        );
        assert_eq!(decoded.ack(), Some(TelemetryAck::Metric));
        assert_eq!(
            TelemetryAck::Metric.encode(),
            r#"{"type":"AckPublishMetric","message":{}}"#
        );
    }

    #[test]
    fn a_plain_frame_is_read_too() {
        let frame = r#"{"type":"PublishHealthRequest","message":{}}"#;
        assert_eq!(
            TelemetryFrame::decode(frame).unwrap().ack(),
            Some(TelemetryAck::Health)
        );
        assert!(TelemetryFrame::decode("Host: x\r\n").is_err());
    }

    #[test]
    fn what_is_published_survives_the_wire() {
        let time = TelemetryTime(Timestamp::from_millis(1_700_000_000_250));
        let stats = |sum| StatsSet {
            min: 1.0,
            max: 2.5,
            sample_count: 20,
            sum,
            ..StatsSet::default()
        };
        let frames = [
            TelemetryFrame::Metrics(PublishMetricsRequest {
                metadata: Some(TelemetryMetadata {
                    fin: Some(true),
                    ..TelemetryMetadata::default()
                }),
                task_metrics: vec![TaskMetric {
                    task_arn: Some("t".into()),
                    container_metrics: vec![ContainerMetric {
                        container_name: Some("web".into()),
                        cpu_stats_set: Some(stats(30.25)),
                        ..ContainerMetric::default()
                    }],
                    ..TaskMetric::default()
                }],
                timestamp: Some(time),
            }),
            TelemetryFrame::Health(PublishHealthRequest {
                tasks: vec![TaskHealth {
                    task_arn: Some("t".into()),
                    containers: vec![ContainerHealth {
                        container_name: Some("web".into()),
                        health_status: Some(ContainerHealthStatus::Unknown("UNKNOWN".into())),
                        status_since: Some(time),
                        ..ContainerHealth::default()
                    }],
                    ..TaskHealth::default()
                }],
                ..PublishHealthRequest::default()
            }),
            TelemetryFrame::InstanceStatus(PublishInstanceStatusRequest {
                statuses: vec![InstanceStatus {
                    kind: Some("CONTAINER_RUNTIME".into()),
                    status: Some("OK".into()),
                    last_updated: Some(time),
                    last_status_change: None,
                }],
                ..PublishInstanceStatusRequest::default()
            }),
        ];
        for frame in frames {
            assert_eq!(TelemetryFrame::decode(&frame.encode()).unwrap(), frame);
        }
    }

    #[test]
    fn lists_may_be_null_and_nonsense_is_refused() {
        let null = r#"{"type":"PublishMetricsRequest","message":{"taskMetrics":null}}"#;
        assert!(TelemetryFrame::decode(null).is_ok());
        let nonsense = r#"{"type":"PublishHealthRequest","message":{"tasks":7}}"#;
        assert!(matches!(
            TelemetryFrame::decode(nonsense),
            Err(FrameError::Message { .. })
        ));
    }
}
