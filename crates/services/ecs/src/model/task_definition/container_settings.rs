//! The settings of a container that have rules of their own: environment, secrets, logs, health,
//! limits, restarts.

use std::collections::BTreeSet;

use gantry_api::ecs::{
    ContainerDefinition, ContainerRestartPolicy, EcsError, EnvironmentFile, HealthCheck,
    LinuxParameters, LogConfiguration, LogDriver, NetworkMode, RegisterTaskDefinitionRequest,
    ResourceRequirement, ResourceType, Ulimit,
};

use super::super::absent::items;
use super::super::refusal::client;

const ENVIRONMENT_FILES_MAX: usize = 10;
const IGNORED_EXIT_CODES_MAX: usize = 50;

pub(super) fn validate(
    input: &RegisterTaskDefinitionRequest,
    container: &ContainerDefinition,
    name: &str,
) -> Result<(), EcsError> {
    validate_environment(container, name)?;
    validate_needs_of_execution_role(input, container)?;
    validate_environment_files(items(&container.environment_files))?;
    if let Some(log) = &container.log_configuration {
        validate_log(log)?;
    }
    if let Some(check) = &container.health_check {
        validate_health_check(check, name)?;
    }
    validate_ulimits(items(&container.ulimits), name)?;
    if let Some(policy) = &container.restart_policy {
        validate_restart_policy(policy, name)?;
    }
    for (member, seconds) in [
        ("startTimeout", container.start_timeout),
        ("stopTimeout", container.stop_timeout),
    ] {
        if seconds.is_some_and(|seconds| seconds < 0) {
            return Err(client(format!(
                "Invalid '{member}' setting for container '{name}'."
            )));
        }
    }
    if let Some(linux) = &container.linux_parameters {
        validate_linux(linux, name)?;
    }
    validate_resources(items(&container.resource_requirements), name)?;
    let on_the_hosts_network = input.network_mode == Some(NetworkMode::Host);
    for control in items(&container.system_controls) {
        let namespace = control.namespace.as_deref().unwrap_or_default();
        if namespace.is_empty() || control.value.is_none() {
            return Err(client(format!(
                "Invalid 'systemControls' setting for container '{name}': namespace and value must be specified."
            )));
        }
        if on_the_hosts_network && namespace.starts_with("net.") {
            return Err(client(format!(
                "System control '{namespace}' is not supported when networkMode=host."
            )));
        }
    }
    if items(&container.credential_specs).len() > 1 {
        return Err(client(format!(
            "Invalid 'credentialSpecs' setting for container '{name}': only one may be specified."
        )));
    }
    Ok(())
}

fn validate_environment(container: &ContainerDefinition, name: &str) -> Result<(), EcsError> {
    let mut names = BTreeSet::new();
    for variable in items(&container.environment) {
        match variable.name.as_deref() {
            None | Some("") => {
                return Err(client(format!(
                    "Invalid 'environment' setting for container '{name}': the name should not be null or empty."
                )));
            }
            Some(variable) => names.insert(variable),
        };
    }
    for secret in items(&container.secrets) {
        if secret.name.is_empty() || secret.value_from.is_empty() {
            return Err(client(format!(
                "Invalid 'secrets' setting for container '{name}': name and valueFrom should not be null or empty."
            )));
        }
        if !names.insert(&secret.name) {
            return Err(client(format!(
                "The secret name must be unique and not shared with any new or existing environment variables set on the container, such as '{}'.",
                secret.name
            )));
        }
    }
    Ok(())
}

/// What the agent fetches before the containers exist, it fetches with the execution role.
fn validate_needs_of_execution_role(
    input: &RegisterTaskDefinitionRequest,
    container: &ContainerDefinition,
) -> Result<(), EcsError> {
    if input
        .execution_role_arn
        .as_ref()
        .is_some_and(|role| !role.is_empty())
    {
        return Ok(());
    }
    let refuse = |what: &str| {
        Err(client(format!(
            "When you are specifying {what}, you must also specify a value for 'executionRoleArn'."
        )))
    };
    let log_secrets = container
        .log_configuration
        .as_ref()
        .is_some_and(|log| !items(&log.secret_options).is_empty());
    if !items(&container.secrets).is_empty() || log_secrets {
        return refuse("container secrets");
    }
    if container.repository_credentials.is_some() {
        return refuse("repository credentials");
    }
    if !items(&container.environment_files).is_empty() {
        return refuse("environment files");
    }
    Ok(())
}

fn validate_environment_files(files: &[EnvironmentFile]) -> Result<(), EcsError> {
    if files.len() > ENVIRONMENT_FILES_MAX {
        return Err(client(format!(
            "Too many environment files. The maximum is {ENVIRONMENT_FILES_MAX}."
        )));
    }
    for file in files {
        if !file.value.starts_with("arn:") || !file.value.ends_with(".env") {
            return Err(client(format!(
                "Invalid environment file '{}': it must be the ARN of an S3 object whose name ends in '.env'.",
                file.value
            )));
        }
    }
    Ok(())
}

