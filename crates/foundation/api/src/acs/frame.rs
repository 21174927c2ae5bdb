//! One frame of the ACS socket, either way.
//!
//! What always holds: `decode(encode(frame)) == frame`, and an unknown type is kept as it came.
//! What it leaves to others: the order of frames and what they mean.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{
    AckRequest, CloseMessage, ErrorMessage, HeartbeatAckRequest, HeartbeatMessage,
    IamRoleCredentialsAckRequest, IamRoleCredentialsMessage, NackRequest, PayloadMessage,
    TaskManifestMessage, TaskStopVerificationAck, TaskStopVerificationMessage,
};

/// What either side reads at most in one frame. A task definition is at most 64 KiB, but a manifest
/// names every task of a container instance.
pub const MAX_FRAME_BYTES: usize = 4 << 20;

/// Declares the known frames once: the type on the wire, the variant and its message.
macro_rules! frames {
    ($($(#[$doc:meta])* $variant:ident($message:ty) = $kind:literal,)+) => {
        /// A frame of the ACS socket. Open: a newer peer may send what this one does not know.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Frame {
            $($(#[$doc])* $variant($message),)+
            /// A type that is not known here, kept as it came. It is ignored.
            Unknown { kind: String, message: Value },
        }

        impl Frame {
            /// The `type` member.
            pub fn kind(&self) -> &str {
                match self {
                    $(Frame::$variant(_) => $kind,)+
                    Frame::Unknown { kind, .. } => kind,
                }
            }

            /// The text that goes on the socket.
            pub fn encode(&self) -> String {
                match self {
                    $(Frame::$variant(message) => encode($kind, message),)+
                    Frame::Unknown { kind, message } => encode(kind, message),
                }
            }

            /// Reads a frame. An unknown type is not an error; a known type with a message that
            /// does not fit is.
            pub fn decode(text: &str) -> Result<Frame, FrameError> {
                if text.len() > MAX_FRAME_BYTES {
                    return Err(FrameError::TooLarge { bytes: text.len() });
                }
                let envelope: Envelope<'_> =
                    serde_json::from_str(text).map_err(|e| FrameError::Malformed(e.to_string()))?;
                match envelope.kind.as_ref() {
                    $($kind => Ok(Frame::$variant(message($kind, envelope.message)?)),)+
                    other => Ok(Frame::Unknown {
                        kind: other.to_owned(),
                        message: message(other, envelope.message)?,
                    }),
                }
            }
        }
    };
}

frames! {
    /// Tasks to start, or to stop.
    Payload(PayloadMessage) = "PayloadMessage",
    /// The whole set of tasks that this container instance should know.
    TaskManifest(TaskManifestMessage) = "TaskManifestMessage",
    TaskStopVerification(TaskStopVerificationMessage) = "TaskStopVerificationMessage",
    TaskStopVerificationAck(TaskStopVerificationAck) = "TaskStopVerificationAck",
    Heartbeat(HeartbeatMessage) = "HeartbeatMessage",
    HeartbeatAck(HeartbeatAckRequest) = "HeartbeatAckRequest",
    IamRoleCredentials(IamRoleCredentialsMessage) = "IAMRoleCredentialsMessage",
    IamRoleCredentialsAck(IamRoleCredentialsAckRequest) = "IAMRoleCredentialsAckRequest",
    Ack(AckRequest) = "AckRequest",
    Nack(NackRequest) = "NackRequest",
    Close(CloseMessage) = "CloseMessage",
    Error(ErrorMessage) = "ErrorMessage",
    /// The container instance was deregistered; the agent stays away for an hour.
    InactiveInstance(ErrorMessage) = "InactiveInstanceException",
}

/// Why a text is not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLarge { bytes: usize },
    #[error("not a frame: {0}")]
    Malformed(String),
    #[error("the message of a {kind} does not fit: {cause}")]
    Message { kind: String, cause: String },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
}

fn encode<T: Serialize>(kind: &str, message: &T) -> String {
    #[derive(Serialize)]
    struct Out<'a, T> {
        #[serde(rename = "type")]
        kind: &'a str,
        message: &'a T,
    }
    // Frames are structs, strings, numbers and string-keyed maps: none of them can fail to encode.
    serde_json::to_string(&Out { kind, message }).unwrap_or_default()
}

fn message<T: DeserializeOwned>(kind: &str, raw: Option<&RawValue>) -> Result<T, FrameError> {
    let text = raw.map_or("{}", RawValue::get);
    serde_json::from_str(text).map_err(|cause| FrameError::Message {
        kind: kind.to_owned(),
        cause: cause.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acs::{Container, DesiredStatus, RoleCredentials, RoleType, Task};

    #[test]
    fn frames_survive_the_wire() {
        let frames = [
            Frame::Heartbeat(HeartbeatMessage {
                message_id: Some("m".into()),
                healthy: Some(true),
            }),
            Frame::Payload(PayloadMessage {
                message_id: Some("m2".into()),
                seq_num: Some(3),
                tasks: vec![Task {
                    arn: Some("arn:aws:ecs:us-east-1:000000000000:task/default/0".into()),
                    desired_status: Some(DesiredStatus::Running),
                    containers: vec![Container {
                        name: Some("web".into()),
                        ..Container::default()
                    }],
                    ..Task::default()
                }],
                ..PayloadMessage::default()
            }),
            Frame::IamRoleCredentials(IamRoleCredentialsMessage {
                role_type: Some(RoleType::TaskExecution),
                role_credentials: Some(RoleCredentials {
                    secret_access_key: Some("hush".into()),
                    ..RoleCredentials::default()
                }),
                ..IamRoleCredentialsMessage::default()
            }),
            Frame::Unknown {
                kind: "GantrySomething".into(),
                message: serde_json::json!({"a": 1}),
            },
        ];
        for frame in frames {
            assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
        }
    }

    #[test]
    fn the_wire_form_is_the_one_the_amazon_agent_reads() {
        let frame = Frame::Ack(AckRequest {
            cluster: Some("c".into()),
            container_instance: Some("i".into()),
            message_id: Some("m".into()),
        });
        assert_eq!(
            frame.encode(),
            r#"{"type":"AckRequest","message":{"cluster":"c","containerInstance":"i","messageId":"m"}}"#
        );
    }

    #[test]
    fn an_unknown_type_is_kept_and_a_bad_message_is_refused() {
        let unknown =
            Frame::decode(r#"{"type":"PerformUpdateMessage","message":{"x":[1]}}"#).unwrap();
        assert_eq!(unknown.kind(), "PerformUpdateMessage");
        assert!(matches!(
            Frame::decode(r#"{"type":"HeartbeatMessage","message":{"healthy":"yes"}}"#),
            Err(FrameError::Message { .. })
        ));
        assert!(matches!(Frame::decode("[]"), Err(FrameError::Malformed(_))));
        assert!(matches!(
            Frame::decode(r#"{"message":{}}"#),
            Err(FrameError::Malformed(_))
        ));
        assert!(Frame::decode(r#"{"type":"CloseMessage"}"#).is_ok());
        let huge = format!(
            r#"{{"type":"X","message":"{}"}}"#,
            "a".repeat(MAX_FRAME_BYTES)
        );
        assert!(matches!(
            Frame::decode(&huge),
            Err(FrameError::TooLarge { .. })
        ));
    }

    #[test]
    fn credentials_are_not_printed() {
        let credentials = RoleCredentials {
            access_key_id: Some("AKIA".into()),
            secret_access_key: Some("hush".into()),
            session_token: Some("hush".into()),
            ..RoleCredentials::default()
        };
        let printed = format!("{credentials:?}");
        assert!(printed.contains("AKIA") && !printed.contains("hush"));
    }
}
