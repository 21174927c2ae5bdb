//! What layers become on disk, and that no layer reaches anything but its own folder.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use tar::EntryType;

use crate::layers::{Layer, Tar, image};
use crate::{Fixture, names};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let length = rustix::fs::lgetxattr(path.as_c_str(), name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[tokio::test]
async fn owners_modes_times_links_and_attributes_are_kept() {
    let fixture = Fixture::new().await;
    let mut tar = Tar::default();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(130));
    tar.owned(EntryType::Directory, "./", "", 0o711, b"", (0, 0), 77);
    tar.owned(
        EntryType::Directory,
        "home/",
        "",
        0o2750,
        b"",
        (1000, 1001),
        1234,
    );
    tar.owned(
        EntryType::Regular,
        "home/su",
        "",
        0o6755,
        b"su",
        (1000, 1001),
        5678,
    );
    tar.hard_link("home/same", "home/su");
    tar.link("home/to", "../outside/of/it");
    tar.entry(EntryType::Fifo, "pipe", "", 0o600, b"");
    tar.pax("path", long.as_bytes()).file("short", b"long name");
    tar.entry(
        EntryType::GNULongName,
        "././@LongLink",
        "",
        0,
        format!("gnu-{}\0", "g".repeat(200)).as_bytes(),
    );
    tar.file("short", b"gnu");
    // cap_net_bind_service, permitted and effective, as `setcap` writes it.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tar.pax("SCHILY.xattr.security.capability", &capability)
        .file("cap", b"c");
    tar.pax("mtime", b"100.25").file("timed", b"t");
    let root = fixture.pull_layer(&tar.end()).await.unwrap();

    let meta = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    let home = meta("home");
    assert_eq!(
        (home.mode() & 0o7777, home.uid(), home.gid(), home.mtime()),
        (0o2750, 1000, 1001, 1234)
    );
    let file = meta("home/su");
    assert_eq!(
        (file.mode() & 0o7777, file.uid(), file.gid(), file.mtime()),
        (0o6755, 1000, 1001, 5678)
    );
    assert_eq!((meta("home/same").ino(), file.nlink()), (file.ino(), 2));
    assert_eq!(
        fs::read_link(root.join("home/to")).unwrap().to_str(),
        Some("../outside/of/it")
    );
    assert!(meta("pipe").file_type().is_fifo());
    assert_eq!((meta("").mode() & 0o7777, meta("").mtime()), (0o711, 77));
    assert_eq!(fs::read(root.join(long)).unwrap(), b"long name");
    assert_eq!(
        fs::read(root.join(format!("gnu-{}", "g".repeat(200)))).unwrap(),
        b"gnu"
    );
    assert_eq!(
        xattr(&root.join("cap"), "security.capability").unwrap(),
        capability
    );
    assert_eq!(
        (meta("timed").mtime(), meta("timed").mtime_nsec()),
        (100, 250_000_000)
    );
}

#[tokio::test]
async fn every_compression_gives_the_same_layer() {
    let tar = Tar::default()
        .folder("d/")
        .file("d/f", &vec![9; 100_000])
        .end();
    for layer in [Layer::plain(&tar), Layer::gzip(&tar), Layer::zstd(&tar)] {
        let fixture = Fixture::new().await;
        image(&[layer]).put(&fixture.registry, "x", "1");
        let pulled = fixture.pull("x:1").await.unwrap();
        let root = fixture.store.lowers(&pulled.digest).unwrap().remove(0);
        assert_eq!(fs::read(root.join("d/f")).unwrap(), vec![9; 100_000]);
    }
}

