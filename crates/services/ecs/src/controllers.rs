//! What happens by itself: reconcilers, each a pure function of a snapshot, the time and a key.
//!
//! There is none that releases capacity. An allocation entry stops counting when the task's STOPPED
//! report is durable, whoever looks; the next placement on the instance sweeps it. So a release
//! can neither be late nor be forgotten, and reports do not queue up for one contended row.

mod client_tokens;
mod deregistered_instances;
mod service_history;
mod services;
mod state_change_retention;
mod stopped_tasks;
mod task_definition_deletion;

pub use client_tokens::ClientTokenExpiry;
pub use deregistered_instances::DeregisteredInstances;
pub use service_history::{SERVICE_DEPLOYMENT_RETENTION, SERVICE_DEPLOYMENTS_MAX, ServiceHistory};
pub use services::{INACTIVE_SERVICE_RETENTION, Services};
pub use state_change_retention::{STATE_CHANGE_RETENTION, StateChangeRetention};
pub use stopped_tasks::StoppedTaskRetention;
pub use task_definition_deletion::TaskDefinitionDeletion;

use std::time::Duration;

/// How long a stopped task is shown. AWS says: at least an hour.
pub const STOPPED_TASK_RETENTION: Duration = Duration::from_secs(60 * 60);

/// How long a deregistered container instance is shown as INACTIVE.
pub const INACTIVE_INSTANCE_RETENTION: Duration = Duration::from_secs(60 * 60);

/// How long the same client token means the same request.
pub const CLIENT_TOKEN_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
