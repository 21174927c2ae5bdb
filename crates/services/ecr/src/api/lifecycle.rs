//! Lifecycle policies and their previews. The collection applies them (`expiry`).

use gantry_api::RequestContext;
use gantry_api::ecr::{
    DeleteLifecyclePolicyRequest, DeleteLifecyclePolicyResponse, EcrError,
    GetLifecyclePolicyPreviewRequest, GetLifecyclePolicyPreviewResponse, GetLifecyclePolicyRequest,
    GetLifecyclePolicyResponse, ImageActionType, ImageIdentifier, LifecyclePolicyPreviewResult,
    LifecyclePolicyPreviewStatus, LifecyclePolicyPreviewSummary, LifecyclePolicyRuleAction,
    LifecyclePolicyStorageClass, PutLifecyclePolicyRequest, PutLifecyclePolicyResponse,
    StartLifecyclePolicyPreviewRequest, StartLifecyclePolicyPreviewResponse, TagStatus,
};
use gantry_store::Versioned;

use super::{Found, invalid_token, page_limit};
use crate::EcrService;
use crate::expiry::{Expired, expired};
use crate::model::lifecycle::LifecyclePolicy;
use crate::model::page::Pages;
use crate::tables::{LifecyclePreviewRow, LifecycleRow};

/// The most results of a preview on a page.
const PREVIEW_PAGE_MAX: usize = 100;

impl EcrService {
    pub(super) async fn put_lifecycle(
        &self,
        ctx: &RequestContext,
        input: PutLifecyclePolicyRequest,
    ) -> Result<PutLifecyclePolicyResponse, EcrError> {
        let text = input.lifecycle_policy_text;
        checked(&text)?;
        let row = LifecycleRow {
            text: text.clone(),
            evaluated_at: None,
            unfinished: None,
        };
        let registry = input.registry_id.as_deref();
        let name = &input.repository_name;
        let (found, ()) = self
            .change_beside(
                ctx,
                registry,
                "PutLifecyclePolicy",
                name,
                |found, transaction| {
                    // The policy that is replaced may have begun to remove an image.
                    let unfinished = lifecycle_of(found).and_then(|row| row.unfinished.clone());
                    let row = LifecycleRow {
                        unfinished,
                        ..row.clone()
                    };
                    if let Some(before) = lifecycle_of(found) {
                        transaction.expect_read(&before);
                    }
                    let (account, region) = (&found.place.account, &found.place.region);
                    transaction.write::<LifecycleRow>(account, region, &found.repository.id, &row);
                    Ok(())
                },
            )
            .await?;
        self.wake_collection();
        Ok(PutLifecyclePolicyResponse {
            lifecycle_policy_text: Some(text),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
        })
    }

