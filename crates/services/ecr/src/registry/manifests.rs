//! Manifests and referrers.

use bytes::{Bytes, BytesMut};
use gantry_api::server::ResponseBody;
use gantry_arn::RepositoryName;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LINK, LOCATION};
use http::{Method, StatusCode};
use hyper::body::Body;
use serde_json::json;

use super::answers::{Answer, Refusal};
use super::blobs::CONTENT_DIGEST;
use super::conditions::{entity_tag, is_known, not_modified};
use super::{BoxError, Call, next_piece};
use crate::error::RegistryError;
use crate::images::Push;
use crate::model::manifest::{MANIFEST_BYTES_MAX, ManifestError, OCI_INDEX};
use crate::model::route::percent_encoded;
use crate::model::{Digest, Reference};
use crate::tables::ImageRow;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// The most entries on a page of referrers, and the most bytes: clients read no more than 4 MiB.
const REFERRERS_PAGE: usize = 1000;
const REFERRERS_BYTES: usize = 3 * 1024 * 1024;

impl Call<'_> {
    pub(super) async fn manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Answer, Refusal> {
        let state = &self.service.state;
        let snapshot = state.store.snapshot();
        let repository = state.repository(&snapshot, &self.place, name)?;
        let image = state
            .image(&snapshot, &self.place, &repository.id, reference)
            .ok_or_else(|| RegistryError::ManifestUnknown(reference.clone()))?;
        if is_known(&self.parts.headers, &image.digest) {
            return Ok(not_modified(CONTENT_DIGEST, &image.digest));
        }
        let answer = Answer::new(StatusCode::OK)
            .header(CONTENT_DIGEST, &image.digest)
            .header(ETAG, entity_tag(&image.digest))
            .header(CONTENT_TYPE, &image.manifest.media_type)
            .header(CONTENT_LENGTH, image.manifest_size);
        if self.parts.method == Method::HEAD {
            return Ok(answer);
        }
        let bytes = state
            .manifest_bytes(&snapshot, &self.place, &repository.id, &image.digest)
            .await?;
        state.record_pull(&self.place, &image, self.now).await;
        Ok(answer.body(ResponseBody::full(bytes)))
    }

    pub(super) async fn put_manifest<B>(
        &self,
        name: &RepositoryName,
        reference: Reference,
        mut body: B,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let mut bytes = BytesMut::new();
        while let Some(piece) = next_piece(&mut body).await? {
            if bytes.len() + piece.len() > MANIFEST_BYTES_MAX {
                return Err(RegistryError::from(ManifestError::TooLarge).into());
            }
            bytes.extend_from_slice(&piece);
        }
        let media_type = self.header(CONTENT_TYPE).map(str::to_owned);
        let (tag, digest) = match reference {
            Reference::Tag(tag) => (Some(tag), None),
            Reference::Digest(digest) => (None, Some(digest)),
        };
        let push = Push {
            bytes: bytes.freeze(),
            media_type,
            tag,
            digest,
        };
        // In a task of its own, for the same reason as the end of an upload.
        let (service, place, owned_name) = (self.service.clone(), self.place.clone(), name.clone());
        let now = self.now;
        let pushing = tokio::spawn(async move {
            service
                .state
                .push_manifest(&place, &owned_name, push, now)
                .await
        });
        let pushed = match pushing.await {
            Ok(pushed) => pushed?,
            Err(error) => {
                tracing::error!(%error, "storing a manifest failed");
                return Err(RegistryError::Contended.into());
            }
        };
        let digest = &pushed.image.digest;
        let mut answer = Answer::new(StatusCode::CREATED)
            .header(LOCATION, format!("/v2/{name}/manifests/{digest}"))
            .header(CONTENT_DIGEST, digest)
            .header(CONTENT_LENGTH, 0);
        if let Some(subject) = &pushed.image.manifest.subject {
            answer = answer.header(SUBJECT, subject);
        }
        Ok(answer)
    }

    pub(super) async fn delete_manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Answer, Refusal> {
        let state = &self.service.state;
        match reference {
            Reference::Tag(tag) => state.untag(&self.place, name, tag).await.map(drop)?,
            Reference::Digest(digest) => {
                state
                    .delete_image(&self.place, name, digest)
                    .await
                    .map(drop)?;
            }
        }
        Ok(Answer::new(StatusCode::ACCEPTED).header(CONTENT_LENGTH, 0))
    }

    /// The images that are about another one. An image that nobody is about has an empty list,
    /// whether it exists or not.
    pub(super) fn referrers(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Answer, Refusal> {
        let state = &self.service.state;
        let snapshot = state.store.snapshot();
        let repository = state.repository(&snapshot, &self.place, name)?;
        let wanted = self.parameter("artifactType");
        let last = self.parameter("last").unwrap_or_default();
        let about = state.referrers(&snapshot, &self.place, &repository.id, digest);
        let mut rest = about
            .iter()
            .filter(|image| wanted.is_none() || image.manifest.artifact_type == wanted)
            .filter(|image| image.digest.as_str() > last.as_str())
            .peekable();
        let (mut descriptors, mut bytes, mut last) = (Vec::new(), 0, None);
        while let Some(image) = rest.peek() {
            let descriptor = descriptor_of(image);
            bytes += descriptor.to_string().len();
            if descriptors.len() == REFERRERS_PAGE
                || (bytes > REFERRERS_BYTES && !descriptors.is_empty())
            {
                break;
            }
            descriptors.push(descriptor);
            last = Some(&image.digest);
            rest.next();
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors});
        let mut answer =
            Answer::json(StatusCode::OK, index.to_string()).header(CONTENT_TYPE, OCI_INDEX);
        if let (Some(last), Some(_)) = (last, rest.peek()) {
            let filter = wanted.as_deref().map(percent_encoded);
            let filter = filter.map_or_else(String::new, |it| format!("&artifactType={it}"));
            let next = format!("</v2/{name}/referrers/{digest}?last={last}{filter}>; rel=\"next\"");
            answer = answer.header(LINK, next);
        }
        if wanted.is_some() {
            let applied = HeaderName::from_static("oci-filters-applied");
            answer = answer.header(applied, "artifactType");
        }
        Ok(answer)
    }
}

fn descriptor_of(image: &ImageRow) -> serde_json::Value {
    let mut descriptor = json!({
        "mediaType": image.manifest.media_type,
        "digest": image.digest.as_str(),
        "size": image.manifest_size,
    });
    if let Some(artifact_type) = &image.manifest.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if let Some(annotations) = &image.manifest.annotations {
        descriptor["annotations"] = annotations.clone();
    }
    descriptor
}
