//! The distribution API: who is let in, what is found, how errors look.

use std::time::Duration;

use bytes::Bytes;
use gantry_ecr::model::Digest;
use gantry_ecr::model::manifest::{DOCKER_IMAGE, MANIFEST_BYTES_MAX, OCI_IMAGE, OCI_INDEX};
use http::StatusCode;
use serde_json::json;

use crate::fixture::{Fixture, basic, manifest};

#[tokio::test]
async fn only_a_good_password_is_let_in() {
    let fixture = Fixture::with_repository().await;
    let nobody = fixture.call_raw("GET", "/v2/", &[], "").await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        nobody.header("www-authenticate"),
        "Basic realm=\"http://localhost:4566/\",service=\"ecr.amazonaws.com\""
    );
    assert_eq!(nobody.code(), "UNAUTHORIZED");

    let token = fixture.token("000000000000").await;
    let good = format!("Basic {token}");
    for bad in [
        "Bearer x",
        "Basic !",
        &basic("AWS", "x.y"),
        &basic("root", "x"),
        &good[..40],
    ] {
        let reply = fixture
            .call_raw("GET", "/v2/", &[("authorization", bad)], "")
            .await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{bad}");
    }
    let path = "/v2/app/tags/list";
    let reply = fixture
        .call_raw("GET", path, &[("authorization", &good)], "")
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(
        reply.header("docker-distribution-api-version"),
        "registry/2.0"
    );

    fixture.world.advance(Duration::from_secs(12 * 3600));
    let late = fixture
        .call_raw("GET", path, &[("authorization", &good)], "")
        .await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (StatusCode::FORBIDDEN, "DENIED")
    );
}

#[tokio::test]
async fn a_token_opens_its_own_account_only() {
    let fixture = Fixture::with_repository().await;
    let token = format!("Basic {}", fixture.token("111111111111").await);
    let headers = [("authorization", token.as_str())];
    let reply = fixture
        .call_raw("GET", "/v2/app/tags/list", &headers, "")
        .await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (StatusCode::NOT_FOUND, "NAME_UNKNOWN")
    );
    assert_eq!(
        reply.json()["errors"][0]["message"],
        "The repository with name 'app' does not exist in the registry with id '111111111111'"
    );
}

#[tokio::test]
async fn an_image_is_read_back_as_it_was_pushed() {
    let fixture = Fixture::with_repository().await;
    let text = fixture.image("app", b"layer").await;
    let digest = Digest::of(text.as_bytes());
    let put = fixture.put_manifest("app", "v1", OCI_IMAGE, &text).await;
    assert_eq!(put.header("docker-content-digest"), digest.as_str());

    for reference in ["v1", digest.as_str()] {
        let path = format!("/v2/app/manifests/{reference}");
        let get = fixture.call("GET", &path, &[], "").await;
        assert_eq!(
            (get.status, &get.body[..]),
            (StatusCode::OK, text.as_bytes())
        );
        assert_eq!(get.header("content-type"), OCI_IMAGE);
        let head = fixture.call("HEAD", &path, &[], "").await;
        assert_eq!(head.header("docker-content-digest"), digest.as_str());
        assert_eq!(head.header("content-length"), text.len().to_string());
        assert!(head.body.is_empty());
    }
    let layer = Digest::of(b"layer");
    let path = format!("/v2/app/blobs/{layer}");
    let get = fixture.call("GET", &path, &[], "").await;
    assert_eq!((get.status, &get.body[..]), (StatusCode::OK, &b"layer"[..]));
    let part = fixture
        .call("GET", &path, &[("range", "bytes=1-2")], "")
        .await;
    assert_eq!(
        (part.status, &part.body[..]),
        (StatusCode::PARTIAL_CONTENT, &b"ay"[..])
    );
    assert_eq!(part.header("content-range"), "bytes 1-2/5");
    let past = fixture
        .call("GET", &path, &[("range", "bytes=5-")], "")
        .await;
    assert_eq!(past.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let head = fixture.call("HEAD", &path, &[], "").await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (StatusCode::OK, "5")
    );
}

