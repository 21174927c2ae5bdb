//! The OCI runtime configuration of a container: what Docker gives a container that asks for nothing, and
//! what its definition changes.
//!
//! What always holds: capabilities, masked and read-only paths are Docker's default set; the seccomp
//! profile is `seccomp`. `noNewPrivileges` is left out, because libcontainer then loads the filter before it
//! drops privileges, so that set-user-id programs of an image work as they do in Docker.

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::cannot_create;
use super::program::Process;
use super::root::NETWORK_FILES;
use super::user::User;
use crate::error::{ErrorKind, RuntimeError};
use crate::spec::{NetworkMode, Rlimit};
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

const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The kernel's floor for shares.
const CPU_SHARES_MIN: u64 = 2;
/// Keeps a fork bomb inside its own container.
const PIDS_DEFAULT: u64 = 4096;
/// The soft limit of open files that programs expect; the hard one is the machine's.
const NOFILE_SOFT: u64 = 1024;

/// The configuration as libcontainer reads it.
pub(super) fn spec(
    file: &ContainerFile,
    dir: &Path,
    rootfs: &Path,
    process: &Process,
    user: &User,
) -> Result<Spec, RuntimeError> {
    let spec = &file.spec;
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "ipc"}),
        json!({"type": "mount"}),
        json!({"type": "cgroup"}),
    ];
    // With the host's network the host's name is shown, unless another was asked for.
    let own_name = spec.hostname.is_some() || file.task.network == NetworkMode::None;
    if own_name {
        namespaces.push(json!({"type": "uts"}));
    }
    let mut value = json!({
        "ociVersion": "1.0.2",
        "root": {"path": rootfs, "readonly": spec.readonly_root_filesystem},
        "process": {
            "terminal": false,
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids},
            "args": process.args,
            "env": process.env,
            "cwd": process.cwd,
            "rlimits": rlimits(spec)?,
        },
        "mounts": mounts(file, dir),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": file.cgroup,
            "resources": resources(spec),
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
        },
    });
    if own_name {
        let name = spec
            .hostname
            .clone()
            .unwrap_or_else(|| short_name(&file.spool_id));
        value["hostname"] = json!(name);
    }
    serde_json::from_value(value)
        .map_err(|error| cannot_create("the container's configuration", error))
}

/// As Docker names a container that nobody named: twelve digits.
pub(super) fn short_name(id: &str) -> String {
    id.chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect()
}

fn rlimits(spec: &crate::spec::ContainerSpec) -> Result<Vec<Value>, RuntimeError> {
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let hard = open_files.maximum.unwrap_or(u64::MAX);
    let mut limits = vec![("RLIMIT_NOFILE".to_owned(), NOFILE_SOFT.min(hard), hard)];
    for ulimit in &spec.ulimits {
        let name = rlimit_name(ulimit.name);
        // This process may lower its limits but, without CAP_SYS_RESOURCE, not raise them.
        if ulimit.name == Rlimit::Nofile && ulimit.hard > hard {
            return Err(RuntimeError::new(
                ErrorKind::CannotCreateContainer,
                format!(
                    "ulimit nofile: {} is above this machine's hard limit of {hard}",
                    ulimit.hard
                ),
            ));
        }
        limits.retain(|(known, _, _)| known != name);
        limits.push((name.to_owned(), ulimit.soft, ulimit.hard));
    }
    Ok(limits
        .into_iter()
        .map(|(name, soft, hard)| json!({"type": name, "soft": soft, "hard": hard}))
        .collect())
}

fn rlimit_name(limit: Rlimit) -> &'static str {
    match limit {
        Rlimit::Core => "RLIMIT_CORE",
        Rlimit::Cpu => "RLIMIT_CPU",
        Rlimit::Data => "RLIMIT_DATA",
        Rlimit::Fsize => "RLIMIT_FSIZE",
        Rlimit::Locks => "RLIMIT_LOCKS",
        Rlimit::Memlock => "RLIMIT_MEMLOCK",
        Rlimit::Msgqueue => "RLIMIT_MSGQUEUE",
        Rlimit::Nice => "RLIMIT_NICE",
        Rlimit::Nofile => "RLIMIT_NOFILE",
        Rlimit::Nproc => "RLIMIT_NPROC",
        Rlimit::Rss => "RLIMIT_RSS",
        Rlimit::Rtprio => "RLIMIT_RTPRIO",
        Rlimit::Rttime => "RLIMIT_RTTIME",
        Rlimit::Sigpending => "RLIMIT_SIGPENDING",
        Rlimit::Stack => "RLIMIT_STACK",
    }
}

fn mounts(file: &ContainerFile, dir: &Path) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ];
    for name in NETWORK_FILES {
        mounts.push(json!({
            "destination": format!("/etc/{name}"), "type": "bind", "source": dir.join(name),
            "options": ["rbind", "rprivate", "rw"],
        }));
    }
    for tmpfs in &file.spec.tmpfs {
        let mut options = tmpfs.options.clone();
        options.push(format!("size={}", tmpfs.size_bytes));
        mounts.push(json!({
            "destination": tmpfs.path, "type": "tmpfs", "source": "tmpfs", "options": options,
        }));
    }
    mounts
}

fn resources(spec: &crate::spec::ContainerSpec) -> Value {
    let wanted = &spec.resources;
    let mut resources = json!({
        "devices": devices(),
        "pids": {"limit": wanted.pids.unwrap_or(PIDS_DEFAULT)},
    });
    if let Some(shares) = wanted.cpu_shares {
        resources["cpu"] = json!({"shares": shares.max(CPU_SHARES_MIN)});
    }
    let mut memory = serde_json::Map::new();
    if let Some(limit) = wanted.memory_bytes {
        memory.insert("limit".to_owned(), json!(limit));
    }
    if let Some(reservation) = wanted.memory_reservation_bytes {
        memory.insert("reservation".to_owned(), json!(reservation));
    }
    if !memory.is_empty() {
        resources["memory"] = Value::Object(memory);
    }
    resources
}

/// Nothing but the devices that every program expects.
fn devices() -> Value {
    let allow = |major: Option<i64>, minor: Option<i64>, access: &str| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": access});
    json!([
        {"allow": false, "access": "rwm"},
        allow(None, None, "m"),
        {"allow": true, "type": "b", "major": null, "minor": null, "access": "m"},
        allow(Some(1), Some(3), "rwm"),
        allow(Some(1), Some(5), "rwm"),
        allow(Some(1), Some(7), "rwm"),
        allow(Some(1), Some(8), "rwm"),
        allow(Some(1), Some(9), "rwm"),
        allow(Some(5), Some(0), "rwm"),
        allow(Some(5), Some(2), "rwm"),
        allow(Some(136), None, "rwm"),
    ])
}
