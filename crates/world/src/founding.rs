//! How the world begins, and how it must look when it is over: the cluster and its instances.

use gantry_api::ecs;
use gantry_arn::{Arn, ClusterName};

use crate::chance::Chance;
use crate::control::ControlPlane;
use crate::runtime::Behaviour;

pub fn cluster_arn(control: &ControlPlane) -> String {
    let (account, region) = control.place();
    let cluster: ClusterName = "default".parse().expect("a cluster's name");
    Arn::cluster(region, account, &cluster).to_string()
}

/// The cluster `default`; `work:1` of one container, `work:2` of two of which one may end before, and
/// `work:3` of four that wait for one another, are checked, and start again.
/// What these ask of a container instance is given back.
pub fn cluster_and_definitions(control: &ControlPlane) -> Vec<ecs::Attribute> {
    let request = ecs::CreateClusterRequest::default();
    expect(control.call(|ecs, ctx| async move { ecs.create_cluster(&ctx, request).await }));
    let main = container("main", true);
    let definitions = [
        (ecs::NetworkMode::Host, vec![main.clone()]),
        (ecs::NetworkMode::None, vec![main, container("side", false)]),
        (ecs::NetworkMode::None, chain()),
    ];
    let mut required = Vec::new();
    for (network_mode, container_definitions) in definitions {
        let request = ecs::RegisterTaskDefinitionRequest {
            family: "work".to_owned(),
            network_mode: Some(network_mode),
            container_definitions,
            ..Default::default()
        };
        let answer = expect(
            control
                .call(|ecs, ctx| async move { ecs.register_task_definition(&ctx, request).await }),
        );
        let definition = answer.task_definition.expect("a task definition");
        for attribute in definition.requires_attributes.into_iter().flatten() {
            if !required.contains(&attribute) {
                required.push(attribute);
            }
        }
    }
    required
}

fn container(name: &str, essential: bool) -> ecs::ContainerDefinition {
    ecs::ContainerDefinition {
        name: Some(name.to_owned()),
        image: Some("localhost:4566/work:latest".to_owned()),
        essential: Some(essential),
        cpu: Some(200),
        memory: Some(300),
        ..Default::default()
    }
}

/// `init` → `db`, once it has succeeded → `app`, once that is healthy → `side`, once that has started.
fn chain() -> Vec<ecs::ContainerDefinition> {
    let after = |name: &str, condition| {
        Some(vec![ecs::ContainerDependency {
            container_name: name.to_owned(),
            condition,
        }])
    };
    let check = ecs::HealthCheck {
        command: vec!["CMD".to_owned(), "/healthy".to_owned()],
        interval: Some(5),
        timeout: Some(2),
        retries: Some(2),
        start_period: Some(10),
    };
    let again = ecs::ContainerRestartPolicy {
        enabled: true,
        ignored_exit_codes: Some(vec![3]),
        restart_attempt_period: Some(60),
    };
    let small = |name, essential| ecs::ContainerDefinition {
        cpu: Some(100),
        memory: Some(150),
        ..container(name, essential)
    };
    vec![
        ecs::ContainerDefinition {
            depends_on: after("app", ecs::ContainerCondition::Start),
            health_check: Some(check.clone()),
            restart_policy: Some(again.clone()),
            ..small("side", false)
        },
        ecs::ContainerDefinition {
            depends_on: after("db", ecs::ContainerCondition::Healthy),
            stop_timeout: Some(5),
            ..small("app", true)
        },
        ecs::ContainerDefinition {
            depends_on: after("init", ecs::ContainerCondition::Success),
            health_check: Some(check),
            restart_policy: Some(again),
            start_timeout: Some(60),
            ..small("db", true)
        },
        small("init", false),
    ]
}

/// Registers a task definition of one container that behaves so.
pub fn define(
    control: &ControlPlane,
    family: &str,
    behaviour: Behaviour,
    checked: bool,
) -> ecs::TaskDefinition {
    register(control, planned(family, behaviour, checked))
}

/// What registers a task definition of one container that behaves so.
pub fn planned(
    family: &str,
    behaviour: Behaviour,
    checked: bool,
) -> ecs::RegisterTaskDefinitionRequest {
    let check = ecs::HealthCheck {
        command: vec!["CMD".to_owned(), "/healthy".to_owned()],
        interval: Some(10),
        timeout: Some(5),
        retries: Some(2),
        ..Default::default()
    };
    ecs::RegisterTaskDefinitionRequest {
        family: family.to_owned(),
        network_mode: Some(ecs::NetworkMode::None),
        container_definitions: vec![ecs::ContainerDefinition {
            cpu: i32::try_from(PLANNED.cpu).ok(),
            memory: i32::try_from(PLANNED.memory).ok(),
            command: Some(behaviour.command()),
            health_check: checked.then_some(check),
            ..container("main", true)
        }],
        ..Default::default()
    }
}

