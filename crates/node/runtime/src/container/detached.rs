//! Mounts that are made first and put in place afterwards, by descriptors: no path is looked up twice.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// One of a file system's own options; without a value where it takes none.
pub(super) type FsOption<'a> = (&'a str, Option<&'a str>);

/// Neither programs nor devices nor rights come from there.
pub(super) const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A new file system of this kind, named after it.
pub(super) fn new(
    kind: &str,
    options: &[FsOption<'_>],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let made = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&made, "source", kind)?;
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&made, *name, *value)?,
            None => fsconfig_set_flag(&made, *name)?,
        }
    }
    fsconfig_create(&made)?;
    fsmount(&made, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// What is at `path`, once more.
pub(super) fn bind(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
}

/// Puts a mount over what is open as `target`.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Puts a mount over the entry of a folder that only this process knows.
pub(super) fn attach_in(mount: impl AsFd, folder: impl AsFd, name: &str) -> Result<()> {
    move_mount(
        mount,
        "",
        folder,
        name,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}
