//! The limits of a whole task, on its own cgroup, so that the sum of its containers is bounded.
//!
//! What always holds: they are in force before the first container is made below. The shim stays outside, in its
//! starter's cgroup: a task that runs out of memory must never lose the process that tells of it, and the shim's
//! few hundred KiB are Gantry's own, not the user's.

use std::fs;
use std::io;
use std::path::Path;

use super::layout::{Controller, Layout, Version};
use crate::spec::TaskLimits;

/// The kernel's default and Docker's: limits below it are felt as pauses, longer ones as bursts.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel refuses less.
const CPU_QUOTA_US_MIN: u64 = 1_000;
const UNITS_PER_CPU: u64 = 1024;

/// Makes the task's cgroup where it has limits, and sets them.
pub(crate) fn set(layout: &Layout, cgroup: &str, limits: &TaskLimits) -> io::Result<()> {
    if let Some(units) = limits.cpu_units {
        let quota = (units.saturating_mul(CPU_PERIOD_US) / UNITS_PER_CPU).max(CPU_QUOTA_US_MIN);
        let cpu = made(layout, "cpu", cgroup)?;
        let folder = cpu.folder(cgroup);
        match cpu.version {
            Version::V1 => {
                write(&folder.join("cpu.cfs_period_us"), CPU_PERIOD_US)?;
                write(&folder.join("cpu.cfs_quota_us"), quota)?;
            }
            Version::V2 => write(&folder.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))?,
        }
    }
    if let Some(bytes) = limits.memory_bytes {
        let memory = made(layout, "memory", cgroup)?;
        let folder = memory.folder(cgroup);
        match memory.version {
            Version::V1 => {
                // Newer kernels count what is below in any case and refuse to be told otherwise.
                let hierarchy = folder.join("memory.use_hierarchy");
                if fs::read_to_string(&hierarchy).is_ok_and(|text| text.trim() == "0") {
                    write(&hierarchy, 1)?;
                }
                write(&folder.join("memory.limit_in_bytes"), bytes)?;
            }
            Version::V2 => write(&folder.join("memory.max"), bytes)?,
        }
    }
    Ok(())
}

/// Makes the cgroup's folder in the controller's hierarchy.
fn made(layout: &Layout, name: &str, cgroup: &str) -> io::Result<Controller> {
    let controller = layout.controller(name).ok_or_else(|| {
        io::Error::other(format!("this machine has no cgroup controller {name:?}"))
    })?;
    fs::create_dir_all(controller.folder(cgroup))?;
    if controller.version == Version::V2 {
        // A cgroup has a controller where every one above it hands it down.
        let mut above = controller.mount.clone();
        for part in cgroup.trim_matches('/').split('/') {
            write(&above.join("cgroup.subtree_control"), format!("+{name}"))?;
            above.push(part);
        }
    }
    Ok(controller)
}

fn write(path: &Path, value: impl ToString) -> io::Result<()> {
    fs::write(path, value.to_string())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TaskLimits = TaskLimits {
        cpu_units: Some(512),
        memory_bytes: Some(64 << 20),
    };

    #[test]
    fn each_controller_gets_its_limit_where_it_is_mounted() {
        let root = tempfile::tempdir().unwrap();
        for name in ["cpu", "memory"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        set(&Layout::at(root.path()), "/gantry-1/t", &LIMITS).unwrap();
        let read = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
        assert_eq!(read("cpu/gantry-1/t/cpu.cfs_period_us"), "100000");
        assert_eq!(read("cpu/gantry-1/t/cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory/gantry-1/t/memory.limit_in_bytes"), "67108864");
    }

    #[test]
    fn the_one_hierarchy_hands_its_controllers_down_to_the_task() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu io memory pids").unwrap();
        set(&Layout::at(root.path()), "/gantry-1/t", &LIMITS).unwrap();
        let read = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
        assert_eq!(read("gantry-1/t/cpu.max"), "50000 100000");
        assert_eq!(read("gantry-1/t/memory.max"), "67108864");
        assert_eq!(read("cgroup.subtree_control"), "+memory");
        assert_eq!(read("gantry-1/cgroup.subtree_control"), "+memory");
        assert!(
            !root
                .path()
                .join("gantry-1/t/cgroup.subtree_control")
                .exists()
        );
    }

    #[test]
    fn a_hybrid_host_is_asked_where_each_controller_is() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("cpu")).unwrap();
        fs::create_dir_all(root.path().join("unified")).unwrap();
        fs::write(root.path().join("unified/cgroup.controllers"), "memory\n").unwrap();
        set(&Layout::at(root.path()), "/gantry-1/t", &LIMITS).unwrap();
        assert!(root.path().join("cpu/gantry-1/t/cpu.cfs_quota_us").exists());
        assert!(root.path().join("unified/gantry-1/t/memory.max").exists());
    }

    #[test]
    fn a_machine_without_the_controller_is_told_of_by_name() {
        let root = tempfile::tempdir().unwrap();
        let error = set(&Layout::at(root.path()), "/gantry-1/t", &LIMITS).unwrap_err();
        assert!(error.to_string().contains("\"cpu\""), "{error}");
    }
}
