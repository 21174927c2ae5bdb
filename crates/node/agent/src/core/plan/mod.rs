//! What a payload asks of the runtime: a task's and its containers' plans, or the reason why not.
//!
//! What always holds: every member of a payload's task and containers is taken apart here without
//! `..`, and whatever came that this agent does not honour is a reason that names it. So a new
//! member of the protocol cannot slip by in silence.
//! What it leaves to others: the image's own configuration, which is known only after the pull.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_api::acs::{self, Condition, DockerContainerConfig, DockerHostConfig};

mod logs;
mod registry;
mod unknown;

use logs::log_plan;
pub use logs::{AwsLogsPlan, DeliveryMode, LogPlan};
pub use registry::RegistryAccess;
use registry::registry_access;
use unknown::{first_meaningful, not_built};

/// ECS's default between SIGTERM and SIGKILL.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// What a container without `cpu` gets on ECS: the kernel's floor.
const MIN_CPU_SHARES: u64 = 2;
const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    Host,
    None,
}

/// A task as the runtime gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskPlan {
    pub network_mode: NetworkMode,
    /// A hard limit for all containers together, in 1/1024 vCPU.
    pub cpu_limit: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    /// In the order of the payload.
    pub containers: Vec<ContainerPlan>,
}

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
    pub depends_on: Vec<(String, StartCondition)>,
    pub health_check: Option<HealthCheckPlan>,
    pub restart_policy: Option<RestartPlan>,
    /// With host networking these are what they say; they are reported, nothing is mapped.
    pub ports: Vec<PortBinding>,
}

/// What has to be true of another container before one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCondition {
    Start,
    Complete,
    Success,
    Healthy,
}

/// How to find out whether a container is healthy. Every member is set: ECS's defaults are filled in
/// by who writes the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckPlan {
    /// As the runtime executes it: a shell is part of it where one was asked for.
    pub command: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// So many failures in a row make a container unhealthy.
    pub retries: u32,
    /// Failures before the first success do not count for so long after the start.
    pub start_period: Duration,
}

/// When a container that ended is started again. One whose policy is not enabled has no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPlan {
    pub ignored_exit_codes: BTreeSet<i32>,
    /// A container that ran for less than this is not started again.
    pub attempt_period: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBinding {
    pub container_port: u16,
    pub host_port: u16,
    pub protocol: String,
}

/// Plans a task, or says in words for the user what this agent cannot honour.
pub fn plan_task(task: &acs::Task) -> Result<TaskPlan, String> {
    let acs::Task {
        arn,
        containers,
        cpu,
        desired_status: _,
        execution_role_credentials: _,
        family: _,
        ipc_mode,
        launch_type: _,
        memory,
        network_mode,
        overrides: _,
        pid_mode,
        role_credentials: _,
        service_name: _,
        task_definition_account_id: _,
        version: _,
        volumes,
        unknown,
    } = task;
    if let Some(member) = first_meaningful(unknown) {
        return Err(not_built("task member", member, None));
    }
    if containers.is_empty() {
        return Err("the task has no containers".to_owned());
    }
    let task_id = arn
        .as_deref()
        .and_then(|arn| arn.rsplit('/').next())
        .unwrap_or_default();
    let mut plans = Vec::with_capacity(containers.len());
    let mut modes = Vec::new();
    for container in containers {
        let (plan, mode) = plan_container(container, task_id)?;
        modes.extend(mode);
        plans.push(plan);
    }
    for plan in &plans {
        for (other, _) in &plan.depends_on {
            if !plans.iter().any(|p| p.name == *other) {
                return Err(format!(
                    "TaskDependencyError: container '{}' depends on '{other}', which is not in the task",
                    plan.name
                ));
            }
        }
    }
    // What docker is told decides; the task's own member is the newer form of the same thing.
    let mode = modes.into_iter().next().or_else(|| network_mode.clone());
    let network_mode = match mode.as_deref() {
        Some("host") => NetworkMode::Host,
        Some("none") => NetworkMode::None,
        Some(other) => {
            return Err(format!(
                "networkMode '{other}' is not built; use host or none"
            ));
        }
        None => return Err("networkMode 'bridge' is not built; use host or none".to_owned()),
    };
    Ok(TaskPlan {
        network_mode,
        cpu_limit: cpu
            .filter(|cpu| *cpu > 0.0)
            .map(|vcpu| (vcpu * 1024.0).round() as u64),
        memory_limit_bytes: memory.and_then(mebibytes),
        containers: plans,
    })
}

