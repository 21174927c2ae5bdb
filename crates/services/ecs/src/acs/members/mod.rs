//! Which members of a task definition the node honours: the one table, exhaustive by construction.
//!
//! What always holds: the generated types are taken apart without `..`, so a member that is new in
//! the model does not compile until somebody has put it into a row of `members.toml`. What is not built
//! fails the task with the reason of its row; nothing is left out in silence.
//! What it leaves to others: building the payload from the members that are honoured (`payload`).

mod table;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::BTreeMap;

use gantry_api::ecs::{
    ContainerDefinition, ContainerDependency, ContainerOverride, ContainerRestartPolicy,
    HealthCheck, HostEntry, KeyValuePair, LinuxParameters, LogConfiguration, MountPoint, OSFamily,
    PortMapping, RuntimePlatform, SystemControl, TaskDefinition, TaskOverride, Ulimit, Volume,
    VolumeFrom,
};

use crate::model::absent::items;
use table::REFUSED;
pub use volumes::{HonouredVolume, honoured_volume};

/// A row of the table that refuses.
struct Refused {
    /// Its path in the model, and a case of it.
    member: &'static str,
    reason: &'static str,
    /// JSON that is refused for it, laid over a small task definition.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "what the table's own test tries")
    )]
    sample: &'static str,
    /// The call is refused and no task is made.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "what the table's own test tries")
    )]
    at_run_task: bool,
}

/// The reason that a user reads in `stoppedReason`. The table has every member that is refused: what is
/// missing there is a mistake in this crate, which its tests find.
pub fn refusal(member: &str, container: &str, value: &str) -> String {
    let row = REFUSED.iter().find(|row| row.member == member);
    row.map_or_else(
        || format!("ResourceInitializationError: '{member}' of '{container}' is not built yet"),
        |row| {
            row.reason
                .replace("{container}", container)
                .replace("{value}", value)
        },
    )
}

fn first_asked(members: &[(&str, bool)], prefix: &str, container: &str) -> Result<(), String> {
    match members.iter().find(|(_, asked)| *asked) {
        Some((member, _)) => Err(refusal(&format!("{prefix}{member}"), container, "")),
        None => Ok(()),
    }
}

/// The members of a container definition that the payload is built from.
pub struct Honoured<'a> {
    pub command: Option<&'a Vec<String>>,
    pub cpu: Option<i32>,
    pub depends_on: &'a [ContainerDependency],
    pub disable_networking: bool,
    pub dns_search_domains: &'a [String],
    pub dns_servers: &'a [String],
    pub docker_labels: Option<&'a BTreeMap<String, String>>,
    pub docker_security_options: &'a [String],
    pub entry_point: Option<&'a Vec<String>>,
    pub environment: &'a [KeyValuePair],
    pub essential: bool,
    pub extra_hosts: &'a [HostEntry],
    pub health_check: Option<&'a HealthCheck>,
    pub hostname: Option<&'a str>,
    pub image: Option<&'a str>,
    pub interactive: Option<bool>,
    pub links: &'a [String],
    pub linux_parameters: Option<&'a LinuxParameters>,
    pub log_configuration: Option<&'a LogConfiguration>,
    pub memory: Option<i32>,
    pub memory_reservation: Option<i32>,
    pub mount_points: &'a [MountPoint],
    pub name: &'a str,
    pub port_mappings: &'a [PortMapping],
    pub privileged: Option<bool>,
    pub pseudo_terminal: Option<bool>,
    pub readonly_root_filesystem: Option<bool>,
    pub restart_policy: Option<&'a ContainerRestartPolicy>,
    pub start_timeout: Option<i32>,
    pub stop_timeout: Option<i32>,
    pub system_controls: &'a [SystemControl],
    pub ulimits: &'a [Ulimit],
    pub user: Option<&'a str>,
    pub volumes_from: &'a [VolumeFrom],
    pub working_directory: Option<&'a str>,
}

