//! How the world begins, and how it must look when it is over: the cluster and its instances.

use gantry_api::ecs;
use gantry_arn::{Arn, ClusterName};

use crate::chance::Chance;
use crate::control::ControlPlane;

pub fn cluster_arn(control: &ControlPlane) -> String {
    let (account, region) = control.place();
    let cluster: ClusterName = "default".parse().expect("a cluster's name");
    Arn::cluster(region, account, &cluster).to_string()
}

/// The cluster `default`; `work:1` of one container, `work:2` of two of which one may end before.
pub fn cluster_and_definitions(control: &ControlPlane) {
    let request = ecs::CreateClusterRequest::default();
    expect(control.call(|ecs, ctx| async move { ecs.create_cluster(&ctx, request).await }));
    let main = container("main", true);
    let definitions = [
        (ecs::NetworkMode::Host, vec![main.clone()]),
        (ecs::NetworkMode::None, vec![main, container("side", false)]),
    ];
    for (network_mode, container_definitions) in definitions {
        let request = ecs::RegisterTaskDefinitionRequest {
            family: "work".to_owned(),
            network_mode: Some(network_mode),
            container_definitions,
            ..Default::default()
        };
        expect(
            control
                .call(|ecs, ctx| async move { ecs.register_task_definition(&ctx, request).await }),
        );
    }
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

/// A machine from too small for any task to large enough for five.
pub fn container_instance(
    control: &ControlPlane,
    number: usize,
    chance: &mut Chance,
) -> ecs::ContainerInstance {
    let cpu = 128 + 128 * chance.below(8) as i32;
    let memory = 256 + 256 * chance.below(7) as i32;
    let resource = |name: &str, value| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        integer_value: Some(value),
        ..Default::default()
    };
    let request = ecs::RegisterContainerInstanceRequest {
        total_resources: Some(vec![resource("CPU", cpu), resource("MEMORY", memory)]),
        attributes: Some(vec![ecs::Attribute {
            name: "machine".to_owned(),
            value: Some(number.to_string()),
            ..Default::default()
        }]),
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
