//! Which deployments of a service have all their replicas, and how each is planned beside the others.
//!
//! A *side* is a deployment that has, or is brought to, the full desired count. A rolling deployment has
//! one: the PRIMARY one, for which all others leave. A blue/green deployment has blue alone, then blue and
//! green, then green alone. A strategy is nothing else than this choice: each side is planned by
//! [`super::rolling`], which knows nothing of the others.
//!
//! What always holds:
//! - A replica is of one side: its own, or the last one, which it leaves for.
//! - While there are two sides, nothing of the first is stopped for the second's sake. What the first has up
//!   counts toward the minimum of both, so the second can make room for itself.
//! - Each side is told all the room that is left under the upper bound, so whoever carries this out starts
//!   tasks of one side at a time, the first side first.

use super::replica::Replica;
use super::rolling::Bounds;
use super::stages::{Course, Stage};

/// What percentage of the desired count blue and green may have together, at least.
pub const BOTH_SIDES_PERCENT: u32 = 200;

/// The deployments that stay, the one that has served longest first. Everything else leaves.
pub fn staying<'a>(course: Option<&'a Course>, primary: &'a str) -> Vec<&'a str> {
    let Some(course) = course.filter(|course| !course.given_up) else {
        return vec![primary];
    };
    let blue = course.blue.as_deref();
    let (blue, green) = match course.stage {
        stage if stage < Stage::ScaleUp => (blue, None),
        Stage::CleanUp => (None, Some(primary)),
        _ => (blue, Some(primary)),
    };
    blue.into_iter().chain(green).collect()
}

/// One side, with the replicas that it is planned with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    pub deployment: String,
    pub bounds: Bounds,
    pub replicas: Vec<Replica>,
}

/// Deals the replicas, each with the deployment that it is of, out to the sides.
pub fn deal(staying: &[&str], bounds: &Bounds, all: &[(String, Replica)]) -> Vec<Side> {
    let room = bounds.upper.saturating_sub(all.len());
    let last = staying.len().saturating_sub(1);
    let mut sides: Vec<Side> = Vec::new();
    for (at, side) in staying.iter().enumerate() {
        let is_mine = |of: &str| match staying.iter().position(|it| *it == of) {
            Some(owner) => owner == at,
            None => at == last,
        };
        let mine = all.iter().filter(|(of, _)| is_mine(of));
        let replicas: Vec<Replica> = mine
            .map(|(of, replica)| Replica {
                is_primary: of == side,
                ..replica.clone()
            })
            .collect();
        let before = sides.iter().flat_map(|side| &side.replicas);
        let up_before = before.filter(|replica| replica.is_up()).count();
        sides.push(Side {
            deployment: (*side).to_owned(),
            bounds: Bounds {
                desired: bounds.desired,
                lower: bounds.lower.saturating_sub(up_before),
                upper: match staying.len() {
                    1 => bounds.upper,
                    _ => replicas.len() + room,
                },
            },
            replicas,
        });
    }
    sides
}

#[cfg(test)]
#[path = "sides/tests.rs"]
mod tests;
