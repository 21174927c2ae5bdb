//! Where a task goes: constraints, strategies, fit. Pure: no I/O, no clock, no randomness.
//!
//! What always holds: a plan never takes more of a container instance than is free on it; the same
//! question with the same seed on the same instances gets the same answer; a task that finds no
//! place is answered with one [`Rejection`] for each container instance that was looked at; and
//! finding a place does not take longer because there are more instances ([`InstanceIndex`]).
//!
//! The order is AWS's: what cannot be used at all (status, agent), then resources and ports, then
//! attributes and constraints, and among what is left the strategies choose, each breaking the ties
//! of the one before it. `memberOf` speaks the cluster query language ([`query`]).
//!
//! Left to others: making a plan true. The caller commits it together with the allocation of every
//! instance that it touches, and tells the index what came of it.

#![forbid(unsafe_code)]

mod candidate;
mod fit;
mod index;
mod order;
mod plan;
pub mod query;
mod strategy;

pub use candidate::{Attribute, Candidate, Capacity, Demand, Eligibility, LaunchType};
pub use fit::{Rejection, Unfit};
pub use index::InstanceIndex;
pub use plan::{Constraint, Plan, Request, place};
pub use strategy::{Resource, Strategy};
