//! Repositories: create, describe, delete, tag mutability.

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecr::{
    CreateRepositoryRequest, CreateRepositoryResponse, DeleteRepositoryRequest,
    DeleteRepositoryResponse, DescribeRepositoriesRequest, DescribeRepositoriesResponse, EcrError,
    EncryptionConfiguration, EncryptionType, ImageScanningConfiguration, ImageTagMutability,
    ImageTagMutabilityExclusionFilter, ImageTagMutabilityExclusionFilterType,
    PutImageTagMutabilityRequest, PutImageTagMutabilityResponse, Repository,
};
use gantry_store::Transaction;

use super::tags::checked_tags;
use super::{Found, invalid_token, not_built, page_limit, repository_name};
use crate::EcrService;
use crate::error::RegistryError;
use crate::layers::Place;
use crate::model::immutability::TagMutability;
use crate::model::page::Pages;
use crate::registry_state::RegistryState;
use crate::tables::{DeletedRepositoryRow, RepositoryRow};

impl EcrService {
    pub(super) async fn create(
        &self,
        ctx: &RequestContext,
        input: CreateRepositoryRequest,
    ) -> Result<CreateRepositoryResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let place = Self::place(ctx, registry, "CreateRepository", &input.repository_name)?;
        let name = repository_name(&input.repository_name)?;
        let mutability = mutability(
            input
                .image_tag_mutability
                .unwrap_or(ImageTagMutability::Mutable),
            input.image_tag_mutability_exclusion_filters,
        )?;
        let encryption = input
            .encryption_configuration
            .unwrap_or(EncryptionConfiguration {
                encryption_type: EncryptionType::Aes256,
                kms_key: None,
            });
        check_encryption(&encryption.encryption_type, encryption.kms_key.as_deref())?;
        let row = RepositoryRow {
            id: hex::encode(self.state.env.entropy.bytes16()),
            name: name.clone(),
            created_at: ctx.now,
            mutability,
            scanning: ImageScanningConfiguration {
                scan_on_push: Some(
                    input
                        .image_scanning_configuration
                        .and_then(|scanning| scanning.scan_on_push)
                        .unwrap_or(false),
                ),
            },
            encryption,
            tags: checked_tags(BTreeMap::new(), input.tags.unwrap_or_default())?,
        };
        let mut transaction = Transaction::new();
        transaction.create::<RepositoryRow>(&place.account, &place.region, name.as_str(), &row);
        // The only expectation is that the name is free.
        if !self.state.commit(transaction).await? {
            return Err(EcrError::repository_already_exists_exception(format!(
                "The repository with name '{name}' already exists in the registry with id '{}'",
                place.account
            )));
        }
        Ok(CreateRepositoryResponse {
            repository: Some(described(ctx, &place, &row)),
        })
    }

    pub(super) fn describe(
        &self,
        ctx: &RequestContext,
        input: DescribeRepositoriesRequest,
    ) -> Result<DescribeRepositoriesResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        if let Some(names) = input.repository_names.filter(|names| !names.is_empty()) {
            if input.next_token.is_some() || input.max_results.is_some() {
                return Err(EcrError::invalid_parameter_exception(
                    "Invalid parameter at 'repositoryNames' failed to satisfy constraint: 'repositoryNames cannot be specified together with nextToken or maxResults'",
                ));
            }
            let repositories = names.iter().map(|name| {
                let found = self.find(ctx, registry, "DescribeRepositories", name)?;
                Ok(described(ctx, &found.place, &found.repository))
            });
            let repositories = repositories.collect::<Result<_, EcrError>>()?;
            return Ok(DescribeRepositoriesResponse {
                repositories: Some(repositories),
                next_token: None,
            });
        }
        let place = Self::place(ctx, registry, "DescribeRepositories", "*")?;
        let rows = self
            .state
            .store
            .snapshot()
            .list::<RepositoryRow>(&place.account, &place.region);
        let pages = Pages {
            key: &self.token_key,
            list: format!("DescribeRepositories {} {}", place.account, place.region),
        };
        let limit = page_limit(input.max_results);
        let (page, next_token) = pages
            .page(
                rows.into_iter(),
                |row| row.name.as_str().to_owned(),
                limit,
                input.next_token.as_deref(),
            )
            .map_err(|_| invalid_token())?;
        let repositories = page.iter().map(|row| described(ctx, &place, row)).collect();
        Ok(DescribeRepositoriesResponse {
            repositories: Some(repositories),
            next_token,
        })
    }

    pub(super) async fn delete(
        &self,
        ctx: &RequestContext,
        input: DeleteRepositoryRequest,
    ) -> Result<DeleteRepositoryResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        for _ in 0..RegistryState::TRIES {
            let Found {
                place,
                name,
                snapshot,
                repository,
            } = self.find(ctx, registry, "DeleteRepository", &input.repository_name)?;
            if input.force != Some(true) && self.state.has_images(&snapshot, &place, &repository.id)
            {
                return Err(EcrError::repository_not_empty_exception(format!(
                    "The repository with name '{name}' in registry with id '{}' cannot be deleted because it still contains images",
                    place.account
                )));
            }
            // Written as changed content, so that an image that is pushed right now conflicts.
            let mut transaction = self.state.changing(&snapshot, &repository);
            transaction.delete(repository.key.clone());
            let deleted = DeletedRepositoryRow {
                deleted_at: ctx.now,
            };
            transaction.write::<DeletedRepositoryRow>(
                &place.account,
                &place.region,
                &repository.id,
                &deleted,
            );
            if self.state.commit(transaction).await? {
                self.wake_collection();
                let repository = Some(described(ctx, &place, &repository));
                return Ok(DeleteRepositoryResponse { repository });
            }
        }
        Err(RegistryError::Contended.into())
    }

    pub(super) async fn put_mutability(
        &self,
        ctx: &RequestContext,
        input: PutImageTagMutabilityRequest,
    ) -> Result<PutImageTagMutabilityResponse, EcrError> {
        let mutability = mutability(
            input.image_tag_mutability,
            input.image_tag_mutability_exclusion_filters,
        )?;
        let registry = input.registry_id.as_deref();
        for _ in 0..RegistryState::TRIES {
            let found = self.find(
                ctx,
                registry,
                "PutImageTagMutability",
                &input.repository_name,
            )?;
            let row = RepositoryRow {
                mutability: mutability.clone(),
                ..RepositoryRow::clone(&found.repository.row)
            };
            let mut transaction = Transaction::new();
            transaction.update::<RepositoryRow>(&found.repository, &row);
            if self.state.commit(transaction).await? {
                let (image_tag_mutability, filters) = wire_mutability(&row.mutability);
                return Ok(PutImageTagMutabilityResponse {
                    image_tag_mutability: Some(image_tag_mutability),
                    image_tag_mutability_exclusion_filters: filters,
                    registry_id: Some(found.place.account.to_string()),
                    repository_name: Some(found.name.to_string()),
                });
            }
        }
        Err(RegistryError::Contended.into())
    }
}

