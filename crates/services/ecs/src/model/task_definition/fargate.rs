//! What Fargate asks of a task definition that says it is for it.

use gantry_api::ecs::{
    Compatibility, ContainerDefinition, EcsError, IpcMode, NetworkMode, PidMode,
    RegisterTaskDefinitionRequest,
};

use super::super::absent::items;
use super::super::refusal::client;
use super::super::size::{parse_cpu, parse_memory};

/// CPU units, and the least, the greatest and the step of MiB that go with them.
const SIZES: [(i64, i64, i64, i64); 6] = [
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];

/// The smallest size does not follow a step.
const SMALLEST: (i64, [i64; 3]) = (256, [512, 1024, 2048]);

const STOP_TIMEOUT_S: std::ops::RangeInclusive<i32> = 2..=120;

pub(super) fn is_required(input: &RegisterTaskDefinitionRequest) -> bool {
    items(&input.requires_compatibilities).contains(&Compatibility::Fargate)
}

/// Whether Fargate has tasks of this size.
pub(super) fn is_size(cpu: i64, memory: i64) -> bool {
    if cpu == SMALLEST.0 {
        return SMALLEST.1.contains(&memory);
    }
    SIZES.iter().any(|&(units, least, greatest, step)| {
        cpu == units && (least..=greatest).contains(&memory) && (memory - least) % step == 0
    })
}

pub(super) fn validate(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    if input.network_mode != Some(NetworkMode::Awsvpc) {
        return Err(client("Fargate only supports network mode ‘awsvpc’."));
    }
    let Some(cpu) = input.cpu.as_deref().and_then(parse_cpu) else {
        return Err(client(
            "Fargate requires that 'cpu' be defined at the task level.",
        ));
    };
    let Some(memory) = input.memory.as_deref().and_then(parse_memory) else {
        return Err(client(
            "Fargate requires that 'memory' be defined at the task level.",
        ));
    };
    if !is_size(cpu, memory) {
        return Err(client(format!(
            "No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. See the Amazon ECS documentation for the valid values."
        )));
    }
    if let Some(obstacle) = obstacle(input) {
        return Err(client(format!("Fargate does not support {obstacle}.")));
    }
    if input.execution_role_arn.is_none() {
        let containers = &input.container_definitions;
        let ecr = |c: &ContainerDefinition| {
            c.image
                .as_deref()
                .is_some_and(super::capabilities::is_ecr_image)
        };
        if containers.iter().any(ecr) {
            return Err(client(
                "Fargate requires task definition to have execution role ARN to support ECR images.",
            ));
        }
        let awslogs = |c: &ContainerDefinition| {
            c.log_configuration
                .as_ref()
                .is_some_and(|log| log.log_driver.as_str() == "awslogs")
        };
        if containers.iter().any(awslogs) {
            return Err(client(
                "Fargate requires task definition to have execution role ARN to support log driver awslogs.",
            ));
        }
    }
    for container in &input.container_definitions {
        for (member, seconds) in [
            ("startTimeout", container.start_timeout),
            ("stopTimeout", container.stop_timeout),
        ] {
            if seconds.is_some_and(|seconds| !STOP_TIMEOUT_S.contains(&seconds)) {
                return Err(client(format!(
                    "Invalid '{member}' setting for container '{}': it must be between 2 and 120 seconds on Fargate.",
                    container.name.as_deref().unwrap_or_default()
                )));
            }
        }
    }
    Ok(())
}

/// The first thing in the definition that Fargate has not got. It also decides whether FARGATE is
/// among the `compatibilities` that the answer lists.
pub(super) fn obstacle(input: &RegisterTaskDefinitionRequest) -> Option<String> {
    if input.pid_mode == Some(PidMode::Host) {
        return Some("pidMode 'host'".to_owned());
    }
    if input.ipc_mode == Some(IpcMode::Host) {
        return Some("ipcMode 'host'".to_owned());
    }
    if !items(&input.placement_constraints).is_empty() {
        return Some("placement constraints".to_owned());
    }
    for volume in items(&input.volumes) {
        let on_the_host = volume
            .host
            .as_ref()
            .is_some_and(|host| host.source_path.is_some());
        if on_the_host || volume.docker_volume_configuration.is_some() {
            return Some("host.sourcePath and Docker volumes".to_owned());
        }
    }
    for container in &input.container_definitions {
        if container.privileged == Some(true) {
            return Some("privileged containers".to_owned());
        }
        if !items(&container.links).is_empty() {
            return Some("links".to_owned());
        }
        if !items(&container.resource_requirements).is_empty() {
            return Some("resourceRequirements".to_owned());
        }
        if container.disable_networking == Some(true) {
            return Some("disableNetworking".to_owned());
        }
        if !items(&container.docker_security_options).is_empty() {
            return Some("dockerSecurityOptions".to_owned());
        }
        if let Some(log) = &container.log_configuration
            && !matches!(
                log.log_driver.as_str(),
                "awslogs" | "splunk" | "awsfirelens"
            )
        {
            return Some(format!("log driver {}", log.log_driver));
        }
        if let Some(linux) = &container.linux_parameters {
            let no = [
                ("devices", !items(&linux.devices).is_empty()),
                ("sharedMemorySize", linux.shared_memory_size.is_some()),
                ("tmpfs", !items(&linux.tmpfs).is_empty()),
                ("maxSwap", linux.max_swap.is_some()),
                ("swappiness", linux.swappiness.is_some()),
            ];
            if let Some((member, _)) = no.iter().find(|(_, given)| *given) {
                return Some(format!("linuxParameters.{member}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::is_size;

    #[test]
    fn the_sizes_are_those_of_the_table() {
        let gb = |n: i64| n * 1024;
        for (cpu, memory) in [
            (256, 512),
            (256, gb(2)),
            (512, gb(1)),
            (512, gb(4)),
            (1024, gb(8)),
            (2048, gb(16)),
        ] {
            assert!(is_size(cpu, memory), "{cpu} {memory}");
        }
        for (cpu, memory) in [
            (4096, gb(30)),
            (8192, gb(16)),
            (8192, gb(60)),
            (16_384, gb(120)),
        ] {
            assert!(is_size(cpu, memory), "{cpu} {memory}");
        }
        for (cpu, memory) in [
            (256, gb(3)),
            (512, 512),
            (512, 1536),
            (8192, gb(18)),
            (16_384, gb(36)),
            (300, gb(1)),
            (4096, gb(31)),
        ] {
            assert!(!is_size(cpu, memory), "{cpu} {memory}");
        }
    }
}