/// Takes a container definition apart, or says which member is not built.
pub fn honoured(definition: &ContainerDefinition) -> Result<Honoured<'_>, String> {
    let ContainerDefinition {
        command,
        cpu,
        credential_specs,
        depends_on,
        disable_networking,
        dns_search_domains,
        dns_servers,
        docker_labels,
        docker_security_options,
        entry_point,
        environment,
        environment_files,
        essential,
        extra_hosts,
        firelens_configuration,
        health_check,
        hostname,
        image,
        interactive,
        links,
        linux_parameters,
        log_configuration,
        memory,
        memory_reservation,
        mount_points,
        name,
        port_mappings,
        privileged,
        pseudo_terminal,
        readonly_root_filesystem,
        repository_credentials,
        resource_requirements,
        restart_policy,
        secrets,
        start_timeout,
        stop_timeout,
        system_controls,
        ulimits,
        user,
        // Pinning a tag to a digest is a deployment's business; a task of its own has none.
        version_consistency: _,
        volumes_from,
        working_directory,
    } = definition;
    let name = name.as_deref().unwrap_or_default();
    first_asked(
        &[
            ("credentialSpecs", asked(credential_specs)),
            ("environmentFiles", asked(environment_files)),
            ("firelensConfiguration", firelens_configuration.is_some()),
            ("repositoryCredentials", repository_credentials.is_some()),
            ("resourceRequirements", asked(resource_requirements)),
            ("secrets", asked(secrets)),
        ],
        "containerDefinitions.",
        name,
    )?;
    Ok(Honoured {
        command: command.as_ref(),
        cpu: *cpu,
        depends_on: items(depends_on),
        disable_networking: *disable_networking == Some(true),
        dns_search_domains: items(dns_search_domains),
        dns_servers: items(dns_servers),
        docker_labels: docker_labels.as_ref(),
        docker_security_options: items(docker_security_options),
        entry_point: entry_point.as_ref(),
        environment: items(environment),
        essential: essential.unwrap_or(true),
        extra_hosts: items(extra_hosts),
        health_check: health_check.as_ref(),
        hostname: hostname.as_deref(),
        image: image.as_deref(),
        interactive: *interactive,
        links: items(links),
        linux_parameters: linux_parameters.as_ref(),
        log_configuration: log_configuration.as_ref(),
        memory: *memory,
        memory_reservation: *memory_reservation,
        mount_points: items(mount_points),
        name,
        port_mappings: items(port_mappings),
        privileged: *privileged,
        pseudo_terminal: *pseudo_terminal,
        readonly_root_filesystem: *readonly_root_filesystem,
        restart_policy: restart_policy.as_ref(),
        start_timeout: *start_timeout,
        stop_timeout: *stop_timeout,
        system_controls: items(system_controls),
        ulimits: items(ulimits),
        user: user.as_deref(),
        volumes_from: items(volumes_from),
        working_directory: working_directory.as_deref(),
    })
}

/// The members of a task definition that the payload is built from.
pub struct HonouredTask<'a> {
    pub containers: &'a [ContainerDefinition],
    pub cpu: Option<&'a str>,
    pub memory: Option<&'a str>,
    pub execution_role_arn: Option<&'a str>,
    pub task_role_arn: Option<&'a str>,
    pub ipc_mode: Option<&'a str>,
    pub network_mode: Option<&'a str>,
    pub pid_mode: Option<&'a str>,
    pub volumes: &'a [Volume],
}

