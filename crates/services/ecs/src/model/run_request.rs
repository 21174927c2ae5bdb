//! Whether a RunTask can be done at all: AWS's rules for its parameters, and a plain word for what
//! Gantry does not have yet. Nothing of a request is ignored in silence.

use gantry_api::ecs::{
    Compatibility, EcsError, LaunchType, NetworkMode, PlacementConstraintType,
    PlacementStrategyType, PropagateTags, RunTaskRequest, Tag, TaskDefinition,
    TaskDefinitionStatus,
};
use gantry_arn::ClusterName;
use gantry_placement::{Constraint, Resource, Strategy, query};

use super::absent::items;
use super::refusal::{client, invalid, not_built};
use super::tags;

const TASKS_AT_ONCE_MAX: i32 = 10;
const STARTED_BY_LENGTH_MAX: usize = 128;
const GROUP_LENGTH_MAX: usize = 255;
const REFERENCE_ID_LENGTH_MAX: usize = 1024;
const CLIENT_TOKEN_LENGTH_MAX: usize = 64;
const CONSTRAINTS_MAX: usize = 10;
const STRATEGIES_MAX: usize = 5;

/// What can be checked without any row.
pub fn validate(input: &RunTaskRequest) -> Result<(), EcsError> {
    if !(1..=TASKS_AT_ONCE_MAX).contains(&input.count.unwrap_or(1)) {
        return Err(invalid(format!(
            "Count must be between 1 and {TASKS_AT_ONCE_MAX}."
        )));
    }
    validate_texts(input)?;
    tags::validate(items(&input.tags))?;
    if !items(&input.capacity_provider_strategy).is_empty() {
        if input.launch_type.is_some() {
            return Err(invalid(
                "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
            ));
        }
        return Err(not_built("capacityProviderStrategy"));
    }
    match input.launch_type.as_ref().unwrap_or(&LaunchType::Ec2) {
        LaunchType::Ec2 | LaunchType::External => {}
        other => return Err(not_built(&format!("Launch type {other}"))),
    }
    if input
        .platform_version
        .as_ref()
        .is_some_and(|version| !version.is_empty())
    {
        return Err(invalid(
            "The platform version must be null when specifying an EC2 launch type.",
        ));
    }
    if input.enable_execute_command == Some(true) {
        return Err(not_built("enableExecuteCommand"));
    }
    if !items(&input.volume_configurations).is_empty() {
        return Err(not_built("volumeConfigurations (EBS volumes)"));
    }
    if input.propagate_tags == Some(PropagateTags::Service) {
        return Err(invalid(
            "Invalid value SERVICE for propagateTags: the task is not part of a service.",
        ));
    }
    Ok(())
}

fn validate_texts(input: &RunTaskRequest) -> Result<(), EcsError> {
    let is_word = |text: &str, more: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    if let Some(by) = &input.started_by
        && (by.len() > STARTED_BY_LENGTH_MAX || !is_word(by, "-_/@.:+="))
    {
        return Err(invalid(format!(
            "startedBy must have at most {STARTED_BY_LENGTH_MAX} letters, digits, hyphens, slashes and underscores."
        )));
    }
    if let Some(group) = input.group.as_ref().filter(|group| !group.is_empty()) {
        if group.len() > GROUP_LENGTH_MAX || !is_word(group, "-_:/.@") {
            return Err(invalid("Invalid task group."));
        }
        if group.starts_with("service:") {
            return Err(invalid(
                "Invalid namespace for group: 'service' is reserved.",
            ));
        }
    }
    if let Some(id) = &input.reference_id
        && id.chars().count() > REFERENCE_ID_LENGTH_MAX
    {
        return Err(invalid(format!(
            "referenceId must have at most {REFERENCE_ID_LENGTH_MAX} characters."
        )));
    }
    if let Some(token) = input
        .client_token
        .as_ref()
        .filter(|token| !token.is_empty())
    {
        let printable = token.bytes().all(|b| (33..=126).contains(&b));
        if token.len() > CLIENT_TOKEN_LENGTH_MAX || !printable {
            return Err(invalid(format!(
                "clientToken must have at most {CLIENT_TOKEN_LENGTH_MAX} printable ASCII characters."
            )));
        }
    }
    Ok(())
}

/// What the request must agree on with its task definition.
pub fn validate_with(input: &RunTaskRequest, definition: &TaskDefinition) -> Result<(), EcsError> {
    if definition.status != Some(TaskDefinitionStatus::Active) {
        return Err(client("TaskDefinition is inactive"));
    }
    let requires = items(&definition.requires_compatibilities);
    let launch_type = input.launch_type.as_ref().unwrap_or(&LaunchType::Ec2);
    let compatibility = match launch_type {
        LaunchType::External => Compatibility::External,
        _ => Compatibility::Ec2,
    };
    if !requires.is_empty() && !requires.contains(&compatibility) {
        return Err(invalid(format!(
            "Task definition does not support launch_type {launch_type}."
        )));
    }
    let awsvpc = definition.network_mode == Some(NetworkMode::Awsvpc);
    match (awsvpc, input.network_configuration.is_some()) {
        (true, false) => Err(invalid(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        )),
        (false, true) => Err(invalid(
            "Network Configuration is not valid for the given networkMode of this task definition.",
        )),
        (true, true) => Err(not_built("Network mode awsvpc")),
        (false, false) => Ok(()),
    }
}

