//! The client's side of a registry: manifests and blobs of one repository, with whatever login it asks for.
//!
//! What always holds: credentials go to the registry they were given for and to the token service it names
//! over a connection no weaker than its own; a redirect to another host gets none, and none leads from https to
//! http. A manifest or a small blob is given out only with the digest that was asked for.
//! What it leaves to others: what the bytes mean, and the digests of blobs that are streams.

mod http_client;

pub(crate) use http_client::{HttpClient, RegistryError};

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use serde::Deserialize;

use super::challenge::BearerChallenge;
use super::digest::Digest;
use super::manifest::{ACCEPT, MANIFEST_BYTES_MAX, shorten};
use super::{ImageReference, RegistryAccess};

const REDIRECTS_MAX: usize = 5;
const ERROR_BYTES_MAX: u64 = 64 << 10;
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// One repository at its registry.
pub(crate) struct Repository {
    http: HttpClient,
    /// `scheme://authority`.
    base: Uri,
    name: String,
    basic: Option<HeaderValue>,
    /// What is sent now: as given at first, then the token that the registry's service gave out.
    authorization: Mutex<Option<HeaderValue>>,
}

/// What is asked of the registry.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    path: &'a str,
    accept: Option<&'static str>,
    /// The first byte.
    from: u64,
}

/// A manifest as it came.
pub(crate) struct RawManifest {
    pub digest: Digest,
    pub bytes: Bytes,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    errors: Vec<ErrorDetail>,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Repository {
    /// `insecure`: registries (`host[:port]`) beside this machine's own that are spoken to without TLS.
    pub fn new(
        http: HttpClient,
        reference: &ImageReference,
        access: &RegistryAccess,
        insecure: &[String],
    ) -> Result<Self, RegistryError> {
        let endpoint = match &access.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => default_endpoint(reference.registry(), insecure),
        };
        let refused =
            || RegistryError::Refused(format!("{endpoint:?} is not the address of a registry"));
        let base: Uri = endpoint.parse().map_err(|_| refused())?;
        let known_scheme = matches!(base.scheme_str(), Some("http" | "https"));
        if !known_scheme || base.authority().is_none() || !matches!(base.path(), "" | "/") {
            return Err(refused());
        }
        let secret = |scheme: &str, text: &str| {
            let mut value = HeaderValue::try_from(format!("{scheme} {text}")).map_err(|_| {
                RegistryError::Refused("the credentials have control characters".to_owned())
            })?;
            value.set_sensitive(true);
            Ok::<_, RegistryError>(value)
        };
        let basic = access
            .basic
            .as_ref()
            .map(|(user, password)| secret("Basic", &STANDARD.encode(format!("{user}:{password}"))))
            .transpose()?;
        let bearer = access
            .bearer
            .as_ref()
            .map(|token| secret("Bearer", token))
            .transpose()?;
        Ok(Self {
            http,
            base,
            name: reference.repository().to_owned(),
            authorization: Mutex::new(bearer.or_else(|| basic.clone())),
            basic,
        })
    }

    /// The manifest or index that a tag or digest stands for. Its digest has been verified.
    pub async fn manifest(&self, selector: &str) -> Result<RawManifest, RegistryError> {
        let mut tries = self.http.tries();
        loop {
            match self.manifest_once(selector).await {
                Err(error) => tries.again_after(error).await?,
                done => return done,
            }
        }
    }

    async fn manifest_once(&self, selector: &str) -> Result<RawManifest, RegistryError> {
        let path = format!("/v2/{}/manifests/{selector}", self.name);
        let wanted = Wanted {
            path: &path,
            accept: Some(ACCEPT),
            from: 0,
        };
        let answer = self.get(wanted).await?;
        let promised = answer
            .headers()
            .get("docker-content-digest")
            .and_then(|value| Digest::parse(value.to_str().ok()?));
        let bytes = self
            .http
            .collect(answer.into_body(), MANIFEST_BYTES_MAX)
            .await?;
        let digest = Digest::of(&bytes);
        let expected = Digest::parse(selector).or(promised);
        if expected.is_some_and(|expected| expected != digest) {
            return Err(RegistryError::Refused(format!(
                "the manifest of {selector} has another digest: {digest}"
            )));
        }
        Ok(RawManifest { digest, bytes })
    }

