//! Placement from outside in: what is promised of every plan, and each strategy by example.

use gantry_arn::ContainerInstanceId;
use gantry_placement::{
    Attribute, Candidate, Capacity, Constraint, Demand, Eligibility, Plan, Request, Resource,
    Strategy, place,
};
use proptest::prelude::{Strategy as _, any, prop_assert, prop_assert_eq, proptest};

fn id(n: u8) -> ContainerInstanceId {
    ContainerInstanceId::from_random([n; 16])
}

fn instance(n: u8, cpu: i64, memory: i64) -> Candidate {
    Candidate {
        free: Capacity { cpu, memory },
        tcp_ports_taken: [22].into(),
        ..Candidate::new(id(n))
    }
}

fn in_zone(mut candidate: Candidate, zone: &str) -> Candidate {
    std::sync::Arc::make_mut(&mut candidate.attributes)
        .insert("ecs.availability-zone".to_owned(), Some(zone.to_owned()));
    candidate
}

fn demand(cpu: i64, memory: i64) -> Demand {
    Demand {
        needs: Capacity { cpu, memory },
        group: "family:web".to_owned(),
        ..Demand::default()
    }
}

fn run(candidates: &[Candidate], demand: &Demand, count: u32, strategies: &[Strategy]) -> Plan {
    let request = Request {
        demand,
        count,
        constraints: &[],
        strategies,
        seed: 7,
    };
    place(candidates.to_vec(), &request)
}

#[test]
fn a_task_that_fits_nowhere_names_what_each_instance_lacks() {
    let mut off = instance(3, 4096, 4096);
    off.eligibility = Eligibility::AgentDisconnected;
    let mut draining = instance(4, 4096, 4096);
    draining.eligibility = Eligibility::Inactive;
    let candidates = [
        instance(1, 100, 4096),
        instance(2, 4096, 100),
        off,
        draining,
    ];
    let plan = run(&candidates, &demand(512, 512), 2, &[]);
    assert_eq!(plan.unplaced, 2);
    let reasons: Vec<&str> = plan
        .rejections
        .iter()
        .map(|r| r.reasons[0].api_reason())
        .collect();
    assert_eq!(
        reasons,
        ["RESOURCE:CPU", "RESOURCE:MEMORY", "AGENT", "INACTIVE"]
    );
    assert_eq!(
        plan.rejections[0].reasons[0].explain(),
        "it has 100 CPU units free and the task needs 512"
    );
}

#[test]
fn a_host_port_is_given_once_and_protocols_do_not_collide() {
    let tcp = Demand {
        tcp_ports: vec![8080],
        ..demand(0, 1)
    };
    let plan = run(&[instance(1, 10, 10)], &tcp, 2, &[]);
    assert_eq!((plan.placements.len(), plan.unplaced), (1, 1));
    assert_eq!(plan.rejections[0].reasons[0].api_reason(), "RESOURCE:PORTS");

    let udp = Demand {
        udp_ports: vec![22],
        ..demand(0, 1)
    };
    assert_eq!(
        run(&[instance(1, 10, 10)], &udp, 1, &[]).placements,
        [id(1)]
    );
}

#[test]
fn a_required_attribute_is_met_by_name_and_by_value_where_one_is_given() {
    let mut candidate = instance(1, 10, 10);
    std::sync::Arc::make_mut(&mut candidate.attributes)
        .insert("ecs.os-type".to_owned(), Some("linux".to_owned()));
    let require = |value: Option<&str>| Demand {
        requires_attributes: vec![Attribute {
            name: "ecs.os-type".to_owned(),
            value: value.map(str::to_owned),
        }],
        ..demand(0, 1)
    };
    let candidates = [candidate];
    assert_eq!(run(&candidates, &require(None), 1, &[]).placements.len(), 1);
    assert_eq!(
        run(&candidates, &require(Some("linux")), 1, &[])
            .placements
            .len(),
        1
    );
    let plan = run(&candidates, &require(Some("windows")), 1, &[]);
    assert_eq!(plan.rejections[0].reasons[0].api_reason(), "ATTRIBUTE");
}

