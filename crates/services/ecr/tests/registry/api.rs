//! The ECR API: repositories, tokens, lists, and errors in AWS's words.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_api::ApiError;
use gantry_api::ecr::{
    BatchDeleteImageRequest, BatchGetImageRequest, CreateRepositoryCreationTemplateRequest,
    CreateRepositoryRequest, DeleteRepositoryRequest, DescribeImagesRequest,
    DescribeRepositoriesRequest, Ecr, EcrError, EncryptionConfiguration,
    EncryptionConfigurationForRepositoryCreationTemplate, EncryptionType,
    GetAuthorizationTokenRequest, ImageFailureCode, ImageIdentifier, ImageScanningConfiguration,
    ImageTagMutability, ListImagesFilter, ListImagesRequest, ListTagsForResourceRequest,
    PutImageRequest, RCTAppliedFor, Tag, TagResourceRequest, TagStatus, UntagResourceRequest,
};
use gantry_ecr::model::Digest;
use gantry_ecr::model::manifest::{DOCKER_IMAGE, OCI_IMAGE};

use crate::fixture::Fixture;

fn error(error: EcrError) -> (String, String) {
    let error = ApiError::from(error);
    (error.code, error.message)
}

fn by_tag(tag: &str) -> ImageIdentifier {
    ImageIdentifier {
        image_digest: None,
        image_tag: Some(tag.to_owned()),
    }
}

fn by_digest(digest: &Digest) -> ImageIdentifier {
    ImageIdentifier {
        image_digest: Some(digest.to_string()),
        image_tag: None,
    }
}

#[tokio::test]
async fn encryption_with_a_key_of_kms_is_refused_by_its_name() {
    let fixture = Fixture::new().await;
    let with = |encryption_type, kms_key| CreateRepositoryRequest {
        repository_name: "app".to_owned(),
        encryption_configuration: Some(EncryptionConfiguration {
            encryption_type,
            kms_key,
        }),
        ..CreateRepositoryRequest::default()
    };
    let key = || Some("alias/k".to_owned());
    for (input, code, word) in [
        (with(EncryptionType::Kms, None), "NotImplemented", "KMS"),
        (with(EncryptionType::Kms, key()), "NotImplemented", "KMS"),
        (
            with(EncryptionType::KmsDsse, None),
            "NotImplemented",
            "KMS_DSSE",
        ),
        (
            with(EncryptionType::Aes256, key()),
            "InvalidParameterException",
            "kmsKey",
        ),
    ] {
        let refused = fixture
            .service
            .create_repository(&fixture.context(), input)
            .await;
        let (seen, message) = error(refused.unwrap_err());
        assert_eq!(seen, code, "{message}");
        assert!(message.contains(word), "{message}");
    }
    let template = CreateRepositoryCreationTemplateRequest {
        prefix: "team".to_owned(),
        applied_for: vec![RCTAppliedFor::CreateOnPush],
        encryption_configuration: Some(EncryptionConfigurationForRepositoryCreationTemplate {
            encryption_type: EncryptionType::Kms,
            kms_key: None,
        }),
        ..CreateRepositoryCreationTemplateRequest::default()
    };
    let refused = fixture
        .service
        .create_repository_creation_template(&fixture.context(), template)
        .await;
    assert_eq!(error(refused.unwrap_err()).0, "NotImplemented");
}

#[tokio::test]
async fn a_repository_is_described_as_it_was_made() {
    let fixture = Fixture::new().await;
    let input = CreateRepositoryRequest {
        repository_name: "team/app".to_owned(),
        image_tag_mutability: Some(ImageTagMutability::Immutable),
        image_scanning_configuration: Some(ImageScanningConfiguration {
            scan_on_push: Some(true),
        }),
        encryption_configuration: Some(EncryptionConfiguration {
            encryption_type: EncryptionType::Aes256,
            kms_key: None,
        }),
        tags: Some(vec![Tag {
            key: "team".to_owned(),
            value: "a".to_owned(),
        }]),
        ..CreateRepositoryRequest::default()
    };
    let context = fixture.context();
    let created = fixture
        .service
        .create_repository(&context, input.clone())
        .await
        .unwrap();
    let created = created.repository.unwrap();
    assert_eq!(
        created.repository_uri.as_deref(),
        Some("localhost:4566/team/app")
    );
    let arn = "arn:aws:ecr:us-east-1:000000000000:repository/team/app";
    assert_eq!(created.repository_arn.as_deref(), Some(arn));
    assert_eq!(created.created_at, Some(context.now));
    assert_eq!(
        created.image_scanning_configuration,
        input.image_scanning_configuration
    );
    assert_eq!(
        created.encryption_configuration,
        input.encryption_configuration
    );

    let twice = fixture
        .service
        .create_repository(&context, input)
        .await
        .unwrap_err();
    assert_eq!(
        error(twice),
        (
            "RepositoryAlreadyExistsException".to_owned(),
            "The repository with name 'team/app' already exists in the registry with id '000000000000'".to_owned()
        )
    );
    let input = DescribeRepositoriesRequest {
        repository_names: Some(vec!["team/app".to_owned()]),
        ..DescribeRepositoriesRequest::default()
    };
    let described = fixture
        .service
        .describe_repositories(&context, input)
        .await
        .unwrap();
    assert_eq!(described.repositories.unwrap(), [created]);
}

