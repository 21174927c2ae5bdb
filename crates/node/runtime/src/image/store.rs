//! The images of one machine: asked for by reference, kept by content, shared by whoever wants the same.
//!
//! What always holds: a pull that returns has all of the image on disk; one that fails or is given up
//! leaves nothing that counts. Callers that want the same image with the same login share one pull, and no layer
//! is fetched twice at the same time, whoever asks. An image that somebody holds does not go.
//! What it leaves to others: which images tasks use, and when it is looked for those that nobody does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use gantry_env::Env;
use tokio::sync::Semaphore;

use super::collection::CollectionPolicy;
use super::digest::Digest;
use super::files::ImageFiles;
use super::holds::{Hold, Holds};
use super::platform::Platform;
use super::registry::HttpClient;
use super::removal::{Collected, Removal};
use super::tls::Trust;
use super::{HeldImage, ImageConfig, ImageReference, PulledImage, RegistryAccess};
use super::{LayerLimits, pull};
use crate::error::RuntimeError;

/// Layers that are fetched and unpacked at the same time, over all pulls. More fill memory and disk
/// queues without being faster.
const LAYERS_AT_ONCE: usize = 4;

#[derive(Debug, Clone, Default)]
pub struct ImageStoreOptions {
    /// Certificates (PEM) that https registries may be vouched for by, besides the machine's own.
    pub authorities_pem: Vec<u8>,
    /// Registries (`host[:port]`, as references have it) that are spoken to over plain http, besides this
    /// machine's own.
    pub insecure_registries: Vec<String>,
    pub limits: LayerLimits,
}

/// Cloning shares it. One store has its folder to itself.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub files: ImageFiles,
    pub http: HttpClient,
    pub platform: Platform,
    pub limits: LayerLimits,
    pub insecure_registries: Vec<String>,
    pub slots: Arc<Semaphore>,
    pub holds: Arc<Holds>,
    layers: Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    pulls: Mutex<BTreeMap<PullKey, WeakShared<PullFuture>>>,
}

type PullFuture = Pin<Box<dyn Future<Output = Result<HeldImage, RuntimeError>> + Send>>;

/// Pulls are only shared between those who show the same login.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
struct PullKey {
    reference: ImageReference,
    endpoint: Option<String>,
    basic: Option<(String, String)>,
    bearer: Option<String>,
}

