//! Where a task is in its life, as users see it.
//!
//! What always holds: states are ordered, and [`LastStatus::advance`] never goes back, so a late
//! or repeated report cannot revive a task. What users see is derived from the desired phase and
//! the node's report; it is stored nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A task's (or a container's) `lastStatus`, in the order of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LastStatus {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
    Deleted,
}

impl LastStatus {
    pub const ALL: [LastStatus; 9] = [
        Self::Provisioning,
        Self::Pending,
        Self::Activating,
        Self::Running,
        Self::Deactivating,
        Self::Stopping,
        Self::Deprovisioning,
        Self::Stopped,
        Self::Deleted,
    ];

    /// The later of the two: a status that was reached is never left backwards.
    #[must_use]
    pub fn advance(self, to: LastStatus) -> LastStatus {
        self.max(to)
    }

    /// Whether nothing of the task runs any more.
    pub fn is_stopped(self) -> bool {
        self >= Self::Stopped
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
            Self::Deleted => "DELETED",
        }
    }

    /// What a node's word means here. Agents also report steps of their own (MANIFEST_PULLED,
    /// PULLED, CREATED …): to a user these are all PENDING. An unknown word is `None`.
    pub fn from_report(word: &str) -> Option<LastStatus> {
        match word {
            "NONE" | "MANIFEST_PULLED" | "PULLED" | "CREATED" => Some(Self::Pending),
            "RESOURCES_PROVISIONED" => Some(Self::Running),
            other => other.parse().ok(),
        }
    }
}

impl fmt::Display for LastStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a task status")]
pub struct UnknownStatus(pub String);

impl FromStr for LastStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_status_is_ever_left_backwards() {
        for from in LastStatus::ALL {
            for to in LastStatus::ALL {
                assert!(from.advance(to) >= from);
                assert!(from.advance(to) >= to);
            }
        }
    }

    #[test]
    fn every_status_round_trips_through_its_name_and_serde() {
        for status in LastStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(json, format!("\"{status}\""));
            assert_eq!(serde_json::from_str::<LastStatus>(&json).unwrap(), status);
        }
    }

    #[test]
    fn an_agents_own_steps_are_pending_and_nonsense_is_refused() {
        assert_eq!(
            LastStatus::from_report("MANIFEST_PULLED"),
            Some(LastStatus::Pending)
        );
        assert_eq!(
            LastStatus::from_report("STOPPED"),
            Some(LastStatus::Stopped)
        );
        assert_eq!(LastStatus::from_report("stopped"), None);
    }
}
