//! Images that go when nobody uses them, and never before.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_runtime::image_builder::BuiltImage;
use gantry_runtime::{Collected, CollectionPolicy, ImageReference, RegistryAccess, Runtime};

use crate::layers::{Layer, Tar, image};
use crate::registry::TestRegistry;
use crate::{Fixture, SHIM, busybox, event, exit, name, open};

/// As soon as nobody uses them.
fn at_once() -> CollectionPolicy {
    CollectionPolicy {
        age_min: Duration::ZERO,
        free_percent_min: 0,
        ..CollectionPolicy::default()
    }
}

async fn collect(runtime: &Runtime) -> Collected {
    runtime.collect_images(&at_once()).await.unwrap()
}

fn layers(data_dir: &Path) -> usize {
    std::fs::read_dir(data_dir.join("images/layers/sha256"))
        .unwrap()
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_when_its_last_task_is_removed() {
    let fixture = Fixture::new().await;
    let young = CollectionPolicy {
        free_percent_min: 0,
        ..CollectionPolicy::default()
    };
    let task = fixture.task().await;
    let spec = fixture.script("trap 'exit 0' TERM; while true; do sleep 0.01; done");
    task.start_container(spec).await.unwrap();
    event(&fixture.runtime).await;
    // Running.
    assert_eq!(collect(&fixture.runtime).await, Collected::default());
    // Adopted.
    let runtime = open(&fixture.data_dir, &fixture.installation).await;
    assert_eq!(collect(&runtime).await, Collected::default());
    let adopted = runtime.adopt().await.unwrap().remove(0);
    assert_eq!(collect(&runtime).await, Collected::default());
    // Stopped, and started again.
    adopted
        .handle
        .stop(&name("app"), crate::patience())
        .await
        .unwrap();
    exit(&runtime).await;
    assert_eq!(collect(&runtime).await, Collected::default());
    adopted
        .handle
        .restart_container(&name("app"))
        .await
        .unwrap();
    assert_eq!(collect(&runtime).await, Collected::default());
    adopted.handle.remove().await.unwrap();
    // Removed, but it was in use a moment ago.
    assert_eq!(
        runtime.collect_images(&young).await.unwrap(),
        Collected::default()
    );
    let collected = collect(&runtime).await;
    assert_eq!(
        (collected.images, collected.layers),
        (vec![fixture.image.clone()], 1)
    );
    assert_eq!(layers(&fixture.data_dir), 0);
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_pulled_for_a_container_waits_for_its_start() {
    let fixture = Fixture::new().await;
    let registry = TestRegistry::start().await;
    let built: BuiltImage = busybox().label("other", "1").build().unwrap();
    registry.put_built("other", "1", &built);
    let reference: ImageReference = registry.reference("other:1");
    let access = RegistryAccess::default();
    let held = fixture
        .runtime
        .pull_held(&reference, &access)
        .await
        .unwrap();
    // The layer is shared with the image of the fixture, which nobody holds.
    let collected = collect(&fixture.runtime).await;
    assert_eq!(
        (collected.images, collected.layers),
        (vec![fixture.image.clone()], 0)
    );
    let task = fixture.task().await;
    let mut spec = fixture.program(&["/bin/sleep", "60"]);
    spec.image.clone_from(&held.digest);
    task.start_container(spec).await.unwrap();
    drop(held);
    assert_eq!(collect(&fixture.runtime).await, Collected::default());
    task.remove().await.unwrap();
    assert_eq!(
        collect(&fixture.runtime).await.images,
        [built.manifest.digest]
    );
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_be_read_keeps_every_image() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    task.start_container(fixture.program(&["/bin/sleep", "60"]))
        .await
        .unwrap();
    let file = fixture
        .data_dir
        .join("tasks")
        .join(task.id().as_str())
        .join("c/app/container.json");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"{\"format\":9}").unwrap();
    let error = fixture
        .runtime
        .collect_images(&at_once())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no image is removed"), "{error}");
    std::fs::write(&file, good).unwrap();
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_killed_at_any_moment_leaves_images_whole_or_nothing() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    task.start_container(fixture.program(&["/bin/sleep", "60"]))
        .await
        .unwrap();
    let registry = TestRegistry::start().await;
    let many = |of: u8| {
        let mut tar = Tar::default();
        for at in 0..300 {
            tar.file(&format!("f{at}"), &[of; 100]);
        }
        Layer::plain(&tar.end())
    };
    image(&[many(1), many(2), many(3)]).put(&registry, "many", "1");
    let reference = registry.reference("many:1");
    let (mut whole, mut nothing) = (0, 0);
    for round in 0..12u32 {
        let runtime = open(&fixture.data_dir, &fixture.installation).await;
        runtime
            .pull(&reference, &RegistryAccess::default())
            .await
            .unwrap();
        drop(runtime);
        let mut collector = Command::new(SHIM)
            .args([
                "collect",
                fixture.data_dir.to_str().unwrap(),
                fixture.installation.as_str(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 8];
        collector
            .stdout
            .take()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        fixture
            .env
            .sleep(Duration::from_micros(u64::from(round * round * 80)))
            .await;
        collector.kill().unwrap();
        collector.wait().unwrap();
        let runtime = open(&fixture.data_dir, &fixture.installation).await;
        match runtime.cached(&reference).await {
            Some(image) => {
                whole += 1;
                assert_eq!(image.diff_ids.len(), 3);
            }
            None => nothing += 1,
        }
        // Whatever is in its place is whole.
        for layer in std::fs::read_dir(fixture.data_dir.join("images/layers/sha256")).unwrap() {
            let files = std::fs::read_dir(layer.unwrap().path()).unwrap().count();
            assert!(files == 300 || files < 10, "{files} files in round {round}");
        }
        // A new task of what runs still starts.
        let other = fixture.task().await;
        other
            .start_container(fixture.program(&["/bin/true"]))
            .await
            .unwrap();
        other.remove().await.unwrap();
    }
    assert_eq!(whole + nothing, 12);
    let runtime = open(&fixture.data_dir, &fixture.installation).await;
    collect(&runtime).await;
    assert_eq!(layers(&fixture.data_dir), 1);
    assert_eq!(runtime.cached(&reference).await, None);
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}