    pub(super) fn get_lifecycle(
        &self,
        ctx: &RequestContext,
        input: GetLifecyclePolicyRequest,
    ) -> Result<GetLifecyclePolicyResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "GetLifecyclePolicy", &input.repository_name)?;
        let row = lifecycle_of(&found).ok_or_else(|| no_policy(&found))?;
        Ok(GetLifecyclePolicyResponse {
            last_evaluated_at: row.evaluated_at,
            lifecycle_policy_text: Some(row.text.clone()),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
        })
    }

    pub(super) async fn delete_lifecycle(
        &self,
        ctx: &RequestContext,
        input: DeleteLifecyclePolicyRequest,
    ) -> Result<DeleteLifecyclePolicyResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let name = &input.repository_name;
        let (found, row) = self
            .change_beside(
                ctx,
                registry,
                "DeleteLifecyclePolicy",
                name,
                |found, transaction| {
                    let row = lifecycle_of(found).ok_or_else(|| no_policy(found))?;
                    transaction.expect_read(&row).delete(row.key.clone());
                    Ok(row)
                },
            )
            .await?;
        Ok(DeleteLifecyclePolicyResponse {
            last_evaluated_at: row.evaluated_at,
            lifecycle_policy_text: Some(row.text.clone()),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
        })
    }

    pub(super) async fn start_preview(
        &self,
        ctx: &RequestContext,
        input: StartLifecyclePolicyPreviewRequest,
    ) -> Result<StartLifecyclePolicyPreviewResponse, EcrError> {
        if let Some(text) = &input.lifecycle_policy_text {
            checked(text)?;
        }
        let registry = input.registry_id.as_deref();
        let name = &input.repository_name;
        let action = "StartLifecyclePolicyPreview";
        let (found, text) = self
            .change_beside(ctx, registry, action, name, |found, transaction| {
                let own = || lifecycle_of(found).map(|row| row.text.clone());
                let text = input.lifecycle_policy_text.clone().or_else(own);
                let row = LifecyclePreviewRow {
                    text: text.ok_or_else(|| no_policy(found))?,
                    started_at: ctx.now,
                };
                let (account, region) = (&found.place.account, &found.place.region);
                let id = &found.repository.id;
                transaction.write::<LifecyclePreviewRow>(account, region, id, &row);
                Ok(row.text)
            })
            .await?;
        Ok(StartLifecyclePolicyPreviewResponse {
            lifecycle_policy_text: Some(text),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
            status: Some(LifecyclePolicyPreviewStatus::InProgress),
        })
    }

    /// What the policy would have expired when the preview was started, of what is still there.
    pub(super) fn get_preview(
        &self,
        ctx: &RequestContext,
        input: GetLifecyclePolicyPreviewRequest,
    ) -> Result<GetLifecyclePolicyPreviewResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(
            ctx,
            registry,
            "GetLifecyclePolicyPreview",
            &input.repository_name,
        )?;
        let ids = input.image_ids.unwrap_or_default();
        if !ids.is_empty() && (input.next_token.is_some() || input.max_results.is_some()) {
            return Err(EcrError::invalid_parameter_exception(
                "Invalid parameter at 'imageIds' failed to satisfy constraint: 'imageIds cannot be specified together with nextToken or maxResults'",
            ));
        }
        let (account, region) = (&found.place.account, &found.place.region);
        let row = found
            .snapshot
            .read::<LifecyclePreviewRow>(account, region, &found.repository.id)
            .ok_or_else(|| {
                EcrError::lifecycle_policy_preview_not_found_exception(format!(
                    "There is no lifecycle policy preview for the repository with name '{}' in the registry with id '{account}'",
                    found.name
                ))
            })?;
        let policy = checked(&row.text)?;
        let at = row.started_at;
        let mut images = expired(
            &found.snapshot,
            &found.repository,
            &policy,
            at,
            Some(at),
            None,
        );
        images.retain(|image| image.rule_priority.is_some());
        let summary = LifecyclePolicyPreviewSummary {
            expiring_image_total_count: Some(i32::try_from(images.len()).unwrap_or(i32::MAX)),
            transitioning_image_total_counts: None,
        };
        let tag_status = input.filter.and_then(|filter| filter.tag_status);
        images.retain(|image| match tag_status {
            Some(TagStatus::Tagged) => !image.tags.is_empty(),
            Some(TagStatus::Untagged) => image.tags.is_empty(),
            _ => true,
        });
        images.retain(|image| ids.is_empty() || ids.iter().any(|id| is_meant(image, id)));
        images.sort_by_key(place_of);
        let status = tag_status.as_ref().map_or("", |status| status.as_str());
        let pages = Pages {
            key: &self.token_key,
            list: format!(
                "GetLifecyclePolicyPreview {account} {region} {} {} {status}",
                found.repository.id,
                at.as_millis()
            ),
        };
        let limit = page_limit(input.max_results).min(PREVIEW_PAGE_MAX);
        let (page, next_token) = pages
            .page(
                images.into_iter(),
                place_of,
                limit,
                input.next_token.as_deref(),
            )
            .map_err(|_| invalid_token())?;
        Ok(GetLifecyclePolicyPreviewResponse {
            lifecycle_policy_text: Some(row.text.clone()),
            next_token,
            preview_results: Some(page.iter().map(result).collect()),
            registry_id: Some(account.to_string()),
            repository_name: Some(found.name.to_string()),
            status: Some(LifecyclePolicyPreviewStatus::Complete),
            summary: Some(summary),
        })
    }
}

/// The policy of a text, or AWS's words for one that is none.
pub(super) fn checked(text: &str) -> Result<LifecyclePolicy, EcrError> {
    LifecyclePolicy::parse(text).map_err(|error| {
        EcrError::invalid_parameter_exception(format!(
            "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: '{error}'"
        ))
    })
}

fn lifecycle_of(found: &Found) -> Option<Versioned<LifecycleRow>> {
    let (account, region) = (&found.place.account, &found.place.region);
    found
        .snapshot
        .read::<LifecycleRow>(account, region, &found.repository.id)
}

fn no_policy(found: &Found) -> EcrError {
    EcrError::lifecycle_policy_not_found_exception(format!(
        "Lifecycle policy does not exist for the repository with name '{}' in the registry with id '{}'",
        found.name, found.place.account
    ))
}

/// The oldest come first.
fn place_of(image: &Expired) -> String {
    format!(
        "{:020} {}",
        image.image.pushed_at.as_millis(),
        image.image.digest
    )
}

fn is_meant(image: &Expired, id: &ImageIdentifier) -> bool {
    let digest = id.image_digest.as_deref();
    let tag = id.image_tag.as_deref();
    let tagged = |tag: &str| image.tags.iter().any(|row| row.tag.as_str() == tag);
    digest.is_none_or(|digest| digest == image.image.digest.as_str()) && tag.is_none_or(tagged)
}

fn result(image: &Expired) -> LifecyclePolicyPreviewResult {
    let tags = image.tags.iter().map(|row| row.tag.to_string()).collect();
    LifecyclePolicyPreviewResult {
        action: Some(LifecyclePolicyRuleAction {
            r#type: Some(ImageActionType::Expire),
            target_storage_class: None,
        }),
        applied_rule_priority: image.rule_priority.and_then(|it| i32::try_from(it).ok()),
        image_digest: Some(image.image.digest.to_string()),
        image_pushed_at: Some(image.image.pushed_at),
        image_tags: Some(tags),
        storage_class: Some(LifecyclePolicyStorageClass::Standard),
    }
}
