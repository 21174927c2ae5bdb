//! A layer's tar, turned into a folder that overlayfs can stack.
//!
//! What always holds: memory does not grow with the layer, nothing lands outside the folder (that is
//! [`LayerRoot`]'s), and no layer has more entries than [`LayerLimits`] says. Whiteouts become what
//! overlayfs reads: a character device 0/0, and `trusted.overlay.opaque` on a folder. A layer cannot
//! bring devices of its own, because a container's `/dev` is never its image's, nor attributes that steer overlayfs.
//! What it leaves to others: decompression, digests and the limit on bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;
use tar::EntryType;

use super::layer_root::{Attributes, LayerRoot, Place, parts, set_file_attributes};
use super::tar_reader::{Entry, TarReader};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Also the prefix of what AUFS kept for itself.
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const COPY_BYTES: usize = 128 << 10;
/// Folders get their times when everything is in them; so many bytes of their names are kept until then.
const FOLDER_NAME_BYTES_MAX: usize = 64 << 20;

/// How much a layer may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimits {
    pub entries_max: u64,
    /// After decompression.
    pub bytes_max: u64,
}

impl Default for LayerLimits {
    /// Well above any layer in use, well below what fills a machine's inodes.
    fn default() -> Self {
        Self {
            entries_max: 2_000_000,
            bytes_max: 128 << 30,
        }
    }
}

fn bad(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// Unpacks into `folder`, which is there and empty, and gives the stream back where the archive ended.
pub(crate) fn unpack<R: Read>(stream: R, folder: &Path, limits: &LayerLimits) -> io::Result<R> {
    let mut unpacking = Unpacking {
        root: LayerRoot::open(folder)?,
        folders: BTreeMap::new(),
        folder_name_bytes: 0,
        buffer: vec![0; COPY_BYTES],
    };
    unpacking.root.set_root_attributes(&Attributes {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime_s: 0,
        mtime_ns: 0,
    })?;
    let mut tar = TarReader::new(stream);
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        if entries > limits.entries_max {
            return Err(bad(format!(
                "the layer has more than {} entries",
                limits.entries_max
            )));
        }
        unpacking
            .apply(&entry, &mut tar)
            .map_err(|error| with_path(error, &entry.path))?;
    }
    unpacking.finish()?;
    Ok(tar.into_inner())
}

fn with_path(error: io::Error, path: &[u8]) -> io::Error {
    let path: String = String::from_utf8_lossy(path).chars().take(200).collect();
    io::Error::new(error.kind(), format!("{path:?}: {error}"))
}

struct Unpacking {
    root: LayerRoot,
    folders: BTreeMap<Vec<u8>, Attributes>,
    folder_name_bytes: usize,
    buffer: Vec<u8>,
}

