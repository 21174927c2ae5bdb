//! A small signed client for Gantry's own callers: the agent, and `gantry explain`.
//!
//! Connections are pooled and every wait is bounded. A call is one attempt: callers own retries,
//! with [`backoff`] as the one formula. Time and randomness come from `gantry_env`. Only awsJson
//! is written here, because every service that Gantry's own callers use speaks it.

mod connector;
mod error;
mod websocket;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use gantry_arn::Region;
use gantry_env::Env;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use self::connector::Connector;
pub use self::error::{ClientError, backoff};
pub use self::websocket::ClientSocket;
use crate::protocol::json;
use crate::server::RequestBody;
use crate::service::Operation;
use crate::sigv4::{Payload, Signing, SigningCredentials, SigningScope, sign};

/// Where the secrets of a caller come from. Asked before every call, so a provider that renews
/// its credentials needs nothing else.
#[async_trait]
pub trait CredentialsProvider: Send + Sync {
    async fn credentials(&self) -> Result<SigningCredentials, ClientError>;
}

/// Credentials that never change.
#[async_trait]
impl CredentialsProvider for SigningCredentials {
    async fn credentials(&self) -> Result<SigningCredentials, ClientError> {
        Ok(self.clone())
    }
}

/// How long a client waits, and how much it takes.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    pub connect_timeout: Duration,
    /// A whole call, answer included.
    pub call_timeout: Duration,
    /// The longest silence inside a streamed answer.
    pub stream_progress_timeout: Duration,
    /// Below the server's own, so that a pooled connection is not closed under a request.
    pub pool_idle_timeout: Duration,
    pub idle_connections: usize,
    pub answer_bytes: usize,
    pub websocket_message_bytes: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(60),
            stream_progress_timeout: Duration::from_secs(30),
            pool_idle_timeout: Duration::from_secs(50),
            idle_connections: 8,
            answer_bytes: 32 * 1024 * 1024,
            websocket_message_bytes: 4 * 1024 * 1024,
        }
    }
}

/// A client of one endpoint. Cloning shares its connections.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    scheme: Scheme,
    authority: Authority,
    /// What the endpoint's own path puts before every path, without a final slash.
    base_path: Arc<str>,
    region: Region,
    credentials: Arc<dyn CredentialsProvider>,
    env: Env,
    limits: ClientLimits,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Client({}://{}{})",
            self.scheme, self.authority, self.base_path
        )
    }
}

impl Client {
    /// A client of `endpoint` (`http://localhost:4566`, with a path if it has one).
    pub fn new(
        endpoint: &str,
        region: Region,
        credentials: Arc<dyn CredentialsProvider>,
        env: Env,
    ) -> Result<Self, ClientError> {
        Self::with(
            endpoint,
            region,
            credentials,
            env,
            None,
            ClientLimits::default(),
        )
    }

