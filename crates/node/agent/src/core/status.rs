//! Where a task and a container are. Ordered; they never go back.
//!
//! What always holds: `advance` is the only way to change one, and it refuses to go back.
//! What it leaves to others: what has to be done to get further.

use serde::{Deserialize, Serialize};

/// A container, as the agent knows it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum ContainerStatus {
    #[default]
    None,
    /// Its image is here.
    Pulled,
    /// Its start was asked of the runtime. Whether it runs is not known yet.
    Created,
    Running,
    Stopped,
}

/// A task, as the agent knows it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum TaskStatus {
    /// Accepted; its containers are not all running yet.
    #[default]
    Pending,
    Running,
    Stopped,
}

/// What health checks say. It goes back and forth, unlike the statuses above.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    /// No check has decided it yet.
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub fn as_reported(self) -> &'static str {
        match self {
            HealthStatus::Unknown => "UNKNOWN",
            HealthStatus::Healthy => "HEALTHY",
            HealthStatus::Unhealthy => "UNHEALTHY",
        }
    }
}

impl ContainerStatus {
    /// Moves forward, and says whether it moved.
    pub fn advance(&mut self, to: ContainerStatus) -> bool {
        let moves = to > *self;
        if moves {
            *self = to;
        }
        moves
    }

    /// As it is reported: what is not running and not stopped is PENDING.
    pub fn as_reported(self) -> &'static str {
        match self {
            ContainerStatus::None | ContainerStatus::Pulled | ContainerStatus::Created => "PENDING",
            ContainerStatus::Running => "RUNNING",
            ContainerStatus::Stopped => "STOPPED",
        }
    }
}

impl TaskStatus {
    /// Moves forward, and says whether it moved.
    pub fn advance(&mut self, to: TaskStatus) -> bool {
        let moves = to > *self;
        if moves {
            *self = to;
        }
        moves
    }

    pub fn as_reported(self) -> &'static str {
        match self {
            TaskStatus::Pending => "PENDING",
            TaskStatus::Running => "RUNNING",
            TaskStatus::Stopped => "STOPPED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_never_goes_back() {
        let mut status = ContainerStatus::None;
        assert!(status.advance(ContainerStatus::Stopped));
        assert!(!status.advance(ContainerStatus::Running));
        assert_eq!(status, ContainerStatus::Stopped);
        let mut task = TaskStatus::Running;
        assert!(!task.advance(TaskStatus::Running) && !task.advance(TaskStatus::Pending));
        assert!(task.advance(TaskStatus::Stopped));
    }
}
