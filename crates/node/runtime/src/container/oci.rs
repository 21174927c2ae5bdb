//! The OCI runtime configuration of a container: what Docker gives a container that asks for nothing, and
//! what its definition changes.
//!
//! What always holds: masked and read-only paths are Docker's. Capabilities and the seccomp filter are not in it: they come
//! into force last, and in one place (`confinement`). What it leaves to others: each part that has a file of its own.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::cgroup_mounts::CgroupMounts;
use super::devices::Devices;
use super::holder::Shared;
use super::program::Process;
use super::user::User;
use super::{cannot_create, limits, lsm, mounts, refused, sysctls};
use crate::error::RuntimeError;
use crate::spec::{IpcMode, NetworkMode, PidMode};
use crate::state::ContainerFile;

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// One a processor, where the machine has it: it tells of what its neighbours do.
const PROCESSORS: &str = "/sys/devices/system/cpu";
const MASKED_OF_A_PROCESSOR: &str = "thermal_throttle";

/// The kernel's HOST_NAME_MAX.
const HOSTNAME_BYTES_MAX: usize = 64;

const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Of a container: what its configuration is made from.
pub(super) struct Parts<'a> {
    pub file: &'a ContainerFile,
    pub rootfs: &'a Path,
    pub process: &'a Process,
    pub user: &'a User,
    pub devices: &'a Devices,
    pub shared: &'a Shared,
    pub cgroups: CgroupMounts,
}

/// The configuration as libcontainer reads it.
pub(super) fn spec(parts: &Parts<'_>) -> Result<Spec, RuntimeError> {
    let Parts {
        file,
        rootfs,
        process,
        user,
        devices,
        shared,
        cgroups,
    } = parts;
    let spec = &file.spec;
    sysctls::check(&spec.sysctls, &file.task)?;
    let mut mounts = mounts::of(file, *cgroups)?;
    mounts.extend(devices.mounts());
    let mut value = json!({
        "ociVersion": "1.0.2",
        "root": {"path": rootfs, "readonly": spec.readonly_root_filesystem},
        "process": {
            // The first process opens its terminal itself (`terminal`), which libcontainer need not know.
            "terminal": false,
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids},
            "args": process.args,
            "env": process.env,
            "cwd": process.cwd,
            "rlimits": limits::rlimits(spec)?,
        },
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces(file, shared)?,
            "cgroupsPath": file.cgroup,
            "resources": limits::resources(spec, &devices.rules())?,
            "devices": devices.nodes(),
            "sysctl": spec.sysctls,
            "maskedPaths": masked_paths(spec.privileged),
            "readonlyPaths": readonly_paths(spec.privileged),
        },
    });
    if spec.no_new_privileges {
        value["process"]["noNewPrivileges"] = json!(true);
    }
    if let Some(profile) = lsm::apparmor_profile(spec)? {
        value["process"]["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = lsm::selinux_label(spec)? {
        value["linux"]["mountLabel"] = json!(label);
    }
    if own_name(file) {
        value["hostname"] = json!(hostname(file)?);
    }
    serde_json::from_value(value)
        .map_err(|error| cannot_create("the container's configuration", error))
}

/// With the host's network the host's name is shown, unless another was asked for.
fn own_name(file: &ContainerFile) -> bool {
    file.spec.hostname.is_some() || file.task.network != NetworkMode::Host
}

fn hostname(file: &ContainerFile) -> Result<String, RuntimeError> {
    match &file.spec.hostname {
        Some(asked) if asked.len() > HOSTNAME_BYTES_MAX => Err(refused(format!(
            "hostname \"{asked}\" has more than the kernel's {HOSTNAME_BYTES_MAX} characters"
        ))),
        Some(asked) => Ok(asked.clone()),
        None => Ok(short_name(&file.spool_id)),
    }
}

/// As Docker names a container that nobody named: twelve digits.
pub(super) fn short_name(id: &str) -> String {
    id.chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect()
}

fn namespaces(file: &ContainerFile, shared: &Shared) -> Result<Vec<Value>, RuntimeError> {
    let one = |kind: &str, path: Option<&PathBuf>| match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    };
    let mut namespaces = vec![one("mount", None), one("cgroup", None)];
    if file.task.pid_mode != PidMode::Host {
        namespaces.push(one("pid", shared.pid.as_ref()));
    }
    if file.task.ipc_mode != IpcMode::Host {
        namespaces.push(one("ipc", shared.ipc.as_ref()));
    }
    if own_name(file) {
        namespaces.push(one("uts", None));
    }
    match (file.task.network, &file.spec.network_namespace) {
        // Also beside containers that have a network.
        _ if file.spec.network_disabled => namespaces.push(one("network", None)),
        (NetworkMode::Host, _) => {}
        (NetworkMode::None, _) => namespaces.push(one("network", None)),
        (NetworkMode::Namespaces, Some(path)) => namespaces.push(one("network", Some(path))),
        (NetworkMode::Namespaces, None) => {
            return Err(cannot_create(
                "joining a network",
                "the container names no network namespace",
            ));
        }
    }
    Ok(namespaces)
}

fn masked_paths(privileged: bool) -> Vec<String> {
    if privileged {
        return Vec::new();
    }
    let mut paths: Vec<String> = MASKED_PATHS.map(str::to_owned).into();
    let processor = |number: usize| format!("{PROCESSORS}/cpu{number}/{MASKED_OF_A_PROCESSOR}");
    paths.extend(
        (0..)
            .map(processor)
            .take_while(|path| Path::new(path).exists()),
    );
    paths
}

fn readonly_paths(privileged: bool) -> Vec<String> {
    if privileged {
        return Vec::new();
    }
    READONLY_PATHS.map(str::to_owned).into()
}
