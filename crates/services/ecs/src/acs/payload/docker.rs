//! Docker's Config and HostConfig of a container, under Docker's own names.
//!
//! What always holds: sizes are in bytes and durations in nanoseconds, as Docker has them; what was not
//! asked for is absent, so the Amazon ECS agent and Gantry's see the same document.

use std::collections::BTreeMap;

use gantry_api::acs::{
    DockerContainerConfig, DockerDevice, DockerHealthcheck, DockerHostConfig, DockerUlimit,
};
use gantry_api::ecs::{
    Device, DeviceCgroupPermission, HealthCheck, HostEntry, KernelCapabilities, LinuxParameters,
    SystemControl, Tmpfs, Ulimit,
};

use super::{MIB, Place};
use crate::acs::members::{Honoured, refusal};
use crate::model::absent::items;

const NANOSECONDS: i64 = 1_000_000_000;

/// What is inside the container.
pub(super) fn container_config(spec: &Honoured<'_>) -> DockerContainerConfig {
    DockerContainerConfig {
        hostname: spec.hostname.map(str::to_owned),
        user: spec.user.map(str::to_owned),
        working_dir: spec.working_directory.map(str::to_owned),
        labels: spec.docker_labels.cloned().unwrap_or_default(),
        tty: spec.pseudo_terminal.filter(|asked| *asked),
        open_stdin: spec.interactive.filter(|asked| *asked),
        network_disabled: spec.disable_networking.then_some(true),
        healthcheck: spec.health_check.map(health_check),
        unknown: BTreeMap::new(),
    }
}

/// ECS's defaults are filled in when the task definition is registered, but for the start period's, which
/// is none.
fn health_check(check: &HealthCheck) -> DockerHealthcheck {
    let HealthCheck {
        command,
        interval,
        retries,
        start_period,
        timeout,
    } = check;
    let nanoseconds = |seconds: &Option<i32>| seconds.map(|s| i64::from(s) * NANOSECONDS);
    DockerHealthcheck {
        test: command.clone(),
        interval: nanoseconds(interval),
        timeout: nanoseconds(timeout),
        retries: retries.map(i64::from),
        start_period: nanoseconds(start_period),
    }
}

/// How the host runs it.
pub(super) fn host_config(
    place: &Place<'_>,
    spec: &Honoured<'_>,
    memory_mib: Option<i32>,
    reservation_mib: Option<i32>,
) -> Result<DockerHostConfig, String> {
    if spec.disable_networking && place.network_mode == "host" {
        return Err(refusal(
            "containerDefinitions.disableNetworking | with networkMode host",
            spec.name,
            "",
        ));
    }
    let mut host = DockerHostConfig {
        network_mode: Some(place.network_mode.to_owned()),
        readonly_rootfs: spec.readonly_root_filesystem,
        memory_reservation: reservation_mib.map(|mib| i64::from(mib) * MIB),
        log_config: place.log_config(spec)?,
        privileged: spec.privileged.filter(|asked| *asked),
        sysctls: spec.system_controls.iter().filter_map(sysctl).collect(),
        extra_hosts: spec.extra_hosts.iter().map(extra_host).collect(),
        dns: spec.dns_servers.to_vec(),
        dns_search: spec.dns_search_domains.to_vec(),
        security_opt: spec.docker_security_options.to_vec(),
        ulimits: spec.ulimits.iter().map(ulimit).collect(),
        ..DockerHostConfig::default()
    };
    if let Some(linux) = spec.linux_parameters {
        linux_parameters(linux, spec.name, memory_mib, &mut host)?;
    }
    Ok(host)
}

fn sysctl(control: &SystemControl) -> Option<(String, String)> {
    let SystemControl { namespace, value } = control;
    Some((namespace.clone()?, value.clone()?))
}

fn extra_host(entry: &HostEntry) -> String {
    let HostEntry {
        hostname,
        ip_address,
    } = entry;
    format!("{hostname}:{ip_address}")
}

fn ulimit(limit: &Ulimit) -> DockerUlimit {
    let Ulimit {
        hard_limit,
        name,
        soft_limit,
    } = limit;
    DockerUlimit {
        name: name.as_str().to_owned(),
        soft: i64::from(*soft_limit),
        hard: i64::from(*hard_limit),
    }
}

fn linux_parameters(
    linux: &LinuxParameters,
    name: &str,
    memory_mib: Option<i32>,
    host: &mut DockerHostConfig,
) -> Result<(), String> {
    let LinuxParameters {
        capabilities,
        devices,
        init_process_enabled,
        max_swap,
        shared_memory_size,
        swappiness,
        tmpfs,
    } = linux;
    if let Some(KernelCapabilities { add, drop }) = capabilities {
        host.cap_add = items(add).to_vec();
        host.cap_drop = items(drop).to_vec();
    }
    host.devices = items(devices).iter().map(device).collect();
    host.init = init_process_enabled.filter(|asked| *asked);
    host.shm_size = shared_memory_size
        .filter(|mib| *mib > 0)
        .map(|mib| i64::from(mib) * MIB);
    host.tmpfs = items(tmpfs).iter().map(tmpfs_options).collect();
    if let Some(swap) = max_swap {
        // Docker's number is memory and swap together, so it needs both.
        let Some(memory) = memory_mib else {
            return Err(format!(
                "ResourceInitializationError: linuxParameters.maxSwap of container '{name}' needs a hard limit: 'memory'"
            ));
        };
        host.memory_swap = Some((i64::from(memory) + i64::from(*swap)) * MIB);
        // Without maxSwap it is ignored, as in ECS.
        host.memory_swappiness = swappiness.map(i64::from);
    }
    Ok(())
}

fn device(device: &Device) -> DockerDevice {
    let Device {
        container_path,
        host_path,
        permissions,
    } = device;
    let letter = |permission: &DeviceCgroupPermission| match permission.as_str() {
        "read" => "r",
        "write" => "w",
        _ => "m",
    };
    let given = items(permissions);
    DockerDevice {
        path_on_host: host_path.clone(),
        path_in_container: container_path.clone().unwrap_or_else(|| host_path.clone()),
        cgroup_permissions: match given {
            [] => "rwm".to_owned(),
            given => given.iter().map(letter).collect(),
        },
    }
}

fn tmpfs_options(tmpfs: &Tmpfs) -> (String, String) {
    let Tmpfs {
        container_path,
        mount_options,
        size,
    } = tmpfs;
    let mut options = vec![format!("size={size}m")];
    options.extend(items(mount_options).iter().cloned());
    (container_path.clone(), options.join(","))
}
