//! The tags of a repository as a resource.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::RequestContext;
use gantry_api::ecr::{
    EcrError, ListTagsForResourceRequest, ListTagsForResourceResponse, Tag, TagResourceRequest,
    TagResourceResponse, UntagResourceRequest, UntagResourceResponse,
};
use gantry_arn::Arn;
use gantry_store::Transaction;

use super::Found;
use crate::EcrService;
use crate::error::RegistryError;
use crate::registry_state::RegistryState;
use crate::tables::RepositoryRow;

/// AWS's limits.
const TAGS_MAX: usize = 50;
const KEY_CHARS_MAX: usize = 128;
const VALUE_CHARS_MAX: usize = 256;

impl EcrService {
    pub(super) fn list_resource_tags(
        &self,
        ctx: &RequestContext,
        input: ListTagsForResourceRequest,
    ) -> Result<ListTagsForResourceResponse, EcrError> {
        let found = self.find_resource(ctx, &input.resource_arn, "ListTagsForResource")?;
        let tag = |(key, value): (&String, &String)| Tag {
            key: key.clone(),
            value: value.clone(),
        };
        let tags = found.repository.tags.iter().map(tag).collect();
        Ok(ListTagsForResourceResponse { tags: Some(tags) })
    }

    pub(super) async fn add_resource_tags(
        &self,
        ctx: &RequestContext,
        input: TagResourceRequest,
    ) -> Result<TagResourceResponse, EcrError> {
        let change = |tags| checked_tags(tags, input.tags.clone());
        self.change_tags(ctx, &input.resource_arn, "TagResource", change)
            .await?;
        Ok(TagResourceResponse {})
    }

    pub(super) async fn remove_resource_tags(
        &self,
        ctx: &RequestContext,
        input: UntagResourceRequest,
    ) -> Result<UntagResourceResponse, EcrError> {
        let keys: BTreeSet<&String> = input.tag_keys.iter().collect();
        let change = |mut tags: BTreeMap<String, String>| {
            tags.retain(|key, _| !keys.contains(key));
            Ok(tags)
        };
        self.change_tags(ctx, &input.resource_arn, "UntagResource", change)
            .await?;
        Ok(UntagResourceResponse {})
    }

    async fn change_tags(
        &self,
        ctx: &RequestContext,
        arn: &str,
        action: &str,
        change: impl Fn(BTreeMap<String, String>) -> Result<BTreeMap<String, String>, EcrError>,
    ) -> Result<(), EcrError> {
        for _ in 0..RegistryState::TRIES {
            let found = self.find_resource(ctx, arn, action)?;
            let tags = change(found.repository.tags.clone())?;
            let row = RepositoryRow {
                tags,
                ..RepositoryRow::clone(&found.repository.row)
            };
            let mut transaction = Transaction::new();
            transaction.update::<RepositoryRow>(&found.repository, &row);
            if self.state.commit(transaction).await? {
                return Ok(());
            }
        }
        Err(RegistryError::Contended.into())
    }

    fn find_resource(
        &self,
        ctx: &RequestContext,
        arn: &str,
        action: &str,
    ) -> Result<Found, EcrError> {
        let invalid = || {
            EcrError::invalid_parameter_exception(
                "Invalid parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN'",
            )
        };
        let arn: Arn = arn.parse().map_err(|_| invalid())?;
        let name = arn
            .resource
            .strip_prefix("repository/")
            .ok_or_else(invalid)?;
        if arn.service != "ecr" || arn.region != ctx.region.as_str() {
            return Err(invalid());
        }
        self.find(ctx, Some(&arn.account), action, name)
    }
}

/// `tags` with `added` on top, within AWS's limits.
pub(super) fn checked_tags(
    mut tags: BTreeMap<String, String>,
    added: Vec<Tag>,
) -> Result<BTreeMap<String, String>, EcrError> {
    let invalid = |message: &str| Err(EcrError::invalid_tag_parameter_exception(message));
    for Tag { key, value } in added {
        if key.is_empty() || key.chars().count() > KEY_CHARS_MAX {
            return invalid("Invalid tag key: a key has 1 to 128 characters");
        }
        if value.chars().count() > VALUE_CHARS_MAX {
            return invalid("Invalid tag value: a value has at most 256 characters");
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return invalid("Invalid tag key: keys beginning with aws: are reserved");
        }
        tags.insert(key, value);
    }
    if tags.len() > TAGS_MAX {
        return Err(EcrError::too_many_tags_exception(
            "The list of tags on the repository is over the limit. The maximum number of tags that can be applied to a repository is 50.",
        ));
    }
    Ok(tags)
}
