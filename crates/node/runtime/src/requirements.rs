//! What a machine must offer to run containers, for `gantry doctor`.

use std::path::Path;

use crate::cgroup;

/// One thing that is needed, whether it is there, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub what: &'static str,
    pub is_met: bool,
    pub how_to_get_it: &'static str,
}

/// Looks at this machine.
pub fn requirements() -> Vec<Requirement> {
    let need = |what, is_met, how_to_get_it| Requirement {
        what,
        is_met,
        how_to_get_it,
    };
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let namespace = |name: &str| Path::new("/proc/self/ns").join(name).exists();
    vec![
        need(
            "root",
            rustix::process::geteuid().is_root(),
            "run gantry through sudo",
        ),
        need(
            "overlayfs",
            filesystems
                .lines()
                .any(|line| line.trim_start_matches("nodev").trim() == "overlay"),
            "load it with `modprobe overlay`; it is in every distribution's kernel",
        ),
        need(
            "namespaces (mount, pid, network, ipc, uts, cgroup)",
            ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
                .into_iter()
                .all(namespace),
            "use a kernel built with CONFIG_NAMESPACES and all of its kinds",
        ),
        need(
            "cgroup controllers cpu, memory and pids",
            controllers_are_there(),
            "mount cgroup v2 on /sys/fs/cgroup, or the v1 controllers below it",
        ),
        need(
            "mounts by descriptor (Linux 5.12)",
            kernel() >= (5, 12),
            "use Linux 5.12 or newer; every distribution of today has it",
        ),
        need(
            "seccomp filters",
            std::fs::read_to_string("/proc/self/status")
                .is_ok_and(|status| status.contains("Seccomp_filters:")),
            "use a kernel built with CONFIG_SECCOMP_FILTER",
        ),
    ]
}

/// Major and minor version; a release that is no number counts as old.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn controllers_are_there() -> bool {
    let wanted = ["cpu", "memory", "pids"];
    if let Ok(v2) = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        let there: Vec<&str> = v2.split_whitespace().collect();
        return wanted.iter().all(|name| there.contains(name));
    }
    let there = cgroup::hierarchies();
    wanted
        .iter()
        .all(|name| there.iter().any(|path| path.ends_with(name)))
}
