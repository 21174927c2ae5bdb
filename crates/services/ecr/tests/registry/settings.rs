//! Policies, scanning, replication, account settings and creation templates.

use gantry_api::ApiError;
use gantry_api::ecr::{
    BatchGetRepositoryScanningConfigurationRequest, CreateRepositoryCreationTemplateRequest,
    DeleteRepositoryCreationTemplateRequest, DeleteRepositoryPolicyRequest,
    DescribeImageScanFindingsRequest, DescribeRegistryRequest,
    DescribeRepositoryCreationTemplatesRequest, Ecr, EcrError, GetAccountSettingRequest,
    GetLifecyclePolicyRequest, GetRepositoryPolicyRequest, ImageIdentifier, ImageTagMutability,
    PutAccountSettingRequest, PutRegistryPolicyRequest, PutRegistryScanningConfigurationRequest,
    PutReplicationConfigurationRequest, RCTAppliedFor, RegistryScanningRule,
    ReplicationConfiguration, ReplicationDestination, ReplicationRule, ScanFrequency, ScanType,
    ScanningRepositoryFilter, ScanningRepositoryFilterType, SetRepositoryPolicyRequest,
    StartImageScanRequest, UpdateRepositoryCreationTemplateRequest,
};
use gantry_ecr::model::Digest;
use http::StatusCode;

use crate::fixture::Fixture;

const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["ecr:BatchGetImage"]}]}"#;
const LIFECYCLE: &str = r#"{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":9},"action":{"type":"expire"}}]}"#;

fn error(error: EcrError) -> (String, String) {
    let error = ApiError::from(error);
    (error.code, error.message)
}

fn of(name: &str) -> GetRepositoryPolicyRequest {
    GetRepositoryPolicyRequest {
        repository_name: name.to_owned(),
        registry_id: None,
    }
}

