//! One document over https: from a server that the machine trusts, or whose certificate has a thumbprint that
//! was registered.
//!
//! What always holds, as IAM documents it: the machine's authorities are asked first, and only where they do not know
//! the server, the last certificate that it shows must have one of the thumbprints. Its name is checked either
//! way. Nothing is followed: an answer other than 200 is a failure.
//! What it leaves to others: when to ask (`issuers`). Proxies are not used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{Either, select};
use gantry_env::Env;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// As long as AWS waits for a provider.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 256 * 1024;

/// Where distributions keep the authorities that the machine trusts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It may go well another time.
    #[error("{0}")]
    Unreachable(String),
    #[error("the certificate of the server has none of the registered thumbprints")]
    Thumbprint,
    /// It answered, and not with what was asked for.
    #[error("{0}")]
    Refused(String),
}

/// How documents of identity providers come here. Tests bring their own.
#[async_trait]
pub trait Fetch: Send + Sync {
    async fn get(&self, url: &str, thumbprints: &[String]) -> Result<Vec<u8>, FetchError>;
}

/// The real thing.
pub struct HttpsFetch {
    env: Env,
    roots: OnceLock<Arc<RootCertStore>>,
}

impl HttpsFetch {
    pub fn new(env: Env) -> Self {
        Self {
            env,
            roots: OnceLock::new(),
        }
    }

    /// The machine's authorities, read when they are first needed.
    fn roots(&self) -> Arc<RootCertStore> {
        let read = || {
            let mut roots = RootCertStore::empty();
            for bundle in SYSTEM_BUNDLES {
                if let Ok(certificates) = CertificateDer::pem_file_iter(bundle) {
                    // A bundle may hold what rustls does not take; the others still count.
                    roots.add_parsable_certificates(certificates.flatten());
                    break;
                }
            }
            Arc::new(roots)
        };
        self.roots.get_or_init(read).clone()
    }
}

#[async_trait]
impl Fetch for HttpsFetch {
    async fn get(&self, url: &str, thumbprints: &[String]) -> Result<Vec<u8>, FetchError> {
        let work = Box::pin(exchange(self.roots(), url, thumbprints));
        match select(work, self.env.sleep(TIMEOUT)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => Err(FetchError::Unreachable(format!(
                "{url} did not answer within {} s",
                TIMEOUT.as_secs()
            ))),
        }
    }
}

async fn exchange(
    roots: Arc<RootCertStore>,
    url: &str,
    thumbprints: &[String],
) -> Result<Vec<u8>, FetchError> {
    let refused = |why: String| FetchError::Refused(format!("{url}: {why}"));
    let unreachable = |why: String| FetchError::Unreachable(format!("{url}: {why}"));
    let uri: Uri = url.parse().map_err(|_| refused("it is no URL".into()))?;
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(refused("it is no https URL".into()));
    };
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(443);
    let name =
        ServerName::try_from(host.clone()).map_err(|_| refused("its host is no name".into()))?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier {
        system: WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .ok(),
        thumbprints: thumbprints.to_vec(),
        provider: provider.clone(),
        mismatch: AtomicBool::new(false),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unreachable(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let tcp = TcpStream::connect((host.as_str(), port)).await;
    let tcp = tcp.map_err(|error| unreachable(error.to_string()))?;
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await;
    let tls = tls.map_err(|error| match verifier.mismatch.load(Ordering::Relaxed) {
        true => FetchError::Thumbprint,
        false => unreachable(error.to_string()),
    })?;

    let (mut sender, connection) = http1::handshake(TokioIo::new(tls))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    // Ends with this function, however that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| refused(error.to_string()))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| unreachable(error.to_string()))?;
    let status = answer.status();
    if status.is_server_error() {
        return Err(unreachable(format!("it answered {status}")));
    }
    if status != http::StatusCode::OK {
        return Err(refused(format!("it answered {status}")));
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    let body = body.map_err(|error| refused(error.to_string()))?;
    Ok(body.to_bytes().to_vec())
}

/// Believes whom the machine believes, and whoever was registered by a thumbprint.
#[derive(Debug)]
struct Verifier {
    system: Option<Arc<WebPkiServerVerifier>>,
    thumbprints: Vec<String>,
    provider: Arc<CryptoProvider>,
    /// That this is why a connection failed.
    mismatch: AtomicBool,
}

impl Verifier {
    fn is_registered(&self, certificate: &CertificateDer<'_>) -> bool {
        let print = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
        let print: String = print
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut known = self.thumbprints.iter();
        known.any(|known| known.eq_ignore_ascii_case(&print))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(system) = &self.system {
            let trusted = system.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
            if trusted.is_ok() {
                return trusted;
            }
        }
        let last = intermediates.last().unwrap_or(end_entity);
        if !self.is_registered(last) {
            self.mismatch.store(true, Ordering::Relaxed);
            return Err(rustls::Error::General(
                "no registered thumbprint".to_owned(),
            ));
        }
        let Some((_, between)) = intermediates.split_last() else {
            // Whoever registered a server's own certificate trusts it for as long as it is registered.
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        };
        // A copy of a registered certificate proves nothing by itself: the server's must come from it.
        let mut roots = RootCertStore::empty();
        roots.add(last.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, between, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
