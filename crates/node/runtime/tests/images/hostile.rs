//! A corpus of what a stranger may push: layers and documents that lie about their size, shape or digest.
//! Each is either refused with a reason, or means something harmless inside; nothing lands outside the layer, and a
//! refusal leaves nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use bytes::Bytes;
use gantry_env::Env;
use gantry_runtime::{ErrorKind, ImageStore, ImageStoreOptions, LayerLimits};
use serde_json::{Value, json};
use tar::EntryType;

use crate::layers::{Layer, Tar, digest, image};
use crate::{Fixture, names};

async fn refused(fixture: &Fixture, what: &str, reason: &str) {
    let error = fixture.pull("x:1").await.expect_err(what);
    assert_eq!(error.kind, ErrorKind::CannotPullContainer, "{what}");
    let text = error.to_string();
    assert!(
        text.contains(reason),
        "{what}: {text} does not say {reason:?}"
    );
    assert!(!text.contains('\n'), "{what}: {text:?}");
    fixture.assert_empty();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test]
async fn names_that_few_expect_are_kept_or_refused() {
    let fixture = Fixture::new().await;
    let longest = "n".repeat(255);
    let mut tar = Tar::default();
    tar.pax("path", b"line\nbreak").file("x", b"1");
    tar.pax("path", b"\xff\xfe").file("x", b"2");
    tar.pax("path", longest.as_bytes()).file("x", b"3");
    tar.file("twice", b"first").file("twice", b"second");
    tar.entry(EntryType::Regular, "su", "", 0o6755, b"su");
    tar.folder("now-a-file/").file("now-a-file/inner", b"");
    tar.entry(EntryType::Regular, "now-a-file", "", 0o644, b"file");
    let root = fixture.pull_layer(&tar.end()).await.unwrap();
    let there = fs::read_dir(&root).unwrap().count();
    assert_eq!(there, 6);
    assert_eq!(fs::read(root.join("line\nbreak")).unwrap(), b"1");
    assert_eq!(fs::read(root.join(&longest)).unwrap(), b"3");
    assert_eq!(fs::read(root.join("twice")).unwrap(), b"second");
    assert_eq!(fs::read(root.join("now-a-file")).unwrap(), b"file");
    // A set-user-id program of a stranger is reached by root alone.
    assert_eq!(
        fs::metadata(root.join("su")).unwrap().mode() & 0o7777,
        0o6755
    );
    let outer = fs::metadata(fixture.images()).unwrap();
    assert_eq!(outer.permissions().mode() & 0o777, 0o700);

    let fixture = Fixture::new().await;
    let too_long = "n".repeat(256);
    let with_zero = |kind| {
        let mut tar = Tar::default();
        tar.entry(kind, "././@LongLink", "", 0, &[b'p'; 5000])
            .file("x", b"");
        tar
    };
    let mut corpus = vec![
        with_zero(EntryType::GNULongName),
        with_zero(EntryType::GNULongLink),
    ];
    for path in [
        too_long.as_bytes(),
        format!("d/{too_long}/f").as_bytes(),
        b"a\0b",
    ] {
        let mut tar = Tar::default();
        tar.pax("path", path).file("x", b"");
        corpus.push(tar);
    }
    let mut link = Tar::default();
    link.pax("linkpath", b"a\0b").link("l", "x");
    corpus.push(link);
    for (at, tar) in corpus.iter().enumerate() {
        image(&[Layer::plain(&tar.end())]).put(&fixture.registry, "x", "1");
        refused(&fixture, &format!("name {at}"), "CannotPullContainerError").await;
    }
}

