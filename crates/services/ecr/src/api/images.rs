//! Reading images: lists, details, manifests.

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecr::{
    BatchGetImageRequest, BatchGetImageResponse, DescribeImagesRequest, DescribeImagesResponse,
    EcrError, Image, ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier, ImageStatus,
    ImageStatusFilter, ListImagesRequest, ListImagesResponse, TagStatus,
};
use gantry_store::Versioned;

use super::{Found, invalid_token, page_limit};
use crate::EcrService;
use crate::error::RegistryError;
use crate::model::page::Pages;
use crate::model::{Digest, ImageTag, Reference};
use crate::tables::{ImageRow, PullRow};

/// The most bytes of manifests in one answer of BatchGetImage.
const MANIFESTS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The tags of each image.
type TagsOf = BTreeMap<Digest, Vec<ImageTag>>;

impl EcrService {
    pub(super) fn list_image_ids(
        &self,
        ctx: &RequestContext,
        input: ListImagesRequest,
    ) -> Result<ListImagesResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "ListImages", &input.repository_name)?;
        let (tag_status, image_status) = input.filter.map_or((None, None), |filter| {
            (filter.tag_status, filter.image_status)
        });
        let tags_of = self.tags_of(&found);
        let mut ids = Vec::new();
        for image in self.matching(&found, &tags_of, tag_status.as_ref(), image_status.as_ref()) {
            match tags_of.get(&image.digest) {
                Some(tags) => ids.extend(tags.iter().map(|tag| id(&image.digest, Some(tag)))),
                None => ids.push(id(&image.digest, None)),
            }
        }
        let list = list_name(
            "ListImages",
            &found,
            tag_status.as_ref(),
            image_status.as_ref(),
        );
        let pages = Pages {
            key: &self.token_key,
            list,
        };
        let place_of = |id: &ImageIdentifier| {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{} {}", text(&id.image_digest), text(&id.image_tag))
        };
        let limit = page_limit(input.max_results);
        let (page, next_token) = pages
            .page(
                ids.into_iter(),
                place_of,
                limit,
                input.next_token.as_deref(),
            )
            .map_err(|_| invalid_token())?;
        Ok(ListImagesResponse {
            image_ids: Some(page),
            next_token,
        })
    }

    pub(super) fn describe_image_details(
        &self,
        ctx: &RequestContext,
        input: DescribeImagesRequest,
    ) -> Result<DescribeImagesResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "DescribeImages", &input.repository_name)?;
        let tags_of = self.tags_of(&found);
        let detail = |image: &Versioned<ImageRow>| self.detail(&found, image, &tags_of);

        if let Some(ids) = input.image_ids.filter(|ids| !ids.is_empty()) {
            if input.next_token.is_some() || input.max_results.is_some() {
                return Err(EcrError::invalid_parameter_exception(
                    "Invalid parameter at 'imageIds' failed to satisfy constraint: 'imageIds cannot be specified together with nextToken or maxResults'",
                ));
            }
            let mut details: Vec<ImageDetail> = Vec::new();
            for image_id in &ids {
                let image = self.resolve(&found, image_id).map_err(|failure| {
                    match failure.failure_code {
                        Some(ImageFailureCode::ImageNotFound) | None => {
                            EcrError::image_not_found_exception(not_found(&found, image_id))
                        }
                        _ => EcrError::invalid_parameter_exception(
                            failure.failure_reason.unwrap_or_default(),
                        ),
                    }
                })?;
                let detail = detail(&image);
                // An image is described once, however many of its tags are asked for.
                if !details
                    .iter()
                    .any(|seen| seen.image_digest == detail.image_digest)
                {
                    details.push(detail);
                }
            }
            return Ok(DescribeImagesResponse {
                image_details: Some(details),
                next_token: None,
            });
        }

        let (tag_status, image_status) = input.filter.map_or((None, None), |filter| {
            (filter.tag_status, filter.image_status)
        });
        let images = self.matching(&found, &tags_of, tag_status.as_ref(), image_status.as_ref());
        let list = list_name(
            "DescribeImages",
            &found,
            tag_status.as_ref(),
            image_status.as_ref(),
        );
        let pages = Pages {
            key: &self.token_key,
            list,
        };
        let limit = page_limit(input.max_results);
        let (page, next_token) = pages
            .page(
                images.into_iter(),
                |image| image.digest.to_string(),
                limit,
                input.next_token.as_deref(),
            )
            .map_err(|_| invalid_token())?;
        let details = page.iter().map(detail).collect();
        Ok(DescribeImagesResponse {
            image_details: Some(details),
            next_token,
        })
    }

    pub(super) async fn get_images(
        &self,
        ctx: &RequestContext,
        input: BatchGetImageRequest,
    ) -> Result<BatchGetImageResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "BatchGetImage", &input.repository_name)?;
        let accepted = input.accepted_media_types.unwrap_or_default();
        let (mut images, mut failures, mut bytes_so_far) = (Vec::new(), Vec::new(), 0);
        for image_id in &input.image_ids {
            let image = match self.resolve(&found, image_id) {
                Ok(image) => image,
                Err(failure) => {
                    failures.push(*failure);
                    continue;
                }
            };
            let media_type = &image.manifest.media_type;
            if !accepted.is_empty() && !accepted.contains(media_type) {
                let reason = format!(
                    "The image's media type {media_type} is none of acceptedMediaTypes, and images are not converted"
                );
                failures.push(*failure(image_id, ImageFailureCode::ImageNotFound, &reason));
                continue;
            }
            bytes_so_far += image.manifest_size as usize;
            if bytes_so_far > MANIFESTS_BYTES_MAX {
                return Err(EcrError::limit_exceeded_exception(
                    "The manifests of the images are too large for one answer; ask for fewer images",
                ));
            }
            let bytes = self
                .state
                .manifest_bytes(
                    &found.snapshot,
                    &found.place,
                    &found.repository.id,
                    &image.digest,
                )
                .await?;
            let id = ImageIdentifier {
                image_digest: Some(image.digest.to_string()),
                image_tag: image_id.image_tag.clone(),
            };
            images.push(Image {
                image_id: Some(id),
                image_manifest: Some(String::from_utf8_lossy(&bytes).into_owned()),
                image_manifest_media_type: Some(media_type.clone()),
                registry_id: Some(found.place.account.to_string()),
                repository_name: Some(found.name.to_string()),
            });
            self.state.record_pull(&found.place, &image, ctx.now).await;
        }
        Ok(BatchGetImageResponse {
            images: Some(images),
            failures: Some(failures),
        })
    }

    /// The image that an identifier means.
    pub(super) fn resolve(
        &self,
        found: &Found,
        image_id: &ImageIdentifier,
    ) -> Result<Versioned<ImageRow>, Box<ImageFailure>> {
        let (digest, tag) = parsed(image_id)?;
        let find = |reference: Reference| {
            self.state.image(
                &found.snapshot,
                &found.place,
                &found.repository.id,
                &reference,
            )
        };
        let reference = match (&digest, tag) {
            (_, Some(tag)) => Reference::Tag(tag),
            (Some(digest), None) => Reference::Digest(digest.clone()),
            (None, None) => {
                return Err(failure(
                    image_id,
                    ImageFailureCode::MissingDigestAndTag,
                    "Invalid request parameters: both tag and digest cannot be null",
                ));
            }
        };
        let image = find(reference).ok_or_else(|| {
            failure(
                image_id,
                ImageFailureCode::ImageNotFound,
                "Requested image not found",
            )
        })?;
        match digest {
            Some(digest) if digest != image.digest => Err(failure(
                image_id,
                ImageFailureCode::ImageTagDoesNotMatchDigest,
                "Requested image tag does not match the image digest",
            )),
            _ => Ok(image),
        }
    }

    fn tags_of(&self, found: &Found) -> TagsOf {
        let mut tags_of = TagsOf::new();
        for row in self
            .state
            .tags(&found.snapshot, &found.place, &found.repository.id)
        {
            tags_of
                .entry(row.digest.clone())
                .or_default()
                .push(row.tag.clone());
        }
        tags_of
    }

    fn matching(
        &self,
        found: &Found,
        tags_of: &TagsOf,
        tag_status: Option<&TagStatus>,
        image_status: Option<&ImageStatusFilter>,
    ) -> Vec<Versioned<ImageRow>> {
        // Images are never archived here, so all of them are active.
        if matches!(
            image_status,
            Some(ImageStatusFilter::Archived | ImageStatusFilter::Activating)
        ) {
            return Vec::new();
        }
        let mut images = self
            .state
            .images(&found.snapshot, &found.place, &found.repository.id);
        images.retain(|image| match tag_status {
            Some(TagStatus::Tagged) => tags_of.contains_key(&image.digest),
            Some(TagStatus::Untagged) => !tags_of.contains_key(&image.digest),
            _ => true,
        });
        images
    }

    fn detail(&self, found: &Found, image: &Versioned<ImageRow>, tags_of: &TagsOf) -> ImageDetail {
        let (account, region) = (&found.place.account, &found.place.region);
        let pull = found
            .snapshot
            .read::<PullRow>(account, region, image.key.name());
        let tags = tags_of.get(&image.digest);
        ImageDetail {
            artifact_media_type: image.manifest.artifact_type.clone(),
            image_digest: Some(image.digest.to_string()),
            image_manifest_media_type: Some(image.manifest.media_type.clone()),
            image_pushed_at: Some(image.pushed_at),
            image_size_in_bytes: Some(i64::try_from(self.size(found, image)).unwrap_or(i64::MAX)),
            image_status: Some(ImageStatus::Active),
            image_tags: tags.map(|tags| tags.iter().map(ImageTag::to_string).collect()),
            last_recorded_pull_time: pull.map(|pull| pull.at),
            registry_id: Some(account.to_string()),
            repository_name: Some(found.name.to_string()),
            subject_manifest_digest: image.manifest.subject.as_ref().map(Digest::to_string),
            ..ImageDetail::default()
        }
    }

    /// Of an index, the largest of its images, as ECR counts.
    fn size(&self, found: &Found, image: &ImageRow) -> u64 {
        let of = |digest: &Digest| {
            let reference = Reference::Digest(digest.clone());
            let id = &found.repository.id;
            let image = self
                .state
                .image(&found.snapshot, &found.place, id, &reference)?;
            Some(image.manifest.content_size())
        };
        let listed = image
            .manifest
            .manifests()
            .iter()
            .filter_map(|content| of(&content.digest));
        listed
            .max()
            .unwrap_or_else(|| image.manifest.content_size())
    }
}

