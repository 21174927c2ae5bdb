//! One container of a payload, and the two documents of Docker's that it carries.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_api::acs::{self, DockerContainerConfig, DockerHostConfig};

use super::dependencies::{StartCondition, depends_on};
use super::health::{HealthCheckPlan, RestartPlan, health_check, restart_policy};
use super::linux::{self, LinuxPlan};
use super::logs::{LogPlan, Logged, log_plan};
use super::network::{self, LinkPlan, NamesPlan, NetworkMode, PortBinding, PortRange};
use super::registry::{RegistryAccess, registry_access};
use super::unknown::{first_meaningful, not_built};
use super::volumes::{self, MountPlan, VolumePlan, VolumesFromPlan};
use super::{DEFAULT_STOP_TIMEOUT, mebibytes, seconds};

/// What a container without `cpu` gets on ECS: the kernel's floor.
const MIN_CPU_SHARES: u64 = 2;

/// One container as the runtime gets it. The image's configuration fills what is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerPlan {
    pub name: String,
    pub image: String,
    pub registry: RegistryAccess,
    pub essential: bool,
    pub entry_point: Option<Vec<String>>,
    /// Empty means the image's.
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub working_directory: Option<String>,
    pub user: Option<String>,
    pub hostname: Option<String>,
    pub cpu_shares: u64,
    pub memory_limit_bytes: Option<u64>,
    pub memory_reservation_bytes: Option<u64>,
    pub readonly_root_filesystem: bool,
    pub labels: BTreeMap<String, String>,
    pub log: LogPlan,
    pub stop_timeout: Duration,
    /// A container that is not running by then has failed to start.
    pub start_timeout: Option<Duration>,
    /// With what links and `volumesFrom` imply.
    pub depends_on: Vec<(String, StartCondition)>,
    pub health_check: Option<HealthCheckPlan>,
    pub restart_policy: Option<RestartPlan>,
    /// With host networking these are what they say; they are reported, nothing is mapped.
    pub ports: Vec<PortBinding>,
    pub port_ranges: Vec<PortRange>,
    pub links: Vec<LinkPlan>,
    pub names: NamesPlan,
    /// Nothing but a loopback interface, whatever the task's network is.
    pub network_disabled: bool,
    pub linux: LinuxPlan,
    pub mounts: Vec<MountPlan>,
    pub volumes_from: Vec<VolumesFromPlan>,
}

/// What a container's plan depends on besides itself.
pub(super) struct Place<'a> {
    pub task_id: &'a str,
    pub network_mode: NetworkMode,
    pub volumes: &'a [VolumePlan],
}

/// Docker's two documents of a container.
pub(super) fn docker(
    container: &acs::Container,
) -> Result<(DockerContainerConfig, DockerHostConfig), String> {
    let docker = container.docker_config.clone().unwrap_or_default();
    let name = container.name.as_deref().unwrap_or_default();
    let bad = |what: &str, e: serde_json::Error| {
        format!("container '{name}': {what} of dockerConfig does not fit: {e}")
    };
    let inside = docker.container_config().map_err(|e| bad("config", e))?;
    let host = docker
        .docker_host_config()
        .map_err(|e| bad("hostConfig", e))?;
    Ok((inside, host))
}

