//! What a task definition says of the task as a whole.

use gantry_api::ecs::{ContainerDefinition, EcsError, NetworkMode, RegisterTaskDefinitionRequest};

use super::super::absent::items;
use super::super::refusal::client;
use super::super::size::{TASK_CPU_UNITS, parse_cpu, parse_memory};
use super::super::tags;
use super::container::is_name;

const PLACEMENT_CONSTRAINTS_MAX: usize = 10;

pub(super) fn validate_names(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    if input.family.is_empty() {
        return Err(client("Family should not be null or empty."));
    }
    if !is_name(&input.family) {
        return Err(client("Family contains invalid characters."));
    }
    for role in [&input.task_role_arn, &input.execution_role_arn]
        .into_iter()
        .flatten()
    {
        if !role.is_empty() && !is_role(role) {
            return Err(client("Role is not valid"));
        }
    }
    tags::validate(items(&input.tags))
}

pub(super) fn validate(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    validate_sizes(input)?;
    validate_placement_constraints(input)?;
    if let Some(storage) = &input.ephemeral_storage
        && !(21..=200).contains(&storage.size_in_gi_b)
    {
        return Err(client(
            "Ephemeral storage size must be between 21 and 200 GiB.",
        ));
    }
    if let Some(proxy) = &input.proxy_configuration {
        if input.network_mode != Some(NetworkMode::Awsvpc) {
            return Err(client(
                "proxyConfiguration is only supported when networkMode=awsvpc.",
            ));
        }
        let known = |container: &ContainerDefinition| {
            container.name.as_deref() == Some(proxy.container_name.as_str())
        };
        if !input.container_definitions.iter().any(known) {
            return Err(client(format!(
                "Container '{}' of the proxyConfiguration is not in the task definition.",
                proxy.container_name
            )));
        }
    }
    Ok(())
}

/// A role's ARN or, as AWS accepts for the task's own role, its name.
pub(crate) fn is_role(role: &str) -> bool {
    let is_role_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 64
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
    };
    match role.parse::<gantry_arn::Arn>() {
        Ok(arn) => {
            let name = arn
                .resource
                .strip_prefix("role/")
                .and_then(|path| path.rsplit('/').next());
            arn.service == "iam" && arn.account_id().is_some() && name.is_some_and(is_role_name)
        }
        Err(_) => is_role_name(role),
    }
}

fn validate_sizes(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    const SEE: &str =
        "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.";
    if let Some(cpu) = &input.cpu {
        let units = parse_cpu(cpu).filter(|units| TASK_CPU_UNITS.contains(units));
        let Some(units) = units else {
            return Err(client(format!("Invalid 'cpu' setting for task. {SEE}")));
        };
        let sum: i64 = input
            .container_definitions
            .iter()
            .map(|c| i64::from(c.cpu.unwrap_or(0)))
            .sum();
        if sum > units {
            return Err(client(
                "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.",
            ));
        }
    }
    if let Some(memory) = &input.memory {
        let Some(mib) = parse_memory(memory).filter(|mib| *mib >= 6) else {
            return Err(client(format!("Invalid 'memory' setting for task. {SEE}")));
        };
        for container in &input.container_definitions {
            if container.memory.is_some_and(|hard| i64::from(hard) > mib) {
                return Err(client(format!(
                    "Invalid setting for container '{}'. 'memory' cannot be greater than the value of the task 'memory'.",
                    container.name.as_deref().unwrap_or_default()
                )));
            }
        }
        let reserved: i64 = input
            .container_definitions
            .iter()
            .map(|c| i64::from(c.memory_reservation.or(c.memory).unwrap_or(0)))
            .sum();
        if reserved > mib {
            return Err(client(
                "The sum of all container 'memory' values cannot be greater than the value of the task 'memory'.",
            ));
        }
    }
    Ok(())
}

fn validate_placement_constraints(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    if items(&input.placement_constraints).len() > PLACEMENT_CONSTRAINTS_MAX {
        return Err(client(format!(
            "Too many placement constraints. The maximum is {PLACEMENT_CONSTRAINTS_MAX}."
        )));
    }
    for constraint in items(&input.placement_constraints) {
        if constraint.r#type.is_none() {
            return Err(client(
                "The type of a placement constraint should not be null.",
            ));
        }
        if constraint
            .expression
            .as_deref()
            .unwrap_or_default()
            .trim()
            .is_empty()
        {
            return Err(client(
                "The expression of a memberOf placement constraint should not be null or empty.",
            ));
        }
        let expression = constraint.expression.as_deref().unwrap_or_default();
        if let Err(error) = gantry_placement::query::parse(expression) {
            return Err(client(error.to_string()));
        }
    }
    Ok(())
}
