//! What is mounted into a container: folders and files of the host, file systems in memory, and its own small files.

use std::path::Path;

use gantry_runtime::{BindMount, ContainerSpec, NetworkMode, Tmpfs};

use crate::{Fixture, intruders};

fn bind(source: impl AsRef<Path>, target: &str, read_only: bool) -> BindMount {
    BindMount {
        source: source.as_ref().to_owned(),
        target: target.into(),
        read_only,
    }
}

fn tmpfs(path: &str, options: &[&str]) -> Tmpfs {
    Tmpfs {
        path: path.into(),
        size_bytes: 1 << 20,
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_and_files_are_bound_for_reading_or_writing() {
    let fixture = Fixture::with_intruder().await;
    let host = tempfile::tempdir().unwrap();
    let at = |name: &str| host.path().join(name);
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::write(at("folder/inside"), "from the host").unwrap();
    std::fs::write(at("file"), "a file").unwrap();
    let mut spec = fixture.script(
        "exec 2>&1; cat /v/rw/inside /v/file; echo; echo new > /v/rw/made; echo x > /v/ro/made; echo x > /v/file; echo deep > /v/rw/deep/x; echo end",
    );
    // The deeper ones are given first: the order is the runtime's affair.
    std::fs::create_dir(at("deeper")).unwrap();
    spec.mounts = vec![
        bind(at("deeper"), "/v/rw/deep", false),
        bind(at("folder"), "/v/rw", false),
        bind(at("folder"), "/v/ro", true),
        bind(at("file"), "/v/file", true),
    ];
    let (_, told) = fixture.run(spec).await;
    assert_eq!(told[0], "from the hosta file");
    let refused = told
        .iter()
        .filter(|line| line.contains("Read-only file system"))
        .count();
    assert_eq!(
        (refused, told.last().unwrap().as_str()),
        (2, "end"),
        "{told:?}"
    );
    assert_eq!(std::fs::read_to_string(at("folder/made")).unwrap(), "new\n");
    assert_eq!(std::fs::read_to_string(at("deeper/x")).unwrap(), "deep\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_source_becomes_a_folder() {
    let fixture = Fixture::new().await;
    let host = tempfile::tempdir().unwrap();
    let mut spec = fixture.script("echo kept > /data-dir/file");
    spec.mounts = vec![bind(host.path().join("a/b"), "/data-dir", false)];
    let (exit, told) = fixture.run(spec).await;
    assert_eq!(exit.exit_code, 0, "{told:?}");
    assert_eq!(
        std::fs::read_to_string(host.path().join("a/b/file")).unwrap(),
        "kept\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_has_its_mounts_all_the_same() {
    let fixture = Fixture::with_intruder().await;
    let host = tempfile::tempdir().unwrap();
    let mut spec = fixture.script(
        "exec 2>&1; echo x > /x; echo v > /vol/v; echo t > /scratch/t; cat /vol/v /scratch/t",
    );
    spec.readonly_root_filesystem = true;
    spec.mounts = vec![bind(host.path(), "/vol", false)];
    spec.tmpfs = vec![tmpfs("/scratch", &[])];
    let (_, told) = fixture.run(spec).await;
    assert!(told[0].contains("Read-only file system"), "{told:?}");
    assert_eq!(told[1..], ["v", "t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tmpfs_has_its_size_and_options() {
    let fixture = Fixture::with_intruder().await;
    let mut spec = fixture.script(
        "grep -E ' /(plain|runs) ' /proc/mounts; stat -c %a /runs; dd if=/dev/zero of=/plain/x bs=64k count=32 2>&1 | tail -1; \
         stat -c %s /plain/x; ln -s /bin/busybox /runs/true; cp /bin/busybox /plain/true; /plain/true true 2>&1",
    );
    spec.tmpfs = vec![
        tmpfs("/plain", &[]),
        tmpfs("/runs", &["exec", "mode=700", "relatime"]),
    ];
    let (_, told) = fixture.run(spec).await;
    let line = |at: &str| told.iter().find(|line| line.contains(at)).unwrap().clone();
    let plain = line(" /plain tmpfs");
    for option in ["noexec", "nosuid", "nodev", "size=1024k"] {
        assert!(plain.contains(option), "{plain}");
    }
    assert!(!line(" /runs tmpfs").contains("noexec") && line(" /runs tmpfs").contains("mode=700"));
    assert!(
        told.contains(&"700".to_owned()) && told.contains(&"1048576".to_owned()),
        "{told:?}"
    );
    let mut bad = fixture.script("true");
    bad.tmpfs = vec![tmpfs("/t", &["size=9"])];
    assert!(
        fixture
            .refusal(bad)
            .await
            .contains("invalid mount option \"size=9\"")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_that_make_no_sense_are_refused_by_name() {
    let fixture = Fixture::new().await;
    let refused = |mounts: Vec<BindMount>| {
        let mut spec = fixture.script("true");
        spec.mounts = mounts;
        fixture.refusal(spec)
    };
    let why = refused(vec![bind("/tmp", "/a", false), bind("/tmp", "/a/", true)]).await;
    assert!(why.contains("Duplicate mount point: /a"), "{why}");
    for target in ["relative", "/", "/proc", "/proc/sys/x"] {
        let why = refused(vec![bind("/tmp", target, false)]).await;
        assert!(
            why.contains("invalid mount path") && why.contains(target),
            "{why}"
        );
    }
    assert!(
        refused(vec![bind("relative", "/a", false)])
            .await
            .contains("absolute")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn network_files_are_given_whole_and_may_be_replaced() {
    let mut image = intruders::image();
    // As many images have it: a link to what no container has.
    image.symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    let fixture = Fixture::with_image(&image).await;
    let script = "cat /etc/hosts /etc/resolv.conf; hostname; cat /etc/hostname";
    let mut spec = fixture.script(script);
    spec.hosts = Some("10.1.2.3\tpeer\n".to_owned());
    spec.resolv_conf = Some("nameserver 10.9.9.9\n".to_owned());
    spec.hostname = Some("web.example.com".to_owned());
    let (_, told) = fixture.run_in(NetworkMode::None, spec.clone()).await;
    let expected = [
        "10.1.2.3\tpeer",
        "nameserver 10.9.9.9",
        "web.example.com",
        "web.example.com",
    ];
    assert_eq!(told, expected);

    spec.hosts = None;
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("resolv"), "nameserver 10.7.7.7\n").unwrap();
    spec.mounts = vec![bind(host.path().join("resolv"), "/etc/resolv.conf", true)];
    let (_, told) = fixture.run_in(NetworkMode::None, spec).await;
    assert!(
        told.contains(&"127.0.0.1\tweb.example.com\tweb".to_owned()),
        "{told:?}"
    );
    assert!(told.contains(&"nameserver 10.7.7.7".to_owned()), "{told:?}");
}

/// More layers than mount options have room for.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_hundred_and_twenty_seven_layers_runs() {
    use crate::layers::{Layer, Tar, image};
    use crate::registry::TestRegistry;
    use tar::EntryType;

    let fixture = Fixture::new().await;
    let mut base = Tar::default();
    base.folder("bin")
        .folder("etc")
        .folder("dev")
        .folder("proc")
        .folder("sys");
    let busybox = std::fs::read("/bin/busybox").unwrap();
    base.entry(EntryType::Regular, "bin/busybox", "", 0o755, &busybox);
    base.link("bin/sh", "busybox")
        .link("bin/cat", "busybox")
        .link("bin/ls", "busybox");
    let mut layers = vec![Layer::gzip(&base.end())];
    for at in 1..126 {
        let mut tar = Tar::default();
        tar.file("top", format!("{at}").as_bytes())
            .file(&format!("etc/f{at}"), b"x");
        layers.push(Layer::plain(&tar.end()));
    }
    // A layer may come twice.
    layers.push(layers[1].clone());
    let registry = TestRegistry::start().await;
    image(&layers).put(&registry, "deep", "1");
    let access = gantry_runtime::RegistryAccess::default();
    let pulled = fixture
        .runtime
        .pull(&registry.reference("deep:1"), &access)
        .await
        .unwrap();
    let mut spec: ContainerSpec =
        fixture.script("cat /top; echo; ls /etc | /bin/busybox grep -c ^f; echo y > /y; cat /y");
    spec.image = pulled.digest;
    let (exit, told) = fixture.run(spec).await;
    assert_eq!(exit.exit_code, 0, "{told:?}");
    assert_eq!(told, ["1", "125", "y"]);
}
