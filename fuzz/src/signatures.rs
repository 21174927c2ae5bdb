//! SigV4, in headers and in the query.

use gantry_api::sigv4::{
    Payload, Presented, SecretOf, Signable, Signing, SigningCredentials, SigningScope, presign,
    sign,
};
use gantry_env::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{first_line, text};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

struct Request<'a> {
    method: Method,
    path: &'a str,
    query: &'a str,
    headers: HeaderMap,
    body: &'a [u8],
}

/// `METHOD PATH?QUERY`, headers, an empty line, the body.
fn request(data: &[u8]) -> Option<Request<'_>> {
    let (first, mut rest) = first_line(data);
    let (method, target) = text(first)?.split_once(' ')?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    loop {
        let (line, after) = first_line(rest);
        rest = after;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            break;
        };
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?);
    }
    Some(Request {
        method: method.parse().ok()?,
        path,
        query,
        headers,
        body: rest,
    })
}

fn secret(secret: &str) -> SecretOf<'_> {
    SecretOf {
        secret,
        session_token: None,
        expiration: None,
    }
}

/// Whatever a stranger presents, it is not the signature of a secret that it does not know.
pub fn presented(data: &[u8]) {
    let Some(request) = request(data) else { return };
    let Ok(presented) = Presented::read(&request.headers, request.query) else {
        return;
    };
    let signable = Signable {
        method: &request.method,
        path: request.path,
        query: request.query,
        headers: &request.headers,
        authority: Some("localhost"),
    };
    let payload = Payload::of(request.body);
    let found = presented.verify(&signable, payload, secret("unknown"), "ecs", NOW);
    assert!(found.is_err(), "{presented:?}");
    let rejection = found.unwrap_err();
    assert!(!rejection.message().is_empty() && rejection.json_code().1 >= 400);
}

/// What is signed is verified, in headers and presigned, and not with another body, path or secret.
pub fn round_trip(data: &[u8]) {
    let Some(mut request) = request(data) else {
        return;
    };
    for name in ["authorization", "x-amz-security-token", "x-amz-date"] {
        request.headers.remove(name);
    }
    // What is signed already is not signed again.
    if request.query.contains("X-Amz-") || request.path.contains('?') {
        return;
    }
    request
        .headers
        .entry("host")
        .or_insert(HeaderValue::from_static("localhost:4566"));
    let credentials = SigningCredentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret: "known".to_owned(),
        session_token: None,
    };
    let signing = Signing {
        method: &request.method,
        path: request.path,
        query: request.query,
        payload: Payload::of(request.body),
        credentials: &credentials,
        scope: SigningScope {
            region: "us-east-1",
            service: "ecs",
        },
        now: NOW,
    };
    let unsigned = request.headers.clone();
    sign(&signing, &mut request.headers).expect("headers that are headers");
    let other_body = [request.body, b"x"].concat();
    let other_path = format!("{}x", request.path);
    let verify = |headers: &HeaderMap, path: &str, query: &str, payload, key| {
        let signable = Signable {
            method: &request.method,
            path,
            query,
            headers,
            authority: Some("localhost:4566"),
        };
        Presented::read(headers, query)
            .and_then(|presented| presented.verify(&signable, payload, secret(key), "ecs", NOW))
    };
    let (headers, path, query) = (&request.headers, request.path, request.query);
    assert_eq!(
        verify(headers, path, query, signing.payload, "known"),
        Ok(())
    );
    assert!(verify(headers, path, query, signing.payload, "unknown").is_err());
    assert!(verify(headers, path, query, Payload::of(&other_body), "known").is_err());
    assert!(verify(headers, &other_path, query, signing.payload, "known").is_err());

    let host = unsigned
        .get("host")
        .and_then(|host| host.to_str().ok())
        // A presigned request is for a URL, whose host has no spaces.
        .filter(|host| !host.contains([' ', '\t']))
        .unwrap_or("localhost:4566");
    let mut only_host = HeaderMap::new();
    if let Ok(host) = HeaderValue::from_str(host) {
        only_host.insert("host", host);
    }
    let presigned = presign(&signing, host, 60);
    let found = verify(&only_host, path, &presigned, signing.payload, "known");
    assert_eq!(found, Ok(()), "{presigned}");
    assert!(
        verify(
            &only_host,
            &other_path,
            &presigned,
            signing.payload,
            "known"
        )
        .is_err()
    );
}
