//! Layers over the API instead of the distribution API: uploads in parts, availability, links.

use std::time::Duration;

use gantry_api::ecr::{
    BatchCheckLayerAvailabilityRequest, BatchCheckLayerAvailabilityResponse,
    CompleteLayerUploadRequest, CompleteLayerUploadResponse, EcrError,
    GetDownloadUrlForLayerRequest, GetDownloadUrlForLayerResponse, InitiateLayerUploadRequest,
    InitiateLayerUploadResponse, InvalidLayerPartException, Layer, LayerAvailability, LayerFailure,
    LayerFailureCode, UploadLayerPartRequest, UploadLayerPartResponse,
};
use gantry_api::{ApiError, RequestContext};

use super::Found;
use super::tokens::endpoint;
use crate::EcrService;
use crate::error::RegistryError;
use crate::model::Digest;
use crate::model::download::{DownloadGrant, PARAMETER};
use crate::model::upload::{UploadId, UploadRefusal};

/// How large a caller should make the parts.
const PART_BYTES: i64 = 10 * 1024 * 1024;

/// How long a link to a layer is good.
const LINK_LIFETIME: Duration = Duration::from_secs(3600);

const MEDIA_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

impl EcrService {
    pub(super) async fn initiate_upload(
        &self,
        ctx: &RequestContext,
        input: InitiateLayerUploadRequest,
    ) -> Result<InitiateLayerUploadResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "InitiateLayerUpload", &input.repository_name)?;
        let (place, name) = (&found.place, &found.name);
        let upload = self.state.begin_upload(place, name, ctx.now).await?;
        Ok(InitiateLayerUploadResponse {
            part_size: Some(PART_BYTES),
            upload_id: Some(upload.to_string()),
        })
    }

    pub(super) async fn upload_part(
        &self,
        ctx: &RequestContext,
        input: UploadLayerPartRequest,
    ) -> Result<UploadLayerPartResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "UploadLayerPart", &input.repository_name)?;
        let upload = upload_id(&input.upload_id)?;
        let bytes = input.layer_part_blob;
        let refused = |message: String, received: Option<u64>| {
            EcrError::InvalidLayerPartException(InvalidLayerPartException {
                last_valid_byte_received: received.map(last_byte),
                message: Some(message),
                registry_id: Some(found.place.account.to_string()),
                repository_name: Some(found.name.to_string()),
                upload_id: Some(upload.to_string()),
            })
        };
        let (first, last) = (input.part_first_byte, input.part_last_byte);
        let range = u64::try_from(first).ok().zip(u64::try_from(last).ok());
        let range = range.and_then(|(first, last)| Some(first..last.checked_add(1)?));
        let fits = |range: &std::ops::Range<u64>| {
            range.end.checked_sub(range.start) == Some(bytes.len() as u64) && !bytes.is_empty()
        };
        let Some(range) = range.filter(fits) else {
            let length = bytes.len();
            let message = format!(
                "The part has {length} bytes, and partFirstByte {first} and partLastByte {last} say otherwise"
            );
            return Err(refused(message, None));
        };
        let (place, name) = (&found.place, &found.name);
        let written = self
            .state
            .write_part(place, name, upload, range, bytes)
            .await;
        let received = written.map_err(|error| match error {
            RegistryError::Upload(UploadRefusal::OutOfOrder { expected }) => {
                refused(error.to_string(), Some(expected))
            }
            other => other.into(),
        })?;
        Ok(UploadLayerPartResponse {
            last_byte_received: Some(last_byte(received)),
            registry_id: Some(found.place.account.to_string()),
            repository_name: Some(found.name.to_string()),
            upload_id: Some(upload.to_string()),
        })
    }

    pub(super) async fn complete_upload(
        &self,
        ctx: &RequestContext,
        input: CompleteLayerUploadRequest,
    ) -> Result<CompleteLayerUploadResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(ctx, registry, "CompleteLayerUpload", &input.repository_name)?;
        let upload = upload_id(&input.upload_id)?;
        let mut digests = input.layer_digests.iter();
        let digest = digests.find_map(|digest| digest.parse::<Digest>().ok());
        let digest = digest.ok_or_else(|| {
            EcrError::invalid_layer_exception(
                "None of layerDigests is of the form sha256:<64 lower-case hex digits>",
            )
        })?;
        let (place, name) = (&found.place, &found.name);
        let lease = self.state.take_upload(place, name, upload, None)?;
        if lease.received() == 0 {
            lease.give_back(ctx.now)?;
            return Err(EcrError::empty_upload_exception(format!(
                "The upload '{upload}' has no layer parts"
            )));
        }
        let session = lease.finish()?;
        let refusal = if session.parts.too_small() {
            Some(EcrError::layer_part_too_small_exception(
                "Layer parts must be at least 5 MiB in size, but for the last one",
            ))
        } else if session.writer.digest() != digest {
            Some(EcrError::invalid_layer_exception(format!(
                "The layer has digest '{}', not '{digest}'",
                session.writer.digest()
            )))
        } else if self.has_layer(&found, &digest) {
            Some(EcrError::layer_already_exists_exception(format!(
                "The layer with digest '{digest}' already exists in the repository with name '{name}' in registry with id '{}'",
                place.account
            )))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            session.writer.abort().await;
            return Err(refusal);
        }
        self.state
            .finish_upload(place, name, session, &digest, ctx.now)
            .await?;
        Ok(CompleteLayerUploadResponse {
            layer_digest: Some(digest.to_string()),
            registry_id: Some(place.account.to_string()),
            repository_name: Some(name.to_string()),
            upload_id: Some(upload.to_string()),
        })
    }

    pub(super) async fn check_layers(
        &self,
        ctx: &RequestContext,
        input: BatchCheckLayerAvailabilityRequest,
    ) -> Result<BatchCheckLayerAvailabilityResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let action = "BatchCheckLayerAvailability";
        let found = self.find(ctx, registry, action, &input.repository_name)?;
        let (mut layers, mut failures) = (Vec::new(), Vec::new());
        for text in input.layer_digests {
            let digest = match text.parse::<Digest>() {
                Ok(digest) => digest,
                Err(error) => {
                    let (code, reason) = match text.is_empty() {
                        true => (LayerFailureCode::MissingLayerDigest, String::new()),
                        false => (LayerFailureCode::InvalidLayerDigest, format!(": {error}")),
                    };
                    failures.push(LayerFailure {
                        failure_code: Some(code),
                        failure_reason: Some(format!("Invalid layer digest{reason}")),
                        layer_digest: Some(text),
                    });
                    continue;
                }
            };
            // Who asks may be about to push an image with it.
            let (place, name) = (&found.place, &found.name);
            let wanted = self.state.want_layer(place, name, &digest, ctx.now).await;
            let size = match wanted {
                Ok(size) => Some(i64::try_from(size).unwrap_or(i64::MAX)),
                Err(RegistryError::BlobUnknown(_)) => None,
                Err(error) => return Err(error.into()),
            };
            layers.push(Layer {
                layer_availability: Some(match size {
                    Some(_) => LayerAvailability::Available,
                    None => LayerAvailability::Unavailable,
                }),
                layer_digest: Some(text),
                media_type: size.map(|_| MEDIA_TYPE.to_owned()),
                layer_size: size,
            });
        }
        Ok(BatchCheckLayerAvailabilityResponse {
            failures: Some(failures),
            layers: Some(layers),
        })
    }

    pub(super) fn download_url(
        &self,
        ctx: &RequestContext,
        input: GetDownloadUrlForLayerRequest,
    ) -> Result<GetDownloadUrlForLayerResponse, EcrError> {
        let registry = input.registry_id.as_deref();
        let found = self.find(
            ctx,
            registry,
            "GetDownloadUrlForLayer",
            &input.repository_name,
        )?;
        let digest = input.layer_digest.parse::<Digest>().map_err(|error| {
            EcrError::invalid_parameter_exception(format!(
                "Invalid parameter at 'layerDigest' failed to satisfy constraint: '{error}'"
            ))
        })?;
        if !self.has_layer(&found, &digest) {
            return Err(RegistryError::BlobUnknown(digest).into());
        }
        let grant = DownloadGrant {
            account: found.place.account,
            region: found.place.region.clone(),
            repository: found.name.clone(),
            digest,
            expires_at: ctx.now + LINK_LIFETIME,
        };
        let token = grant.token(&self.token_key).map_err(ApiError::internal)?;
        let (name, digest) = (&found.name, &grant.digest);
        let url = format!(
            "{}/v2/{name}/blobs/{digest}?{PARAMETER}={token}",
            endpoint(ctx)
        );
        Ok(GetDownloadUrlForLayerResponse {
            download_url: Some(url),
            layer_digest: Some(digest.to_string()),
        })
    }

    fn has_layer(&self, found: &Found, digest: &Digest) -> bool {
        let (snapshot, place) = (&found.snapshot, &found.place);
        let layer = self
            .state
            .layer(snapshot, place, &found.repository.id, digest);
        layer.is_some()
    }
}

fn upload_id(text: &str) -> Result<UploadId, EcrError> {
    let id = text.to_ascii_lowercase().parse();
    id.map_err(|_| RegistryError::UploadUnknown.into())
}

fn last_byte(received: u64) -> i64 {
    i64::try_from(received.saturating_sub(1)).unwrap_or(i64::MAX)
}
