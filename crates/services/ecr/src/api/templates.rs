//! Repository creation templates. A push makes repositories from them (`creation`).

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecr::{
    CreateRepositoryCreationTemplateRequest, CreateRepositoryCreationTemplateResponse,
    DeleteRepositoryCreationTemplateRequest, DeleteRepositoryCreationTemplateResponse,
    DescribeRepositoryCreationTemplatesRequest, DescribeRepositoryCreationTemplatesResponse,
    EcrError, ImageTagMutability, RepositoryCreationTemplate,
    UpdateRepositoryCreationTemplateRequest, UpdateRepositoryCreationTemplateResponse,
};
use gantry_store::{Transaction, Versioned};

use super::repositories::{check_encryption, mutability};
use super::tags::checked_tags;
use super::{invalid_token, lifecycle, page_limit, policies};
use crate::EcrService;
use crate::error::RegistryError;
use crate::layers::Place;
use crate::model::page::Pages;
use crate::registry_state::RegistryState;
use crate::tables::CreationTemplateRow;

impl EcrService {
    pub(super) async fn create_template(
        &self,
        ctx: &RequestContext,
        input: CreateRepositoryCreationTemplateRequest,
    ) -> Result<CreateRepositoryCreationTemplateResponse, EcrError> {
        let place = Self::place(ctx, None, "CreateRepositoryCreationTemplate", "*")?;
        let row = checked(RepositoryCreationTemplate {
            applied_for: Some(input.applied_for),
            created_at: Some(ctx.now),
            custom_role_arn: input.custom_role_arn,
            description: input.description,
            encryption_configuration: input.encryption_configuration,
            image_tag_mutability: input.image_tag_mutability,
            image_tag_mutability_exclusion_filters: input.image_tag_mutability_exclusion_filters,
            lifecycle_policy: input.lifecycle_policy,
            prefix: Some(input.prefix.clone()),
            repository_policy: input.repository_policy,
            resource_tags: input.resource_tags,
            updated_at: Some(ctx.now),
        })?;
        let mut transaction = Transaction::new();
        let name = row_name(&input.prefix);
        transaction.create::<CreationTemplateRow>(&place.account, &place.region, name, &row);
        // The only expectation is that the prefix is free.
        if !self.state.commit(transaction).await? {
            return Err(EcrError::template_already_exists_exception(format!(
                "A repository creation template with prefix '{}' already exists in the registry with id '{}'",
                input.prefix, place.account
            )));
        }
        Ok(CreateRepositoryCreationTemplateResponse {
            registry_id: Some(place.account.to_string()),
            repository_creation_template: Some(row.template),
        })
    }

    pub(super) fn describe_templates(
        &self,
        ctx: &RequestContext,
        input: DescribeRepositoryCreationTemplatesRequest,
    ) -> Result<DescribeRepositoryCreationTemplatesResponse, EcrError> {
        let place = Self::place(ctx, None, "DescribeRepositoryCreationTemplates", "*")?;
        let registry_id = Some(place.account.to_string());
        if let Some(prefixes) = input.prefixes.filter(|prefixes| !prefixes.is_empty()) {
            if input.next_token.is_some() || input.max_results.is_some() {
                return Err(EcrError::invalid_parameter_exception(
                    "Invalid parameter at 'prefixes' failed to satisfy constraint: 'prefixes cannot be specified together with nextToken or maxResults'",
                ));
            }
            let found = prefixes
                .iter()
                .map(|prefix| Ok(self.template(&place, prefix)?.template.clone()));
            return Ok(DescribeRepositoryCreationTemplatesResponse {
                next_token: None,
                registry_id,
                repository_creation_templates: Some(found.collect::<Result<_, EcrError>>()?),
            });
        }
        let snapshot = self.state.store.snapshot();
        let rows = snapshot.list::<CreationTemplateRow>(&place.account, &place.region);
        let pages = Pages {
            key: &self.token_key,
            list: format!(
                "DescribeRepositoryCreationTemplates {} {}",
                place.account, place.region
            ),
        };
        let limit = page_limit(input.max_results);
        let (page, next_token) = pages
            .page(
                rows.into_iter(),
                |row| row.name().to_owned(),
                limit,
                input.next_token.as_deref(),
            )
            .map_err(|_| invalid_token())?;
        let templates = page.iter().map(|row| row.template.clone()).collect();
        Ok(DescribeRepositoryCreationTemplatesResponse {
            next_token,
            registry_id,
            repository_creation_templates: Some(templates),
        })
    }

