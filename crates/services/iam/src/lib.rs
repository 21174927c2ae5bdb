//! IAM and STS: roles, policies, credentials.
//!
//! What always holds:
//! - A policy document that was accepted is returned as it was given, percent-encoded.
//! - A managed policy that is attached anywhere is not deleted, and a user, group or role that
//!   has anything attached is not deleted either; both sides of an attachment change in one transaction.
//! - A key that was handed out is durable. A session ends at its expiry or with its role or
//!   user; a user's key ends with the request that deactivates or deletes it.
//! - Secrets are found in memory and never reach a log.
//! - Whoever becomes a role was let in by that role's trust policy: by a key, by a token or by an assertion of an identity
//!   provider. Only the root user, who may write the policy, and tasks, whom ECS takes as they are named, are not held to it.
//! - What an assertion of SAML claims is read from the text that was signed, and from no other.
//!
//! What it deliberately does not do: **evaluate other policies**. They are checked for form, stored and
//! returned; who presents a valid signature may do everything (`docs/security.md`).

#![forbid(unsafe_code)]

mod api;
mod credentials;
mod federation;
#[doc(hidden)]
pub mod fuzzing;
pub mod model;
pub mod nodes;
mod page_token;
mod service_linked;
mod sessions;
pub mod tables;

pub use api::IamService;
pub use credentials::{
    AccessKey, Credentials, InstallationKeys, LONGEST_SESSION, MAX_SESSIONS_AT_ONCE, RoleSession,
    RoleSessionError, RoleSessionRequest, SHORTEST_SESSION, TASK_SESSION, find_role,
};
pub use federation::{Fetch, FetchError, HttpsFetch};
pub use nodes::{JoinError, JoinToken, NodeKey, Nodes};
pub use service_linked::{ECS_ROLE, NODE_ROLE};