impl fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageStore")
            .field("files", &self.inner.files)
            .finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Opens the folder, making what it lacks, and throws away what a crash left half way. It blocks
    /// while it does.
    pub fn open(dir: &Path, env: Env) -> Result<Self, RuntimeError> {
        Self::open_with(dir, env, ImageStoreOptions::default())
    }

    pub fn open_with(
        dir: &Path,
        env: Env,
        options: ImageStoreOptions,
    ) -> Result<Self, RuntimeError> {
        let files = ImageFiles::open(dir).map_err(|error| {
            RuntimeError::runtime(format!("the store of images at {}: {error}", dir.display()))
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                files,
                http: HttpClient::new(Trust::new(options.authorities_pem), env),
                platform: Platform::of_this_machine(),
                limits: options.limits,
                insecure_registries: options.insecure_registries,
                holds: Arc::default(),
                slots: Arc::new(Semaphore::new(LAYERS_AT_ONCE)),
                layers: Mutex::default(),
                pulls: Mutex::default(),
            }),
        })
    }

    /// Asks the registry what the reference stands for, unless it is pinned to a digest that is here,
    /// and fetches what is missing of it. When every caller has given up, so does the pull.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        access: &RegistryAccess,
    ) -> Result<PulledImage, RuntimeError> {
        let held = self.shared_pull(reference, access).await?;
        Ok(PulledImage::clone(&held))
    }

    /// The same, and the image does not go for as long as the answer lives.
    pub async fn pull_held(
        &self,
        reference: &ImageReference,
        access: &RegistryAccess,
    ) -> Result<HeldImage, RuntimeError> {
        self.shared_pull(reference, access).await
    }

    fn shared_pull(
        &self,
        reference: &ImageReference,
        access: &RegistryAccess,
    ) -> Shared<PullFuture> {
        let key = PullKey {
            reference: reference.clone(),
            endpoint: access.endpoint.clone(),
            basic: access.basic.clone(),
            bearer: access.bearer.clone(),
        };
        let mut pulls = self
            .inner
            .pulls
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // One that is done is an answer of the past; the tag may have moved since.
        if let Some(running) = pulls.get(&key).and_then(WeakShared::upgrade)
            && running.peek().is_none()
        {
            return running;
        }
        pulls.retain(|_, pull| pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
        let (inner, reference, access) = (self.inner.clone(), reference.clone(), access.clone());
        let future: PullFuture =
            Box::pin(async move { pull::pull(&inner, &reference, &access).await });
        let shared = future.shared();
        if let Some(weak) = shared.downgrade() {
            pulls.insert(key, weak);
        }
        shared
    }

    /// What the reference stood for when it was last pulled, if all of it is still here. No network.
    pub fn cached(&self, reference: &ImageReference) -> Option<PulledImage> {
        let digest = match reference.digest() {
            Some(digest) => Digest::parse(digest)?,
            None => self.inner.files.read_reference(reference)?,
        };
        self.inner.files.load(&digest, &self.inner.platform)
    }

    /// The image that a digest stands for, as [`PulledImage::digest`] or as
    /// [`PulledImage::manifest_digest`].
    pub fn image(&self, digest: &str) -> Result<PulledImage, RuntimeError> {
        Digest::parse(digest)
            .and_then(|digest| self.inner.files.load(&digest, &self.inner.platform))
            .ok_or_else(|| {
                RuntimeError::create(format!("the image {digest:?} is not on this machine"))
            })
    }

    pub fn config(&self, digest: &str) -> Result<ImageConfig, RuntimeError> {
        self.image(digest).map(|image| image.config)
    }

    /// The folders to stack, topmost first, as overlayfs wants them. Each is there once, because overlayfs
    /// refuses a folder twice, and a layer that comes again higher up hides itself below.
    pub fn lowers(&self, digest: &str) -> Result<Vec<PathBuf>, RuntimeError> {
        let image = self.image(digest)?;
        let mut lowers: Vec<PathBuf> = Vec::with_capacity(image.diff_ids.len());
        for diff_id in image
            .diff_ids
            .iter()
            .rev()
            .filter_map(|id| Digest::parse(id))
        {
            let layer = self.inner.files.layer(&diff_id);
            if !lowers.contains(&layer) {
                lowers.push(layer);
            }
        }
        Ok(lowers)
    }

    /// Keeps the image from going until the answer is dropped. `None`: that is no digest.
    pub(crate) fn hold(&self, digest: &str) -> Option<Hold> {
        Some(self.inner.holds.hold([Digest::parse(digest)?]))
    }

    /// Removes images that nobody has used for long, and what a crash left of some. `users` says which images and
    /// layers tasks use, and is asked when what pulls and starts hold is already known. Blocks. Nothing is done
    /// while another call does it.
    pub fn collect(
        &self,
        policy: &CollectionPolicy,
        users: impl Fn() -> Result<Vec<String>, RuntimeError>,
    ) -> Result<Collected, RuntimeError> {
        let mut collected = Collected::default();
        let Some(collecting) = self.inner.holds.begin() else {
            return Ok(collected);
        };
        let failed = |error: std::io::Error| {
            RuntimeError::runtime(format!("removing images that nobody uses: {error}"))
        };
        let users: BTreeSet<Digest> = users()?
            .iter()
            .filter_map(|user| Digest::parse(user))
            .collect();
        let removal = Removal {
            files: &self.inner.files,
            platform: &self.inner.platform,
            policy,
            collecting: &collecting,
            users: &users,
            now: self.inner.http.env().now(),
            unique: &|| self.inner.unique(),
        };
        loop {
            let is_low_on_space = self.is_low_on_space(policy).map_err(failed)?;
            let round = removal.run(is_low_on_space).map_err(failed)?;
            let goes_on = is_low_on_space && !round.images.is_empty();
            collected.images.extend(round.images);
            collected.layers += round.layers;
            if !goes_on {
                return Ok(collected);
            }
        }
    }

    /// Whether less of the disk is free than the policy wants.
    pub fn is_low_on_space(&self, policy: &CollectionPolicy) -> std::io::Result<bool> {
        let disk = rustix::fs::statvfs(self.inner.files.dir())?;
        let wanted = u128::from(disk.f_blocks) * u128::from(policy.free_percent_min) / 100;
        Ok(u128::from(disk.f_bavail) < wanted)
    }

    /// Where [`ImageStore::lowers`] are, each called by its diff id without `sha256:`.
    pub fn layers_dir(&self) -> PathBuf {
        self.inner.files.layers_dir()
    }
}

impl Inner {
    /// What is locked while a layer is being fetched.
    pub fn layer_lock(&self, diff_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = layers.get(diff_id).and_then(Weak::upgrade) {
            return lock;
        }
        layers.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        layers.insert(diff_id.clone(), Arc::downgrade(&lock));
        lock
    }

    pub fn unique(&self) -> [u8; 16] {
        self.http.env().entropy.bytes16()
    }
}
