//! A whole cluster in one thread, on virtual time, with faults.
//!
//! The world runs the real operations, controllers and agent sessions of ECS and the real core of every agent.
//! Simulated are only what they stand on: the network, the machines' disks and kernels, and the users. Everything
//! follows from a seed, so a failure is replayed by running its seed again.
//!
//! A run has two halves. In the first, faults happen: connections break with frames in flight, calls and answers
//! are lost, agents and whole machines and the control plane die and come back. In the second, no more faults
//! happen, and the world must come to rest: every task STOPPED, every machine empty, all capacity free again.
//! After every event the invariants are checked (`invariants`); what breaks one is a panic that names the seed.

#![forbid(unsafe_code)]

mod chance;
mod control;
mod event;
mod faults;
mod founding;
mod invariants;
mod machine;
mod network;
mod runtime;
mod schedule;
mod trace;
mod user;
mod world;

pub use faults::Faults;
pub use network::Losses;
pub use world::{Report, Settings, run};
