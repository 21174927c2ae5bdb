//! Removing what nothing refers to any more.
//!
//! Planning is pure: from a snapshot and the time to the steps that are due. A step's transaction
//! commits only if all it was decided on is unchanged, so a push that comes between wins. Run
//! again at once, it plans nothing, or goes on where a limit or a crash has cut it off.
//!
//! What always holds: a layer goes only when no image of its repository needs it and nobody has
//! wanted it for the grace period; a blob's object goes only when its row has been marked as
//! being collected, from when on nothing links to it.

use std::collections::BTreeSet;

use gantry_env::Timestamp;
use gantry_store::{Snapshot, Transaction, Versioned};

use crate::error::RegistryError;
use crate::layers::Place;
use crate::model::Digest;
use crate::registry_state::{Options, RegistryState};
use crate::tables::{
    BlobRow, BlobState, ContentRow, DeletedRepositoryRow, ImageRow, LayerRow, LifecyclePreviewRow,
    LifecycleRow, PullRow, RepositoryPolicyRow, RepositoryRow, TagRow, global,
};

/// Four operations a layer, and a few for the repository, fit in a transaction.
const LAYERS_AT_ONCE: usize = 20;
/// Images, tags and pulls take one each.
pub(crate) const ROWS_AT_ONCE: usize = 80;

/// One thing that is due.
#[derive(Debug)]
pub struct Step {
    /// The object to remove before the transaction may be committed.
    pub remove_object: Option<String>,
    pub transaction: Transaction,
}

impl Step {
    pub(crate) fn of(transaction: Transaction) -> Self {
        Self {
            remove_object: None,
            transaction,
        }
    }
}

/// Everything that is due, at most one step for each repository and blob.
pub fn plan(snapshot: &Snapshot, now: Timestamp, options: &Options) -> Vec<Step> {
    let mut steps = Vec::new();
    for repository in snapshot.list_everywhere::<RepositoryRow>() {
        // Both write the content's row, so one of them waits for the other's commit.
        let step = crate::expiry::plan(snapshot, now, &repository);
        steps.extend(step.or_else(|| plan_repository(snapshot, now, options, &repository)));
    }
    for deleted in snapshot.list_everywhere::<DeletedRepositoryRow>() {
        steps.push(plan_deleted(snapshot, now, &deleted));
    }
    for blob in snapshot.list_everywhere::<BlobRow>() {
        steps.extend(plan_blob(now, options, &blob));
    }
    steps
}

/// Unlinks layers that no image of the repository needs.
fn plan_repository(
    snapshot: &Snapshot,
    now: Timestamp,
    options: &Options,
    repository: &Versioned<RepositoryRow>,
) -> Option<Step> {
    let (account, region) = (repository.key.account(), repository.key.region());
    let names = format!("{}@", repository.id);
    let layers = snapshot.list_prefix::<LayerRow>(&account, &region, &names);
    let stale = |layer: &LayerRow| now - layer.wanted_at >= options.layer_grace;
    if !layers.iter().any(|layer| stale(layer)) {
        return None;
    }
    let images = snapshot.list_prefix::<ImageRow>(&account, &region, &names);
    let needed: BTreeSet<&Digest> = images
        .iter()
        .flat_map(|image| {
            let blobs = image.manifest.blobs().map(|content| &content.digest);
            blobs.chain([&image.digest])
        })
        .collect();
    let unused = layers
        .iter()
        .filter(|layer| stale(layer) && !needed.contains(&layer.digest));
    let unused: Vec<_> = unused.take(LAYERS_AT_ONCE).collect();
    if unused.is_empty() {
        return None;
    }
    let mut transaction = Transaction::new();
    transaction.expect_read(repository);
    // An image that came between would need what is unlinked here.
    change_content(snapshot, repository, &mut transaction);
    for layer in unused {
        unlink(snapshot, now, layer, &mut transaction);
    }
    Some(Step::of(transaction))
}

/// Makes a transaction conflict with every other that changes the repository's content.
pub(crate) fn change_content(
    snapshot: &Snapshot,
    repository: &Versioned<RepositoryRow>,
    transaction: &mut Transaction,
) {
    let (account, region) = (repository.key.account(), repository.key.region());
    match snapshot.read::<ContentRow>(&account, &region, &repository.id) {
        Some(content) => {
            let next = ContentRow {
                generation: content.generation + 1,
            };
            transaction.update::<ContentRow>(&content, &next);
        }
        None => {
            let first = ContentRow { generation: 1 };
            transaction.create::<ContentRow>(&account, &region, &repository.id, &first);
        }
    }
}

