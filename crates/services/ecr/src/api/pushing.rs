//! PutImage: a manifest whose layers were pushed over the distribution API.

use bytes::Bytes;
use gantry_api::RequestContext;
use gantry_api::ecr::{EcrError, Image, PutImageRequest, PutImageResponse};

use super::images::id;
use super::repository_name;
use crate::EcrService;
use crate::images::Push;
use crate::model::{Digest, ImageTag};

impl EcrService {
    pub(super) async fn put(
        &self,
        ctx: &RequestContext,
        input: PutImageRequest,
    ) -> Result<PutImageResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let place = Self::place(ctx, registry, "PutImage", &input.repository_name)?;
        let name = repository_name(&input.repository_name)?;
        let invalid = |member: &str, reason: String| {
            EcrError::invalid_parameter_exception(format!(
                "Invalid parameter at '{member}' failed to satisfy constraint: '{reason}'"
            ))
        };
        let tag = input
            .image_tag
            .as_deref()
            .map(str::parse::<ImageTag>)
            .transpose();
        let tag = tag.map_err(|error| invalid("imageTag", error.to_string()))?;
        let digest = input
            .image_digest
            .as_deref()
            .map(str::parse::<Digest>)
            .transpose();
        let digest = digest.map_err(|error| invalid("imageDigest", error.to_string()))?;
        let push = Push {
            bytes: Bytes::from(input.image_manifest.clone()),
            media_type: input.image_manifest_media_type,
            tag: tag.clone(),
            digest,
        };
        let pushed = self
            .state
            .push_manifest(&place, &name, push, ctx.now)
            .await?;
        if pushed.already_there {
            let tag = tag.map_or_else(String::new, |tag| format!(" and tag '{tag}'"));
            return Err(EcrError::image_already_exists_exception(format!(
                "Image with digest '{}'{tag} already exists in the repository with name '{name}' in registry with id '{}'",
                pushed.image.digest, place.account
            )));
        }
        Ok(PutImageResponse {
            image: Some(Image {
                image_id: Some(id(&pushed.image.digest, tag.as_ref())),
                image_manifest: Some(input.image_manifest),
                image_manifest_media_type: Some(pushed.image.manifest.media_type),
                registry_id: Some(place.account.to_string()),
                repository_name: Some(name.to_string()),
            }),
        })
    }
}
