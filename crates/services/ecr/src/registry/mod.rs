//! The OCI distribution API, under `/v2/`.
//!
//! What always holds: nothing is answered but "who are you?" before the password was verified;
//! account and region come from the password (or from a signed link to one layer) alone; bodies are streamed both ways, and only
//! manifests are held in memory.
//! What it leaves to others: what is stored and when (`layers`, `images`).

mod answers;
mod blobs;
mod conditions;
mod lists;
mod manifests;
mod uploads;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_api::server::{RawRoute, RequestBody, RequestFacts, ResponseBody};
use gantry_arn::RepositoryName;
use gantry_env::Timestamp;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Body;

use crate::EcrService;
use crate::error::RegistryError;
use crate::layers::Place;
use crate::model::download::{DownloadGrant, PARAMETER};
use crate::model::route::{self, Route, RouteError};
use crate::model::tag::InvalidReference;
use crate::model::token::{Grant, TokenError};
use answers::{Answer, Refusal};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The registry as a route of the server.
pub struct Registry {
    pub(crate) service: Arc<EcrService>,
}

#[async_trait]
impl RawRoute for Registry {
    fn name(&self) -> &'static str {
        "registry"
    }

    async fn handle(
        &self,
        request: Request<RequestBody>,
        facts: RequestFacts,
    ) -> Response<ResponseBody> {
        self.answer(request, &facts.origin()).await
    }
}

/// A request that was let in, and what it is for.
struct Call<'a> {
    service: &'a Arc<EcrService>,
    place: Place,
    parts: &'a Parts,
    now: Timestamp,
}

impl Registry {
    /// Answers one request. `origin` is the registry's address as the client wrote it.
    pub async fn answer<B>(&self, request: Request<B>, origin: &str) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let now = self.service.state.env.now();
        let answer = match self.admit(&parts, origin, now) {
            Ok(place) => {
                let call = Call {
                    service: &self.service,
                    place,
                    parts: &parts,
                    now,
                };
                call.dispatch(body).await
            }
            Err(refusal) => Err(refusal),
        };
        answers::finished(answer)
    }

    /// Who is it, and into which registry may they go?
    fn admit(&self, parts: &Parts, origin: &str, now: Timestamp) -> Result<Place, Refusal> {
        let unknown = |message: &str| Refusal::unauthorized(origin, message);
        let Some(header) = parts.headers.get(AUTHORIZATION) else {
            if let Some(token) = route::parameter(parts.uri.query(), PARAMETER) {
                return self.admit_download(parts, &token, now);
            }
            return Err(unknown("no basic auth credentials"));
        };
        let password = header.to_str().ok().and_then(basic_password);
        let password = password.ok_or_else(|| unknown("the authorization is not Basic AWS:…"))?;
        match Grant::verify(&password, &self.service.token_key, now) {
            // A node pulls what it runs; what it runs is never its to change, nor what else there is to know.
            Ok(grant)
                if grant.is_a_nodes()
                    && (!matches!(parts.method, Method::GET | Method::HEAD)
                        || Route::parse(parts.uri.path()) == Ok(Route::Catalog)) =>
            {
                Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "DENIED",
                    format!("User: {} may only pull images", grant.principal),
                ))
            }
            Ok(Grant {
                account, region, ..
            }) => Ok(Place { account, region }),
            Err(error @ TokenError::Invalid) => Err(unknown(&error.to_string())),
            // ECR's own answer: the client is to fetch a new token, not to ask for a name.
            Err(error @ TokenError::Expired) => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "DENIED",
                error.to_string(),
            )),
        }
    }
}

