//! What a RunTask overrides of its task definition, and what the task then takes.

use std::collections::BTreeSet;

use gantry_api::ecs::{
    ContainerDefinition, ContainerOverride, EcsError, NetworkMode, TaskDefinition, TaskOverride,
};

use super::absent::items;
use super::refusal::{client, invalid};
use super::size::{TASK_CPU_UNITS, parse_cpu, parse_memory};
use super::task_definition::is_role;
use super::task_definition::network::{host_port, protocol};
use crate::tables::Reserved;

/// AWS's limit of all overrides together, as JSON.
const OVERRIDES_BYTES_MAX: usize = 8192;
const MEMORY_MIB_MIN: i32 = 6;

/// Checks overrides against the definition that they override.
pub fn validate(overrides: &TaskOverride, definition: &TaskDefinition) -> Result<(), EcsError> {
    let bytes = serde_json::to_vec(overrides).map_or(0, |json| json.len());
    if bytes > OVERRIDES_BYTES_MAX {
        return Err(invalid(format!(
            "Container Overrides length must be at most {OVERRIDES_BYTES_MAX}"
        )));
    }
    let containers = items(&definition.container_definitions);
    let mut seen = BTreeSet::new();
    for container in items(&overrides.container_overrides) {
        let name = container.name.as_deref().unwrap_or_default();
        if !containers
            .iter()
            .any(|defined| defined.name.as_deref() == Some(name))
        {
            return Err(invalid(format!(
                "Override for container named {name} is not a container in the TaskDefinition."
            )));
        }
        if !seen.insert(name) {
            return Err(invalid(format!(
                "Container named {name} is overridden more than once."
            )));
        }
        validate_container(container, name)?;
    }
    for role in [&overrides.task_role_arn, &overrides.execution_role_arn]
        .into_iter()
        .flatten()
    {
        if !is_role(role) {
            return Err(client("Role is not valid"));
        }
    }
    if let Some(cpu) = &overrides.cpu
        && !parse_cpu(cpu).is_some_and(|units| TASK_CPU_UNITS.contains(&units))
    {
        return Err(client("Invalid 'cpu' setting for task."));
    }
    if let Some(memory) = &overrides.memory
        && parse_memory(memory).is_none_or(|mib| mib < i64::from(MEMORY_MIB_MIN))
    {
        return Err(client("Invalid 'memory' setting for task."));
    }
    if overrides.ephemeral_storage.is_some() {
        return Err(invalid(
            "ephemeralStorage can only be overridden for FARGATE tasks.",
        ));
    }
    if !items(&overrides.inference_accelerator_overrides).is_empty() {
        return Err(super::refusal::not_built("inferenceAcceleratorOverrides"));
    }
    Ok(())
}

fn validate_container(container: &ContainerOverride, name: &str) -> Result<(), EcsError> {
    if container.cpu.is_some_and(|units| units < 0) {
        return Err(client(format!(
            "Invalid 'cpu' setting for container '{name}'."
        )));
    }
    for (member, mib) in [
        ("memory", container.memory),
        ("memoryReservation", container.memory_reservation),
    ] {
        if mib.is_some_and(|mib| mib < MEMORY_MIB_MIN) {
            return Err(client(format!(
                "Invalid '{member}' setting for container '{name}'. The minimum is {MEMORY_MIB_MIN} MiB."
            )));
        }
    }
    let nameless = |variable: &gantry_api::ecs::KeyValuePair| {
        variable.name.as_deref().unwrap_or_default().is_empty()
    };
    if items(&container.environment).iter().any(nameless) {
        return Err(client(format!(
            "Invalid 'environment' setting for container '{name}': the name should not be null or empty."
        )));
    }
    Ok(())
}

/// As AWS returns overrides: every container of the definition is named.
pub fn normalized(overrides: Option<TaskOverride>, definition: &TaskDefinition) -> TaskOverride {
    let mut overrides = overrides.unwrap_or_default();
    let mut given = overrides.container_overrides.take().unwrap_or_default();
    let named = items(&definition.container_definitions)
        .iter()
        .map(|defined| {
            match given
                .iter()
                .position(|container| container.name == defined.name)
            {
                Some(at) => given.swap_remove(at),
                None => ContainerOverride {
                    name: defined.name.clone(),
                    ..Default::default()
                },
            }
        });
    overrides.container_overrides = Some(named.collect());
    overrides
        .inference_accelerator_overrides
        .get_or_insert_default();
    overrides
}

/// What one task takes of its container instance. `overrides` are normalized.
pub fn reserved(definition: &TaskDefinition, overrides: &TaskOverride, group: &str) -> Reserved {
    let containers = items(&definition.container_definitions);
    let overridden = |defined: &ContainerDefinition| {
        items(&overrides.container_overrides)
            .iter()
            .find(|container| container.name == defined.name)
    };
    let cpu = |defined: &ContainerDefinition| {
        overridden(defined)
            .and_then(|o| o.cpu)
            .or(defined.cpu)
            .map_or(0, i64::from)
    };
    // The soft limit is what is set aside; a hard limit alone counts whole.
    let memory = |defined: &ContainerDefinition| {
        let o = overridden(defined);
        let soft = o
            .and_then(|o| o.memory_reservation)
            .or(defined.memory_reservation);
        let hard = o.and_then(|o| o.memory).or(defined.memory);
        soft.or(hard).map_or(0, i64::from)
    };
    let task_cpu = overrides
        .cpu
        .as_deref()
        .or(definition.cpu.as_deref())
        .and_then(parse_cpu);
    let task_memory = overrides
        .memory
        .as_deref()
        .or(definition.memory.as_deref())
        .and_then(parse_memory);
    let mut reserved = Reserved {
        cpu: task_cpu.unwrap_or_else(|| containers.iter().map(cpu).sum()),
        memory: task_memory.unwrap_or_else(|| containers.iter().map(memory).sum()),
        group: group.to_owned(),
        ..Reserved::default()
    };
    let mode = definition
        .network_mode
        .clone()
        .unwrap_or(NetworkMode::Bridge);
    for mapping in containers
        .iter()
        .flat_map(|container| items(&container.port_mappings))
    {
        // In awsvpc mode a task's ports are on an address of its own.
        let port = match mode {
            NetworkMode::Awsvpc | NetworkMode::None => 0,
            _ => host_port(mapping, &mode),
        };
        if let Ok(port @ 1..) = u16::try_from(port) {
            match protocol(mapping) {
                "udp" => reserved.udp_ports.push(port),
                _ => reserved.tcp_ports.push(port),
            }
        }
    }
    reserved
}
