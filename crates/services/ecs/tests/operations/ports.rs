//! Host ports as a resource of container instances: those that definitions name, and those that nodes choose.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::task::{Context, Poll, Waker};

use gantry_api::ecs::{self, Ecs as _};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};

use crate::harness::{Harness, container, done, report, run};
use crate::interleavings::hesitant;

const TCP: &str = "tcp";
const UDP: &str = "udp";

fn mapping(host_port: i32, protocol: &str) -> ecs::PortMapping {
    ecs::PortMapping {
        container_port: Some(80),
        host_port: Some(host_port),
        protocol: Some(protocol.into()),
        ..Default::default()
    }
}

/// A definition with these mappings, in bridge mode; its family.
fn register(harness: &Harness, family: &str, mappings: Vec<ecs::PortMapping>) {
    let mut web = container("web");
    web.cpu = Some(1);
    web.memory = Some(6);
    web.port_mappings = Some(mappings);
    harness
        .register(ecs::RegisterTaskDefinitionRequest {
            family: family.to_owned(),
            network_mode: Some(ecs::NetworkMode::Bridge),
            container_definitions: vec![web],
            ..Default::default()
        })
        .unwrap();
}

fn bound(host_port: u16, protocol: &str) -> ecs::NetworkBinding {
    ecs::NetworkBinding {
        bind_ip: Some("0.0.0.0".to_owned()),
        container_port: Some(80),
        host_port: Some(i32::from(host_port)),
        protocol: Some(protocol.into()),
        ..Default::default()
    }
}

fn running(arn: &str, bindings: Vec<ecs::NetworkBinding>) -> ecs::SubmitTaskStateChangeRequest {
    let mut input = report(arn, "RUNNING", None);
    input.containers.as_mut().unwrap()[0].network_bindings = Some(bindings);
    input
}

fn submit(harness: &Harness, input: ecs::SubmitTaskStateChangeRequest) {
    let ctx = harness.ctx();
    done(harness.service.submit_task_state_change(&ctx, input)).unwrap();
}

fn remaining(harness: &Harness, instance: &str, name: &str) -> Vec<String> {
    let resources = harness.instance(instance).remaining_resources.unwrap();
    let of = |resource: &&ecs::Resource| resource.name.as_deref() == Some(name);
    let found = resources.iter().find(of).unwrap();
    found.string_set_value.clone().unwrap()
}

fn refused_for_ports(harness: &Harness, family: &str) -> bool {
    let failures = harness.run(run(family)).unwrap().failures.unwrap();
    failures
        .iter()
        .any(|failure| failure.reason.as_deref() == Some("RESOURCE:PORTS"))
}

#[test]
fn a_port_that_the_node_chose_is_taken_until_its_task_stops() {
    let (harness, instance) = Harness::with_instance();
    register(&harness, "dynamic", vec![mapping(0, TCP)]);
    register(&harness, "named", vec![mapping(50051, TCP)]);
    register(&harness, "udp", vec![mapping(50051, UDP)]);
    let dynamic = harness.run_one("dynamic");
    submit(&harness, running(&dynamic, vec![bound(50051, TCP)]));
    assert!(remaining(&harness, &instance, "PORTS").contains(&"50051".to_owned()));
    assert!(refused_for_ports(&harness, "named"));
    // The same report again is no change, and the other protocol's port is free.
    let revision = harness.store.snapshot().revision();
    submit(&harness, running(&dynamic, vec![bound(50051, TCP)]));
    assert_eq!(harness.store.snapshot().revision(), revision);
    harness.run_one("udp");
    harness.submit(&dynamic, "STOPPED", Some(0));
    assert!(!remaining(&harness, &instance, "PORTS").contains(&"50051".to_owned()));
    harness.run_one("named");
}

#[test]
fn every_port_of_a_range_is_taken() {
    let (harness, instance) = Harness::with_instance();
    let range = ecs::PortMapping {
        container_port_range: Some("8000-8002".to_owned()),
        protocol: Some(UDP.into()),
        ..Default::default()
    };
    register(&harness, "range", vec![range]);
    for (family, port) in [("first", 40000), ("last", 40002), ("next", 40003)] {
        register(&harness, family, vec![mapping(port, UDP)]);
    }
    let ranged = harness.run_one("range");
    let binding = ecs::NetworkBinding {
        bind_ip: Some("0.0.0.0".to_owned()),
        container_port_range: Some("8000-8002".to_owned()),
        host_port_range: Some("40000-40002".to_owned()),
        protocol: Some(UDP.into()),
        ..Default::default()
    };
    submit(&harness, running(&ranged, vec![binding.clone()]));
    let taken = remaining(&harness, &instance, "PORTS_UDP");
    assert!(
        ["40000", "40001", "40002"]
            .iter()
            .all(|port| taken.contains(&(*port).to_owned()))
    );
    assert!(refused_for_ports(&harness, "first") && refused_for_ports(&harness, "last"));
    harness.run_one("next");
    let told = harness.task(&ranged).containers.unwrap()[0]
        .network_bindings
        .clone();
    assert_eq!(told, Some(vec![binding]));
}