/// Clears what a deleted repository held, and at the end the note that it was deleted.
fn plan_deleted(
    snapshot: &Snapshot,
    now: Timestamp,
    deleted: &Versioned<DeletedRepositoryRow>,
) -> Step {
    let (account, region, id) = (deleted.key.account(), deleted.key.region(), deleted.name());
    let (by_digest, by_tag) = (format!("{id}@"), format!("{id}:"));
    let mut transaction = Transaction::new();
    transaction.expect_read(deleted);

    let layers = snapshot.list_prefix::<LayerRow>(&account, &region, &by_digest);
    if !layers.is_empty() {
        for layer in layers.iter().take(LAYERS_AT_ONCE) {
            unlink(snapshot, now, layer, &mut transaction);
        }
        return Step::of(transaction);
    }
    let images = snapshot.list_prefix::<ImageRow>(&account, &region, &by_digest);
    let pulls = snapshot.list_prefix::<PullRow>(&account, &region, &by_digest);
    let tags = snapshot.list_prefix::<TagRow>(&account, &region, &by_tag);
    let keys: Vec<_> = images
        .iter()
        .map(|row| &row.key)
        .chain(pulls.iter().map(|row| &row.key))
        .chain(tags.iter().map(|row| &row.key))
        .take(ROWS_AT_ONCE)
        .collect();
    if keys.is_empty() {
        transaction.remove::<ContentRow>(&account, &region, id);
        transaction.remove::<LifecycleRow>(&account, &region, id);
        transaction.remove::<LifecyclePreviewRow>(&account, &region, id);
        transaction.remove::<RepositoryPolicyRow>(&account, &region, id);
        transaction.delete(deleted.key.clone());
    }
    for key in keys {
        transaction.delete(key.clone());
    }
    Step::of(transaction)
}

pub(crate) fn unlink(
    snapshot: &Snapshot,
    now: Timestamp,
    layer: &Versioned<LayerRow>,
    transaction: &mut Transaction,
) {
    transaction.expect_read(layer);
    transaction.delete(layer.key.clone());
    let (account, region) = global();
    if let Some(blob) = snapshot.read::<BlobRow>(&account, &region, layer.digest.as_str()) {
        let links = blob.links.saturating_sub(1);
        let state = match links {
            0 => BlobState::Idle { since: now },
            _ => blob.state.clone(),
        };
        let row = BlobRow {
            links,
            state,
            ..BlobRow::clone(&blob.row)
        };
        transaction.update::<BlobRow>(&blob, &row);
    }
}

fn plan_blob(now: Timestamp, options: &Options, blob: &Versioned<BlobRow>) -> Option<Step> {
    let mut transaction = Transaction::new();
    match blob.state {
        BlobState::Idle { since } if now - since >= options.blob_grace => {
            let row = BlobRow {
                state: BlobState::Collecting,
                ..BlobRow::clone(&blob.row)
            };
            transaction.update::<BlobRow>(blob, &row);
            Some(Step::of(transaction))
        }
        BlobState::Collecting => {
            transaction.expect_read(blob).delete(blob.key.clone());
            Some(Step {
                remove_object: Some(blob.object.clone()),
                transaction,
            })
        }
        _ => None,
    }
}

impl RegistryState {
    /// Does everything that is due now. Answers how many steps it took.
    pub async fn collect(&self, now: Timestamp) -> Result<usize, RegistryError> {
        for writer in self
            .uploads
            .take_abandoned(now, self.options.upload_idle_timeout)
        {
            writer.abort().await;
        }
        let mut taken = 0;
        loop {
            let steps = plan(&self.store.snapshot(), now, &self.options);
            let mut committed = 0;
            for step in steps {
                if let Some(object) = &step.remove_object {
                    self.blobs.remove(object).await?;
                }
                // What conflicts has changed, and is looked at again the next time.
                committed += usize::from(self.commit(step.transaction).await?);
            }
            taken += committed;
            if committed == 0 {
                return Ok(taken);
            }
        }
    }

    /// Whether a repository holds any image.
    pub fn has_images(&self, snapshot: &Snapshot, place: &Place, repository: &str) -> bool {
        !self.images(snapshot, place, repository).is_empty()
    }
}