impl Registry {
    /// A link lets in whoever has it, to the one layer that it names and until it expires.
    fn admit_download(&self, parts: &Parts, token: &str, now: Timestamp) -> Result<Place, Refusal> {
        let denied = |message: &str| Refusal::new(StatusCode::FORBIDDEN, "DENIED", message);
        let grant = match DownloadGrant::verify(token, &self.service.token_key, now) {
            Ok(grant) => grant,
            Err(TokenError::Expired) => return Err(denied("the link has expired")),
            Err(TokenError::Invalid) => {
                return Err(denied("the link is not one of this registry's"));
            }
        };
        let meant = Route::Blob {
            repository: grant.repository,
            digest: grant.digest,
        };
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        if !is_read || Route::parse(parts.uri.path())? != meant {
            return Err(denied("the link is for one layer, to be read"));
        }
        Ok(Place {
            account: grant.account,
            region: grant.region,
        })
    }
}

fn basic_password(header: &str) -> Option<String> {
    let (scheme, credentials) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(credentials.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    (user == "AWS").then(|| password.to_owned())
}

impl Call<'_> {
    async fn dispatch<B>(&self, body: B) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let method = &self.parts.method;
        let route = match Route::parse(self.parts.uri.path()) {
            // No image has a tag that none can have, so who asks for one is told that it is not there.
            Err(error @ RouteError::Reference(InvalidReference::Tag(_)))
                if *method != Method::PUT =>
            {
                let (status, code) = (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
                return Err(Refusal::new(status, code, error.to_string()));
            }
            route => route?,
        };
        let (get, head) = (*method == Method::GET, *method == Method::HEAD);
        let is = |wanted: Method| *method == wanted;
        match route {
            Route::Base if get || head => Ok(Answer::json(StatusCode::OK, "{}")),
            Route::Catalog if get => self.catalog(),
            Route::Blob { repository, digest } if get || head => {
                self.blob(&repository, &digest).await
            }
            Route::Blob { repository, digest } if is(Method::DELETE) => {
                self.delete_blob(&repository, &digest).await
            }
            Route::Uploads { repository } if is(Method::POST) => {
                self.create_on_push(&repository).await?;
                self.begin_upload(&repository, body).await
            }
            Route::Upload { repository, upload } if get => self.upload_status(&repository, upload),
            Route::Upload { repository, upload } if is(Method::PATCH) => {
                self.write_chunk(&repository, upload, body).await
            }
            Route::Upload { repository, upload } if is(Method::PUT) => {
                self.finish_upload(&repository, upload, body).await
            }
            Route::Upload { repository, upload } if is(Method::DELETE) => {
                self.cancel_upload(&repository, upload).await
            }
            Route::Manifest {
                repository,
                reference,
            } if get || head => self.manifest(&repository, &reference).await,
            Route::Manifest {
                repository,
                reference,
            } if is(Method::PUT) => {
                self.create_on_push(&repository).await?;
                self.put_manifest(&repository, reference, body).await
            }
            Route::Manifest {
                repository,
                reference,
            } if is(Method::DELETE) => self.delete_manifest(&repository, &reference).await,
            Route::Tags { repository } if get => self.list_tags(&repository),
            Route::Referrers { repository, digest } if get => self.referrers(&repository, &digest),
            _ => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "UNSUPPORTED",
                "the operation is unsupported",
            )),
        }
    }

    async fn create_on_push(&self, name: &RepositoryName) -> Result<(), Refusal> {
        let state = &self.service.state;
        Ok(state.create_on_push(&self.place, name, self.now).await?)
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    fn parameter(&self, name: &str) -> Option<String> {
        route::parameter(self.parts.uri.query(), name)
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        let (status, code) = match error {
            RouteError::Unknown => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            RouteError::Name => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            RouteError::Digest(_) | RouteError::Reference(InvalidReference::Digest(_)) => {
                (StatusCode::BAD_REQUEST, "DIGEST_INVALID")
            }
            RouteError::Reference(InvalidReference::Tag(_)) => {
                (StatusCode::BAD_REQUEST, "TAG_INVALID")
            }
            RouteError::Upload => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// The next piece of a body; `None` at its end.
async fn next_piece<B>(body: &mut B) -> Result<Option<Bytes>, RegistryError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    use http_body_util::BodyExt as _;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| RegistryError::Body(error.into()))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
