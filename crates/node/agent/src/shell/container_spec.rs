//! What the runtime is asked for, from a task's and its containers' plans.
//!
//! What always holds: a plan is taken apart without `..`, so a member that the runtime is not told
//! of does not compile.
//! What it leaves to others: what the image says (`gantry_runtime`), folders behind volumes (`volumes`).

use gantry_arn::TaskId;
use gantry_runtime::{
    ContainerName, ContainerSpec, LogMode, LogSpec, NetworkMode, PulledImage, Resources,
    TaskLimits, TaskSpec,
};

use crate::core::plan::{self, AwsLogsPlan, ContainerPlan, DeliveryMode, LogPlan, TaskPlan};

/// The spool in blocking mode, and at most in non-blocking mode.
const SPOOL_BYTES: u64 = 16 << 20;

pub(super) fn task_spec(task: TaskId, plan: &TaskPlan) -> TaskSpec {
    let network = match plan.network_mode {
        plan::NetworkMode::Host => NetworkMode::Host,
        plan::NetworkMode::None => NetworkMode::None,
    };
    let mut spec = TaskSpec::new(task, network);
    spec.limits = TaskLimits {
        cpu_units: plan.cpu_limit,
        memory_bytes: plan.memory_limit_bytes,
    };
    spec
}

pub(super) fn container_spec(
    task: &TaskPlan,
    plan: &ContainerPlan,
    image: &PulledImage,
) -> Result<ContainerSpec, String> {
    let ContainerPlan {
        name,
        image: _,
        registry: _,
        essential: _,
        entry_point,
        command,
        environment,
        working_directory,
        user,
        hostname,
        cpu_shares,
        memory_limit_bytes,
        memory_reservation_bytes,
        readonly_root_filesystem,
        // They say something about the container to whoever lists containers, which nobody can here.
        labels: _,
        log,
        stop_timeout: _,
        start_timeout: _,
        depends_on: _,
        health_check: _,
        restart_policy: _,
        ports: _,
    } = plan;
    let name: ContainerName = name
        .parse()
        .map_err(|error| format!("CannotCreateContainerError: {error}"))?;
    let mut spec = ContainerSpec::new(name, image.digest.clone());
    spec.entry_point = entry_point.clone();
    spec.command = (!command.is_empty()).then(|| command.clone());
    spec.environment = environment.clone().into_iter().collect();
    spec.working_directory = working_directory.clone();
    spec.user = user.clone();
    spec.hostname = hostname
        .clone()
        .filter(|_| task.network_mode == plan::NetworkMode::None);
    spec.readonly_root_filesystem = *readonly_root_filesystem;
    // No container may take more than its whole task.
    let memory_bytes = match (*memory_limit_bytes, task.memory_limit_bytes) {
        (Some(own), Some(whole)) => Some(own.min(whole)),
        (own, whole) => own.or(whole),
    };
    spec.resources = Resources {
        cpu_shares: Some(*cpu_shares),
        memory_bytes,
        memory_reservation_bytes: *memory_reservation_bytes,
        ..Resources::default()
    };
    spec.logs = match log {
        LogPlan::None => LogSpec::None,
        LogPlan::AwsLogs(AwsLogsPlan {
            mode: DeliveryMode::Blocking,
            ..
        }) => LogSpec::Spool {
            mode: LogMode::Blocking,
            bytes_max: SPOOL_BYTES,
        },
        LogPlan::AwsLogs(AwsLogsPlan {
            mode: DeliveryMode::NonBlocking { max_buffer_bytes },
            ..
        }) => LogSpec::Spool {
            mode: LogMode::NonBlocking,
            bytes_max: *max_buffer_bytes,
        },
    };
    Ok(spec)
}
