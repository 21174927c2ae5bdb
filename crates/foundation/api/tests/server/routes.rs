//! What is served beside the APIs: raw routes, WebSockets, health and metrics, and the guard
//! before all of them.

use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;

use crate::toy::{Raw, Toy, within};

#[tokio::test]
async fn raw_routes_stream_both_ways() {
    let toy = Toy::start().await;
    let mut upload = Raw::get("/v2/blob");
    upload.method = http::Method::PUT;
    // Larger than every API body may be.
    upload.body = vec![b'x'; 40 * 1024 * 1024];
    // The echo comes while the upload goes, so both ends run at once.
    let bytes = upload.bytes(toy.env.now());
    let stream = toy.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let send = async {
        tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes)
            .await
            .unwrap();
        writer
    };
    let mut got = Vec::new();
    let receive = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut got);
    let (_, read) = within(async { tokio::join!(send, receive) }).await;
    assert!(read.unwrap() > upload.body.len());
    let half = toy.send(&Raw::get("/v2/half")).await;
    assert!(half.body.len() < 8, "{half:?}");
    let origin = toy
        .send(&Raw::get("/v2/origin").with("host", "127.0.0.1:4566"))
        .await;
    assert_eq!(origin.body, "http://127.0.0.1:4566");
    assert_eq!(toy.send(&Raw::get("/v2")).await.status, 200);
    toy.stopped().await;
}

#[tokio::test]
async fn the_client_streams_a_get() {
    let toy = Toy::start().await;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Basic QVdTOg==".parse().unwrap());
    let response = toy.client().get("/v2/endless", headers).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut seen = 0;
    while seen < 1_000_000 {
        seen += body.chunk().await.unwrap().unwrap().len();
    }
    drop(body);
    let client = toy.client();
    let half = async {
        let mut body = client
            .get("/v2/half", HeaderMap::new())
            .await
            .ok()?
            .into_body();
        body.whole(100).await.ok()
    };
    assert_eq!(half.await, None, "a part is never taken for the whole");
    toy.stopped().await;
}

#[tokio::test]
async fn websockets_are_verified_admitted_and_handed_over() {
    let mut toy = Toy::start().await;
    let client = toy.client();
    let query = [
        ("clusterArn", "arn:aws:ecs:eu-west-3:1:cluster/a b"),
        ("seqNum", "1"),
    ];
    let mut socket = within(client.websocket("/acs/ws", &query)).await.unwrap();
    let greeting = within(socket.next())
        .await
        .unwrap()
        .unwrap()
        .into_text()
        .unwrap();
    assert_eq!(
        greeting.as_str(),
        r#"123456789012 {"clusterArn": "arn:aws:ecs:eu-west-3:1:cluster/a b", "seqNum": "1"}"#
    );
    socket.send("hello".into()).await.unwrap();
    let echo = within(socket.next()).await.unwrap().unwrap();
    assert_eq!(echo.into_text().unwrap().as_str(), "hello");
    let refused = within(client.websocket("/acs/ws", &[("clusterArn", "gone")]))
        .await
        .unwrap_err();
    assert_eq!(
        (
            refused.code.as_str(),
            refused.message.as_str(),
            refused.status
        ),
        ("InactiveInstanceException", "it is gone", Some(400))
    );
    let unsigned = toy.send(&Raw::get("/acs/ws")).await;
    assert_eq!(unsigned.code(), "MissingAuthenticationTokenException");
    let mut plain = Raw::get("/acs/ws");
    plain.signed = true;
    assert_eq!(toy.send(&plain).await.status, 426);
    toy.ask_to_stop();
    let end = within(async {
        loop {
            match socket.next().await {
                None | Some(Err(_)) => break,
                Some(Ok(_)) => {}
            }
        }
    });
    end.await;
    toy.stopped().await;
}

#[tokio::test]
async fn health_and_metrics_need_no_signature() {
    let toy = Toy::start().await;
    let health = toy.send(&Raw::get("/_gantry/health")).await;
    assert_eq!(health.status, 200);
    assert!(
        health.body.contains(r#""services":["ecs","sts"]"#),
        "{health:?}"
    );
    toy.send(&Raw::json("ListClusters")).await;
    toy.send(&Raw::json("MakeCoffee")).await;
    let metrics = toy.send(&Raw::get("/_gantry/metrics")).await.body;
    for line in [
        r#"gantry_requests_total{service="ecs",operation="ListClusters",protocol="json",status="200"} 1"#,
        r#"gantry_request_duration_seconds_count{service="ecs",operation="ListClusters"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("MakeCoffee"), "{metrics}");
    toy.stopped().await;
}

#[tokio::test]
async fn foreign_pages_and_names_are_refused_everywhere() {
    let toy = Toy::start().await;
    for (name, value) in [
        ("host", "evil.example"),
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for raw in [
            Raw::json("ListClusters"),
            Raw::query("GetCallerIdentity"),
            Raw::get("/v2/"),
            Raw::get("/_gantry/health"),
            Raw::get("/acs/ws"),
        ] {
            let answer = toy.send(&raw.with(name, value)).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (403, "AccessDeniedException"),
                "{name}: {answer:?}"
            );
            assert!(answer.header("x-amzn-requestid").is_some());
        }
    }
    toy.stopped().await;
}
