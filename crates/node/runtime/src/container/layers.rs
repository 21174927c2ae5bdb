//! A container's root file system: the image's layers under a writable one, stacked by overlayfs.
//!
//! What always holds: any number of layers up to the kernel's own limit of 500 fits, on every kernel; the mount is in this
//! process's own mount namespace. What it leaves to others: unpacking layers (`image`).

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount as mount_fs, move_mount,
};

use super::cannot_create;
use crate::error::RuntimeError;
use crate::state::ContainerFile;

/// What holds the mount and the writable layer, below the container's folder.
const ROOT: &str = "rootfs";
const UPPER: &str = "upper";
const WORK: &str = "work";
/// Short names for layers, where the kernel takes all of them in one page.
const SHORT_NAMES: &str = "l";

const DOING: &str = "mounting the root file system";

/// Stacks the layers of `file` and gives where. What the container wrote before is still there.
pub(super) fn mount(file: &ContainerFile, dir: &Path) -> Result<PathBuf, RuntimeError> {
    let failed = |error: io::Error| cannot_create(DOING, error);
    let rootfs = dir.join(ROOT);
    for folder in [ROOT, UPPER, WORK] {
        fs::create_dir_all(dir.join(folder)).map_err(failed)?;
    }
    // The upper folder's mode becomes that of `/`.
    fs::set_permissions(dir.join(UPPER), fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let layers = topmost_first(&file.layers);
    if layers.is_empty() {
        return Err(cannot_create(DOING, "the image has no layers"));
    }
    let mounted = match add_one_by_one(&file.layers_dir, &layers, dir) {
        // Kernels before 6.5 take all layers in one option.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            all_in_one(&file.layers_dir, &layers, dir)
        }
        mounted => mounted.map_err(io::Error::from),
    };
    mounted.map_err(|error| cannot_create(DOING, format!("{error} ({} layers)", layers.len())))?;
    std::env::set_current_dir(dir).map_err(failed)?;
    Ok(rootfs)
}

/// A layer that an image has twice counts where it is on top: what it says there hides what it says below, and
/// overlayfs refuses the same folder twice.
fn topmost_first(layers: &[String]) -> Vec<&str> {
    let mut seen = std::collections::BTreeSet::new();
    let from_the_top = layers.iter().rev().map(String::as_str);
    from_the_top.filter(|layer| seen.insert(*layer)).collect()
}

/// A call a layer. Names are relative to the folder that this process works in, because one is at most 255 bytes.
fn add_one_by_one(layers_dir: &Path, layers: &[&str], dir: &Path) -> rustix::io::Result<()> {
    let enter = |folder: &Path| rustix::process::chdir(folder);
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let overlay = &overlay;
    fsconfig_set_string(overlay, "source", "overlay")?;
    enter(layers_dir)?;
    for layer in layers {
        fsconfig_set_string(overlay, "lowerdir+", *layer)?;
    }
    enter(dir)?;
    fsconfig_set_string(overlay, "upperdir", UPPER)?;
    fsconfig_set_string(overlay, "workdir", WORK)?;
    fsconfig_create(overlay)?;
    let mounted = fsmount(
        overlay,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    move_mount(
        mounted,
        "",
        CWD,
        ROOT,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// One page of options for all: links of a few characters stand for the layers.
fn all_in_one(layers_dir: &Path, layers: &[&str], dir: &Path) -> io::Result<()> {
    let names = dir.join(SHORT_NAMES);
    let _ = fs::remove_dir_all(&names);
    fs::create_dir(&names)?;
    for (at, layer) in layers.iter().enumerate() {
        symlink(layers_dir.join(layer), names.join(at.to_string()))?;
    }
    std::env::set_current_dir(&names)?;
    let lowers: Vec<String> = (0..layers.len()).map(|at| at.to_string()).collect();
    let options = format!(
        "lowerdir={},upperdir=../{UPPER},workdir=../{WORK}",
        lowers.join(":")
    );
    let options = std::ffi::CString::new(options)?;
    mount_fs(
        "overlay",
        dir.join(ROOT),
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_counts_where_it_is_on_top() {
        let layers: Vec<String> = ["a", "b", "a", "c"].map(str::to_owned).into();
        assert_eq!(topmost_first(&layers), ["c", "a", "b"]);
    }

    /// Both ways see the same tree. In a child of its own, whose mounts end with it.
    #[test]
    fn both_ways_stack_a_hundred_and_twenty_seven_layers() {
        let temporary = tempfile::tempdir().unwrap();
        let layers_dir = temporary.path().join("layers");
        let layers: Vec<String> = (0..127).map(|at| format!("{at:0>64}")).collect();
        for (at, layer) in layers.iter().enumerate() {
            let folder = layers_dir.join(layer);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("top"), at.to_string()).unwrap();
            fs::write(folder.join(format!("f{at}")), "x").unwrap();
        }
        let names = topmost_first(&layers);
        for way in [Way::OneByOne, Way::AllInOne] {
            let dir = temporary.path().join(format!("{way:?}"));
            for folder in [ROOT, UPPER, WORK] {
                fs::create_dir_all(dir.join(folder)).unwrap();
            }
            // SAFETY: the child calls the kernel, writes nothing of its parent's, and leaves by `_exit`.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                let good = super::super::root::own_mount_namespace().is_ok()
                    && is_stacked(way, &layers_dir, &names, &dir);
                // SAFETY: as above.
                unsafe { libc::_exit(i32::from(!good)) }
            }
            let mut status = 0;
            // SAFETY: our own child, and a place for its status.
            unsafe { libc::waitpid(child, &mut status, 0) };
            assert_eq!(status, 0, "{way:?}");
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Way {
        OneByOne,
        AllInOne,
    }

    fn is_stacked(way: Way, layers_dir: &Path, names: &[&str], dir: &Path) -> bool {
        let mounted = match way {
            Way::OneByOne => match add_one_by_one(layers_dir, names, dir) {
                // This kernel is too old for it, which is what the other way is for.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => return true,
                mounted => mounted.is_ok(),
            },
            Way::AllInOne => all_in_one(layers_dir, names, dir).is_ok(),
        };
        let root = dir.join(ROOT);
        mounted
            && fs::read_to_string(root.join("top")).is_ok_and(|top| top == "126")
            && root.join("f0").exists()
    }
}
