//! Volumes in memory: the one kind of mount that the agent makes on the host.
//!
//! What always holds: it is made below the volumes' own folder, once however often it is asked for, and
//! seen as a mount by its device, so it is found and unmounted by whoever comes later.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

/// Mounts a tmpfs there, unless something is mounted already.
pub(super) fn mount(at: &Path, options: &[String]) -> Result<(), String> {
    if is_mounted(at).map_err(|error| error.to_string())? {
        return Ok(());
    }
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "rw" | "defaults" | "exec" | "dev" | "suid" | "atime" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "noexec" => flags |= MountFlags::NOEXEC,
            "nodev" => flags |= MountFlags::NODEV,
            "nosuid" => flags |= MountFlags::NOSUID,
            "noatime" => flags |= MountFlags::NOATIME,
            other => data.push(other),
        }
    }
    let data = CString::new(data.join(",")).map_err(|error| error.to_string())?;
    rustix::mount::mount("tmpfs", at, "tmpfs", flags, data.as_c_str())
        .map_err(|error| format!("mounting a tmpfs with '{}': {error}", options.join(",")))
}

/// Nothing is mounted there afterwards. What still uses it keeps it for itself.
pub(super) fn unmount(at: &Path) -> io::Result<()> {
    while is_mounted(at)? {
        rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

fn is_mounted(at: &Path) -> io::Result<bool> {
    let there = match std::fs::symlink_metadata(at) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match at.parent() {
        Some(parent) => Ok(std::fs::symlink_metadata(parent)?.dev() != there.dev()),
        None => Ok(false),
    }
}
