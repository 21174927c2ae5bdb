//! ListImageReferrers: what is about an image, in pages.

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecr::{
    ArtifactStatus, ArtifactStatusFilter, EcrError, ImageReferrer, ListImageReferrersRequest,
    ListImageReferrersResponse,
};

use super::{invalid_token, page_limit};
use crate::EcrService;
use crate::model::Digest;
use crate::model::page::Pages;
use crate::tables::ImageRow;

/// The most on a page.
const PAGE_MAX: usize = 50;

impl EcrService {
    pub(super) fn list_referrers(
        &self,
        ctx: &RequestContext,
        input: ListImageReferrersRequest,
    ) -> Result<ListImageReferrersResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "ListImageReferrers", &input.repository_name)?;
        let subject = &input.subject_id.image_digest;
        let subject = subject.parse::<Digest>().map_err(|error| {
            EcrError::invalid_parameter_exception(format!(
                "Invalid parameter at 'imageDigest' failed to satisfy constraint: '{error}'"
            ))
        })?;
        let (types, status) = input.filter.map_or((None, None), |filter| {
            (filter.artifact_types, filter.artifact_status)
        });
        let types = types.unwrap_or_default();
        // Images are never archived here, so all of them are active.
        let none_is_meant = matches!(
            status,
            Some(ArtifactStatusFilter::Archived | ArtifactStatusFilter::Activating)
        );
        let mut images = self.state.referrers(
            &found.snapshot,
            &found.place,
            &found.repository.id,
            &subject,
        );
        images.retain(|image| {
            let of_type = |wanted: &String| image.manifest.artifact_type.as_ref() == Some(wanted);
            !none_is_meant && (types.is_empty() || types.iter().any(of_type))
        });
        let pages = Pages {
            key: &self.token_key,
            list: format!(
                "ListImageReferrers {} {} {} {subject} {}",
                found.place.account,
                found.place.region,
                found.repository.id,
                types.join(" ")
            ),
        };
        let limit = page_limit(input.max_results).min(PAGE_MAX);
        let (page, next_token) = pages
            .page(
                images.into_iter(),
                |image| image.digest.to_string(),
                limit,
                input.next_token.as_deref(),
            )
            .map_err(|_| invalid_token())?;
        Ok(ListImageReferrersResponse {
            next_token,
            referrers: Some(page.iter().map(|image| referrer(image)).collect()),
        })
    }
}

fn referrer(image: &ImageRow) -> ImageReferrer {
    let annotations = image.manifest.annotations.as_ref();
    let annotations = annotations
        .and_then(serde_json::Value::as_object)
        .map(|all| {
            let text = |(name, value): (&String, &serde_json::Value)| {
                Some((name.clone(), value.as_str()?.to_owned()))
            };
            all.iter().filter_map(text).collect::<BTreeMap<_, _>>()
        });
    ImageReferrer {
        annotations,
        artifact_status: Some(ArtifactStatus::Active),
        artifact_type: image.manifest.artifact_type.clone(),
        digest: image.digest.to_string(),
        media_type: image.manifest.media_type.clone(),
        size: i64::try_from(image.manifest_size).unwrap_or(i64::MAX),
    }
}