#[tokio::test]
async fn what_is_not_there_has_its_own_code() {
    let fixture = Fixture::with_repository().await;
    let digest = Digest::of(b"nothing");
    for (method, path, status, code) in [
        ("GET", "/v2/other/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        (
            "GET",
            "/v2/app/manifests/v1".to_owned(),
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            "GET",
            format!("/v2/app/blobs/{digest}"),
            404,
            "BLOB_UNKNOWN",
        ),
        (
            "PATCH",
            format!("/v2/app/blobs/uploads/{}", "0".repeat(8)),
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        ("GET", "/v2/APP/tags/list".to_owned(), 400, "NAME_INVALID"),
        (
            "GET",
            "/v2/../../etc/manifests/passwd".to_owned(),
            400,
            "NAME_INVALID",
        ),
        (
            "GET",
            "/v2/app/blobs/sha256:..%2f..%2fetc%2fpasswd".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            "GET",
            "/v2/app/blobs/../../../rows.sqlite".to_owned(),
            404,
            "UNSUPPORTED",
        ),
        (
            "GET",
            "/v2/app/manifests/.INVALID".to_owned(),
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            "DELETE",
            "/v2/app/manifests/-x".to_owned(),
            404,
            "MANIFEST_UNKNOWN",
        ),
        ("PUT", "/v2/app/manifests/-x".to_owned(), 400, "TAG_INVALID"),
        (
            "GET",
            "/v2/app/manifests/sha256:0".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        ("POST", "/v2/_catalog".to_owned(), 405, "UNSUPPORTED"),
        ("GET", "/v2/app/_catalog".to_owned(), 404, "UNSUPPORTED"),
        ("POST", "/v2/".to_owned(), 405, "UNSUPPORTED"),
        (
            "DELETE",
            format!("/v2/app/blobs/{digest}"),
            404,
            "BLOB_UNKNOWN",
        ),
        (
            "POST",
            "/v2/other/blobs/uploads/".to_owned(),
            404,
            "NAME_UNKNOWN",
        ),
    ] {
        let reply = fixture.call(method, &path, &[], "").await;
        let seen = (reply.status.as_u16(), reply.code());
        assert_eq!(seen, (status, code.to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn a_manifest_that_lies_or_is_too_large_changes_nothing() {
    let fixture = Fixture::with_repository().await;
    let good = fixture.image("app", b"layer").await;
    let (config, layer) = (Digest::of(b"{}"), Digest::of(b"layer"));
    let (missing, other) = (Digest::of(b"missing"), Digest::of(b"other"));
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_IMAGE, "digest": missing.as_str(), "size": 2}]});
    for (reference, media_type, text, status, code) in [
        (
            "v1",
            OCI_IMAGE,
            manifest(&config, 2, &missing, 7),
            400,
            "MANIFEST_BLOB_UNKNOWN",
        ),
        (
            "v1",
            OCI_IMAGE,
            manifest(&config, 2, &layer, 6),
            400,
            "SIZE_INVALID",
        ),
        (
            "v1",
            OCI_INDEX,
            index.to_string(),
            400,
            "MANIFEST_BLOB_UNKNOWN",
        ),
        ("v1", DOCKER_IMAGE, good.clone(), 400, "MANIFEST_INVALID"),
        ("v1", OCI_IMAGE, "{".to_owned(), 400, "MANIFEST_INVALID"),
        ("v1", "text/plain", "{}".to_owned(), 400, "MANIFEST_INVALID"),
        (
            other.as_str(),
            OCI_IMAGE,
            good.clone(),
            400,
            "DIGEST_INVALID",
        ),
        (
            "v1",
            OCI_IMAGE,
            " ".repeat(MANIFEST_BYTES_MAX + 1),
            413,
            "MANIFEST_INVALID",
        ),
    ] {
        let files = fixture.files();
        let reply = fixture
            .put_manifest("app", reference, media_type, &text)
            .await;
        let seen = (reply.status.as_u16(), reply.code());
        assert_eq!(
            seen,
            (status, code.to_owned()),
            "{}",
            &text[..text.len().min(200)]
        );
        assert_eq!(fixture.files(), files);
    }
    let tags = fixture.call("GET", "/v2/app/tags/list", &[], "").await;
    assert_eq!(tags.json(), json!({"name": "app", "tags": []}));
}

#[tokio::test]
async fn tags_come_in_pages() {
    let fixture = Fixture::with_repository().await;
    let text = fixture.image("app", b"layer").await;
    for tag in ["c", "a", "b"] {
        fixture.put_manifest("app", tag, OCI_IMAGE, &text).await;
    }
    let first = fixture.call("GET", "/v2/app/tags/list?n=2", &[], "").await;
    assert_eq!(first.json()["tags"], json!(["a", "b"]));
    assert_eq!(
        first.header("link"),
        "</v2/app/tags/list?n=2&last=b>; rel=\"next\""
    );
    let second = fixture
        .call("GET", "/v2/app/tags/list?n=2&last=b", &[], "")
        .await;
    assert_eq!(second.json()["tags"], json!(["c"]));
    assert_eq!(second.header("link"), "");
    let none = fixture.call("GET", "/v2/app/tags/list?n=0", &[], "").await;
    assert_eq!(
        (none.json()["tags"].clone(), none.header("link")),
        (json!([]), "")
    );
    let bad = fixture.call("GET", "/v2/app/tags/list?n=-1", &[], "").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn repositories_come_in_pages_and_only_the_callers() {
    let fixture = Fixture::with_repository().await;
    for name in ["team/web", "app-2", "team/app"] {
        fixture.create(name).await;
    }
    let (mut seen, mut path) = (Vec::new(), "/v2/_catalog?n=3".to_owned());
    for expected in [3, 1] {
        let page = fixture.call("GET", &path, &[], "").await;
        let names = page.json()["repositories"].as_array().unwrap().clone();
        assert_eq!(names.len(), expected, "{path}");
        seen.extend(names);
        let link = page.header("link").to_owned();
        path = link.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    }
    assert_eq!(path, "", "the second page was the last");
    assert_eq!(seen, ["app", "app-2", "team/app", "team/web"]);

    let other = format!("Basic {}", fixture.token("111111111111").await);
    let headers = [("authorization", other.as_str())];
    let theirs = fixture.call_raw("GET", "/v2/_catalog", &headers, "").await;
    assert_eq!(theirs.json(), json!({"repositories": []}));
}

#[tokio::test]
async fn referrers_are_listed_by_what_they_are_about() {
    let fixture = Fixture::with_repository().await;
    let image = fixture.push_image("app", "v1", b"layer").await;
    let config = Digest::of(b"{}");
    let signature = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE,
        "artifactType": "application/vnd.example.signature",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json",
            "digest": config.as_str(), "size": 2},
        "layers": [], "annotations": {"by": "me"},
        "subject": {"mediaType": OCI_IMAGE, "digest": image.as_str(), "size": 5}});
    let put = fixture
        .put_manifest("app", "sig", OCI_IMAGE, &signature.to_string())
        .await;
    assert_eq!(put.header("oci-subject"), image.as_str());
    let path = format!("/v2/app/referrers/{image}");
    let list = fixture.call("GET", &path, &[], "").await;
    assert_eq!(list.header("content-type"), OCI_INDEX);
    let manifests = list.json()["manifests"].clone();
    assert_eq!(manifests.as_array().unwrap().len(), 1);
    assert_eq!(
        manifests[0]["artifactType"],
        "application/vnd.example.signature"
    );
    assert_eq!(manifests[0]["annotations"]["by"], "me");
    let other = fixture
        .call("GET", &format!("{path}?artifactType=x"), &[], "")
        .await;
    assert_eq!(other.json()["manifests"], json!([]));
    assert_eq!(other.header("oci-filters-applied"), "artifactType");
    assert_eq!(list.header("oci-filters-applied"), "");

    // Many of them come in pages, each with the filter that was asked for.
    for number in 0..1200 {
        let mut other = signature.clone();
        other["annotations"]["by"] = json!(number.to_string());
        let digest = Digest::of(other.to_string().as_bytes());
        let put = fixture
            .put_manifest("app", digest.as_str(), OCI_IMAGE, &other.to_string())
            .await;
        assert_eq!(put.status, StatusCode::CREATED);
    }
    let mut next = format!("{path}?artifactType=application%2Fvnd.example.signature");
    let mut seen = std::collections::BTreeSet::new();
    let mut pages = 0;
    while !next.is_empty() {
        let page = fixture.call("GET", &next, &[], "").await;
        for manifest in page.json()["manifests"].as_array().unwrap() {
            assert!(seen.insert(manifest["digest"].as_str().unwrap().to_owned()));
        }
        let link = page.header("link");
        let end = link.find('>').unwrap_or_default();
        next = link.get(1..end).unwrap_or_default().to_owned();
        pages += 1;
    }
    assert_eq!((seen.len(), pages), (1201, 2));
}

