//! One container definition by itself, and what container definitions must not share.

use std::collections::BTreeSet;

use gantry_api::ecs::{ContainerDefinition, EcsError, RegisterTaskDefinitionRequest};

use super::super::refusal::client;

/// Docker gives a container no less than this.
const MEMORY_MIB_MIN: i32 = 6;
const CPU_UNITS_MAX: i32 = 196_608;
const NAME_LENGTH_MAX: usize = 255;
const IMAGE_LENGTH_MAX: usize = 255;

/// ECS's rule for the names of containers and volumes.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= NAME_LENGTH_MAX
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// ECS's rule for images: a repository, with registry, tag and digest where given.
fn is_image(image: &str) -> bool {
    image.len() <= IMAGE_LENGTH_MAX
        && image.bytes().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'-' | b'_' | b':' | b'.' | b'/' | b'#' | b'@' | b'+')
        })
}

pub(super) fn validate(
    input: &RegisterTaskDefinitionRequest,
    container: &ContainerDefinition,
) -> Result<(), EcsError> {
    let name = container.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(client("Container.name should not be null or empty."));
    }
    if !is_name(name) {
        return Err(client("Container.name contains invalid characters."));
    }
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        return Err(client("Container.image should not be null or empty."));
    }
    if !is_image(image) {
        return Err(client("Container.image contains invalid characters."));
    }
    validate_sizes(input, container, name)?;
    super::container_settings::validate(input, container, name)
}

fn validate_sizes(
    input: &RegisterTaskDefinitionRequest,
    container: &ContainerDefinition,
    name: &str,
) -> Result<(), EcsError> {
    if !(0..=CPU_UNITS_MAX).contains(&container.cpu.unwrap_or(0)) {
        return Err(client(format!(
            "Invalid 'cpu' setting for container '{name}'."
        )));
    }
    let sizes = [
        ("memory", container.memory),
        ("memoryReservation", container.memory_reservation),
    ];
    for (member, size) in sizes {
        if size.is_some_and(|mib| mib < MEMORY_MIB_MIN) {
            return Err(client(format!(
                "Invalid '{member}' setting for container '{name}'. The minimum is {MEMORY_MIB_MIN} MiB."
            )));
        }
    }
    match (container.memory, container.memory_reservation) {
        (None, None) if input.memory.is_none() => Err(client(format!(
            "Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be specified."
        ))),
        (Some(hard), Some(soft)) if soft > hard => Err(client(format!(
            "Invalid setting for container '{name}'. 'memory' must be greater than or equal to 'memoryReservation'."
        ))),
        _ => Ok(()),
    }
}

/// Rules over all containers of the task.
pub(super) fn validate_together(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    let containers = &input.container_definitions;
    let names: BTreeSet<&str> = containers
        .iter()
        .filter_map(|c| c.name.as_deref())
        .collect();
    if names.len() < containers.len() {
        return Err(client(
            "Container names must be unique within a Task Definition.",
        ));
    }
    if !containers
        .iter()
        .any(|container| container.essential != Some(false))
    {
        return Err(client(
            "Task definition doesn't have any essential container.",
        ));
    }
    let routers = containers
        .iter()
        .filter(|c| c.firelens_configuration.is_some())
        .count();
    if routers > 1 {
        return Err(client(
            "Only one container with a firelensConfiguration is allowed.",
        ));
    }
    let ships_to_router = containers.iter().any(|container| {
        container
            .log_configuration
            .as_ref()
            .is_some_and(|log| log.log_driver.as_str() == "awsfirelens")
    });
    if ships_to_router && routers == 0 {
        return Err(client(
            "When a container uses log driver awsfirelens, the task definition must have a container with a firelensConfiguration.",
        ));
    }
    Ok(())
}
