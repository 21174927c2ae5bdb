//! CloudWatch Logs: groups, streams, events.
//!
//! What always holds:
//! - An event that was acknowledged is durable, and is read back exactly once, in the order of
//!   time, by paging in either direction.
//! - A batch that an agent sends again is recognised by its place in the agent's spool and stored
//!   once: [`model::spool`]. The mark is written with the events, so a crash cannot part them.
//! - Putting events writes no row: rows are groups and streams, events and all that changes with
//!   them are in the archive.
//! - What is expired or deleted is not seen by any read, whether or not its bytes are gone yet.
//!
//! What it deliberately does not do yet: filter patterns, Insights queries, metric filters,
//! subscriptions, export, encryption with KMS. Each answers with an error that names it.

#![forbid(unsafe_code)]

mod api;
pub mod events;
#[doc(hidden)]
pub mod fuzzing;
mod live;
pub mod model;
mod page_token;
pub mod tables;

pub use api::{Kept, LogsService};
