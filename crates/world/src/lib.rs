//! A whole cluster in one thread, on virtual time, with faults.
//!
//! The world runs the real operations, controllers and agent sessions of ECS and the real core of every agent.
//! Simulated are only what they stand on: the network, the machines' disks and kernels, and the users. Everything
//! follows from a seed, so a failure is replayed by running its seed again.
//!
//! A run has two halves. In the first, faults happen: connections break with frames in flight, calls and answers
//! are lost, agents and whole machines and the control plane die and come back. In the second, no more faults
//! happen, and the world must come to rest: every task STOPPED, every machine empty, all capacity free again.
//! Containers wait for one another, are checked and start again (`founding`), and whatever an agent asks of
//! its machine is held against the machine's own truth (`runtime::promises`).
//! After every event the invariants are checked (`invariants`); what breaks one is a panic that names the seed.

//! # What it has been seen to find
//!
//! Each of these was put into the code by hand, one at a time, and was found within ten seeds:
//! - a container started before its task's acceptance is on disk; an acknowledgement before that;
//! - a container started although its dependency is not what it asks for (`HEALTHY`, `SUCCESS`);
//! - containers stopped before those that depend on them;
//! - a restart too early, after an ignored exit code, or under a number that was used; a stop of what
//!   would start again before it is on disk why;
//! - health kept over a restart, UNHEALTHY after one failure, checks that overlap.
//!
//! What it did not see: a manifest that stops tasks without verification (its own manifests are never
//! wrong), an old payload that has an effect (its connections keep their order), the result of a check of
//! an earlier run (checks end before the next run has one), and, within ten seeds, a restart that the
//! next agent does not recognise. Tests of the agent's core are there for these.

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
