//! Connections that break in the middle of a blob, and pulls that are killed there.

use std::fs;
use std::process::Command;

use gantry_env::Env;
use gantry_runtime::image_builder::{BuiltImage, ImageBuilder};
use gantry_runtime::{ErrorKind, ImageStore, RegistryAccess};

use crate::layers::digest;
use crate::registry::{Fault, Ranges, blob_path};
use crate::{Fixture, names};

/// Of several hundred KiB that do not compress, so that half of it is many chunks.
fn large() -> BuiltImage {
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    })
    .take(600_000)
    .collect();
    ImageBuilder::new()
        .file("noise", 0o644, noise)
        .build()
        .unwrap()
}

async fn assert_whole(fixture: &Fixture, built: &BuiltImage) {
    let pulled = fixture.pull("x:1").await.unwrap();
    assert_eq!(pulled.digest, built.manifest.digest);
    let lower = fixture.store.lowers(&pulled.digest).unwrap().remove(0);
    assert_eq!(fs::metadata(lower.join("noise")).unwrap().len(), 600_000);
    assert_eq!(
        names(&fixture.images().join("partial")),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_broke() {
    let fixture = Fixture::new().await;
    let built = large();
    fixture.registry.put_built("x", "1", &built);
    let layer = blob_path("x", &built.layer.digest);
    fixture.registry.fault(&layer, Fault::Break(2));
    assert_whole(&fixture, &built).await;
    let ranges = fixture.registry.ranges();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let half = built.layer.bytes.len() / 2;
    assert!(ranges[0].1 > 0 && ranges[0].1 <= half, "{ranges:?}");
    assert!(ranges[1].1 > ranges[0].1, "{ranges:?}");
    assert_eq!(fixture.registry.count(&layer), 3);
}

#[tokio::test]
async fn a_registry_without_ranges_begins_anew() {
    let fixture = Fixture::new().await;
    let built = large();
    fixture.registry.put_built("x", "1", &built);
    fixture.registry.content.lock().unwrap().how_ranges = Ranges::Ignored;
    let layer = blob_path("x", &built.layer.digest);
    fixture.registry.fault(&layer, Fault::Break(1));
    assert_whole(&fixture, &built).await;
    assert_eq!(fixture.registry.count(&layer), 2);
}

#[tokio::test]
async fn another_part_than_was_asked_for_is_refused() {
    let fixture = Fixture::new().await;
    let built = large();
    fixture.registry.put_built("x", "1", &built);
    fixture.registry.content.lock().unwrap().how_ranges = Ranges::Wrong;
    let layer = blob_path("x", &built.layer.digest);
    fixture.registry.fault(&layer, Fault::Break(1));
    let error = fixture.pull("x:1").await.unwrap_err();
    assert!(error.to_string().contains("another range"), "{error}");
    fixture.assert_empty();
}

#[tokio::test]
async fn a_registry_that_goes_down_fails_the_pull_by_name_and_leaves_nothing() {
    let fixture = Fixture::new().await;
    let built = large();
    fixture.registry.put_built("x", "1", &built);
    let layer = blob_path("x", &built.layer.digest);
    fixture.registry.fault(&layer, Fault::Break(usize::MAX));
    let error = fixture.pull("x:1").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::CannotPullContainer);
    let text = error.to_string();
    assert!(
        text.starts_with("CannotPullContainerError: pull image: failed to copy"),
        "{text}"
    );
    assert!(
        text.contains(&built.layer.digest) && text.contains("connection broke"),
        "{text}"
    );
    // The first try and three more.
    assert_eq!(fixture.registry.count(&layer), 4);
    fixture.assert_empty();
    fixture.registry.content.lock().unwrap().faults.clear();
    assert_whole(&fixture, &built).await;
}

#[tokio::test]
async fn a_killed_pull_goes_on_where_it_was_killed() {
    let fixture = Fixture::new().await;
    let built = large();
    fixture.registry.put_built("x", "1", &built);
    let layer = blob_path("x", &built.layer.digest);
    fixture.registry.fault(&layer, Fault::Stall);
    let reference = fixture.registry.reference("x:1").to_string();
    let mut puller = Command::new(env!("CARGO_BIN_EXE_gantry-test-shim"))
        .args(["pull", fixture.images().to_str().unwrap(), &reference])
        .spawn()
        .unwrap();
    fixture.registry.stalled.notified().await;
    let partial = fixture.images().join("partial");
    let kept = || -> u64 {
        let entries = fs::read_dir(&partial).unwrap().flatten();
        entries.map(|entry| entry.metadata().unwrap().len()).sum()
    };
    let half = built.layer.bytes.len() as u64 / 2;
    let env = Env::real();
    let deadline = env.monotonic() + crate::patience();
    while kept() < half {
        assert!(env.monotonic() < deadline, "only {} bytes came", kept());
        env.sleep(std::time::Duration::from_millis(5)).await;
    }
    puller.kill().unwrap();
    puller.wait().unwrap();
    fixture.registry.content.lock().unwrap().faults.clear();
    let store = ImageStore::open(&fixture.images(), Env::real()).unwrap();
    assert_eq!(kept(), half);
    let reference = fixture.registry.reference("x:1");
    store
        .pull(&reference, &RegistryAccess::default())
        .await
        .unwrap();
    assert_eq!(fixture.registry.ranges(), [(layer, half as usize)]);
    assert_whole(&fixture, &built).await;
}

#[tokio::test]
async fn what_was_kept_and_is_wrong_is_fetched_afresh() {
    let built = large();
    let size = built.layer.bytes.len();
    for kept in [vec![7; size / 2], vec![7; size], vec![7; size + 1]] {
        let fixture = Fixture::new().await;
        fixture.registry.put_built("x", "1", &built);
        // By the digests of the blob and of its tar, which the configuration names.
        let config: serde_json::Value = serde_json::from_slice(&built.config.bytes).unwrap();
        let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap();
        let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap().to_owned();
        let name = format!("{}-{}", hex(&digest(&built.layer.bytes)), hex(diff_id));
        fs::write(fixture.images().join("partial").join(name), &kept).unwrap();
        assert_whole(&fixture, &built).await;
        // Half is gone on with, in vain; what is as long as the blob is not even asked for.
        let asked = if kept.len() < size { 2 } else { 1 };
        assert_eq!(fixture.registry.count(&built.layer.digest), asked);
    }
}
