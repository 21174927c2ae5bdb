//! Downloading and deleting blobs.

use gantry_api::server::ResponseBody;
use gantry_arn::RepositoryName;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, RANGE,
};
use http::{Method, StatusCode};

use super::Call;
use super::answers::{Answer, Refusal};
use super::conditions::{entity_tag, is_known, is_range_meant, not_modified};
use crate::error::RegistryError;
use crate::model::Digest;
use crate::model::range::{Requested, requested};

pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

impl Call<'_> {
    pub(super) async fn blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Answer, Refusal> {
        let state = &self.service.state;
        let answer = |status: StatusCode, length: u64| {
            Answer::new(status)
                .header(CONTENT_DIGEST, digest)
                .header(ETAG, entity_tag(digest))
                .header(ACCEPT_RANGES, "bytes")
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, length)
        };
        if self.parts.method == Method::HEAD {
            let size = state
                .want_layer(&self.place, name, digest, self.now)
                .await?;
            if is_known(&self.parts.headers, digest) {
                return Ok(not_modified(CONTENT_DIGEST, digest));
            }
            return Ok(answer(StatusCode::OK, size));
        }
        let snapshot = state.store.snapshot();
        let repository = state.repository(&snapshot, &self.place, name)?;
        let (layer, blob) = state
            .layer(&snapshot, &self.place, &repository.id, digest)
            .ok_or_else(|| RegistryError::BlobUnknown(digest.clone()))?;
        if is_known(&self.parts.headers, digest) {
            return Ok(not_modified(CONTENT_DIGEST, digest));
        }
        let size = layer.size;
        let asked = self.header(RANGE);
        let asked = asked.filter(|_| is_range_meant(&self.parts.headers, digest));
        let (status, range) = match requested(asked, size) {
            Requested::Whole => (StatusCode::OK, 0..size),
            Requested::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Requested::Unsatisfiable => {
                let message = format!("the blob has {size} bytes");
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let refusal = Refusal::new(status, "SIZE_INVALID", message);
                return Err(refusal.header(CONTENT_RANGE, format!("bytes */{size}")));
            }
        };
        let length = range.end - range.start;
        let mut answer = answer(status, length);
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            answer = answer.header(CONTENT_RANGE, range);
        }
        let stream = state
            .blobs
            .read(&blob.object, range)
            .await
            .map_err(RegistryError::Storage)?;
        Ok(answer.body(ResponseBody::stream_sized(length, stream)))
    }

    pub(super) async fn delete_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Answer, Refusal> {
        let state = &self.service.state;
        state
            .delete_layer(&self.place, name, digest, self.now)
            .await?;
        Ok(Answer::new(StatusCode::ACCEPTED).header(CONTENT_LENGTH, 0))
    }
}
