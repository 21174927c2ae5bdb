//! TLS on the same port, and HTTP/2 with and without it.

use std::sync::Arc;

use gantry_api::auth::CredentialPolicy;
use gantry_api::client::{Client, ClientLimits};
use gantry_api::{ecs, tls};
use gantry_env::Env;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::toy::{KEY, Keys, Raw, Toy, credentials, region, within};

async fn secure_toy() -> (Toy, tls::Authority, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let env = Env::real();
    let authority = tls::Authority::open(directory.path(), env.now()).unwrap();
    let config = authority
        .server_config(&["builder.lan".to_owned()], env.now())
        .unwrap();
    let policy = CredentialPolicy::Verify(Arc::new(Keys));
    (
        Toy::start_with(env, policy, |it| it.tls(config)).await,
        authority,
        directory,
    )
}

#[tokio::test]
async fn one_port_speaks_plain_and_tls() {
    let (toy, authority, _directory) = secure_toy().await;
    assert_eq!(toy.send(&Raw::json("ListClusters")).await.status, 200);
    let trust = tls::client_config(authority.certificate_pem()).unwrap();
    let endpoint = |host: &str| format!("https://{host}:{}", toy.address.port());
    let client = |endpoint: &str, trust| {
        let credentials = Arc::new(credentials(KEY, None));
        Client::with(
            endpoint,
            region(),
            credentials,
            Env::real(),
            trust,
            ClientLimits::default(),
        )
    };
    for host in ["localhost", "127.0.0.1"] {
        let client = client(&endpoint(host), Some(trust.clone())).unwrap();
        let output = within(client.call::<ecs::ListClusters>(Default::default()))
            .await
            .unwrap();
        assert_eq!(output.cluster_arns, Some(vec!["eu-west-3".to_owned()]));
        let mut socket = within(client.websocket("/acs/ws", &[])).await.unwrap();
        assert!(
            within(futures_util::StreamExt::next(&mut socket))
                .await
                .unwrap()
                .is_ok()
        );
    }
    assert!(
        client(&endpoint("localhost"), None).is_err(),
        "https needs something to trust"
    );
    let other = tempfile::tempdir().unwrap();
    let other = tls::Authority::open(other.path(), toy.env.now()).unwrap();
    let other = tls::client_config(other.certificate_pem()).unwrap();
    let wary = client(&endpoint("localhost"), Some(other)).unwrap();
    let error = within(wary.call::<ecs::ListClusters>(Default::default()))
        .await
        .unwrap_err();
    assert_eq!(error.code, "ConnectionError");
    toy.stopped().await;
}

async fn http2_health<S>(stream: S, authority: &str) -> (u16, http::HeaderMap, bytes::Bytes)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://{authority}/_gantry/health"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (
        parts.status.as_u16(),
        parts.headers,
        body.collect().await.unwrap().to_bytes(),
    )
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge_and_by_negotiation() {
    let (toy, authority, _directory) = secure_toy().await;
    let (status, headers, _) = within(http2_health(toy.connect().await, "localhost")).await;
    assert_eq!(
        (status, headers.contains_key("x-amzn-requestid")),
        (200, true)
    );
    let (status, _, body) = within(http2_health(toy.connect().await, "evil.example")).await;
    assert_eq!(status, 403, "{body:?}");
    let mut config = (*tls::client_config(authority.certificate_pem()).unwrap()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(toy.address).await.unwrap();
    let name = ServerName::try_from("builder.lan").unwrap();
    let stream = within(TlsConnector::from(Arc::new(config)).connect(name, stream))
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (status, _, _) = within(http2_health(stream, "localhost")).await;
    assert_eq!(status, 200);
    toy.stopped().await;
}