#[tokio::test]
async fn a_missing_repository_and_a_foreign_registry_are_told_apart() {
    let fixture = Fixture::with_repository().await;
    let describe = |name: &str, registry: Option<&str>| {
        let input = DescribeRepositoriesRequest {
            registry_id: registry.map(str::to_owned),
            repository_names: Some(vec![name.to_owned()]),
            ..DescribeRepositoriesRequest::default()
        };
        let context = fixture.context();
        let service = &fixture.service;
        async move {
            error(
                service
                    .describe_repositories(&context, input)
                    .await
                    .unwrap_err(),
            )
        }
    };
    assert_eq!(
        describe("nope", None).await,
        (
            "RepositoryNotFoundException".to_owned(),
            "The repository with name 'nope' does not exist in the registry with id '000000000000'"
                .to_owned()
        )
    );
    let (code, message) = describe("app", Some("222222222222")).await;
    assert_eq!(code, "AccessDeniedException");
    assert!(message.contains("ecr:DescribeRepositories"), "{message}");
    let (code, message) = describe("../app", None).await;
    assert_eq!(code, "InvalidParameterException");
    assert!(
        message.starts_with("Invalid parameter at 'repositoryName'"),
        "{message}"
    );
}

#[tokio::test]
async fn repositories_come_in_pages() {
    let fixture = Fixture::new().await;
    for name in ["cc", "aa", "bb"] {
        fixture.create(name).await;
    }
    let (mut names, mut token) = (Vec::new(), None);
    loop {
        let input = DescribeRepositoriesRequest {
            max_results: Some(2),
            next_token: token,
            ..DescribeRepositoriesRequest::default()
        };
        let context = fixture.context();
        let page = fixture
            .service
            .describe_repositories(&context, input)
            .await
            .unwrap();
        names.extend(
            page.repositories
                .unwrap()
                .into_iter()
                .filter_map(|r| r.repository_name),
        );
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["aa", "bb", "cc"]);
    let input = DescribeRepositoriesRequest {
        next_token: Some("forged".to_owned()),
        ..DescribeRepositoriesRequest::default()
    };
    let forged = fixture
        .service
        .describe_repositories(&fixture.context(), input)
        .await;
    assert_eq!(error(forged.unwrap_err()).0, "InvalidParameterException");
}

#[tokio::test]
async fn a_repository_with_images_is_deleted_only_by_force() {
    let fixture = Fixture::with_repository().await;
    fixture.push_image("app", "v1", b"layer").await;
    let delete = |force| {
        let input = DeleteRepositoryRequest {
            force,
            repository_name: "app".to_owned(),
            ..DeleteRepositoryRequest::default()
        };
        let context = fixture.context();
        let service = &fixture.service;
        async move { service.delete_repository(&context, input).await }
    };
    assert_eq!(
        error(delete(None).await.unwrap_err()),
        (
            "RepositoryNotEmptyException".to_owned(),
            "The repository with name 'app' in registry with id '000000000000' cannot be deleted because it still contains images".to_owned()
        )
    );
    let deleted = delete(Some(true)).await.unwrap().repository.unwrap();
    assert_eq!(deleted.repository_name.as_deref(), Some("app"));
    assert_eq!(
        error(delete(None).await.unwrap_err()).0,
        "RepositoryNotFoundException"
    );
}

#[tokio::test]
async fn a_token_says_where_and_until_when() {
    let fixture = Fixture::new().await;
    let context = fixture.context();
    let input = GetAuthorizationTokenRequest::default();
    let answer = fixture
        .service
        .get_authorization_token(&context, input)
        .await
        .unwrap();
    let data = &answer.authorization_data.unwrap()[0];
    assert_eq!(
        data.proxy_endpoint.as_deref(),
        Some("http://localhost:4566")
    );
    assert_eq!(
        data.expires_at,
        Some(context.now + Duration::from_secs(12 * 3600))
    );
    let token = STANDARD
        .decode(data.authorization_token.as_ref().unwrap())
        .unwrap();
    assert!(token.starts_with(b"AWS:"));
}