    /// A small blob, whole. Its digest has been verified.
    pub async fn small_blob(
        &self,
        digest: &Digest,
        size: u64,
        limit: u64,
    ) -> Result<Bytes, RegistryError> {
        if size > limit {
            return Err(RegistryError::Refused(format!(
                "{digest} has {size} bytes, more than {limit}"
            )));
        }
        let mut tries = self.http.tries();
        loop {
            match self.small_blob_once(digest, size).await {
                Err(error) => tries.again_after(error).await?,
                done => return done,
            }
        }
    }

    async fn small_blob_once(&self, digest: &Digest, size: u64) -> Result<Bytes, RegistryError> {
        let body = self.blob(digest).await?;
        let bytes = self.http.collect(body, size).await?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(RegistryError::Refused(format!(
                "the blob {digest} has another digest: {actual}"
            )));
        }
        Ok(bytes)
    }

    /// A blob as a stream, whole. Not tried again: that is for whoever reads it.
    async fn blob(&self, digest: &Digest) -> Result<Incoming, RegistryError> {
        Ok(self.blob_from(digest, 0).await?.0)
    }

    /// A blob as a stream from `offset` on, or from where the registry chose to begin, which is `offset` or 0.
    /// Not tried again: that is for whoever reads it.
    pub async fn blob_from(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<(Incoming, u64), RegistryError> {
        let path = format!("/v2/{}/blobs/{digest}", self.name);
        let wanted = Wanted {
            path: &path,
            accept: None,
            from: offset,
        };
        let answer = self.get(wanted).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((answer.into_body(), 0));
        }
        let start = answer
            .headers()
            .get(header::CONTENT_RANGE)
            .and_then(|range| first_of_range(range.to_str().ok()?));
        if offset == 0 || start != Some(offset) {
            return Err(RegistryError::Refused(format!(
                "the registry answers with another range than from {offset} on"
            )));
        }
        Ok((answer.into_body(), offset))
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Gets from the registry, answering its challenge once.
    async fn get(&self, wanted: Wanted<'_>) -> Result<Response<Incoming>, RegistryError> {
        let sent = self.authorization();
        let answer = self.get_following(wanted, sent.as_ref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.checked(answer).await;
        }
        let challenge = answer
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .find_map(|value| BearerChallenge::parse(value.to_str().ok()?));
        let Some(challenge) = challenge else {
            return self.checked(answer).await;
        };
        // Another request of this pull may have got a token meanwhile.
        let now = self.authorization();
        let token = if now != sent {
            now
        } else {
            Some(self.token(&challenge).await?)
        };
        *self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = token.clone();
        let answer = self.get_following(wanted, token.as_ref()).await?;
        self.checked(answer).await
    }

    async fn get_following(
        &self,
        wanted: Wanted<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut uri = self.uri(wanted.path)?;
        for _ in 0..=REDIRECTS_MAX {
            // Scheme and authority both, so that a downgrade or another port is another host.
            let is_home =
                uri.scheme() == self.base.scheme() && uri.authority() == self.base.authority();
            let answer = self
                .http
                .get(
                    &uri,
                    wanted.accept,
                    authorization.filter(|_| is_home),
                    wanted.from,
                )
                .await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let target = answer
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| {
                    RegistryError::Refused("the registry redirects to nowhere".to_owned())
                })?;
            uri = redirected(&uri, target)?;
        }
        Err(RegistryError::Refused(format!(
            "the registry redirects more than {REDIRECTS_MAX} times"
        )))
    }

    fn uri(&self, path: &str) -> Result<Uri, RegistryError> {
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(
            path.parse()
                .map_err(|_| RegistryError::Refused(format!("{path:?} is not a path")))?,
        );
        Uri::from_parts(parts).map_err(|error| RegistryError::Refused(error.to_string()))
    }

    async fn token(&self, challenge: &BearerChallenge) -> Result<HeaderValue, RegistryError> {
        let refused =
            |why: &str| RegistryError::Denied(format!("the registry's token service {why}"));
        let mut url = challenge.realm.clone();
        let scope = match &challenge.scope {
            Some(scope) => scope.clone(),
            None => format!("repository:{}:pull", self.name),
        };
        for (key, value) in [
            ("service", challenge.service.as_deref()),
            ("scope", Some(&*scope)),
        ] {
            if let Some(value) = value {
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&format!("{key}={}", percent_encoded(value)));
            }
        }
        let uri: Uri = url.parse().map_err(|_| refused("has no proper address"))?;
        let is_home =
            uri.scheme() == self.base.scheme() && uri.authority() == self.base.authority();
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        if !is_secure && (self.base.scheme() == Some(&Scheme::HTTPS) || uri.authority().is_none()) {
            return Err(refused("is not reached over https"));
        }
        let basic = self.basic.as_ref().filter(|_| is_secure || is_home);
        let answer = self.http.get(&uri, None, basic, 0).await?;
        let status = answer.status();
        let body = self
            .http
            .collect(answer.into_body(), TOKEN_BYTES_MAX)
            .await?;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(RegistryError::Transient(format!(
                "the token service answers {status}"
            )));
        }
        if !status.is_success() {
            return Err(refused(&format!("answers {status}")));
        }
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| refused("gives no token"))?;
        let token = answer
            .token
            .or(answer.access_token)
            .ok_or_else(|| refused("gives no token"))?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| refused("gives no token"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn checked(
        &self,
        answer: Response<Incoming>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let status = answer.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(answer);
        }
        let body = self
            .http
            .collect(answer.into_body(), ERROR_BYTES_MAX)
            .await
            .unwrap_or_default();
        let said = serde_json::from_slice::<ErrorAnswer>(&body)
            .ok()
            .and_then(|answer| answer.errors.into_iter().next())
            .map(|error| format!(": {}: {}", shorten(&error.code), shorten(&error.message)))
            .unwrap_or_default();
        let text = format!("the registry answers {status}{said}");
        Err(match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied(text),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                RegistryError::Transient(text)
            }
            status if status.is_server_error() => RegistryError::Transient(text),
            _ => RegistryError::Refused(text),
        })
    }
}