#[tokio::test]
async fn overlayfs_shows_what_the_layers_mean() {
    let fixture = Fixture::new().await;
    let mut below = Tar::default();
    below
        .folder("kept/")
        .file("kept/old", b"old")
        .file("kept/gone", b"gone");
    below.folder("opaque/").file("opaque/hidden", b"hidden");
    below
        .folder("replaced/")
        .file("replaced/hidden", b"hidden")
        .file("removed", b"removed");
    let mut above = Tar::default();
    above
        .folder("kept/")
        .file("kept/.wh.gone", b"")
        .file("kept/new", b"new");
    above
        .folder("opaque/")
        .file("opaque/new", b"new")
        .file("opaque/.wh..wh..opq", b"");
    // Removed and made again in one layer, in the order that AUFS wrote.
    above
        .file(".wh.replaced", b"")
        .folder("replaced/")
        .file("replaced/new", b"new");
    above
        .file(".wh.removed", b"")
        .file(".wh..wh.plnk", b"")
        .file(".wh.never", b"");
    image(&[Layer::gzip(&below.end()), Layer::gzip(&above.end())]).put(&fixture.registry, "x", "1");
    let pulled = fixture.pull("x:1").await.unwrap();
    let lowers = fixture.store.lowers(&pulled.digest).unwrap();
    let removed = fs::symlink_metadata(lowers[0].join("removed")).unwrap();
    assert!(removed.file_type().is_char_device() && removed.rdev() == 0);

    // In a mount namespace of its own, so nothing is left whatever happens.
    let merged = fixture.dir.path().join("merged");
    fs::create_dir(&merged).unwrap();
    let script = r#"mount -t overlay overlay -o "lowerdir=$1:$2" "$3" && cd "$3" && find . -mindepth 1 | sort"#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([&lowers[0], &lowers[1], &merged])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let shown = String::from_utf8(output.stdout).unwrap();
    let expected = [
        "./kept",
        "./kept/new",
        "./kept/old",
        "./opaque",
        "./opaque/new",
        "./replaced",
        "./replaced/new",
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn later_entries_replace_earlier_ones() {
    let fixture = Fixture::new().await;
    let mut tar = Tar::default();
    tar.folder("a/")
        .file("a/x", b"1")
        .file("a/x", b"22")
        .link("a/y", "x")
        .file("a/y", b"y");
    tar.folder("tree/")
        .folder("tree/deep/")
        .file("tree/deep/f", b"")
        .file("tree", b"now a file");
    tar.file("b", b"").folder("b/").file("b/in", b"in");
    tar.file("self", b"kept").hard_link("self", "self");
    let root = fixture.pull_layer(&tar.end()).await.unwrap();
    assert_eq!(fs::read(root.join("a/x")).unwrap(), b"22");
    assert!(fs::symlink_metadata(root.join("a/y")).unwrap().is_file());
    assert_eq!(fs::read(root.join("tree")).unwrap(), b"now a file");
    assert_eq!(fs::read(root.join("b/in")).unwrap(), b"in");
    assert_eq!(fs::read(root.join("self")).unwrap(), b"kept");
}

/// A folder beside the store that hostile layers aim at.
fn target(fixture: &Fixture) -> (String, String) {
    let victim = fixture.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), b"untouched").unwrap();
    // From inside `images/temporary/<layer>/`.
    (
        victim.to_str().unwrap().to_owned(),
        "../../../victim".to_owned(),
    )
}

fn assert_untouched(fixture: &Fixture, what: &str) {
    let victim = fixture.dir.path().join("victim");
    assert_eq!(names(&victim), ["file"], "{what}");
    assert_eq!(
        fs::read(victim.join("file")).unwrap(),
        b"untouched",
        "{what}"
    );
    let file = fs::metadata(victim.join("file")).unwrap();
    assert_eq!(
        (file.nlink(), file.mode() & 0o7777, file.uid()),
        (1, 0o644, 0),
        "{what}"
    );
    assert_eq!(
        fs::metadata(&victim).unwrap().mode() & 0o7777,
        0o755,
        "{what}"
    );
    assert_eq!(names(fixture.dir.path()), ["images", "victim"], "{what}");
}

#[tokio::test]
async fn nothing_lands_outside_the_layer() {
    let fixture = Fixture::new().await;
    let (absolute, relative) = target(&fixture);
    let inside = format!("{relative}/file");
    let mut corpus: Vec<(&str, Tar)> = Vec::new();
    let mut case = |what: &'static str, build: &dyn Fn(&mut Tar)| {
        let mut tar = Tar::default();
        build(&mut tar);
        corpus.push((what, tar));
    };
    case("dots", &|tar| {
        tar.file(&format!("{relative}/new"), b"x");
    });
    case("dots within", &|tar| {
        tar.folder("a/").file(&format!("a/../{relative}/new"), b"x");
    });
    case("dots in a long name", &|tar| {
        tar.pax("path", format!("{relative}/new").as_bytes())
            .file("ok", b"x");
    });
    case("absolute", &|tar| {
        tar.file(&format!("{absolute}/new"), b"x");
    });
    case("through a relative link", &|tar| {
        tar.link("out", &relative).file("out/new", b"x");
    });
    case("through an absolute link", &|tar| {
        tar.link("out", &absolute).file("out/file", b"x");
    });
    case("through links of links", &|tar| {
        tar.link("up", "../../..")
            .link("out", "up/victim")
            .file("out/file", b"x");
    });
    case("over a link to a file", &|tar| {
        tar.link("f", &inside).file("f", b"x");
    });
    case("a folder over a link", &|tar| {
        tar.link("d", &relative)
            .entry(EntryType::Directory, "d", "", 0o777, b"")
            .file("d/new", b"x");
    });
    case("a hard link with dots", &|tar| {
        tar.hard_link("h", &inside).file("h", b"x");
    });
    case("an absolute hard link", &|tar| {
        tar.hard_link("h", &format!("{absolute}/file"));
    });
    case("a hard link through a link", &|tar| {
        tar.link("out", &absolute).hard_link("h", "out/file");
    });
    case("a hard link to a link", &|tar| {
        tar.link("out", &inside)
            .hard_link("h", "out")
            .file("h", b"x");
    });
    case("a whiteout through a link", &|tar| {
        tar.link("out", &absolute).file("out/.wh.file", b"");
    });
    case("a whiteout of the folder above", &|tar| {
        tar.file(".wh...", b"");
    });
    case("an opaque mark through a link", &|tar| {
        tar.link("out", &absolute).file("out/.wh..wh..opq", b"");
    });
    case("attributes through a link", &|tar| {
        tar.pax("SCHILY.xattr.user.x", b"1");
        tar.owned(
            EntryType::Symlink,
            "f",
            &inside,
            0o777,
            b"",
            (1234, 1234),
            0,
        );
    });
    case("a name that is the root", &|tar| {
        tar.file("./", b"").link("/", &absolute);
    });
    case("the process's own links", &|tar| {
        tar.link("p", "/proc/self/root")
            .file(&format!("p{absolute}/file"), b"x");
    });
    case("a folder held open, then swapped", &|tar| {
        tar.folder("d/")
            .file("d/a", b"")
            .link("d", &absolute)
            .file("d/file", b"x");
    });
    for (what, tar) in corpus {
        // Some fail and some mean something harmless inside; what matters is where nothing lands.
        let _ = fixture.pull_layer(&tar.end()).await;
        assert_untouched(&fixture, what);
        assert_eq!(
            names(&fixture.images().join("temporary")),
            Vec::<String>::new(),
            "{what}"
        );
    }
}

