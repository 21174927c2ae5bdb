//! Layers over the ECR API: uploads in parts, availability, links that expire, referrers.

use std::time::Duration;

use bytes::Bytes;
use gantry_api::ApiError;
use gantry_api::ecr::{
    BatchCheckLayerAvailabilityRequest, CompleteLayerUploadRequest, Ecr, EcrError,
    GetDownloadUrlForLayerRequest, InitiateLayerUploadRequest, LayerAvailability, LayerFailureCode,
    ListImageReferrersFilter, ListImageReferrersRequest, SubjectIdentifier, UploadLayerPartRequest,
};
use gantry_ecr::model::Digest;
use gantry_ecr::model::manifest::OCI_IMAGE;
use http::StatusCode;
use serde_json::json;

use crate::fixture::{Fixture, ORIGIN};

const MIB: usize = 1024 * 1024;

fn code(error: EcrError) -> String {
    ApiError::from(error).code
}

impl Fixture {
    async fn initiate(&self) -> String {
        let input = InitiateLayerUploadRequest {
            repository_name: "app".to_owned(),
            registry_id: None,
        };
        let context = self.context();
        let begun = self.service.initiate_layer_upload(&context, input).await;
        begun.unwrap().upload_id.unwrap()
    }

    async fn part(&self, upload: &str, first: usize, bytes: &[u8]) -> Result<i64, EcrError> {
        let input = UploadLayerPartRequest {
            layer_part_blob: Bytes::copy_from_slice(bytes),
            part_first_byte: i64::try_from(first).unwrap(),
            part_last_byte: i64::try_from(first + bytes.len()).unwrap() - 1,
            repository_name: "app".to_owned(),
            registry_id: None,
            upload_id: upload.to_owned(),
        };
        let context = self.context();
        let answer = self.service.upload_layer_part(&context, input).await?;
        Ok(answer.last_byte_received.unwrap())
    }

    async fn complete(&self, upload: &str, digest: &Digest) -> Result<(), EcrError> {
        let input = CompleteLayerUploadRequest {
            layer_digests: vec![digest.to_string()],
            repository_name: "app".to_owned(),
            registry_id: None,
            upload_id: upload.to_owned(),
        };
        let context = self.context();
        let answer = self.service.complete_layer_upload(&context, input).await?;
        assert_eq!(answer.layer_digest, Some(digest.to_string()));
        Ok(())
    }
}

#[tokio::test]
async fn a_layer_comes_in_parts() {
    let fixture = Fixture::with_repository().await;
    let bytes: Vec<u8> = (0..6 * MIB).map(|n| (n % 251) as u8).collect();
    let digest = Digest::of(&bytes);
    let upload = fixture.initiate().await;
    assert_eq!(
        code(fixture.complete(&upload, &digest).await.unwrap_err()),
        "EmptyUploadException"
    );
    let (first, second) = bytes.split_at(5 * MIB);
    assert_eq!(
        fixture.part(&upload, 0, first).await.unwrap(),
        5 * MIB as i64 - 1
    );
    // A part that leaves a gap is refused and says where to go on.
    match fixture
        .part(&upload, 5 * MIB + 1, second)
        .await
        .unwrap_err()
    {
        EcrError::InvalidLayerPartException(exception) => {
            assert_eq!(exception.last_valid_byte_received, Some(5 * MIB as i64 - 1));
            assert_eq!(exception.upload_id.as_deref(), Some(upload.as_str()));
        }
        other => panic!("{other}"),
    }
    fixture.part(&upload, 5 * MIB, second).await.unwrap();
    fixture.complete(&upload, &digest).await.unwrap();
    let path = format!("/v2/app/blobs/{digest}");
    let whole = fixture.call("GET", &path, &[], "").await;
    assert_eq!(Digest::of(&whole.body), digest);

    let gone = fixture.part(&upload, 0, b"x").await.unwrap_err();
    assert_eq!(code(gone), "UploadNotFoundException");
    for (parts, digest, expected) in [
        (vec![&b"a"[..]], Digest::of(b"b"), "InvalidLayerException"),
        (
            vec![b"a", b"b"],
            Digest::of(b"ab"),
            "LayerPartTooSmallException",
        ),
        (vec![&bytes], digest, "LayerAlreadyExistsException"),
    ] {
        let upload = fixture.initiate().await;
        let mut at = 0;
        for part in parts {
            fixture.part(&upload, at, part).await.unwrap();
            at += part.len();
        }
        let refused = fixture.complete(&upload, &digest).await.unwrap_err();
        assert_eq!(code(refused), expected);
    }
    assert_eq!(
        (fixture.files().len(), fixture.service.open_uploads()),
        (1, 0)
    );
}

