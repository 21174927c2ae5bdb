//! Repositories, images and the OCI registry.
//!
//! The ECR API (`api`) and the distribution API (`registry`) are two wires of one registry:
//! both work on the same rows and blobs.
//!
//! What always holds:
//! - What is stored under a digest has that digest; it was verified while it streamed in.
//! - A blob is stored once, whichever repositories, accounts and regions have it, and is read
//!   only through a repository that has a layer row for it.
//! - An image's layers are there in the commit that makes it, and stay as long as it does.
//! - An upload that breaks off, times out or dies with its process leaves nothing.
//!
//! - A lifecycle policy never takes an image that an index still needs.
//!
//! What it deliberately does not do: evaluate the policies of repositories and registries (they
//! are kept, and another account's registry is closed), encrypt with KMS (refused by name), scan (its
//! settings are kept and returned), convert between media types, archive, replicate.

#![forbid(unsafe_code)]

mod api;
mod blobs;
mod collection;
mod creation;
mod error;
mod expiry;
mod images;
mod layers;
pub mod model;
mod pieces;
mod registry;
mod registry_state;
pub mod tables;
mod uploads;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use gantry_env::Env;
use gantry_store::{CommitError, RowError, Snapshot, Store, Transaction};
use tokio::sync::Notify;

pub use blobs::BlobError;
pub use collection::{Step, plan};
pub use error::RegistryError;
pub use registry::Registry;
pub use registry_state::Options;

use blobs::BlobStore;
use model::token::TokenKey;
use registry_state::RegistryState;
use tables::{
    AccountSettingRow, BlobRow, ContentRow, CreationTemplateRow, DeletedRepositoryRow, ImageRow,
    LayerRow, LifecyclePreviewRow, LifecycleRow, PullRow, RegistryPolicyRow, RegistryScanningRow,
    RepositoryPolicyRow, RepositoryRow, TagRow, TokenKeyRow, global,
};
use uploads::Uploads;

/// Why the registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error("the registry's key cannot be stored: {0}")]
    Store(#[from] CommitError),
    #[error("the row of the registry's key does not hold a key")]
    Key,
}

/// The registry of every account and region of one installation.
pub struct EcrService {
    pub(crate) state: RegistryState,
    pub(crate) token_key: TokenKey,
    collect_now: Notify,
}

impl EcrService {
    /// Opens the registry on a store and a directory that belongs to it alone, and clears what
    /// unfinished uploads left in the directory.
    pub async fn new(
        store: Arc<dyn Store>,
        blobs_directory: &Path,
        env: Env,
        options: Options,
    ) -> Result<Arc<Self>, OpenError> {
        let snapshot = store.snapshot();
        check(&snapshot)?;
        let token_key = token_key(&*store, &env).await?;
        let blobs = snapshot.list_everywhere::<BlobRow>();
        let known: BTreeSet<String> = blobs.iter().map(|blob| blob.object.clone()).collect();
        let blobs = BlobStore::open(blobs_directory, &known)?;
        let uploads = Uploads::new(options.uploads_open_max, env.clone());
        let state = RegistryState {
            store,
            blobs,
            uploads,
            env,
            options,
        };
        Ok(Arc::new(Self {
            state,
            token_key,
            collect_now: Notify::new(),
        }))
    }

    /// The distribution API, to be served under `/v2/`.
    pub fn registry(self: &Arc<Self>) -> Arc<Registry> {
        Arc::new(Registry {
            service: self.clone(),
        })
    }

    /// Removes what nothing refers to, now and from time to time. Runs until it is dropped,
    /// which it may be at any moment.
    pub async fn run_collection(self: Arc<Self>) {
        loop {
            if let Err(error) = self.collect().await {
                tracing::warn!(%error, "collecting what is unreferenced failed; it is tried again");
            }
            let pause = self.state.env.sleep(self.state.options.collection_interval);
            tokio::select! {
                () = pause => {}
                () = self.collect_now.notified() => {}
            }
        }
    }

    /// Removes what nothing refers to, once. Answers how many steps that took.
    pub async fn collect(&self) -> Result<usize, RegistryError> {
        self.state.collect(self.state.env.now()).await
    }

    /// How many uploads are open.
    pub fn open_uploads(&self) -> usize {
        self.state.uploads.open()
    }

    pub(crate) fn wake_collection(&self) {
        self.collect_now.notify_one();
    }
}

/// A store from a newer Gantry is refused in words, before anything is served.
fn check(snapshot: &Snapshot) -> Result<(), RowError> {
    snapshot.check::<RepositoryRow>()?;
    snapshot.check::<ContentRow>()?;
    snapshot.check::<LayerRow>()?;
    snapshot.check::<ImageRow>()?;
    snapshot.check::<TagRow>()?;
    snapshot.check::<PullRow>()?;
    snapshot.check::<DeletedRepositoryRow>()?;
    snapshot.check::<BlobRow>()?;
    snapshot.check::<LifecycleRow>()?;
    snapshot.check::<LifecyclePreviewRow>()?;
    snapshot.check::<RepositoryPolicyRow>()?;
    snapshot.check::<RegistryPolicyRow>()?;
    snapshot.check::<RegistryScanningRow>()?;
    snapshot.check::<AccountSettingRow>()?;
    snapshot.check::<CreationTemplateRow>()?;
    snapshot.check::<TokenKeyRow>()
}

/// The key of passwords and pagination tokens: the stored one, or a new one.
async fn token_key(store: &dyn Store, env: &Env) -> Result<TokenKey, OpenError> {
    let (account, region) = global();
    loop {
        let snapshot = store.snapshot();
        if let Some(row) = snapshot.read::<TokenKeyRow>(&account, &region, TokenKeyRow::NAME) {
            let bytes = hex::decode(&row.row.key).map_err(|_| OpenError::Key)?;
            return bytes.try_into().map_err(|_| OpenError::Key);
        }
        let mut key: TokenKey = [0; 64];
        env.entropy.fill(&mut key);
        let mut transaction = Transaction::new();
        let row = TokenKeyRow {
            key: hex::encode(key),
        };
        transaction.create::<TokenKeyRow>(&account, &region, TokenKeyRow::NAME, &row);
        match store.commit(transaction).await {
            Ok(_) => return Ok(key),
            // Another replica was first; its key is read then.
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
}
