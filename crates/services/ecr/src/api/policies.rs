//! The policies of repositories and of the registry: kept and returned as they were given.

use gantry_api::RequestContext;
use gantry_api::ecr::{
    DeleteRegistryPolicyRequest, DeleteRegistryPolicyResponse, DeleteRepositoryPolicyRequest,
    DeleteRepositoryPolicyResponse, EcrError, GetRegistryPolicyRequest, GetRegistryPolicyResponse,
    GetRepositoryPolicyRequest, GetRepositoryPolicyResponse, PutRegistryPolicyRequest,
    PutRegistryPolicyResponse, SetRepositoryPolicyRequest, SetRepositoryPolicyResponse,
};
use gantry_store::{Transaction, Versioned};

use super::Found;
use crate::EcrService;
use crate::error::RegistryError;
use crate::layers::Place;
use crate::model::policy;
use crate::registry_state::RegistryState;
use crate::tables::{ONLY, RegistryPolicyRow, RepositoryPolicyRow};

impl EcrService {
    pub(super) async fn set_policy(
        &self,
        ctx: &RequestContext,
        input: SetRepositoryPolicyRequest,
    ) -> Result<SetRepositoryPolicyResponse, EcrError> {
        checked(&input.policy_text, "repository")?;
        let row = RepositoryPolicyRow {
            text: input.policy_text,
        };
        let registry = input.registry_id.as_deref();
        let name = &input.repository_name;
        let (found, ()) = self
            .change_beside(
                ctx,
                registry,
                "SetRepositoryPolicy",
                name,
                |found, transaction| {
                    let (account, region) = (&found.place.account, &found.place.region);
                    let id = &found.repository.id;
                    transaction.write::<RepositoryPolicyRow>(account, region, id, &row);
                    Ok(())
                },
            )
            .await?;
        Ok(SetRepositoryPolicyResponse {
            policy_text: Some(row.text),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
        })
    }

    pub(super) fn get_policy(
        &self,
        ctx: &RequestContext,
        input: GetRepositoryPolicyRequest,
    ) -> Result<GetRepositoryPolicyResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "GetRepositoryPolicy", &input.repository_name)?;
        let row = policy_of(&found)?;
        Ok(GetRepositoryPolicyResponse {
            policy_text: Some(row.text.clone()),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
        })
    }

    pub(super) async fn delete_policy(
        &self,
        ctx: &RequestContext,
        input: DeleteRepositoryPolicyRequest,
    ) -> Result<DeleteRepositoryPolicyResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let name = &input.repository_name;
        let (found, row) = self
            .change_beside(
                ctx,
                registry,
                "DeleteRepositoryPolicy",
                name,
                |found, transaction| {
                    let row = policy_of(found)?;
                    transaction.expect_read(&row).delete(row.key.clone());
                    Ok(row)
                },
            )
            .await?;
        Ok(DeleteRepositoryPolicyResponse {
            policy_text: Some(row.text.clone()),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
        })
    }

    pub(super) async fn keep_registry_policy(
        &self,
        ctx: &RequestContext,
        input: PutRegistryPolicyRequest,
    ) -> Result<PutRegistryPolicyResponse, EcrError> {
        checked(&input.policy_text, "registry")?;
        let place = Self::place(ctx, None, "PutRegistryPolicy", "*")?;
        let row = RegistryPolicyRow {
            text: input.policy_text,
        };
        let mut transaction = Transaction::new();
        transaction.write::<RegistryPolicyRow>(&place.account, &place.region, ONLY, &row);
        self.state.commit(transaction).await?;
        Ok(PutRegistryPolicyResponse {
            policy_text: Some(row.text),
            registry_id: Some(place.account.to_string()),
        })
    }

    pub(super) fn kept_registry_policy(
        &self,
        ctx: &RequestContext,
        _: GetRegistryPolicyRequest,
    ) -> Result<GetRegistryPolicyResponse, EcrError> {
        let place = Self::place(ctx, None, "GetRegistryPolicy", "*")?;
        let row = self.registry_policy(&place)?;
        Ok(GetRegistryPolicyResponse {
            policy_text: Some(row.text.clone()),
            registry_id: Some(place.account.to_string()),
        })
    }

    pub(super) async fn drop_registry_policy(
        &self,
        ctx: &RequestContext,
        _: DeleteRegistryPolicyRequest,
    ) -> Result<DeleteRegistryPolicyResponse, EcrError> {
        let place = Self::place(ctx, None, "DeleteRegistryPolicy", "*")?;
        for _ in 0..RegistryState::TRIES {
            let row = self.registry_policy(&place)?;
            let mut transaction = Transaction::new();
            transaction.expect_read(&row).delete(row.key.clone());
            if self.state.commit(transaction).await? {
                return Ok(DeleteRegistryPolicyResponse {
                    policy_text: Some(row.text.clone()),
                    registry_id: Some(place.account.to_string()),
                });
            }
        }
        Err(RegistryError::Contended.into())
    }

    fn registry_policy(&self, place: &Place) -> Result<Versioned<RegistryPolicyRow>, EcrError> {
        let snapshot = self.state.store.snapshot();
        snapshot
            .read::<RegistryPolicyRow>(&place.account, &place.region, ONLY)
            .ok_or_else(|| {
                EcrError::registry_policy_not_found_exception(format!(
                    "Registry policy does not exist in the registry with id '{}'",
                    place.account
                ))
            })
    }
}

pub(super) fn checked(text: &str, of: &str) -> Result<(), EcrError> {
    policy::check(text).map_err(|error| {
        EcrError::invalid_parameter_exception(format!(
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid {of} policy provided: {error}'"
        ))
    })
}

fn policy_of(found: &Found) -> Result<Versioned<RepositoryPolicyRow>, EcrError> {
    let (account, region) = (&found.place.account, &found.place.region);
    found
        .snapshot
        .read::<RepositoryPolicyRow>(account, region, &found.repository.id)
        .ok_or_else(|| {
            EcrError::repository_policy_not_found_exception(format!(
                "Repository policy does not exist for the repository with name '{}' in the registry with id '{account}'",
                found.name
            ))
        })
}