#[tokio::test]
async fn layers_are_asked_for_one_by_one() {
    let fixture = Fixture::with_repository().await;
    let there = fixture.push_blob("app", b"layer").await;
    let not_there = Digest::of(b"other");
    let digests = [
        there.to_string(),
        not_there.to_string(),
        "x:y".to_owned(),
        String::new(),
    ];
    let input = BatchCheckLayerAvailabilityRequest {
        layer_digests: digests.to_vec(),
        repository_name: "app".to_owned(),
        registry_id: None,
    };
    let context = fixture.context();
    let answer = fixture
        .service
        .batch_check_layer_availability(&context, input)
        .await
        .unwrap();
    let layers = answer.layers.unwrap();
    let seen: Vec<_> = layers
        .iter()
        .map(|layer| (layer.layer_availability.clone().unwrap(), layer.layer_size))
        .collect();
    assert_eq!(
        seen,
        [
            (LayerAvailability::Available, Some(5)),
            (LayerAvailability::Unavailable, None)
        ]
    );
    let codes: Vec<_> = answer
        .failures
        .unwrap()
        .into_iter()
        .map(|it| it.failure_code)
        .collect();
    assert_eq!(
        codes,
        [
            Some(LayerFailureCode::InvalidLayerDigest),
            Some(LayerFailureCode::MissingLayerDigest)
        ]
    );
}

#[tokio::test]
async fn a_link_opens_one_layer_until_it_expires() {
    let fixture = Fixture::with_repository().await;
    let layer = fixture.push_blob("app", b"layer").await;
    let other = fixture.push_blob("app", b"other").await;
    let input = |digest: &Digest| GetDownloadUrlForLayerRequest {
        layer_digest: digest.to_string(),
        repository_name: "app".to_owned(),
        registry_id: None,
    };
    let context = fixture.context();
    let url = fixture
        .service
        .get_download_url_for_layer(&context, input(&layer))
        .await;
    let url = url.unwrap().download_url.unwrap();
    let path = url.strip_prefix(ORIGIN).unwrap().to_owned();
    let got = fixture.call_raw("GET", &path, &[], "").await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"layer"[..]));
    let part = fixture
        .call_raw("GET", &path, &[("range", "bytes=0-0")], "")
        .await;
    assert_eq!(&part.body[..], b"l");
    let elsewhere = path.replace(layer.as_str(), other.as_str());
    for (method, path) in [
        ("DELETE", &path),
        ("GET", &elsewhere),
        ("GET", &format!("{path}x")),
    ] {
        let refused = fixture.call_raw(method, path, &[], "").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    fixture.world.advance(Duration::from_secs(3600));
    let late = fixture.call_raw("GET", &path, &[], "").await;
    assert_eq!(
        (late.status, late.code().as_str()),
        (StatusCode::FORBIDDEN, "DENIED")
    );

    let unknown = input(&Digest::of(b"unknown"));
    let refused = fixture
        .service
        .get_download_url_for_layer(&context, unknown)
        .await;
    assert_eq!(code(refused.unwrap_err()), "LayersNotFoundException");
}

#[tokio::test]
async fn referrers_are_listed_in_pages_and_by_type() {
    let fixture = Fixture::with_repository().await;
    let image = fixture.push_image("app", "v1", b"layer").await;
    let config = Digest::of(b"{}");
    for number in 0..5 {
        let about = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE, "layers": [],
            "artifactType": format!("application/vnd.example.t{}", number % 2),
            "annotations": {"number": number.to_string()},
            "config": {"mediaType": "application/vnd.oci.empty.v1+json",
                "digest": config.as_str(), "size": 2},
            "subject": {"mediaType": OCI_IMAGE, "digest": image.as_str(), "size": 5}})
        .to_string();
        let put = fixture
            .put_manifest("app", &format!("s{number}"), OCI_IMAGE, &about)
            .await;
        assert_eq!(put.header("oci-subject"), image.as_str());
    }
    let context = fixture.context();
    let mut input = ListImageReferrersRequest {
        repository_name: "app".to_owned(),
        subject_id: SubjectIdentifier {
            image_digest: image.to_string(),
        },
        max_results: Some(2),
        ..ListImageReferrersRequest::default()
    };
    let mut numbers = Vec::new();
    loop {
        let page = fixture
            .service
            .list_image_referrers(&context, input.clone())
            .await
            .unwrap();
        for referrer in page.referrers.unwrap() {
            numbers.push(referrer.annotations.unwrap()["number"].clone());
        }
        input.next_token = page.next_token;
        if input.next_token.is_none() {
            break;
        }
    }
    numbers.sort();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"]);
    input.filter = Some(ListImageReferrersFilter {
        artifact_status: None,
        artifact_types: Some(vec!["application/vnd.example.t1".to_owned()]),
    });
    let page = fixture
        .service
        .list_image_referrers(&context, input)
        .await
        .unwrap();
    assert_eq!((page.referrers.unwrap().len(), page.next_token), (2, None));
}
