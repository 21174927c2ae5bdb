//! Which members of a task definition the node honours: the one table, exhaustive by construction.
//!
//! What always holds: the generated types are taken apart without `..`, so a member that is new in
//! the model does not compile until somebody has put it into a row of this file. What is not built
//! fails the task with a reason that names it; nothing is left out in silence.
//! What it leaves to others: building the payload from the members that are honoured (`payload`).

use std::collections::BTreeMap;

use gantry_api::ecs::{
    ContainerDefinition, ContainerDependency, ContainerOverride, KeyValuePair, LogConfiguration,
    PortMapping, TaskDefinition, TaskOverride,
};

/// The members of a container definition that the payload is built from.
pub struct Honoured<'a> {
    pub command: Option<&'a Vec<String>>,
    pub cpu: Option<i32>,
    pub depends_on: &'a [ContainerDependency],
    pub docker_labels: Option<&'a BTreeMap<String, String>>,
    pub entry_point: Option<&'a Vec<String>>,
    pub environment: &'a [KeyValuePair],
    pub essential: bool,
    pub hostname: Option<&'a str>,
    pub image: Option<&'a str>,
    pub log_configuration: Option<&'a LogConfiguration>,
    pub memory: Option<i32>,
    pub memory_reservation: Option<i32>,
    pub name: &'a str,
    pub port_mappings: &'a [PortMapping],
    pub readonly_root_filesystem: Option<bool>,
    pub start_timeout: Option<i32>,
    pub stop_timeout: Option<i32>,
    pub user: Option<&'a str>,
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
    let refused = [
        ("credentialSpecs", asked(credential_specs)),
        ("disableNetworking", *disable_networking == Some(true)),
        ("dnsSearchDomains", asked(dns_search_domains)),
        ("dnsServers", asked(dns_servers)),
        ("dockerSecurityOptions", asked(docker_security_options)),
        ("environmentFiles", asked(environment_files)),
        ("extraHosts", asked(extra_hosts)),
        ("firelensConfiguration", firelens_configuration.is_some()),
        ("healthCheck", health_check.is_some()),
        ("interactive", *interactive == Some(true)),
        ("links", asked(links)),
        ("linuxParameters", linux_parameters.is_some()),
        ("mountPoints", asked(mount_points)),
        ("privileged", *privileged == Some(true)),
        ("pseudoTerminal", *pseudo_terminal == Some(true)),
        ("repositoryCredentials", repository_credentials.is_some()),
        ("resourceRequirements", asked(resource_requirements)),
        (
            "restartPolicy",
            restart_policy.as_ref().is_some_and(|policy| policy.enabled),
        ),
        ("secrets", asked(secrets)),
        ("systemControls", asked(system_controls)),
        ("ulimits", asked(ulimits)),
        ("volumesFrom", asked(volumes_from)),
    ];
    if let Some((member, _)) = refused.iter().find(|(_, asked)| *asked) {
        return Err(not_built(member, name));
    }
    Ok(Honoured {
        command: command.as_ref(),
        cpu: *cpu,
        depends_on: depends_on.as_deref().unwrap_or_default(),
        docker_labels: docker_labels.as_ref(),
        entry_point: entry_point.as_ref(),
        environment: environment.as_deref().unwrap_or_default(),
        essential: essential.unwrap_or(true),
        hostname: hostname.as_deref(),
        image: image.as_deref(),
        log_configuration: log_configuration.as_ref(),
        memory: *memory,
        memory_reservation: *memory_reservation,
        name,
        port_mappings: port_mappings.as_deref().unwrap_or_default(),
        readonly_root_filesystem: *readonly_root_filesystem,
        start_timeout: *start_timeout,
        stop_timeout: *stop_timeout,
        user: user.as_deref(),
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
    pub network_mode: Option<&'a str>,
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
        // The registry's manifest list is chosen by the node's own platform.
        runtime_platform: _,
        status: _,
        task_definition_arn: _,
        task_role_arn,
        trusted_execution_configuration,
        // A volume that nothing mounts has no effect; one that is mounted is refused by its mount point.
        volumes: _,
    } = definition;
    let refused = [
        (
            "enableFaultInjection",
            *enable_fault_injection == Some(true),
        ),
        ("ephemeralStorage", ephemeral_storage.is_some()),
        ("inferenceAccelerators", asked(inference_accelerators)),
        ("ipcMode", ipc_mode.is_some()),
        ("pidMode", pid_mode.is_some()),
        ("proxyConfiguration", proxy_configuration.is_some()),
        (
            "trustedExecutionConfiguration",
            trusted_execution_configuration.is_some(),
        ),
    ];
    if let Some((member, _)) = refused.iter().find(|(_, asked)| *asked) {
        return Err(format!(
            "ResourceInitializationError: task definition member '{member}' is not built yet"
        ));
    }
    Ok(HonouredTask {
        containers: container_definitions.as_deref().unwrap_or_default(),
        cpu: cpu.as_deref(),
        memory: memory.as_deref(),
        execution_role_arn: execution_role_arn.as_deref(),
        task_role_arn: task_role_arn.as_deref(),
        network_mode: network_mode.as_ref().map(|mode| mode.as_str()),
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
    let refused = [
        ("ephemeralStorage", ephemeral_storage.is_some()),
        (
            "inferenceAcceleratorOverrides",
            asked(inference_accelerator_overrides),
        ),
    ];
    if let Some((member, _)) = refused.iter().find(|(_, asked)| *asked) {
        return Err(format!(
            "ResourceInitializationError: override '{member}' is not built yet"
        ));
    }
    let containers = container_overrides.as_deref().unwrap_or_default();
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
        if asked(environment_files) {
            return Err(not_built("environmentFiles", name));
        }
        if asked(resource_requirements) {
            return Err(not_built("resourceRequirements", name));
        }
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
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// The reason that a user reads in `stoppedReason`.
pub fn not_built(member: &str, container: &str) -> String {
    format!(
        "ResourceInitializationError: container definition member '{member}' of container '{container}' is not built yet"
    )
}
