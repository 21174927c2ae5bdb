//! A removal that dies after every one of its steps.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::image::holds::Holds;

thread_local! {
    static STEPS_LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Called after every step.
pub(super) fn died_here() -> io::Result<()> {
    match STEPS_LEFT.get() {
        Some(0) => Err(io::Error::other("killed")),
        Some(left) => {
            STEPS_LEFT.set(Some(left - 1));
            Ok(())
        }
        None => Ok(()),
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000_000);
const LONG_AGO: Timestamp = Timestamp::from_millis(900_000_000_000);

fn platform() -> Platform {
    Platform::of_this_machine()
}

fn layer(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Unique names, without chance.
fn unique() -> [u8; 16] {
    thread_local!(static NEXT: Cell<u128> = const { Cell::new(0) });
    NEXT.set(NEXT.get() + 1);
    NEXT.get().to_be_bytes()
}

/// Stores an image of these layers, last used at `used_at`.
fn store(files: &ImageFiles, name: &str, layers: &[&str], used_at: Timestamp) -> Digest {
    let ids: Vec<String> = layers.iter().map(|text| layer(text).to_string()).collect();
    let config = json!({ "os": platform().os, "architecture": platform().architecture,
        "config": { "Labels": { "name": name } }, "rootfs": { "type": "layers", "diff_ids": ids } })
    .to_string();
    let config_digest = Digest::of(config.as_bytes());
    let blobs: Vec<_> = ids
        .iter()
        .map(|id| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": id, "size": 1 }))
        .collect();
    let manifest = json!({ "schemaVersion": 2, "layers": blobs,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest.to_string(), "size": config.len() } })
    .to_string();
    let digest = Digest::of(manifest.as_bytes());
    for text in layers {
        let path = files.layer(&layer(text));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("a"), text).unwrap();
        fs::write(path.join("b"), text).unwrap();
    }
    files
        .write_blob(&config_digest, config.as_bytes(), unique())
        .unwrap();
    files
        .write_blob(&digest, manifest.as_bytes(), unique())
        .unwrap();
    let reference = format!("localhost/{name}:1").parse().unwrap();
    files
        .write_reference(&reference, &digest.to_string(), unique())
        .unwrap();
    files.write_used_at(&digest, used_at, unique()).unwrap();
    digest
}

fn collect(files: &ImageFiles, users: &BTreeSet<Digest>) -> io::Result<Collected> {
    let holds = Arc::new(Holds::default());
    let collecting = holds.begin().unwrap();
    Removal {
        files,
        platform: &platform(),
        policy: &CollectionPolicy::default(),
        collecting: &collecting,
        users,
        now: NOW,
        unique: &unique,
    }
    .run(false)
}

/// Every image that can be found has all files of its layers.
fn assert_whole_or_nothing(files: &ImageFiles, images: &[&Digest], dying_after: usize) {
    for digest in images {
        if let Some(contents) = files.contents(digest, &platform()) {
            for layer in contents.layers {
                for file in ["a", "b"] {
                    assert!(
                        files.layer(&layer).join(file).exists(),
                        "died after {dying_after}"
                    );
                }
            }
        }
    }
    // A layer in its place is whole, found or not: the next pull does not fetch it again.
    for layer in files.layers().unwrap() {
        assert_eq!(
            fs::read_dir(files.layer(&layer)).unwrap().count(),
            2,
            "died after {dying_after}"
        );
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_removal_that_dies_anywhere_leaves_images_whole_or_nothing() {
    for dying_after in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let files = ImageFiles::open(dir.path()).unwrap();
        let used = store(&files, "used", &["base", "used"], LONG_AGO);
        let young = store(&files, "young", &["base", "young"], NOW);
        let old = store(&files, "old", &["base", "old", "older"], LONG_AGO);
        let users = BTreeSet::from([used.clone()]);
        STEPS_LEFT.set(Some(dying_after));
        let result = collect(&files, &users);
        STEPS_LEFT.set(None);
        drop(files);
        let files = ImageFiles::open(dir.path()).unwrap();
        assert_whole_or_nothing(&files, &[&used, &young, &old], dying_after);
        for stays in [&used, &young] {
            assert!(
                files.load(stays, &platform()).is_some(),
                "died after {dying_after}"
            );
        }
        // The next cycle finishes what this one began.
        collect(&files, &users).unwrap();
        assert!(files.load(&old, &platform()).is_none());
        assert_eq!(
            files.layers().unwrap(),
            ["base", "used", "young"].map(layer).into_iter().collect()
        );
        assert_eq!(files.blobs().unwrap().len(), 4);
        for (part, left) in [
            ("references", 2),
            ("used", 2),
            ("removed", 0),
            ("temporary", 0),
        ] {
            assert_eq!(count(&dir.path().join(part)), left, "{part}");
        }
        if result.is_ok() {
            assert!(dying_after > 5, "only {dying_after} steps");
            return;
        }
    }
}

#[test]
fn a_store_without_records_begins_to_count_now() {
    let dir = tempfile::tempdir().unwrap();
    let files = ImageFiles::open(dir.path()).unwrap();
    let image = store(&files, "a", &["x"], LONG_AGO);
    fs::remove_file(files.use_record(&image)).unwrap();
    assert_eq!(
        collect(&files, &BTreeSet::new()).unwrap(),
        Collected::default()
    );
    assert!(files.load(&image, &platform()).is_some());
    assert_eq!(files.used_at(&image), Some(NOW));
}

#[test]
fn what_a_tag_no_longer_means_goes_by_its_own_age() {
    let dir = tempfile::tempdir().unwrap();
    let files = ImageFiles::open(dir.path()).unwrap();
    let before = store(&files, "a", &["x"], NOW);
    let after = store(&files, "a", &["y"], NOW);
    assert_ne!(before, after);
    collect(&files, &BTreeSet::new()).unwrap();
    assert!(files.load(&before, &platform()).is_some());
    files.write_used_at(&before, LONG_AGO, unique()).unwrap();
    let collected = collect(&files, &BTreeSet::new()).unwrap();
    assert_eq!(collected.images, [before.to_string()]);
    assert_eq!(collected.layers, 1);
    assert!(files.load(&after, &platform()).is_some());
}
