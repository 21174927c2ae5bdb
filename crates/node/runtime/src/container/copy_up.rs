//! Fills a fresh volume with what the image has where it is mounted, as Docker does.
//!
//! What always holds: only an empty folder is filled, and all at once, so nobody sees half of it and a
//! restart of the machine in the middle begins anew. What is read is inside the container's root, whatever
//! links the image has; links are copied as links. Owners, modes and times are kept.
//! What it leaves to others: which mounts are volumes of that kind (`ContainerSpec::copy_up`).

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, mknodat, openat2,
    utimensat,
};

use super::cannot_create;
use crate::error::RuntimeError;
use crate::spec::ContainerSpec;

/// Beside the folder that is being filled; whatever stands there is of an attempt that did not end.
const UNFINISHED: &str = "filling";

/// Fills what the specification names, from the image's root file system.
pub(super) fn fill(root: &File, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    for target in &spec.copy_up {
        let Some(mount) = spec.mounts.iter().find(|mount| mount.target == *target) else {
            continue;
        };
        fill_one(root, target, &mount.source).map_err(|error| {
            cannot_create(
                &format!("filling the volume at {}", target.display()),
                error,
            )
        })?;
    }
    Ok(())
}

fn fill_one(root: &File, target: &Path, volume: &Path) -> io::Result<()> {
    if fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    let there = openat2(
        root.as_fd(),
        target,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let there = match there {
        Ok(there) => there,
        // The image has no folder there, so there is nothing to fill the volume with.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let from = PathBuf::from(format!("/proc/self/fd/{}/.", there.as_raw_fd()));
    let unfinished = volume.with_file_name(UNFINISHED);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(&unfinished)?;
    copy_folder(&from, &unfinished)?;
    match fs::rename(&unfinished, volume) {
        Ok(()) => Ok(()),
        // Another container filled it at the same time; its content is as good.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            fs::remove_dir_all(&unfinished)
        }
        // A volume in memory is a mount, which cannot be replaced: what it holds is lost with the machine anyway.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            copy_folder(&from, volume)?;
            fs::remove_dir_all(&unfinished)
        }
        Err(error) => Err(error),
    }
}

/// Copies what is in `from` into `to`, and then what is said of `from` itself.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let about = fs::symlink_metadata(&from)?;
        let kind = about.file_type();
        if kind.is_dir() {
            fs::create_dir(&to)?;
            copy_folder(&from, &to)?;
            continue;
        }
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_file() {
            fs::copy(&from, &to)?;
        } else {
            let node = if kind.is_fifo() {
                FileType::Fifo
            } else if kind.is_socket() {
                FileType::Socket
            } else if kind.is_block_device() {
                FileType::BlockDevice
            } else {
                FileType::CharacterDevice
            };
            mknodat(CWD, &to, node, Mode::from_raw_mode(0o600), about.rdev())?;
        }
        keep(&about, &to)?;
    }
    keep(&fs::metadata(from)?, to)
}

/// Owner, mode and times. The owner first: changing it takes set-user-id bits away.
fn keep(about: &Metadata, to: &Path) -> io::Result<()> {
    lchown(to, Some(about.uid()), Some(about.gid()))?;
    if !about.file_type().is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(about.mode() & 0o7777))?;
    }
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: about.atime(),
            tv_nsec: about.atime_nsec(),
        },
        last_modification: Timespec {
            tv_sec: about.mtime(),
            tv_nsec: about.mtime_nsec(),
        },
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::BindMount;

    fn spec(volume: &Path) -> ContainerSpec {
        let mut spec = ContainerSpec::new("c".parse().unwrap(), "sha256:0");
        spec.mounts.push(BindMount {
            source: volume.to_owned(),
            target: "/data".into(),
            read_only: false,
        });
        spec.copy_up.push("/data".into());
        spec
    }

    #[test]
    fn only_an_empty_volume_is_filled_and_no_link_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("v/data"));
        fs::create_dir_all(root.join("real/sub")).unwrap();
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(dir.path().join("v/filling/leftover")).unwrap();
        fs::write(root.join("real/sub/file"), "x").unwrap();
        fs::set_permissions(root.join("real"), fs::Permissions::from_mode(0o711)).unwrap();
        symlink("/etc/shadow", root.join("real/link")).unwrap();
        // The image's path is a link, which is followed inside the image only.
        symlink("/real", root.join("data")).unwrap();
        let opened = File::open(&root).unwrap();
        fill(&opened, &spec(&volume)).unwrap();
        assert_eq!(fs::read_to_string(volume.join("sub/file")).unwrap(), "x");
        let link = fs::read_link(volume.join("link")).unwrap();
        assert_eq!(link, Path::new("/etc/shadow"));
        assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o7777, 0o711);
        assert!(!dir.path().join("v/filling").exists());
        // What a container made of it stays.
        fs::remove_dir_all(volume.join("sub")).unwrap();
        fill(&opened, &spec(&volume)).unwrap();
        assert!(!volume.join("sub").exists());
    }

    #[test]
    fn a_path_that_leads_out_of_the_image_fills_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("v/data"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(dir.path().join("outside/secret")).unwrap();
        symlink("../outside", root.join("data")).unwrap();
        fill(&File::open(&root).unwrap(), &spec(&volume)).unwrap();
        assert!(fs::read_dir(&volume).unwrap().next().is_none());
    }
}
