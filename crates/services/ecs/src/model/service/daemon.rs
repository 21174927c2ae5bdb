//! What a service of daemons starts and stops next: one task on each container instance that is meant.
//!
//! What always holds:
//! - The slot is the container instance: nothing is started where a task of the service still is, not
//!   even one that is only just stopping. So there are never two on one instance, and the upper bound
//!   ([`Bounds::upper`], never more than one a instance) needs no other care.
//! - A task is replaced by stopping it first, and only where another could be started in its place.
//! - No stop that replaces a task leaves fewer than [`Bounds::lower`] that are up.
//! - On an instance that drains, a daemon goes last: when nothing is left there but daemons. One that
//!   does not run yet goes at once.
//! - Where its constraints no longer hold, a daemon does not stay.
//!
//! Left to others: which instances are meant, and whether a task fits there
//! ([`crate::api::service_instances`]).

use std::collections::{BTreeMap, BTreeSet};

use gantry_arn::{ContainerInstanceId, TaskId};

use super::replica::{Condition, Replica};
use super::rolling::{Bounds, Stop, Why};

/// How a container instance stands to a daemon. One that is not known is not meant, or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is ACTIVE and meets all constraints: one task shall run there.
    Meant,
    /// It is DRAINING.
    Draining { only_daemons_left: bool },
}

/// The container instances of the cluster that a daemon has to do with.
pub type Instances = BTreeMap<ContainerInstanceId, Standing>;

/// How many tasks a daemon shall have: the `desiredCount` that users see.
pub fn desired(instances: &Instances) -> u32 {
    let meant = instances.values().filter(|it| **it == Standing::Meant);
    u32::try_from(meant.count()).unwrap_or(u32::MAX)
}

/// The instances that lack a task. `held` are those on which one is still stopping.
pub fn lacking(
    instances: &Instances,
    replicas: &[Replica],
    held: &BTreeSet<ContainerInstanceId>,
) -> Vec<ContainerInstanceId> {
    let taken: BTreeSet<_> = replicas.iter().map(|replica| replica.instance).collect();
    instances
        .iter()
        .filter(|(_, standing)| **standing == Standing::Meant)
        .map(|(id, _)| *id)
        .filter(|id| !taken.contains(id) && !held.contains(id))
        .collect()
}

/// What is to be stopped. `replaceable` says of an instance whether a task of the PRIMARY deployment
/// could be started there now, were the one that it has gone.
pub fn stops(
    bounds: &Bounds,
    instances: &Instances,
    replicas: &[Replica],
    protected: &BTreeSet<TaskId>,
    replaceable: impl Fn(&ContainerInstanceId) -> bool,
) -> Vec<Stop> {
    let keepers = keepers(instances, replicas, protected);
    let is_kept =
        |replica: &Replica| keepers.get(&replica.instance).map(|it| it.id) == Some(replica.id);
    let up = keepers.values().filter(|replica| replica.is_up()).count();
    let mut spare = up.saturating_sub(bounds.lower);
    let mut stops = Vec::new();
    for replica in replicas.iter().filter(|it| !protected.contains(&it.id)) {
        let why = match instances.get(&replica.instance) {
            None if replica.is_draining => Why::Draining,
            None => Why::Scaling,
            Some(Standing::Draining { only_daemons_left }) => {
                if !only_daemons_left && replica.condition != Condition::Pending {
                    continue;
                }
                Why::Draining
            }
            Some(Standing::Meant) if !is_kept(replica) => Why::Scaling,
            Some(Standing::Meant) => {
                let goes = !replica.is_primary || replica.condition == Condition::Unhealthy;
                if !goes || (replica.is_up() && spare == 0) || !replaceable(&replica.instance) {
                    continue;
                }
                spare -= usize::from(replica.is_up());
                match replica.condition {
                    Condition::Unhealthy => Why::Unhealthy,
                    _ => Why::Scaling,
                }
            }
        };
        stops.push(Stop {
            task: replica.id,
            why,
        });
    }
    stops
}

/// Every instance that is meant has its task, all of them are healthy, and there are no others.
pub fn is_steady(instances: &Instances, replicas: &[Replica]) -> bool {
    let keepers = keepers(instances, replicas, &BTreeSet::new());
    let healthy = |replica: &Replica| replica.stays() && replica.condition == Condition::Healthy;
    keepers.len() == replicas.len()
        && keepers.len() == usize::try_from(desired(instances)).unwrap_or(usize::MAX)
        && keepers.into_values().all(healthy)
}

