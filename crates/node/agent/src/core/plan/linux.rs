//! What a container gets of the kernel, from Docker's HostConfig and Config.
//!
//! What always holds: numbers are in bytes and names as Docker writes them; whatever has no meaning is a
//! reason that names the member and the container.
//! What it leaves to others: whether this machine can give it (`gantry_runtime`).

use std::collections::BTreeMap;

use gantry_api::acs::{DockerDevice, DockerUlimit};

use super::unknown::not_built;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxPlan {
    pub privileged: bool,
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub devices: Vec<DevicePlan>,
    pub init_process: bool,
    pub shm_size_bytes: Option<u64>,
    pub tmpfs: Vec<TmpfsPlan>,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: Vec<UlimitPlan>,
    /// Memory and swap together; -1 is no limit of swap.
    pub memory_swap_bytes: Option<i64>,
    pub memory_swappiness: Option<u64>,
    pub security: SecurityPlan,
    pub terminal: bool,
    pub stdin_open: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityPlan {
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    pub host_path: String,
    pub container_path: String,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsPlan {
    pub path: String,
    pub size_bytes: u64,
    pub options: Vec<String>,
}

/// By its name in a task definition (`nofile`). `u64::MAX` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UlimitPlan {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

pub(super) fn devices(devices: &[DockerDevice], name: &str) -> Result<Vec<DevicePlan>, String> {
    devices
        .iter()
        .map(|device| {
            let DockerDevice {
                path_on_host,
                path_in_container,
                cgroup_permissions,
            } = device;
            if !path_on_host.starts_with('/') {
                return Err(format!(
                    "container '{name}': device '{path_on_host}' is not an absolute path"
                ));
            }
            let path = |text: &String, or: &str| match text.as_str() {
                "" => or.to_owned(),
                text => text.to_owned(),
            };
            Ok(DevicePlan {
                host_path: path_on_host.clone(),
                container_path: path(path_in_container, path_on_host),
                permissions: path(cgroup_permissions, "rwm"),
            })
        })
        .collect()
}

pub(super) fn tmpfs(
    tmpfs: &BTreeMap<String, String>,
    name: &str,
) -> Result<Vec<TmpfsPlan>, String> {
    tmpfs
        .iter()
        .map(|(path, options)| {
            let mut plan = TmpfsPlan {
                path: path.clone(),
                size_bytes: 0,
                options: Vec::new(),
            };
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option.strip_prefix("size=") {
                    Some(size) => {
                        plan.size_bytes = super::size(size).ok_or_else(|| {
                            format!("container '{name}': tmpfs '{path}' has no size '{size}'")
                        })?;
                    }
                    None => plan.options.push(option.to_owned()),
                }
            }
            if plan.size_bytes == 0 {
                return Err(format!("container '{name}': tmpfs '{path}' has no size"));
            }
            Ok(plan)
        })
        .collect()
}

pub(super) fn ulimits(ulimits: &[DockerUlimit]) -> Vec<UlimitPlan> {
    // -1 is how Docker and ECS say that there is no limit.
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    ulimits
        .iter()
        .map(|DockerUlimit { name, soft, hard }| UlimitPlan {
            name: name.clone(),
            soft: limit(*soft),
            hard: limit(*hard),
        })
        .collect()
}

/// `no-new-privileges`, `apparmor:PROFILE` and `label:…`, with `:` or `=` between name and value.
pub(super) fn security(options: &[String], name: &str) -> Result<SecurityPlan, String> {
    let mut plan = SecurityPlan::default();
    for option in options {
        let (what, value) = match option.find([':', '=']) {
            Some(at) => (&option[..at], &option[at + 1..]),
            None => (option.as_str(), ""),
        };
        match (what, value) {
            ("no-new-privileges", "" | "true") => plan.no_new_privileges = true,
            ("no-new-privileges", "false") => plan.no_new_privileges = false,
            ("apparmor", profile) if !profile.is_empty() => {
                plan.apparmor_profile = Some(profile.to_owned());
            }
            ("label", label) if !label.is_empty() => plan.selinux_label = Some(label.to_owned()),
            _ => return Err(not_built("dockerSecurityOptions", option, Some(name))),
        }
    }
    Ok(plan)
}
