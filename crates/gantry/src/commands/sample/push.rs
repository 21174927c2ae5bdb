//! Pushing one small image to the registry, as any OCI client would.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A blob and what it is.
pub struct Blob {
    pub media_type: &'static str,
    pub digest: String,
    pub bytes: Bytes,
}

/// The registry of one installation, logged in.
pub struct Registry {
    http: Client<HttpConnector, Full<Bytes>>,
    endpoint: String,
    /// The token of GetAuthorizationToken, which is `AWS:password` in base64 already.
    authorization: String,
}

impl Registry {
    pub fn new(endpoint: &str, authorization_token: &str) -> Registry {
        Registry {
            http: Client::builder(TokioExecutor::new()).build_http(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            authorization: format!("Basic {authorization_token}"),
        }
    }

    /// Pushes the blobs that the registry lacks, then the manifest under `tag`.
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        blobs: &[Blob],
        manifest: &Blob,
    ) -> anyhow::Result<()> {
        for blob in blobs {
            self.push_blob(repository, blob).await?;
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, _) = self
            .send(
                Method::PUT,
                &path,
                manifest.media_type,
                manifest.bytes.clone(),
            )
            .await?;
        if status != StatusCode::CREATED {
            bail!("the registry refused the manifest: {status}");
        }
        Ok(())
    }

    async fn push_blob(&self, repository: &str, blob: &Blob) -> anyhow::Result<()> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let (status, _) = self.send(Method::HEAD, &path, "", Bytes::new()).await?;
        if status == StatusCode::OK {
            return Ok(());
        }
        let start = format!("/v2/{repository}/blobs/uploads/");
        let (status, location) = self.send(Method::POST, &start, "", Bytes::new()).await?;
        let location = location
            .filter(|_| status == StatusCode::ACCEPTED)
            .context("the registry did not start an upload")?;
        // The location may be a path or a whole URL, and may have a query of its own.
        let path = location.strip_prefix(&self.endpoint).unwrap_or(&location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let finish = format!("{path}{separator}digest={}", blob.digest);
        let (status, _) = self
            .send(
                Method::PUT,
                &finish,
                "application/octet-stream",
                blob.bytes.clone(),
            )
            .await?;
        if status != StatusCode::CREATED {
            bail!("the registry refused blob {}: {status}", blob.digest);
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Option<String>)> {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.endpoint)
        };
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::AUTHORIZATION, &self.authorization);
        if !media_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let answer = self
            .http
            .request(request.body(Full::new(body))?)
            .await
            .with_context(|| format!("the registry at {} does not answer", self.endpoint))?;
        let status = answer.status();
        let location = answer
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        // Read to the end, so that the connection can be used again.
        let text = answer.into_body().collect().await?.to_bytes();
        if status.is_client_error() && status != StatusCode::NOT_FOUND || status.is_server_error() {
            bail!("{url}: {status}: {}", String::from_utf8_lossy(&text));
        }
        Ok((status, location))
    }
}
