//! What is collected, when, and what never is.

use std::time::Duration;

use gantry_api::ecr::{DeleteRepositoryRequest, Ecr};
use gantry_ecr::model::Digest;
use gantry_ecr::model::manifest::OCI_IMAGE;
use gantry_ecr::tables::{
    BlobRow, BlobState, DeletedRepositoryRow, ImageRow, LayerRow, TokenKeyRow,
};
use gantry_ecr::{EcrService, Options, plan};
use gantry_env::VirtualEnv;
use http::StatusCode;

use crate::fixture::{Fixture, manifest};

const HOUR: Duration = Duration::from_secs(3600);

/// Every blob's count of links is what the layer rows say, and every object is a blob's.
fn check_links(fixture: &Fixture) {
    let snapshot = fixture.store.snapshot();
    let layers = snapshot.list_everywhere::<LayerRow>();
    let blobs = snapshot.list_everywhere::<BlobRow>();
    let mut objects: Vec<String> = blobs.iter().map(|blob| blob.object.clone()).collect();
    objects.sort();
    assert_eq!(fixture.files(), objects);
    for blob in blobs {
        let links = layers
            .iter()
            .filter(|layer| layer.digest.as_str() == blob.name())
            .count();
        assert_eq!(blob.links, links as u64, "{}", blob.name());
        assert_eq!(links == 0, blob.state != BlobState::Stored);
    }
}

#[tokio::test]
async fn what_no_image_needs_goes_after_its_grace() {
    let fixture = Fixture::with_repository().await;
    fixture.push_image("app", "v1", b"needed").await;
    let unused = fixture.push_blob("app", b"unused").await;
    assert_eq!(fixture.files().len(), 4);
    fixture.world.advance(23 * HOUR);
    assert_eq!(fixture.service.collect().await.unwrap(), 0);
    fixture.world.advance(HOUR);
    fixture.service.collect().await.unwrap();
    check_links(&fixture);
    let path = format!("/v2/app/blobs/{unused}");
    assert_eq!(
        fixture.call("HEAD", &path, &[], "").await.status,
        StatusCode::NOT_FOUND
    );
    // The bytes are kept a little longer, in case another repository pushes them.
    assert_eq!(fixture.files().len(), 4);
    fixture.world.advance(HOUR);
    fixture.service.collect().await.unwrap();
    assert_eq!(fixture.files().len(), 3);
    assert_eq!(fixture.service.collect().await.unwrap(), 0);
    check_links(&fixture);
    let image = fixture.call("GET", "/v2/app/manifests/v1", &[], "").await;
    assert_eq!(image.status, StatusCode::OK);
}

#[tokio::test]
async fn a_layer_that_a_push_found_to_be_there_stays_for_it() {
    let fixture = Fixture::with_repository().await;
    let config = fixture.push_blob("app", b"{}").await;
    let layer = fixture.push_blob("app", b"layer").await;
    fixture.world.advance(23 * HOUR);
    for digest in [&config, &layer] {
        let path = format!("/v2/app/blobs/{digest}");
        assert_eq!(
            fixture.call("HEAD", &path, &[], "").await.status,
            StatusCode::OK
        );
    }
    fixture.world.advance(17 * HOUR);
    fixture.service.collect().await.unwrap();
    let text = manifest(&config, 2, &layer, 5);
    let put = fixture.put_manifest("app", "v1", OCI_IMAGE, &text).await;
    assert_eq!(put.status, StatusCode::CREATED);
}

#[tokio::test]
async fn an_image_that_comes_between_plan_and_commit_wins() {
    let fixture = Fixture::with_repository().await;
    let config = fixture.push_blob("app", b"{}").await;
    let layer = fixture.push_blob("app", b"layer").await;
    fixture.world.advance(24 * HOUR);
    let steps = plan(
        &fixture.store.snapshot(),
        fixture.world.now(),
        &Options::default(),
    );
    assert_eq!(steps.len(), 1);
    let text = manifest(&config, 2, &layer, 5);
    let put = fixture.put_manifest("app", "v1", OCI_IMAGE, &text).await;
    assert_eq!(put.status, StatusCode::CREATED);
    for step in steps {
        let conflict = fixture.store.commit(step.transaction).await.unwrap_err();
        assert!(conflict.is_conflict());
    }
    assert_eq!(
        plan(
            &fixture.store.snapshot(),
            fixture.world.now(),
            &Options::default()
        )
        .len(),
        0
    );
}