/// Takes a task definition apart, or says which member is not built.
pub fn honoured_task(definition: &TaskDefinition) -> Result<HonouredTask<'_>, String> {
    let TaskDefinition {
        compatibilities: _,
        container_definitions,
        cpu,
        delete_requested_at: _,
        deregistered_at: _,
        enable_fault_injection,
        ephemeral_storage,
        execution_role_arn,
        family: _,
        inference_accelerators,
        ipc_mode,
        memory,
        network_mode,
        pid_mode,
        // Placement has looked at it.
        placement_constraints: _,
        proxy_configuration,
        registered_at: _,
        registered_by: _,
        requires_attributes: _,
        requires_compatibilities: _,
        revision: _,
        runtime_platform,
        status: _,
        task_definition_arn: _,
        task_role_arn,
        trusted_execution_configuration,
        volumes,
    } = definition;
    first_asked(
        &[
            (
                "enableFaultInjection",
                *enable_fault_injection == Some(true),
            ),
            ("ephemeralStorage", ephemeral_storage.is_some()),
            ("inferenceAccelerators", asked(inference_accelerators)),
            ("proxyConfiguration", proxy_configuration.is_some()),
            (
                "trustedExecutionConfiguration",
                trusted_execution_configuration.is_some(),
            ),
        ],
        "",
        "",
    )?;
    if let Some(RuntimePlatform {
        // The registry's manifest list is chosen by the node's own platform.
        cpu_architecture: _,
        operating_system_family: Some(family),
    }) = runtime_platform
        && *family != OSFamily::Linux
    {
        return Err(refusal(
            "runtimePlatform.operatingSystemFamily | Windows",
            "",
            family.as_str(),
        ));
    }
    Ok(HonouredTask {
        containers: items(container_definitions),
        cpu: cpu.as_deref(),
        memory: memory.as_deref(),
        execution_role_arn: execution_role_arn.as_deref(),
        task_role_arn: task_role_arn.as_deref(),
        ipc_mode: ipc_mode.as_ref().map(|mode| mode.as_str()),
        network_mode: network_mode.as_ref().map(|mode| mode.as_str()),
        pid_mode: pid_mode.as_ref().map(|mode| mode.as_str()),
        volumes: items(volumes),
    })
}

/// The overrides of a run that the payload is built from.
pub struct HonouredOverride<'a> {
    pub containers: &'a [ContainerOverride],
    pub cpu: Option<&'a str>,
    pub memory: Option<&'a str>,
    pub execution_role_arn: Option<&'a str>,
    pub task_role_arn: Option<&'a str>,
}

/// Takes the overrides of a run apart, or says which member is not built.
pub fn honoured_override(overrides: &TaskOverride) -> Result<HonouredOverride<'_>, String> {
    let TaskOverride {
        container_overrides,
        cpu,
        ephemeral_storage,
        execution_role_arn,
        inference_accelerator_overrides,
        memory,
        task_role_arn,
    } = overrides;
    first_asked(
        &[
            ("ephemeralStorage", ephemeral_storage.is_some()),
            (
                "inferenceAcceleratorOverrides",
                asked(inference_accelerator_overrides),
            ),
        ],
        "overrides.",
        "",
    )?;
    let containers = items(container_overrides);
    for ContainerOverride {
        command: _,
        cpu: _,
        environment: _,
        environment_files,
        memory: _,
        memory_reservation: _,
        name,
        resource_requirements,
    } in containers
    {
        let name = name.as_deref().unwrap_or_default();
        first_asked(
            &[
                ("environmentFiles", asked(environment_files)),
                ("resourceRequirements", asked(resource_requirements)),
            ],
            "overrides.containerOverrides.",
            name,
        )?;
    }
    Ok(HonouredOverride {
        containers,
        cpu: cpu.as_deref(),
        memory: memory.as_deref(),
        execution_role_arn: execution_role_arn.as_deref(),
        task_role_arn: task_role_arn.as_deref(),
    })
}

fn asked<T>(list: &Option<Vec<T>>) -> bool {
    !items(list).is_empty()
}

/// For a member whose rows are cases: what is written out is what the rows of `logConfiguration` say.
pub fn not_built(member: &str, container: &str) -> String {
    format!(
        "ResourceInitializationError: container definition member '{member}' of container '{container}' is not built yet"
    )
}
