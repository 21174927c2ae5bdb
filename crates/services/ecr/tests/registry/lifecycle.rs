//! Lifecycle policies: what expires, what never does, and what a preview says before.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_api::ApiError;
use gantry_api::ecr::{
    DeleteLifecyclePolicyRequest, Ecr, EcrError, GetLifecyclePolicyPreviewRequest,
    GetLifecyclePolicyPreviewResponse, GetLifecyclePolicyRequest, LifecyclePolicyPreviewFilter,
    LifecyclePolicyPreviewStatus, PutLifecyclePolicyRequest, StartLifecyclePolicyPreviewRequest,
    TagStatus,
};
use gantry_ecr::model::Digest;
use gantry_ecr::model::manifest::{OCI_IMAGE, OCI_INDEX};
use gantry_ecr::tables::{ImageRow, PullRow, TagRow};
use gantry_ecr::{Options, plan};
use http::StatusCode;
use serde_json::json;

use crate::fixture::Fixture;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn code(error: EcrError) -> String {
    ApiError::from(error).code
}

/// A policy of one rule for every image.
fn any(count: &str) -> String {
    format!(
        r#"{{"rules":[{{"rulePriority":1,"selection":{{"tagStatus":"any",{count}}},"action":{{"type":"expire"}}}}]}}"#
    )
}

fn older_than(days: u64) -> String {
    any(&format!(
        r#""countType":"sinceImagePushed","countUnit":"days","countNumber":{days}"#
    ))
}

fn more_than(count: u64) -> String {
    any(&format!(
        r#""countType":"imageCountMoreThan","countNumber":{count}"#
    ))
}

impl Fixture {
    async fn put_policy(&self, text: &str) {
        let input = PutLifecyclePolicyRequest {
            lifecycle_policy_text: text.to_owned(),
            repository_name: "app".to_owned(),
            registry_id: None,
        };
        let context = self.context();
        let put = self.service.put_lifecycle_policy(&context, input).await;
        assert_eq!(put.unwrap().lifecycle_policy_text.as_deref(), Some(text));
    }

    async fn last_evaluated(&self) -> Option<gantry_env::Timestamp> {
        let input = GetLifecyclePolicyRequest {
            repository_name: "app".to_owned(),
            registry_id: None,
        };
        let context = self.context();
        let got = self.service.get_lifecycle_policy(&context, input).await;
        got.unwrap().last_evaluated_at
    }

    async fn preview(
        &self,
        change: impl FnOnce(&mut GetLifecyclePolicyPreviewRequest),
    ) -> Result<GetLifecyclePolicyPreviewResponse, EcrError> {
        let mut input = GetLifecyclePolicyPreviewRequest {
            repository_name: "app".to_owned(),
            ..GetLifecyclePolicyPreviewRequest::default()
        };
        change(&mut input);
        let context = self.context();
        self.service
            .get_lifecycle_policy_preview(&context, input)
            .await
    }

    fn image_digests(&self) -> BTreeSet<String> {
        let rows = self.store.snapshot().list_everywhere::<ImageRow>();
        rows.iter().map(|row| row.digest.to_string()).collect()
    }
}

