//! Whether a service can be what a request asks for: AWS's rules, and a plain word for what Gantry
//! does not have yet. Nothing of a request is ignored in silence.

use std::sync::LazyLock;

use gantry_api::ecs::{
    CreateServiceRequest, DeploymentConfiguration, DeploymentController, DeploymentControllerType,
    DeploymentStrategy, EcsError, LaunchType, PlacementConstraint, PlacementStrategy,
    RunTaskRequest, SchedulingStrategy, TaskDefinition, UpdateServiceRequest,
};
use gantry_placement::{Constraint, Strategy};

use super::scheduling::{placement_strategy, validate_daemon, validate_percents};
use super::strategy;
use crate::model::absent::items;
use crate::model::refusal::{invalid, not_built};
use crate::model::{run_request, tags};

pub const DESIRED_MAX: i32 = 10_000;
const MINIMUM_DEFAULT: i32 = 100;
const MAXIMUM_DEFAULT: i32 = 200;
/// A daemon's minimum and maximum.
const DAEMON_DEFAULTS: (i32, i32) = (0, 100);
const CLIENT_TOKEN_LENGTH_MAX: usize = 36;

/// The configuration of a service that names none.
fn default_configuration(scheduling: &SchedulingStrategy) -> DeploymentConfiguration {
    let mut configuration = DEFAULT_CONFIGURATION.clone();
    if *scheduling == SchedulingStrategy::Daemon {
        configuration.minimum_healthy_percent = Some(DAEMON_DEFAULTS.0);
        configuration.maximum_percent = Some(DAEMON_DEFAULTS.1);
    }
    configuration
}

static DEFAULT_CONFIGURATION: LazyLock<DeploymentConfiguration> =
    LazyLock::new(|| DeploymentConfiguration {
        deployment_circuit_breaker: Some(gantry_api::ecs::DeploymentCircuitBreaker {
            enable: false,
            rollback: false,
            ..Default::default()
        }),
        maximum_percent: Some(MAXIMUM_DEFAULT),
        minimum_healthy_percent: Some(MINIMUM_DEFAULT),
        strategy: Some(DeploymentStrategy::Rolling),
        bake_time_in_minutes: Some(0),
        ..Default::default()
    });

/// Refuses members that both requests have and that nothing stands behind yet.
macro_rules! refuse_absent_parts {
    ($input:expr) => {
        let listed = [
            ("loadBalancers", items(&$input.load_balancers).is_empty()),
            (
                "serviceRegistries",
                items(&$input.service_registries).is_empty(),
            ),
            (
                "volumeConfigurations",
                items(&$input.volume_configurations).is_empty(),
            ),
            (
                "vpcLatticeConfigurations",
                items(&$input.vpc_lattice_configurations).is_empty(),
            ),
            (
                "gatewayConnectors",
                items(&$input.gateway_connectors).is_empty(),
            ),
            (
                "capacityProviderStrategy",
                items(&$input.capacity_provider_strategy).is_empty(),
            ),
            ("monitoring", $input.monitoring.is_none()),
            (
                "enableExecuteCommand",
                $input.enable_execute_command != Some(true),
            ),
            (
                "serviceConnectConfiguration",
                !$input
                    .service_connect_configuration
                    .as_ref()
                    .is_some_and(|it| it.enabled),
            ),
        ];
        for (member, is_absent) in listed {
            if !is_absent {
                return Err(not_built(&format!("{member} of a service")));
            }
        }
        if $input
            .platform_version
            .as_ref()
            .is_some_and(|version| !version.is_empty())
        {
            return Err(invalid(
                "The platform version must be null when specifying an EC2 launch type.",
            ));
        }
        controller($input.deployment_controller.as_ref())?;
        grace_period($input.health_check_grace_period_seconds)?;
        desired_count($input.desired_count)?;
    };
}

/// What can be checked of a CreateService without any row.
pub fn validate_create(input: &CreateServiceRequest) -> Result<(), EcsError> {
    if let Some(token) = &input.client_token
        && (token.len() > CLIENT_TOKEN_LENGTH_MAX
            || !token.bytes().all(|byte| (33..=126).contains(&byte)))
    {
        return Err(invalid(format!(
            "clientToken must have at most {CLIENT_TOKEN_LENGTH_MAX} printable ASCII characters."
        )));
    }
    if input.scheduling_strategy == Some(SchedulingStrategy::Daemon) {
        validate_daemon(input.desired_count, input.placement_strategy.as_deref())?;
    } else if input.desired_count.is_none() {
        return Err(invalid(
            "A desired count must be specified with the REPLICA scheduling strategy.",
        ));
    }
    refuse_absent_parts!(input);
    tags::validate(items(&input.tags))?;
    match input.launch_type.as_ref().unwrap_or(&LaunchType::Ec2) {
        LaunchType::Ec2 | LaunchType::External => {}
        other => return Err(not_built(&format!("Launch type {other}"))),
    }
    if input.role.as_ref().is_some_and(|role| !role.is_empty()) {
        return Err(invalid(
            "A role cannot be specified for a service without load balancers.",
        ));
    }
    if input
        .task_definition
        .as_deref()
        .unwrap_or_default()
        .is_empty()
    {
        return Err(invalid("Task definition can not be blank."));
    }
    constraints(items(&input.placement_constraints))?;
    strategies(items(&input.placement_strategy))?;
    Ok(())
}