impl Unpacking {
    fn apply<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> io::Result<()> {
        let path = parts(&entry.path)?;
        let Some(place) = self.root.place(&path)? else {
            return match entry.kind {
                EntryType::Directory => {
                    let attributes = attributes_of(entry);
                    self.root.set_root_attributes(&attributes)?;
                    self.remember_folder(Vec::new(), attributes)
                }
                _ => Err(bad("the root of a layer is a folder")),
            };
        };
        if place.name.starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(&path, &place);
        }
        match entry.kind {
            EntryType::Directory => self.folder(entry, &path, &place),
            EntryType::Symlink => {
                self.make_room(&place)?;
                self.root.create_link(&place, &entry.link)?;
                self.attributes(entry, &place, true)
            }
            EntryType::Link => self.hard_link(entry, &place),
            EntryType::Fifo => {
                self.make_room(&place)?;
                self.root.create_fifo(&place)?;
                self.attributes(entry, &place, false)
            }
            EntryType::Char | EntryType::Block => {
                tracing::debug!(path = %String::from_utf8_lossy(&entry.path), "a layer's device is left out");
                Ok(())
            }
            // What readers do not know they treat as a file.
            _ => self.file(entry, &place, tar),
        }
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        place: &Place,
        tar: &mut TarReader<R>,
    ) -> io::Result<()> {
        self.make_room(place)?;
        let mut file = self.root.create_file(place)?;
        loop {
            let got = tar.read_data(&mut self.buffer)?;
            if got == 0 {
                break;
            }
            file.write_all(&self.buffer[..got])?;
        }
        set_file_attributes(&file, &attributes_of(entry))?;
        self.xattrs(entry, place)
    }

    fn folder(&mut self, entry: &Entry, path: &[&[u8]], place: &Place) -> io::Result<()> {
        match self.root.stat(place)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Some(stat) => {
                let was_whiteout = is_whiteout(&stat);
                self.root.remove(place, &stat)?;
                self.root.create_folder(place)?;
                if was_whiteout {
                    // What is below was removed before this folder was made.
                    self.root.make_opaque(Some(place))?;
                }
            }
            None => self.root.create_folder(place)?,
        }
        self.attributes(entry, place, false)?;
        self.remember_folder(path.join(&b'/'), attributes_of(entry))
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place) -> io::Result<()> {
        let target = parts(&entry.link)?;
        let missing = || {
            bad(format!(
                "a hard link to {:?}, which is not in the layer",
                String::from_utf8_lossy(&entry.link)
            ))
        };
        let to = match self.root.existing(&target) {
            Ok(Some(to)) => to,
            Ok(None) => return Err(bad("a hard link to the layer's root")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(error),
        };
        let target = self.root.stat(&to)?.ok_or_else(missing)?;
        if FileType::from_raw_mode(target.st_mode) == FileType::Directory || is_whiteout(&target) {
            return Err(bad("a hard link to a folder or to something removed"));
        }
        if let Some(stat) = self.root.stat(place)? {
            if (stat.st_dev, stat.st_ino) == (target.st_dev, target.st_ino) {
                // It is that link already, or a link to itself; removing it would lose the file.
                return Ok(());
            }
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            self.root.remove(place, &stat)?;
            if is_folder && self.root.stat(&to).ok().flatten().is_none() {
                return Err(missing());
            }
        }
        self.root.create_hard_link(place, &to)
    }

    fn whiteout(&mut self, path: &[&[u8]], place: &Place) -> io::Result<()> {
        if place.name == WHITEOUT_OPAQUE {
            let above = self.root.existing(&path[..path.len() - 1])?;
            return self.root.make_opaque(above.as_ref());
        }
        if place.name.starts_with(WHITEOUT_META_PREFIX) {
            return Ok(());
        }
        let hidden = &place.name[WHITEOUT_PREFIX.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(bad("a whiteout of nothing"));
        }
        let place = Place {
            folder: place.folder.clone(),
            name: hidden.to_vec(),
        };
        match self.root.stat(&place)? {
            // It hides what is below, not what this layer itself brings.
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.root.make_opaque(Some(&place))
            }
            Some(_) => Ok(()),
            None => self.root.create_whiteout(&place),
        }
    }

    /// A later entry of the same name replaces an earlier one.
    fn make_room(&mut self, place: &Place) -> io::Result<()> {
        match self.root.stat(place)? {
            Some(stat) => self.root.remove(place, &stat),
            None => Ok(()),
        }
    }

    fn attributes(&mut self, entry: &Entry, place: &Place, is_link: bool) -> io::Result<()> {
        self.root
            .set_attributes(place, &attributes_of(entry), is_link)?;
        self.xattrs(entry, place)
    }

    /// After the owner, because a change of owner takes capabilities away.
    fn xattrs(&mut self, entry: &Entry, place: &Place) -> io::Result<()> {
        for (name, value) in &entry.xattrs {
            let of_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            if !of_user && name != b"security.capability" {
                continue;
            }
            match self.root.set_xattr(place, name, value) {
                Ok(()) => {}
                // Not every file system has them, and links never do.
                Err(Errno::NOTSUP | Errno::PERM) if of_user => {}
                Err(error) => {
                    let name = String::from_utf8_lossy(name);
                    return Err(io::Error::new(
                        io::Error::from(error).kind(),
                        format!("{name}: {error}"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn remember_folder(&mut self, path: Vec<u8>, attributes: Attributes) -> io::Result<()> {
        let length = path.len();
        if self.folders.insert(path, attributes).is_none() {
            self.folder_name_bytes += length + 64;
        }
        if self.folder_name_bytes > FOLDER_NAME_BYTES_MAX {
            return Err(bad("the layer has too many folders"));
        }
        Ok(())
    }

    /// Folders' times, now that nothing changes in them any more.
    fn finish(&mut self) -> io::Result<()> {
        for (path, attributes) in std::mem::take(&mut self.folders) {
            match self.root.existing(&parts(&path)?) {
                Ok(None) => self.root.set_root_attributes(&attributes)?,
                Ok(Some(place)) => {
                    let stat = self.root.stat(&place)?;
                    if stat
                        .is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
                    {
                        self.root.set_time(&place, &attributes)?;
                    }
                }
                // It was replaced by a later entry.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn attributes_of(entry: &Entry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime_s: entry.mtime_s,
        mtime_ns: entry.mtime_ns,
    }
}
