//! Uploads: chunks, order, wrong digests, broken connections, giving up.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use gantry_ecr::Options;
use gantry_ecr::model::Digest;
use http::{Request, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;

use crate::fixture::{Fixture, ORIGIN};

#[tokio::test]
async fn a_blob_can_come_in_chunks() {
    let fixture = Fixture::with_repository().await;
    let location = fixture.begin_upload("app").await;
    let chunk = |range: &'static str| [("content-range", range)];
    let first = fixture
        .call("PATCH", &location, &chunk("0-4"), "hello")
        .await;
    assert_eq!(
        (first.status, first.header("range")),
        (StatusCode::ACCEPTED, "0-4")
    );

    let gap = fixture.call("PATCH", &location, &chunk("7-8"), "rl").await;
    assert_eq!(gap.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let status = fixture.call("GET", &location, &[], "").await;
    assert_eq!(
        (status.status, status.header("range")),
        (StatusCode::NO_CONTENT, "0-4")
    );

    let second = fixture.call("PATCH", &location, &[], " wor").await;
    assert_eq!(second.header("range"), "0-8");
    let digest = Digest::of(b"hello world");
    let path = format!("{location}?digest={}", digest.as_str().replace(':', "%3A"));
    let done = fixture.call("PUT", &path, &chunk("9-10"), "ld").await;
    assert_eq!(done.status, StatusCode::CREATED);
    assert_eq!(done.header("location"), format!("/v2/app/blobs/{digest}"));
    let get = fixture
        .call("GET", &format!("/v2/app/blobs/{digest}"), &[], "")
        .await;
    assert_eq!(&get.body[..], b"hello world");
    // It ended with its blob.
    assert_eq!(
        fixture.call("GET", &location, &[], "").await.code(),
        "BLOB_UPLOAD_UNKNOWN"
    );
    assert_eq!(
        (fixture.files().len(), fixture.service.open_uploads()),
        (1, 0)
    );
}

#[tokio::test]
async fn a_wrong_digest_or_length_leaves_nothing() {
    let fixture = Fixture::with_repository().await;
    let wrong = Digest::of(b"something else");
    for (headers, path_end, body, code) in [
        (
            vec![],
            format!("?digest={wrong}"),
            "hello",
            "DIGEST_INVALID",
        ),
        (
            vec![("content-range", "0-9")],
            format!("?digest={wrong}"),
            "hello",
            "SIZE_INVALID",
        ),
        (
            vec![("content-range", "0-1")],
            format!("?digest={wrong}"),
            "hello",
            "SIZE_INVALID",
        ),
    ] {
        let location = fixture.begin_upload("app").await;
        let path = format!("{location}{path_end}");
        let reply = fixture.call("PUT", &path, &headers, body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (StatusCode::BAD_REQUEST, code)
        );
        assert_eq!(
            (fixture.files(), fixture.service.open_uploads()),
            (vec![], 0)
        );
    }
    let reply = fixture
        .call("HEAD", &format!("/v2/app/blobs/{wrong}"), &[], "")
        .await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    // A digest that is none leaves the upload as it is.
    let location = fixture.begin_upload("app").await;
    for path in [location.clone(), format!("{location}?digest=sha256:../x")] {
        assert_eq!(
            fixture.call("PUT", &path, &[], "").await.code(),
            "DIGEST_INVALID"
        );
    }
    assert_eq!(
        fixture.call("DELETE", &location, &[], "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        (fixture.files(), fixture.service.open_uploads()),
        (vec![], 0)
    );
}

fn broken_body() -> StreamBody<impl stream::Stream<Item = Result<Frame<Bytes>, std::io::Error>>> {
    let pieces = (0..4).map(|_| Ok(Frame::data(Bytes::from(vec![1; 400_000]))));
    let end = [Err(std::io::Error::from(
        std::io::ErrorKind::ConnectionReset,
    ))];
    StreamBody::new(stream::iter(pieces.chain(end)))
}

async fn request<B>(fixture: &Fixture, method: &str, path: &str, body: B) -> Request<B> {
    let authorization = format!("Basic {}", fixture.token("000000000000").await);
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", authorization)
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn an_upload_cut_off_half_way_goes_on_from_what_was_acknowledged() {
    let fixture = Fixture::with_repository().await;
    let blob = [b"hello".to_vec(), vec![1; 1_600_000], b"end".to_vec()].concat();
    let digest = Digest::of(&blob);
    for method in ["PATCH", "PUT"] {
        let location = fixture.begin_upload("app").await;
        fixture.call("PATCH", &location, &[], "hello").await;
        let finish = format!("{location}?digest={digest}");
        let path = if method == "PUT" { &finish } else { &location };
        for _ in 0..2 {
            let request = request(&fixture, method, path, broken_body()).await;
            let response = fixture.registry.answer(request, ORIGIN).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            let status = fixture.call("GET", &location, &[], "").await;
            assert_eq!(
                (status.status, status.header("range")),
                (StatusCode::NO_CONTENT, "0-4")
            );
        }
        // Not from where it broke, which nobody was told.
        let beyond = [("content-range", "400005-400005")];
        let gap = fixture.call("PATCH", &location, &beyond, "x").await;
        assert_eq!(gap.status, StatusCode::RANGE_NOT_SATISFIABLE);
        let range = [("content-range", "5-1600007")];
        let done = fixture
            .call("PUT", &finish, &range, blob[5..].to_vec())
            .await;
        assert_eq!(done.status, StatusCode::CREATED);
        let get = fixture
            .call("GET", &format!("/v2/app/blobs/{digest}"), &[], "")
            .await;
        assert!(get.body[..] == blob[..]);
        let delete = format!("/v2/app/blobs/{digest}");
        fixture.call("DELETE", &delete, &[], "").await;
    }
    assert_eq!(fixture.service.open_uploads(), 0);
}

#[tokio::test]
async fn what_is_sent_again_must_be_what_was_sent() {
    let fixture = Fixture::with_repository().await;
    let location = fixture.begin_upload("app").await;
    let request = request(&fixture, "PATCH", &location, broken_body()).await;
    fixture.registry.answer(request, ORIGIN).await;
    let other = fixture
        .call("PATCH", &location, &[], vec![2; 1_600_000])
        .await;
    assert_eq!(
        (other.status, other.code().as_str()),
        (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID")
    );
    assert_eq!(
        (fixture.files(), fixture.service.open_uploads()),
        (vec![], 0)
    );
}

#[tokio::test]
async fn a_request_that_is_dropped_leaves_its_upload_as_it_was() {
    let fixture = Fixture::with_repository().await;
    let location = fixture.begin_upload("app").await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), receiver))
    });
    let request = request(
        &fixture,
        "PATCH",
        &location,
        StreamBody::new(Box::pin(pieces)),
    )
    .await;
    let registry = fixture.registry.clone();
    let writing = tokio::spawn(async move { registry.answer(request, ORIGIN).await.status() });
    for _ in 0..4 {
        sender.send(Bytes::from(vec![1; 400_000])).await.unwrap();
    }
    // While it writes, nobody else does.
    let other = fixture.call("PATCH", &location, &[], "x").await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    assert_eq!(fixture.service.open_uploads(), 1);
    let blob = vec![1; 2_000_000];
    let finish = format!("{location}?digest={}", Digest::of(&blob));
    let done = fixture.call("PUT", &finish, &[], blob).await;
    assert_eq!(done.status, StatusCode::CREATED);
    assert_eq!(
        (fixture.files().len(), fixture.service.open_uploads()),
        (1, 0)
    );
}