#[tokio::test]
async fn the_oldest_expire_and_the_time_of_it_is_kept() {
    let fixture = Fixture::with_repository().await;
    let mut images = Vec::new();
    for number in 0..4 {
        let layer = format!("layer {number}");
        images.push(
            fixture
                .push_image("app", &format!("v{number}"), layer.as_bytes())
                .await,
        );
        fixture.world.advance(DAY);
    }
    fixture.put_policy(&more_than(2)).await;
    assert_eq!(fixture.last_evaluated().await, None);
    fixture.service.collect().await.unwrap();
    assert_eq!(fixture.last_evaluated().await, Some(fixture.world.now()));
    let kept: BTreeSet<String> = images[2..].iter().map(Digest::to_string).collect();
    assert_eq!(fixture.image_digests(), kept);
    let snapshot = fixture.store.snapshot();
    assert_eq!(snapshot.list_everywhere::<TagRow>().len(), 2);
    let gone = fixture.call("GET", "/v2/app/manifests/v0", &[], "").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);

    // Nothing more is due, and only once a day is that written down.
    let steps = |after: Duration| {
        let now = fixture.world.now() + after;
        let steps = plan(&fixture.store.snapshot(), now, &Options::default());
        steps
            .iter()
            .map(|step| step.transaction.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(steps(Duration::from_secs(60)), [] as [usize; 0]);
    let due = fixture.world.now() + DAY;
    fixture.world.advance(DAY);
    fixture.service.collect().await.unwrap();
    assert_eq!(fixture.last_evaluated().await, Some(due));
    assert_eq!(fixture.image_digests(), kept);

    let input = DeleteLifecyclePolicyRequest {
        repository_name: "app".to_owned(),
        registry_id: None,
    };
    let context = fixture.context();
    let deleted = fixture
        .service
        .delete_lifecycle_policy(&context, input.clone())
        .await;
    assert_eq!(deleted.unwrap().last_evaluated_at, Some(due));
    let none = fixture
        .service
        .delete_lifecycle_policy(&context, input)
        .await;
    assert_eq!(code(none.unwrap_err()), "LifecyclePolicyNotFoundException");
}

#[tokio::test]
async fn what_an_index_needs_stays_and_what_is_about_an_image_goes_with_it() {
    let fixture = Fixture::with_repository().await;
    let old = fixture.push_image("app", "old", b"old").await;
    let child = fixture.push_image("app", "child", b"child").await;
    let config = Digest::of(b"{}");
    let about = |subject: &Digest| {
        json!({"schemaVersion": 2, "mediaType": OCI_IMAGE, "layers": [],
            "artifactType": "application/vnd.example.signature",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json",
                "digest": config.as_str(), "size": 2},
            "subject": {"mediaType": OCI_IMAGE, "digest": subject.as_str(), "size": 5}})
        .to_string()
    };
    for (tag, subject) in [("sig-old", &old), ("sig-child", &child)] {
        let put = fixture
            .put_manifest("app", tag, OCI_IMAGE, &about(subject))
            .await;
        assert_eq!(put.status, StatusCode::CREATED);
    }
    fixture.world.advance(10 * DAY);
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_IMAGE, "digest": child.as_str(), "size": 2}]})
    .to_string();
    fixture.put_manifest("app", "all", OCI_INDEX, &index).await;
    fixture.put_policy(&older_than(5)).await;
    fixture.service.collect().await.unwrap();
    let left: BTreeSet<String> = [
        child.to_string(),
        Digest::of(about(&child).as_bytes()).to_string(),
        Digest::of(index.as_bytes()).to_string(),
    ]
    .into();
    assert_eq!(fixture.image_digests(), left);
    // When the index is old as well, all of it goes.
    fixture.world.advance(6 * DAY);
    fixture.service.collect().await.unwrap();
    assert_eq!(fixture.image_digests(), BTreeSet::new());
}

