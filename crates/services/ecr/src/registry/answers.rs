//! Answers of the distribution API: their headers, and errors in OCI's form.

use bytes::Bytes;
use gantry_api::server::ResponseBody;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::json;

use crate::error::RegistryError;
use crate::model::manifest::ManifestError;
use crate::model::upload::UploadRefusal;

/// What goes out.
pub struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: ResponseBody,
}

impl Answer {
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: ResponseBody::empty(),
        }
    }

    pub fn json(status: StatusCode, body: impl Into<String>) -> Self {
        let body: String = body.into();
        let answer = Self::new(status).header(CONTENT_TYPE, "application/json");
        answer
            .header(CONTENT_LENGTH, body.len())
            .body(ResponseBody::full(Bytes::from(body)))
    }

    pub fn header(mut self, name: HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub fn body(mut self, body: ResponseBody) -> Self {
        self.body = body;
        self
    }
}

/// What was refused, and why.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// Extra headers: the challenge, the upload's range.
    headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub fn unauthorized(origin: &str, message: &str) -> Self {
        let mut refusal = Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
        // The origin was checked to be a host's name, so it needs no quoting.
        let challenge = format!("Basic realm=\"{origin}/\",service=\"ecr.amazonaws.com\"");
        refusal.headers.push((WWW_AUTHENTICATE, challenge));
        refusal
    }

    pub fn header(mut self, name: HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    fn answer(self) -> Answer {
        let errors = json!({"errors": [{"code": self.code, "message": self.message}]});
        let mut answer = Answer::json(self.status, errors.to_string());
        answer.headers.extend(self.headers);
        answer
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        use StatusCode as S;
        let (status, code) = match &error {
            RegistryError::RepositoryUnknown { .. } => (S::NOT_FOUND, "NAME_UNKNOWN"),
            RegistryError::BlobUnknown(_) => (S::NOT_FOUND, "BLOB_UNKNOWN"),
            RegistryError::ManifestUnknown(_) => (S::NOT_FOUND, "MANIFEST_UNKNOWN"),
            RegistryError::UploadUnknown => (S::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            RegistryError::Upload(UploadRefusal::OutOfOrder { .. }) => {
                (S::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID")
            }
            RegistryError::Upload(UploadRefusal::TooLarge { .. }) => {
                (S::PAYLOAD_TOO_LARGE, "BLOB_UPLOAD_INVALID")
            }
            RegistryError::Upload(UploadRefusal::Changed) => {
                (S::BAD_REQUEST, "BLOB_UPLOAD_INVALID")
            }
            RegistryError::Upload(UploadRefusal::Busy) => (S::CONFLICT, "BLOB_UPLOAD_INVALID"),
            RegistryError::Upload(UploadRefusal::LengthMismatch) => {
                (S::BAD_REQUEST, "SIZE_INVALID")
            }
            RegistryError::TooManyUploads | RegistryError::Contended => {
                (S::TOO_MANY_REQUESTS, "TOOMANYREQUESTS")
            }
            RegistryError::DigestMismatch { .. } => (S::BAD_REQUEST, "DIGEST_INVALID"),
            RegistryError::ManifestInvalid(ManifestError::TooLarge) => {
                (S::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID")
            }
            RegistryError::ManifestInvalid(_) => (S::BAD_REQUEST, "MANIFEST_INVALID"),
            RegistryError::LayersMissing(_) | RegistryError::ImagesMissing(_) => {
                (S::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN")
            }
            RegistryError::LayerSize { .. } => (S::BAD_REQUEST, "SIZE_INVALID"),
            RegistryError::TagImmutable { .. } => (S::BAD_REQUEST, "TAG_INVALID"),
            RegistryError::ReferencedByIndex(_) | RegistryError::LayerNeeded { .. } => {
                (S::FORBIDDEN, "DENIED")
            }
            RegistryError::Body(_) => (S::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            RegistryError::Storage(_) | RegistryError::Store(_) => {
                // The cause is for the log and for nobody else.
                tracing::error!(%error, "the registry failed");
                let message = "The registry failed for an internal reason";
                return Self::new(S::INTERNAL_SERVER_ERROR, "UNKNOWN", message);
            }
        };
        Self::new(status, code, error.to_string())
    }
}

/// Makes the response. Header values are made of checked text; one that is not a header's value
/// all the same is left out rather than broken.
pub fn finished(answer: Result<Answer, Refusal>) -> Response<ResponseBody> {
    let answer = answer.unwrap_or_else(Refusal::answer);
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    let version = HeaderName::from_static("docker-distribution-api-version");
    response
        .headers_mut()
        .insert(version, HeaderValue::from_static("registry/2.0"));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
