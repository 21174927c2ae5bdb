//! Which replicas go first when there are too many.
//!
//! In this order: those that do not run yet; those that do and are not known to be healthy, where a healthy one could be
//! taken instead and the service would lose it; with a spread (which is also what counts where no
//! strategy is given) those of the availability zone that has most, and there those of the fullest
//! instance; with a binpack those where the most is left free. What is equal goes by its id, so that the
//! same question has the same answer.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::replica::{Condition, Replica};

/// The first `count` of `candidates`. `all` are those that are balanced.
pub fn in_order<'a>(
    all: &[&'a Replica],
    candidates: &[&'a Replica],
    count: usize,
    spreads: bool,
) -> Vec<&'a Replica> {
    let mut zones: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    let mut instances: BTreeMap<_, usize> = BTreeMap::new();
    for replica in all {
        *zones.entry(replica.zone.as_deref()).or_default() += 1;
        *instances.entry(replica.instance).or_default() += 1;
    }
    let mut left = candidates.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let runs = |replica: &Replica| replica.condition > Condition::Unhealthy;
        let key = |replica: &Replica| {
            let zone = zones.get(&replica.zone.as_deref()).copied().unwrap_or(0);
            let instance = instances.get(&replica.instance).copied().unwrap_or(0);
            let (zone, instance) = if spreads { (zone, instance) } else { (0, 0) };
            let free = if spreads { 0 } else { replica.left_free };
            (
                (replica.is_up(), runs(replica)),
                Reverse(zone),
                Reverse(instance),
                Reverse(free),
                replica.id,
            )
        };
        let Some(at) = (0..left.len()).min_by_key(|at| left.get(*at).map(|replica| key(replica)))
        else {
            break;
        };
        let replica = left.swap_remove(at);
        if let Some(zone) = zones.get_mut(&replica.zone.as_deref()) {
            *zone = zone.saturating_sub(1);
        }
        if let Some(instance) = instances.get_mut(&replica.instance) {
            *instance = instance.saturating_sub(1);
        }
        chosen.push(replica);
    }
    chosen
}
