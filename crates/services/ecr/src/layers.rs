//! Blobs of a repository: finding, uploading, mounting.
//!
//! What always holds: bytes are readable through a repository only after their digest was
//! verified and a layer row committed. An object that loses the race to be a blob's is removed.

use std::ops::Range;

use bytes::Bytes;
use gantry_arn::{AccountId, Region, RepositoryName};
use gantry_env::Timestamp;
use gantry_store::{Snapshot, Transaction, Versioned};

use crate::collection::unlink;
use crate::error::RegistryError;
use crate::model::Digest;
use crate::model::settings::AccountSetting;
use crate::model::upload::{BLOB_BYTES_MAX, UploadId, UploadState};
use crate::registry_state::RegistryState;
use crate::tables::{BlobRow, BlobState, ImageRow, LayerRow, RepositoryRow, content_name, global};
use crate::uploads::{Lease, Parts, Session};

/// The registry that a request is for: the token's account and region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub account: AccountId,
    pub region: Region,
}

/// An object whose bytes have been verified and synced, and that no row names yet.
pub struct NewObject {
    pub object: String,
    pub size: u64,
}

/// What a link committed.
enum Linked {
    /// The new object is the blob's.
    Used,
    /// The blob was there already, so the new object is in the way.
    Surplus,
}

impl RegistryState {
    pub fn repository(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        name: &RepositoryName,
    ) -> Result<Versioned<RepositoryRow>, RegistryError> {
        snapshot
            .read::<RepositoryRow>(&place.account, &place.region, name.as_str())
            .ok_or_else(|| RegistryError::RepositoryUnknown {
                name: name.clone(),
                registry: place.account,
            })
    }

    /// The blob of a digest as far as this repository may see it.
    pub fn layer(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
        digest: &Digest,
    ) -> Option<(Versioned<LayerRow>, Versioned<BlobRow>)> {
        let name = content_name(repository, digest);
        let layer = snapshot.read::<LayerRow>(&place.account, &place.region, &name)?;
        let (account, region) = global();
        let blob = snapshot.read::<BlobRow>(&account, &region, digest.as_str())?;
        Some((layer, blob))
    }