    /// The same with other limits, and with the authorities to trust for `https`
    /// (see [`crate::tls::client_config`]).
    pub fn with(
        endpoint: &str,
        region: Region,
        credentials: Arc<dyn CredentialsProvider>,
        env: Env,
        tls: Option<Arc<rustls::ClientConfig>>,
        limits: ClientLimits,
    ) -> Result<Self, ClientError> {
        let bad = || ClientError::misuse(format!("'{endpoint}' is not the URL of an endpoint"));
        let parts = endpoint.parse::<Uri>().map_err(|_| bad())?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(bad());
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(bad());
        }
        if scheme == Scheme::HTTPS && tls.is_none() {
            return Err(ClientError::misuse(format!(
                "'{endpoint}' needs the certificate of the authority to trust"
            )));
        }
        let base_path = parts
            .path_and_query
            .map(|path| path.path().to_owned())
            .unwrap_or_default();
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.pool_idle_timeout)
            .pool_max_idle_per_host(limits.idle_connections)
            .build(Connector::new(tls, limits.connect_timeout));
        let base_path = base_path.trim_end_matches('/').into();
        Ok(Self {
            http,
            scheme,
            authority,
            base_path,
            region,
            credentials,
            env,
            limits,
        })
    }

    /// Calls an operation once.
    pub async fn call<O: Operation>(&self, input: O::Input) -> Result<O::Output, ClientError> {
        let service = O::service();
        let Some(prefix) = service.target_prefix else {
            return Err(ClientError::misuse(format!(
                "{} does not speak awsJson",
                service.name
            )));
        };
        let body = Bytes::from(json::write(&input));
        let version = service.json_version.unwrap_or("1.1");
        let mut headers = HeaderMap::new();
        insert(
            &mut headers,
            CONTENT_TYPE,
            &format!("application/x-amz-json-{version}"),
        )?;
        let target = format!("{prefix}.{}", O::NAME);
        insert(
            &mut headers,
            HeaderName::from_static("x-amz-target"),
            &target,
        )?;
        let request = self
            .signed(Method::POST, "/", "", headers, body, service.signing_name)
            .await?;
        let (status, answer) = self.within_call(self.exchange(request)).await?;
        if !(200..300).contains(&status) {
            return Err(ClientError::answered(json::read_error(status, &answer)));
        }
        let mut output = O::Output::default();
        json::read(&answer, &mut output).map_err(|error| {
            ClientError::unreadable(format!("the answer to {} cannot be read: {error}", O::NAME))
        })?;
        Ok(output)
    }

    /// A plain GET of `path_and_query` at the endpoint with the caller's own headers (Basic or
    /// Bearer), its answer streamed: what registry blobs come by. The status is the caller's to
    /// judge.
    pub async fn get(
        &self,
        path_and_query: &str,
        headers: HeaderMap,
    ) -> Result<Response<RequestBody>, ClientError> {
        let (path, query) = path_and_query
            .split_once('?')
            .unwrap_or((path_and_query, ""));
        let mut request = self.request(Method::GET, path, query, Bytes::new())?;
        request.headers_mut().extend(headers);
        let response = self.within_call(self.send(request)).await?;
        let timeout = self.limits.stream_progress_timeout;
        Ok(response.map(|body| RequestBody::new(body, self.env.clone(), timeout)))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), ClientError> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let timeout = self.limits.stream_progress_timeout;
        let mut body = RequestBody::new(response.into_body(), self.env.clone(), timeout);
        let bytes = body
            .whole(self.limits.answer_bytes)
            .await
            .map_err(|error| ClientError::unreachable(error.to_string()))?;
        Ok((status, bytes))
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, ClientError> {
        self.http
            .request(request)
            .await
            .map_err(|error| ClientError::from_http(&error))
    }

    async fn within_call<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let timeout = self.env.sleep(self.limits.call_timeout);
        match select(Box::pin(work), timeout).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(ClientError::timed_out(self.limits.call_timeout)),
        }
    }

    /// A request of `path` below the endpoint's own, with its Host.
    fn request(
        &self,
        method: Method,
        path: &str,
        query: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mark = if query.is_empty() { "" } else { "?" };
        let path_and_query = format!("{}{path}{mark}{query}", self.base_path);
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path_and_query)
            .build()
            .map_err(|error| ClientError::misuse(error.to_string()))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        insert(request.headers_mut(), HOST, self.host())?;
        Ok(request)
    }

    fn host(&self) -> &str {
        let authority = self.authority.as_str();
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
    }

    async fn signed(
        &self,
        method: Method,
        path: &str,
        query: &str,
        headers: HeaderMap,
        body: Bytes,
        service: &str,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let payload = Payload::of(&body);
        let mut request = self.request(method, path, query, body)?;
        request.headers_mut().extend(headers);
        let credentials = self.credentials.credentials().await?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let signing = Signing {
            method: &method,
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            payload,
            credentials: &credentials,
            scope: SigningScope {
                region: self.region.as_str(),
                service,
            },
            now: self.env.now(),
        };
        sign(&signing, request.headers_mut())
            .map_err(|error| ClientError::misuse(error.to_string()))?;
        Ok(request)
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), ClientError> {
    let value = HeaderValue::from_str(value)
        .map_err(|_| ClientError::misuse(format!("'{value}' cannot be the header {name}")))?;
    headers.insert(name, value);
    Ok(())
}
