//! Errors as AWS returns them, and errors of reading a request.
//!
//! An [`ApiError`] is what the caller sees: a code, an HTTP status and a message. Its internal
//! cause goes to the log only and never into an answer. Each service's modelled exceptions are
//! an enum in its generated module that converts into `ApiError` at the edge; a
//! [`ProtocolError`] says what is wrong with the bytes of a request.

use std::fmt;
use std::sync::Arc;

use crate::shape::{Structure, View};

/// Whose mistake it is: decides the `Type` of a Query error and what clients retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Sender,
    Receiver,
}

/// An error on its way to the caller, independent of the protocol.
#[derive(Clone)]
pub struct ApiError {
    /// AWS's error code, without namespace: `ClusterNotFoundException`.
    pub code: String,
    pub http_status: u16,
    pub message: String,
    pub fault: Fault,
    /// Why, for the log. Never sent.
    pub cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// The modelled exception with all its members, where there is one. Its own message
    /// member is the one that is sent.
    pub exception: Option<Arc<dyn Structure>>,
}

impl ApiError {
    /// An error of the caller's making, answered with status 400.
    pub fn sender(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            http_status: 400,
            message: message.into(),
            fault: Fault::Sender,
            cause: None,
            exception: None,
        }
    }

    /// Something failed here. The caller learns only that; the cause is logged.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            code: "InternalFailure".to_owned(),
            http_status: 500,
            message: "The request processing has failed because of an unknown error, exception or failure.".to_owned(),
            fault: Fault::Receiver,
            cause: Some(Arc::from(cause.into())),
            exception: None,
        }
    }

    /// The input breaks a constraint of the model.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::sender("ValidationException", message)
    }

    /// A modelled exception: code, status and message are its own.
    pub fn modelled(exception: Arc<dyn Structure>) -> Self {
        let schema = exception.schema();
        let message = schema
            .members()
            .iter()
            .position(|member| member.name.eq_ignore_ascii_case("message"))
            .and_then(|index| match exception.member(index)?.view() {
                View::String(text) => Some(text.to_owned()),
                _ => None,
            });
        let traits = schema.error.as_ref();
        Self {
            code: traits.map_or(schema.name, |traits| traits.code).to_owned(),
            http_status: traits.map_or(400, |traits| traits.http_status),
            message: message.unwrap_or_default(),
            fault: match traits {
                Some(traits) if !traits.sender_fault => Fault::Receiver,
                _ => Fault::Sender,
            },
            cause: None,
            exception: Some(exception),
        }
    }

    /// AWS has this operation and Gantry does not yet.
    pub fn not_built(service: &str, operation: &str) -> Self {
        let why = crate::refusals::reason(service, operation)
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        Self {
            code: "NotImplemented".to_owned(),
            http_status: 501,
            message: format!(
                "{service}:{operation} is not built in Gantry yet{why}. `gantry coverage` lists the operations that are."
            ),
            fault: Fault::Receiver,
            cause: None,
            exception: None,
        }
    }

    /// Neither AWS nor Gantry knows this operation (awsJson's words).
    pub fn unknown_operation() -> Self {
        Self::sender("UnknownOperationException", "")
    }

    pub fn with_status(mut self, http_status: u16) -> Self {
        self.http_status = http_status;
        self
    }

    pub fn with_cause(
        mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.cause = Some(Arc::from(cause.into()));
        self
    }
}

impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiError")
            .field("code", &self.code)
            .field("http_status", &self.http_status)
            .field("message", &self.message)
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

/// Two errors are equal when a caller cannot tell them apart; the internal cause is not compared.
impl PartialEq for ApiError {
    fn eq(&self, other: &Self) -> bool {
        self.code == other.code
            && self.http_status == other.http_status
            && self.message == other.message
            && self.fault == other.fault
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause.as_ref() as _)
    }
}

impl From<ProtocolError> for ApiError {
    fn from(error: ProtocolError) -> Self {
        match &error {
            ProtocolError::Malformed { .. } => Self::sender("MalformedInput", error.to_string()),
            _ => Self::sender("SerializationException", error.to_string()),
        }
    }
}

/// What is wrong with the bytes of a request, or of an answer that a client reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not the syntax of the protocol at all.
    #[error("{reason}")]
    Syntax { reason: String },
    /// A value of another type than the model says. The words are those of AWS's front end.
    #[error("{found} cannot be converted to {expected}")]
    WrongType {
        member: String,
        found: String,
        expected: &'static str,
    },
    /// A list or structure where a scalar is modelled, or the other way round.
    #[error("{found} found where not expected.")]
    Unexpected { member: String, found: &'static str },
    /// A scalar whose text is not of its type, in protocols where everything is text.
    #[error("Invalid value for member {member}: expected {expected}.")]
    Malformed {
        member: String,
        expected: &'static str,
    },
    #[error("{member} is nested more than {limit} levels deep.")]
    TooDeep { member: String, limit: usize },
    #[error("{member} has more than {limit} entries.")]
    TooMany { member: String, limit: usize },
}