    /// Answers whether a layer is there to somebody who may be about to push an image with it:
    /// from now on it is kept for the grace period.
    pub async fn want_layer(
        &self,
        place: &Place,
        name: &RepositoryName,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<u64, RegistryError> {
        for _ in 0..Self::TRIES {
            let snapshot = self.store.snapshot();
            let repository = self.repository(&snapshot, place, name)?;
            let (layer, _) = self
                .layer(&snapshot, place, &repository.id, digest)
                .ok_or_else(|| RegistryError::BlobUnknown(digest.clone()))?;
            // Written only when it would matter, so that checking a layer usually costs nothing.
            if now - layer.wanted_at < self.options.layer_grace / 4 {
                return Ok(layer.size);
            }
            let mut transaction = Transaction::new();
            let wanted = LayerRow {
                wanted_at: now,
                ..LayerRow::clone(&layer.row)
            };
            transaction.update::<LayerRow>(&layer, &wanted);
            if self.commit(transaction).await? {
                return Ok(layer.size);
            }
        }
        Err(RegistryError::Contended)
    }

    /// Makes a blob that another repository of the same registry has readable through this one.
    pub async fn mount(
        &self,
        place: &Place,
        name: &RepositoryName,
        from: &RepositoryName,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let snapshot = self.store.snapshot();
        if self.account_setting(&snapshot, place, AccountSetting::BlobMounting) == "DISABLED" {
            return Err(RegistryError::BlobUnknown(digest.clone()));
        }
        self.want_layer(place, from, digest, now).await?;
        self.link(place, name, digest, None, now).await.map(drop)
    }

    pub async fn begin_upload(
        &self,
        place: &Place,
        name: &RepositoryName,
        now: Timestamp,
    ) -> Result<UploadId, RegistryError> {
        let repository = self.repository(&self.store.snapshot(), place, name)?;
        self.uploads.admit()?;
        let upload = UploadId::from_random(self.env.entropy.bytes16());
        let object = upload.to_string();
        let writer = self.blobs.begin(&object).await?;
        let state = UploadState::begin(now, BLOB_BYTES_MAX);
        self.uploads.insert(
            repository.id.clone(),
            upload,
            Session {
                state,
                writer,
                object,
                parts: Parts::default(),
            },
        );
        Ok(upload)
    }

    pub fn take_upload(
        &self,
        place: &Place,
        name: &RepositoryName,
        upload: UploadId,
        range: Option<Range<u64>>,
    ) -> Result<Lease, RegistryError> {
        let repository = self.repository(&self.store.snapshot(), place, name)?;
        self.uploads.take(&repository.id, upload, range)
    }

    /// Writes one part of the API's to an upload, which it must continue exactly. Answers how
    /// many bytes there are now.
    pub async fn write_part(
        &self,
        place: &Place,
        name: &RepositoryName,
        upload: UploadId,
        range: Range<u64>,
        bytes: Bytes,
    ) -> Result<u64, RegistryError> {
        let mut lease = self.take_upload(place, name, upload, Some(range))?;
        let session = lease.session()?;
        session.state.receive(bytes.len())?;
        session.parts.note(bytes.len() as u64);
        session.writer.write(bytes).await?;
        lease.give_back(self.env.now())
    }

    /// Takes a blob away from a repository, unless an image there needs it.
    pub async fn delete_layer(
        &self,
        place: &Place,
        name: &RepositoryName,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        for _ in 0..Self::TRIES {
            let snapshot = self.store.snapshot();
            let repository = self.repository(&snapshot, place, name)?;
            let (layer, _) = self
                .layer(&snapshot, place, &repository.id, digest)
                .ok_or_else(|| RegistryError::BlobUnknown(digest.clone()))?;
            let images = self.images(&snapshot, place, &repository.id);
            let needs = |image: &&Versioned<ImageRow>| {
                let mut blobs = image.manifest.blobs();
                image.digest == *digest || blobs.any(|content| content.digest == *digest)
            };
            if let Some(image) = images.iter().find(needs) {
                return Err(RegistryError::LayerNeeded {
                    layer: digest.clone(),
                    image: image.digest.clone(),
                });
            }
            // An image that is pushed meanwhile conflicts.
            let mut transaction = self.changing(&snapshot, &repository);
            unlink(&snapshot, now, &layer, &mut transaction);
            if self.commit(transaction).await? {
                return Ok(());
            }
        }
        Err(RegistryError::Contended)
    }

    /// Verifies what an upload received and makes it a blob of the repository.
    pub async fn finish_upload(
        &self,
        place: &Place,
        name: &RepositoryName,
        session: Session,
        expected: &Digest,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let Session { writer, object, .. } = session;
        let (actual, size) = (writer.digest(), writer.size());
        if actual != *expected {
            writer.abort().await;
            return Err(RegistryError::DigestMismatch {
                expected: expected.clone(),
                actual,
            });
        }
        // Where the blob is there already, the upload need not become durable.
        match self.link(place, name, expected, None, now).await {
            Err(RegistryError::BlobUnknown(_)) => {}
            linked => {
                writer.abort().await;
                return linked.map(drop);
            }
        }
        writer.complete().await?;
        self.link_new(place, name, expected, NewObject { object, size }, now)
            .await
    }

    /// Stores bytes that are in memory, a manifest's, as a blob of the repository.
    pub async fn store_bytes(
        &self,
        place: &Place,
        name: &RepositoryName,
        digest: &Digest,
        bytes: Bytes,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        match self.link(place, name, digest, None, now).await {
            Err(RegistryError::BlobUnknown(_)) => {}
            linked => return linked.map(drop),
        }
        let object = UploadId::from_random(self.env.entropy.bytes16()).to_string();
        let size = bytes.len() as u64;
        let mut writer = self.blobs.begin(&object).await?;
        writer.write(bytes).await?;
        writer.complete().await?;
        self.link_new(place, name, digest, NewObject { object, size }, now)
            .await
    }

    async fn link_new(
        &self,
        place: &Place,
        name: &RepositoryName,
        digest: &Digest,
        new: NewObject,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        match self.link(place, name, digest, Some(&new), now).await {
            Ok(Linked::Used) => Ok(()),
            Ok(Linked::Surplus) => Ok(self.blobs.remove(&new.object).await?),
            // An I/O error leaves open whether the row was written, so the object stays; the
            // next start knows.
            Err(error @ RegistryError::Store(_)) => Err(error),
            Err(error) => {
                self.blobs.remove(&new.object).await?;
                Err(error)
            }
        }
    }

    /// Commits the layer row, and the blob's row with it.
    async fn link(
        &self,
        place: &Place,
        name: &RepositoryName,
        digest: &Digest,
        new: Option<&NewObject>,
        now: Timestamp,
    ) -> Result<Linked, RegistryError> {
        let (account, region) = global();
        for _ in 0..Self::TRIES {
            let snapshot = self.store.snapshot();
            let repository = self.repository(&snapshot, place, name)?;
            let mut transaction = Transaction::new();
            transaction.expect_read(&repository);

            if let Some((layer, _)) = self.layer(&snapshot, place, &repository.id, digest) {
                let wanted = LayerRow {
                    wanted_at: now,
                    ..LayerRow::clone(&layer.row)
                };
                transaction.update::<LayerRow>(&layer, &wanted);
                if self.commit(transaction).await? {
                    return Ok(Linked::Surplus);
                }
                continue;
            }

            let blob = snapshot.read::<BlobRow>(&account, &region, digest.as_str());
            let reusable = blob
                .as_ref()
                .filter(|blob| blob.state != BlobState::Collecting);
            let (row, linked) = match (reusable, new) {
                (Some(blob), _) => {
                    let links = blob.links + 1;
                    let row = BlobRow {
                        links,
                        state: BlobState::Stored,
                        ..BlobRow::clone(&blob.row)
                    };
                    (row, Linked::Surplus)
                }
                (None, Some(new)) => {
                    let (object, size) = (new.object.clone(), new.size);
                    (
                        BlobRow {
                            object,
                            size,
                            links: 1,
                            state: BlobState::Stored,
                        },
                        Linked::Used,
                    )
                }
                (None, None) => return Err(RegistryError::BlobUnknown(digest.clone())),
            };
            match &blob {
                Some(blob) => transaction.update::<BlobRow>(blob, &row),
                None => transaction.create::<BlobRow>(&account, &region, digest.as_str(), &row),
            };
            let layer = LayerRow {
                digest: digest.clone(),
                size: row.size,
                wanted_at: now,
            };
            let name = content_name(&repository.id, digest);
            transaction.create::<LayerRow>(&place.account, &place.region, &name, &layer);
            if self.commit(transaction).await? {
                return Ok(linked);
            }
        }
        Err(RegistryError::Contended)
    }
}
