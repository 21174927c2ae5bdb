//! A whole cluster in one thread, on virtual time, with faults.
//!
//! The world runs the real operations, controllers and agent sessions of ECS and the real core of every agent.
//! Simulated are only what they stand on: the network, the machines' disks and kernels, and the users. Everything
//! follows from a seed, so a failure is replayed by running its seed again.
//!
//! A run has two halves. In the first, faults happen: connections break with frames in flight, calls and answers
//! are lost, agents and whole machines and the control plane die and come back. In the second, no more faults
//! happen, and the world must come to rest. There are two kinds of it ([`Subject`]):
//! - of *tasks*: every task STOPPED in the end, every machine empty, all capacity free again. Containers wait for
//!   one another, are checked and start again (`founding`);
//! - of *services* (`services`): users create, change, stop and delete them, protect tasks and drain instances;
//!   containers behave as their task definitions say (`runtime::behaviour`), well or broken; health is carried to the
//!   control plane as telemetry sockets do. In the end each service is as it was asked for, and for more than an
//!   hour nothing is written about any.
//!
//! Whatever an agent asks of its machine is held against the machine's own truth (`runtime::promises`).
//! After every event the invariants are checked (`invariants`, `services::laws`); what breaks one is a panic that
//! names the seed. A test that wants to say itself what happens has a [`stage::Stage`]: the same world and the same
//! laws, without chance. `tests/services` plays every rule of `docs/services.md` there.
//!
//! # What it has been seen to find
//!
//! Each of these was put into the code by hand, one at a time, and was found. In the first seed where
//! nothing else is said.
//!
//! Of the operations and controllers:
//! - an instance's allocation is not written, or shares are released when a task is told to stop: by the
//!   missing share, and without that check by the tasks that are there; shares that are never released,
//!   in placements or in what is read of an instance: by a task that finds no place where there is room;
//! - a client token that is ignored, or forgotten early; ids of tasks or of containers that come again;
//! - a stop that is answered and not written, or that replaces the reason for which a task ends already;
//! - a status that goes back, a report that is acknowledged and not written, a version that does not grow;
//! - stopped tasks that are removed early; a listing that disagrees with the description.
//!
//! Of the sessions of agents:
//! - a stop that is sent as a run, or not at all; a new task that is not sent (third seed); a task that
//!   leaves the view when it runs; every candidate of a verification that is to stop;
//! - a later session that does not end the earlier one, has its number, or is ended with it.
//!
//! Of the agent's core:
//! - STOPPED that overtakes RUNNING, two reports of a task at a time, RUNNING left out of what ended early
//!   (fifth seed);
//! - a manifest that stops tasks without verification, or a verification that stops all that was offered;
//! - an old payload that has an effect; a task that is taken again after it was forgotten (second seed).
//!
//! Of containers on a machine, within ten seeds:
//! - a container started before its task's acceptance is on disk; an acknowledgement before that;
//! - a container started although its dependency is not what it asks for (`HEALTHY`, `SUCCESS`);
//! - containers stopped before those that depend on them;
//! - a restart too early, after an ignored exit code, or under a number that was used; a stop of what
//!   would start again before it is on disk why;
//! - health kept over a restart, UNHEALTHY after one failure, checks that overlap.
//!
//! What it does not see: an exit code that a later report replaces (its agents never tell two; a test of
//! the merging of reports is there for it), the result of a check of an earlier run (checks end before
//! the next run has one), and, within ten seeds, a restart that the next agent does not recognise. Nothing is
//! deregistered. The users of services that act by chance have only those of replicas that roll: daemons, BLUE_GREEN,
//! the rebalancing of zones and tasks beside services are played by the scenarios alone, under the same laws.
//!
//! # What it has found
//!
//! - A blue/green deployment that was asked for while several revisions ran, of which none had been completed, waited in
//!   RECONCILE_SERVICE for ever: for a blue that had failed.
//! - In the world itself: each repetition of each task's health that was lost was repeated on its own, eightfold every
//!   twenty seconds for eight tasks.

#![forbid(unsafe_code)]

mod chance;
mod control;
mod event;
mod faults;
mod founding;
mod invariants;
mod machine;
mod network;
pub mod rehearsal;
mod runtime;
mod schedule;
mod services;
pub mod stage;
mod trace;
mod user;
mod world;

pub use faults::Faults;
pub use network::Losses;
pub use runtime::Behaviour;
pub use world::{Report, Settings, Subject, run};
