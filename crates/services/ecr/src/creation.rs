//! Repositories that a push makes, from the template that fits their name best.
//!
//! What always holds: a template's settings reach a repository in the commit that makes it, and a
//! template that changes later changes no repository.

use gantry_api::ecr::{
    EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, RCTAppliedFor,
};
use gantry_arn::RepositoryName;
use gantry_env::Timestamp;
use gantry_store::{Snapshot, Transaction, Versioned};

use crate::error::RegistryError;
use crate::layers::Place;
use crate::registry_state::RegistryState;
use crate::tables::{CreationTemplateRow, LifecycleRow, RepositoryPolicyRow, RepositoryRow};

/// The prefix of the template for what no other fits.
pub const ROOT: &str = "ROOT";

impl RegistryState {
    /// Makes a repository that does not exist, if a template says that a push may.
    pub async fn create_on_push(
        &self,
        place: &Place,
        name: &RepositoryName,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        for _ in 0..Self::TRIES {
            let snapshot = self.store.snapshot();
            if self.repository(&snapshot, place, name).is_ok() {
                return Ok(());
            }
            let Some(template) = template_of(&snapshot, place, name) else {
                // The push itself says that there is no such repository.
                return Ok(());
            };
            let id = hex::encode(self.env.entropy.bytes16());
            if self
                .commit(made_from(&template, place, name, id, now))
                .await?
            {
                tracing::info!(repository = %name, "a push made a repository from a template");
                return Ok(());
            }
        }
        Err(RegistryError::Contended)
    }
}

/// The template with the longest prefix of those that pushes make repositories from.
fn template_of(
    snapshot: &Snapshot,
    place: &Place,
    name: &RepositoryName,
) -> Option<Versioned<CreationTemplateRow>> {
    let read = |prefix: &str| {
        let row = snapshot.read::<CreationTemplateRow>(&place.account, &place.region, prefix)?;
        let applied_for = row.template.applied_for.as_deref().unwrap_or_default();
        applied_for
            .contains(&RCTAppliedFor::CreateOnPush)
            .then_some(row)
    };
    let name = name.as_str();
    let slashes = name.rmatch_indices('/').map(|(at, _)| at);
    let mut prefixes = slashes.map(|at| &name[..at]).chain([ROOT]);
    prefixes.find_map(read)
}

fn made_from(
    row: &Versioned<CreationTemplateRow>,
    place: &Place,
    name: &RepositoryName,
    id: String,
    now: Timestamp,
) -> Transaction {
    let template = &row.template;
    let (account, region) = (&place.account, &place.region);
    let encryption = template.encryption_configuration.as_ref();
    let repository = RepositoryRow {
        id: id.clone(),
        name: name.clone(),
        created_at: now,
        mutability: row.mutability.clone(),
        scanning: ImageScanningConfiguration {
            scan_on_push: Some(false),
        },
        encryption: EncryptionConfiguration {
            encryption_type: encryption
                .map_or(EncryptionType::Aes256, |it| it.encryption_type.clone()),
            kms_key: encryption.and_then(|it| it.kms_key.clone()),
        },
        tags: row.tags.clone(),
    };
    let mut transaction = Transaction::new();
    transaction.expect_read(row);
    transaction.create::<RepositoryRow>(account, region, name.as_str(), &repository);
    if let Some(text) = template
        .lifecycle_policy
        .clone()
        .filter(|text| !text.is_empty())
    {
        let policy = LifecycleRow {
            text,
            evaluated_at: None,
            unfinished: None,
        };
        transaction.create::<LifecycleRow>(account, region, &id, &policy);
    }
    if let Some(text) = template
        .repository_policy
        .clone()
        .filter(|text| !text.is_empty())
    {
        let policy = RepositoryPolicyRow { text };
        transaction.create::<RepositoryPolicyRow>(account, region, &id, &policy);
    }
    transaction
}
