//! Where a task goes: constraints, strategies, fit. Pure: no I/O, no clock, no randomness.
//!
//! What always holds: a plan never takes more of a container instance than is free on it; the same
//! question with the same seed gets the same answer; a task that finds no place is answered with
//! one [`Rejection`] for each container instance that was looked at.
//!
//! The order is AWS's: what cannot be used at all (status, agent), then resources and ports, then
//! attributes and constraints, and among what is left the strategies choose, each breaking the ties
//! of the one before it.
//!
//! Left to others: the cluster query language of `memberOf` (not built), and making a plan true:
//! the caller commits it together with the allocation of every instance it touches.

mod candidate;
mod fit;
mod plan;
mod strategy;

pub use candidate::{Attribute, Candidate, Capacity, Demand, Eligibility};
pub use fit::{Rejection, Unfit};
pub use plan::{Constraint, Plan, Request, place};
pub use strategy::{Resource, Strategy};
