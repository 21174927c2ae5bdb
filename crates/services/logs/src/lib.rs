//! CloudWatch Logs: groups, streams, events.

pub mod model;
