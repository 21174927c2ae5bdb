//! Bytes that no client of AWS sends: malformed heads, and shapes that would smuggle a second
//! request past a proxy that reads them differently.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::auth::CredentialPolicy;
use gantry_api::server::Limits;
use gantry_env::Env;

use crate::toy::{Keys, Raw, Toy};

/// A head with these lines, and a body in which a second request hides.
fn shaped(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /v2/x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{body}").into_bytes()
}

const HIDDEN: &str = "GET /_gantry/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn ambiguous_lengths_never_yield_a_second_request() {
    // Some of these bodies never end.
    let limits = Limits {
        body_progress_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let policy = CredentialPolicy::Verify(Arc::new(Keys));
    let toy = Toy::start_with(Env::real(), policy, |it| it.limits(limits)).await;
    for lines in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: +4",
        "Content-Length: -1",
        "Content-Length: 0x4",
        "Content-Length: 99999999999999999999999999",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Content-Length : 4",
        "Content-Length: 4\r\n folded: yes",
    ] {
        let body = format!("0\r\n\r\n{HIDDEN}");
        let answer = toy.exchange(&shaped(lines, &body)).await;
        assert!(
            !answer.body.contains("serving"),
            "{lines:?} smuggled: {answer:?}"
        );
        assert!(
            answer.status == 400 || answer.status == 0,
            "{lines:?}: {answer:?}"
        );
    }
    // Where both are given, the RFC lets the chunks count; nothing after them is read.
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ] {
        let answer = toy
            .exchange(&shaped(lines, &format!("0\r\n\r\n{HIDDEN}")))
            .await;
        assert!(
            !answer.body.contains("serving"),
            "{lines:?} smuggled: {answer:?}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{lines:?}");
    }
    for body in [
        "5\r\nhello\r\nZ\r\n",
        "ffffffffffffffffff\r\nx",
        "5;\r\nhello",
        "-1\r\n\r\n",
    ] {
        let answer = toy
            .exchange(&shaped(
                "Transfer-Encoding: chunked\r\nConnection: close",
                body,
            ))
            .await;
        assert!(!answer.body.contains("serving"), "{body:?}: {answer:?}");
    }
    assert_eq!(toy.send(&Raw::json("ListClusters")).await.status, 200);
    toy.stopped().await;
}

#[tokio::test]
async fn malformed_heads_are_refused_and_the_server_lives() {
    let toy = Toy::start().await;
    let long = format!(
        "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let many = format!(
        "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X: y\r\n".repeat(200)
    );
    for (bytes, expected) in [
        (b"\r\n\r\n\x00\x01\x02\r\n\r\n".as_slice(), 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: local\x00host\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        (b"GET  /  HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (
            b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            400,
        ),
        (
            b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            400,
        ),
        (long.as_bytes(), 431),
        (many.as_bytes(), 431),
    ] {
        let answer = toy.exchange(bytes).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert_eq!(answer.status, expected, "{shown:?}: {answer:?}");
    }
    assert_eq!(toy.send(&Raw::json("ListClusters")).await.status, 200);
    toy.stopped().await;
}
