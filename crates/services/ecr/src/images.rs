//! Images: pushing a manifest, finding one, deleting.
//!
//! What always holds: an image's layers and an index's images are in the repository in the very
//! commit that makes it; a tag leads to an image that is there; an image that an index needs is
//! not deleted before it.

use bytes::Bytes;
use gantry_arn::RepositoryName;
use gantry_env::Timestamp;
use gantry_store::{Snapshot, Transaction, Versioned};

use crate::collection::change_content;
use crate::error::RegistryError;
use crate::layers::Place;
use crate::model::manifest::Manifest;
use crate::model::{Digest, ImageTag, Reference};
use crate::registry_state::RegistryState;
use crate::tables::{ImageRow, LayerRow, PullRow, RepositoryRow, TagRow, content_name, tag_name};

/// How many tags one transaction removes; within its limit with all that goes along.
const TAGS_AT_ONCE: usize = 40;

/// A manifest on its way in.
pub struct Push {
    pub bytes: Bytes,
    pub media_type: Option<String>,
    pub tag: Option<ImageTag>,
    /// What the caller says that the digest is.
    pub digest: Option<Digest>,
}

/// What a push came to.
pub struct Pushed {
    pub image: ImageRow,
    /// The repository had this very image under this very tag (or at all, without a tag).
    pub already_there: bool,
}

