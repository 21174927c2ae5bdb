//! What is not what it claims to be is refused with a reason, and leaves nothing.

use bytes::Bytes;
use gantry_env::Env;
use gantry_runtime::image_builder::ImageBuilder;
use gantry_runtime::{ErrorKind, ImageStore, ImageStoreOptions, LayerLimits, RegistryAccess};
use serde_json::json;

use crate::layers::{Layer, Tar, architecture, digest, image};
use crate::registry::{Fault, blob_path};
use crate::{Fixture, names};

fn small() -> Layer {
    Layer::gzip(&Tar::default().file("a", b"some bytes").end())
}

/// Pulls `x:1`, which must fail for this reason and leave nothing.
async fn refused(fixture: &Fixture, reason: &str) {
    let error = fixture.pull("x:1").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::CannotPullContainer);
    assert!(
        error.to_string().contains(reason),
        "{error} does not say {reason:?}"
    );
    fixture.assert_empty();
    assert_eq!(
        fixture.store.cached(&fixture.registry.reference("x:1")),
        None
    );
}

#[tokio::test]
async fn a_blob_with_other_bytes_is_refused() {
    let fixture = Fixture::new().await;
    let (good, other) = (
        small(),
        Layer::gzip(&Tar::default().file("a", b"other bytes").end()),
    );
    image(std::slice::from_ref(&good)).put(&fixture.registry, "x", "1");
    let path = blob_path("x", &digest(&good.blob));
    // The same length, so that only the digest tells.
    let mut same_length = other.blob.to_vec();
    same_length.resize(good.blob.len(), 0);
    // The same contents, compressed at another time.
    let mut same_contents = good.blob.to_vec();
    same_contents[4] ^= 1;
    let wrong = [
        same_length.into(),
        same_contents.into(),
        other.blob.slice(..20),
        Bytes::from(vec![0; 4096]),
    ];
    for bytes in wrong {
        fixture.registry.fault(&path, Fault::Instead(bytes));
        refused(&fixture, "CannotPullContainerError").await;
    }
}

#[tokio::test]
async fn contents_that_the_configuration_does_not_name_are_refused() {
    let fixture = Fixture::new().await;
    let mut layer = small();
    layer.diff_id = digest(b"something else");
    image(std::slice::from_ref(&layer)).put(&fixture.registry, "x", "1");
    refused(&fixture, &layer.diff_id).await;
}

#[tokio::test]
async fn a_layer_that_ends_early_is_refused() {
    let fixture = Fixture::new().await;
    let whole = Tar::default().file("a", &[1; 5000]).end();
    for tar in [&whole[..700], &whole[..300]] {
        image(&[Layer::plain(tar)]).put(&fixture.registry, "x", "1");
        refused(&fixture, "the layer ends within").await;
    }
    let mut cut = Layer::gzip(&whole);
    cut.blob.truncate(cut.blob.len() - 4);
    image(&[cut]).put(&fixture.registry, "x", "1");
    refused(&fixture, "CannotPullContainerError").await;
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let fixture = Fixture::new().await;
    let (asked, given) = (image(&[small()]), image(&[]));
    asked.put(&fixture.registry, "x", "1");
    let pinned = format!("x@{}", digest(&asked.manifest));
    let path = format!("/v2/x/manifests/{}", digest(&asked.manifest));
    fixture
        .registry
        .fault(&path, Fault::Instead(given.manifest));
    let error = fixture.pull(&pinned).await.unwrap_err();
    assert!(error.to_string().contains("has another digest"), "{error}");
    fixture.assert_empty();
}

#[tokio::test]
async fn documents_of_unreasonable_size_are_refused() {
    let fixture = Fixture::new().await;
    fixture
        .registry
        .put_manifest("x", "1", &Bytes::from(vec![b' '; (4 << 20) + 1]));
    refused(&fixture, "longer than").await;
    let mut large = image(&[]);
    let text = String::from_utf8(large.manifest.to_vec()).unwrap();
    large.manifest = text
        .replace(
            &format!("\"size\":{}", large.config.len()),
            "\"size\":99999999999",
        )
        .into();
    large.put(&fixture.registry, "x", "1");
    refused(&fixture, "99999999999 bytes").await;
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let fixture = Fixture::new().await;
    let reference = fixture.registry.reference("x:1");
    refused(&fixture, &format!("{reference}: not found")).await;
    // A registry that lost a layer.
    let made = image(&[small()]);
    made.put(&fixture.registry, "x", "1");
    fixture.registry.fault(
        &blob_path("x", &digest(&small().blob)),
        Fault::Status(http::StatusCode::NOT_FOUND, 9),
    );
    refused(&fixture, "not found").await;
}

