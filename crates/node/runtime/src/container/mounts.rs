//! What libcontainer mounts over a container's root, in the order in which it is mounted.
//!
//! What always holds: what a definition mounts replaces what would stand there by default and comes after
//! everything it lies below; libcontainer resolves every target inside the root, so no link in an image or a volume leads
//! out of it. A source that is missing is made as a folder, as Docker's `-v` does; a source is never looked for in the container.
//! What it leaves to others: what stands before (`base_mounts`), masks and read-only paths (`oci`), device nodes (`devices`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::cgroup_mounts::{self, CgroupMounts};
use super::root::{Target, make_target};
use super::{cannot_create, refused};
use crate::error::RuntimeError;
use crate::spec::{BindMount, ContainerSpec, IpcMode, Tmpfs};
use crate::state::ContainerFile;

/// Of `/dev/shm`, as Docker has it.
const SHM_BYTES: u64 = 64 << 20;

/// Below the container's folder: the task's `/dev/shm`, where it has one.
pub(super) const SHARED_SHM: &str = "shm";

/// Words that a tmpfs of a task definition may have as options; those with `=` need a value.
#[rustfmt::skip]
const TMPFS_FLAGS: [&str; 34] = [
    "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync",
    "remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "bind", "rbind",
    "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave", "rslave",
    "relatime", "norelatime", "strictatime", "nostrictatime", "noswap",
];
const TMPFS_VALUES: [&str; 6] = ["mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

struct Mount {
    destination: PathBuf,
    json: Value,
}

/// Where the definition itself mounts something.
pub(super) fn own_targets(spec: &ContainerSpec) -> Result<BTreeSet<PathBuf>, RuntimeError> {
    let tmpfs = spec.tmpfs.iter().map(|tmpfs| target(&tmpfs.path));
    let binds = spec.mounts.iter().map(|bind| target(&bind.target));
    tmpfs.chain(binds).collect()
}

/// What is left to libcontainer to mount, in the OCI's form.
pub(super) fn of(file: &ContainerFile, cgroups: CgroupMounts) -> Result<Vec<Value>, RuntimeError> {
    if file.task.ipc_mode == IpcMode::Host && file.spec.shm_size_bytes.is_some() {
        return Err(refused(
            "sharedMemorySize does not go with ipcMode host: the host's /dev/shm has its own size",
        ));
    }
    let mut own = Vec::new();
    let mut targets = BTreeSet::new();
    for tmpfs in &file.spec.tmpfs {
        own.push(of_tmpfs(tmpfs)?);
    }
    for bind in &file.spec.mounts {
        own.push(of_bind(bind)?);
    }
    for mount in &own {
        if !targets.insert(mount.destination.clone()) {
            return Err(refused(format!(
                "Duplicate mount point: {}",
                mount.destination.display()
            )));
        }
    }
    let mut mounts = by_default(file, cgroups);
    mounts.retain(|mount| !targets.contains(&mount.destination));
    // What lies deeper comes later; among equals the order stays.
    own.sort_by_key(|mount| mount.destination.components().count());
    mounts.extend(own);
    Ok(mounts.into_iter().map(|mount| mount.json).collect())
}

/// Makes what mounts lie on. Below another mount it is made there as well, by libcontainer.
pub(super) fn make_targets(root: &fs::File, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    for tmpfs in &spec.tmpfs {
        make_target(
            root,
            &target(&tmpfs.path)?.to_string_lossy(),
            Target::Folder,
        )?;
    }
    for bind in &spec.mounts {
        let kind = match bind.source.is_file() {
            true => Target::File,
            false => Target::Folder,
        };
        make_target(root, &target(&bind.target)?.to_string_lossy(), kind)?;
    }
    Ok(())
}

/// What needs the container's own namespaces. The rest stands already (`base_mounts`).
fn by_default(file: &ContainerFile, cgroups: CgroupMounts) -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        made(destination.into(), kind, Path::new(kind), options)
    };
    let plain = ["nosuid", "noexec", "nodev"];
    let access = if file.spec.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", &plain),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
    ];
    if cgroups.are_left_to_libcontainer() {
        let options = ["nosuid", "noexec", "nodev", "relatime", access];
        mounts.push(mount(cgroup_mounts::FOLDER, "cgroup", &options));
    }
    let queues = Path::new("/dev/mqueue");
    // A machine may have it nowhere; the queues themselves are the host's in any case.
    if file.task.ipc_mode == IpcMode::Host && queues.exists() {
        let options = ["rbind", "rprivate", "rw", "nosuid", "noexec", "nodev"];
        mounts.push(made(queues.to_owned(), "bind", queues, &options));
    } else {
        mounts.push(mount("/dev/mqueue", "mqueue", &plain));
    }
    mounts
}

