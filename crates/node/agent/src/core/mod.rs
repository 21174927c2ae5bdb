//! The agent without its hands: everything it decides, and no I/O.
//!
//! What always holds: [`AgentCore::step`] is a function of its state, the time and one input; inputs
//! and outputs are plain data ([`step`]). So the shell pumps it on a machine, and the world pumps it
//! on virtual time.
//! Whoever pumps it keeps these promises: `Persist` outputs are written in order, and `Persisted`
//! means that this and every earlier one is on disk; frames come only from the socket that the last
//! `Connect` opened; runtime events of one container come in order.
//! What it leaves to others: sockets, HTTP, disks, kernels and clocks.

mod agent;
mod chance;
pub mod journal;
mod link;
pub mod plan;
mod report;
mod status;
pub mod step;
mod task;

pub use agent::{AgentCore, Identity};
pub use journal::{Journal, JournalRecord};
pub use status::{ContainerStatus, HealthStatus, TaskStatus};
pub use step::{Input, Output};
pub use task::TaskMachine;
pub use task::health::HealthState;