#[tokio::test]
async fn policies_are_kept_as_they_were_given_and_go_with_their_repository() {
    let fixture = Fixture::with_repository().await;
    let context = fixture.context();
    let service = &fixture.service;
    let missing = service.get_repository_policy(&context, of("app")).await;
    assert_eq!(
        error(missing.unwrap_err()).0,
        "RepositoryPolicyNotFoundException"
    );
    let set = |text: &str| SetRepositoryPolicyRequest {
        policy_text: text.to_owned(),
        repository_name: "app".to_owned(),
        ..SetRepositoryPolicyRequest::default()
    };
    let refused = service.set_repository_policy(&context, set("{}")).await;
    let (code, message) = error(refused.unwrap_err());
    assert_eq!(code, "InvalidParameterException");
    assert!(
        message.contains("Invalid repository policy provided"),
        "{message}"
    );
    service
        .set_repository_policy(&context, set(POLICY))
        .await
        .unwrap();
    let kept = service
        .get_repository_policy(&context, of("app"))
        .await
        .unwrap();
    assert_eq!(kept.policy_text.as_deref(), Some(POLICY));
    let delete = DeleteRepositoryPolicyRequest {
        repository_name: "app".to_owned(),
        registry_id: None,
    };
    service
        .delete_repository_policy(&context, delete)
        .await
        .unwrap();
    assert!(
        service
            .get_repository_policy(&context, of("app"))
            .await
            .is_err()
    );

    let missing = service
        .get_registry_policy(&context, Default::default())
        .await;
    assert_eq!(
        error(missing.unwrap_err()).0,
        "RegistryPolicyNotFoundException"
    );
    let put = PutRegistryPolicyRequest {
        policy_text: POLICY.to_owned(),
    };
    service.put_registry_policy(&context, put).await.unwrap();
    let other = fixture.context_of("111122223333");
    assert!(
        service
            .get_registry_policy(&other, Default::default())
            .await
            .is_err()
    );
    service
        .delete_registry_policy(&context, Default::default())
        .await
        .unwrap();
    assert!(
        service
            .delete_registry_policy(&context, Default::default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn scanning_is_kept_and_no_scan_is_made_up() {
    let fixture = Fixture::with_repository().await;
    let image = fixture.push_image("app", "v1", b"layer").await;
    let (context, service) = (fixture.context(), &fixture.service);
    let ask = || BatchGetRepositoryScanningConfigurationRequest {
        repository_names: vec!["app".to_owned(), "gone".to_owned()],
    };
    let answer = service
        .batch_get_repository_scanning_configuration(&context, ask())
        .await
        .unwrap();
    assert_eq!(
        answer.failures.unwrap()[0].repository_name.as_deref(),
        Some("gone")
    );
    assert_eq!(
        answer.scanning_configurations.unwrap()[0].scan_frequency,
        Some(ScanFrequency::Manual)
    );
    let rules = |frequency| {
        vec![RegistryScanningRule {
            repository_filters: vec![ScanningRepositoryFilter {
                filter: "a*".to_owned(),
                filter_type: ScanningRepositoryFilterType::Wildcard,
            }],
            scan_frequency: frequency,
        }]
    };
    let put = |scan_type, frequency| PutRegistryScanningConfigurationRequest {
        rules: Some(rules(frequency)),
        scan_type: Some(scan_type),
    };
    let input = put(ScanType::Enhanced, ScanFrequency::ContinuousScan);
    let refused = service
        .put_registry_scanning_configuration(&context, input)
        .await;
    assert!(error(refused.unwrap_err()).1.contains("ENHANCED"));
    let input = put(ScanType::Basic, ScanFrequency::ContinuousScan);
    let refused = service
        .put_registry_scanning_configuration(&context, input)
        .await;
    assert_eq!(error(refused.unwrap_err()).0, "InvalidParameterException");
    let input = put(ScanType::Basic, ScanFrequency::ScanOnPush);
    service
        .put_registry_scanning_configuration(&context, input)
        .await
        .unwrap();
    let kept = service
        .get_registry_scanning_configuration(&context, Default::default())
        .await;
    let kept = kept.unwrap().scanning_configuration.unwrap();
    assert_eq!(kept.rules, Some(rules(ScanFrequency::ScanOnPush)));
    let answer = service
        .batch_get_repository_scanning_configuration(&context, ask())
        .await
        .unwrap();
    let on_push = &answer.scanning_configurations.unwrap()[0];
    assert_eq!(
        (on_push.scan_on_push, &on_push.scan_frequency),
        (Some(true), &Some(ScanFrequency::ScanOnPush))
    );

    let id = |digest: &Digest| ImageIdentifier {
        image_digest: Some(digest.to_string()),
        image_tag: None,
    };
    let scan = |digest: &Digest| StartImageScanRequest {
        image_id: id(digest),
        repository_name: "app".to_owned(),
        registry_id: None,
    };
    let (code, message) = error(
        service
            .start_image_scan(&context, scan(&image))
            .await
            .unwrap_err(),
    );
    assert_eq!(code, "NotImplemented");
    assert!(message.contains("scanner"), "{message}");
    let unknown = service
        .start_image_scan(&context, scan(&Digest::of(b"x")))
        .await;
    assert_eq!(error(unknown.unwrap_err()).0, "ImageNotFoundException");
    let findings = DescribeImageScanFindingsRequest {
        image_id: id(&image),
        repository_name: "app".to_owned(),
        ..DescribeImageScanFindingsRequest::default()
    };
    let none = service
        .describe_image_scan_findings(&context, findings)
        .await;
    assert_eq!(error(none.unwrap_err()).0, "ScanNotFoundException");
}

#[tokio::test]
async fn replication_has_no_rules_and_settings_have_meaning() {
    let fixture = Fixture::with_repository().await;
    fixture.create("other").await;
    let (context, service) = (fixture.context(), &fixture.service);
    let rules = |rules| PutReplicationConfigurationRequest {
        replication_configuration: ReplicationConfiguration { rules },
    };
    service
        .put_replication_configuration(&context, rules(Vec::new()))
        .await
        .unwrap();
    let rule = ReplicationRule {
        destinations: vec![ReplicationDestination {
            region: "eu-west-1".to_owned(),
            registry_id: "000000000000".to_owned(),
        }],
        ..ReplicationRule::default()
    };
    let refused = service
        .put_replication_configuration(&context, rules(vec![rule]))
        .await;
    let (code, message) = error(refused.unwrap_err());
    assert_eq!(code, "NotImplemented");
    assert!(message.contains("PutReplicationConfiguration"), "{message}");
    let registry = service
        .describe_registry(&context, DescribeRegistryRequest {})
        .await
        .unwrap();
    assert_eq!(registry.replication_configuration.unwrap().rules, []);

    let get = |name: &str| GetAccountSettingRequest {
        name: name.to_owned(),
    };
    let put = |name: &str, value: &str| PutAccountSettingRequest {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let kept = service
        .get_account_setting(&context, get("BASIC_SCAN_TYPE_VERSION"))
        .await;
    assert_eq!(kept.unwrap().value.as_deref(), Some("AWS_NATIVE"));
    for (name, value) in [("X", "V1"), ("REGISTRY_POLICY_SCOPE", "V3")] {
        let refused = service
            .put_account_setting(&context, put(name, value))
            .await;
        assert_eq!(error(refused.unwrap_err()).0, "InvalidParameterException");
    }
    // Mounting is a setting that a push notices.
    let layer = fixture.push_blob("app", b"layer").await;
    let mount = format!("/v2/other/blobs/uploads/?mount={layer}&from=app");
    service
        .put_account_setting(&context, put("BLOB_MOUNTING", "DISABLED"))
        .await
        .unwrap();
    assert_eq!(
        fixture.call("POST", &mount, &[], "").await.status,
        StatusCode::ACCEPTED
    );
    service
        .put_account_setting(&context, put("BLOB_MOUNTING", "ENABLED"))
        .await
        .unwrap();
    assert_eq!(
        fixture.call("POST", &mount, &[], "").await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_push_makes_a_repository_from_the_longest_template() {
    let fixture = Fixture::new().await;
    let (context, service) = (fixture.context(), &fixture.service);
    let template = |prefix: &str, applied_for| CreateRepositoryCreationTemplateRequest {
        applied_for: vec![applied_for],
        prefix: prefix.to_owned(),
        ..CreateRepositoryCreationTemplateRequest::default()
    };
    let uploads = |name: &str| format!("/v2/{name}/blobs/uploads/");
    let unknown = fixture.call("POST", &uploads("team/app"), &[], "").await;
    assert_eq!(unknown.code(), "NAME_UNKNOWN");
    for (prefix, purpose) in [
        ("team", RCTAppliedFor::CreateOnPush),
        ("team/deep", RCTAppliedFor::Replication),
    ] {
        let input = template(prefix, purpose);
        service
            .create_repository_creation_template(&context, input)
            .await
            .unwrap();
    }
    let again = template("team/", RCTAppliedFor::CreateOnPush);
    let again = service
        .create_repository_creation_template(&context, again)
        .await;
    assert_eq!(
        error(again.unwrap_err()).0,
        "TemplateAlreadyExistsException"
    );
    let update = UpdateRepositoryCreationTemplateRequest {
        prefix: "team".to_owned(),
        image_tag_mutability: Some(ImageTagMutability::Immutable),
        lifecycle_policy: Some(LIFECYCLE.to_owned()),
        repository_policy: Some(POLICY.to_owned()),
        ..UpdateRepositoryCreationTemplateRequest::default()
    };
    service
        .update_repository_creation_template(&context, update.clone())
        .await
        .unwrap();
    let broken = UpdateRepositoryCreationTemplateRequest {
        lifecycle_policy: Some("{}".to_owned()),
        ..update
    };
    assert!(
        service
            .update_repository_creation_template(&context, broken)
            .await
            .is_err()
    );

    // A template for something else, or of another prefix, does not count.
    for name in ["team/deep/app", "teams/app", "team"] {
        let reply = fixture.call("POST", &uploads(name), &[], "").await;
        let expected = if name == "team/deep/app" { 202 } else { 404 };
        assert_eq!(reply.status.as_u16(), expected, "{name}");
    }
    fixture.push_image("team/app", "v1", b"one").await;
    let text = fixture.image("team/app", b"two").await;
    let media_type = gantry_ecr::model::manifest::OCI_IMAGE;
    let moved = fixture
        .put_manifest("team/app", "v1", media_type, &text)
        .await;
    assert_eq!(moved.code(), "TAG_INVALID");
    let policy = service
        .get_repository_policy(&context, of("team/app"))
        .await
        .unwrap();
    assert_eq!(policy.policy_text.as_deref(), Some(POLICY));
    let input = GetLifecyclePolicyRequest {
        repository_name: "team/app".to_owned(),
        registry_id: None,
    };
    let lifecycle = service.get_lifecycle_policy(&context, input).await.unwrap();
    assert_eq!(lifecycle.lifecycle_policy_text.as_deref(), Some(LIFECYCLE));

    let all = DescribeRepositoryCreationTemplatesRequest::default();
    let all = service
        .describe_repository_creation_templates(&context, all)
        .await
        .unwrap();
    let all = all.repository_creation_templates.unwrap();
    let prefixes: Vec<_> = all.iter().map(|it| it.prefix.as_deref().unwrap()).collect();
    assert_eq!(prefixes, ["team", "team/deep"]);
    let delete = DeleteRepositoryCreationTemplateRequest {
        prefix: "team".to_owned(),
    };
    service
        .delete_repository_creation_template(&context, delete.clone())
        .await
        .unwrap();
    let gone = service
        .delete_repository_creation_template(&context, delete)
        .await;
    assert_eq!(error(gone.unwrap_err()).0, "TemplateNotFoundException");
    let unknown = fixture.call("POST", &uploads("team/other"), &[], "").await;
    assert_eq!(unknown.code(), "NAME_UNKNOWN");
}