fn of_tmpfs(tmpfs: &Tmpfs) -> Result<Mount, RuntimeError> {
    let destination = target(&tmpfs.path)?;
    for option in &tmpfs.options {
        let is_known = match option.split_once('=') {
            Some((name, _)) => TMPFS_VALUES.contains(&name),
            None => TMPFS_FLAGS.contains(&option.as_str()),
        };
        if !is_known {
            return Err(refused(format!(
                "tmpfs {}: invalid mount option \"{option}\"",
                tmpfs.path.display()
            )));
        }
    }
    let size = format!("size={}", tmpfs.size_bytes);
    // Docker's own come first, so that the definition's win.
    let mut options = vec!["noexec", "nosuid", "nodev"];
    options.extend(
        tmpfs
            .options
            .iter()
            .map(String::as_str)
            .filter(|option| is_of_a_mount(option)),
    );
    options.push(&size);
    Ok(made(destination, "tmpfs", Path::new("tmpfs"), &options))
}

/// A new tmpfs is neither a bind nor a remount, and its propagation ends at the container in any case.
fn is_of_a_mount(option: &str) -> bool {
    let propagation = ["private", "shared", "slave", "unbindable"];
    !matches!(option, "defaults" | "bind" | "rbind" | "remount")
        && !propagation.contains(&option.strip_prefix('r').unwrap_or(option))
}

fn of_bind(bind: &BindMount) -> Result<Mount, RuntimeError> {
    let destination = target(&bind.target)?;
    if !bind.source.is_absolute() {
        return Err(refused(format!(
            "mount {}: the source must be an absolute path",
            bind.source.display()
        )));
    }
    if !bind.source.exists() {
        fs::create_dir_all(&bind.source).map_err(|error| {
            cannot_create(
                &format!(
                    "making the missing source {} of a mount",
                    bind.source.display()
                ),
                error,
            )
        })?;
    }
    // Recursively: what is mounted below a read-only source is read-only as well.
    let access: &[&str] = if bind.read_only {
        &["ro", "rro"]
    } else {
        &["rw"]
    };
    let options: Vec<&str> = ["rbind", "rprivate"]
        .iter()
        .chain(access)
        .copied()
        .collect();
    Ok(made(destination, "bind", &bind.source, &options))
}

/// A target as Docker takes it: absolute, and not the root itself.
fn target(path: &Path) -> Result<PathBuf, RuntimeError> {
    if !path.is_absolute() {
        return Err(refused(format!(
            "invalid mount path: '{}' mount path must be absolute",
            path.display()
        )));
    }
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean == Path::new("/") {
        return Err(refused(format!(
            "invalid mount path: '{}' must not be the root",
            path.display()
        )));
    }
    // Docker's runtime refuses the same: a process that could forge its own /proc could fool whoever reads it.
    if clean == Path::new("/proc") || clean.starts_with("/proc/") {
        return Err(refused(format!(
            "invalid mount path: '{}' must not be inside /proc",
            path.display()
        )));
    }
    Ok(clean)
}

fn made(destination: PathBuf, kind: &str, source: &Path, options: &[&str]) -> Mount {
    let json =
        json!({"destination": destination, "type": kind, "source": source, "options": options});
    Mount { destination, json }
}

/// How large the `/dev/shm` of a container that asks is to be.
pub(super) fn shm_bytes(spec: &ContainerSpec) -> u64 {
    spec.shm_size_bytes.unwrap_or(SHM_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_cleaned_or_refused() {
        let cleaned = |path: &str| target(Path::new(path)).map_err(|error| error.message);
        assert_eq!(cleaned("/a/../../b/./c/"), Ok("/b/c".into()));
        for bad in ["a", "/", "/..", "/proc", "/x/../proc/sys"] {
            assert!(cleaned(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_a_tmpfs_are_known_or_refused() {
        let tmpfs = |options: &[&str]| {
            of_tmpfs(&Tmpfs {
                path: "/t".into(),
                size_bytes: 1 << 20,
                options: options.iter().map(|option| (*option).to_owned()).collect(),
            })
        };
        let made = tmpfs(&["defaults", "exec", "mode=700"]).unwrap_or_else(|_| panic!("refused"));
        assert_eq!(
            made.json["options"],
            json!([
                "noexec",
                "nosuid",
                "nodev",
                "exec",
                "mode=700",
                "size=1048576"
            ])
        );
        for bad in ["nonsense", "size=1", "lowerdir=/", "source=/"] {
            assert!(tmpfs(&[bad]).is_err(), "{bad}");
        }
    }
}