#[tokio::test]
async fn images_are_listed_described_and_counted() {
    let fixture = Fixture::with_repository().await;
    let one = fixture.push_image("app", "v1", b"one").await;
    fixture.push_image("app", "also", b"one").await;
    let two = fixture.push_image("app", "v2", b"twotwo").await;
    fixture.push_image("app", "v2", b"three").await;

    let list = |status: TagStatus| {
        let input = ListImagesRequest {
            repository_name: "app".to_owned(),
            filter: Some(ListImagesFilter {
                tag_status: Some(status),
                image_status: None,
            }),
            ..ListImagesRequest::default()
        };
        let context = fixture.context();
        let service = &fixture.service;
        async move {
            service
                .list_images(&context, input)
                .await
                .unwrap()
                .image_ids
                .unwrap()
        }
    };
    assert_eq!(list(TagStatus::Any).await.len(), 4);
    assert_eq!(list(TagStatus::Tagged).await.len(), 3);
    assert_eq!(list(TagStatus::Untagged).await, [by_digest(&two)]);

    let describe = |ids: Vec<ImageIdentifier>| {
        let input = DescribeImagesRequest {
            repository_name: "app".to_owned(),
            image_ids: Some(ids),
            ..DescribeImagesRequest::default()
        };
        let context = fixture.context();
        let service = &fixture.service;
        async move { service.describe_images(&context, input).await }
    };
    let details = describe(vec![by_tag("v1"), by_tag("also")]).await.unwrap();
    let details = details.image_details.unwrap();
    assert_eq!(details.len(), 1);
    assert_eq!(details[0].image_digest.as_deref(), Some(one.as_str()));
    assert_eq!(
        details[0].image_tags,
        Some(vec!["also".to_owned(), "v1".to_owned()])
    );
    assert_eq!(details[0].image_size_in_bytes, Some(5));
    assert_eq!(
        details[0].image_manifest_media_type.as_deref(),
        Some(OCI_IMAGE)
    );
    assert_eq!(details[0].last_recorded_pull_time, None);
    assert_eq!(
        error(describe(vec![by_tag("v9")]).await.unwrap_err()),
        (
            "ImageNotFoundException".to_owned(),
            "The image with imageId {imageDigest:'null', imageTag:'v9'} does not exist within the repository with name 'app' in the registry with id '000000000000'".to_owned()
        )
    );
    fixture.call("GET", "/v2/app/manifests/v1", &[], "").await;
    let details = describe(vec![by_tag("v1")])
        .await
        .unwrap()
        .image_details
        .unwrap();
    assert_eq!(
        details[0].last_recorded_pull_time,
        Some(fixture.world.now())
    );
}

#[tokio::test]
async fn images_are_got_and_deleted_one_by_one() {
    let fixture = Fixture::with_repository().await;
    let digest = fixture.push_image("app", "v1", b"one").await;
    fixture.push_image("app", "also", b"one").await;
    let context = fixture.context();
    let get = |ids: Vec<ImageIdentifier>, accepted: Option<Vec<String>>| {
        let input = BatchGetImageRequest {
            repository_name: "app".to_owned(),
            image_ids: ids,
            accepted_media_types: accepted,
            ..BatchGetImageRequest::default()
        };
        let (service, context) = (&fixture.service, &context);
        async move { service.batch_get_image(context, input).await.unwrap() }
    };
    let missing_both = ImageIdentifier::default();
    let bad = ImageIdentifier {
        image_digest: Some("sha256:x".to_owned()),
        image_tag: None,
    };
    let other = Digest::of(b"other");
    let mismatch = ImageIdentifier {
        image_tag: Some("v1".to_owned()),
        ..by_digest(&other)
    };
    let got = get(
        vec![by_tag("v1"), by_tag("no"), missing_both, bad, mismatch],
        None,
    )
    .await;
    let images = got.images.unwrap();
    assert_eq!(images.len(), 1);
    let text = images[0].image_manifest.clone().unwrap();
    assert_eq!(Digest::of(text.as_bytes()), digest);
    let codes: Vec<_> = got
        .failures
        .unwrap()
        .into_iter()
        .filter_map(|failure| failure.failure_code)
        .collect();
    assert_eq!(
        codes,
        [
            ImageFailureCode::ImageNotFound,
            ImageFailureCode::MissingDigestAndTag,
            ImageFailureCode::InvalidImageDigest,
            ImageFailureCode::ImageTagDoesNotMatchDigest,
        ]
    );
    let got = get(vec![by_tag("v1")], Some(vec![DOCKER_IMAGE.to_owned()])).await;
    assert_eq!(
        (got.images.unwrap().len(), got.failures.unwrap().len()),
        (0, 1)
    );

    let delete = |ids: Vec<ImageIdentifier>| {
        let input = BatchDeleteImageRequest {
            repository_name: "app".to_owned(),
            image_ids: ids,
            ..BatchDeleteImageRequest::default()
        };
        let (service, context) = (&fixture.service, &context);
        async move { service.batch_delete_image(context, input).await.unwrap() }
    };
    let deleted = delete(vec![by_tag("also"), by_tag("no")]).await;
    let untagged = ImageIdentifier {
        image_tag: Some("also".to_owned()),
        ..by_digest(&digest)
    };
    assert_eq!(deleted.image_ids.unwrap(), [untagged]);
    assert_eq!(deleted.failures.unwrap().len(), 1);
    assert_eq!(
        get(vec![by_digest(&digest)], None)
            .await
            .images
            .unwrap()
            .len(),
        1
    );
    // With its last tag the image goes.
    delete(vec![by_tag("v1")]).await;
    assert_eq!(
        get(vec![by_digest(&digest)], None)
            .await
            .images
            .unwrap()
            .len(),
        0
    );
}