impl RegistryState {
    pub fn image(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
        reference: &Reference,
    ) -> Option<Versioned<ImageRow>> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => self.tag(snapshot, place, repository, tag)?.digest.clone(),
        };
        let name = content_name(repository, &digest);
        snapshot.read::<ImageRow>(&place.account, &place.region, &name)
    }

    pub fn tag(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
        tag: &ImageTag,
    ) -> Option<Versioned<TagRow>> {
        snapshot.read::<TagRow>(&place.account, &place.region, &tag_name(repository, tag))
    }

    /// All tags of a repository, by name.
    pub fn tags(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
    ) -> Vec<Versioned<TagRow>> {
        let names = format!("{repository}:");
        snapshot.list_prefix::<TagRow>(&place.account, &place.region, &names)
    }

    /// All images of a repository, by digest.
    pub fn images(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
    ) -> Vec<Versioned<ImageRow>> {
        let names = format!("{repository}@");
        snapshot.list_prefix::<ImageRow>(&place.account, &place.region, &names)
    }

    /// The images that are about another one, by digest. That one need not be there.
    pub fn referrers(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
        subject: &Digest,
    ) -> Vec<Versioned<ImageRow>> {
        let mut images = self.images(snapshot, place, repository);
        images.retain(|image| image.manifest.subject.as_ref() == Some(subject));
        images
    }

    /// The bytes of an image's manifest, exactly as they were pushed.
    pub async fn manifest_bytes(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
        digest: &Digest,
    ) -> Result<Bytes, RegistryError> {
        let (_, blob) = self
            .layer(snapshot, place, repository, digest)
            .ok_or_else(|| RegistryError::ManifestUnknown(Reference::Digest(digest.clone())))?;
        Ok(self.blobs.read_whole(&blob.object).await?)
    }

    pub async fn push_manifest(
        &self,
        place: &Place,
        name: &RepositoryName,
        push: Push,
        now: Timestamp,
    ) -> Result<Pushed, RegistryError> {
        let manifest = Manifest::parse(&push.bytes, push.media_type.as_deref())?;
        let digest = Digest::of(&push.bytes);
        if let Some(expected) = push.digest.filter(|expected| *expected != digest) {
            return Err(RegistryError::DigestMismatch {
                expected,
                actual: digest,
            });
        }
        let manifest_size = push.bytes.len() as u64;
        let image = ImageRow {
            digest,
            manifest,
            manifest_size,
            pushed_at: now,
        };
        // What cannot succeed is refused before its bytes are stored.
        self.plan_push(
            &self.store.snapshot(),
            place,
            name,
            &image,
            push.tag.as_ref(),
        )?;
        for _ in 0..Self::TRIES {
            self.store_bytes(place, name, &image.digest, push.bytes.clone(), now)
                .await?;
            let snapshot = self.store.snapshot();
            let repository = self.repository(&snapshot, place, name)?;
            if self
                .layer(&snapshot, place, &repository.id, &image.digest)
                .is_none()
            {
                // The repository was deleted and made again meanwhile: the bytes were the old one's.
                continue;
            }
            let (transaction, pushed) =
                self.plan_push(&snapshot, place, name, &image, push.tag.as_ref())?;
            if pushed.already_there || self.commit(transaction).await? {
                return Ok(pushed);
            }
        }
        Err(RegistryError::Contended)
    }

    fn plan_push(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        name: &RepositoryName,
        image: &ImageRow,
        tag: Option<&ImageTag>,
    ) -> Result<(Transaction, Pushed), RegistryError> {
        let repository = self.repository(snapshot, place, name)?;
        self.check_references(snapshot, place, &repository.id, &image.manifest)?;

        let mut transaction = self.changing(snapshot, &repository);
        let (account, region) = (&place.account, &place.region);
        let row_name = content_name(&repository.id, &image.digest);
        // The manifest's own bytes may be collected between storing them and this commit; then
        // this expectation fails, and they are stored again.
        if let Some(layer) = snapshot.read::<LayerRow>(account, region, &row_name) {
            transaction.expect_read(&layer);
        }
        let existing = snapshot.read::<ImageRow>(account, region, &row_name);
        let mut already_there = existing.is_some();
        if existing.is_none() {
            transaction.create::<ImageRow>(account, region, &row_name, image);
        }
        if let Some(tag) = tag {
            let current = self.tag(snapshot, place, &repository.id, tag);
            let same = current
                .as_ref()
                .is_some_and(|current| current.digest == image.digest);
            if current.is_some() && !same && !repository.mutability.may_move(tag) {
                let repository = name.clone();
                return Err(RegistryError::TagImmutable {
                    tag: tag.clone(),
                    repository,
                });
            }
            if !same {
                let row = TagRow {
                    tag: tag.clone(),
                    digest: image.digest.clone(),
                };
                let row_name = tag_name(&repository.id, tag);
                transaction.write::<TagRow>(account, region, &row_name, &row);
            }
            already_there &= same;
        }
        let image = existing.map_or_else(|| image.clone(), |there| ImageRow::clone(&there.row));
        Ok((
            transaction,
            Pushed {
                image,
                already_there,
            },
        ))
    }

    fn check_references(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
        manifest: &Manifest,
    ) -> Result<(), RegistryError> {
        let mut missing = Vec::new();
        for content in manifest.blobs() {
            match self.layer(snapshot, place, repository, &content.digest) {
                None => missing.push(content.digest.clone()),
                Some((layer, _)) if layer.size != content.size => {
                    return Err(RegistryError::LayerSize {
                        digest: content.digest.clone(),
                        declared: content.size,
                        actual: layer.size,
                    });
                }
                Some(_) => {}
            }
        }
        if !missing.is_empty() {
            return Err(RegistryError::LayersMissing(missing));
        }
        let absent = |digest: &Digest| {
            let reference = Reference::Digest(digest.clone());
            self.image(snapshot, place, repository, &reference)
                .is_none()
        };
        let manifests = manifest
            .manifests()
            .iter()
            .map(|content| content.digest.clone());
        let missing: Vec<Digest> = manifests.filter(absent).collect();
        if !missing.is_empty() {
            return Err(RegistryError::ImagesMissing(missing));
        }
        Ok(())
    }

    /// A transaction that changes a repository's content: it conflicts with every other.
    pub(crate) fn changing(
        &self,
        snapshot: &Snapshot,
        repository: &Versioned<RepositoryRow>,
    ) -> Transaction {
        let mut transaction = Transaction::new();
        transaction.expect_read(repository);
        change_content(snapshot, repository, &mut transaction);
        transaction
    }

    /// Takes a tag away; with its last tag the image goes as well. Answers the image it named.
    pub async fn untag(
        &self,
        place: &Place,
        name: &RepositoryName,
        tag: &ImageTag,
    ) -> Result<Digest, RegistryError> {
        for _ in 0..Self::TRIES {
            let snapshot = self.store.snapshot();
            let repository = self.repository(&snapshot, place, name)?;
            let unknown = || RegistryError::ManifestUnknown(Reference::Tag(tag.clone()));
            let row = self
                .tag(&snapshot, place, &repository.id, tag)
                .ok_or_else(unknown)?;
            let mut transaction = self.changing(&snapshot, &repository);
            transaction.delete(row.key.clone());
            let tags = self.tags(&snapshot, place, &repository.id);
            let is_last = tags
                .iter()
                .filter(|other| other.digest == row.digest)
                .count()
                == 1;
            if is_last {
                self.refuse_needed(&snapshot, place, &repository.id, &row.digest)?;
                self.remove_image(&mut transaction, place, &repository.id, &row.digest);
            }
            if self.commit(transaction).await? {
                return Ok(row.digest.clone());
            }
        }
        Err(RegistryError::Contended)
    }

    /// Deletes an image and all its tags, and answers those.
    pub async fn delete_image(
        &self,
        place: &Place,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<ImageTag>, RegistryError> {
        let mut removed = Vec::new();
        let mut conflicts = 0;
        while conflicts < Self::TRIES {
            let snapshot = self.store.snapshot();
            let repository = self.repository(&snapshot, place, name)?;
            let reference = Reference::Digest(digest.clone());
            if self
                .image(&snapshot, place, &repository.id, &reference)
                .is_none()
            {
                return Err(RegistryError::ManifestUnknown(reference));
            }
            self.refuse_needed(&snapshot, place, &repository.id, digest)?;
            let mut tags = self.tags(&snapshot, place, &repository.id);
            tags.retain(|tag| tag.digest == *digest);
            let is_last = tags.len() <= TAGS_AT_ONCE;
            tags.truncate(TAGS_AT_ONCE);
            let mut transaction = self.changing(&snapshot, &repository);
            for tag in &tags {
                transaction.delete(tag.key.clone());
            }
            if is_last {
                self.remove_image(&mut transaction, place, &repository.id, digest);
            }
            if !self.commit(transaction).await? {
                conflicts += 1;
                continue;
            }
            removed.extend(tags.iter().map(|tag| tag.tag.clone()));
            if is_last {
                return Ok(removed);
            }
        }
        Err(RegistryError::Contended)
    }

    /// The layers stay linked until the collection finds them unused.
    fn remove_image(
        &self,
        transaction: &mut Transaction,
        place: &Place,
        repository: &str,
        digest: &Digest,
    ) {
        let name = content_name(repository, digest);
        transaction.remove::<ImageRow>(&place.account, &place.region, &name);
        transaction.remove::<PullRow>(&place.account, &place.region, &name);
    }

    fn refuse_needed(
        &self,
        snapshot: &Snapshot,
        place: &Place,
        repository: &str,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let images = self.images(snapshot, place, repository);
        let names = |image: &ImageRow| {
            image
                .manifest
                .manifests()
                .iter()
                .any(|content| content.digest == *digest)
        };
        let indexes: Vec<Digest> = images
            .iter()
            .filter(|image| names(image))
            .map(|image| image.digest.clone())
            .collect();
        if indexes.is_empty() {
            Ok(())
        } else {
            Err(RegistryError::ReferencedByIndex(indexes))
        }
    }

    /// Notes that an image was pulled. A pull never fails over it.
    pub async fn record_pull(&self, place: &Place, image: &Versioned<ImageRow>, now: Timestamp) {
        let (account, region) = (&place.account, &place.region);
        let snapshot = self.store.snapshot();
        let name = image.key.name();
        let last = snapshot.read::<PullRow>(account, region, name);
        if last.is_some_and(|last| now - last.at < self.options.pull_record_interval) {
            return;
        }
        let mut transaction = Transaction::new();
        transaction.expect_read(image);
        transaction.write::<PullRow>(account, region, name, &PullRow { at: now });
        if let Err(error) = self.commit(transaction).await {
            tracing::warn!(%error, "the time of a pull was not recorded");
        }
    }
}
