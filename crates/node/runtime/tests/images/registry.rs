//! A registry that lives as long as its test, counts what it is asked, and misbehaves on request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use gantry_runtime::image_builder::BuiltImage;

type Body = BoxBody<Bytes, io::Error>;

/// What a path does instead of answering with what it holds.
#[derive(Clone)]
pub enum Fault {
    /// Closes the connection after half of the body, so many times.
    Break(usize),
    /// Answers with this status, so many times.
    Status(StatusCode, usize),
    /// Sends half of the body and then nothing more.
    Stall,
    /// Sends other bytes than it should.
    Instead(Bytes),
    /// Sends whoever asks somewhere else.
    Redirect(String),
}

#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
    /// Where to get a token; `None`: Basic will do.
    pub realm: Option<String>,
}

/// What the registry does when it is asked for a part.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Ranges {
    #[default]
    Given,
    /// It sends all.
    Ignored,
    /// It sends another part.
    Wrong,
}

#[derive(Default)]
pub struct Content {
    answers: BTreeMap<String, (String, Bytes)>,
    pub faults: BTreeMap<String, Fault>,
    pub login: Option<Login>,
    /// These paths wait until so many of them are asked for at the same time.
    pub together: Option<(Vec<String>, usize)>,
    waiting: usize,
    /// Every request: path and the Authorization header.
    pub requests: Vec<(String, Option<String>)>,
    /// Every request for a part: path and the first byte.
    pub ranges: Vec<(String, usize)>,
    pub how_ranges: Ranges,
}

pub struct TestRegistry {
    pub address: SocketAddr,
    pub content: Arc<Mutex<Content>>,
    pub stalled: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub const TOKEN: &str = "a-token";

impl TestRegistry {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Over https, with the certificate (PEM) that vouches for it.
    pub async fn start_tls() -> (Self, String) {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key =
            rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Self::start_with(Some(acceptor)).await, certified.cert.pem())
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let content = Arc::new(Mutex::new(Content::default()));
        let stalled = Arc::new(Notify::new());
        let shared = (content.clone(), stalled.clone(), Arc::new(Notify::new()));
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, tls) = (shared.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(shared, stream).await,
                        Some(tls) => {
                            // A client that does not trust it hangs up.
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(shared, stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            content,
            stalled,
            server,
        }
    }

    pub fn put(&self, path: &str, media_type: &str, bytes: impl Into<Bytes>) {
        let answer = (media_type.to_owned(), bytes.into());
        self.content
            .lock()
            .unwrap()
            .answers
            .insert(path.to_owned(), answer);
    }

    pub fn put_blob(&self, repository: &str, bytes: &Bytes) {
        let path = blob_path(repository, &crate::layers::digest(bytes));
        self.put(&path, "application/octet-stream", bytes.clone());
    }

    /// Under a tag and under its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, bytes: &Bytes) {
        for selector in [tag, &crate::layers::digest(bytes)] {
            let path = format!("/v2/{repository}/manifests/{selector}");
            self.put(
                &path,
                "application/vnd.oci.image.manifest.v1+json",
                bytes.clone(),
            );
        }
    }

    pub fn put_built(&self, repository: &str, tag: &str, image: &BuiltImage) {
        self.put_blob(repository, &image.config.bytes);
        self.put_blob(repository, &image.layer.bytes);
        self.put_manifest(repository, tag, &image.manifest.bytes);
    }

    pub fn fault(&self, path: &str, fault: Fault) {
        self.content
            .lock()
            .unwrap()
            .faults
            .insert(path.to_owned(), fault);
    }

    /// How often this was asked for.
    pub fn count(&self, part_of_path: &str) -> usize {
        let content = self.content.lock().unwrap();
        content
            .requests
            .iter()
            .filter(|(path, _)| path.contains(part_of_path))
            .count()
    }

    pub fn requests(&self) -> Vec<(String, Option<String>)> {
        self.content.lock().unwrap().requests.clone()
    }

    pub fn ranges(&self) -> Vec<(String, usize)> {
        self.content.lock().unwrap().ranges.clone()
    }

    pub fn reference(&self, name: &str) -> gantry_runtime::ImageReference {
        format!("{}/{name}", self.address).parse().unwrap()
    }
}

