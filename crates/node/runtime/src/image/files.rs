//! What is on disk of images, and where.
//!
//! What always holds: a layer under `layers` is whole and synced, because it is unpacked in `temporary`,
//! moved to `pending` when verified, and moved to `layers` only after the file system was synced. Manifests and
//! configurations are verified each time they are read, and a reference's record is replaced by a rename;
//! losing one of them costs a request and nothing else, so they are not synced. `temporary`, `pending` and
//! `removed` are emptied when the store is opened; `partial` keeps what a killed pull had of a blob, which
//! counts for nothing until its digest is checked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::manifest::{Configuration, Document};
use super::platform::Platform;
use super::{ImageReference, PulledImage};

const TEMPORARY: &str = "temporary";
const PENDING: &str = "pending";
const LAYERS: &str = "layers/sha256";
const BLOBS: &str = "blobs/sha256";
const REFERENCES: &str = "references";
const USED: &str = "used";
const PARTIAL: &str = "partial";
const REMOVED: &str = "removed";

#[derive(Debug, Clone)]
pub(crate) struct ImageFiles {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct ReferenceRecord {
    reference: String,
    digest: String,
}

/// A folder that goes away again, unless it was moved to its place.
pub(crate) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the store is opened again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl ImageFiles {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let files = Self {
            dir: dir.to_owned(),
        };
        // Layers hold set-user-id programs of strangers: only root may enter.
        let make = |path: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
        };
        make(dir)?;
        for left_over in [TEMPORARY, PENDING, REMOVED] {
            match fs::remove_dir_all(files.dir.join(left_over)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for part in [
            TEMPORARY, PENDING, REMOVED, LAYERS, BLOBS, REFERENCES, USED, PARTIAL,
        ] {
            make(&files.dir.join(part))?;
        }
        Ok(files)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs::File::open(&self.dir)?)?)
    }

    /// Where layers are, each in a folder called by its diff id without `sha256:`.
    pub fn layers_dir(&self) -> PathBuf {
        self.dir.join(LAYERS)
    }

    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers_dir().join(diff_id.hex())
    }

    fn pending(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join(PENDING).join(diff_id.hex())
    }

    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer(diff_id).is_dir()
    }

    /// Whether the layer need not be fetched: it is here, or will be with the next [`Self::publish`].
    pub fn has_verified_layer(&self, diff_id: &Digest) -> bool {
        // In this order, because layers only ever move from pending to their place.
        self.pending(diff_id).is_dir() || self.has_layer(diff_id)
    }

    pub fn temporary_folder(&self, unique: [u8; 16]) -> io::Result<TemporaryFolder> {
        let path = self.dir.join(TEMPORARY).join(hex::encode(unique));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(TemporaryFolder(path))
    }

    /// The layer in `folder` is verified.
    pub fn accept(&self, folder: TemporaryFolder, diff_id: &Digest) -> io::Result<()> {
        match fs::rename(folder.path(), self.pending(diff_id)) {
            Err(error) if self.has_verified_layer(diff_id) => {
                tracing::debug!(%diff_id, %error, "a layer was unpacked twice");
                Ok(())
            }
            result => result,
        }
    }

    /// Makes verified layers count, with one sync for all of them.
    pub fn publish(&self, diff_ids: &[Digest]) -> io::Result<()> {
        let missing: Vec<&Digest> = diff_ids.iter().filter(|id| !self.has_layer(id)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for diff_id in missing {
            match fs::rename(self.pending(diff_id), self.layer(diff_id)) {
                // Another pull was faster.
                Err(_) if self.has_layer(diff_id) => {}
                result => result?,
            }
        }
        Ok(())
    }

    pub fn write_blob(&self, digest: &Digest, bytes: &[u8], unique: [u8; 16]) -> io::Result<()> {
        self.replace(&self.blob(digest), bytes, unique)
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join(BLOBS).join(digest.hex())
    }

    fn read_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.blob(digest)).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    fn reference_path(&self, reference: &str) -> PathBuf {
        let name = Digest::of(reference.as_bytes());
        self.dir
            .join(REFERENCES)
            .join(format!("{}.json", name.hex()))
    }

    pub fn write_reference(
        &self,
        reference: &ImageReference,
        digest: &str,
        unique: [u8; 16],
    ) -> io::Result<()> {
        let record = ReferenceRecord {
            reference: reference.to_string(),
            digest: digest.to_owned(),
        };
        let path = self.reference_path(&record.reference);
        self.replace(&path, &serde_json::to_vec(&record)?, unique)
    }

    /// What the reference stood for when it was last pulled.
    pub fn read_reference(&self, reference: &ImageReference) -> Option<Digest> {
        let reference = reference.to_string();
        let bytes = fs::read(self.reference_path(&reference)).ok()?;
        let record: ReferenceRecord = serde_json::from_slice(&bytes).ok()?;
        Digest::parse(&record.digest).filter(|_| record.reference == reference)
    }

    pub fn replace(&self, path: &Path, bytes: &[u8], unique: [u8; 16]) -> io::Result<()> {
        let beside = self.dir.join(TEMPORARY).join(hex::encode(unique));
        let replaced = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
        if replaced.is_err() {
            // What a full disk took of it would be one file more at each attempt. It may not be there at all.
            let _ = fs::remove_file(&beside);
        }
        replaced
    }

    /// The image that an index or a manifest stands for, if all of it is here.
    pub fn load(&self, digest: &Digest, platform: &Platform) -> Option<PulledImage> {
        self.contents(digest, platform).map(|found| found.image)
    }

    pub fn contents(&self, digest: &Digest, platform: &Platform) -> Option<Contents> {
        let document = Document::parse(&self.read_blob(digest)?).ok()?;
        let (manifest_digest, manifest) = match document {
            Document::Manifest(manifest) => (digest.clone(), manifest),
            Document::Index(index) => {
                let selected = index.select(platform)?.ok()?.digest;
                match Document::parse(&self.read_blob(&selected)?).ok()? {
                    Document::Manifest(manifest) => (selected, manifest),
                    Document::Index(_) => return None,
                }
            }
        };
        let bytes = self.read_blob(&manifest.config.digest)?;
        let configuration = Configuration::parse(&bytes, manifest.layers.len(), platform).ok()?;
        if !configuration.diff_ids.iter().all(|id| self.has_layer(id)) {
            return None;
        }
        let image = PulledImage {
            digest: digest.to_string(),
            manifest_digest: manifest_digest.to_string(),
            config: configuration.config,
            diff_ids: configuration
                .diff_ids
                .iter()
                .map(Digest::to_string)
                .collect(),
        };
        Some(Contents {
            image,
            blobs: BTreeSet::from([digest.clone(), manifest_digest, manifest.config.digest]),
            layers: configuration.diff_ids.into_iter().collect(),
        })
    }
}