#[tokio::test]
async fn an_upload_that_nobody_comes_back_to_is_given_up() {
    let fixture = Fixture::with_repository().await;
    let old = fixture.begin_upload("app").await;
    fixture.call("PATCH", &old, &[], "hello").await;
    fixture.world.advance(Duration::from_secs(1800));
    let new = fixture.begin_upload("app").await;
    fixture.world.advance(Duration::from_secs(1800));
    fixture.service.collect().await.unwrap();
    assert_eq!(
        (fixture.files().len(), fixture.service.open_uploads()),
        (1, 1)
    );
    assert_eq!(
        fixture.call("GET", &old, &[], "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        fixture.call("GET", &new, &[], "").await.status,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn uploads_are_bounded_and_belong_to_their_repository() {
    let options = Options {
        uploads_open_max: 2,
        ..Options::default()
    };
    let fixture = Fixture::with(options).await;
    fixture.create("app").await;
    fixture.create("other").await;
    let location = fixture.begin_upload("app").await;
    fixture.begin_upload("app").await;
    let third = fixture
        .call("POST", "/v2/app/blobs/uploads/", &[], "")
        .await;
    assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS);
    let elsewhere = location.replace("/app/", "/other/");
    assert_eq!(
        fixture.call("PATCH", &elsewhere, &[], "x").await.code(),
        "BLOB_UPLOAD_UNKNOWN"
    );
    fixture.call("DELETE", &location, &[], "").await;
    fixture.begin_upload("app").await;
}
