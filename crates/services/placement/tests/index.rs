//! What the index promises: it answers as if it had looked at every instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_arn::ContainerInstanceId;
use gantry_placement::{
    Candidate, Capacity, Constraint, Demand, Eligibility, InstanceIndex, Request, Resource,
    Strategy, query,
};
use proptest::prelude::{
    Just, ProptestConfig, Strategy as _, any, prop_assert, prop_oneof, proptest,
};

const ZONE: &str = "ecs.availability-zone";

fn id(n: u8) -> ContainerInstanceId {
    ContainerInstanceId::from_random([n; 16])
}

/// One change of the instances, or one placement.
#[derive(Debug, Clone)]
enum Step {
    Put {
        n: u8,
        cpu: i64,
        memory: i64,
        zone: u8,
        eligible: bool,
        busy: bool,
    },
    Remove(u8),
    Place {
        cpu: i64,
        memory: i64,
        group: u8,
        port: Option<u16>,
        count: u32,
        chain: Vec<Strategy>,
        distinct: bool,
        zone: Option<u8>,
        seed: u64,
    },
}

fn any_strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![
        Just(Strategy::SpreadByInstance),
        Just(Strategy::SpreadByAttribute(ZONE.to_owned())),
        Just(Strategy::Binpack(Resource::Cpu)),
        Just(Strategy::Binpack(Resource::Memory)),
        Just(Strategy::Random),
    ]
}

fn any_step() -> impl proptest::strategy::Strategy<Value = Step> {
    let put = (0..9u8, 0..9i64, 0..9i64, 0..4u8, 0..8u8, any::<bool>()).prop_map(
        |(n, cpu, memory, zone, eligible, busy)| Step::Put {
            n,
            cpu,
            memory,
            zone,
            eligible: eligible > 0,
            busy,
        },
    );
    let place = (
        (
            0..4i64,
            0..4i64,
            0..3u8,
            proptest::option::weighted(0.2, 80..83u16),
        ),
        1..5u32,
        proptest::collection::vec(any_strategy(), 0..4),
        proptest::bool::weighted(0.2),
        proptest::option::weighted(0.2, 0..4u8),
        any::<u64>(),
    )
        .prop_map(
            |((cpu, memory, group, port), count, chain, distinct, zone, seed)| Step::Place {
                cpu,
                memory,
                group,
                port,
                count,
                chain,
                distinct,
                zone,
                seed,
            },
        );
    prop_oneof![3 => put, 1 => (0..9u8).prop_map(Step::Remove), 4 => place]
}

/// The instances as a list, and placement as its definition says: look at all, take a best one.
#[derive(Default)]
struct Reference(BTreeMap<ContainerInstanceId, Candidate>);

impl Reference {
    fn fits(&self, candidate: &Candidate, demand: &Demand, constraints: &[Constraint]) -> bool {
        let (needs, free) = (&demand.needs, &candidate.free);
        candidate.eligibility == Eligibility::Eligible
            && (needs.cpu == 0 || needs.cpu <= free.cpu)
            && (needs.memory == 0 || needs.memory <= free.memory)
            && demand
                .tcp_ports
                .iter()
                .all(|p| !candidate.tcp_ports_taken.contains(p))
            && constraints.iter().all(|constraint| match constraint {
                Constraint::DistinctInstance => candidate.tasks_of(&demand.group) == 0,
                Constraint::MemberOf(expression) => expression.holds(candidate),
            })
    }

    /// The keys of the strategies up to the first random one, which may take any.
    fn rank(&self, candidate: &Candidate, demand: &Demand, chain: &[Strategy]) -> Vec<i64> {
        let zone = candidate.attribute(ZONE);
        let in_zone = self.0.values().filter(|it| it.attribute(ZONE) == zone);
        let zone_tasks: u32 = in_zone.map(|it| it.tasks_of(&demand.group)).sum();
        let key = |strategy: &Strategy| match strategy {
            Strategy::SpreadByInstance => Some(i64::from(candidate.tasks_of(&demand.group))),
            Strategy::SpreadByAttribute(_) => Some(i64::from(zone_tasks)),
            Strategy::Binpack(Resource::Cpu) => Some(candidate.free.cpu),
            Strategy::Binpack(Resource::Memory) => Some(candidate.free.memory),
            Strategy::Random => None,
        };
        chain.iter().map_while(key).collect()
    }
}

