//! A request made into the definition that is stored: AWS's defaults filled in, everything else
//! as it came.

use gantry_api::ecs::{
    ContainerDefinition, NetworkMode, PortMapping, RegisterTaskDefinitionRequest, TaskDefinition,
    TaskDefinitionStatus, TransportProtocol,
};
use gantry_env::Timestamp;

use super::super::size::{parse_cpu, parse_memory};
use super::capabilities::{compatibilities, required_attributes};

/// Which revision it becomes, when, and by whom.
#[derive(Debug, Clone)]
pub struct Registration {
    pub arn: String,
    pub revision: u32,
    pub registered_at: Timestamp,
    pub registered_by: String,
}

/// The definition, ACTIVE. The request must have been validated.
pub fn definition(
    input: RegisterTaskDefinitionRequest,
    registration: Registration,
) -> TaskDefinition {
    let requires_attributes = required_attributes(&input);
    let compatibilities = compatibilities(&input);
    let mode = input.network_mode.clone();
    let containers = input
        .container_definitions
        .into_iter()
        .map(|container| with_defaults(container, mode.as_ref()))
        .collect();
    TaskDefinition {
        task_definition_arn: Some(registration.arn),
        container_definitions: Some(containers),
        family: Some(input.family),
        task_role_arn: input.task_role_arn,
        execution_role_arn: input.execution_role_arn,
        network_mode: input.network_mode,
        revision: i32::try_from(registration.revision).ok(),
        volumes: Some(input.volumes.unwrap_or_default()),
        status: Some(TaskDefinitionStatus::Active),
        requires_attributes: (!requires_attributes.is_empty()).then_some(requires_attributes),
        placement_constraints: Some(input.placement_constraints.unwrap_or_default()),
        compatibilities: Some(compatibilities),
        runtime_platform: input.runtime_platform,
        requires_compatibilities: input.requires_compatibilities,
        // However it was written, a size is answered as a number of units or MiB.
        cpu: input
            .cpu
            .map(|cpu| parse_cpu(&cpu).map_or(cpu, |units| units.to_string())),
        memory: input
            .memory
            .map(|memory| parse_memory(&memory).map_or(memory, |mib| mib.to_string())),
        inference_accelerators: input.inference_accelerators,
        pid_mode: input.pid_mode,
        ipc_mode: input.ipc_mode,
        proxy_configuration: input.proxy_configuration,
        registered_at: Some(registration.registered_at),
        registered_by: Some(registration.registered_by),
        ephemeral_storage: input.ephemeral_storage,
        enable_fault_injection: input.enable_fault_injection,
        trusted_execution_configuration: input.trusted_execution_configuration,
        deregistered_at: None,
        delete_requested_at: None,
    }
}

fn with_defaults(
    mut container: ContainerDefinition,
    mode: Option<&NetworkMode>,
) -> ContainerDefinition {
    container.cpu.get_or_insert(0);
    container.essential.get_or_insert(true);
    container.environment.get_or_insert_default();
    container.mount_points.get_or_insert_default();
    container.volumes_from.get_or_insert_default();
    container.system_controls.get_or_insert_default();
    for mapping in container.port_mappings.get_or_insert_default() {
        default_ports(mapping, mode);
    }
    if let Some(check) = &mut container.health_check {
        check.interval.get_or_insert(30);
        check.timeout.get_or_insert(5);
        check.retries.get_or_insert(3);
    }
    container
}

fn default_ports(mapping: &mut PortMapping, mode: Option<&NetworkMode>) {
    mapping.protocol.get_or_insert(TransportProtocol::Tcp);
    if mapping.container_port_range.is_some() {
        return;
    }
    match mode {
        // Where there is one network, the host's port is the container's.
        Some(NetworkMode::Awsvpc | NetworkMode::Host) => {
            if mapping.host_port.unwrap_or(0) == 0 {
                mapping.host_port = mapping.container_port;
            }
        }
        _ => {
            mapping.host_port.get_or_insert(0);
        }
    }
}
