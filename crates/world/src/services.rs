//! Services in the world: who asks for them, and what must hold of them.
//!
//! - [`mirror`]: the rows of services and their tasks, as the commits tell, one commit at a time.
//! - [`replicas`]: how a service's tasks are doing, found by the words of the documentation alone.
//! - [`shape`]: what a service shall have: how many tasks, of which deployments, within which bounds.
//! - [`laws`]: what must hold of every commit: nothing beyond the maximum is started, nothing that the
//!   minimum needs is stopped, slots, protection, pinned images, the circuit breaker, the stages of blue/green,
//!   one daemon on an instance, balanced zones.
//! - [`shown`]: what DescribeServices says, held against ListTasks.
//! - [`users`]: who creates, changes, stops and deletes services, and drains instances.

mod laws;
mod mirror;
mod replicas;
mod shape;
mod shown;
mod users;

pub use laws::ServiceLaws;
pub use shown::{Shown, describe, list};
pub use users::{ServiceUsers, set_state};
