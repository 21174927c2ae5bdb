//! BatchDeleteImage: by tag it untags, by digest it deletes.

use gantry_api::RequestContext;
use gantry_api::ecr::{
    BatchDeleteImageRequest, BatchDeleteImageResponse, EcrError, ImageFailure, ImageIdentifier,
};

use super::Found;
use super::images::{failure_of, id, parsed};
use crate::EcrService;

impl EcrService {
    pub(super) async fn delete_images(
        &self,
        ctx: &RequestContext,
        input: BatchDeleteImageRequest,
    ) -> Result<BatchDeleteImageResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for image_id in &input.image_ids {
            // Found anew each time, since what came before may have deleted this one too.
            let found = self.find(ctx, registry, "BatchDeleteImage", &input.repository_name)?;
            match self.delete_one(&found, image_id).await? {
                Ok(ids) => deleted.extend(ids),
                Err(failure) => failures.push(*failure),
            }
        }
        Ok(BatchDeleteImageResponse {
            image_ids: Some(deleted),
            failures: Some(failures),
        })
    }

    async fn delete_one(
        &self,
        found: &Found,
        image_id: &ImageIdentifier,
    ) -> Result<Result<Vec<ImageIdentifier>, Box<ImageFailure>>, EcrError> {
        let image = match self.resolve(found, image_id) {
            Ok(image) => image,
            Err(failure) => return Ok(Err(failure)),
        };
        let (_, tag) = match parsed(image_id) {
            Ok(parsed) => parsed,
            Err(failure) => return Ok(Err(failure)),
        };
        let (place, name) = (&found.place, &found.name);
        let deleted = match &tag {
            Some(tag) => {
                let untagged = self.state.untag(place, name, tag).await;
                untagged.map(|digest| vec![id(&digest, Some(tag))])
            }
            None => {
                let tags = self.state.delete_image(place, name, &image.digest).await;
                tags.map(|tags| match tags.as_slice() {
                    [] => vec![id(&image.digest, None)],
                    tags => tags
                        .iter()
                        .map(|tag| id(&image.digest, Some(tag)))
                        .collect(),
                })
            }
        };
        match deleted {
            Ok(ids) => Ok(Ok(ids)),
            Err(error) => failure_of(image_id, error).map(Err),
        }
    }
}
