//! Where a machine's cgroup controllers are: each on a mount of its own (v1), all on one (v2), or some here and
//! some there (hybrid).
//!
//! What always holds: nothing here knows of a fixed place, so a tree in any folder can stand in for the kernel's.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The tree of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// One controller's hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controller {
    pub version: Version,
    pub mount: PathBuf,
}

impl Controller {
    /// The folder of a cgroup.
    pub fn folder(&self, cgroup: &str) -> PathBuf {
        self.mount.join(cgroup.trim_start_matches('/'))
    }
}

impl Layout {
    pub fn of_this_machine() -> Layout {
        Layout::at(Path::new(ROOT))
    }

    pub fn at(root: &Path) -> Layout {
        Layout {
            root: root.to_owned(),
        }
    }

    /// The controller by its name on v1 (`cpu`, `cpuacct`, `memory`, `pids`, `blkio`).
    pub fn controller(&self, name: &str) -> Option<Controller> {
        self.look().controller(name)
    }

    /// What of v2 there is, for who asks for several controllers: a thousand containers are looked at
    /// every few seconds, and finding their folders must not cost more than reading them.
    pub fn look(&self) -> Look<'_> {
        let mounts = [self.root.clone(), self.root.join("unified")];
        Look {
            layout: self,
            second: mounts.map(|mount| {
                let there = fs::read_to_string(mount.join("cgroup.controllers"));
                (mount, there.unwrap_or_default())
            }),
        }
    }

    /// Every hierarchy: one on v2, one a controller on v1, both on a hybrid host.
    pub fn hierarchies(&self) -> Vec<PathBuf> {
        if self.root.join("cgroup.controllers").exists() {
            return vec![self.root.clone()];
        }
        let mut found: Vec<PathBuf> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            // `cpu` and `cpuacct` may be links to one mounted together: once is enough.
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    }
}

/// The machine's controllers as they were at one moment.
pub(crate) struct Look<'a> {
    layout: &'a Layout,
    /// Where v2 may be, and which controllers it has there.
    second: [(PathBuf, String); 2],
}

impl Look<'_> {
    /// See [`Layout::controller`].
    pub fn controller(&self, name: &str) -> Option<Controller> {
        // v2 counts processors' time in every cgroup, and calls block devices' controller by another name.
        let on_v2 = match name {
            "cpuacct" => "cpu",
            "blkio" => "io",
            name => name,
        };
        for (mount, there) in &self.second {
            if there.split_whitespace().any(|known| known == on_v2) {
                return Some(Controller {
                    version: Version::V2,
                    mount: mount.clone(),
                });
            }
        }
        let mount = self.layout.root.join(name);
        let version = Version::V1;
        mount.is_dir().then_some(Controller { version, mount })
    }
}
