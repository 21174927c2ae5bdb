//! A container's view of its cgroups where the machine has them on v1: one mount a hierarchy.
//!
//! libcontainer can make the same, with a hundred system calls a hierarchy, of which a machine has ten. Here it is made by
//! descriptors, from inside the container, whose cgroup namespace is the root of each.
//!
//! What always holds: no link is followed; unless it is privileged, a container can change nothing of its cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, mkdirat, open, symlinkat};
use rustix::mount::MountAttrFlags;

use super::detached::{self, FsOption, PLAIN};
use super::mount_flags::{self, Depth, READ_ONLY};

/// Where programs look.
pub(super) const FOLDER: &str = "/sys/fs/cgroup";

/// What is left to do when libcontainer has mounted everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupMounts {
    /// Nothing: what is there stays as it is.
    Done,
    /// libcontainer mounts v1's hierarchies for writing: a container could raise its own limits.
    Seal,
    /// Nothing is there yet.
    Mount { writable: bool },
}

impl CgroupMounts {
    /// For a container whose definition mounts something on its `own` targets. What it mounts on or below `/sys` is not
    /// to be covered, so then libcontainer makes all mounts in order.
    pub fn of(is_v2: bool, privileged: bool, own: &BTreeSet<PathBuf>) -> Self {
        if is_v2 {
            return CgroupMounts::Done;
        }
        if !own.iter().any(|target| target.starts_with("/sys")) {
            let writable = privileged;
            return CgroupMounts::Mount { writable };
        }
        match privileged {
            true => CgroupMounts::Done,
            false => CgroupMounts::Seal,
        }
    }

    pub fn are_left_to_libcontainer(self) -> bool {
        !matches!(self, CgroupMounts::Mount { .. })
    }

    /// Inside the container, before it loses its rights.
    pub fn finish(self) -> io::Result<()> {
        match self {
            CgroupMounts::Done => Ok(()),
            CgroupMounts::Seal => mount_flags::add(folder()?, READ_ONLY, Depth::All),
            CgroupMounts::Mount { writable } => mount_all(writable),
        }
    }
}

fn folder() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(FOLDER, flags, Mode::empty())
}

fn mount_all(writable: bool) -> io::Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let access = match writable {
        true => PLAIN,
        false => PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    let all = detached::new("tmpfs", &[("mode", Some("755"))], PLAIN)?;
    detached::attach(&all, folder()?)?;
    for hierarchy in own.lines().filter_map(Hierarchy::of) {
        mkdirat(&all, hierarchy.name, Mode::from_raw_mode(0o755))?;
        let one = detached::new("cgroup", &hierarchy.options(), access)?;
        detached::attach_in(&one, &all, hierarchy.name)?;
        // What is mounted together is found by each of its names.
        for controller in hierarchy.controllers().filter(|one| *one != hierarchy.name) {
            symlinkat(hierarchy.name, &all, controller)?;
        }
    }
    match writable {
        true => Ok(()),
        false => mount_flags::add(&all, READ_ONLY, Depth::One),
    }
}

/// One of v1's, as the kernel names it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy<'a> {
    /// Its controllers with commas between, or its own name: also that of its folder.
    name: &'a str,
    /// It has no controller.
    only_named: bool,
}

impl<'a> Hierarchy<'a> {
    /// Of a line of `/proc/self/cgroup`; v2's says nothing of what it is for.
    fn of(line: &'a str) -> Option<Self> {
        let what = line.split(':').nth(1).filter(|what| !what.is_empty())?;
        let named = what.strip_prefix("name=");
        Some(Self {
            name: named.unwrap_or(what),
            only_named: named.is_some(),
        })
    }

    fn controllers(&self) -> impl Iterator<Item = &'a str> {
        let all = (!self.only_named).then(|| self.name.split(','));
        all.into_iter().flatten()
    }

    fn options(&self) -> Vec<FsOption<'a>> {
        if self.only_named {
            // Without `none` the kernel would take every controller that is free.
            return vec![("none", None), ("name", Some(self.name))];
        }
        self.controllers().map(|one| (one, None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_as_the_kernel_names_them() {
        let of = |line| Hierarchy::of(line).unwrap_or_else(|| panic!("{line}"));
        let together = of("4:cpu,cpuacct:/gantry-1/a");
        assert_eq!(together.name, "cpu,cpuacct");
        assert_eq!(together.options(), [("cpu", None), ("cpuacct", None)]);
        let named = of("1:name=systemd:/");
        assert_eq!(named.name, "systemd");
        assert_eq!(named.options(), [("none", None), ("name", Some("systemd"))]);
        assert_eq!(named.controllers().count(), 0);
        assert_eq!(Hierarchy::of("0::/x"), None);
        assert_eq!(Hierarchy::of(""), None);
    }

    #[test]
    fn what_a_definition_mounts_below_sys_is_left_uncovered() {
        let of = |privileged, targets: &[&str]| {
            CgroupMounts::of(
                false,
                privileged,
                &targets.iter().map(PathBuf::from).collect(),
            )
        };
        assert_eq!(
            of(false, &["/data"]),
            CgroupMounts::Mount { writable: false }
        );
        assert_eq!(of(true, &[]), CgroupMounts::Mount { writable: true });
        assert_eq!(of(false, &["/sys/fs/cgroup"]), CgroupMounts::Seal);
        assert_eq!(of(true, &["/sys"]), CgroupMounts::Done);
        assert_eq!(
            CgroupMounts::of(true, false, &BTreeSet::new()),
            CgroupMounts::Done
        );
    }
}