#[tokio::test]
async fn links_are_followed_inside_the_layer_as_if_it_were_the_root() {
    let fixture = Fixture::new().await;
    let mut tar = Tar::default();
    tar.folder("usr/")
        .folder("usr/lib/")
        .link("lib", "/usr/lib")
        .file("lib/so", b"so");
    let root = fixture.pull_layer(&tar.end()).await.unwrap();
    assert_eq!(fs::read(root.join("usr/lib/so")).unwrap(), b"so");
    assert_eq!(
        fs::read_link(root.join("lib")).unwrap().to_str(),
        Some("/usr/lib")
    );
}

#[tokio::test]
async fn devices_and_attributes_that_steer_overlayfs_are_left_out() {
    let fixture = Fixture::new().await;
    let mut tar = Tar::default();
    tar.entry(EntryType::Block, "disk", "", 0o666, b"").entry(
        EntryType::Char,
        "char",
        "",
        0o666,
        b"",
    );
    tar.pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")
        .folder("d/");
    tar.pax("SCHILY.xattr.user.overlay.opaque", b"y")
        .folder("e/");
    tar.pax("SCHILY.xattr.user.mine", b"1").file("f", b"");
    let root = fixture.pull_layer(&tar.end()).await.unwrap();
    assert_eq!(names(&root), ["d", "e", "f"]);
    assert_eq!(xattr(&root.join("d"), "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&root.join("e"), "user.overlay.opaque"), None);
    assert_eq!(
        xattr(&root.join("f"), "user.mine").as_deref(),
        Some(&b"1"[..])
    );
}

#[tokio::test]
async fn malformed_archives_are_refused() {
    let fixture = Fixture::new().await;
    let deep = format!("{}f", "d/".repeat(600));
    let mut corpus: Vec<Vec<u8>> = vec![
        Tar::default().hard_link("h", "missing").end(),
        Tar::default().folder("d/").hard_link("h", "d").end(),
        Tar::default()
            .pax("path", deep.as_bytes())
            .file("f", b"")
            .end(),
        Tar::default()
            .pax("path", &[b'x'; 5000])
            .file("f", b"")
            .end(),
        Tar::default().pax("path", b"a\0b").file("f", b"").end(),
        Tar::default().pax("size", b"-1").file("f", b"").end(),
        Tar::default()
            .pax("size", b"999999999999")
            .file("f", b"x")
            .end(),
        Tar::default()
            .pax("GNU.sparse.major", b"1")
            .file("f", b"")
            .end(),
        Tar::default()
            .entry(EntryType::GNUSparse, "f", "", 0o644, b"")
            .end(),
        Tar::default()
            .entry(EntryType::XHeader, "p", "", 0o644, &vec![b'1'; 2 << 20])
            .end(),
        Tar::default().file("f", b"").file("f/g", b"").end(),
        Tar::default().link("l", "nowhere").file("l/g", b"").end(),
        Tar::default().link("l", "l").file("l/g", b"").end(),
        vec![b'x'; 10240],
    ];
    let mut wrong_sum = Tar::default().file("f", b"").end();
    wrong_sum[0] = b'g';
    corpus.push(wrong_sum);
    for (at, tar) in corpus.iter().enumerate() {
        let error = fixture
            .pull_layer(tar)
            .await
            .expect_err(&format!("case {at}"));
        assert!(
            error.to_string().starts_with("CannotPullContainerError: "),
            "{error}"
        );
        fixture.assert_empty();
    }
}

#[tokio::test]
async fn folders_that_links_make_endless_are_refused() {
    let fixture = Fixture::new().await;
    let mut tar = Tar::default();
    // Each turn starts where the last link leads, so no name is long and the folders still get deep.
    let turn = "d/".repeat(40);
    let mut at = String::new();
    for step in 0..20 {
        tar.folder(&format!("{at}{turn}"));
        tar.link(&format!("s{step}"), &format!("{at}{turn}"));
        at = format!("s{step}/");
    }
    let error = fixture.pull_layer(&tar.end()).await.unwrap_err();
    assert!(error.to_string().contains("deeper than"), "{error}");
    fixture.assert_empty();
}
