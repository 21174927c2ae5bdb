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
            "cgroup controllers that are handed down",
            can_hand_down(Path::new("/sys/fs/cgroup")),
            "on cgroup v2, as root of a container: move every process from /sys/fs/cgroup to a group below it, and \
             mount it for writing",
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

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// On v2 only the machine's own root may have processes and hand controllers down at once. What looks like the root in a
/// cgroup namespace may not, and the first task with a limit would fail.
fn can_hand_down(root: &Path) -> bool {
    let read = |name: &str| std::fs::read_to_string(root.join(name));
    let Ok(handed) = read("cgroup.subtree_control") else {
        return true;
    };
    let handed: Vec<&str> = handed.split_whitespace().collect();
    let is_the_machines = !root.join("cgroup.type").exists();
    let is_empty = || read("cgroup.procs").is_ok_and(|pids| pids.trim().is_empty());
    is_the_machines || CONTROLLERS.iter().all(|name| handed.contains(name)) || is_empty()
}

fn controllers_are_there() -> bool {
    let wanted = CONTROLLERS;
    if let Ok(v2) = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        let there: Vec<&str> = v2.split_whitespace().collect();
        return wanted.iter().all(|name| there.contains(name));
    }
    let there = cgroup::hierarchies();
    wanted
        .iter()
        .all(|name| there.iter().any(|path| path.ends_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_processes_hands_nothing_down_unless_it_is_the_machines_root() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        assert!(can_hand_down(root.path()), "v1 has no such thing");
        write("cgroup.subtree_control", "");
        write("cgroup.procs", "1\n");
        assert!(can_hand_down(root.path()), "the machine's root");
        write("cgroup.type", "domain\n");
        assert!(!can_hand_down(root.path()));
        write("cgroup.subtree_control", "cpu io memory pids\n");
        assert!(can_hand_down(root.path()), "somebody did it before");
        write("cgroup.subtree_control", "cpu\n");
        write("cgroup.procs", "");
        assert!(can_hand_down(root.path()), "nobody is in it");
    }
}
