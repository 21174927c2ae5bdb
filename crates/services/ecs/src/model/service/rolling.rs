//! What a service of replicas starts and stops next: its count, its deployments and what is unhealthy,
//! all by one rule.
//!
//! What always holds:
//! - Nothing is started beyond [`Bounds::upper`]: tasks that are RUNNING or PENDING count.
//! - No stop that replaces a healthy task leaves fewer than [`Bounds::lower`] that are up.
//! - A task that is replaced stays until its replacement is healthy, where the upper bound and the
//!   cluster have room for both; otherwise it is stopped first, as far as the lower bound allows.
//! - On what it leads to, it plans nothing more until something about a task changes.
//!
//! Left to others: finding a place for what is started (the caller tells [`stops`] how many found
//! one), and starts that are put off ([`super::failures`]).

use std::collections::BTreeSet;

use gantry_arn::TaskId;

use super::replica::{Condition, Replica};
use super::scale_in::{Order, in_order};

/// How many tasks a service shall have, and how far a deployment may go from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub desired: usize,
    pub lower: usize,
    pub upper: usize,
}

impl Bounds {
    /// The minimum is rounded up and the maximum down, as at AWS.
    pub fn of(desired: u32, minimum_healthy_percent: u32, maximum_percent: u32) -> Self {
        let (desired, minimum, maximum) = (
            u64::from(desired),
            u64::from(minimum_healthy_percent),
            u64::from(maximum_percent),
        );
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            desired: count(desired),
            lower: count((desired * minimum).div_ceil(100)),
            upper: count(desired * maximum / 100),
        }
    }
}

/// Why a replica is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The service has more than it shall have, or a newer deployment takes over.
    Scaling,
    Unhealthy,
    Draining,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub task: TaskId,
    pub why: Why,
}

/// The slots in which the PRIMARY deployment lacks a replica.
pub fn lacking(bounds: &Bounds, replicas: &[Replica]) -> Vec<u32> {
    let count = bounds.desired.saturating_sub(staying(replicas).count());
    if count == 0 {
        return Vec::new();
    }
    let taken: BTreeSet<u32> = staying(replicas).map(|replica| replica.slot).collect();
    (0..)
        .filter(|slot| !taken.contains(slot))
        .take(count)
        .collect()
}

/// How many more replicas the upper bound allows.
pub fn room(bounds: &Bounds, replicas: &[Replica]) -> usize {
    bounds.upper.saturating_sub(replicas.len())
}

/// How many of those that stay are too many.
pub fn excess(bounds: &Bounds, replicas: &[Replica]) -> usize {
    staying(replicas).count().saturating_sub(bounds.desired)
}