#[tokio::test]
async fn headers_that_overflow_are_refused() {
    let fixture = Fixture::new().await;
    let records: [(&str, &[u8]); 8] = [
        ("size", b"18446744073709551615"),
        ("size", b"18446744073709551616"),
        ("size", b"1e9"),
        ("uid", b"4294967296"),
        ("gid", b"-1"),
        ("mtime", b"99999999999999999999"),
        ("mtime", b"-9223372036854775808.5"),
        ("GNU.sparse.realsize", b"1099511627776"),
    ];
    for (key, value) in records {
        let tar = Tar::default().pax(key, value).file("f", b"x").end();
        image(&[Layer::plain(&tar)]).put(&fixture.registry, "x", "1");
        refused(&fixture, key, "CannotPullContainerError").await;
    }
    // A size of 8 EiB in the header itself, in base 256.
    let mut tar = Tar::default().file("f", b"x").end();
    tar[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
    let sum: u32 = tar[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    image(&[Layer::plain(&tar)]).put(&fixture.registry, "x", "1");
    refused(&fixture, "base 256", "CannotPullContainerError").await;
}

#[tokio::test]
async fn bombs_end_at_the_limits() {
    let mut fixture = Fixture::new().await;
    let options = ImageStoreOptions {
        limits: LayerLimits {
            entries_max: 1000,
            bytes_max: 4 << 20,
        },
        ..ImageStoreOptions::default()
    };
    fixture.store = ImageStore::open_with(&fixture.images(), Env::real(), options).unwrap();
    // A thousand to one, in one member and in many.
    let zeros = Tar::default().file("zeros", &vec![0; 32 << 20]).end();
    let mut members = gzip(&Tar::default().file("f", b"x").end());
    for _ in 0..64 {
        members.extend(gzip(&vec![0; 1 << 20]));
    }
    let bomb = |blob: Vec<u8>| Layer {
        blob: blob.into(),
        diff_id: digest(b"whatever it says"),
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
    };
    for (what, blob) in [("one member", gzip(&zeros)), ("many members", members)] {
        assert!(blob.len() < 200_000, "{} bytes", blob.len());
        image(&[bomb(blob)]).put(&fixture.registry, "x", "1");
        refused(&fixture, what, "larger than the limit").await;
    }
    let mut many = Tar::default();
    for at in 0..1001 {
        many.folder(&format!("d{at}/"));
    }
    image(&[Layer::gzip(&many.end())]).put(&fixture.registry, "x", "1");
    refused(&fixture, "entries", "more than 1000 entries").await;
}

#[tokio::test]
async fn streams_that_are_cut_or_go_on_are_refused() {
    let fixture = Fixture::new().await;
    let tar = Tar::default().file("a", &[1; 50_000]).end();
    for whole in [Layer::gzip(&tar), Layer::zstd(&tar)] {
        let mut cut = whole.clone();
        cut.blob.truncate(whole.blob.len() / 2);
        let mut garbage = whole.clone();
        garbage.blob = [&whole.blob[..], b"what is this"].concat().into();
        for (what, layer) in [("cut", cut), ("garbage", garbage)] {
            image(&[layer]).put(&fixture.registry, "x", "1");
            refused(&fixture, what, "CannotPullContainerError").await;
        }
    }
    // What comes after a tar's end belongs to what its digest names, and is no entry.
    let mut longer = tar.clone();
    longer.extend(Tar::default().file("hidden", b"x").end());
    let fixture = Fixture::new().await;
    let root = fixture.pull_layer(&longer).await.unwrap();
    assert_eq!(names(&root), ["a"]);
}

#[tokio::test]
async fn documents_that_lie_are_refused_by_name() {
    let fixture = Fixture::new().await;
    let good = image(&[Layer::gzip(&Tar::default().file("a", b"x").end())]);
    let parse = |bytes: &Bytes| -> Value { serde_json::from_slice(bytes).unwrap() };
    // Configurations of the wrong types.
    for (member, value) in [
        ("config", json!([])),
        ("config", json!({ "Env": "A=b" })),
        ("config", json!({ "Cmd": "x" })),
        ("config", json!({ "Cmd": [1] })),
        ("config", json!({ "Labels": [] })),
        ("config", json!({ "Volumes": ["/v"] })),
        ("rootfs", json!(null)),
        ("rootfs", json!({ "diff_ids": {} })),
        (
            "rootfs",
            json!({ "diff_ids": ["sha256:../../../etc/passwd"] }),
        ),
        ("rootfs", json!({ "diff_ids": ["md5:00"] })),
        ("rootfs", json!({ "diff_ids": [] })),
        ("os", json!(7)),
    ] {
        let mut config = parse(&good.config);
        config[member] = value;
        let config = Bytes::from(config.to_string());
        let mut manifest = parse(&good.manifest);
        manifest["config"]["digest"] = digest(&config).into();
        manifest["config"]["size"] = config.len().into();
        fixture.registry.put_blob("x", &config);
        fixture
            .registry
            .put_manifest("x", "1", &manifest.to_string().into());
        refused(
            &fixture,
            &config.escape_ascii().to_string(),
            "CannotPullContainerError",
        )
        .await;
    }
    // Layers that registries do not have.
    for kind in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        let mut manifest = parse(&good.manifest);
        manifest["layers"][0]["mediaType"] = kind.into();
        manifest["layers"][0]["urls"] = json!(["http://127.0.0.1:1/layer"]);
        fixture
            .registry
            .put_manifest("x", "1", &manifest.to_string().into());
        refused(&fixture, kind, kind).await;
    }
    let mut manifest = parse(&good.manifest);
    manifest["layers"][0]["mediaType"] = "application/vnd.example\n.layer".into();
    fixture
        .registry
        .put_manifest("x", "1", &manifest.to_string().into());
    refused(&fixture, "an unknown type", "application/vnd.example.layer").await;
    // An index in an index, which is as near to a cycle as digests allow, and one that leads to itself by a lie.
    let entry = |of: &str| {
        json!({ "digest": of, "size": 1,
            "platform": { "os": "linux", "architecture": crate::layers::architecture() } })
    };
    let index =
        |of: &str| Bytes::from(json!({ "schemaVersion": 2, "manifests": [entry(of)] }).to_string());
    let inner = index(&digest(&good.manifest));
    fixture.registry.put_manifest("x", "inner", &inner);
    let outer = index(&digest(&inner));
    fixture.registry.put_manifest("x", "1", &outer);
    refused(&fixture, "index in index", "an index in an index").await;
    let named = digest(b"itself");
    let cyclic = index(&named);
    fixture.registry.put_manifest("x", "1", &cyclic);
    let path = format!("/v2/x/manifests/{named}");
    fixture
        .registry
        .put(&path, "application/vnd.oci.image.index.v1+json", cyclic);
    refused(&fixture, "cycle", "has another digest").await;
}

#[tokio::test]
async fn whiteouts_reach_nothing_but_names_of_their_own_folder() {
    let fixture = Fixture::new().await;
    let outside = fixture.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), b"kept").unwrap();
    let target = outside.to_str().unwrap();
    for name in [".wh..", ".wh...", ".wh.", "a/.wh...", "a/../.wh.kept"] {
        let tar = Tar::default().folder("a/").file(name, b"").end();
        let _ = fixture.pull_layer(&tar).await;
        assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept", "{name}");
    }
    let tar = Tar::default()
        .link("out", target)
        .file("out/.wh..wh..opq", b"")
        .file("out/.wh.kept", b"")
        .end();
    let _ = fixture.pull_layer(&tar).await;
    assert_eq!(names(&outside), ["kept"]);
    assert!(
        fs::metadata(outside.join("kept"))
            .unwrap()
            .file_type()
            .is_file()
    );
    assert!(!fs::metadata(&outside).unwrap().file_type().is_char_device());
}