    /// Changes what the request has a member for.
    pub(super) async fn update_template(
        &self,
        ctx: &RequestContext,
        input: UpdateRepositoryCreationTemplateRequest,
    ) -> Result<UpdateRepositoryCreationTemplateResponse, EcrError> {
        let place = Self::place(ctx, None, "UpdateRepositoryCreationTemplate", "*")?;
        for _ in 0..RegistryState::TRIES {
            let before = self.template(&place, &input.prefix)?;
            let old = before.template.clone();
            let new = input.clone();
            // Filters belong to the setting that they came with.
            let filters = match new.image_tag_mutability {
                Some(_) => new.image_tag_mutability_exclusion_filters,
                None => new
                    .image_tag_mutability_exclusion_filters
                    .or(old.image_tag_mutability_exclusion_filters),
            };
            let row = checked(RepositoryCreationTemplate {
                applied_for: new.applied_for.or(old.applied_for),
                created_at: old.created_at,
                custom_role_arn: new.custom_role_arn.or(old.custom_role_arn),
                description: new.description.or(old.description),
                encryption_configuration: new
                    .encryption_configuration
                    .or(old.encryption_configuration),
                image_tag_mutability: new.image_tag_mutability.or(old.image_tag_mutability),
                image_tag_mutability_exclusion_filters: filters,
                lifecycle_policy: new.lifecycle_policy.or(old.lifecycle_policy),
                prefix: old.prefix,
                repository_policy: new.repository_policy.or(old.repository_policy),
                resource_tags: new.resource_tags.or(old.resource_tags),
                updated_at: Some(ctx.now),
            })?;
            let mut transaction = Transaction::new();
            transaction.update::<CreationTemplateRow>(&before, &row);
            if self.state.commit(transaction).await? {
                return Ok(UpdateRepositoryCreationTemplateResponse {
                    registry_id: Some(place.account.to_string()),
                    repository_creation_template: Some(row.template),
                });
            }
        }
        Err(RegistryError::Contended.into())
    }

    pub(super) async fn delete_template(
        &self,
        ctx: &RequestContext,
        input: DeleteRepositoryCreationTemplateRequest,
    ) -> Result<DeleteRepositoryCreationTemplateResponse, EcrError> {
        let place = Self::place(ctx, None, "DeleteRepositoryCreationTemplate", "*")?;
        for _ in 0..RegistryState::TRIES {
            let row = self.template(&place, &input.prefix)?;
            let mut transaction = Transaction::new();
            transaction.expect_read(&row).delete(row.key.clone());
            if self.state.commit(transaction).await? {
                return Ok(DeleteRepositoryCreationTemplateResponse {
                    registry_id: Some(place.account.to_string()),
                    repository_creation_template: Some(row.template.clone()),
                });
            }
        }
        Err(RegistryError::Contended.into())
    }

    fn template(
        &self,
        place: &Place,
        prefix: &str,
    ) -> Result<Versioned<CreationTemplateRow>, EcrError> {
        let snapshot = self.state.store.snapshot();
        snapshot
            .read::<CreationTemplateRow>(&place.account, &place.region, row_name(prefix))
            .ok_or_else(|| {
                EcrError::template_not_found_exception(format!(
                    "The repository creation template with prefix '{prefix}' does not exist in the registry with id '{}'",
                    place.account
                ))
            })
    }
}

/// A slash is always meant at the end of a prefix.
fn row_name(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

/// A template whose every part would be accepted of a repository.
fn checked(template: RepositoryCreationTemplate) -> Result<CreationTemplateRow, EcrError> {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(text) = some(&template.lifecycle_policy) {
        lifecycle::checked(&text)?;
    }
    if let Some(text) = some(&template.repository_policy) {
        policies::checked(&text, "repository")?;
    }
    if let Some(encryption) = &template.encryption_configuration {
        check_encryption(&encryption.encryption_type, encryption.kms_key.as_deref())?;
    }
    let setting = template.image_tag_mutability.clone();
    let mutability = mutability(
        setting.unwrap_or(ImageTagMutability::Mutable),
        template.image_tag_mutability_exclusion_filters.clone(),
    )?;
    let tags = template.resource_tags.clone().unwrap_or_default();
    Ok(CreationTemplateRow {
        tags: checked_tags(BTreeMap::new(), tags)?,
        mutability,
        template,
    })
}
