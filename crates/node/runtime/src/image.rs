//! Images: from a reference to layers on disk that a container can be stacked on.
//!
//! What always holds: an image and a layer are published by one rename after all of their bytes
//! were verified and synced, so whatever a crash leaves half way does not count.
//! What it leaves to others: when to pull, with whose credentials, and which images tasks use.

pub(crate) mod challenge;
mod collection;
pub(crate) mod digest;
mod fetch;
mod files;
mod holds;
mod layer_root;
pub(crate) mod layer_stream;
pub(crate) mod manifest;
pub(crate) mod platform;
mod pull;
mod reference;
mod registry;
mod removal;
mod store;
pub(crate) mod tar_reader;
mod tls;
pub(crate) mod unpack;

pub use collection::CollectionPolicy;
pub use reference::{ImageReference, ReferenceError};
pub use removal::Collected;
pub use store::{ImageStore, ImageStoreOptions};
pub use unpack::LayerLimits;

use serde::{Deserialize, Serialize};

/// How a registry is reached and what it wants to see.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    /// `scheme://host[:port]` to talk to instead of the reference's own registry. `None`: https, or
    /// http where the registry is this machine.
    pub endpoint: Option<String>,
    /// A user name and password: sent as Basic, and to a token service the registry names.
    pub basic: Option<(String, String)>,
    /// A token to send as Bearer.
    pub bearer: Option<String>,
}

impl std::fmt::Debug for RegistryAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAccess")
            .field("endpoint", &self.endpoint)
            .field("basic", &self.basic.as_ref().map(|(user, _)| user))
            .field("bearer", &self.bearer.as_ref().map(|_| "***"))
            .finish()
    }
}

/// An image that is on this machine with all its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledImage {
    /// What the tag stood for at the registry: an index or a manifest, as `sha256:…`. This is what
    /// ECS calls the image's digest.
    pub digest: String,
    /// The manifest of this machine's platform.
    pub manifest_digest: String,
    pub config: ImageConfig,
    /// Bottom first, by the digest of the layer's tar.
    pub diff_ids: Vec<String>,
}

/// An image that does not go for as long as this lives. Cloning shares it.
#[derive(Debug, Clone)]
pub struct HeldImage {
    image: PulledImage,
    _hold: std::sync::Arc<holds::Hold>,
}

impl HeldImage {
    fn new(image: PulledImage, hold: holds::Hold) -> Self {
        Self {
            image,
            _hold: std::sync::Arc::new(hold),
        }
    }
}

impl std::ops::Deref for HeldImage {
    type Target = PulledImage;

    fn deref(&self) -> &PulledImage {
        &self.image
    }
}

/// The part of an image's configuration that a container starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    /// A name (`SIGQUIT`) or a number.
    pub stop_signal: Option<String>,
    pub volumes: Vec<String>,
    pub labels: std::collections::BTreeMap<String, String>,
}
