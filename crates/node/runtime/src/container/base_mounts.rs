//! What stands in every root before anything else is mounted: `/dev` with what lies in it, and the files below `/etc`.
//!
//! libcontainer could make these too, with about eighty system calls each; here it is a handful, by descriptors.
//!
//! What always holds: every target is opened inside the root, so no link of an image leads out of it; what a definition
//! mounts in the same place is left to it. What it leaves to others: what belongs to namespaces that the container does not
//! have yet (`mounts`, `cgroup_mounts`), device nodes (`devices`, libcontainer).

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::MountAttrFlags;

use super::detached::{self, FsOption, PLAIN};
use super::mount_flags::{self, Depth};
use super::root::{NETWORK_FILES, Target, make_target};
use super::{cannot_create, mounts};
use crate::error::RuntimeError;
use crate::spec::IpcMode;
use crate::state::ContainerFile;

/// Where libcontainer mounts afterwards. It takes forty calls to make a folder, so they are made here.
const FOR_LIBCONTAINER: [&str; 3] = ["/proc", "/sys", "/dev/mqueue"];

/// Mounts all but what the definition itself mounts: on `own` targets. `label` is SELinux's.
pub(super) fn mount(
    root: &File,
    file: &ContainerFile,
    dir: &Path,
    own: &BTreeSet<PathBuf>,
    label: Option<&str>,
) -> Result<(), RuntimeError> {
    let base = Base { root, own, label };
    let dev = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    base.new_at(
        "/dev",
        "tmpfs",
        &[("mode", Some("755")), ("size", Some("65536k"))],
        dev,
    )?;
    let pts = [
        ("newinstance", None),
        ("ptmxmode", Some("0666")),
        ("mode", Some("0620")),
        ("gid", Some("5")),
    ];
    let no_code = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    base.new_at("/dev/pts", "devpts", &pts, no_code)?;
    match file.task.ipc_mode {
        IpcMode::Container => {
            let size = mounts::shm_bytes(&file.spec).to_string();
            let options = [("mode", Some("1777")), ("size", Some(size.as_str()))];
            base.new_at("/dev/shm", "tmpfs", &options, PLAIN)?;
        }
        IpcMode::Task => base.folder_at("/dev/shm", &dir.join(mounts::SHARED_SHM))?,
        IpcMode::Host => base.folder_at("/dev/shm", Path::new("/dev/shm"))?,
        IpcMode::None => {}
    }
    for name in NETWORK_FILES {
        base.file_at(&format!("/etc/{name}"), &dir.join(name))?;
    }
    FOR_LIBCONTAINER
        .iter()
        .try_for_each(|folder| make_target(root, folder, Target::Folder))
}

struct Base<'a> {
    root: &'a File,
    own: &'a BTreeSet<PathBuf>,
    label: Option<&'a str>,
}

impl Base<'_> {
    fn new_at(
        &self,
        target: &str,
        kind: &str,
        options: &[FsOption<'_>],
        attributes: MountAttrFlags,
    ) -> Result<(), RuntimeError> {
        let mut options = options.to_vec();
        options.extend(self.label.map(|label| ("context", Some(label))));
        self.put(target, Target::Folder, || {
            detached::new(kind, &options, attributes).map_err(io::Error::from)
        })
    }

    fn folder_at(&self, target: &str, source: &Path) -> Result<(), RuntimeError> {
        self.put(target, Target::Folder, || {
            let bound = detached::bind(source)?;
            mount_flags::add(&bound, u64::from(PLAIN.bits()), Depth::All)?;
            Ok(bound)
        })
    }

    fn file_at(&self, target: &str, source: &Path) -> Result<(), RuntimeError> {
        self.put(target, Target::File, || {
            detached::bind(source).map_err(io::Error::from)
        })
    }

    fn put(
        &self,
        target: &str,
        kind: Target,
        mount: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> Result<(), RuntimeError> {
        if self.own.contains(Path::new(target)) {
            return Ok(());
        }
        make_target(self.root, target, kind)?;
        let put = || -> io::Result<()> {
            let there = openat2(
                self.root,
                target,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            )?;
            detached::attach(mount()?, there).map_err(io::Error::from)
        };
        put().map_err(|error| cannot_create(&format!("mounting {target}"), error))
    }
}