pub fn register(
    control: &ControlPlane,
    request: ecs::RegisterTaskDefinitionRequest,
) -> ecs::TaskDefinition {
    let answer = expect(
        control.call(|ecs, ctx| async move { ecs.register_task_definition(&ctx, request).await }),
    );
    answer.task_definition.expect("a task definition")
}

/// What a machine has, and what a task takes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub cpu: i64,
    pub memory: i64,
}

impl Size {
    pub fn holds(self, other: Size) -> bool {
        other.cpu <= self.cpu && other.memory <= self.memory
    }

    pub fn plus(self, other: Size) -> Size {
        Size {
            cpu: self.cpu + other.cpu,
            memory: self.memory + other.memory,
        }
    }

    pub fn minus(self, other: Size) -> Size {
        Size {
            cpu: self.cpu - other.cpu,
            memory: self.memory - other.memory,
        }
    }
}

/// What a task takes whose definition says how its container behaves.
pub const PLANNED: Size = Size {
    cpu: 100,
    memory: 100,
};

/// What a task of this revision takes, as it is written above: nobody is asked for it.
pub fn demand(family: &str, revision: u32) -> Size {
    if family != "work" {
        return PLANNED;
    }
    let containers = if revision == 1 { 1 } else { 2 };
    Size {
        cpu: 200 * containers,
        memory: 300 * containers,
    }
}

/// A machine from too small for any task to large enough for five.
pub fn machine(chance: &mut Chance) -> Size {
    Size {
        cpu: 128 + 128 * chance.below(8) as i64,
        memory: 256 + 256 * chance.below(7) as i64,
    }
}

/// Of a world of services: two zones, and room for five to ten tasks.
pub fn machine_of_services(number: usize, chance: &mut Chance) -> (Size, Option<&'static str>) {
    let tasks = 5 + chance.below(6) as i64;
    let size = Size {
        cpu: PLANNED.cpu * tasks,
        memory: PLANNED.memory * tasks,
    };
    (size, Some(["zone-a", "zone-b"][number % 2]))
}

pub fn container_instance(
    control: &ControlPlane,
    required: &[ecs::Attribute],
    number: usize,
    size: Size,
    zone: Option<&str>,
) -> ecs::ContainerInstance {
    let attribute = |name: &str, value: &str| ecs::Attribute {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..Default::default()
    };
    let resource = |name: &str, value: i64| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        integer_value: i32::try_from(value).ok(),
        ..Default::default()
    };
    let request = ecs::RegisterContainerInstanceRequest {
        total_resources: Some(vec![
            resource("CPU", size.cpu),
            resource("MEMORY", size.memory),
        ]),
        attributes: Some(
            required
                .iter()
                .cloned()
                .chain([attribute("machine", &number.to_string())])
                .chain(zone.map(|zone| attribute("ecs.availability-zone", zone)))
                .collect(),
        ),
        ..Default::default()
    };
    let answer = expect(
        control
            .call(|ecs, ctx| async move { ecs.register_container_instance(&ctx, request).await }),
    );
    answer.container_instance.expect("a container instance")
}

/// All that is registered is free again.
pub fn check_free(control: &ControlPlane, arns: &[String]) {
    for some in arns.chunks(100) {
        let request = ecs::DescribeContainerInstancesRequest {
            container_instances: some.to_vec(),
            ..Default::default()
        };
        let answer =
            expect(control.call(|ecs, ctx| async move {
                ecs.describe_container_instances(&ctx, request).await
            }));
        assert_eq!(
            answer.failures.unwrap_or_default(),
            [],
            "every container instance is known"
        );
        for instance in answer.container_instances.into_iter().flatten() {
            let arn = instance.container_instance_arn;
            assert_eq!(
                instance.remaining_resources, instance.registered_resources,
                "{arn:?} is not free"
            );
            assert_eq!(instance.running_tasks_count, Some(0), "{arn:?} runs tasks");
            assert_eq!(
                instance.pending_tasks_count,
                Some(0),
                "{arn:?} has tasks pending"
            );
        }
    }
}

fn expect<T, E: std::fmt::Debug>(answer: Option<Result<T, E>>) -> T {
    answer
        .expect("the control plane is up")
        .expect("nothing is wrong with this call")
}