#[tokio::test]
async fn bytes_that_are_being_removed_can_be_pushed_again() {
    let fixture = Fixture::with_repository().await;
    let digest = fixture.push_blob("app", b"layer").await;
    fixture.world.advance(24 * HOUR);
    let now = || fixture.world.now();
    let commit_all = async || {
        for step in plan(&fixture.store.snapshot(), now(), &Options::default()) {
            assert_eq!(step.remove_object, None);
            fixture.store.commit(step.transaction).await.unwrap();
        }
    };
    commit_all().await; // unlinks
    fixture.world.advance(HOUR);
    commit_all().await; // marks it as being collected
    let removal = plan(&fixture.store.snapshot(), now(), &Options::default())
        .pop()
        .unwrap();
    let old_object = removal.remove_object.unwrap();

    // A push comes before the object is removed: it has an object of its own.
    fixture.push_blob("app", b"layer").await;
    std::fs::remove_file(fixture.blobs_directory().join(&old_object)).unwrap();
    assert!(
        fixture
            .store
            .commit(removal.transaction)
            .await
            .unwrap_err()
            .is_conflict()
    );
    let get = fixture
        .call("GET", &format!("/v2/app/blobs/{digest}"), &[], "")
        .await;
    assert_eq!(get.body, "layer");
    check_links(&fixture);
}

