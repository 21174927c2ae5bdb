//! Which replicas go first when there are too many.
//!
//! In this order: those that do not run yet; those that do and are not known to be healthy, where a healthy one could be
//! taken instead and the service would lose it; then as the service's strategies say ([`Order`]). What
//! is equal goes by its id, so that the same question has the same answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gantry_arn::{ContainerInstanceId, TaskId};
use gantry_placement::{Resource, Strategy};

use super::replica::{Condition, Replica};

/// Who goes first as the strategies have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Whoever is in the availability zone that has most, and there on the fullest instance: also
    /// where no strategy is given.
    Spread,
    /// Whoever is in the zone that has most, and there where the most is left free.
    SpreadThenPack,
    /// Whoever is where the most is left free, so that instances become empty.
    Pack,
}

impl Order {
    pub fn of(strategies: &[Strategy]) -> Self {
        let pack = strategies
            .iter()
            .position(|it| matches!(it, Strategy::Binpack(_)));
        match pack {
            None => Self::Spread,
            Some(0) => Self::Pack,
            Some(_) => Self::SpreadThenPack,
        }
    }
}

/// The resource that the service's strategies pack.
pub fn packed(strategies: &[Strategy]) -> Option<Resource> {
    strategies.iter().find_map(|strategy| match strategy {
        Strategy::Binpack(resource) => Some(*resource),
        _ => None,
    })
}

/// The first `count` of `candidates`. `all` are those that are balanced.
pub fn in_order<'a>(
    all: &[&'a Replica],
    candidates: &[&'a Replica],
    count: usize,
    order: Order,
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
    let mut balance = Balance {
        packs: order == Order::SpreadThenPack,
        ..Balance::default()
    };
    for replica in all.iter().filter(|_| order != Order::Pack) {
        *balance.zones.entry(replica.zone.as_deref()).or_default() += 1;
        *balance.instances.entry(replica.instance).or_default() += 1;
    }
    let mut chosen = Vec::new();
    for mut rank in ranks.into_values() {
        let left = count - chosen.len();
        if order != Order::Pack {
            rank.sort_unstable_by_key(|replica| replica.id);
            balance.take(rank, left, &mut chosen);
        } else {
            // Where one has gone the most is left from then on: an instance is emptied before the next.
            let key = |it: &&Replica| (Reverse(it.left_free), it.instance, it.id);
            rank.sort_unstable_by_key(key);
            chosen.extend(rank.into_iter().take(left));
        }
    }
    chosen
}

/// How many replicas each zone and each instance has left.
#[derive(Default)]
struct Balance<'a> {
    /// Within a zone, by what is left free.
    packs: bool,
    zones: BTreeMap<Option<&'a str>, usize>,
    instances: BTreeMap<ContainerInstanceId, usize>,
}

/// The next that goes of an instance: the fullest one's is the least, or where the most is left free.
type Next = (
    Reverse<i64>,
    Option<ContainerInstanceId>,
    TaskId,
    ContainerInstanceId,
);

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
            let Some((_, (_, _, _, instance), zone)) = first.min() else {
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
        if self.packs {
            let instance = Some(replica.instance);
            return (
                Reverse(replica.left_free),
                instance,
                replica.id,
                replica.instance,
            );
        }
        let left = self.instances.get(&replica.instance).copied().unwrap_or(0);
        let left = i64::try_from(left).unwrap_or(i64::MAX);
        (Reverse(left), None, replica.id, replica.instance)
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
        order: Order,
    ) -> Vec<&'a Replica> {
        let mut there = all.to_vec();
        let mut left = candidates.to_vec();
        let mut chosen = Vec::new();
        while chosen.len() < count {
            let many = |is: &dyn Fn(&Replica) -> bool| there.iter().filter(|it| is(it)).count();
            let best = left.iter().copied().min_by_key(|it| {
                (
                    (it.is_up(), it.condition > Condition::Unhealthy),
                    Reverse(match order {
                        Order::Pack => 0,
                        _ => many(&|other| other.zone == it.zone),
                    }),
                    match order {
                        Order::Spread => {
                            (Reverse(many(&|other| other.instance == it.instance)), None)
                        }
                        _ => (Reverse(0), Some((Reverse(it.left_free), it.instance))),
                    },
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
            seen in prop::collection::vec((0..4_u8, 0..6_u8, any::<bool>(), any::<bool>()), 0..24),
            left_free in prop::collection::vec(0..3_i64, 6), count in 0..24_usize,
            order in prop_oneof![
                Just(Order::Spread),
                Just(Order::SpreadThenPack),
                Just(Order::Pack),
            ],
        ) {
            let conditions =
                [Condition::Pending, Condition::Unhealthy, Condition::Running, Condition::Healthy];
            let replicas: Vec<(Replica, bool)> = seen.into_iter().zip(0_u8..).map(|(one, n)| {
                let (condition, instance, is_primary, is_candidate) = one;
                let replica = Replica {
                    id: TaskId::from_random([n.wrapping_mul(97); 16]),
                    slot: u32::from(n),
                    is_primary,
                    condition: conditions[usize::from(condition)],
                    is_draining: false,
                    instance: ContainerInstanceId::from_random([instance; 16]),
                    // An instance is in one zone, but for the last, which was moved.
                    zone: Some(format!("zone-{}", if instance == 5 { n % 2 } else { instance % 3 })),
                    left_free: left_free[usize::from(instance)],
                };
                (replica, is_candidate)
            }).collect();
            let all: Vec<&Replica> = replicas.iter().map(|(it, _)| it).collect();
            let candidates: Vec<&Replica> =
                replicas.iter().filter(|(_, is)| *is).map(|(it, _)| it).collect();
            let ids = |of: Vec<&Replica>| of.iter().map(|it| it.id).collect::<Vec<_>>();
            prop_assert_eq!(
                ids(in_order(&all, &candidates, count, order)),
                ids(one_by_one(&all, &candidates, count, order))
            );
        }
    }
}
