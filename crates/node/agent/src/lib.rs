//! Supervises tasks: the ECS agent protocol and the task lifecycle.
//!
//! What always holds: what this agent acknowledged is on disk; a task that runs is not disturbed by
//! the end of the agent or of its connection; statuses only move forward.
//! What it leaves to others: which task runs where (the control plane), containers (`gantry_runtime`).

#![forbid(unsafe_code)]

pub mod core;
pub mod endpoints;
pub mod shell;

pub use shell::{Agent, AgentConfig, AgentError, MachineResources, Shutdown};
