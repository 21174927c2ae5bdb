//! Clusters, task definitions, tasks, services and container instances.
//!
//! Invariants:
//! - Every operation is one transaction on the store: validate, read a snapshot, commit with what
//!   was read as its condition, answer. A conflict is retried from a new snapshot, a bounded number
//!   of times.
//! - A task's spec, desired phase and report are separate rows with one writer each
//!   ([`tables`]); `lastStatus` is derived from them and never goes back.
//! - A container instance is never oversubscribed: every placement writes its allocation row.
//! - A task definition keeps every member of the model: the generated type itself is stored.
//! - Revisions of a family only grow and are never used again.
//! - A service's counts are counted from its tasks, never stored; its controller is pure, and what it
//!   decides is in [`model::service`].
//!
//! Deliberately absent: a scheduler thread (EC2 tasks are placed inside RunTask's own transaction),
//! capacity providers, FARGATE and awsvpc (refused by name until they
//! exist), and authorization (which is IAM's). No operation needs an async runtime: futures only
//! wait for the store and for each other.

#![forbid(unsafe_code)]

pub mod acs;
mod api;
pub mod controllers;
pub mod explain;
pub mod history;
pub mod model;
mod service;
pub mod tables;

pub use service::{EcsOptions, EcsService};
