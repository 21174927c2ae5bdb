//! What is asked and what is answered: a container instance for each task, or the reasons against.

use gantry_arn::ContainerInstanceId;

use crate::candidate::{Candidate, Demand};
use crate::fit::Rejection;
use crate::index::InstanceIndex;
use crate::query::Expression;
use crate::strategy::Strategy;

#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Every task of the group on an instance of its own.
    DistinctInstance,
    /// Only on instances that the expression means.
    MemberOf(Expression),
}

/// What to place: `count` equal tasks.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub demand: &'a Demand,
    pub count: u32,
    /// All of them hold for every task.
    pub constraints: &'a [Constraint],
    /// Empty means spread over availability zones, then over instances.
    pub strategies: &'a [Strategy],
    /// Decides `random`; drawn by the caller.
    pub seed: u64,
}

/// Where the tasks go. `unplaced` tasks found no instance, for the reasons in `rejections`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub placements: Vec<ContainerInstanceId>,
    pub unplaced: u32,
    /// One for each instance of the launch type, in the order of their ids. Empty if every task
    /// was placed.
    pub rejections: Vec<Rejection>,
}

/// Places the tasks one after the other, each seeing what those before it took. Whoever places more
/// than once keeps an [`InstanceIndex`] instead.
pub fn place(candidates: Vec<Candidate>, request: &Request<'_>) -> Plan {
    let mut index = InstanceIndex::new(request.seed);
    for candidate in candidates {
        index.put(candidate);
    }
    index.place(request)
}
