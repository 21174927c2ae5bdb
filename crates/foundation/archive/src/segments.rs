//! Immutable segments in an object store. A segment is its magic and compressed blocks one after
//! the other; where each block is, the catalogue knows.
//!
//! What always holds: an object is complete and synced before the catalogue names it, and is
//! deleted only after the catalogue has forgotten it. What lies between is an orphan, deleted at
//! the next start.

use std::collections::BTreeSet;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::ArchiveError;

pub(crate) const MAGIC: &[u8] = b"GSEG0001";

#[derive(Clone)]
pub(crate) struct Segments {
    objects: Arc<dyn ObjectStore>,
}

impl Segments {
    pub(crate) fn open(directory: &FilePath) -> Result<Self, ArchiveError> {
        std::fs::create_dir_all(directory).map_err(ArchiveError::io)?;
        let objects = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
        })
    }

    pub(crate) async fn put(&self, number: u64, segment: Vec<u8>) -> Result<(), ArchiveError> {
        self.objects.put(&path(number), segment.into()).await?;
        Ok(())
    }

    /// One block. `None` if the segment has been deleted since the catalogue was read.
    pub(crate) async fn get(
        &self,
        number: u64,
        at: u64,
        length: u64,
    ) -> Result<Option<Bytes>, ArchiveError> {
        match self.objects.get_range(&path(number), at..at + length).await {
            Ok(block) => Ok(Some(block)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn delete(&self, number: u64) -> Result<(), ArchiveError> {
        match self.objects.delete(&path(number)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes every object that the catalogue does not name.
    pub(crate) async fn delete_orphans(&self, named: &BTreeSet<u64>) -> Result<(), ArchiveError> {
        let objects: Vec<_> = self.objects.list(None).try_collect().await?;
        for object in objects {
            let is_named = number(&object.location).is_some_and(|number| named.contains(&number));
            if !is_named {
                tracing::info!(segment = %object.location, "a segment that was never finished is deleted");
                self.objects.delete(&object.location).await?;
            }
        }
        Ok(())
    }
}

fn path(number: u64) -> Path {
    Path::from(format!("{number:012}.seg"))
}

fn number(path: &Path) -> Option<u64> {
    path.as_ref().strip_suffix(".seg")?.parse().ok()
}
