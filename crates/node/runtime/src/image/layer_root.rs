//! The folder that one layer is unpacked into, and the only way into it.
//!
//! What always holds: every name is looked up inside this folder as if it were `/`, by the kernel
//! (`openat2` with RESOLVE_IN_ROOT), and the last part of a name is never followed. So no path, link or order
//! of entries reaches anything outside. Nothing lies deeper than [`DEPTH_MAX`], so that the layer can
//! also be removed again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::tar_reader::PATH_BYTES_MAX;

pub(crate) const DEPTH_MAX: usize = 512;
/// Folders that are held open, because the entries of one folder mostly follow each other.
const OPEN_FOLDERS_MAX: usize = 16;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

pub(crate) struct LayerRoot {
    root: OwnedFd,
    /// How long the kernel says the root's own path is.
    root_depth: usize,
    open: BTreeMap<Vec<u8>, std::sync::Arc<OwnedFd>>,
    /// Only links make the real depth of a folder differ from what its name says.
    has_links: bool,
}

/// A place in the layer: an open folder and a name in it, which is one part and neither `.` nor `..`.
pub(crate) struct Place {
    pub folder: std::sync::Arc<OwnedFd>,
    pub name: Vec<u8>,
}

/// What an entry says about who owns a file and when it changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
}

fn bad(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// The parts of a name: a leading slash, `.` and empty parts mean nothing; `..` is refused.
pub(crate) fn parts(path: &[u8]) -> io::Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err(bad(format!(
            "the path {:?} leaves the layer",
            String::from_utf8_lossy(path)
        )));
    }
    if parts.len() > DEPTH_MAX {
        return Err(bad(format!("a path is deeper than {DEPTH_MAX} folders")));
    }
    Ok(parts)
}