#[tokio::test]
async fn many_images_and_many_tags_go_in_bounded_transactions() {
    let fixture = Fixture::with_repository().await;
    let text = fixture.image("app", b"tagged").await;
    for number in 0..190 {
        let tag = format!("t{number}");
        fixture.put_manifest("app", &tag, OCI_IMAGE, &text).await;
    }
    for number in 0..60 {
        let layer = format!("layer {number}");
        fixture
            .push_image("app", &format!("v{number}"), layer.as_bytes())
            .await;
    }
    fixture.world.advance(3 * DAY);
    // Only the first image has tags that begin so, and soon it has none of them.
    let rule = |priority, prefix: &str| {
        json!({"rulePriority": priority, "action": {"type": "expire"},
            "selection": {"tagStatus": "tagged", "tagPrefixList": [prefix],
                "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1}})
    };
    let policy = json!({"rules": [rule(1, "t0"), rule(2, "v")]}).to_string();
    fixture.put_policy(&policy).await;
    for _ in 0..50 {
        let now = fixture.world.now();
        let steps = plan(&fixture.store.snapshot(), now, &Options::default());
        let Some(step) = steps.into_iter().find(|step| step.remove_object.is_none()) else {
            break;
        };
        assert!(step.transaction.len() <= 100, "{}", step.transaction.len());
        fixture.store.commit(step.transaction).await.unwrap();
    }
    assert_eq!(fixture.image_digests(), BTreeSet::new());
    let snapshot = fixture.store.snapshot();
    assert_eq!(snapshot.list_everywhere::<TagRow>().len(), 0);
    assert_eq!(snapshot.list_everywhere::<PullRow>().len(), 0);
}

#[tokio::test]
async fn a_push_that_comes_between_plan_and_commit_wins() {
    let fixture = Fixture::with_repository().await;
    fixture.push_image("app", "v1", b"one").await;
    fixture.world.advance(2 * DAY);
    fixture.put_policy(&older_than(1)).await;
    let steps = plan(
        &fixture.store.snapshot(),
        fixture.world.now(),
        &Options::default(),
    );
    fixture.push_image("app", "v2", b"two").await;
    for step in steps {
        let conflict = fixture.store.commit(step.transaction).await.unwrap_err();
        assert!(conflict.is_conflict());
    }
    assert_eq!(fixture.image_digests().len(), 2);
}

#[tokio::test]
async fn a_preview_says_what_would_expire_and_removes_nothing() {
    let fixture = Fixture::with_repository().await;
    assert_eq!(
        code(fixture.preview(|_| {}).await.unwrap_err()),
        "LifecyclePolicyPreviewNotFoundException"
    );
    let start = |text: Option<String>| StartLifecyclePolicyPreviewRequest {
        lifecycle_policy_text: text,
        repository_name: "app".to_owned(),
        registry_id: None,
    };
    let context = fixture.context();
    let none = fixture
        .service
        .start_lifecycle_policy_preview(&context, start(None))
        .await;
    assert_eq!(code(none.unwrap_err()), "LifecyclePolicyNotFoundException");

    for number in 0..5 {
        let layer = format!("layer {number}");
        fixture
            .push_image("app", &format!("v{number}"), layer.as_bytes())
            .await;
        fixture.world.advance(Duration::from_secs(1));
    }
    let context = fixture.context();
    let text = more_than(1);
    let started = fixture
        .service
        .start_lifecycle_policy_preview(&context, start(Some(text.clone())))
        .await
        .unwrap();
    assert_eq!(
        started.status,
        Some(LifecyclePolicyPreviewStatus::InProgress)
    );
    // What is pushed later is not looked at.
    fixture.world.advance(Duration::from_secs(1));
    fixture.push_image("app", "later", b"later").await;

    let (mut tags, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = fixture
            .preview(|input| {
                input.max_results = Some(3);
                input.next_token = token.clone();
            })
            .await
            .unwrap();
        assert_eq!(page.status, Some(LifecyclePolicyPreviewStatus::Complete));
        assert_eq!(page.lifecycle_policy_text.as_ref(), Some(&text));
        assert_eq!(page.summary.unwrap().expiring_image_total_count, Some(4));
        for result in page.preview_results.unwrap() {
            assert_eq!(result.applied_rule_priority, Some(1));
            tags.extend(result.image_tags.unwrap());
        }
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(tags, ["v0", "v1", "v2", "v3"]);
    let untagged = fixture
        .preview(|input| {
            input.filter = Some(LifecyclePolicyPreviewFilter {
                tag_status: Some(TagStatus::Untagged),
            });
        })
        .await
        .unwrap();
    assert_eq!(untagged.preview_results.unwrap().len(), 0);
    assert_eq!(
        untagged.summary.unwrap().expiring_image_total_count,
        Some(4)
    );
    fixture.service.collect().await.unwrap();
    assert_eq!(fixture.image_digests().len(), 6);

    let bad = PutLifecyclePolicyRequest {
        lifecycle_policy_text: any(r#""countType":"imageCountMoreThan","countNumber":0"#),
        repository_name: "app".to_owned(),
        registry_id: None,
    };
    let context = fixture.context();
    let refused = fixture.service.put_lifecycle_policy(&context, bad).await;
    assert_eq!(code(refused.unwrap_err()), "InvalidParameterException");
}