/// The one task of each instance that is meant: should there ever be two, one that is protected, since it stays in
/// any case; else the newer deployment's, and of those the one that is better off.
fn keepers<'a>(
    instances: &Instances,
    replicas: &'a [Replica],
    protected: &BTreeSet<TaskId>,
) -> BTreeMap<ContainerInstanceId, &'a Replica> {
    let mut keepers: BTreeMap<ContainerInstanceId, &Replica> = BTreeMap::new();
    let rank = |replica: &Replica| {
        let is_protected = protected.contains(&replica.id);
        (
            is_protected,
            replica.is_primary,
            replica.condition,
            replica.id,
        )
    };
    let meant = |replica: &&Replica| instances.get(&replica.instance) == Some(&Standing::Meant);
    for replica in replicas.iter().filter(meant) {
        let known = keepers.entry(replica.instance).or_insert(replica);
        if rank(replica) > rank(known) {
            *known = replica;
        }
    }
    keepers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instance(n: u8) -> ContainerInstanceId {
        ContainerInstanceId::from_random([n; 16])
    }

    fn replica(n: u8, on: u8, is_primary: bool, condition: Condition) -> Replica {
        Replica {
            id: TaskId::from_random([n; 16]),
            slot: 0,
            is_primary,
            condition,
            is_draining: false,
            instance: instance(on),
            zone: None,
            left_free: 0,
        }
    }

    fn meant(count: u8) -> Instances {
        (0..count).map(|n| (instance(n), Standing::Meant)).collect()
    }

    fn none() -> BTreeSet<TaskId> {
        BTreeSet::new()
    }

    #[test]
    fn an_instance_gets_its_next_task_only_when_the_one_before_has_gone() {
        let held = BTreeSet::from([instance(1)]);
        let all = [replica(0, 0, true, Condition::Healthy)];
        assert_eq!(lacking(&meant(3), &all, &held), [instance(2)]);
    }

    #[test]
    fn with_a_minimum_of_nothing_all_are_replaced_at_once_and_otherwise_within_it() {
        let all: Vec<_> = (0..4)
            .map(|n| replica(n, n, false, Condition::Healthy))
            .collect();
        let stopped = |minimum| {
            let bounds = Bounds::of(4, minimum, 100);
            stops(&bounds, &meant(4), &all, &none(), |_| true).len()
        };
        assert_eq!([0, 50, 75].map(stopped), [4, 2, 1]);
    }

    #[test]
    fn a_daemon_leaves_a_draining_instance_last() {
        let mut instances = meant(2);
        let draining = |only_daemons_left| Standing::Draining { only_daemons_left };
        let bounds = Bounds::of(1, 100, 100);
        let all = [
            replica(0, 0, true, Condition::Healthy),
            replica(1, 1, true, Condition::Healthy),
        ];
        instances.insert(instance(1), draining(false));
        assert_eq!(desired(&instances), 1);
        assert_eq!(stops(&bounds, &instances, &all, &none(), |_| true), []);
        instances.insert(instance(1), draining(true));
        let stopped = stops(&bounds, &instances, &all, &none(), |_| true);
        assert_eq!(
            (stopped[0].task, stopped[0].why),
            (all[1].id, Why::Draining)
        );
        // One that does not run yet goes at once.
        instances.insert(instance(1), draining(false));
        let young = [replica(2, 1, true, Condition::Pending)];
        assert_eq!(
            stops(&bounds, &instances, &young, &none(), |_| true).len(),
            1
        );
    }

    #[test]
    fn what_could_not_be_replaced_stays() {
        let all = [
            replica(0, 0, false, Condition::Healthy),
            replica(1, 1, true, Condition::Unhealthy),
        ];
        let bounds = Bounds::of(2, 0, 100);
        assert_eq!(stops(&bounds, &meant(2), &all, &none(), |_| false), []);
    }

    fn condition() -> impl Strategy<Value = Condition> {
        prop_oneof![
            Just(Condition::Pending),
            Just(Condition::Unhealthy),
            Just(Condition::Running),
            Just(Condition::Healthy),
        ]
    }

    fn standing() -> impl Strategy<Value = Option<Standing>> {
        prop_oneof![
            3 => Just(Some(Standing::Meant)),
            1 => any::<bool>().prop_map(|only_daemons_left| Some(Standing::Draining { only_daemons_left })),
            1 => Just(None),
        ]
    }

    fn ground() -> impl Strategy<Value = (Instances, Vec<Replica>)> {
        let on_each = (
            standing(),
            prop::collection::vec((any::<bool>(), condition()), 0..3),
        );
        prop::collection::vec(on_each, 0..8).prop_map(|all| {
            let (mut instances, mut replicas) = (Instances::new(), Vec::new());
            let mut n = 0;
            for (on, (standing, tasks)) in (0_u8..).zip(all) {
                instances.extend(standing.map(|standing| (instance(on), standing)));
                for (is_primary, condition) in tasks {
                    replicas.push(replica(n, on, is_primary, condition));
                    n += 1;
                }
            }
            (instances, replicas)
        })
    }

    fn up_where_meant(instances: &Instances, replicas: &[Replica]) -> usize {
        let there: BTreeSet<_> = replicas
            .iter()
            .filter(|it| it.is_up() && instances.get(&it.instance) == Some(&Standing::Meant))
            .map(|it| it.instance)
            .collect();
        there.len()
    }

    proptest! {
        #[test]
        fn no_stop_goes_below_the_minimum_or_touches_what_is_protected(
            (instances, all) in ground(), minimum in 0..=100_u32,
            protected in prop::collection::btree_set(0..16_u8, 0..4),
        ) {
            let bounds = Bounds::of(desired(&instances), minimum, 100);
            let protected: BTreeSet<TaskId> =
                protected.into_iter().map(|n| TaskId::from_random([n; 16])).collect();
            let stopped = stops(&bounds, &instances, &all, &protected, |_| true);
            prop_assert!(stopped.iter().all(|stop| !protected.contains(&stop.task)));
            let ids: BTreeSet<_> = stopped.iter().map(|stop| stop.task).collect();
            prop_assert_eq!(ids.len(), stopped.len(), "each is stopped once");
            // An instance of whose two tasks the keeper is not the one that is up may lose one.
            let kept: Vec<Replica> = keepers(&instances, &all, &protected).into_values().cloned().collect();
            let left: Vec<Replica> = kept.iter().filter(|it| !ids.contains(&it.id)).cloned().collect();
            let before = up_where_meant(&instances, &kept);
            prop_assert!(up_where_meant(&instances, &left) >= bounds.lower.min(before));
            let all: Vec<Replica> = all.into_iter().filter(|it| !ids.contains(&it.id)).collect();
            prop_assert_eq!(stops(&bounds, &instances, &all, &protected, |_| true), vec![]);
        }

        /// Nodes that work bring every daemon to one healthy task on each instance, never two on one.
        #[test]
        fn it_converges_to_one_on_each((instances, all) in ground(), minimum in 0..100_u32) {
            // A minimum that is all of them, rounded up, blocks deployments, as at AWS.
            let bounds = match Bounds::of(desired(&instances), minimum, 100) {
                blocked if blocked.lower == blocked.desired => Bounds::of(desired(&instances), 0, 100),
                bounds => bounds,
            };
            // What has no place any more is not held up for ever by others.
            let instances: Instances = instances
                .into_iter()
                .map(|(id, standing)| match standing {
                    Standing::Draining { .. } => (id, Standing::Draining { only_daemons_left: true }),
                    Standing::Meant => (id, standing),
                })
                .collect();
            let (mut all, mut held, mut next) = (all, BTreeSet::new(), 100_u8);
            for _ in 0..60 {
                let starts = lacking(&instances, &all, &held);
                let stopped = stops(&bounds, &instances, &all, &none(), |_| true);
                let is_young = |it: &Replica| matches!(it.condition, Condition::Pending | Condition::Running);
                if starts.is_empty() && stopped.is_empty() && held.is_empty() && !all.iter().any(is_young) {
                    break;
                }
                held.clear();
                for stop in &stopped {
                    held.extend(all.iter().filter(|it| it.id == stop.task).map(|it| it.instance));
                    all.retain(|it| it.id != stop.task);
                }
                for id in starts {
                    let mut new = replica(next, 0, true, Condition::Healthy);
                    new.instance = id;
                    all.push(new);
                    next += 1;
                }
                // What waits or is young becomes healthy, unless it is already known to be ill.
                for replica in all.iter_mut().filter(|it| it.condition != Condition::Unhealthy) {
                    replica.condition = Condition::Healthy;
                }
            }
            prop_assert!(is_steady(&instances, &all), "{:?} {:?}", instances, all);
        }
    }
}