/// Reads the two halves of an identifier.
pub(super) fn parsed(
    image_id: &ImageIdentifier,
) -> Result<(Option<Digest>, Option<ImageTag>), Box<ImageFailure>> {
    let digest = image_id
        .image_digest
        .as_deref()
        .map(str::parse::<Digest>)
        .transpose();
    let digest = digest.map_err(|_| {
        failure(
            image_id,
            ImageFailureCode::InvalidImageDigest,
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
        )
    })?;
    let tag = image_id
        .image_tag
        .as_deref()
        .map(str::parse::<ImageTag>)
        .transpose();
    let tag = tag.map_err(|error| {
        let reason = format!("Invalid request parameters: {error}");
        failure(image_id, ImageFailureCode::InvalidImageTag, &reason)
    })?;
    Ok((digest, tag))
}

pub(super) fn failure(
    image_id: &ImageIdentifier,
    code: ImageFailureCode,
    reason: &str,
) -> Box<ImageFailure> {
    Box::new(ImageFailure {
        failure_code: Some(code),
        failure_reason: Some(reason.to_owned()),
        image_id: Some(image_id.clone()),
    })
}

pub(super) fn id(digest: &Digest, tag: Option<&ImageTag>) -> ImageIdentifier {
    ImageIdentifier {
        image_digest: Some(digest.to_string()),
        image_tag: tag.map(ImageTag::to_string),
    }
}