/// What is to be stopped, when `put_off` of the slots that lack a replica cannot be filled because
/// there is no room for it: neither under the upper bound nor, maybe, in the cluster.
pub fn stops(
    bounds: &Bounds,
    replicas: &[Replica],
    put_off: usize,
    protected: &BTreeSet<TaskId>,
    order: Order,
) -> Vec<Stop> {
    let free: Vec<&Replica> = replicas
        .iter()
        .filter(|replica| !protected.contains(&replica.id))
        .collect();
    let mut stops = Vec::new();
    let mut stop = |replica: &Replica| {
        let why = match replica {
            replica if replica.condition == Condition::Unhealthy => Why::Unhealthy,
            replica if replica.is_primary && replica.is_draining => Why::Draining,
            _ => Why::Scaling,
        };
        stops.push(Stop {
            task: replica.id,
            why,
        });
    };

    let candidates: Vec<&Replica> = free.iter().copied().filter(|r| r.stays()).collect();
    let all: Vec<&Replica> = staying(replicas).collect();
    let mut going = in_order(&all, &candidates, excess(bounds, replicas), order);
    // A protected task that does not serve yet may be one too many: those that serve stay until it does.
    let serving = replicas.iter().filter(|replica| replica.is_up()).count();
    let mut spare = serving.saturating_sub(bounds.lower);
    going.retain(|replica| {
        let goes = !replica.is_up() || spare > 0;
        spare -= usize::from(goes && replica.is_up());
        goes
    });
    let going_up = going.iter().filter(|replica| replica.is_up()).count();
    going.into_iter().for_each(&mut stop);

    // What serves nobody goes at once if it leaves anyway.
    let mut put_off = put_off;
    for replica in free.iter().filter(|r| r.leaves() && !r.is_up()) {
        stop(replica);
        put_off = put_off.saturating_sub(1);
    }

    // An unhealthy one goes when its replacement is healthy, or first if there is no room for both.
    let healthy = staying(replicas)
        .filter(|r| r.condition == Condition::Healthy)
        .count();
    for replica in free
        .iter()
        .filter(|r| !r.leaves() && r.condition == Condition::Unhealthy)
    {
        if healthy >= bounds.desired {
            stop(replica);
        } else if put_off > 0 {
            stop(replica);
            put_off -= 1;
        }
    }

    let up = serving.saturating_sub(going_up);
    let replaced = up.saturating_sub(bounds.desired);
    let first = put_off.min(up.saturating_sub(bounds.lower));
    let leaving: Vec<&Replica> = free
        .iter()
        .copied()
        .filter(|r| r.leaves() && r.is_up())
        .collect();
    in_order(&leaving, &leaving, replaced.max(first), order)
        .into_iter()
        .for_each(&mut stop);
    stops
}

/// All that was asked for is there and healthy, and nothing else is.
pub fn is_steady(bounds: &Bounds, replicas: &[Replica]) -> bool {
    replicas.len() == bounds.desired
        && replicas
            .iter()
            .all(|replica| replica.stays() && replica.condition == Condition::Healthy)
}