#[tokio::test]
async fn put_image_tags_what_is_there() {
    let fixture = Fixture::with_repository().await;
    let text = fixture.image("app", b"layer").await;
    let context = fixture.context();
    let put = |manifest: String, tag: &str, digest: Option<String>| {
        let input = PutImageRequest {
            repository_name: "app".to_owned(),
            image_manifest: manifest,
            image_tag: Some(tag.to_owned()),
            image_digest: digest,
            ..PutImageRequest::default()
        };
        let (service, context) = (&fixture.service, &context);
        async move { service.put_image(context, input).await }
    };
    let image = put(text.clone(), "v1", None).await.unwrap().image.unwrap();
    assert_eq!(image.image_manifest_media_type.as_deref(), Some(OCI_IMAGE));
    let digest = Digest::of(text.as_bytes());
    assert_eq!(
        error(put(text.clone(), "v1", None).await.unwrap_err()),
        (
            "ImageAlreadyExistsException".to_owned(),
            format!(
                "Image with digest '{digest}' and tag 'v1' already exists in the repository with name 'app' in registry with id '000000000000'"
            )
        )
    );
    let wrong = Some(Digest::of(b"").to_string());
    let (code, _) = error(put(text.clone(), "v2", wrong).await.unwrap_err());
    assert_eq!(code, "ImageDigestDoesNotMatchException");
    let missing = text.replace(Digest::of(b"layer").as_str(), Digest::of(b"no").as_str());
    let (code, _) = error(put(missing, "v2", None).await.unwrap_err());
    assert_eq!(code, "LayersNotFoundException");
    assert_eq!(
        error(put("{".to_owned(), "v2", None).await.unwrap_err()).0,
        "InvalidParameterException"
    );
}

#[tokio::test]
async fn tags_of_a_repository_are_kept_within_limits() {
    let fixture = Fixture::with_repository().await;
    let arn = "arn:aws:ecr:us-east-1:000000000000:repository/app".to_owned();
    let context = fixture.context();
    let tag = |key: &str| Tag {
        key: key.to_owned(),
        value: "v".to_owned(),
    };
    let add = |tags: Vec<Tag>| {
        let input = TagResourceRequest {
            resource_arn: arn.clone(),
            tags,
        };
        let (service, context) = (&fixture.service, &context);
        async move { service.tag_resource(context, input).await }
    };
    add(vec![tag("a"), tag("b")]).await.unwrap();
    let many = (0..50).map(|n| tag(&n.to_string())).collect();
    assert_eq!(
        error(add(many).await.unwrap_err()).0,
        "TooManyTagsException"
    );
    assert_eq!(
        error(add(vec![tag("aws:x")]).await.unwrap_err()).0,
        "InvalidTagParameterException"
    );
    let input = UntagResourceRequest {
        resource_arn: arn.clone(),
        tag_keys: vec!["a".to_owned()],
    };
    fixture
        .service
        .untag_resource(&context, input)
        .await
        .unwrap();
    let input = ListTagsForResourceRequest { resource_arn: arn };
    let left = fixture
        .service
        .list_tags_for_resource(&context, input)
        .await
        .unwrap();
    assert_eq!(left.tags.unwrap(), [tag("b")]);
}
