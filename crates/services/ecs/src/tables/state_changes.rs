//! The rows of what happened: EventBridge's events of ECS, for whoever delivers them and for the history.
//!
//! What always holds:
//! - **Written in the commit of what they tell of**, all events of one commit in one row. So an event is
//!   there exactly if what it tells of is, through any `kill -9`, and is there once: a commit that lost a
//!   race left nothing, and its next attempt makes the event anew from what is then true.
//! - **In order**: by the revision of the row, and within it by place. A row is never changed.
//! - **Bounded**: [`crate::controllers::StateChangeRetention`] removes the oldest by time, number and bytes.
//!   What must stay longer is moved to the archive ([`crate::history`]).
//!
//! Why no controller makes them from the rows that it watches: the rows hold only what is now. Two changes
//! between two of its looks, or across a kill, would be one event; and to know after a kill what had been
//! told it would need a row a task beside the events. One more row in a commit that is made anyway costs
//! neither an fsync nor a wait, and it is one row however many tasks the commit starts.

use gantry_arn::{ClusterName, ServiceName};
use gantry_env::Timestamp;
use gantry_store::Table;
use serde::{Deserialize, Serialize};

use super::SERVICE;

// Named by `state_changes_name`.
table!(StateChangesRow, "state-changes", 1);

/// The row name of what one commit tells: oldest first, and unique by its first event's id.
pub fn state_changes_name(at: Timestamp, first: &str) -> String {
    format!("{:015}-{first}", at.as_millis().max(0))
}

/// The events of one commit, in the order in which they came about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StateChangesRow {
    pub events: Vec<StateChange>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateChange {
    /// A UUID that is derived from what the event tells of.
    pub id: String,
    pub at: Timestamp,
    pub kind: ChangeKind,
    pub cluster: ClusterName,
    /// The service whose history this is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The replica's slot, of a task of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The ARN of what changed.
    pub resource: String,
    /// EventBridge's `detail`.
    pub detail: serde_json::Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    Task,
    ServiceAction,
    Deployment,
    /// One of the `events` of DescribeServices, of which it shows a hundred. AWS delivers none of them.
    ServiceMessage,
    /// What a user asked of the service. AWS delivers none of them.
    Request,
}

impl ChangeKind {
    /// EventBridge's `detail-type`; `None` is for the history alone.
    pub fn detail_type(self) -> Option<&'static str> {
        match self {
            Self::Task => Some("ECS Task State Change"),
            Self::ServiceAction => Some("ECS Service Action"),
            Self::Deployment => Some("ECS Deployment State Change"),
            Self::ServiceMessage | Self::Request => None,
        }
    }
}