fn staying(replicas: &[Replica]) -> impl Iterator<Item = &Replica> {
    replicas.iter().filter(|replica| replica.stays())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_arn::ContainerInstanceId;
    use proptest::prelude::*;

    fn replica(n: u8, is_primary: bool, condition: Condition, is_draining: bool) -> Replica {
        Replica {
            id: TaskId::from_random([n; 16]),
            slot: u32::from(n),
            is_primary,
            condition,
            is_draining,
            instance: ContainerInstanceId::from_random([n % 3; 16]),
            zone: Some(format!("zone-{}", n % 2)),
            left_free: 0,
        }
    }

    fn condition() -> impl Strategy<Value = Condition> {
        prop_oneof![
            Just(Condition::Pending),
            Just(Condition::Unhealthy),
            Just(Condition::Running),
            Just(Condition::Healthy),
        ]
    }

    fn replicas() -> impl Strategy<Value = Vec<Replica>> {
        prop::collection::vec((any::<bool>(), condition(), any::<bool>()), 0..16).prop_map(|all| {
            let numbered = all.into_iter().zip(0_u8..);
            numbered
                .map(|((is_primary, condition, is_draining), n)| {
                    replica(n, is_primary, condition, is_draining)
                })
                .collect()
        })
    }

    #[test]
    fn the_minimum_is_rounded_up_and_the_maximum_down() {
        let bounds = Bounds::of(3, 50, 150);
        assert_eq!((bounds.lower, bounds.upper), (2, 4));
        let bounds = Bounds::of(0, 100, 200);
        assert_eq!((bounds.lower, bounds.upper), (0, 0));
    }

    #[test]
    fn a_replacement_takes_the_slot_that_is_free() {
        let bounds = Bounds::of(3, 100, 200);
        let all: Vec<_> = [0, 2]
            .map(|n| replica(n, true, Condition::Healthy, false))
            .into();
        assert_eq!(lacking(&bounds, &all), [1]);
    }

    #[test]
    fn an_unhealthy_task_is_replaced_first_where_the_maximum_allows() {
        let all: Vec<_> = [Condition::Unhealthy, Condition::Healthy]
            .into_iter()
            .zip(0..)
            .map(|(condition, n)| replica(n, true, condition, false))
            .collect();
        let none = BTreeSet::new();
        let roomy = Bounds::of(2, 100, 200);
        assert_eq!((lacking(&roomy, &all).len(), room(&roomy, &all)), (1, 2));
        assert_eq!(stops(&roomy, &all, 0, &none, Order::Spread), []);
        // Otherwise it is stopped first.
        let narrow = Bounds::of(2, 50, 100);
        assert_eq!(room(&narrow, &all), 0);
        let stopped = stops(&narrow, &all, 1, &none, Order::Spread);
        assert_eq!(stopped.len(), 1);
        assert_eq!(stopped[0].why, Why::Unhealthy);
    }

    #[test]
    fn scale_in_keeps_the_balance_of_the_zones() {
        let all: Vec<_> = (0..6)
            .map(|n| replica(n, true, Condition::Healthy, false))
            .collect();
        let stopped = stops(
            &Bounds::of(2, 100, 200),
            &all,
            0,
            &BTreeSet::new(),
            Order::Spread,
        );
        let left: Vec<_> = all
            .iter()
            .filter(|replica| !stopped.iter().any(|stop| stop.task == replica.id))
            .map(|replica| replica.zone.clone())
            .collect();
        assert_eq!(left.len(), 2);
        assert_ne!(left[0], left[1]);
    }

    #[test]
    fn scale_in_takes_what_is_not_known_to_be_healthy_before_what_is() {
        let all = [
            replica(0, true, Condition::Healthy, false),
            replica(1, true, Condition::Running, false),
        ];
        let stopped = stops(
            &Bounds::of(1, 100, 100),
            &all,
            0,
            &BTreeSet::new(),
            Order::Spread,
        );
        assert_eq!(stopped.len(), 1);
        assert_eq!(stopped[0].task, all[1].id);
    }

    proptest! {
        #[test]
        fn no_stop_goes_below_the_minimum_or_touches_what_is_protected(
            all in replicas(), desired in 0..12_u32, minimum in 0..=100_u32, maximum in 100..=200_u32,
            put_off in 0..8_usize, protected in prop::collection::btree_set(0..16_u8, 0..4),
        ) {
            let bounds = Bounds::of(desired, minimum, maximum);
            let protected: BTreeSet<TaskId> =
                protected.into_iter().map(|n| TaskId::from_random([n; 16])).collect();
            let stopped = stops(&bounds, &all, put_off, &protected, Order::Spread);
            prop_assert!(stopped.iter().all(|stop| !protected.contains(&stop.task)));
            let ids: BTreeSet<_> = stopped.iter().map(|stop| stop.task).collect();
            prop_assert_eq!(ids.len(), stopped.len(), "each is stopped once");
            let left: Vec<_> = all.iter().filter(|it| !ids.contains(&it.id)).collect();
            let up = |of: &[&Replica]| of.iter().filter(|it| it.is_up()).count();
            let before = up(&all.iter().collect::<Vec<_>>());
            prop_assert!(up(&left) >= bounds.lower.min(before) , "{:?}", stopped);
            // Nothing that stays, and is wanted, is stopped.
            let stay = left.iter().filter(|it| it.stays()).count();
            prop_assert!(stay >= staying(&all).count().min(bounds.desired));
            // Asked again of what is left, it stops nothing more.
            let left: Vec<Replica> = left.into_iter().cloned().collect();
            prop_assert_eq!(stops(&bounds, &left, 0, &protected, Order::Spread), vec![]);
        }

        #[test]
        fn nothing_is_started_beyond_the_maximum(all in replicas(), desired in 0..12_u32, maximum in 100..=200_u32) {
            let bounds = Bounds::of(desired, 100, maximum);
            let starts = lacking(&bounds, &all).len().min(room(&bounds, &all));
            prop_assert!(starts == 0 || all.len() + starts <= bounds.upper);
            prop_assert!(staying(&all).count() + lacking(&bounds, &all).len() >= bounds.desired);
        }
    }
}