/// A placement that looked before a port was told must not stand beside it.
#[test]
fn a_placement_beside_the_report_of_its_port_is_made_anew() {
    let setup = Harness::new();
    setup.create_cluster("default");
    setup.register_instance(4096, 4096);
    register(&setup, "dynamic", vec![mapping(0, TCP)]);
    register(&setup, "named", vec![mapping(50051, TCP)]);
    let dynamic = setup.run_one("dynamic");
    let harness = Harness::on(hesitant(&setup.store), 1);
    let ctx = harness.ctx();
    let mut context = Context::from_waker(Waker::noop());
    let mut placing = Box::pin(harness.service.run_task(&ctx, run("named")));
    // It has looked, and the port was free.
    assert!(placing.as_mut().poll(&mut context).is_pending());
    let mut reporting = Box::pin(
        harness
            .service
            .submit_task_state_change(&ctx, running(&dynamic, vec![bound(50051, TCP)])),
    );
    while reporting.as_mut().poll(&mut context).is_pending() {}
    let answer = loop {
        if let Poll::Ready(answer) = placing.as_mut().poll(&mut context) {
            break answer.unwrap();
        }
    };
    assert_eq!(answer.tasks.unwrap().len(), 0);
    let failures = answer.failures.unwrap();
    assert_eq!(failures[0].reason.as_deref(), Some("RESOURCE:PORTS"));
}

const FIRST: u16 = 32768;
const PORTS: u16 = 6;

#[derive(Debug, Clone)]
enum Step {
    /// A task that names this port, counted from the first dynamic one.
    Named {
        port: u16,
        protocol: &'static str,
    },
    Dynamic {
        protocol: &'static str,
    },
    /// The node starts the task: it chooses a port that is free there, as far as it knows.
    Start {
        task: usize,
        from: u16,
    },
    Stop {
        task: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let protocol = || prop_oneof![Just(TCP), Just(UDP)];
    prop_oneof![
        3 => (0..PORTS, protocol()).prop_map(|(port, protocol)| Step::Named { port, protocol }),
        3 => protocol().prop_map(|protocol| Step::Dynamic { protocol }),
        4 => (0..20usize, 0..PORTS).prop_map(|(task, from)| Step::Start { task, from }),
        2 => (0..20usize).prop_map(|task| Step::Stop { task }),
    ]
}

/// A task that was placed: where, with which port, if it has one already.
struct Placed {
    arn: String,
    instance: String,
    protocol: &'static str,
    port: Option<u16>,
    is_over: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_port_is_ever_promised_to_two_tasks(steps in proptest::collection::vec(any_step(), 1..60)) {
        let harness = Harness::new();
        harness.create_cluster("default");
        for _ in 0..2 {
            harness.register_instance(4096, 4096);
        }
        for protocol in [TCP, UDP] {
            register(&harness, &format!("dynamic-{protocol}"), vec![mapping(0, protocol)]);
            for port in 0..PORTS {
                let named = vec![mapping(i32::from(FIRST + port), protocol)];
                register(&harness, &format!("named-{port}-{protocol}"), named);
            }
        }
        let mut tasks: Vec<Placed> = Vec::new();
        for step in steps {
            match step {
                Step::Named { port, protocol } => {
                    place(&harness, &mut tasks, &format!("named-{port}-{protocol}"), protocol, Some(FIRST + port));
                }
                Step::Dynamic { protocol } => {
                    place(&harness, &mut tasks, &format!("dynamic-{protocol}"), protocol, None);
                }
                Step::Start { task, from } => start(&harness, &mut tasks, task, from),
                Step::Stop { task } => {
                    if let Some(task) = tasks.get_mut(task) {
                        harness.submit(&task.arn, "STOPPED", Some(0));
                        task.is_over = true;
                    }
                }
            }
            let mut promised: BTreeMap<(&str, &str, u16), &str> = BTreeMap::new();
            for task in tasks.iter().filter(|task| !task.is_over) {
                let Some(port) = task.port else { continue };
                let other = promised.insert((&task.instance, task.protocol, port), &task.arn);
                assert_eq!(other, None, "{port} belongs to {} as well", task.arn);
            }
        }
    }
}

fn place(
    harness: &Harness,
    tasks: &mut Vec<Placed>,
    family: &str,
    protocol: &'static str,
    port: Option<u16>,
) {
    let placed = harness.run(run(family)).unwrap().tasks.unwrap();
    tasks.extend(placed.into_iter().map(|task| Placed {
        arn: task.task_arn.unwrap(),
        instance: task.container_instance_arn.unwrap(),
        protocol,
        port,
        is_over: false,
    }));
}

fn start(harness: &Harness, tasks: &mut [Placed], at: usize, from: u16) {
    let Some(task) = tasks.get(at).filter(|task| !task.is_over) else {
        return;
    };
    let on_the_node = tasks
        .iter()
        .filter(|other| !other.is_over && other.instance == task.instance)
        .filter(|other| other.protocol == task.protocol);
    let taken: BTreeSet<u16> = on_the_node.filter_map(|other| other.port).collect();
    let free = || {
        let candidates = (0..PORTS).map(|n| FIRST + (from + n) % PORTS);
        candidates.into_iter().find(|port| !taken.contains(port))
    };
    let Some(port) = task.port.or_else(free) else {
        return;
    };
    submit(
        harness,
        running(&task.arn, vec![bound(port, task.protocol)]),
    );
    tasks[at].port = Some(port);
}