pub fn blob_path(repository: &str, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

async fn serve(shared: Shared, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(move |request| answer(shared.clone(), request));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Shared = (Arc<Mutex<Content>>, Arc<Notify>, Arc<Notify>);

async fn answer(shared: Shared, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (content, stalled, together) = shared;
    let path = request.uri().path().to_owned();
    let authorization = request
        .headers()
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap().to_owned());
    let from = request
        .headers()
        .get(header::RANGE)
        .map(|range| range.to_str().unwrap().to_owned())
        .and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
    let (fault, held, from) = {
        let mut content = content.lock().unwrap();
        content
            .ranges
            .extend(from.map(|from: usize| (path.clone(), from)));
        let from = match content.how_ranges {
            Ranges::Given => from.map(|from| (from, from)),
            Ranges::Ignored => None,
            Ranges::Wrong => from.map(|from| (from - 1, from - 1)),
        };
        content.requests.push((path.clone(), authorization.clone()));
        if let Some(login) = content.login.clone()
            && let Some(refusal) = refuse(&login, &path, authorization.as_deref())
        {
            return Ok(refusal);
        }
        let fault = content.faults.get(&path).cloned();
        match content.faults.get_mut(&path) {
            Some(Fault::Break(times) | Fault::Status(_, times)) if *times > 1 => *times -= 1,
            Some(Fault::Break(_) | Fault::Status(..)) => {
                content.faults.remove(&path);
            }
            _ => {}
        }
        (fault, content.answers.get(&path).cloned(), from)
    };
    wait_together(&content, &together, &path).await;
    let Some((media_type, bytes)) = held else {
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        return Ok(whole(
            StatusCode::NOT_FOUND,
            "application/json",
            unknown.into(),
        ));
    };
    let size = bytes.len();
    let bytes = bytes.slice(from.map_or(0, |(from, _)| from)..);
    let half = bytes.slice(..bytes.len() / 2);
    let mut answer = Response::builder().header(header::CONTENT_LENGTH, bytes.len());
    if let Some((_, said)) = from {
        let range = format!("bytes {said}-{}/{size}", size - 1);
        answer = answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, range);
    }
    Ok(match fault {
        None if from.is_some() => answer.body(body(vec![Ok(bytes)])).unwrap(),
        None => whole(StatusCode::OK, &media_type, bytes),
        Some(Fault::Instead(other)) => whole(StatusCode::OK, &media_type, other),
        Some(Fault::Status(status, _)) => whole(status, "text/plain", Bytes::new()),
        Some(Fault::Redirect(to)) => Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(header::LOCATION, to)
            .body(body(vec![]))
            .unwrap(),
        Some(Fault::Break(_)) => {
            let first = stream::iter([Ok(Frame::data(half))]);
            let then = stream::once(async {
                // A server that waits sends what it has.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                Err(io::ErrorKind::ConnectionReset.into())
            });
            answer
                .body(BoxBody::new(StreamBody::new(first.chain(then))))
                .unwrap()
        }
        Some(Fault::Stall) => {
            let first = stream::iter([Ok(Frame::data(half))]);
            let then = stream::once(async move {
                stalled.notify_one();
                std::future::pending().await
            });
            answer
                .body(BoxBody::new(StreamBody::new(first.chain(then))))
                .unwrap()
        }
    })
}

/// A client that fetches one blob after the other never gets past this.
async fn wait_together(content: &Mutex<Content>, together: &Notify, path: &str) {
    let opened = together.notified();
    tokio::pin!(opened);
    opened.as_mut().enable();
    {
        let mut content = content.lock().unwrap();
        let Some((paths, wanted)) = content.together.clone() else {
            return;
        };
        if !paths.iter().any(|held| held == path) {
            return;
        }
        content.waiting += 1;
        if content.waiting >= wanted {
            content.together = None;
            together.notify_waiters();
            return;
        }
    }
    opened.await;
}

fn refuse(login: &Login, path: &str, authorization: Option<&str>) -> Option<Response<Body>> {
    let encoded = base64::engine::general_purpose::STANDARD
        .encode(format!("{}:{}", login.user, login.password));
    let basic = format!("Basic {encoded}");
    if path == "/token" {
        return Some(if authorization == Some(&basic) {
            let token = format!(r#"{{"token":"{TOKEN}"}}"#);
            whole(StatusCode::OK, "application/json", token.into())
        } else {
            whole(StatusCode::UNAUTHORIZED, "text/plain", Bytes::new())
        });
    }
    let (wanted, challenge) = match &login.realm {
        Some(realm) => (
            format!("Bearer {TOKEN}"),
            format!(r#"Bearer realm="{realm}",service="test""#),
        ),
        None => (basic, r#"Basic realm="test""#.to_owned()),
    };
    if authorization == Some(&wanted) {
        return None;
    }
    let mut refusal = whole(StatusCode::UNAUTHORIZED, "text/plain", Bytes::new());
    refusal
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
    Some(refusal)
}

fn whole(status: StatusCode, media_type: &str, bytes: Bytes) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, bytes.len())
        .body(body(vec![Ok(bytes)]))
        .unwrap()
}

fn body(chunks: Vec<io::Result<Bytes>>) -> Body {
    BoxBody::new(StreamBody::new(stream::iter(
        chunks.into_iter().map(|chunk| chunk.map(Frame::data)),
    )))
}
