//! The plan: a container instance for each task that was asked for, or the reasons against.

use gantry_arn::ContainerInstanceId;

use crate::candidate::{Candidate, Demand};
use crate::fit::{Rejection, unfit};
use crate::strategy::{Strategy, choose, mix};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// Every task of the group on an instance of its own.
    DistinctInstance,
}

/// What to place: `count` equal tasks.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub demand: &'a Demand,
    pub count: u32,
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
    /// One for each instance, in the order of `candidates`. Empty if every task was placed.
    pub rejections: Vec<Rejection>,
}

/// Places the tasks one after the other, each seeing what those before it took.
pub fn place(mut candidates: Vec<Candidate>, request: &Request<'_>) -> Plan {
    let default_strategies = [
        Strategy::SpreadByAttribute("ecs.availability-zone".to_owned()),
        Strategy::SpreadByInstance,
    ];
    let strategies = match request.strategies {
        [] => &default_strategies[..],
        given => given,
    };
    let distinct = request.constraints.contains(&Constraint::DistinctInstance);
    let demand = request.demand;

    let mut plan = Plan::default();
    for n in 0..request.count {
        let fits: Vec<usize> = (0..candidates.len())
            .filter(|&i| unfit(&candidates[i], demand, distinct).is_empty())
            .collect();
        let seed = mix(request.seed.wrapping_add(u64::from(n)));
        let Some(best) = choose(&candidates, &fits, &demand.group, strategies, seed) else {
            // Equal tasks: what does not fit now will not fit for the rest of them either.
            plan.unplaced = request.count - n;
            break;
        };
        candidates[best].take(demand);
        plan.placements.push(candidates[best].id);
    }
    if plan.unplaced > 0 {
        let rejection = |candidate: &Candidate| Rejection {
            instance: candidate.id,
            reasons: unfit(candidate, demand, distinct),
        };
        plan.rejections = candidates.iter().map(rejection).collect();
    }
    plan
}