/// The plan, and the network mode that this container's HostConfig names.
fn plan_container(
    container: &acs::Container,
    task_id: &str,
) -> Result<(ContainerPlan, Option<String>), String> {
    let acs::Container {
        command,
        container_arn: _,
        cpu,
        depends_on,
        docker_config,
        entry_point,
        environment,
        essential,
        image,
        logs_auth_strategy,
        memory,
        mount_points,
        name,
        // The server has merged them; they are shown in the metadata endpoint only.
        overrides,
        port_mappings,
        registry_authentication,
        start_timeout,
        stop_timeout,
        unknown,
    } = container;
    let name = name
        .clone()
        .ok_or_else(|| "a container has no name".to_owned())?;
    if let Some(member) = first_meaningful(unknown) {
        return Err(not_built("container member", member, Some(&name)));
    }
    if !mount_points.is_empty() {
        return Err(not_built("container member", "mountPoints", Some(&name)));
    }
    let docker = docker_config.clone().unwrap_or_default();
    let bad = |what: &str, e: serde_json::Error| {
        format!("container '{name}': {what} of dockerConfig does not fit: {e}")
    };
    let DockerContainerConfig {
        hostname,
        user,
        working_dir,
        labels,
        unknown: config_unknown,
    } = docker.container_config().map_err(|e| bad("config", e))?;
    if let Some(member) = first_meaningful(&config_unknown) {
        return Err(not_built("docker Config member", member, Some(&name)));
    }
    let DockerHostConfig {
        network_mode,
        readonly_rootfs,
        memory_reservation,
        log_config,
        unknown: host_unknown,
    } = docker
        .docker_host_config()
        .map_err(|e| bad("hostConfig", e))?;
    if let Some(member) = first_meaningful(&host_unknown) {
        return Err(not_built("docker HostConfig member", member, Some(&name)));
    }
    let command = override_command(overrides.as_deref(), &name)?.unwrap_or_else(|| command.clone());
    let plan = ContainerPlan {
        image: image
            .clone()
            .ok_or_else(|| format!("container '{name}' has no image"))?,
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
        memory_reservation_bytes: memory_reservation
            .and_then(|bytes| u64::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0),
        readonly_root_filesystem: readonly_rootfs.unwrap_or(false),
        labels,
        log: log_plan(log_config, logs_auth_strategy.as_deref(), &name, task_id)?,
        stop_timeout: seconds(*stop_timeout).unwrap_or(DEFAULT_STOP_TIMEOUT),
        start_timeout: seconds(*start_timeout),
        depends_on: dependencies(depends_on, &name)?,
        health_check: None,
        restart_policy: None,
        ports: ports(port_mappings),
        name,
    };
    Ok((plan, network_mode))
}

fn dependencies(
    depends_on: &[acs::ContainerDependency],
    name: &str,
) -> Result<Vec<(String, StartCondition)>, String> {
    depends_on
        .iter()
        .map(|dependency| {
            let condition = match &dependency.condition {
                Condition::Start => StartCondition::Start,
                Condition::Complete => StartCondition::Complete,
                Condition::Success => StartCondition::Success,
                Condition::Healthy => {
                    return Err(not_built("dependsOn condition", "HEALTHY", Some(name)));
                }
                Condition::Unknown(other) => {
                    return Err(not_built("dependsOn condition", other, Some(name)));
                }
            };
            Ok((dependency.container_name.clone(), condition))
        })
        .collect()
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

fn ports(mappings: &[acs::PortMapping]) -> Vec<PortBinding> {
    mappings
        .iter()
        .filter_map(|mapping| {
            let acs::PortMapping {
                container_port,
                host_port,
                name: _,
                protocol,
            } = mapping;
            let container_port = u16::try_from((*container_port)?).ok()?;
            let host_port = host_port
                .and_then(|p| u16::try_from(p).ok())
                .filter(|p| *p > 0);
            Some(PortBinding {
                container_port,
                host_port: host_port.unwrap_or(container_port),
                protocol: protocol.clone().unwrap_or_else(|| "tcp".to_owned()),
            })
        })
        .collect()
}

fn seconds(seconds: Option<i64>) -> Option<Duration> {
    seconds
        .and_then(|s| u64::try_from(s).ok())
        .filter(|s| *s > 0)
        .map(Duration::from_secs)
}

fn mebibytes(mib: i64) -> Option<u64> {
    u64::try_from(mib)
        .ok()
        .filter(|mib| *mib > 0)
        .and_then(|mib| mib.checked_mul(MIB))
}