/// An image, and all that it is made of.
pub(crate) struct Contents {
    pub image: PulledImage,
    pub blobs: BTreeSet<Digest>,
    pub layers: BTreeSet<Digest>,
}

/// What is there, for whoever removes images.
impl ImageFiles {
    pub fn blobs(&self) -> io::Result<BTreeSet<Digest>> {
        self.named_by_digest(BLOBS)
    }

    pub fn layers(&self) -> io::Result<BTreeSet<Digest>> {
        self.named_by_digest(LAYERS)
    }

    pub fn with_use_record(&self) -> io::Result<BTreeSet<Digest>> {
        self.named_by_digest(USED)
    }

    fn named_by_digest(&self, part: &str) -> io::Result<BTreeSet<Digest>> {
        let mut digests = BTreeSet::new();
        for entry in fs::read_dir(self.dir.join(part))? {
            // What is not called by a digest is none of ours.
            digests.extend(entry?.file_name().to_str().and_then(Digest::from_hex));
        }
        Ok(digests)
    }

    /// The digests that tags stood for when they were last pulled.
    pub fn referred(&self) -> io::Result<BTreeSet<Digest>> {
        let records = self.reference_records()?.into_iter();
        Ok(records
            .filter_map(|(_, record)| Digest::parse(&record.digest))
            .collect())
    }

    pub fn references_to(&self, digest: &Digest) -> io::Result<Vec<PathBuf>> {
        let digest = digest.to_string();
        let records = self.reference_records()?.into_iter();
        Ok(records
            .filter(|(_, record)| record.digest == digest)
            .map(|(path, _)| path)
            .collect())
    }

    fn reference_records(&self) -> io::Result<Vec<(PathBuf, ReferenceRecord)>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.dir.join(REFERENCES))? {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            if let Ok(record) = serde_json::from_slice(&bytes) {
                records.push((path, record));
            }
        }
        Ok(records)
    }

    pub fn use_record(&self, digest: &Digest) -> PathBuf {
        self.dir.join(USED).join(digest.hex())
    }

    /// A layer's folder leaves its place, whole.
    pub fn move_away(&self, layer: &Digest, unique: [u8; 16]) -> io::Result<()> {
        let away = self.dir.join(REMOVED).join(hex::encode(unique));
        match fs::rename(self.layer(layer), away) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub fn delete_moved_away(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.join(REMOVED))? {
            fs::remove_dir_all(entry?.path())?;
        }
        Ok(())
    }

    /// Where a blob's bytes are kept while it is fetched. By both of its names, because whoever makes an image may
    /// claim that one blob is two layers.
    pub fn partial_blob(&self, blob: &Digest, diff_id: &Digest) -> PathBuf {
        let name = format!("{}-{}", blob.hex(), diff_id.hex());
        self.dir.join(PARTIAL).join(name)
    }

    /// Path, the blob, and when bytes last came.
    pub fn partial_blobs(&self) -> io::Result<Vec<(PathBuf, Digest, SystemTime)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.dir.join(PARTIAL))? {
            let entry = entry?;
            let name = entry.file_name();
            let blob = name
                .to_str()
                .and_then(|name| name.split_once('-'))
                .and_then(|(blob, _)| Digest::from_hex(blob));
            // One that was finished meanwhile is gone.
            if let (Some(blob), Ok(about)) = (blob, entry.metadata()) {
                found.push((entry.path(), blob, about.modified()?));
            }
        }
        Ok(found)
    }
}