#[tokio::test]
async fn an_index_needs_its_images_and_keeps_them() {
    let fixture = Fixture::with_repository().await;
    let image = fixture.push_image("app", "amd64", b"layer").await;
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_IMAGE, "digest": image.as_str(), "size": 2}]})
    .to_string();
    let put = fixture.put_manifest("app", "all", OCI_INDEX, &index).await;
    assert_eq!(put.status, StatusCode::CREATED);
    let path = format!("/v2/app/manifests/{image}");
    let refused = fixture.call("DELETE", &path, &[], "").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::FORBIDDEN, "DENIED")
    );
    let digest = Digest::of(index.as_bytes());
    for digest in [digest, image] {
        let path = format!("/v2/app/manifests/{digest}");
        let deleted = fixture.call("DELETE", &path, &[], "").await;
        assert_eq!(deleted.status, StatusCode::ACCEPTED);
        assert_eq!(
            fixture.call("GET", &path, &[], "").await.status,
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test]
async fn a_large_blob_is_streamed_whole_and_in_parts() {
    let fixture = Fixture::with_repository().await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let digest = fixture.push_blob("app", &bytes).await;
    let path = format!("/v2/app/blobs/{digest}");
    let whole = fixture.call("GET", &path, &[], Bytes::new()).await;
    assert_eq!(Digest::of(&whole.body), digest);
    let part = fixture
        .call("GET", &path, &[("range", "bytes=1999999-2000001")], "")
        .await;
    assert_eq!(&part.body[..], &bytes[1_999_999..2_000_002]);
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let fixture = Fixture::with_repository().await;
    let image = fixture.push_image("app", "v1", b"layer").await;
    let blob = Digest::of(b"layer");
    for (path, digest) in [
        ("/v2/app/manifests/v1".to_owned(), &image),
        (format!("/v2/app/manifests/{image}"), &image),
        (format!("/v2/app/blobs/{blob}"), &blob),
    ] {
        for method in ["GET", "HEAD"] {
            let plain = fixture.call(method, &path, &[], "").await;
            assert_eq!(plain.status, StatusCode::OK, "{method} {path}");
            let tag = plain.header("etag");
            assert_eq!(tag, format!("\"{digest}\""));
            let known = fixture
                .call(method, &path, &[("if-none-match", tag)], "")
                .await;
            assert_eq!(known.status, StatusCode::NOT_MODIFIED, "{method} {path}");
            assert_eq!((known.header("etag"), known.body.len()), (tag, 0));
            let other = [("if-none-match", "\"sha256:0\"")];
            let other = fixture.call(method, &path, &other, "").await;
            assert_eq!(other.status, StatusCode::OK, "{method} {path}");
        }
    }
    let path = format!("/v2/app/blobs/{blob}");
    let tag = format!("\"{blob}\"");
    let part = [("range", "bytes=1-2"), ("if-range", tag.as_str())];
    let part = fixture.call("GET", &path, &part, "").await;
    assert_eq!(
        (part.status, part.header("content-range")),
        (StatusCode::PARTIAL_CONTENT, "bytes 1-2/5")
    );
    let changed = [("range", "bytes=1-2"), ("if-range", "\"other\"")];
    assert_eq!(fixture.call("GET", &path, &changed, "").await.body, "layer");
    let past = fixture
        .call("GET", &path, &[("range", "bytes=9-")], "")
        .await;
    assert_eq!(past.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(past.header("content-range"), "bytes */5");
}

#[tokio::test]
async fn a_blob_is_deleted_once_no_image_needs_it() {
    let fixture = Fixture::with_repository().await;
    fixture.create("other").await;
    let image = fixture.push_image("app", "v1", b"layer").await;
    fixture.push_image("other", "v1", b"layer").await;
    let path = format!("/v2/app/blobs/{}", Digest::of(b"layer"));
    let refused = fixture.call("DELETE", &path, &[], "").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::FORBIDDEN, "DENIED")
    );
    let manifest = format!("/v2/app/blobs/{image}");
    let refused = fixture.call("DELETE", &manifest, &[], "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);

    fixture
        .call("DELETE", "/v2/app/manifests/v1", &[], "")
        .await;
    let deleted = fixture.call("DELETE", &path, &[], "").await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED);
    for (method, status) in [("GET", 404), ("HEAD", 404), ("DELETE", 404)] {
        let gone = fixture.call(method, &path, &[], "").await;
        assert_eq!(gone.status.as_u16(), status, "{method}");
    }
    // Another repository still has it.
    let other = format!("/v2/other/blobs/{}", Digest::of(b"layer"));
    assert_eq!(fixture.call("GET", &other, &[], "").await.body, "layer");
}

#[tokio::test]
async fn an_upload_is_resumed_where_its_status_says() {
    let fixture = Fixture::with_repository().await;
    let location = fixture.begin_upload("app").await;
    let range = [("content-range", "0-4")];
    fixture.call("PATCH", &location, &range, "hello").await;
    // A chunk that was sent twice is refused, and the upload goes on all the same.
    let again = fixture.call("PATCH", &location, &range, "hello").await;
    assert_eq!(again.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let status = fixture.call("GET", &location, &[], "").await;
    assert_eq!(
        (status.status, status.header("range")),
        (StatusCode::NO_CONTENT, "0-4")
    );
    assert_eq!(status.header("location"), location);
    let digest = Digest::of(b"hello world");
    let path = format!("{location}?digest={digest}");
    let put = fixture
        .call("PUT", &path, &[("content-range", "5-10")], " world")
        .await;
    assert_eq!(put.status, StatusCode::CREATED);
    assert_eq!(put.header("docker-content-digest"), digest.as_str());
}
