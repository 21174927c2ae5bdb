//! The frames of TCS, the telemetry socket.
//!
//! What always holds: a frame from the Amazon ECS agent begins with HTTP header text and a blank line
//! before its JSON; both forms, with and without, are read.
//! What it leaves to others: keeping the metrics. Here they are raw values.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FrameError, MAX_FRAME_BYTES};

/// What an agent publishes every 20 seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum TelemetryFrame {
    Metrics(Value),
    Health(Value),
    InstanceStatus(Value),
    Unknown { kind: String, message: Value },
}

/// What the control plane answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TelemetryAck {
    Metric,
    Health,
    InstanceStatus,
    Heartbeat,
}

impl TelemetryFrame {
    pub fn decode(text: &str) -> Result<TelemetryFrame, FrameError> {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            message: Value,
        }
        if text.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge { bytes: text.len() });
        }
        let Envelope { kind, message } = serde_json::from_str(split_header_text(text))
            .map_err(|e| FrameError::Malformed(e.to_string()))?;
        Ok(match kind.as_str() {
            "PublishMetricsRequest" => TelemetryFrame::Metrics(message),
            "PublishHealthRequest" => TelemetryFrame::Health(message),
            "PublishInstanceStatusRequest" => TelemetryFrame::InstanceStatus(message),
            _ => TelemetryFrame::Unknown { kind, message },
        })
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

impl TelemetryAck {
    pub fn encode(self) -> String {
        #[derive(Serialize)]
        struct Out {
            #[serde(rename = "type")]
            kind: &'static str,
            message: Value,
        }
        let (kind, message) = match self {
            TelemetryAck::Metric => ("AckPublishMetric", serde_json::json!({})),
            TelemetryAck::Health => ("AckPublishHealth", serde_json::json!({})),
            TelemetryAck::InstanceStatus => ("AckPublishInstanceStatus", serde_json::json!({})),
            TelemetryAck::Heartbeat => ("HeartbeatMessage", serde_json::json!({"healthy": true})),
        };
        serde_json::to_string(&Out { kind, message }).unwrap_or_default()
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
        let frame = "Authorization: AWS4-HMAC-SHA256 …\r\nHost: x\r\nX-Amz-Date: 1\r\n\r\n{\"type\":\"PublishMetricsRequest\",\"message\":{\"a\":\"\\r\\n\\r\\n\"}}";
        let decoded = TelemetryFrame::decode(frame).unwrap();
        assert_eq!(
            decoded,
            TelemetryFrame::Metrics(serde_json::json!({"a": "\r\n\r\n"}))
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
}