fn take(candidate: &mut Candidate, demand: &Demand) {
    candidate.free.cpu -= demand.needs.cpu;
    candidate.free.memory -= demand.needs.memory;
    candidate.tcp_ports_taken.extend(&demand.tcp_ports);
    *candidate
        .tasks_by_group
        .entry(demand.group.clone())
        .or_default() += 1;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_placement_takes_a_best_one_of_those_that_fit(
        steps in proptest::collection::vec(any_step(), 1..40),
        // On how many instances a group is looked up beside a shared order: on none, on some, on all.
        few in prop_oneof![Just(0), Just(2), Just(48)],
    ) {
        let mut index = InstanceIndex::with_few(3, few);
        let mut all = Reference::default();
        for step in steps {
            match step {
                Step::Put { n, cpu, memory, zone, eligible, busy } => {
                    let mut candidate = all.0.get(&id(n)).cloned().unwrap_or_else(|| Candidate::new(id(n)));
                    candidate.free = Capacity { cpu, memory };
                    candidate.busy = busy;
                    candidate.eligibility = match eligible {
                        true => Eligibility::Eligible,
                        false => Eligibility::AgentDisconnected,
                    };
                    let zone = (zone > 0).then(|| (ZONE.to_owned(), Some(zone.to_string())));
                    candidate.attributes = Arc::new(zone.into_iter().collect());
                    all.0.insert(id(n), candidate.clone());
                    index.put(candidate);
                }
                Step::Remove(n) => {
                    all.0.remove(&id(n));
                    index.remove(&id(n));
                }
                Step::Place { cpu, memory, group, port, count, chain, distinct, zone, seed } => {
                    let demand = Demand {
                        needs: Capacity { cpu, memory },
                        tcp_ports: port.into_iter().collect(),
                        group: format!("family:{group}"),
                        ..Demand::default()
                    };
                    let mut constraints = Vec::new();
                    if distinct {
                        constraints.push(Constraint::DistinctInstance);
                    }
                    if let Some(zone) = zone {
                        let text = format!("attribute:{ZONE} == {zone}");
                        constraints.push(Constraint::MemberOf(query::parse(&text).unwrap()));
                    }
                    let plan = index.place(&Request {
                        demand: &demand,
                        count,
                        constraints: &constraints,
                        strategies: &chain,
                        seed,
                    });
                    let ranked = match chain.as_slice() {
                        [] => vec![Strategy::SpreadByAttribute(ZONE.to_owned()), Strategy::SpreadByInstance],
                        given => given.to_vec(),
                    };
                    for placed in &plan.placements {
                        let chosen = &all.0[placed];
                        prop_assert!(all.fits(chosen, &demand, &constraints));
                        let best = all.0.values()
                            .filter(|it| all.fits(it, &demand, &constraints))
                            .map(|it| all.rank(it, &demand, &ranked))
                            .min();
                        prop_assert!(Some(all.rank(chosen, &demand, &ranked)) == best);
                        take(all.0.get_mut(placed).unwrap(), &demand);
                    }
                    let none_fits = !all.0.values().any(|it| all.fits(it, &demand, &constraints));
                    prop_assert!(plan.unplaced == 0 || none_fits);
                    prop_assert!(plan.placements.len() as u32 + plan.unplaced == count);
                    let rejected = if plan.unplaced > 0 { all.0.len() } else { 0 };
                    prop_assert!(plan.rejections.len() == rejected);
                    prop_assert!(plan.rejections.iter().all(|it| !it.reasons.is_empty()));
                }
            }
            for candidate in all.0.values() {
                let known = index.get(&candidate.id).unwrap();
                prop_assert!(known.free == candidate.free && known.tasks_by_group == candidate.tasks_by_group);
            }
        }
    }
}

#[test]
fn among_equals_one_that_is_not_busy_is_taken_first() {
    for n in 0..20 {
        let mut index = InstanceIndex::new(n);
        for n in 0..5 {
            let mut candidate = Candidate::new(id(n));
            candidate.free = Capacity {
                cpu: 10,
                memory: 10,
            };
            candidate.busy = n != 3;
            index.put(candidate);
        }
        let demand = Demand {
            needs: Capacity { cpu: 6, memory: 1 },
            ..Demand::default()
        };
        let request = Request {
            demand: &demand,
            count: 2,
            constraints: &[],
            strategies: &[],
            seed: 1,
        };
        let plan = index.place(&request);
        assert_eq!(plan.placements[0], id(3));
        assert_eq!(plan.unplaced, 0);
    }
}

#[test]
fn random_is_even_among_those_that_fit() {
    let mut counts: BTreeMap<ContainerInstanceId, u32> = BTreeMap::new();
    let mut index = InstanceIndex::new(1);
    for n in 0..10 {
        let mut candidate = Candidate::new(id(n));
        candidate.free = Capacity {
            cpu: 1 << 40,
            memory: 1 << 40,
        };
        // Half of them are full of ports.
        candidate.tcp_ports_taken = (n % 2 == 0).then_some(80).into_iter().collect();
        index.put(candidate);
    }
    let demand = Demand {
        needs: Capacity { cpu: 1, memory: 1 },
        udp_ports: Vec::new(),
        ..Demand::default()
    };
    let wanting_port = Demand {
        tcp_ports: vec![80],
        ..demand.clone()
    };
    for seed in 0..5000 {
        let mut fresh = InstanceIndex::new(1);
        index.iter().cloned().for_each(|it| fresh.put(it));
        let request = Request {
            demand: &wanting_port,
            count: 1,
            constraints: &[],
            strategies: &[Strategy::Random],
            seed,
        };
        for placed in fresh.place(&request).placements {
            *counts.entry(placed).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 5);
    for (placed, count) in counts {
        assert!((900..1100).contains(&count), "{placed}: {count} of 5000");
    }
}

#[test]
fn a_group_that_grows_from_few_instances_to_many_stays_spread() {
    let mut index = InstanceIndex::with_few(1, 4);
    for n in 0..30 {
        let mut candidate = Candidate::new(id(n));
        // The roomiest come first among equals, so those that hold a task must be passed by.
        let room = 1000 + 100 * i64::from(n);
        candidate.free = Capacity {
            cpu: room,
            memory: room,
        };
        let zone = (ZONE.to_owned(), Some((n % 3).to_string()));
        candidate.attributes = Arc::new([zone].into_iter().collect());
        index.put(candidate);
    }
    for group in ["service:a", "service:b"] {
        let demand = Demand {
            needs: Capacity { cpu: 1, memory: 1 },
            group: group.to_owned(),
            ..Demand::default()
        };
        let request = |seed| Request {
            demand: &demand,
            count: 1,
            constraints: &[],
            strategies: &[],
            seed,
        };
        for seed in 0..60 {
            index.place(&request(seed));
        }
        assert!(index.iter().all(|it| it.tasks_of(group) == 2), "{group}");
    }
}
