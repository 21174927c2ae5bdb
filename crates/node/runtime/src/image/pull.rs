//! One pull: reference → manifest → configuration → layers → an image that counts.
//!
//! What always holds: nothing is trusted before its digest was checked, down from the manifest's; layers are
//! fetched at the same time and published together, after one sync.

use std::io;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::digest::Digest;
use super::fetch::fetch_layer;
use super::holds::Hold;
use super::manifest::{
    CONFIG_BYTES_MAX, Configuration, ConfigurationError, Descriptor, Document, Manifest,
};
use super::registry::{RawManifest, RegistryError, Repository};
use super::store::Inner;
use super::{HeldImage, ImageReference, PulledImage, RegistryAccess};
use crate::error::RuntimeError;

pub(super) async fn pull(
    store: &Arc<Inner>,
    reference: &ImageReference,
    access: &RegistryAccess,
) -> Result<HeldImage, RuntimeError> {
    let pull = Pull {
        store,
        reference,
        repository: Repository::new(
            store.http.clone(),
            reference,
            access,
            &store.insecure_registries,
        )
        .map_err(|error| resolve_error(reference, error))?,
    };
    // Held before it is looked for, so that a collection does not take it away meanwhile.
    let pinned = reference.digest().and_then(Digest::parse);
    let mut hold = store.holds.hold(pinned.clone());
    if let Some(image) = pinned.and_then(|digest| store.files.load(&digest, &store.platform)) {
        pull.remember(&image)?;
        return Ok(HeldImage::new(image, hold));
    }
    let image = pull.run(&mut hold).await?;
    tracing::debug!(%reference, digest = %image.digest, "pulled");
    Ok(HeldImage::new(image, hold))
}

struct Pull<'a> {
    store: &'a Arc<Inner>,
    reference: &'a ImageReference,
    repository: Repository,
}

