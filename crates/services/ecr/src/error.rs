//! What can be wrong with a request to the registry, before either wire puts it in its words.

use gantry_arn::{AccountId, RepositoryName};
use gantry_store::CommitError;

use crate::blobs::BlobError;
use crate::model::manifest::ManifestError;
use crate::model::upload::UploadRefusal;
use crate::model::{Digest, ImageTag, Reference};

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(
        "The repository with name '{name}' does not exist in the registry with id '{registry}'"
    )]
    RepositoryUnknown {
        name: RepositoryName,
        registry: AccountId,
    },
    #[error("The layer with digest '{0}' does not exist in the repository")]
    BlobUnknown(Digest),
    #[error("Requested image not found: {0}")]
    ManifestUnknown(Reference),
    #[error("The upload does not exist; it may have been broken off or given up")]
    UploadUnknown,
    #[error("{0}")]
    Upload(#[from] UploadRefusal),
    #[error("Too many uploads are open; finish or cancel some first")]
    TooManyUploads,
    #[error("The content has digest '{actual}', not '{expected}'")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("{0}")]
    ManifestInvalid(#[from] ManifestError),
    #[error("The layers with digests '{}' required by the manifest do not exist", list(.0))]
    LayersMissing(Vec<Digest>),
    #[error("The manifest gives layer '{digest}' {declared} bytes; it has {actual}")]
    LayerSize {
        digest: Digest,
        declared: u64,
        actual: u64,
    },
    #[error("Images with digests '{}' required for pushing image into repository do not exist", list(.0))]
    ImagesMissing(Vec<Digest>),
    #[error(
        "The image tag '{tag}' already exists in the '{repository}' repository and cannot be overwritten because the tag is immutable."
    )]
    TagImmutable {
        tag: ImageTag,
        repository: RepositoryName,
    },
    #[error("Requested image referenced by manifest list: [{}]", list(.0))]
    ReferencedByIndex(Vec<Digest>),
    #[error("The layer with digest '{layer}' is needed by the image with digest '{image}'")]
    LayerNeeded { layer: Digest, image: Digest },
    /// The client's body broke off.
    #[error("the request's body broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Storage(BlobError),
    #[error("{0}")]
    Store(CommitError),
    /// Somebody else changed the same rows again and again.
    #[error("the repository is changed by too many requests at once")]
    Contended,
}

impl From<BlobError> for RegistryError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Changed => Self::Upload(UploadRefusal::Changed),
            other => Self::Storage(other),
        }
    }
}

fn list(digests: &[Digest]) -> String {
    let texts: Vec<&str> = digests.iter().map(Digest::as_str).collect();
    texts.join(", ")
}