#[test]
fn distinct_instance_never_puts_two_of_a_group_together() {
    let mut used = instance(1, 4096, 4096);
    used.tasks_by_group.insert("family:web".to_owned(), 1);
    let need = demand(1, 1);
    let request = Request {
        demand: &need,
        count: 3,
        constraints: &[Constraint::DistinctInstance],
        strategies: &[],
        seed: 1,
    };
    let plan = place(
        vec![used, instance(2, 99, 99), instance(3, 99, 99)],
        &request,
    );
    let mut placements = plan.placements;
    placements.sort();
    assert_eq!((placements, plan.unplaced), (vec![id(2), id(3)], 1));
}

#[test]
fn spread_balances_zones_first_and_binpack_fills_one_instance_up() {
    let candidates = [
        in_zone(instance(1, 1000, 1000), "a"),
        in_zone(instance(2, 1000, 1000), "a"),
        in_zone(instance(3, 1000, 1000), "b"),
    ];
    let plan = run(&candidates, &demand(100, 100), 4, &[]);
    let on = |n| plan.placements.iter().filter(|p| **p == id(n)).count();
    assert_eq!((on(1) + on(2), on(3)), (2, 2));
    assert_eq!((on(1), on(2)), (1, 1));

    let uneven = [instance(1, 900, 1000), instance(2, 1000, 900)];
    let by_cpu = run(
        &uneven,
        &demand(100, 100),
        9,
        &[Strategy::Binpack(Resource::Cpu)],
    );
    assert!(by_cpu.placements.iter().all(|p| *p == id(1)));
    let by_memory = run(
        &uneven,
        &demand(100, 100),
        9,
        &[Strategy::Binpack(Resource::Memory)],
    );
    assert!(by_memory.placements.iter().all(|p| *p == id(2)));
}

#[test]
fn random_uses_every_instance_over_many_seeds() {
    let candidates: Vec<Candidate> = (1..=4).map(|n| instance(n, 10, 10)).collect();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let need = demand(1, 1);
        let strategies = [Strategy::Random];
        let request = Request {
            demand: &need,
            count: 1,
            constraints: &[],
            strategies: &strategies,
            seed,
        };
        seen.extend(place(candidates.clone(), &request).placements);
    }
    assert_eq!(seen.len(), 4);
}

fn any_strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    (0..5u8).prop_map(|n| match n {
        0 => Strategy::SpreadByInstance,
        1 => Strategy::SpreadByAttribute("ecs.availability-zone".to_owned()),
        2 => Strategy::Binpack(Resource::Cpu),
        3 => Strategy::Binpack(Resource::Memory),
        _ => Strategy::Random,
    })
}

proptest! {
    #[test]
    fn no_plan_takes_more_than_is_free_and_every_task_is_accounted_for(
        free in proptest::collection::vec((0..2000i64, 0..2000i64), 0..6),
        cpu in 0..700i64,
        memory in 1..700i64,
        count in 1..10u32,
        strategies in proptest::collection::vec(any_strategy(), 0..3),
        seed in any::<u64>(),
    ) {
        let candidates: Vec<Candidate> =
            (1u8..).zip(&free).map(|(n, (c, m))| instance(n, *c, *m)).collect();
        let need = demand(cpu, memory);
        let request = Request { demand: &need, count, constraints: &[], strategies: &strategies, seed };
        let plan = place(candidates.clone(), &request);
        prop_assert_eq!(&plan, &place(candidates.clone(), &request));
        prop_assert_eq!(plan.placements.len() as u32 + plan.unplaced, count);
        prop_assert_eq!(plan.unplaced > 0 && !candidates.is_empty(), !plan.rejections.is_empty());
        for candidate in &candidates {
            let n = plan.placements.iter().filter(|p| **p == candidate.id).count() as i64;
            prop_assert!(n * cpu <= candidate.free.cpu);
            prop_assert!(n * memory <= candidate.free.memory);
        }
    }
}
