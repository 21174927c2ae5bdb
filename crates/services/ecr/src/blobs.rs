//! Bytes of layers and manifests, as objects in an object store.
//!
//! What always holds: an object appears under its name whole and synced, or not at all; memory
//! is bounded by two parts for a writer and by what [`Pieces`] lend for all readers, whatever the
//! size; a writer that is dropped leaves nothing behind.
//! What it leaves to others: which object belongs to which digest, and who may read it (rows).

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt as _,
    PutPayload,
};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use crate::model::Digest;
use crate::pieces::{self, Pieces};

/// How much of an upload is gathered before it is written. Enough for few system calls, little
/// enough that many pushes at once stay small.
const PART_BYTES: usize = 512 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("blob storage: {0}")]
    Store(#[from] object_store::Error),
    #[error("the bytes that were written again are not those that were there")]
    Changed,
    #[error("blob storage at {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

/// The objects below one directory.
#[derive(Clone)]
pub struct BlobStore {
    objects: Arc<dyn ObjectStore>,
    pieces: Arc<Pieces>,
}

impl BlobStore {
    /// Opens a directory that no other process uses, and clears from it what is no object that
    /// `known` names: uploads that a dead process left, and objects whose row was never written.
    pub fn open(directory: &Path, known: &BTreeSet<String>) -> Result<Self, BlobError> {
        let failed = |source| BlobError::Directory {
            path: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut missing = known.clone();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| missing.remove(name)) {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_file() {
                tracing::info!(file = ?name, "removing an unfinished upload");
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        for object in missing {
            tracing::error!(object, "a stored blob is missing from the blob directory");
        }
        let objects = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            pieces: Arc::default(),
        })
    }

    /// Begins an object. Nobody else may be given the same name.
    pub async fn begin(&self, object: &str) -> Result<BlobWriter, BlobError> {
        Ok(BlobWriter {
            upload: self
                .objects
                .put_multipart(&ObjectPath::from(object))
                .await?,
            pending: Vec::new(),
            pending_bytes: 0,
            in_flight: None,
            at: Place::default(),
            acknowledged: Place::default(),
            ahead: None,
        })
    }

    /// Streams a part of an object.
    pub async fn read(
        &self,
        object: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, BlobError> {
        // An empty range is an error to object stores, and what it would read is known.
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let path = ObjectPath::from(object);
        let found = self.objects.get_opts(&path, options).await?;
        let part = found.range.clone();
        Ok(match found.payload {
            GetResultPayload::File(file, _) => {
                pieces::read(self.pieces.clone(), file, part).boxed()
            }
            GetResultPayload::Stream(stream) => {
                stream.map(|piece| piece.map_err(io::Error::other)).boxed()
            }
        })
    }

    /// A whole object of a size that is known to be small.
    pub async fn read_whole(&self, object: &str) -> Result<Bytes, BlobError> {
        Ok(self
            .objects
            .get(&ObjectPath::from(object))
            .await?
            .bytes()
            .await?)
    }

    /// Removes an object; one that is not there is removed already.
    pub async fn remove(&self, object: &str) -> Result<(), BlobError> {
        match self.objects.delete(&ObjectPath::from(object)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// An object on its way in. Dropped unfinished, it is gone.
pub struct BlobWriter {
    upload: Box<dyn MultipartUpload>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    /// The part that is being written while the next one comes in and is hashed. At most one, so
    /// memory stays bounded.
    in_flight: Option<JoinHandle<object_store::Result<()>>>,
    at: Place,
    acknowledged: Place,
    /// Where the object ends, if its writer was sent back from there: what is written up to it is there
    /// already, and must be the same.
    ahead: Option<Place>,
}

/// A place in an object, and the digest of all before it.
#[derive(Clone, Default)]
struct Place {
    hasher: Sha256,
    size: u64,
}

impl Place {
    fn pass(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn digest(&self) -> Digest {
        Digest::from_hasher(self.hasher.clone())
    }
}

impl BlobWriter {
    /// Takes the bytes in at once, so whoever stops waiting has written them all the same.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let bytes = self.beyond_what_is_there(bytes)?;
        self.at.pass(&bytes);
        self.pending_bytes += bytes.len();
        self.pending.push(bytes);
        if self.pending_bytes >= PART_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// What has been written so far, by its digest.
    pub fn digest(&self) -> Digest {
        self.at.digest()
    }

    pub fn size(&self) -> u64 {
        self.at.size
    }

    /// Its client knows of all that was written.
    pub fn acknowledge(&mut self) {
        self.acknowledged = self.at.clone();
    }

    /// Goes back to where its client knows that it was. An object only grows, so what was written since stays there
    /// and is held against what comes again.
    pub fn rewind(&mut self) {
        let left = std::mem::replace(&mut self.at, self.acknowledged.clone());
        if self.ahead.is_none() && left.size > self.at.size {
            self.ahead = Some(left);
        }
    }

    fn beyond_what_is_there(&mut self, bytes: Bytes) -> Result<Bytes, BlobError> {
        let Some(ahead) = &self.ahead else {
            return Ok(bytes);
        };
        let again = usize::try_from(ahead.size - self.at.size).unwrap_or(usize::MAX);
        let again = again.min(bytes.len());
        self.at.pass(&bytes[..again]);
        if self.at.size == ahead.size {
            if self.at.digest() != ahead.digest() {
                return Err(BlobError::Changed);
            }
            self.ahead = None;
        }
        Ok(bytes.slice(again..))
    }

    /// Syncs the object and puts it in its place.
    pub async fn complete(mut self) -> Result<(), BlobError> {
        if self.ahead.is_some() {
            self.abort().await;
            return Err(BlobError::Changed);
        }
        if self.pending_bytes > 0 {
            self.flush().await?;
        }
        self.settle().await?;
        self.upload.complete().await?;
        Ok(())
    }

    /// Removes what was written, and returns once it is gone.
    pub async fn abort(mut self) {
        if let Err(error) = self.settle().await {
            tracing::debug!(%error, "the last part of an upload that is given up was not written");
        }
        if let Err(error) = self.upload.abort().await {
            tracing::warn!(%error, "an upload could not be removed; the next start does");
        }
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        self.settle().await?;
        self.pending_bytes = 0;
        let payload: PutPayload = self.pending.drain(..).collect();
        self.in_flight = Some(tokio::spawn(self.upload.put_part(payload)));
        Ok(())
    }

    /// Waits for the part that is being written.
    async fn settle(&mut self) -> Result<(), BlobError> {
        // It stays in flight until it has ended, so that whoever stops waiting loses nothing.
        if let Some(part) = &mut self.in_flight {
            let written = part.await;
            self.in_flight = None;
            written.map_err(|source| object_store::Error::JoinError { source })??;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    async fn all(stream: BoxStream<'static, io::Result<Bytes>>) -> Vec<u8> {
        stream.map(|part| part.unwrap().to_vec()).concat().await
    }

    #[tokio::test]
    async fn an_object_is_whole_or_absent() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(directory.path(), &BTreeSet::new()).unwrap();
        let mut writer = blobs.begin("one").await.unwrap();
        let piece = Bytes::from(vec![7; 300 * 1024]);
        for _ in 0..5 {
            writer.write(piece.clone()).await.unwrap();
        }
        assert!(blobs.read_whole("one").await.is_err());
        assert_eq!(writer.digest(), Digest::of(&vec![7; 1500 * 1024]));
        assert_eq!(writer.size(), 1500 * 1024);
        writer.complete().await.unwrap();
        assert_eq!(files(directory.path()), ["one"]);
        assert_eq!(all(blobs.read("one", 10..20).await.unwrap()).await, [7; 10]);
        assert!(
            all(blobs.read("one", 10..10).await.unwrap())
                .await
                .is_empty()
        );
        blobs.remove("one").await.unwrap();
        blobs.remove("one").await.unwrap();
        assert!(files(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn a_writer_that_was_sent_back_writes_nothing_twice() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(directory.path(), &BTreeSet::new()).unwrap();
        let bytes: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
        let part = |range: Range<usize>| Bytes::copy_from_slice(&bytes[range]);
        let mut writer = blobs.begin("one").await.unwrap();
        writer.write(part(0..100_000)).await.unwrap();
        writer.acknowledge();
        writer.write(part(100_000..900_000)).await.unwrap();
        writer.rewind();
        assert_eq!(writer.size(), 100_000);
        assert_eq!(writer.digest(), Digest::of(&bytes[..100_000]));
        // A part of what is there, once more back, and over its end.
        writer.write(part(100_000..300_000)).await.unwrap();
        writer.acknowledge();
        writer.write(part(300_000..500_000)).await.unwrap();
        writer.rewind();
        assert_eq!(writer.size(), 300_000);
        writer.write(part(300_000..1_500_000)).await.unwrap();
        assert_eq!(writer.digest(), Digest::of(&bytes));
        writer.complete().await.unwrap();
        assert_eq!(blobs.read_whole("one").await.unwrap(), bytes);

        // Others than before, or fewer, make no object.
        let mut writer = blobs.begin("two").await.unwrap();
        writer.write(part(0..900_000)).await.unwrap();
        writer.rewind();
        let others = Bytes::from(vec![9; 900_000]);
        assert!(matches!(
            writer.write(others).await,
            Err(BlobError::Changed)
        ));
        writer.abort().await;
        let mut writer = blobs.begin("three").await.unwrap();
        writer.write(part(0..900_000)).await.unwrap();
        writer.rewind();
        writer.write(part(0..400_000)).await.unwrap();
        assert!(matches!(writer.complete().await, Err(BlobError::Changed)));
        assert_eq!(files(directory.path()), ["one"]);
    }

    #[tokio::test]
    async fn an_empty_object_is_one_too() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(directory.path(), &BTreeSet::new()).unwrap();
        blobs
            .begin("empty")
            .await
            .unwrap()
            .complete()
            .await
            .unwrap();
        assert!(blobs.read_whole("empty").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_aborted_writer_leaves_nothing_and_a_start_clears_what_a_crash_left() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(directory.path(), &BTreeSet::new()).unwrap();
        let mut writer = blobs.begin("gone").await.unwrap();
        writer
            .write(Bytes::from(vec![1; PART_BYTES]))
            .await
            .unwrap();
        assert_eq!(files(directory.path()).len(), 1);
        writer.abort().await;
        assert!(files(directory.path()).is_empty());

        for name in ["kept", "orphan", "half#1"] {
            std::fs::write(directory.path().join(name), b"x").unwrap();
        }
        let known = BTreeSet::from(["kept".to_owned()]);
        BlobStore::open(directory.path(), &known).unwrap();
        assert_eq!(files(directory.path()), ["kept"]);
    }
}
