//! Many at once, the same thing twice, and what a tag may do.

use gantry_api::ecr::{
    DescribeImagesRequest, Ecr, ImageTagMutability, ImageTagMutabilityExclusionFilter,
    ImageTagMutabilityExclusionFilterType, PutImageTagMutabilityRequest,
};
use gantry_ecr::model::Digest;
use gantry_ecr::model::manifest::OCI_IMAGE;
use http::StatusCode;

use crate::fixture::Fixture;

#[tokio::test]
async fn a_layer_is_stored_once_whoever_pushes_it() {
    let fixture = Fixture::with_repository().await;
    fixture.create("team/other").await;
    let pushes = (0..10).map(|n| {
        let repository = if n % 2 == 0 { "app" } else { "team/other" };
        fixture.push_blob(repository, b"the same layer")
    });
    futures_util::future::join_all(pushes).await;
    assert_eq!(fixture.files().len(), 1);
    let digest = Digest::of(b"the same layer");
    for repository in ["app", "team/other"] {
        let path = format!("/v2/{repository}/blobs/{digest}");
        assert_eq!(
            fixture.call("GET", &path, &[], "").await.body,
            "the same layer"
        );
    }
}

#[tokio::test]
async fn a_layer_is_mounted_only_from_a_repository_that_has_it() {
    let fixture = Fixture::with_repository().await;
    fixture.create("to").await;
    let digest = fixture.push_blob("app", b"layer").await;
    // It is stored, and yet this repository does not have it.
    let path = format!("/v2/to/blobs/{digest}");
    assert_eq!(
        fixture.call("HEAD", &path, &[], "").await.status,
        StatusCode::NOT_FOUND
    );
    for from in ["to", "nowhere", "../app"] {
        let path = format!("/v2/to/blobs/uploads/?mount={digest}&from={from}");
        let reply = fixture.call("POST", &path, &[], "").await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{from}");
    }
    let mount = format!("/v2/to/blobs/uploads/?mount={digest}&from=app");
    assert_eq!(
        fixture.call("POST", &mount, &[], "").await.status,
        StatusCode::CREATED
    );
    assert_eq!(
        fixture.call("HEAD", &path, &[], "").await.status,
        StatusCode::OK
    );

    // Another account's repository of that name is no source either.
    let token = format!("Basic {}", fixture.token("111111111111").await);
    let headers = [("authorization", token.as_str())];
    let reply = fixture.call_raw("POST", &mount, &headers, "").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn one_tag_pushed_by_many_at_once_ends_at_one_image() {
    let fixture = Fixture::with_repository().await;
    let layers: Vec<String> = (0..8).map(|n| format!("layer {n}")).collect();
    let pushes = layers
        .iter()
        .map(|layer| fixture.push_image("app", "latest", layer.as_bytes()));
    let digests = futures_util::future::join_all(pushes).await;
    let head = fixture
        .call("HEAD", "/v2/app/manifests/latest", &[], "")
        .await;
    let tagged: Digest = head.header("docker-content-digest").parse().unwrap();
    assert!(digests.contains(&tagged));
    // The others lost their tag and are still there.
    let input = DescribeImagesRequest {
        repository_name: "app".to_owned(),
        ..DescribeImagesRequest::default()
    };
    let images = fixture
        .service
        .describe_images(&fixture.context(), input)
        .await
        .unwrap();
    let images = images.image_details.unwrap();
    assert_eq!(images.len(), 8);
    assert_eq!(
        images
            .iter()
            .filter(|image| image.image_tags.is_some())
            .count(),
        1
    );
}

async fn set_mutability(fixture: &Fixture, setting: ImageTagMutability, except: &[&str]) {
    let filter = |filter: &&str| ImageTagMutabilityExclusionFilter {
        filter: (*filter).to_owned(),
        filter_type: ImageTagMutabilityExclusionFilterType::Wildcard,
    };
    let filters: Vec<_> = except.iter().map(filter).collect();
    let input = PutImageTagMutabilityRequest {
        image_tag_mutability: setting,
        image_tag_mutability_exclusion_filters: (!filters.is_empty()).then_some(filters),
        repository_name: "app".to_owned(),
        ..PutImageTagMutabilityRequest::default()
    };
    fixture
        .service
        .put_image_tag_mutability(&fixture.context(), input)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_immutable_tag_stays_where_it_is() {
    let fixture = Fixture::with_repository().await;
    let first = fixture.push_image("app", "v1", b"one").await;
    set_mutability(&fixture, ImageTagMutability::Immutable, &[]).await;
    let other = fixture.image("app", b"two").await;
    let refused = fixture.put_manifest("app", "v1", OCI_IMAGE, &other).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::BAD_REQUEST, "TAG_INVALID")
    );
    assert_eq!(
        refused.json()["errors"][0]["message"],
        "The image tag 'v1' already exists in the 'app' repository and cannot be overwritten because the tag is immutable."
    );
    let head = fixture.call("HEAD", "/v2/app/manifests/v1", &[], "").await;
    assert_eq!(head.header("docker-content-digest"), first.as_str());
    // A push whose answer was lost is repeated without harm.
    assert_eq!(fixture.push_image("app", "v1", b"one").await, first);
    let new = fixture.put_manifest("app", "v2", OCI_IMAGE, &other).await;
    assert_eq!(new.status, StatusCode::CREATED);

    set_mutability(
        &fixture,
        ImageTagMutability::ImmutableWithExclusion,
        &["v*"],
    )
    .await;
    let moved = fixture.put_manifest("app", "v1", OCI_IMAGE, &other).await;
    assert_eq!(moved.status, StatusCode::CREATED);
}

#[tokio::test]
async fn of_many_pushes_to_an_immutable_tag_one_wins() {
    let fixture = Fixture::with_repository().await;
    set_mutability(&fixture, ImageTagMutability::Immutable, &[]).await;
    let mut manifests = Vec::new();
    for n in 0..6 {
        manifests.push(fixture.image("app", format!("layer {n}").as_bytes()).await);
    }
    let puts = manifests
        .iter()
        .map(|text| fixture.put_manifest("app", "v1", OCI_IMAGE, text));
    let replies = futures_util::future::join_all(puts).await;
    let won = replies
        .iter()
        .filter(|reply| reply.status == StatusCode::CREATED)
        .count();
    assert_eq!(won, 1);
}
