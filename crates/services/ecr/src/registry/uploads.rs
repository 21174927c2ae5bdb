//! Uploading blobs: begin, write chunks, finish, cancel, mount.

use bytes::Bytes;
use gantry_arn::RepositoryName;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use hyper::body::Body;

use super::answers::{Answer, Refusal};
use super::blobs::CONTENT_DIGEST;
use super::{BoxError, Call, next_piece};
use crate::error::RegistryError;
use crate::model::Digest;
use crate::model::range;
use crate::model::upload::{UploadId, UploadRefusal};
use crate::uploads::Lease;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

impl Call<'_> {
    pub(super) async fn begin_upload<B>(
        &self,
        name: &RepositoryName,
        body: B,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let state = &self.service.state;
        if let (Some(digest), Some(from)) = (self.parameter("mount"), self.parameter("from")) {
            let digest = parse_digest(&digest)?;
            // A mount that cannot be is no error: the client uploads instead.
            if let Ok(from) = RepositoryName::new(from)
                && state
                    .mount(&self.place, name, &from, &digest, self.now)
                    .await
                    .is_ok()
            {
                return Ok(created(name, &digest));
            }
        }
        // Refused before an upload is begun for it.
        let digest = self
            .parameter("digest")
            .map(|digest| parse_digest(&digest))
            .transpose()?;
        let upload = state.begin_upload(&self.place, name, self.now).await?;
        match digest {
            Some(digest) => {
                self.receive_and_finish(name, upload, digest, None, body)
                    .await
            }
            None => Ok(progress(StatusCode::ACCEPTED, name, upload, 0)),
        }
    }

    pub(super) fn upload_status(
        &self,
        name: &RepositoryName,
        upload: UploadId,
    ) -> Result<Answer, Refusal> {
        let state = &self.service.state;
        let repository = state.repository(&state.store.snapshot(), &self.place, name)?;
        let received = state.uploads.received(&repository.id, upload)?;
        Ok(progress(StatusCode::NO_CONTENT, name, upload, received))
    }

    pub(super) async fn write_chunk<B>(
        &self,
        name: &RepositoryName,
        upload: UploadId,
        mut body: B,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let range = self.chunk_range()?;
        let mut lease = self
            .service
            .state
            .take_upload(&self.place, name, upload, range)?;
        if let Err(error) = receive(&mut lease, &mut body).await {
            match error {
                // Gone before the answer, so whoever reads the answer finds nothing left.
                RegistryError::Storage(_) | RegistryError::Upload(UploadRefusal::Changed) => {
                    abort(lease).await;
                }
                // It is back where it was before the answer, so the next request may go on from there.
                _ => drop(lease),
            }
            return Err(error.into());
        }
        let received = lease.give_back(self.service.state.env.now())?;
        Ok(progress(StatusCode::ACCEPTED, name, upload, received))
    }

    pub(super) async fn finish_upload<B>(
        &self,
        name: &RepositoryName,
        upload: UploadId,
        body: B,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let digest = self.parameter("digest").ok_or_else(|| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "DIGEST_INVALID",
                "the digest parameter is missing",
            )
        })?;
        let digest = parse_digest(&digest)?;
        let range = self.chunk_range()?;
        self.receive_and_finish(name, upload, digest, range, body)
            .await
    }

    async fn receive_and_finish<B>(
        &self,
        name: &RepositoryName,
        upload: UploadId,
        digest: Digest,
        range: Option<std::ops::Range<u64>>,
        mut body: B,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let mut lease = self
            .service
            .state
            .take_upload(&self.place, name, upload, range)?;
        let mut received = receive(&mut lease, &mut body).await;
        if received.is_ok() {
            let now = self.service.state.env.now();
            received = lease
                .session()
                .and_then(|session| Ok(session.state.close_chunk(now)?));
        }
        if let Err(error) = received {
            match error {
                RegistryError::Body(_) => drop(lease),
                _ => abort(lease).await,
            }
            return Err(error.into());
        }
        let session = lease.finish()?;
        // From here on it goes to its end in a task of its own: a client that leaves now must
        // not leave an object behind whose row was never written.
        let (service, place, owned_name) = (self.service.clone(), self.place.clone(), name.clone());
        let (expected, now) = (digest.clone(), self.now);
        let finishing = tokio::spawn(async move {
            service
                .state
                .finish_upload(&place, &owned_name, session, &expected, now)
                .await
        });
        match finishing.await {
            Ok(finished) => finished?,
            Err(error) => {
                tracing::error!(%error, "finishing an upload failed");
                return Err(RegistryError::UploadUnknown.into());
            }
        }
        Ok(created(name, &digest))
    }

    pub(super) async fn cancel_upload(
        &self,
        name: &RepositoryName,
        upload: UploadId,
    ) -> Result<Answer, Refusal> {
        let lease = self
            .service
            .state
            .take_upload(&self.place, name, upload, None)?;
        abort(lease).await;
        Ok(Answer::new(StatusCode::NO_CONTENT).header(CONTENT_LENGTH, 0))
    }

    fn chunk_range(&self) -> Result<Option<std::ops::Range<u64>>, Refusal> {
        let Some(header) = self.header(CONTENT_RANGE) else {
            return Ok(None);
        };
        match range::chunk(header) {
            Some(range) => Ok(Some(range)),
            None => Err(Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "BLOB_UPLOAD_INVALID",
                "the Content-Range is not of the form <first byte>-<last byte>",
            )),
        }
    }
}

/// Writes all of a body to an upload.
async fn receive<B>(lease: &mut Lease, body: &mut B) -> Result<(), RegistryError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    while let Some(piece) = next_piece(body).await? {
        let session = lease.session()?;
        session.state.receive(piece.len())?;
        session.writer.write(piece).await?;
    }
    Ok(())
}

async fn abort(lease: Lease) {
    if let Ok(session) = lease.finish() {
        session.writer.abort().await;
    }
}

fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse()
        .map_err(|error: crate::model::digest::DigestError| {
            Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.to_string())
        })
}

/// Where an upload stands. The path is relative, so it is right behind any proxy.
fn progress(status: StatusCode, name: &RepositoryName, upload: UploadId, received: u64) -> Answer {
    Answer::new(status)
        .header(LOCATION, format!("/v2/{name}/blobs/uploads/{upload}"))
        .header(RANGE, format!("0-{}", received.saturating_sub(1)))
        .header(UPLOAD_UUID, upload)
        .header(CONTENT_LENGTH, 0)
}

fn created(name: &RepositoryName, digest: &Digest) -> Answer {
    Answer::new(StatusCode::CREATED)
        .header(LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .header(CONTENT_DIGEST, digest)
        .header(CONTENT_LENGTH, 0)
}
