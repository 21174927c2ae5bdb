//! Calls, and everything that may be wrong with their credentials, in both protocols.

use std::sync::Arc;

use gantry_api::auth::CredentialPolicy;
use gantry_api::client::Client;
use gantry_api::ecs;
use gantry_env::Env;

use crate::toy::{Answer, Keys, Raw, Toy, credentials, region};

#[tokio::test]
async fn a_signed_call_is_answered_with_a_request_id() {
    let toy = Toy::start().await;
    let answer = toy.send(&Raw::json("ListClusters")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, r#"{"clusterArns":["eu-west-3"]}"#);
    assert_eq!(
        answer.header("content-type"),
        Some("application/x-amz-json-1.1")
    );
    assert_eq!(answer.header("x-amzn-requestid").map(str::len), Some(36));
    let answer = toy.send(&Raw::query("GetCallerIdentity")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.body.contains("<Account>123456789012</Account>"),
        "{answer:?}"
    );
    assert!(
        answer
            .body
            .contains(answer.header("x-amzn-requestid").unwrap()),
        "{answer:?}"
    );
    toy.stopped().await;
}

/// A status and a code.
type Expected = (u16, &'static str);

#[tokio::test]
async fn every_fault_of_a_signature_has_its_own_error() {
    let toy = Toy::start().await;
    type Case = (&'static str, fn(&mut Raw), Expected, Expected, &'static str);
    let cases: [Case; 9] = [
        (
            "unsigned",
            |raw| raw.signed = false,
            (400, "MissingAuthenticationTokenException"),
            (403, "MissingAuthenticationToken"),
            "issing Authentication Token",
        ),
        (
            "unknown key",
            |raw| raw.key = "AKIDUNKNOWN",
            (400, "UnrecognizedClientException"),
            (403, "InvalidClientTokenId"),
            "The security token included in the request is invalid.",
        ),
        (
            "wrong secret",
            |raw| raw.secret = "wrong",
            (400, "InvalidSignatureException"),
            (403, "SignatureDoesNotMatch"),
            "The request signature we calculated does not match",
        ),
        (
            "changed body",
            |raw| {
                // Still well formed in either protocol.
                let more: &[u8] = if raw.service == "sts" { b"&A=1" } else { b" " };
                raw.other_body = Some([raw.body.as_slice(), more].concat());
            },
            (400, "InvalidSignatureException"),
            (403, "SignatureDoesNotMatch"),
            "The request signature we calculated does not match",
        ),
        (
            "another service",
            |raw| raw.service = "iam",
            (400, "InvalidSignatureException"),
            (403, "SignatureDoesNotMatch"),
            "Credential should be scoped to correct service: ",
        ),
        (
            "a clock behind",
            |raw| raw.skew_s = -16 * 60,
            (400, "InvalidSignatureException"),
            (403, "SignatureDoesNotMatch"),
            "Signature expired: ",
        ),
        (
            "a clock ahead",
            |raw| raw.skew_s = 16 * 60,
            (400, "InvalidSignatureException"),
            (403, "SignatureDoesNotMatch"),
            "Signature not yet current: ",
        ),
        (
            "an expired token",
            |raw| (raw.key, raw.token) = ("ASIAEXPIRED", Some("the-token")),
            (400, "ExpiredTokenException"),
            (403, "ExpiredToken"),
            "The security token included in the request is expired",
        ),
        (
            "half a header",
            |raw| {
                raw.signed = false;
                let half =
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/ecs/aws4_request";
                raw.unsigned_headers
                    .push(("authorization", half.to_owned()));
            },
            (400, "IncompleteSignatureException"),
            (400, "IncompleteSignature"),
            "Authorization header requires ",
        ),
    ];
    for (what, bend, json, query, message) in cases {
        for (mut raw, (status, code)) in [
            (Raw::json("ListClusters"), json),
            (Raw::query("GetCallerIdentity"), query),
        ] {
            bend(&mut raw);
            let answer = toy.send(&raw).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (status, code),
                "{what}: {answer:?}"
            );
            assert!(
                answer.body.replace("&apos;", "'").contains(message),
                "{what}: {answer:?}"
            );
            assert!(
                answer.header("x-amzn-requestid").is_some(),
                "{what}: {answer:?}"
            );
        }
    }
    let mut temporary = Raw::json("ListClusters");
    (temporary.key, temporary.token) = ("ASIATEMPORARY", Some("the-token"));
    assert_eq!(toy.send(&temporary).await.status, 200);
    temporary.token = Some("another-token");
    assert_eq!(
        toy.send(&temporary).await.code(),
        "UnrecognizedClientException"
    );
    toy.stopped().await;
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_named() {
    let toy = Toy::start().await;
    let code = |answer: &Answer| (answer.status, answer.code());
    let unknown = toy.send(&Raw::json("MakeCoffee")).await;
    assert_eq!(
        code(&unknown),
        (400, "UnknownOperationException".to_owned()),
        "{unknown:?}"
    );
    let unbuilt = toy.send(&Raw::json("CreateService")).await;
    assert_eq!(
        code(&unbuilt),
        (501, "NotImplemented".to_owned()),
        "{unbuilt:?}"
    );
    assert!(unbuilt.body.contains("ecs:CreateService"), "{unbuilt:?}");
    let mut malformed = Raw::json("ListClusters");
    malformed.body = b"{\"maxResults\":".to_vec();
    assert_eq!(
        code(&toy.send(&malformed).await),
        (400, "SerializationException".to_owned())
    );
    let unknown = toy.send(&Raw::query("MakeCoffee")).await;
    assert_eq!(
        code(&unknown),
        (400, "InvalidAction".to_owned()),
        "{unknown:?}"
    );
    let mut elsewhere = Raw::json("ListClusters").with("x-amz-target", "Nowhere.Nothing");
    elsewhere.service = "nowhere";
    assert_eq!(
        code(&toy.send(&elsewhere).await),
        (400, "UnknownOperationException".to_owned())
    );
    toy.stopped().await;
}

#[tokio::test]
async fn a_panic_is_an_internal_failure_and_the_server_lives() {
    let toy = Toy::start().await;
    for raw in [Raw::json("ListTasks"), Raw::get("/v2/panic")] {
        let answer = toy.send(&raw).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (500, "InternalFailure"),
            "{answer:?}"
        );
        assert!(
            !answer.body.contains("breaks"),
            "the cause stays inside: {answer:?}"
        );
    }
    assert_eq!(toy.send(&Raw::json("ListClusters")).await.status, 200);
    toy.stopped().await;
}

#[tokio::test]
async fn the_client_calls_reads_errors_and_reuses_its_connection() {
    let toy = Toy::start().await;
    let client = toy.client();
    for _ in 0..3 {
        let output = client
            .call::<ecs::ListClusters>(Default::default())
            .await
            .unwrap();
        assert_eq!(output.cluster_arns, Some(vec!["eu-west-3".to_owned()]));
    }
    let connections = toy.server.metrics().render();
    assert!(
        connections.contains("gantry_connections 1\n"),
        "{connections}"
    );
    let error = client
        .call::<ecs::ListTasks>(Default::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.status, error.retryable),
        ("InternalFailure", Some(500), true)
    );
    let mut wrong = credentials("AKIDEXAMPLE", None);
    wrong.secret = "wrong".to_owned();
    let stranger =
        Client::new(&toy.endpoint(), region(), Arc::new(wrong), toy.env.clone()).unwrap();
    let error = stranger
        .call::<ecs::ListClusters>(Default::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("InvalidSignatureException", false)
    );
    toy.stopped().await;
    let error = client
        .call::<ecs::ListClusters>(Default::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("ConnectionError", true)
    );
}

#[tokio::test]
async fn any_credentials_are_somebody_where_that_was_asked_for() {
    let account = "000000000000".parse().unwrap();
    let policy = CredentialPolicy::AcceptAny {
        source: Arc::new(Keys),
        account,
    };
    let toy = Toy::start_with(Env::real(), policy, |it| it).await;
    let mut raw = Raw::query("GetCallerIdentity");
    (raw.key, raw.secret) = ("test", "test");
    assert!(
        toy.send(&raw)
            .await
            .body
            .contains("<Account>000000000000</Account>")
    );
    raw.key = "111122223333";
    assert!(
        toy.send(&raw)
            .await
            .body
            .contains("arn:aws:iam::111122223333:root")
    );
    // A key that exists is still verified.
    (raw.key, raw.secret) = ("AKIDEXAMPLE", "wrong");
    assert_eq!(toy.send(&raw).await.code(), "SignatureDoesNotMatch");
    toy.stopped().await;
}
