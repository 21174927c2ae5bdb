//! What the runtime is asked for, from a task's and its containers' plans.
//!
//! What always holds: a plan is taken apart without `..`, so a member that the runtime is not told
//! of does not compile.
//! What it leaves to others: what the image says (`gantry_runtime`), folders behind volumes (`volumes`),
//! the namespace of a container in bridge mode (`network`).

use std::path::PathBuf;

use gantry_arn::TaskId;
use gantry_runtime::{
    BindMount, ContainerName, ContainerSpec, Device, IpcMode, LogMode, LogSpec, NetworkMode,
    PidMode, PulledImage, Resources, Rlimit, TaskLimits, TaskSpec, Tmpfs, Ulimit,
};

use super::name_files;
use crate::core::plan::{
    self, ContainerPlan, DeliveryMode, DevicePlan, LinuxPlan, LogPlan, SecurityPlan, ShippedLog,
    TaskPlan, TmpfsPlan, UlimitPlan,
};

/// The spool in blocking mode, and at most in non-blocking mode.
const SPOOL_BYTES: u64 = 16 << 20;

pub(super) fn task_spec(task: TaskId, plan: &TaskPlan) -> TaskSpec {
    let network = match plan.network_mode {
        plan::NetworkMode::Host => NetworkMode::Host,
        plan::NetworkMode::None => NetworkMode::None,
        plan::NetworkMode::Bridge => NetworkMode::Namespaces,
    };
    let mut spec = TaskSpec::new(task, network);
    spec.limits = TaskLimits {
        cpu_units: plan.cpu_limit,
        memory_bytes: plan.memory_limit_bytes,
    };
    spec.pid_mode = match plan.pid_mode {
        plan::PidMode::Container => PidMode::Container,
        plan::PidMode::Task => PidMode::Task,
        plan::PidMode::Host => PidMode::Host,
    };
    spec.ipc_mode = match plan.ipc_mode {
        plan::IpcMode::Container => IpcMode::Container,
        plan::IpcMode::Task => IpcMode::Task,
        plan::IpcMode::Host => IpcMode::Host,
        plan::IpcMode::None => IpcMode::None,
    };
    spec
}

pub(super) fn container_spec(
    task: &TaskPlan,
    plan: &ContainerPlan,
    image: &PulledImage,
    mounts: Vec<BindMount>,
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
        // The network's, in bridge mode.
        ports: _,
        port_ranges: _,
        links: _,
        names,
        network_disabled,
        linux,
        // Behind `mounts`.
        mounts: _,
        volumes_from: _,
    } = plan;
    let cannot = |error: &dyn std::fmt::Display| format!("CannotCreateContainerError: {error}");
    let name: ContainerName = name.parse().map_err(|error| cannot(&error))?;
    let mut spec = ContainerSpec::new(name, image.digest.clone());
    spec.entry_point = entry_point.clone();
    spec.command = (!command.is_empty()).then(|| command.clone());
    spec.environment = environment.clone().into_iter().collect();
    spec.working_directory = working_directory.clone();
    spec.user = user.clone();
    // Docker has a container take the host's network without the host's name, if it was given one.
    spec.hostname = hostname.clone();
    spec.readonly_root_filesystem = *readonly_root_filesystem;
    spec.mounts = mounts;
    spec.network_disabled = *network_disabled;
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
    if task.network_mode != plan::NetworkMode::Bridge && !names.is_empty() {
        let files = name_files::of_this_host(task.network_mode, names);
        (spec.hosts, spec.resolv_conf) = (files.hosts, files.resolv_conf);
    }
    of_the_kernel(linux, &mut spec).map_err(|error| cannot(&error))?;
    spec.logs = match log {
        LogPlan::None => LogSpec::None,
        LogPlan::Shipped(ShippedLog {
            mode: DeliveryMode::Blocking,
            ..
        }) => LogSpec::Spool {
            mode: LogMode::Blocking,
            bytes_max: SPOOL_BYTES,
        },
        LogPlan::Shipped(ShippedLog {
            mode: DeliveryMode::NonBlocking { max_buffer_bytes },
            ..
        }) => LogSpec::Spool {
            mode: LogMode::NonBlocking,
            bytes_max: *max_buffer_bytes,
        },
    };
    Ok(spec)
}

fn of_the_kernel(plan: &LinuxPlan, spec: &mut ContainerSpec) -> Result<(), String> {
    let LinuxPlan {
        privileged,
        capabilities_add,
        capabilities_drop,
        devices,
        init_process,
        shm_size_bytes,
        tmpfs,
        sysctls,
        ulimits,
        memory_swap_bytes,
        memory_swappiness,
        security:
            SecurityPlan {
                no_new_privileges,
                apparmor_profile,
                selinux_label,
            },
        terminal,
        stdin_open,
    } = plan;
    spec.privileged = *privileged;
    spec.capabilities_add = capabilities_add.clone();
    spec.capabilities_drop = capabilities_drop.clone();
    spec.devices = devices
        .iter()
        .map(
            |DevicePlan {
                 host_path,
                 container_path,
                 permissions,
             }| Device {
                host_path: PathBuf::from(host_path),
                container_path: PathBuf::from(container_path),
                permissions: permissions.clone(),
            },
        )
        .collect();
    spec.init_process = *init_process;
    spec.shm_size_bytes = *shm_size_bytes;
    spec.tmpfs = tmpfs
        .iter()
        .map(
            |TmpfsPlan {
                 path,
                 size_bytes,
                 options,
             }| Tmpfs {
                path: PathBuf::from(path),
                size_bytes: *size_bytes,
                options: options.clone(),
            },
        )
        .collect();
    spec.sysctls = sysctls.clone();
    spec.ulimits = ulimits
        .iter()
        .map(|UlimitPlan { name, soft, hard }| {
            Ok(Ulimit {
                name: rlimit(name)
                    .ok_or_else(|| format!("there is no resource limit called '{name}'"))?,
                soft: *soft,
                hard: *hard,
            })
        })
        .collect::<Result<_, String>>()?;
    spec.memory_swap_bytes = *memory_swap_bytes;
    spec.memory_swappiness = *memory_swappiness;
    spec.no_new_privileges = *no_new_privileges;
    spec.apparmor_profile = apparmor_profile.clone();
    spec.selinux_label = selinux_label.clone();
    spec.terminal = *terminal;
    spec.stdin_open = *stdin_open;
    Ok(())
}

fn rlimit(name: &str) -> Option<Rlimit> {
    Some(match name {
        "core" => Rlimit::Core,
        "cpu" => Rlimit::Cpu,
        "data" => Rlimit::Data,
        "fsize" => Rlimit::Fsize,
        "locks" => Rlimit::Locks,
        "memlock" => Rlimit::Memlock,
        "msgqueue" => Rlimit::Msgqueue,
        "nice" => Rlimit::Nice,
        "nofile" => Rlimit::Nofile,
        "nproc" => Rlimit::Nproc,
        "rss" => Rlimit::Rss,
        "rtprio" => Rlimit::Rtprio,
        "rttime" => Rlimit::Rttime,
        "sigpending" => Rlimit::Sigpending,
        "stack" => Rlimit::Stack,
        _ => return None,
    })
}