pub(super) fn plan_container(
    place: &Place<'_>,
    container: &acs::Container,
    inside: DockerContainerConfig,
    host: DockerHostConfig,
) -> Result<ContainerPlan, String> {
    let acs::Container {
        command,
        container_arn: _,
        cpu,
        depends_on: waits_for,
        docker_config: _,
        entry_point,
        environment,
        essential,
        health_check_type,
        image,
        links,
        logs_auth_strategy,
        memory,
        mount_points,
        name,
        // The server has merged them; they are shown in the metadata endpoint only.
        overrides,
        port_mappings,
        registry_authentication,
        restart_policy: policy,
        start_timeout,
        stop_timeout,
        volumes_from,
        unknown,
    } = container;
    let name = name
        .clone()
        .ok_or_else(|| "a container has no name".to_owned())?;
    if let Some(member) = first_meaningful(unknown) {
        return Err(not_built("container member", member, Some(&name)));
    }
    let DockerContainerConfig {
        hostname,
        user,
        working_dir,
        labels,
        tty,
        open_stdin,
        network_disabled,
        healthcheck,
        unknown: config_unknown,
    } = inside;
    if let Some(member) = first_meaningful(&config_unknown) {
        return Err(not_built("docker Config member", member, Some(&name)));
    }
    let DockerHostConfig {
        network_mode: _,
        readonly_rootfs,
        memory_reservation,
        log_config,
        privileged,
        cap_add,
        cap_drop,
        devices,
        init,
        shm_size,
        tmpfs,
        sysctls,
        extra_hosts,
        dns,
        dns_search,
        security_opt,
        ulimits,
        memory_swap,
        memory_swappiness,
        unknown: host_unknown,
    } = host;
    if let Some(member) = first_meaningful(&host_unknown) {
        return Err(not_built("docker HostConfig member", member, Some(&name)));
    }
    let network_disabled = network_disabled.unwrap_or(false);
    if network_disabled && place.network_mode == NetworkMode::Host {
        return Err(not_built(
            "disableNetworking with networkMode",
            "host",
            Some(&name),
        ));
    }
    let command = override_command(overrides.as_deref(), &name)?.unwrap_or_else(|| command.clone());
    let image = image
        .clone()
        .ok_or_else(|| format!("container '{name}' has no image"))?;
    let logged = Logged {
        container: &name,
        task_id: place.task_id,
        image: &image,
        command: &command,
        labels: &labels,
        environment,
        auth_strategy: logs_auth_strategy.as_deref(),
    };
    let log = log_plan(log_config, logged)?;
    let (ports, port_ranges) = network::ports(port_mappings, place.network_mode, &name)?;
    let positive = |bytes: i64| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
    Ok(ContainerPlan {
        image,
        registry: registry_access(registry_authentication.as_ref(), &name)?,
        essential: essential.unwrap_or(true),
        entry_point: entry_point.clone(),
        command,
        environment: environment.clone(),
        working_directory: working_dir.filter(|w| !w.is_empty()),
        user: user.filter(|u| !u.is_empty()),
        hostname: hostname.filter(|h| !h.is_empty()),
        cpu_shares: cpu
            .and_then(|c| u64::try_from(c).ok())
            .unwrap_or(0)
            .max(MIN_CPU_SHARES),
        memory_limit_bytes: memory.and_then(mebibytes),
        memory_reservation_bytes: memory_reservation.and_then(positive),
        readonly_root_filesystem: readonly_rootfs.unwrap_or(false),
        labels,
        log,
        stop_timeout: seconds(*stop_timeout).unwrap_or(DEFAULT_STOP_TIMEOUT),
        start_timeout: seconds(*start_timeout),
        depends_on: depends_on(waits_for, &name)?,
        health_check: health_check(health_check_type.as_deref(), healthcheck.as_ref(), &name)?,
        restart_policy: restart_policy(policy.as_ref()),
        ports,
        port_ranges,
        links: network::links(links, &name)?,
        names: network::names(&extra_hosts, dns, dns_search, &name)?,
        network_disabled,
        linux: LinuxPlan {
            privileged: privileged.unwrap_or(false),
            capabilities_add: cap_add,
            capabilities_drop: cap_drop,
            devices: linux::devices(&devices, &name)?,
            init_process: init.unwrap_or(false),
            shm_size_bytes: shm_size.and_then(positive),
            tmpfs: linux::tmpfs(&tmpfs, &name)?,
            sysctls,
            ulimits: linux::ulimits(&ulimits),
            memory_swap_bytes: memory_swap.filter(|bytes| *bytes != 0),
            memory_swappiness: memory_swappiness.and_then(|value| u64::try_from(value).ok()),
            security: linux::security(&security_opt, &name)?,
            terminal: tty.unwrap_or(false),
            stdin_open: open_stdin.unwrap_or(false),
        },
        mounts: volumes::mounts(mount_points, place.volumes, &name)?,
        volumes_from: volumes::volumes_from(volumes_from, &name)?,
        name,
    })
}

/// The command of the overrides, which the Amazon agent takes over the container's.
fn override_command(overrides: Option<&str>, name: &str) -> Result<Option<Vec<String>>, String> {
    #[derive(serde::Deserialize)]
    struct Overrides {
        #[serde(default)]
        command: Option<Vec<String>>,
    }
    let Some(text) = overrides else {
        return Ok(None);
    };
    let overrides: Overrides = serde_json::from_str(text)
        .map_err(|e| format!("container '{name}': overrides do not fit: {e}"))?;
    Ok(overrides.command)
}
