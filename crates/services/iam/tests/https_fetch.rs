//! Documents over real TLS: whom a thumbprint lets in, and what is not taken.

use std::net::SocketAddr;
use std::sync::Arc;

use gantry_env::Env;
use gantry_iam::{Fetch, FetchError, HttpsFetch};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ring::digest;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn thumbprint(certificate: &CertificateDer<'_>) -> Vec<String> {
    let print = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
    vec![
        print
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect(),
    ]
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// A certificate that vouches for itself, as `openssl req -x509` makes them: an authority too.
fn self_signed(name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Identity {
        chain: vec![params.self_signed(&key).unwrap().der().clone()],
        key: private(&key),
    }
}

/// A server's certificate and the authority that made it.
fn issued() -> (Identity, Vec<String>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap().der().clone();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
    let print = thumbprint(&root);
    let chain = vec![leaf, root];
    let key = private(&key);
    (Identity { chain, key }, print)
}

/// Serves one answer to whoever comes.
async fn serve(identity: Identity, answer: String) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // Clients that do not like the certificate leave in the middle.
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let mut request = [0; 4096];
            let _ = tls.read(&mut request).await;
            let _ = tls.write_all(answer.as_bytes()).await;
            let _ = tls.shutdown().await;
        }
    });
    address
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn get(url: String, thumbprints: &[String]) -> Result<Vec<u8>, FetchError> {
    HttpsFetch::new(Env::real()).get(&url, thumbprints).await
}

#[tokio::test]
async fn a_registered_certificate_is_believed_for_its_own_name() {
    let identity = self_signed("localhost");
    let print = thumbprint(&identity.chain[0]);
    let at = serve(identity, ok("{}")).await;
    let url = |host: &str| format!("https://{host}:{}/x", at.port());
    assert_eq!(get(url("localhost"), &print).await, Ok(b"{}".to_vec()));
    assert_eq!(
        get(url("localhost"), &[]).await,
        Err(FetchError::Thumbprint)
    );
    let other = ["0".repeat(40)];
    assert_eq!(
        get(url("localhost"), &other).await,
        Err(FetchError::Thumbprint)
    );
    // It is not a certificate of this name.
    let wrong = get(url("127.0.0.1"), &print).await;
    assert!(
        matches!(wrong, Err(FetchError::Unreachable(_))),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn a_registered_authority_vouches_for_what_it_signed_only() {
    let (identity, print) = issued();
    let authority = identity.chain[1].clone();
    let at = serve(identity, ok("{}")).await;
    let url = format!("https://localhost:{}/", at.port());
    assert_eq!(get(url, &print).await, Ok(b"{}".to_vec()));

    // Somebody else shows a copy of the authority behind a certificate of his own.
    let mut liar = self_signed("localhost");
    liar.chain.push(authority);
    let at = serve(liar, ok("{}")).await;
    let lied = get(format!("https://localhost:{}/", at.port()), &print).await;
    assert!(matches!(lied, Err(FetchError::Unreachable(_))), "{lied:?}");
}

#[tokio::test]
async fn only_a_small_plain_answer_is_taken() {
    for (answer, reachable) in [
        (
            "HTTP/1.1 302 Found\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            true,
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            true,
        ),
        (
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned(),
            false,
        ),
        ("nonsense\r\n\r\n".to_owned(), false),
        (ok(&"x".repeat(256 * 1024 + 1)), true),
    ] {
        let identity = self_signed("localhost");
        let print = thumbprint(&identity.chain[0]);
        let at = serve(identity, answer.clone()).await;
        let got = get(format!("https://localhost:{}/", at.port()), &print).await;
        let expected = match reachable {
            true => matches!(got, Err(FetchError::Refused(_))),
            false => matches!(got, Err(FetchError::Unreachable(_))),
        };
        assert!(expected, "{got:?} for {}", &answer[..20]);
    }
    for url in [
        "http://localhost:1/",
        "file:///etc/passwd",
        "localhost",
        "https:///x",
    ] {
        let got = get(url.to_owned(), &[]).await;
        assert!(matches!(got, Err(FetchError::Refused(_))), "{url}: {got:?}");
    }
    // Nobody listens on port 1 of loopback.
    let got = get("https://127.0.0.1:1/".to_owned(), &[]).await;
    assert!(matches!(got, Err(FetchError::Unreachable(_))), "{got:?}");
}
