//! Everything that reads what a stranger sent as credentials never panics.

use gantry_api::sigv4::{Payload, Presented, SecretOf, Signable, UnsignedPayload};
use gantry_env::Timestamp;
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

/// Texts that look like an Authorization header, mangled.
fn authorization() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("AWS4-HMAC-SHA256 ".to_owned()),
        Just("Credential=AKIDEXAMPLE/20260101/us-east-1/ecs/aws4_request".to_owned()),
        Just("SignedHeaders=host;x-amz-date".to_owned()),
        Just("Signature=".to_owned()),
        Just(", ".to_owned()),
        Just("=/;,".to_owned()),
        "[a-f0-9]{0,70}",
        "\\PC{0,12}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn query() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("X-Amz-Algorithm=AWS4-HMAC-SHA256".to_owned()),
        Just("X-Amz-Credential=A%2F20260101%2Fus-east-1%2Fecs%2Faws4_request".to_owned()),
        Just("X-Amz-Date=20260101T000000Z".to_owned()),
        Just("X-Amz-SignedHeaders=host".to_owned()),
        Just("X-Amz-Signature=00".to_owned()),
        "X-Amz-Expires=\\PC{0,24}",
        "X-Amz-[A-Z]{1,8}=[%0-9a-zA-Z+]{0,16}",
        "\\PC{0,12}",
    ];
    proptest::collection::vec(piece, 0..9).prop_map(|pieces| pieces.join("&"))
}

fn judge(headers: &HeaderMap, query: &str) {
    let Ok(presented) = Presented::read(headers, query) else {
        return;
    };
    let request = Signable {
        method: &Method::GET,
        path: "/",
        query,
        headers,
        authority: Some("localhost"),
    };
    let secret = SecretOf {
        secret: "secret",
        session_token: None,
        expiration: None,
    };
    let payload = Presented::payload(headers, b"", UnsignedPayload::Allowed);
    let now = Timestamp::from_millis(1_767_225_600_000);
    assert!(
        presented
            .verify(&request, payload, secret, "ecs", now)
            .is_err()
    );
    assert!(
        presented
            .verify(&request, Payload::Unsigned, secret, "ecs", Timestamp::MAX)
            .is_err()
    );
}

proptest! {
    #[test]
    fn any_authorization_header_is_judged(text in authorization(), date in "\\PC{0,20}") {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert("authorization", value);
        }
        if let Ok(value) = HeaderValue::from_bytes(date.as_bytes()) {
            headers.insert("x-amz-date", value);
        }
        judge(&headers, "");
        headers.insert("x-amz-date", HeaderValue::from_static("20260101T000000Z"));
        judge(&headers, "");
    }

    #[test]
    fn any_bytes_in_headers_are_judged(bytes: Vec<u8>) {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "x-amz-date", "x-amz-security-token", "host"] {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.insert(name, value);
            }
        }
        judge(&headers, "");
    }

    #[test]
    fn any_presigned_query_is_judged(text in query()) {
        judge(&HeaderMap::new(), &text);
    }
}