fn described(ctx: &RequestContext, place: &Place, row: &RepositoryRow) -> Repository {
    let (image_tag_mutability, filters) = wire_mutability(&row.mutability);
    Repository {
        created_at: Some(row.created_at),
        encryption_configuration: Some(row.encryption.clone()),
        image_scanning_configuration: Some(row.scanning.clone()),
        image_tag_mutability: Some(image_tag_mutability),
        image_tag_mutability_exclusion_filters: filters,
        registry_id: Some(place.account.to_string()),
        repository_arn: Some(EcrService::arn(place, &row.name)),
        repository_name: Some(row.name.to_string()),
        repository_uri: Some(format!("{}/{}", EcrService::host(ctx), row.name)),
    }
}

/// Whether this is how layers are kept here. A key of KMS would have to encrypt them.
pub(super) fn check_encryption(
    encryption_type: &EncryptionType,
    key: Option<&str>,
) -> Result<(), EcrError> {
    match (encryption_type, key) {
        (EncryptionType::Aes256, None) => Ok(()),
        (EncryptionType::Aes256, Some(_)) => Err(EcrError::invalid_parameter_exception(
            "Invalid parameter at 'encryptionConfiguration' failed to satisfy constraint: 'kmsKey does not go with encryptionType AES256'",
        )),
        (other, _) => Err(not_built(&format!(
            "encryptionType {} of ecr, for which there are no keys,",
            other.as_str()
        ))),
    }
}

pub(super) fn mutability(
    setting: ImageTagMutability,
    filters: Option<Vec<ImageTagMutabilityExclusionFilter>>,
) -> Result<TagMutability, EcrError> {
    let invalid = |message: String| {
        Err(EcrError::invalid_parameter_exception(format!(
            "Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: '{message}'"
        )))
    };
    let filters: Vec<String> = filters
        .unwrap_or_default()
        .into_iter()
        .map(|filter| filter.filter)
        .collect();
    if let Some(filter) = filters
        .iter()
        .find(|filter| filter.matches('*').count() > 2)
    {
        return invalid(format!("the filter {filter} has more than 2 wildcards"));
    }
    match (setting, filters.is_empty()) {
        (ImageTagMutability::Mutable, true) => Ok(TagMutability::Mutable),
        (ImageTagMutability::Immutable, true) => Ok(TagMutability::Immutable),
        (ImageTagMutability::MutableWithExclusion, false) => {
            Ok(TagMutability::MutableExcept(filters))
        }
        (ImageTagMutability::ImmutableWithExclusion, false) => {
            Ok(TagMutability::ImmutableExcept(filters))
        }
        (ImageTagMutability::Unknown(setting), _) => {
            Err(EcrError::invalid_parameter_exception(format!(
                "Invalid parameter at 'imageTagMutability' failed to satisfy constraint: '{setting} is not a member of [MUTABLE, IMMUTABLE, IMMUTABLE_WITH_EXCLUSION, MUTABLE_WITH_EXCLUSION]'"
            )))
        }
        (setting, true) => invalid(format!("filters are required with {}", setting.as_str())),
        (setting, false) => invalid(format!("filters are not allowed with {}", setting.as_str())),
    }
}

type WireMutability = (
    ImageTagMutability,
    Option<Vec<ImageTagMutabilityExclusionFilter>>,
);

fn wire_mutability(mutability: &TagMutability) -> WireMutability {
    let wire = |filters: &[String]| {
        let filter = |filter: &String| ImageTagMutabilityExclusionFilter {
            filter: filter.clone(),
            filter_type: ImageTagMutabilityExclusionFilterType::Wildcard,
        };
        Some(filters.iter().map(filter).collect())
    };
    match mutability {
        TagMutability::Mutable => (ImageTagMutability::Mutable, None),
        TagMutability::Immutable => (ImageTagMutability::Immutable, None),
        TagMutability::MutableExcept(f) => (ImageTagMutability::MutableWithExclusion, wire(f)),
        TagMutability::ImmutableExcept(f) => (ImageTagMutability::ImmutableWithExclusion, wire(f)),
    }
}