fn validate_log(log: &LogConfiguration) -> Result<(), EcsError> {
    let option = |name: &str| log.options.as_ref().and_then(|options| options.get(name));
    if log.log_driver == LogDriver::Awslogs {
        let missing: Vec<&str> = ["awslogs-region", "awslogs-group"]
            .into_iter()
            .filter(|name| option(name).is_none_or(String::is_empty))
            .collect();
        if !missing.is_empty() {
            return Err(client(format!(
                "Log driver awslogs requires options: {}",
                missing.join(", ")
            )));
        }
    }
    match option("mode").map(String::as_str) {
        None | Some("blocking" | "non-blocking") => Ok(()),
        Some(other) => Err(client(format!(
            "Invalid value '{other}' for log option 'mode'. Valid values are blocking, non-blocking."
        ))),
    }
}

fn validate_health_check(check: &HealthCheck, name: &str) -> Result<(), EcsError> {
    match check.command.first().map(String::as_str) {
        Some("CMD" | "CMD-SHELL") if check.command.len() > 1 => {}
        Some("NONE") if check.command.len() == 1 => {}
        _ => {
            return Err(client(format!(
                "Invalid 'healthCheck' setting for container '{name}': the command must begin with CMD or CMD-SHELL and name a command."
            )));
        }
    }
    let ranges = [
        ("interval", check.interval, 5..=300),
        ("timeout", check.timeout, 2..=60),
        ("retries", check.retries, 1..=10),
        ("startPeriod", check.start_period, 0..=300),
    ];
    for (member, value, range) in ranges {
        if value.is_some_and(|value| !range.contains(&value)) {
            return Err(client(format!(
                "Invalid 'healthCheck' setting for container '{name}': {member} must be between {} and {}.",
                range.start(),
                range.end()
            )));
        }
    }
    Ok(())
}

fn validate_ulimits(ulimits: &[Ulimit], name: &str) -> Result<(), EcsError> {
    let mut seen = BTreeSet::new();
    for ulimit in ulimits {
        if !seen.insert(ulimit.name.as_str().to_owned()) {
            return Err(client(format!(
                "Invalid 'ulimits' setting for container '{name}': '{}' is specified more than once.",
                ulimit.name.as_str()
            )));
        }
        // -1 means no limit at all, above every number.
        let (soft, hard) = (ulimit.soft_limit, ulimit.hard_limit);
        let above = |a: i32, b: i32| b != -1 && (a == -1 || a > b);
        if soft < -1 || hard < -1 || above(soft, hard) {
            return Err(client(format!(
                "Invalid 'ulimits' setting for container '{name}': the soft limit of '{}' must not be greater than its hard limit.",
                ulimit.name.as_str()
            )));
        }
    }
    Ok(())
}

fn validate_restart_policy(policy: &ContainerRestartPolicy, name: &str) -> Result<(), EcsError> {
    let refuse = |why: String| {
        Err(client(format!(
            "Invalid 'restartPolicy' setting for container '{name}': {why}"
        )))
    };
    if items(&policy.ignored_exit_codes).len() > IGNORED_EXIT_CODES_MAX {
        return refuse(format!(
            "at most {IGNORED_EXIT_CODES_MAX} ignoredExitCodes may be specified."
        ));
    }
    if policy
        .restart_attempt_period
        .is_some_and(|seconds| !(60..=1800).contains(&seconds))
    {
        return refuse("restartAttemptPeriod must be between 60 and 1800 seconds.".to_owned());
    }
    let options =
        !items(&policy.ignored_exit_codes).is_empty() || policy.restart_attempt_period.is_some();
    if !policy.enabled && options {
        return refuse(
            "ignoredExitCodes and restartAttemptPeriod require that the policy is enabled."
                .to_owned(),
        );
    }
    Ok(())
}

fn validate_linux(linux: &LinuxParameters, name: &str) -> Result<(), EcsError> {
    let refuse = |why: &str| {
        Err(client(format!(
            "Invalid 'linuxParameters' setting for container '{name}': {why}"
        )))
    };
    if linux
        .swappiness
        .is_some_and(|swappiness| !(0..=100).contains(&swappiness))
    {
        return refuse("swappiness must be between 0 and 100.");
    }
    if linux.max_swap.is_some_and(|mib| mib < 0) {
        return refuse("maxSwap must not be negative.");
    }
    if linux.shared_memory_size.is_some_and(|mib| mib < 0) {
        return refuse("sharedMemorySize must not be negative.");
    }
    for tmpfs in items(&linux.tmpfs) {
        if tmpfs.container_path.is_empty() || tmpfs.size <= 0 {
            return refuse("a tmpfs needs a containerPath and a size above 0.");
        }
    }
    if items(&linux.devices)
        .iter()
        .any(|device| device.host_path.is_empty())
    {
        return refuse("a device needs a hostPath.");
    }
    Ok(())
}

fn validate_resources(requirements: &[ResourceRequirement], name: &str) -> Result<(), EcsError> {
    for requirement in requirements {
        let value = requirement.value.as_deref().unwrap_or_default();
        if requirement.r#type == ResourceType::Gpu && !value.parse::<u32>().is_ok_and(|n| n > 0) {
            return Err(client(format!(
                "Invalid 'resourceRequirements' setting for container '{name}': the value of GPU must be a number above 0."
            )));
        }
    }
    Ok(())
}
