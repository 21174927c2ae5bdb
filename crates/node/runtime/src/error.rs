//! What can go wrong, in the words a user of ECS reads in a task's stopped reason.
//!
//! What always holds: the kind is ECS's prefix, and the message says which image, file or limit
//! it was, so an agent reports `error.to_string()` without adding anything.

use std::fmt;

/// ECS's prefix of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The image could not be had: registry, network, digest, platform, disk.
    CannotPullContainer,
    /// The container's root file system, user or resources could not be made.
    CannotCreateContainer,
    /// The container was made but its first process could not be started.
    CannotStartContainer,
    /// The container could not be stopped or signalled.
    CannotStopContainer,
    /// The state of a container could not be read.
    CannotInspectContainer,
    /// The machine or this installation's own files and shims failed.
    ContainerRuntime,
}

impl ErrorKind {
    /// The prefix as ECS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CannotPullContainer => "CannotPullContainerError",
            Self::CannotCreateContainer => "CannotCreateContainerError",
            Self::CannotStartContainer => "CannotStartContainerError",
            Self::CannotStopContainer => "CannotStopContainerError",
            Self::CannotInspectContainer => "CannotInspectContainerError",
            Self::ContainerRuntime => "ContainerRuntimeError",
        }
    }

    /// The kind that [`ErrorKind::as_str`] names; what is not known is the runtime's own failure.
    pub(crate) fn from_name(name: &str) -> Self {
        match name {
            "CannotPullContainerError" => Self::CannotPullContainer,
            "CannotCreateContainerError" => Self::CannotCreateContainer,
            "CannotStartContainerError" => Self::CannotStartContainer,
            "CannotStopContainerError" => Self::CannotStopContainer,
            "CannotInspectContainerError" => Self::CannotInspectContainer,
            _ => Self::ContainerRuntime,
        }
    }
}

/// A failure: ECS's kind, and what exactly failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeError {
    pub kind: ErrorKind,
    pub message: String,
}

impl RuntimeError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn pull(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::CannotPullContainer, message.to_string())
    }

    pub(crate) fn create(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::CannotCreateContainer, message.to_string())
    }

    pub(crate) fn runtime(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::ContainerRuntime, message.to_string())
    }
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.message)
    }
}

impl std::error::Error for RuntimeError {}