/// What an error on the way says of one image, where it says something.
pub(super) fn failure_of(
    image_id: &ImageIdentifier,
    error: RegistryError,
) -> Result<Box<ImageFailure>, EcrError> {
    match error {
        RegistryError::ManifestUnknown(_) => Ok(failure(
            image_id,
            ImageFailureCode::ImageNotFound,
            "Requested image not found",
        )),
        RegistryError::ReferencedByIndex(_) => {
            let reason = error.to_string();
            Ok(failure(
                image_id,
                ImageFailureCode::ImageReferencedByManifestList,
                &reason,
            ))
        }
        other => Err(other.into()),
    }
}

pub(super) fn not_found(found: &Found, id: &ImageIdentifier) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_else(|| "null".to_owned());
    format!(
        "The image with imageId {{imageDigest:'{}', imageTag:'{}'}} does not exist within the repository with name '{}' in the registry with id '{}'",
        text(&id.image_digest),
        text(&id.image_tag),
        found.name,
        found.place.account
    )
}

fn list_name(
    operation: &str,
    found: &Found,
    tag_status: Option<&TagStatus>,
    image_status: Option<&ImageStatusFilter>,
) -> String {
    let tag_status = tag_status.map_or("ANY", |status| status.as_str());
    let image_status = image_status.map_or("ANY", |status| status.as_str());
    format!(
        "{operation} {} {tag_status} {image_status}",
        found.repository.id
    )
}
