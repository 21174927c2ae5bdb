//! What a container instance must be able to do for a task definition: `requiresAttributes`.
//!
//! An agent registers the attributes of what it can do; a placement finds the instances that have
//! all of them. The names are the Amazon ECS agent's, so that agent and Gantry's are interchangeable.

use std::collections::BTreeSet;

use gantry_api::ecs::{
    Attribute, Compatibility, ContainerDefinition, NetworkMode, RegisterTaskDefinitionRequest,
};

use super::super::absent::items;
use super::fargate;

/// Whether the image is one of an ECR registry, which is pulled with a token of the API's.
pub fn is_ecr_image(image: &str) -> bool {
    let host = image.split('/').next().unwrap_or_default();
    host.contains(".dkr.ecr.") || host.contains(".dkr-ecr.")
}

/// The attributes that an instance needs, in a fixed order.
pub fn required_attributes(input: &RegisterTaskDefinitionRequest) -> Vec<Attribute> {
    let mut names = BTreeSet::new();
    let with_execution_role = input.execution_role_arn.is_some();
    if input.task_role_arn.is_some() {
        names.insert(match input.network_mode {
            Some(NetworkMode::Host) => "com.amazonaws.ecs.capability.task-iam-role-network-host",
            _ => "com.amazonaws.ecs.capability.task-iam-role",
        });
        names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.17");
    }
    if input.network_mode == Some(NetworkMode::Awsvpc) {
        names.insert("ecs.capability.task-eni");
        names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.17");
    }
    if input.pid_mode.is_some() || input.ipc_mode.is_some() {
        names.insert("ecs.capability.pid-ipc-namespace-sharing");
    }
    for volume in items(&input.volumes) {
        if volume.efs_volume_configuration.is_some() {
            names.insert("ecs.capability.efs");
        }
        if volume.docker_volume_configuration.is_some() {
            names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.25");
        }
    }
    for container in &input.container_definitions {
        of_container(container, with_execution_role, &mut names);
    }
    let attribute = |name: &str| Attribute {
        name: name.to_owned(),
        ..Attribute::default()
    };
    let mut attributes: Vec<Attribute> = names.into_iter().map(attribute).collect();
    for driver in log_drivers(input) {
        attributes.push(Attribute {
            name: format!("com.amazonaws.ecs.capability.logging-driver.{driver}"),
            ..Attribute::default()
        });
    }
    attributes
}

fn log_drivers(input: &RegisterTaskDefinitionRequest) -> BTreeSet<&str> {
    input
        .container_definitions
        .iter()
        .filter_map(|container| container.log_configuration.as_ref())
        .map(|log| log.log_driver.as_str())
        .collect()
}

fn of_container(
    container: &ContainerDefinition,
    with_execution_role: bool,
    names: &mut BTreeSet<&'static str>,
) {
    if container.privileged == Some(true) {
        names.insert("com.amazonaws.ecs.capability.privileged-container");
    }
    if container.memory_reservation.is_some() {
        names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.21");
    }
    if container.image.as_deref().is_some_and(is_ecr_image) {
        names.insert("com.amazonaws.ecs.capability.ecr-auth");
        names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.19");
        if with_execution_role {
            names.insert("ecs.capability.execution-role-ecr-pull");
        }
    }
    if container.repository_credentials.is_some() {
        names.insert("ecs.capability.private-registry-authentication.secretsmanager");
    }
    if container.health_check.is_some() {
        names.insert("ecs.capability.container-health-check");
        names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.24");
    }
    if !items(&container.depends_on).is_empty() {
        names.insert("ecs.capability.container-ordering");
    }
    if container
        .restart_policy
        .as_ref()
        .is_some_and(|policy| policy.enabled)
    {
        names.insert("ecs.capability.container-restart-policy");
    }
    if !items(&container.environment_files).is_empty() {
        names.insert("ecs.capability.env-files.s3");
    }
    for secret in items(&container.secrets) {
        names.insert(match secret.value_from.contains(":secretsmanager:") {
            true => "ecs.capability.secrets.asm.environment-variables",
            false => "ecs.capability.secrets.ssm.environment-variables",
        });
    }
    if let Some(linux) = &container.linux_parameters {
        if linux.init_process_enabled == Some(true) {
            names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.25");
        }
        if !items(&linux.tmpfs).is_empty() || linux.shared_memory_size.is_some() {
            names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.22");
        }
    }
    if let Some(firelens) = &container.firelens_configuration {
        names.insert(match firelens.r#type.as_str() {
            "fluentd" => "ecs.capability.firelens.fluentd",
            _ => "ecs.capability.firelens.fluentbit",
        });
    }
    if let Some(log) = &container.log_configuration {
        names.insert("com.amazonaws.ecs.capability.docker-remote-api.1.18");
        if log.log_driver.as_str() == "awslogs" && with_execution_role {
            names.insert("ecs.capability.execution-role-awslogs");
        }
    }
}

/// The launch types that could run the definition, whatever it says it requires.
pub fn compatibilities(input: &RegisterTaskDefinitionRequest) -> Vec<Compatibility> {
    let awsvpc = input.network_mode == Some(NetworkMode::Awsvpc);
    let mut compatibilities = Vec::new();
    if !awsvpc {
        compatibilities.push(Compatibility::External);
    }
    compatibilities.push(Compatibility::Ec2);
    let parse = |text: &Option<String>, read: fn(&str) -> Option<i64>| {
        text.as_deref().and_then(read).unwrap_or(0)
    };
    let sized = fargate::is_size(
        parse(&input.cpu, super::super::size::parse_cpu),
        parse(&input.memory, super::super::size::parse_memory),
    );
    if awsvpc && sized && fargate::obstacle(input).is_none() {
        compatibilities.push(Compatibility::Fargate);
    }
    compatibilities
}
