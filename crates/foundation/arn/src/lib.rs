//! Account, Region, Arn, names and ids: the words every other crate speaks in.
//!
//! What always holds: a value of these types has been checked, so whoever takes one need not
//! check again; ordering, hashing, `Display` and serde all agree on the one text form.
//! What it leaves to others: AWS's error messages for a bad value (each service has its own),
//! and drawing random ids (callers pass the bytes in, so a run can be replayed).

#![forbid(unsafe_code)]

mod account;
mod arn;
mod hex_id;
mod name;
mod text;

pub use account::{AccountId, Partition, Region};
pub use arn::{Arn, EcsResource};
pub use hex_id::{ContainerInstanceId, TaskId};
pub use name::{
    ClusterName, Family, LogGroupName, LogStreamName, RepositoryName, RoleName, ServiceName,
};

/// A text that is not a value of the type it was parsed as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct ParseError {
    /// What was given, cut to a length that is safe to show.
    pub value: String,
    /// What would have been right, ready to follow "is not".
    pub expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(value: &str, expected: &'static str) -> Self {
        Self {
            value: value.chars().take(256).collect(),
            expected,
        }
    }
}
