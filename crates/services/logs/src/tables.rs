//! The rows of Logs: what groups and streams are. Events are not rows; they are in the archive.
//!
//! What always holds: putting events writes no row; what changes with them (times, sizes, marks)
//! is read from the archive. A stream's row names the life of the group it was made in, so a
//! stream left behind by a deletion that was cut off belongs to nobody, even when a group of the
//! same name exists again. A stream's id is random, names its records in the archive and keys its
//! tokens; it is never shown.

use std::collections::BTreeMap;

use gantry_arn::{LogGroupName, LogStreamName};
use gantry_env::Timestamp;
use gantry_store::Table;
use serde::{Deserialize, Serialize};

/// Named by the group.
#[derive(Clone, Copy, Debug)]
pub struct LogGroups;

/// Named by group and stream: see [`stream_row_name`].
#[derive(Clone, Copy, Debug)]
pub struct LogStreams;

impl Table for LogGroups {
    type Row = LogGroupRow;
    const SERVICE: &'static str = "logs";
    const KIND: &'static str = "log-group";
    const SCHEMA: u16 = 1;
}

impl Table for LogStreams {
    type Row = LogStreamRow;
    const SERVICE: &'static str = "logs";
    const KIND: &'static str = "log-stream";
    const SCHEMA: u16 = 1;
}

/// Named by group and filter, as a stream is: see [`metric_filter_row_name`].
#[derive(Clone, Copy, Debug)]
pub struct MetricFilters;

/// Named by scope (account, or a resource's ARN) and policy.
#[derive(Clone, Copy, Debug)]
pub struct ResourcePolicies;

/// Named by type and policy.
#[derive(Clone, Copy, Debug)]
pub struct AccountPolicies;

impl Table for MetricFilters {
    type Row = MetricFilterRow;
    const SERVICE: &'static str = "logs";
    const KIND: &'static str = "metric-filter";
    const SCHEMA: u16 = 1;
}

impl Table for ResourcePolicies {
    type Row = ResourcePolicyRow;
    const SERVICE: &'static str = "logs";
    const KIND: &'static str = "resource-policy";
    const SCHEMA: u16 = 1;
}

impl Table for AccountPolicies {
    type Row = AccountPolicyRow;
    const SERVICE: &'static str = "logs";
    const KIND: &'static str = "account-policy";
    const SCHEMA: u16 = 1;
}

/// The filter as it was given, which is the user's own document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricFilterRow {
    /// The life of the group that it belongs to.
    pub group_id: String,
    pub filter: gantry_api::logs::MetricFilter,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcePolicyRow {
    pub name: String,
    pub document: String,
    pub updated_at: Timestamp,
    /// None: for the whole account.
    pub resource_arn: Option<String>,
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPolicyRow {
    pub name: String,
    pub kind: String,
    pub document: String,
    pub selection_criteria: Option<String>,
    pub updated_at: Timestamp,
}

/// A filter of a group. Neither name may contain a control character.
pub fn metric_filter_row_name(group: &LogGroupName, filter: &str) -> String {
    format!("{}{filter}", streams_of(group))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGroupRow {
    /// Random: one life of a group of this name.
    pub id: String,
    pub created_at: Timestamp,
    pub class: LogGroupClass,
    /// One of [`crate::model::retention::ALLOWED_DAYS`]. None: kept for ever.
    pub retention_days: Option<i32>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    #[serde(default)]
    pub deletion_protected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogGroupClass {
    #[serde(rename = "STANDARD")]
    Standard,
    #[serde(rename = "INFREQUENT_ACCESS")]
    InfrequentAccess,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStreamRow {
    pub id: String,
    /// The life of the group that it belongs to.
    pub group_id: String,
    pub created_at: Timestamp,
}

/// Neither name may contain a control character, so this cannot be two streams.
pub fn stream_row_name(group: &LogGroupName, stream: &LogStreamName) -> String {
    format!("{}{stream}", streams_of(group))
}

/// What the row names of a group's streams begin with.
pub fn streams_of(group: &LogGroupName) -> String {
    format!("{group}{SEPARATOR}")
}

/// The group and the stream in a row's name.
pub(crate) fn split_row_name(name: &str) -> Option<(&str, &str)> {
    name.split_once(SEPARATOR)
}

pub(crate) const SEPARATOR: char = '\u{1f}';