impl LayerRoot {
    /// `folder` exists, is empty, and nobody else writes to it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, folder, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        let root_depth = depth_of(&root)?;
        Ok(Self {
            root,
            root_depth,
            open: BTreeMap::new(),
            has_links: false,
        })
    }

    /// The place that `parts` name, with the folders above it made where they are missing.
    /// `None` for the root itself.
    pub fn place(&mut self, parts: &[&[u8]]) -> io::Result<Option<Place>> {
        let Some((name, above)) = parts.split_last() else {
            return Ok(None);
        };
        Ok(Some(Place {
            folder: self.folder(above, true)?,
            name: name.to_vec(),
        }))
    }

    /// The same without making anything: for what has to be there.
    pub fn existing(&mut self, parts: &[&[u8]]) -> io::Result<Option<Place>> {
        let Some((name, above)) = parts.split_last() else {
            return Ok(None);
        };
        Ok(Some(Place {
            folder: self.folder(above, false)?,
            name: name.to_vec(),
        }))
    }

    fn folder(&mut self, parts: &[&[u8]], make: bool) -> io::Result<std::sync::Arc<OwnedFd>> {
        let path = parts.join(&b'/');
        if let Some(folder) = self.open.get(&path) {
            return Ok(folder.clone());
        }
        let folder = match self.resolve(&path) {
            Ok(folder) => folder,
            Err(Errno::NOENT) if make && !parts.is_empty() => {
                let above = self.folder(&parts[..parts.len() - 1], true)?;
                let name = parts[parts.len() - 1];
                match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                    // The process's umask does not count.
                    Ok(()) => rustix::fs::chmodat(
                        &above,
                        name,
                        Mode::from_raw_mode(0o755),
                        AtFlags::empty(),
                    )?,
                    // A link to something that is not there.
                    Err(Errno::EXIST) => return Err(bad("a folder in a path is a dangling link")),
                    Err(error) => return Err(error.into()),
                }
                self.resolve(&path)?
            }
            // A file where an upper folder is wanted: what comes later replaces it, as in Docker only
            // by an entry of its own.
            Err(Errno::NOTDIR) => return Err(bad("a folder in a path is not a folder")),
            Err(error) => return Err(error.into()),
        };
        if self.has_links && depth_of(&folder)?.saturating_sub(self.root_depth) > DEPTH_MAX {
            return Err(bad(format!("a path is deeper than {DEPTH_MAX} folders")));
        }
        let folder = std::sync::Arc::new(folder);
        if self.open.len() >= OPEN_FOLDERS_MAX {
            self.open.clear();
        }
        self.open.insert(path, folder.clone());
        Ok(folder)
    }

    fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        if path.is_empty() {
            return rustix::fs::openat(&self.root, ".", FOLDER, Mode::empty());
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        // A rename elsewhere on the machine makes the kernel ask for another try.
        loop {
            match rustix::fs::openat2(&self.root, path, FOLDER, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    pub fn stat(&self, place: &Place) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&place.folder, &place.name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is at the place, with all that is in it.
    pub fn remove(&mut self, place: &Place, stat: &Stat) -> io::Result<()> {
        // A folder that is held open may be the one that goes.
        self.open.clear();
        remove(
            place.folder.as_fd(),
            &place.name,
            FileType::from_raw_mode(stat.st_mode),
        )
    }

    /// Makes a new file. Nothing may be there.
    pub fn create_file(&self, place: &Place) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(
            &place.folder,
            &place.name[..],
            flags,
            Mode::from_raw_mode(0o600),
        )?;
        Ok(File::from(file))
    }

    pub fn create_folder(&self, place: &Place) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(
            &place.folder,
            &place.name[..],
            Mode::from_raw_mode(0o700),
        )?)
    }

    /// The target is only text; what it means is decided inside the root, whenever it is followed.
    pub fn create_link(&mut self, place: &Place, target: &[u8]) -> io::Result<()> {
        self.has_links = true;
        Ok(rustix::fs::symlinkat(
            target,
            &place.folder,
            &place.name[..],
        )?)
    }

    pub fn create_hard_link(&self, place: &Place, to: &Place) -> io::Result<()> {
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(
            &to.folder,
            &to.name[..],
            &place.folder,
            &place.name[..],
            flags,
        )?)
    }

    pub fn create_fifo(&self, place: &Place) -> io::Result<()> {
        Ok(rustix::fs::mkfifoat(
            &place.folder,
            &place.name[..],
            Mode::from_raw_mode(0o600),
        )?)
    }

    /// What overlayfs reads as "not there, whatever is below": a character device 0/0.
    pub fn create_whiteout(&self, place: &Place) -> io::Result<()> {
        let mode = Mode::from_raw_mode(0);
        Ok(rustix::fs::mknodat(
            &place.folder,
            &place.name[..],
            FileType::CharacterDevice,
            mode,
            0,
        )?)
    }

    /// Hides what layers below have in this folder. `None`: the root.
    pub fn make_opaque(&self, folder: Option<&Place>) -> io::Result<()> {
        let path = match folder {
            Some(place) => self.proc_path(place),
            None => format!("/proc/self/fd/{}/.", self.root.as_raw_fd()).into_bytes(),
        };
        let name = "trusted.overlay.opaque";
        Ok(rustix::fs::lsetxattr(
            &path[..],
            name,
            b"y",
            XattrFlags::empty(),
        )?)
    }

    /// Sets an extended attribute of whatever is at the place; a link is not followed.
    pub fn set_xattr(&self, place: &Place, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        rustix::fs::lsetxattr(&self.proc_path(place)[..], name, value, XattrFlags::empty())
    }

    /// `lsetxattr` has no form that takes a folder, so the folder is named by its descriptor.
    fn proc_path(&self, place: &Place) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}/", place.folder.as_raw_fd()).into_bytes();
        path.extend_from_slice(&place.name);
        path
    }

    /// Owner, then mode (a change of owner takes setuid away), then time. Links have no mode.
    pub fn set_attributes(
        &self,
        place: &Place,
        attributes: &Attributes,
        is_link: bool,
    ) -> io::Result<()> {
        let (uid, gid) = owner(attributes);
        let name = &place.name[..];
        rustix::fs::chownat(&place.folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if !is_link {
            // Not a link, and nobody else writes here, so there is nothing to follow.
            let mode = Mode::from_raw_mode(attributes.mode);
            rustix::fs::chmodat(&place.folder, name, mode, AtFlags::empty())?;
        }
        self.set_time(place, attributes)
    }

    pub fn set_time(&self, place: &Place, attributes: &Attributes) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(
            &place.folder,
            &place.name[..],
            &times(attributes),
            flags,
        )?)
    }

    pub fn set_root_attributes(&self, attributes: &Attributes) -> io::Result<()> {
        let (uid, gid) = owner(attributes);
        rustix::fs::chownat(&self.root, ".", uid, gid, AtFlags::empty())?;
        let mode = Mode::from_raw_mode(attributes.mode);
        rustix::fs::chmodat(&self.root, ".", mode, AtFlags::empty())?;
        Ok(rustix::fs::utimensat(
            &self.root,
            ".",
            &times(attributes),
            AtFlags::empty(),
        )?)
    }
}

/// The same for a file that is open anyway.
pub(crate) fn set_file_attributes(file: &File, attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = owner(attributes);
    rustix::fs::fchown(file, uid, gid)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    Ok(rustix::fs::futimens(file, &times(attributes))?)
}

fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    // The highest number means "leave it" to the kernel; nobody has it.
    let uid = if attributes.uid == u32::MAX {
        0
    } else {
        attributes.uid
    };
    let gid = if attributes.gid == u32::MAX {
        0
    } else {
        attributes.gid
    };
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn times(attributes: &Attributes) -> Timestamps {
    let time = Timespec {
        tv_sec: attributes.mtime_s,
        tv_nsec: attributes.mtime_ns.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// How many folders the kernel says are above what is open.
fn depth_of(folder: &OwnedFd) -> io::Result<usize> {
    let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::with_capacity(PATH_BYTES_MAX))?;
    Ok(path.as_bytes().iter().filter(|byte| **byte == b'/').count())
}

fn remove(folder: std::os::fd::BorrowedFd<'_>, name: &[u8], kind: FileType) -> io::Result<()> {
    if kind != FileType::Directory {
        return Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    // Names are collected first: what is removed while a folder is read may hide other names.
    let mut names = Vec::new();
    for entry in Dir::read_from(&inner)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    for name in names {
        let stat = rustix::fs::statat(&inner, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
        remove(inner.as_fd(), &name, FileType::from_raw_mode(stat.st_mode))?;
    }
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}
