//! What a payload asks of the runtime: a task's and its containers' plans, or the reason why not.
//!
//! What always holds: every member of a payload's task and containers is taken apart here without
//! `..`, and whatever came that this agent does not honour is a reason that names it. So a new
//! member of the protocol cannot slip by in silence.
//! What it leaves to others: the image's own configuration, which is known only after the pull.

use std::time::Duration;

use gantry_api::acs;

mod container;
mod dependencies;
mod health;
mod linux;
mod logs;
mod network;
mod registry;
mod unknown;
mod volumes;

pub use container::ContainerPlan;
use container::plan_container;
pub use dependencies::StartCondition;
pub use health::{HealthCheckPlan, RestartPlan};
pub use linux::{DevicePlan, LinuxPlan, SecurityPlan, TmpfsPlan, UlimitPlan};
pub use logs::{
    Address, AwsLogsPlan, DeliveryMode, FluentdPlan, GelfCompression, GelfPlan, JsonFilePlan,
    LogDriverPlan, LogPlan, LogSource, LokiPlan, ShippedLog, SyslogFormat, SyslogPlan,
};
pub use network::{LinkPlan, NamesPlan, NetworkMode, PortBinding, PortRange};
pub use registry::RegistryAccess;
use unknown::{first_meaningful, not_built};
pub use volumes::{
    DockerVolume, MountPlan, VolumeBacking, VolumePlan, VolumeScope, VolumeSource, VolumesFromPlan,
};

/// ECS's default between SIGTERM and SIGKILL.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// A task as the runtime gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskPlan {
    pub network_mode: NetworkMode,
    pub pid_mode: PidMode,
    pub ipc_mode: IpcMode,
    /// A hard limit for all containers together, in 1/1024 vCPU.
    pub cpu_limit: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    /// Under which its containers find the credentials of the task's role, if it has one.
    pub credentials_id: Option<String>,
    pub volumes: Vec<VolumePlan>,
    /// In the order of the payload.
    pub containers: Vec<ContainerPlan>,
}

/// Whose processes a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PidMode {
    #[default]
    Container,
    Task,
    Host,
}

/// With whom a container shares memory and semaphores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpcMode {
    #[default]
    Container,
    Task,
    Host,
    None,
}

/// Plans a task, or says in words for the user what this agent cannot honour. The words begin with what kind of error it
/// is, as every reason of a stopped task does.
pub fn plan_task(task: &acs::Task) -> Result<TaskPlan, String> {
    planned(task).map_err(|why| {
        // One line, whatever somebody put into a name.
        let why: String = why
            .chars()
            .flat_map(|c| match c.is_control() {
                true => c.escape_default().collect::<Vec<_>>(),
                false => vec![c],
            })
            .collect();
        match why.starts_with(dependencies::KIND) {
            true => why,
            false => format!("ResourceInitializationError: {why}"),
        }
    })
}

fn planned(task: &acs::Task) -> Result<TaskPlan, String> {
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
        role_credentials,
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
    let volumes = volumes::volumes(volumes)?;
    let docker = containers
        .iter()
        .map(container::docker)
        .collect::<Result<Vec<_>, _>>()?;
    // What docker is told decides; the task's own member is the newer form of the same thing.
    let mode = docker
        .iter()
        .find_map(|(_, host)| host.network_mode.clone())
        .or_else(|| network_mode.clone());
    let network_mode = network::mode(mode.as_deref())?;
    let place = container::Place {
        task_id,
        network_mode,
        volumes: &volumes,
    };
    let mut plans = containers
        .iter()
        .zip(docker)
        .map(|(container, (inside, host))| plan_container(&place, container, inside, host))
        .collect::<Result<Vec<_>, _>>()?;
    dependencies::complete(&mut plans)?;
    Ok(TaskPlan {
        network_mode,
        pid_mode: match pid_mode.as_deref() {
            None | Some("") => PidMode::Container,
            Some("task") => PidMode::Task,
            Some("host") => PidMode::Host,
            Some(other) => return Err(not_built("pidMode", other, None)),
        },
        ipc_mode: match ipc_mode.as_deref() {
            None | Some("") => IpcMode::Container,
            Some("task") => IpcMode::Task,
            Some("host") => IpcMode::Host,
            Some("none") => IpcMode::None,
            Some(other) => return Err(not_built("ipcMode", other, None)),
        },
        cpu_limit: cpu
            .filter(|cpu| *cpu > 0.0)
            .map(|vcpu| (vcpu * 1024.0).round() as u64),
        memory_limit_bytes: memory.and_then(mebibytes),
        credentials_id: role_credentials
            .as_ref()
            .and_then(|role| role.credentials_id.clone()),
        volumes,
        containers: plans,
    })
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

/// `10m`, `512k`, `1g` or plain bytes, as Docker reads sizes.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (digits, unit) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 1 << 10),
        'm' => (&text[..text.len() - 1], 1 << 20),
        'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(unit)
        .filter(|bytes| *bytes > 0)
}