/// `bytes FIRST-LAST/SIZE`.
fn first_of_range(value: &str) -> Option<u64> {
    let (first, _) = value.strip_prefix("bytes ")?.split_once('-')?;
    first.parse().ok()
}

/// https, or http where the registry is this machine, as Docker has it, or one that somebody vouched for.
fn default_endpoint(registry: &str, insecure: &[String]) -> String {
    if registry == "docker.io" {
        return "https://registry-1.docker.io".to_owned();
    }
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    let is_here = host == "localhost"
        || host.ends_with(".localhost")
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let is_plain = is_here || insecure.iter().any(|plain| plain == registry);
    let scheme = if is_plain { "http" } else { "https" };
    format!("{scheme}://{registry}")
}

fn redirected(from: &Uri, target: &str) -> Result<Uri, RegistryError> {
    let refused = || {
        RegistryError::Refused("the registry redirects to a place that is not followed".to_owned())
    };
    let uri: Uri = if target.starts_with('/') && !target.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(target.parse().map_err(|_| refused())?);
        Uri::from_parts(parts).map_err(|_| refused())?
    } else {
        target.parse().map_err(|_| refused())?
    };
    let from_secure = from.scheme() == Some(&Scheme::HTTPS);
    match uri.scheme_str() {
        Some("https") if uri.authority().is_some() => Ok(uri),
        Some("http") if uri.authority().is_some() && !from_secure => Ok(uri),
        _ => Err(refused()),
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into())
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for (registry, endpoint) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("localhost:4566", "http://localhost:4566"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("localhost.example.org", "https://localhost.example.org"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ] {
            assert_eq!(default_endpoint(registry, &[]), endpoint);
        }
        let named = ["10.0.0.1:5000".to_owned()];
        for (registry, endpoint) in [
            ("10.0.0.1:5000", "http://10.0.0.1:5000"),
            ("10.0.0.1:5001", "https://10.0.0.1:5001"),
            ("10.0.0.1", "https://10.0.0.1"),
        ] {
            assert_eq!(default_endpoint(registry, &named), endpoint);
        }
    }

    #[test]
    fn a_redirect_never_leads_to_a_weaker_connection() {
        let secure: Uri = "https://a/v2/x".parse().unwrap();
        let plain: Uri = "http://a/v2/x".parse().unwrap();
        assert_eq!(redirected(&secure, "/b?c").unwrap(), "https://a/b?c");
        assert_eq!(redirected(&plain, "https://b/").unwrap(), "https://b/");
        for target in [
            "http://a/v2/x",
            "ftp://a/",
            "file:///etc/passwd",
            "//b/c",
            "",
            "x",
        ] {
            assert!(redirected(&secure, target).is_err(), "{target}");
        }
    }
}
