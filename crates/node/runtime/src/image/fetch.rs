//! One layer from the registry to its folder: fetched, hashed, decompressed and unpacked in one go.
//!
//! What always holds: a connection that breaks goes on where it broke, and a process that was killed goes on from
//! what is on disk: that is read, hashed and unpacked again, so nothing counts that was not verified by this
//! process. Bytes of a broken fetch are used only as a part of a blob whose digest is right in the end. A fetch
//! that fails leaves nothing.
//! What it leaves to others: which layers, and who else wants them (`pull`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::digest::Digest;
use super::layer_stream::{BlobReader, LayerError, unpack_layer};
use super::manifest::Descriptor;
use super::registry::{RegistryError, Repository};
use super::store::Inner;

/// Chunks between the network and the disk; each is at most some hundred KiB.
const CHUNKS_WAITING: usize = 8;
/// A connection that broke after so many bytes was a good one: the next break is a first one.
const PROGRESS_BYTES: u64 = 1 << 20;

/// What came of a blob so far, in a file that goes with its owner, unless the process is killed.
pub(super) struct PartialBlob {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl PartialBlob {
    /// At most `size` bytes of what an earlier process left; none where `afresh`.
    fn open(path: PathBuf, size: u64, afresh: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let mut bytes = file.metadata()?.len();
        if afresh || bytes > size {
            file.set_len(0)?;
            bytes = 0;
        }
        Ok(Self { path, file, bytes })
    }

    /// What is there already, and the file that more is added to.
    fn parts(&self) -> (io::Take<&File>, &File) {
        ((&self.file).take(self.bytes), &self.file)
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        // What cannot be removed now is found by the next collection of images.
        let _ = fs::remove_file(&self.path);
    }
}

/// Brings the layer to where the next publication makes it count. `held` is kept until the thread that unpacks
/// has ended, even if this is given up before.
pub(super) async fn fetch_layer(
    store: &Arc<Inner>,
    repository: &Repository,
    blob: &Descriptor,
    diff_id: &Digest,
    held: impl Clone + Send + 'static,
) -> Result<(), RegistryError> {
    let path = store.files.partial_blob(&blob.digest, diff_id);
    let mut afresh = false;
    loop {
        let partial = PartialBlob::open(path.clone(), blob.size, afresh)
            .map_err(|error| RegistryError::Refused(format!("storing it: {error}")))?;
        let from_disk = partial.bytes;
        let fetch = Fetch {
            store,
            repository,
            blob,
        };
        match fetch.run(partial, diff_id, held.clone()).await {
            // What a power failure left need not be what came.
            Err(RegistryError::Refused(problem)) if from_disk > 0 => {
                tracing::debug!(digest = %blob.digest, problem, "fetched afresh");
                afresh = true;
            }
            done => return done,
        }
    }
}

struct Fetch<'a> {
    store: &'a Arc<Inner>,
    repository: &'a Repository,
    blob: &'a Descriptor,
}

impl Fetch<'_> {
    async fn run(
        &self,
        partial: PartialBlob,
        diff_id: &Digest,
        held: impl Send + 'static,
    ) -> Result<(), RegistryError> {
        let from_disk = partial.bytes;
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        let store = self.store.clone();
        let (expected, diff_id) = (self.blob.clone(), diff_id.clone());
        let unpacking = tokio::task::spawn_blocking(move || {
            let _held = held;
            let disk = |error: io::Error| LayerError::Refused(error.to_string());
            let folder = store.files.temporary_folder(store.unique()).map_err(disk)?;
            let blob = BlobReader::new(Some(partial.parts()), chunks, expected.size);
            unpack_layer(blob, &expected, &diff_id, folder.path(), &store.limits)?;
            // Before the file system is synced, so that these bytes need not be written.
            drop(partial);
            store.files.accept(folder, &diff_id).map_err(disk)
        });
        let fed = self.feed(from_disk, &sender).await;
        drop(sender);
        match (unpacking.await, fed) {
            (Ok(Ok(())), _) => Ok(()),
            (Ok(Err(LayerError::Fed)), Err(error)) => Err(error),
            (Ok(Err(LayerError::Fed)), Ok(())) => Err(RegistryError::Refused(format!(
                "it is shorter than {} bytes",
                self.blob.size
            ))),
            (Ok(Err(LayerError::Refused(problem))), _) => Err(RegistryError::Refused(problem)),
            (Err(error), _) => Err(RegistryError::Refused(format!("unpacking failed: {error}"))),
        }
    }

    /// Sends the blob's bytes from `offset` on, over as many connections as it takes.
    async fn feed(
        &self,
        mut offset: u64,
        sender: &mpsc::Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        let mut tries = self.store.http.tries();
        let mut good_at = offset;
        // An empty blob is asked for as well, so that one that is not there is not taken for one.
        while offset < self.blob.size || self.blob.size == 0 {
            match self.feed_once(&mut offset, sender).await {
                Ok(()) => break,
                Err(error) => {
                    if offset >= good_at + PROGRESS_BYTES {
                        good_at = offset;
                        tries = self.store.http.tries();
                    }
                    tries.again_after(error).await?;
                }
            }
        }
        Ok(())
    }

    async fn feed_once(
        &self,
        offset: &mut u64,
        sender: &mpsc::Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        let (mut body, start) = self
            .repository
            .blob_from(&self.blob.digest, *offset)
            .await?;
        // A registry without ranges begins anew.
        let mut known = *offset - start;
        while let Some(mut chunk) = self.store.http.next_chunk(&mut body).await? {
            let skipped = known.min(chunk.len() as u64);
            known -= skipped;
            let chunk = chunk.split_off(skipped as usize);
            if chunk.is_empty() {
                continue;
            }
            let length = chunk.len() as u64;
            // Whoever no longer reads says why.
            if sender.send(chunk).await.is_err() {
                break;
            }
            *offset += length;
        }
        Ok(())
    }
}
