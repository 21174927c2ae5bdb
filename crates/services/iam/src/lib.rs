//! IAM and STS: roles, policies, credentials.
//!
//! What always holds:
//! - A policy document that was accepted is returned as it was given, percent-encoded.
//! - A managed policy that is attached anywhere is not deleted, and a role that has anything
//!   attached is not deleted either; both sides of an attachment change in one transaction.
//! - A key that was handed out is durable. A session ends at its expiry or with its role.
//! - Secrets are found in memory and never reach a log.
//!
//! What it deliberately does not do: **evaluate policies**. They are checked for form, stored and
//! returned; who presents a valid signature may do everything (`docs/security.md`). There are no
//! users, groups, or federated identities yet: each of their operations says so.

#![forbid(unsafe_code)]

mod api;
mod credentials;
pub mod model;
pub mod nodes;
mod page_token;
mod service_linked;
pub mod tables;

pub use api::IamService;
pub use credentials::{
    AccessKey, Credentials, InstallationKeys, LONGEST_SESSION, MAX_SESSIONS_AT_ONCE, RoleSession,
    RoleSessionError, RoleSessionRequest, SHORTEST_SESSION, TASK_SESSION, find_role,
};
pub use nodes::{JoinError, JoinToken, NodeKey, Nodes};
pub use service_linked::{ECS_ROLE, NODE_ROLE};
