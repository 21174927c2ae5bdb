//! The rows of the registry.
//!
//! What always holds:
//! - A repository's content (layers, images, tags, pulls) is named by the repository's id, which
//!   is drawn when it is created. So deleting a repository is deleting one row; what it held can
//!   be cleared later and never shows up in a new repository of the same name.
//! - [`BlobRow::links`] is the number of [`LayerRow`]s of that digest: every transaction that
//!   makes or removes one writes the other.
//! - Every transaction that adds or removes an image, moves a tag or removes a layer writes the
//!   repository's [`ContentRow`], so two of them that would not fit together conflict.
//!
//! None of these rows is published to other services.

use std::collections::BTreeMap;

use gantry_api::ecr::{
    EncryptionConfiguration, ImageScanningConfiguration, RegistryScanningRule,
    RepositoryCreationTemplate,
};
use gantry_arn::{AccountId, Region, RepositoryName};
use gantry_env::Timestamp;
use gantry_store::Table;
use serde::{Deserialize, Serialize};

use crate::model::immutability::TagMutability;
use crate::model::manifest::Manifest;
use crate::model::{Digest, ImageTag};

const SERVICE: &str = "ecr";

macro_rules! table {
    ($row:ty, $kind:literal) => {
        impl Table for $row {
            type Row = Self;
            const SERVICE: &'static str = SERVICE;
            const KIND: &'static str = $kind;
            const SCHEMA: u16 = 1;
        }
    };
}

/// What names a repository's content: 32 hex digits.
pub type RepositoryId = String;

/// A repository, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepositoryRow {
    pub id: RepositoryId,
    pub name: RepositoryName,
    pub created_at: Timestamp,
    pub mutability: TagMutability,
    pub scanning: ImageScanningConfiguration,
    pub encryption: EncryptionConfiguration,
    pub tags: BTreeMap<String, String>,
}
table!(RepositoryRow, "repository");

/// One a repository, by its id: how often its content has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRow {
    pub generation: u64,
}
table!(ContentRow, "content");

/// Bytes that a repository may hand out, by `id@digest`. Manifests have one as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRow {
    pub digest: Digest,
    pub size: u64,
    /// When it was last uploaded, mounted or found to be there by somebody about to push. Until
    /// a grace period after it, the layer is kept without an image.
    pub wanted_at: Timestamp,
}
table!(LayerRow, "layer");

/// An image or a list of images, by `id@digest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRow {
    pub digest: Digest,
    pub manifest: Manifest,
    /// Of the manifest's own bytes.
    pub manifest_size: u64,
    pub pushed_at: Timestamp,
}
table!(ImageRow, "image");

/// A tag, by `id:tag`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRow {
    pub tag: ImageTag,
    pub digest: Digest,
}
table!(TagRow, "tag");

/// When an image was last pulled, by `id@digest`. Written at most once in a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRow {
    pub at: Timestamp,
}
table!(PullRow, "pull");

/// A repository that is deleted and whose content is not yet, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedRepositoryRow {
    pub deleted_at: Timestamp,
}
table!(DeletedRepositoryRow, "deleted-repository");

/// A repository's lifecycle policy, by the repository's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleRow {
    pub text: String,
    /// When it was last applied to the images. Written when it expires some, and otherwise about
    /// once a day.
    pub evaluated_at: Option<Timestamp>,
    /// An expired image with more tags than one transaction removes. It goes on being removed,
    /// whatever the rules would say of the tags that are left.
    #[serde(default)]
    pub unfinished: Option<Digest>,
}
table!(LifecycleRow, "lifecycle-policy");

/// The last preview of a lifecycle policy, by the repository's id. What it would expire follows
/// from the images, so only the question is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecyclePreviewRow {
    pub text: String,
    pub started_at: Timestamp,
}
table!(LifecyclePreviewRow, "lifecycle-preview");

/// A repository's policy, by the repository's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryPolicyRow {
    pub text: String,
}
table!(RepositoryPolicyRow, "repository-policy");

/// A registry's policy: at most one in each account and region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryPolicyRow {
    pub text: String,
}
table!(RegistryPolicyRow, "registry-policy");

/// When a registry's images are to be scanned: at most one in each account and region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegistryScanningRow {
    pub rules: Vec<RegistryScanningRule>,
}
table!(RegistryScanningRow, "registry-scanning");

/// A setting of an account, by its name. One that is not there has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSettingRow {
    pub value: String,
}
table!(AccountSettingRow, "account-setting");

/// What repositories are made like that a push makes, by the prefix without a slash at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreationTemplateRow {
    pub template: RepositoryCreationTemplate,
    /// What the template's two members about tags mean together.
    pub mutability: TagMutability,
    pub tags: BTreeMap<String, String>,
}
table!(CreationTemplateRow, "creation-template");

/// The name of a row of which a registry has one.
pub const ONLY: &str = "current";

/// Bytes that are stored once for all repositories of all accounts, by digest, in the global
/// place. Nobody reads one but through a [`LayerRow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// The object that holds the bytes. Each upload writes an object of its own name, so that
    /// removing one never touches bytes that were just uploaded again.
    pub object: String,
    pub size: u64,
    pub links: u64,
    pub state: BlobState,
}
table!(BlobRow, "blob");

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobState {
    Stored,
    /// Without links since then.
    Idle {
        since: Timestamp,
    },
    /// The object is being removed and must not be linked to any more.
    Collecting,
}

/// The key of the registry's passwords: one row, in the global place.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeyRow {
    /// 64 bytes in hex.
    pub key: String,
}
table!(TokenKeyRow, "token-key");

impl TokenKeyRow {
    pub const NAME: &'static str = "current";
}

/// Kept out of logs.
impl std::fmt::Debug for TokenKeyRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKeyRow")
    }
}

/// Where rows stand that belong to no account.
pub fn global() -> (AccountId, Region) {
    (AccountId::default(), Region::global())
}

/// The name of a layer's, image's or pull's row.
pub fn content_name(repository: &str, digest: &Digest) -> String {
    format!("{repository}@{digest}")
}

/// The name of a tag's row.
pub fn tag_name(repository: &str, tag: &ImageTag) -> String {
    format!("{repository}:{tag}")
}