impl Pull<'_> {
    async fn run(&self, hold: &mut Hold) -> Result<PulledImage, RuntimeError> {
        let reference = self.reference;
        let top = self
            .repository
            .manifest(reference.selector())
            .await
            .map_err(|error| resolve_error(reference, error))?;
        hold.also([top.digest.clone()]);
        let image = match self.store.files.load(&top.digest, &self.store.platform) {
            Some(image) => image,
            None => self.fetch(top, hold).await?,
        };
        self.remember(&image)?;
        Ok(image)
    }

    /// What the reference stands for, and that it is used now.
    fn remember(&self, image: &PulledImage) -> Result<(), RuntimeError> {
        let (files, now) = (&self.store.files, self.store.http.env().now());
        files
            .write_reference(self.reference, &image.digest, self.store.unique())
            .and_then(|()| match Digest::parse(&image.digest) {
                Some(digest) => files.write_used_at(&digest, now, self.store.unique()),
                None => Ok(()),
            })
            .map_err(|error| self.disk_error(&error))
    }

    async fn fetch(&self, top: RawManifest, hold: &mut Hold) -> Result<PulledImage, RuntimeError> {
        let (raw, manifest) = self.image_manifest(&top).await?;
        hold.also([raw.digest.clone(), manifest.config.digest.clone()]);
        hold.also(manifest.layers.iter().map(|layer| layer.digest.clone()));
        let config_blob = self
            .repository
            .small_blob(
                &manifest.config.digest,
                manifest.config.size,
                CONFIG_BYTES_MAX,
            )
            .await
            .map_err(|error| self.blob_error(&manifest.config.digest, error))?;
        let configuration =
            Configuration::parse(&config_blob, manifest.layers.len(), &self.store.platform)
                .map_err(|error| match error {
                    ConfigurationError::OtherPlatform(other) => {
                        self.no_match(&format!("the image is for {other}"))
                    }
                    ConfigurationError::Malformed(problem) => self.refused(&problem),
                })?;
        hold.also(configuration.diff_ids.iter().cloned());
        self.layers(&manifest.layers, &configuration.diff_ids)
            .await?;
        let blobs = [
            (&top.digest, &top.bytes),
            (&raw.digest, &raw.bytes),
            (&manifest.config.digest, &config_blob),
        ];
        for (digest, bytes) in blobs {
            self.store
                .files
                .write_blob(digest, bytes, self.store.unique())
                .map_err(|error| self.disk_error(&error))?;
        }
        let (files, diff_ids) = (self.store.files.clone(), configuration.diff_ids.clone());
        blocking(move || files.publish(&diff_ids))
            .await
            .map_err(|error| self.disk_error(&error))?;
        Ok(PulledImage {
            digest: top.digest.to_string(),
            manifest_digest: raw.digest.to_string(),
            config: configuration.config,
            diff_ids: configuration
                .diff_ids
                .iter()
                .map(Digest::to_string)
                .collect(),
        })
    }

    /// The manifest of this machine's platform, straight or through an index.
    async fn image_manifest(
        &self,
        top: &RawManifest,
    ) -> Result<(RawManifest, Manifest), RuntimeError> {
        let parse =
            |raw: &RawManifest| Document::parse(&raw.bytes).map_err(|error| self.refused(&error));
        let index = match parse(top)? {
            Document::Manifest(manifest) => {
                let raw = RawManifest {
                    digest: top.digest.clone(),
                    bytes: top.bytes.clone(),
                };
                return Ok((raw, manifest));
            }
            Document::Index(index) => index,
        };
        let selected = index
            .select(&self.store.platform)
            .ok_or_else(|| self.no_match("in the manifest list entries"))?
            .map_err(|error| self.refused(&error))?;
        let raw = self
            .repository
            .manifest(&selected.digest.to_string())
            .await
            .map_err(|error| self.blob_error(&selected.digest, error))?;
        match parse(&raw)? {
            Document::Manifest(manifest) => Ok((raw, manifest)),
            Document::Index(_) => Err(self.refused("an index in an index is not supported")),
        }
    }

    async fn layers(&self, blobs: &[Descriptor], diff_ids: &[Digest]) -> Result<(), RuntimeError> {
        let layers = blobs.iter().zip(diff_ids).enumerate();
        // A layer that is there twice is fetched once.
        let once = layers.filter(|(at, (_, id))| !diff_ids[..*at].contains(id));
        try_join_all(once.map(|(_, (blob, diff_id))| self.layer(blob, diff_id))).await?;
        Ok(())
    }

    async fn layer(&self, blob: &Descriptor, diff_id: &Digest) -> Result<(), RuntimeError> {
        let lock = self.store.layer_lock(diff_id);
        let locked = lock.lock_owned().await;
        if self.store.files.has_verified_layer(diff_id) {
            return Ok(());
        }
        let slot = self.store.slots.clone().acquire_owned().await;
        // Held until the thread that unpacks has ended, even if this pull is given up before.
        let held = Arc::new((locked, slot));
        fetch_layer(self.store, &self.repository, blob, diff_id, held)
            .await
            .map_err(|error| self.blob_error(&blob.digest, error))
    }

    fn no_match(&self, why: &str) -> RuntimeError {
        let (reference, platform) = (self.reference, &self.store.platform);
        RuntimeError::pull(format!(
            "pull image manifest: failed to resolve ref {reference}: no matching manifest for {platform}: {why}"
        ))
    }

    fn refused(&self, problem: &str) -> RuntimeError {
        RuntimeError::pull(format!("pull image: {}: {problem}", self.reference))
    }

    fn disk_error(&self, error: &io::Error) -> RuntimeError {
        RuntimeError::pull(format!(
            "pull image: {}: storing it: {error}",
            self.reference
        ))
    }

    fn blob_error(&self, digest: &Digest, error: RegistryError) -> RuntimeError {
        let reference = self.reference;
        match error {
            RegistryError::NotFound => RuntimeError::pull(format!(
                "pull image: failed to copy {reference}: {digest}: not found"
            )),
            RegistryError::Denied(text)
            | RegistryError::Transient(text)
            | RegistryError::Refused(text) => RuntimeError::pull(format!(
                "pull image: failed to copy {reference}: {digest}: {text}"
            )),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn resolve_error(reference: &ImageReference, error: RegistryError) -> RuntimeError {
    let start = "pull image manifest: failed to resolve ref";
    RuntimeError::pull(match error {
        RegistryError::NotFound => format!("{start} {reference}: {reference}: not found"),
        RegistryError::Denied(text) => format!(
            "{start} {reference}: pull access denied, repository does not exist or may require authorization: {text}"
        ),
        RegistryError::Transient(text) | RegistryError::Refused(text) => {
            format!("{start} {reference}: {text}")
        }
    })
}
