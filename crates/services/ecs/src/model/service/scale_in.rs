//! Which replicas go first when there are too many.
//!
//! In this order: those that do not run yet; those that do and are not known to be healthy, where a healthy one could be
//! taken instead and the service would lose it; with a spread (which is also what counts where no
//! strategy is given) those of the availability zone that has most, and there those of the fullest
//! instance; with a binpack those where the most is left free. What is equal goes by its id, so that the
//! same question has the same answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gantry_arn::{ContainerInstanceId, TaskId};

use super::replica::{Condition, Replica};

/// The first `count` of `candidates`. `all` are those that are balanced.
pub fn in_order<'a>(
    all: &[&'a Replica],
    candidates: &[&'a Replica],
    count: usize,
    spreads: bool,
) -> Vec<&'a Replica> {
    if count == 0 || candidates.is_empty() {
        return Vec::new();
    }
    // By what comes before all balance.
    let mut ranks: BTreeMap<(bool, bool), Vec<&'a Replica>> = BTreeMap::new();
    for replica in candidates {
        let runs = replica.condition > Condition::Unhealthy;
        ranks
            .entry((replica.is_up(), runs))
            .or_default()
            .push(replica);
    }
    let mut balance = Balance::default();
    for replica in all.iter().filter(|_| spreads) {
        *balance.zones.entry(replica.zone.as_deref()).or_default() += 1;
        *balance.instances.entry(replica.instance).or_default() += 1;
    }
    let mut chosen = Vec::new();
    for mut rank in ranks.into_values() {
        let left = count - chosen.len();
        if spreads {
            rank.sort_unstable_by_key(|replica| replica.id);
            balance.take(rank, left, &mut chosen);
        } else {
            rank.sort_unstable_by_key(|replica| (Reverse(replica.left_free), replica.id));
            chosen.extend(rank.into_iter().take(left));
        }
    }
    chosen
}

/// How many replicas each zone and each instance has left.
#[derive(Default)]
struct Balance<'a> {
    zones: BTreeMap<Option<&'a str>, usize>,
    instances: BTreeMap<ContainerInstanceId, usize>,
}

/// The next that goes of an instance: the fullest one's is the least.
type Next = (Reverse<usize>, TaskId, ContainerInstanceId);

impl<'a> Balance<'a> {
    /// Chooses up to `count` of a rank, which is in the order of its ids. A zone's instances stand in
    /// the order in which they give one up, so that the cost of a choice does not grow with how many
    /// there are to choose from.
    fn take(&mut self, rank: Vec<&'a Replica>, count: usize, chosen: &mut Vec<&'a Replica>) {
        let mut waiting: BTreeMap<_, Vec<&'a Replica>> = BTreeMap::new();
        // The least id is the last one.
        for replica in rank.into_iter().rev() {
            let place = (replica.zone.as_deref(), replica.instance);
            waiting.entry(place).or_default().push(replica);
        }
        let mut zones: BTreeMap<Option<&'a str>, BTreeSet<Next>> = BTreeMap::new();
        for ((zone, _), replicas) in &waiting {
            let next = replicas.last().map(|replica| self.next(replica));
            zones.entry(*zone).or_default().extend(next);
        }
        for _ in 0..count {
            let first = zones.iter().filter_map(|(zone, all)| {
                let left = self.zones.get(zone).copied().unwrap_or(0);
                Some((Reverse(left), *all.first()?, *zone))
            });
            let Some((_, (_, _, instance), zone)) = first.min() else {
                return;
            };
            // An instance stands in more than one zone only if it was moved.
            for (zone, all) in &mut zones {
                let last = waiting.get(&(*zone, instance)).and_then(|it| it.last());
                if let Some(next) = last.map(|replica| self.next(replica)) {
                    all.remove(&next);
                }
            }
            let place = waiting.get_mut(&(zone, instance));
            chosen.extend(place.and_then(Vec::pop));
            let (zone, count) = (self.zones.get_mut(&zone), self.instances.get_mut(&instance));
            for left in [zone, count].into_iter().flatten() {
                *left = left.saturating_sub(1);
            }
            for (zone, all) in &mut zones {
                let last = waiting.get(&(*zone, instance)).and_then(|it| it.last());
                all.extend(last.map(|replica| self.next(replica)));
            }
        }
    }

    fn next(&self, replica: &Replica) -> Next {
        let left = self.instances.get(&replica.instance).copied().unwrap_or(0);
        (Reverse(left), replica.id, replica.instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What [`in_order`] means: the best of all that are left, looked for anew for each.
    fn one_by_one<'a>(
        all: &[&'a Replica],
        candidates: &[&'a Replica],
        count: usize,
        spreads: bool,
    ) -> Vec<&'a Replica> {
        let mut there = all.to_vec();
        let mut left = candidates.to_vec();
        let mut chosen = Vec::new();
        while chosen.len() < count {
            let many = |is: &dyn Fn(&Replica) -> bool| match spreads {
                true => there.iter().filter(|it| is(it)).count(),
                false => 0,
            };
            let best = left.iter().copied().min_by_key(|it| {
                (
                    (it.is_up(), it.condition > Condition::Unhealthy),
                    Reverse(many(&|other| other.zone == it.zone)),
                    Reverse(many(&|other| other.instance == it.instance)),
                    Reverse(if spreads { 0 } else { it.left_free }),
                    it.id,
                )
            });
            let Some(best) = best else { break };
            there.retain(|it| it.id != best.id);
            left.retain(|it| it.id != best.id);
            chosen.push(best);
        }
        chosen
    }

    proptest! {
        #[test]
        fn it_is_what_choosing_one_by_one_gives(
            seen in prop::collection::vec((0..4_u8, 0..6_u8, any::<bool>(), 0..3_i64, any::<bool>()), 0..24),
            count in 0..24_usize, spreads in any::<bool>(),
        ) {
            let conditions =
                [Condition::Pending, Condition::Unhealthy, Condition::Running, Condition::Healthy];
            let replicas: Vec<(Replica, bool)> = seen.into_iter().zip(0_u8..).map(|(one, n)| {
                let (condition, instance, is_primary, left_free, is_candidate) = one;
                let replica = Replica {
                    id: TaskId::from_random([n.wrapping_mul(97); 16]),
                    slot: u32::from(n),
                    is_primary,
                    condition: conditions[usize::from(condition)],
                    is_draining: false,
                    instance: ContainerInstanceId::from_random([instance; 16]),
                    // An instance is in one zone, but for the last, which was moved.
                    zone: Some(format!("zone-{}", if instance == 5 { n % 2 } else { instance % 3 })),
                    left_free,
                };
                (replica, is_candidate)
            }).collect();
            let all: Vec<&Replica> = replicas.iter().map(|(it, _)| it).collect();
            let candidates: Vec<&Replica> =
                replicas.iter().filter(|(_, is)| *is).map(|(it, _)| it).collect();
            let ids = |of: Vec<&Replica>| of.iter().map(|it| it.id).collect::<Vec<_>>();
            prop_assert_eq!(
                ids(in_order(&all, &candidates, count, spreads)),
                ids(one_by_one(&all, &candidates, count, spreads))
            );
        }
    }
}
