//! Programs that no image has: they are found where the container's mounts will have put them.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use gantry_runtime::{BindMount, ContainerSpec, Tmpfs};

use crate::Fixture;

fn bind(source: impl AsRef<Path>, target: &str) -> BindMount {
    BindMount {
        source: source.as_ref().to_owned(),
        target: target.into(),
        read_only: true,
    }
}

/// A folder of the host with a program, a file that is none, and links.
fn tools() -> tempfile::TempDir {
    let host = tempfile::tempdir().unwrap();
    let at = |name: &str| host.path().join(name);
    std::fs::create_dir(at("bin")).unwrap();
    std::fs::write(at("bin/tool"), "#!/bin/sh\necho ran $0\n").unwrap();
    std::fs::set_permissions(at("bin/tool"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(at("bin/text"), "no program").unwrap();
    symlink("/v/bin/tool", at("absolute")).unwrap();
    symlink("bin/../bin/tool", at("relative")).unwrap();
    symlink("round", at("round")).unwrap();
    // There on the host, but not in the container.
    symlink(at("bin/tool"), at("outside")).unwrap();
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_only_a_volume_has_runs() {
    let fixture = Fixture::new().await;
    let host = tools();
    let with = |mounts: Vec<BindMount>, words: &[&str]| {
        let mut spec = fixture.program(words);
        spec.mounts = mounts;
        spec
    };
    let whole = || vec![bind(host.path(), "/v")];
    let mut by_path = with(whole(), &["tool"]);
    by_path.environment = vec![("PATH".to_owned(), "/bin:/v/bin".to_owned())];
    let mut beside = with(whole(), &["bin/tool"]);
    beside.working_directory = Some("/v".to_owned());
    let deeper = vec![
        bind(host.path().join("bin"), "/v/round-about"),
        bind(host.path(), "/v"),
    ];
    // The mount point has to be there, since the volume is read-only.
    std::fs::create_dir(host.path().join("round-about")).unwrap();
    let cases: [(ContainerSpec, &str); 7] = [
        (with(whole(), &["/v/bin/tool"]), "ran /v/bin/tool"),
        (with(whole(), &["/v/absolute"]), "ran /v/absolute"),
        (with(whole(), &["/v/relative"]), "ran /v/relative"),
        (by_path, "ran /v/bin/tool"),
        (beside, "ran bin/tool"),
        (
            with(deeper, &["/v/round-about/tool"]),
            "ran /v/round-about/tool",
        ),
        (
            with(
                vec![bind(host.path().join("bin/tool"), "/one/file")],
                &["/one/file"],
            ),
            "ran /one/file",
        ),
    ];
    for (spec, said) in cases {
        let (exit, told) = fixture.run(spec).await;
        assert_eq!((exit.exit_code, told), (0, vec![said.to_owned()]));
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_volume_has_is_missing_in_dockers_words() {
    let fixture = Fixture::new().await;
    let host = tools();
    let refusal = |mounts: Vec<BindMount>, program: &str| {
        let mut spec = fixture.program(&[program]);
        spec.mounts = mounts;
        fixture.refusal(spec)
    };
    let absent = |program: &str| {
        format!("exec: {program:?}: stat {program}: no such file or directory: unknown")
    };
    for program in ["/v/nope", "/v/outside", "/v/round", "/v/bin/tool/x"] {
        let why = refusal(vec![bind(host.path(), "/v")], program).await;
        assert!(why.contains(&absent(program)), "{why}");
    }
    let why = refusal(vec![bind(host.path(), "/v")], "/v/bin/text").await;
    assert!(
        why.contains("exec: \"/v/bin/text\": permission denied: unknown"),
        "{why}"
    );
    // What a volume hides of the image is not there either.
    let why = refusal(vec![bind(host.path(), "/bin")], "/bin/sh").await;
    assert!(why.contains(&absent("/bin/sh")), "{why}");
    let mut spec = fixture.program(&["/bin/true"]);
    spec.tmpfs = vec![Tmpfs {
        path: "/bin".into(),
        size_bytes: 1 << 20,
        options: Vec::new(),
    }];
    let why = fixture.refusal(spec).await;
    assert!(why.contains(&absent("/bin/true")), "{why}");
    fixture.assert_nothing_left().await;
}