#[tokio::test]
async fn the_manifest_of_this_machine_is_chosen_from_an_index() {
    let fixture = Fixture::new().await;
    let ours = ImageBuilder::new()
        .file("ours", 0o644, *b"1")
        .build()
        .unwrap();
    let theirs = ImageBuilder::new()
        .architecture("s390x")
        .file("theirs", 0o644, *b"1")
        .build()
        .unwrap();
    fixture.registry.put_built("x", "ours", &ours);
    fixture.registry.put_built("x", "theirs", &theirs);
    let entry = |image: &gantry_runtime::image_builder::BuiltImage, architecture: &str| {
        json!({ "digest": image.manifest.digest, "size": image.manifest.bytes.len(),
            "platform": { "os": "linux", "architecture": architecture } })
    };
    let index = |entries: Vec<serde_json::Value>| {
        Bytes::from(json!({ "schemaVersion": 2, "manifests": entries }).to_string())
    };
    fixture
        .registry
        .put_manifest("x", "1", &index(vec![entry(&theirs, "s390x")]));
    let reason = format!("no matching manifest for linux/{}", architecture());
    refused(&fixture, &reason).await;
    // One image alone, and one that the index lies about.
    fixture
        .registry
        .put_manifest("x", "1", &theirs.manifest.bytes);
    refused(&fixture, &reason).await;
    fixture
        .registry
        .put_manifest("x", "1", &index(vec![entry(&theirs, architecture())]));
    refused(&fixture, &reason).await;

    let both = index(vec![entry(&theirs, "s390x"), entry(&ours, architecture())]);
    fixture.registry.put_manifest("x", "1", &both);
    let pulled = fixture.pull("x:1").await.unwrap();
    assert_eq!(
        (pulled.digest.as_str(), &pulled.manifest_digest),
        (&*digest(&both), &ours.manifest.digest)
    );
    let lower = fixture.store.lowers(&pulled.digest).unwrap().remove(0);
    assert_eq!(names(&lower), ["ours"]);
    assert_eq!(fixture.store.image(&pulled.digest).unwrap(), pulled);
    assert_eq!(
        fixture.store.config(&pulled.manifest_digest).unwrap(),
        pulled.config
    );
}

#[tokio::test]
async fn a_layer_larger_than_the_limits_is_refused() {
    let mut fixture = Fixture::new().await;
    let options = ImageStoreOptions {
        limits: LayerLimits {
            entries_max: 10,
            bytes_max: 1 << 20,
        },
        ..ImageStoreOptions::default()
    };
    fixture.store = ImageStore::open_with(&fixture.images(), Env::real(), options).unwrap();
    let bomb = Tar::default().file("zeros", &vec![0; 64 << 20]).end();
    for layer in [Layer::gzip(&bomb), Layer::zstd(&bomb)] {
        image(&[layer]).put(&fixture.registry, "x", "1");
        refused(&fixture, "larger than the limit").await;
    }
    let mut many = Tar::default();
    for at in 0..11 {
        many.file(&format!("f{at}"), b"");
    }
    image(&[Layer::plain(&many.end())]).put(&fixture.registry, "x", "1");
    refused(&fixture, "more than 10 entries").await;
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_nothing_that_counts() {
    let fixture = Fixture::new().await;
    let done = Layer::gzip(&Tar::default().file("done", b"1").end());
    let stuck = Layer::plain(&Tar::default().file("stuck", &[1; 300_000]).end());
    image(&[done, stuck.clone()]).put(&fixture.registry, "x", "1");
    let path = blob_path("x", &digest(&stuck.blob));
    fixture.registry.fault(&path, Fault::Stall);
    let reference = fixture.registry.reference("x:1");
    let stalled = fixture.registry.stalled.clone();
    let access = RegistryAccess::default();
    tokio::select! {
        result = fixture.store.pull(&reference, &access) => panic!("it ended: {result:?}"),
        () = stalled.notified() => {}
    }
    assert_eq!(fixture.store.cached(&reference), None);
    assert_eq!(
        names(&fixture.images().join("layers/sha256")),
        Vec::<String>::new()
    );
    // The threads that unpacked notice in their own time.
    let env = Env::real();
    let deadline = env.monotonic() + crate::patience();
    while !names(&fixture.images().join("partial")).is_empty() {
        assert!(env.monotonic() < deadline, "a partial blob is left");
        env.sleep(std::time::Duration::from_millis(5)).await;
    }
    // As after a kill: whatever was half way is gone when the folder is opened again.
    let store = ImageStore::open(&fixture.images(), Env::real()).unwrap();
    fixture.assert_empty();
    fixture.registry.content.lock().unwrap().faults.clear();
    let pull = store.pull(&reference, &access);
    let pulled = tokio::time::timeout(crate::patience(), pull)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(store.lowers(&pulled.digest).unwrap().len(), 2);
}

#[tokio::test]
async fn one_caller_giving_up_does_not_stop_the_others() {
    let fixture = Fixture::new().await;
    let layer = Layer::plain(&Tar::default().file("slow", &[1; 300_000]).end());
    image(std::slice::from_ref(&layer)).put(&fixture.registry, "x", "1");
    // Two are wanted and only one asks, until the test itself is the second.
    let path = blob_path("x", &digest(&layer.blob));
    fixture.registry.content.lock().unwrap().together = Some((vec![path.clone()], 2));
    let mut first = Box::pin(fixture.pull("x:1"));
    let mut second = Box::pin(fixture.pull("x:1"));
    let asked = async {
        while fixture.registry.count(&path) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = &mut first => panic!("it ended"),
        _ = &mut second => panic!("it ended"),
        () = asked => {}
    }
    drop(first);
    let other = tokio::net::TcpStream::connect(fixture.registry.address)
        .await
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    other.writable().await.unwrap();
    other.try_write(request.as_bytes()).unwrap();
    second.await.unwrap();
    assert_eq!(fixture.registry.count("/manifests/1"), 1);
}