pub fn constraints(input: &RunTaskRequest) -> Result<Vec<Constraint>, EcsError> {
    let given = items(&input.placement_constraints);
    if given.len() > CONSTRAINTS_MAX {
        return Err(invalid(format!(
            "Too many placement constraints. The maximum is {CONSTRAINTS_MAX}."
        )));
    }
    let mut constraints = Vec::new();
    for constraint in given {
        match &constraint.r#type {
            Some(PlacementConstraintType::DistinctInstance)
                if constraint
                    .expression
                    .as_ref()
                    .is_some_and(|e| !e.is_empty()) =>
            {
                return Err(invalid(
                    "A distinctInstance placement constraint does not take an expression.",
                ));
            }
            Some(PlacementConstraintType::DistinctInstance) => {
                constraints.push(Constraint::DistinctInstance);
            }
            Some(PlacementConstraintType::MemberOf) => {
                constraints.push(member_of(constraint.expression.as_deref())?);
            }
            _ => {
                return Err(invalid(
                    "The type of a placement constraint should not be null.",
                ));
            }
        }
    }
    Ok(constraints)
}

/// The constraints that every task of the definition has. It was checked when it was registered.
pub fn definition_constraints(definition: &TaskDefinition) -> Result<Vec<Constraint>, EcsError> {
    items(&definition.placement_constraints)
        .iter()
        .map(|constraint| member_of(constraint.expression.as_deref()))
        .collect()
}

/// A memberOf constraint, from an expression of the cluster query language.
pub fn member_of(expression: Option<&str>) -> Result<Constraint, EcsError> {
    let text = expression.filter(|text| !text.trim().is_empty());
    let Some(text) = text else {
        return Err(invalid(
            "A memberOf placement constraint requires an expression.",
        ));
    };
    match query::parse(text) {
        Ok(expression) => Ok(Constraint::MemberOf(expression)),
        Err(error) => Err(invalid(error.to_string())),
    }
}

pub fn strategies(input: &RunTaskRequest) -> Result<Vec<Strategy>, EcsError> {
    let given = items(&input.placement_strategy);
    if given.len() > STRATEGIES_MAX {
        return Err(invalid(format!(
            "Too many placement strategies. The maximum is {STRATEGIES_MAX}."
        )));
    }
    let mut strategies = Vec::new();
    for strategy in given {
        let field = strategy.field.as_deref().unwrap_or_default();
        strategies.push(match &strategy.r#type {
            Some(PlacementStrategyType::Random) if field.is_empty() => Strategy::Random,
            Some(PlacementStrategyType::Random) => {
                return Err(invalid("Placement strategy random does not take a field."));
            }
            Some(PlacementStrategyType::Spread) => match field {
                "" => {
                    return Err(invalid("Placement strategy spread requires a field."));
                }
                "instanceId" | "host" => Strategy::SpreadByInstance,
                attribute => {
                    let name = attribute.strip_prefix("attribute:").unwrap_or(attribute);
                    Strategy::SpreadByAttribute(name.to_owned())
                }
            },
            Some(PlacementStrategyType::Binpack) => match field.to_ascii_lowercase().as_str() {
                "cpu" => Strategy::Binpack(Resource::Cpu),
                "memory" => Strategy::Binpack(Resource::Memory),
                _ => {
                    return Err(invalid(
                        "Placement strategy binpack requires the field cpu or memory.",
                    ));
                }
            },
            _ => {
                return Err(invalid(
                    "The type of a placement strategy should not be null.",
                ));
            }
        });
    }
    Ok(strategies)
}

/// The tags of the tasks: the request's over the definition's, and AWS's own where asked for.
pub fn task_tags(
    input: &RunTaskRequest,
    definition_tags: &[Tag],
    cluster: &ClusterName,
) -> Result<Vec<Tag>, EcsError> {
    let propagated = match input.propagate_tags {
        Some(PropagateTags::TaskDefinition) => definition_tags,
        _ => &[],
    };
    let mut merged = tags::merge(propagated, items(&input.tags));
    tags::validate_count(merged.len())?;
    if input.enable_ecs_managed_tags == Some(true) {
        merged.push(Tag {
            key: Some("aws:ecs:clusterName".to_owned()),
            value: Some(cluster.to_string()),
        });
    }
    Ok(merged)
}