/// What can be checked of an UpdateService without any row.
pub fn validate_update(input: &UpdateServiceRequest) -> Result<(), EcsError> {
    refuse_absent_parts!(input);
    constraints(items(&input.placement_constraints))?;
    strategies(&placement_strategy(items(&input.placement_strategy)))?;
    Ok(())
}

/// What the service must agree on with a task definition that it is to run.
pub fn validate_with(
    launch_type: &LaunchType,
    network: Option<gantry_api::ecs::NetworkConfiguration>,
    definition: &TaskDefinition,
) -> Result<(), EcsError> {
    let like = RunTaskRequest {
        launch_type: Some(launch_type.clone()),
        network_configuration: network,
        ..Default::default()
    };
    run_request::validate_with(&like, definition)
}

pub fn constraints(given: &[PlacementConstraint]) -> Result<Vec<Constraint>, EcsError> {
    run_request::constraints(&RunTaskRequest {
        placement_constraints: Some(given.to_vec()),
        ..Default::default()
    })
}

pub fn strategies(given: &[PlacementStrategy]) -> Result<Vec<Strategy>, EcsError> {
    run_request::strategies(&RunTaskRequest {
        placement_strategy: Some(given.to_vec()),
        ..Default::default()
    })
}

/// `given` over what the service has, or over AWS's defaults. What is left out stays.
pub fn configuration(
    scheduling: &SchedulingStrategy,
    before: Option<&DeploymentConfiguration>,
    given: Option<&DeploymentConfiguration>,
) -> Result<DeploymentConfiguration, EcsError> {
    let mut merged = match before {
        Some(before) => before.clone(),
        None => default_configuration(scheduling),
    };
    let Some(given) = given else {
        return Ok(merged);
    };
    strategy::merge(&mut merged, scheduling, given)?;
    refuse_unbuilt(given)?;
    for (member, value) in [
        ("maximumPercent", given.maximum_percent),
        ("minimumHealthyPercent", given.minimum_healthy_percent),
    ] {
        if value.is_some_and(|value| value < 0) {
            return Err(invalid(format!("{member} must not be negative.")));
        }
    }
    if given.maximum_percent.is_some() {
        merged.maximum_percent = given.maximum_percent;
    }
    if given.minimum_healthy_percent.is_some() {
        merged.minimum_healthy_percent = given.minimum_healthy_percent;
    }
    if let Some(breaker) = &given.deployment_circuit_breaker {
        if breaker
            .threshold_configuration
            .as_ref()
            .is_some_and(|threshold| threshold.value < 1)
        {
            return Err(invalid(
                "The value of a circuit breaker's thresholdConfiguration must be at least 1.",
            ));
        }
        merged.deployment_circuit_breaker = Some(breaker.clone());
    }
    if given.alarms.is_some() {
        merged.alarms.clone_from(&given.alarms);
    }
    if given.early_success_criteria.is_some() {
        let kept = &mut merged.early_success_criteria;
        kept.clone_from(&given.early_success_criteria);
    }
    validate_percents(scheduling, &merged)?;
    Ok(merged)
}

/// `minimumHealthyPercent` and `maximumPercent`.
pub fn percents(configuration: &DeploymentConfiguration) -> (u32, u32) {
    let of = |value: Option<i32>, default| u32::try_from(value.unwrap_or(default)).unwrap_or(0);
    (
        of(configuration.minimum_healthy_percent, MINIMUM_DEFAULT),
        of(configuration.maximum_percent, MAXIMUM_DEFAULT),
    )
}

fn refuse_unbuilt(given: &DeploymentConfiguration) -> Result<(), EcsError> {
    let parts = [
        (
            "alarms",
            given.alarms.as_ref().is_some_and(|alarms| alarms.enable),
        ),
        ("linearConfiguration", given.linear_configuration.is_some()),
        ("canaryConfiguration", given.canary_configuration.is_some()),
        (
            "earlySuccessCriteria",
            given
                .early_success_criteria
                .as_ref()
                .is_some_and(|it| it.enable),
        ),
    ];
    match parts.iter().find(|(_, is_asked_for)| *is_asked_for) {
        Some((part, _)) => Err(not_built(&format!("{part} of a deploymentConfiguration"))),
        None => Ok(()),
    }
}

fn controller(given: Option<&DeploymentController>) -> Result<(), EcsError> {
    match given.map(|controller| &controller.r#type) {
        None | Some(DeploymentControllerType::Ecs) => Ok(()),
        Some(other) => Err(not_built(&format!("Deployment controller {other}"))),
    }
}

fn grace_period(given: Option<i32>) -> Result<(), EcsError> {
    if given.is_some_and(|seconds| seconds < 0) {
        return Err(invalid(
            "healthCheckGracePeriodSeconds must be between 0 and 2147483647.",
        ));
    }
    Ok(())
}

fn desired_count(given: Option<i32>) -> Result<(), EcsError> {
    if given.is_some_and(|count| !(0..=DESIRED_MAX).contains(&count)) {
        return Err(invalid(format!(
            "The desired count must be between 0 and {DESIRED_MAX}."
        )));
    }
    Ok(())
}