#[tokio::test]
async fn a_deleted_repository_is_empty_when_it_is_made_again() {
    let fixture = Fixture::with_repository().await;
    fixture.create("other").await;
    fixture.push_image("other", "v1", b"layer 0").await;
    for n in 0..30 {
        fixture
            .push_image("app", &format!("v{n}"), format!("layer {n}").as_bytes())
            .await;
    }
    let upload = fixture.begin_upload("app").await;
    let input = DeleteRepositoryRequest {
        force: Some(true),
        repository_name: "app".to_owned(),
        ..DeleteRepositoryRequest::default()
    };
    fixture
        .service
        .delete_repository(&fixture.context(), input)
        .await
        .unwrap();
    fixture.create("app").await;
    let tags = fixture.call("GET", "/v2/app/tags/list", &[], "").await;
    assert_eq!(tags.json()["tags"].as_array().unwrap().len(), 0);
    let layer = Digest::of(b"layer 1");
    let path = format!("/v2/app/blobs/{layer}");
    assert_eq!(
        fixture.call("HEAD", &path, &[], "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        fixture.call("PATCH", &upload, &[], "x").await.status,
        StatusCode::NOT_FOUND
    );

    fixture.service.collect().await.unwrap();
    let snapshot = fixture.store.snapshot();
    assert_eq!(snapshot.list_everywhere::<DeletedRepositoryRow>().len(), 0);
    assert_eq!(snapshot.list_everywhere::<ImageRow>().len(), 1);
    assert_eq!(snapshot.list_everywhere::<LayerRow>().len(), 3);
    fixture.world.advance(HOUR);
    fixture.service.collect().await.unwrap();
    check_links(&fixture);
    assert_eq!(fixture.files().len(), 3);
    let kept = fixture.call("GET", "/v2/other/manifests/v1", &[], "").await;
    assert_eq!(kept.status, StatusCode::OK);
}

#[tokio::test]
async fn a_start_clears_what_no_row_names_and_keeps_the_rest() {
    let fixture = Fixture::with_repository().await;
    let digest = fixture.push_image("app", "v1", b"layer").await;
    let token = fixture.token("000000000000").await;
    let kept = fixture.files();
    for junk in ["orphan", "half#1"] {
        std::fs::write(fixture.blobs_directory().join(junk), b"junk").unwrap();
    }
    let directory = fixture.blobs_directory();
    let again = EcrService::new(
        fixture.store.clone(),
        &directory,
        fixture.world.env(),
        Options::default(),
    );
    let registry = again.await.unwrap().registry();
    assert_eq!(fixture.files(), kept);
    // Passwords outlive the process, since the key is a row.
    let fixture = Fixture {
        registry,
        ..fixture
    };
    let headers = [("authorization", format!("Basic {token}"))];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let path = format!("/v2/app/manifests/{digest}");
    assert_eq!(
        fixture.call_raw("GET", &path, &headers, "").await.status,
        StatusCode::OK
    );
}

/// Pushes, mounts, deletions and collections in any order: every tagged image can be read whole,
/// counts agree with rows, and in the end nothing is left.
#[tokio::test]
async fn whatever_the_order_images_stay_whole_and_nothing_leaks() {
    for seed in 0..30 {
        let fixture = Fixture::new().await;
        let repositories = ["one", "two", "three"];
        for name in repositories {
            fixture.create(name).await;
        }
        let random = VirtualEnv::seeded(seed).env();
        let draw = |below: u64| random.entropy.u64() % below;
        for _ in 0..60 {
            let repository = repositories[draw(3) as usize];
            let layer = format!("layer {}", draw(5));
            let tag = format!("v{}", draw(3));
            match draw(8) {
                0..3 => drop(fixture.push_image(repository, &tag, layer.as_bytes()).await),
                3 => drop(fixture.push_blob(repository, layer.as_bytes()).await),
                4 => {
                    let (digest, from) =
                        (Digest::of(layer.as_bytes()), repositories[draw(3) as usize]);
                    let path =
                        format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
                    let reply = fixture.call("POST", &path, &[], "").await;
                    if reply.status == StatusCode::ACCEPTED {
                        fixture
                            .call("DELETE", reply.header("location"), &[], "")
                            .await;
                    }
                }
                5 => {
                    let path = format!("/v2/{repository}/manifests/{tag}");
                    fixture.call("DELETE", &path, &[], "").await;
                }
                6 => {
                    delete(&fixture, repository).await;
                    fixture.create(repository).await;
                }
                _ => {
                    fixture.world.advance(HOUR * draw(30) as u32);
                    fixture.service.collect().await.unwrap();
                }
            }
            check_links(&fixture);
            for name in repositories {
                check_images(&fixture, name).await;
            }
        }
        for name in repositories {
            delete(&fixture, name).await;
        }
        fixture.service.collect().await.unwrap();
        fixture.world.advance(HOUR);
        fixture.service.collect().await.unwrap();
        assert_eq!(fixture.files(), Vec::<String>::new(), "seed {seed}");
        // Of all rows only the password's key is left.
        assert_eq!(
            fixture
                .store
                .snapshot()
                .list_everywhere::<TokenKeyRow>()
                .len(),
            1
        );
        let ours = gantry_store::Prefix::service_everywhere("ecr");
        assert_eq!(
            fixture.store.snapshot().scan(&ours).count(),
            1,
            "seed {seed}"
        );
    }
}

async fn delete(fixture: &Fixture, name: &str) {
    let input = DeleteRepositoryRequest {
        force: Some(true),
        repository_name: name.to_owned(),
        ..DeleteRepositoryRequest::default()
    };
    fixture
        .service
        .delete_repository(&fixture.context(), input)
        .await
        .unwrap();
}

async fn check_images(fixture: &Fixture, name: &str) {
    let tags = fixture
        .call("GET", &format!("/v2/{name}/tags/list"), &[], "")
        .await;
    for tag in tags.json()["tags"].as_array().unwrap() {
        let path = format!("/v2/{name}/manifests/{}", tag.as_str().unwrap());
        let image = fixture.call("GET", &path, &[], "").await;
        assert_eq!(image.status, StatusCode::OK);
        let layer = image.json()["layers"][0]["digest"]
            .as_str()
            .unwrap()
            .to_owned();
        let blob = fixture
            .call("GET", &format!("/v2/{name}/blobs/{layer}"), &[], "")
            .await;
        assert_eq!(Digest::of(&blob.body).as_str(), layer);
    }
}
