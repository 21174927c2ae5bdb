//! The control plane's side of the agent protocol: one session for each connected container instance.
//!
//! What always holds: the core ([`AcsSession`]) does no I/O; what an agent is told follows from the
//! rows ([`assignment`]), so a new session tells everything that matters again. Heartbeats never
//! become rows. A later session fences an earlier one by the number in its [`AcsSessionRow`].
//! What it leaves to others: what the agent reports comes through the ECS API, like any call; roles'
//! credentials come from a [`RoleCredentials`] that is handed in.
//!
//! [`AcsSessionRow`]: crate::tables::AcsSessionRow

pub mod assignment;
pub mod connection;
mod health;
pub mod image;
mod instance;
mod instance_health;
mod members;
pub mod payload;
pub mod permissions;
mod roles;
pub mod session;
pub mod shell;
pub mod telemetry;

pub(crate) use instance_health::health_status;

pub use assignment::{AssignedTask, Assignments};
pub use connection::{AgentFacts, Connections, forget_connections};
pub use health::keep_health;
pub use instance::ConnectingInstance;
pub use permissions::NodePermissions;
pub use roles::RoleRefusal;
pub use session::{AcsSession, Identity, Input, Output, Timer};
pub use shell::{AcsRoute, NoRoleCredentials, RoleCredentials, TcsRoute};
pub use telemetry::{ContainerKey, ContainerStats, ContainerUsage, Telemetry};
