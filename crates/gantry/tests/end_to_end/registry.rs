//! skopeo and buildah against the registry.

use std::process::Command;
use std::time::Duration;

use crate::image::{busybox_layout, password, push_busybox, run};
use crate::installation::{Installation, eventually};

fn skopeo(words: &[&str]) -> Command {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy"]).args(words);
    command
}

#[test]
fn skopeo_inspects_lists_copies_and_deletes() {
    let gantry = Installation::up();
    let reference = push_busybox(&gantry, "a/b", &["--config.label", "x=y"]);
    let creds = format!("AWS:{}", password(&gantry));
    let url = format!("docker://{reference}");
    let inspected = run(skopeo(&["inspect", "--tls-verify=false", "--creds", &creds]).arg(&url));
    let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected["Labels"]["x"], "y");
    let repository = url.rsplit_once(':').expect("a tag").0.to_owned();
    let tags =
        run(skopeo(&["list-tags", "--tls-verify=false", "--creds", &creds]).arg(&repository));
    assert!(tags.contains("\"1\""), "{tags}");

    let images = gantry.aws(&["ecr", "describe-images", "--repository-name", "a/b"]);
    assert_eq!(images["imageDetails"][0]["imageTags"][0], "1");
    assert_eq!(
        images["imageDetails"][0]["imageDigest"],
        inspected["Digest"]
    );

    let back = gantry.scratch("back");
    run(skopeo(&[
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        "--src-creds",
        &creds,
    ])
    .arg(&url)
    .arg(format!("dir:{}", back.display())));
    assert!(back.join("manifest.json").exists());

    run(skopeo(&["delete", "--tls-verify=false", "--creds", &creds]).arg(&url));
    let images = gantry.aws(&["ecr", "list-images", "--repository-name", "a/b"]);
    assert_eq!(images["imageIds"], serde_json::json!([]));

    let refused = skopeo(&["inspect", "--tls-verify=false", "--creds", "AWS:wrong"])
        .arg(&url)
        .output()
        .expect("skopeo");
    assert!(!refused.status.success());
    let unknown = skopeo(&[
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        "--dest-creds",
        &creds,
    ])
    .arg(format!("dir:{}", back.display()))
    .arg(format!("docker://{}/nowhere:1", gantry.registry()))
    .output()
    .expect("skopeo");
    assert!(!unknown.status.success());
    assert!(
        String::from_utf8_lossy(&unknown.stderr).contains("does not exist"),
        "{}",
        String::from_utf8_lossy(&unknown.stderr)
    );
}

#[test]
fn buildah_builds_pushes_and_pulls() {
    let gantry = Installation::up();
    let creds = format!("AWS:{}", password(&gantry));
    gantry.aws(&["ecr", "create-repository", "--repository-name", "built"]);
    let reference = format!("{}/built:1", gantry.registry());
    let folder = gantry.scratch("buildah");
    let buildah = || {
        let mut command = Command::new("buildah");
        command
            .arg("--storage-driver")
            .arg("vfs")
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--runroot")
            .arg(folder.join("runroot"));
        command
    };
    let container = run(buildah().args(["from", "scratch"])).trim().to_owned();
    run(buildah().args(["copy", &container, "/bin/busybox", "/bin/sh"]));
    run(buildah().args([
        "config",
        "--entrypoint",
        r#"["/bin/sh", "-c", "echo built"]"#,
        "--cmd",
        "",
        &container,
    ]));
    run(buildah().args(["commit", "--quiet", &container, "built"]));
    run(buildah()
        .args([
            "push",
            "--quiet",
            "--tls-verify=false",
            "--creds",
            &creds,
            "built",
        ])
        .arg(format!("docker://{reference}")));
    run(buildah().args(["rmi", "--all", "--force"]));
    run(buildah()
        .args(["pull", "--quiet", "--tls-verify=false", "--creds", &creds])
        .arg(format!("docker://{reference}")));

    gantry.python(&format!(
        r#"
import boto3
ecs = boto3.client("ecs")
ecs.register_task_definition(family="built", networkMode="none", containerDefinitions=[dict(name="c", image="{reference}", memory=32)])
arn = ecs.run_task(taskDefinition="built")["tasks"][0]["taskArn"]
ecs.get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
assert task["containers"][0]["exitCode"] == 0, task
assert task["containers"][0]["imageDigest"].startswith("sha256:"), task
"#
    ));
}

#[test]
fn the_same_layer_is_stored_once() {
    let gantry = Installation::up();
    let first = gantry.scratch("layout-of-both");
    std::fs::create_dir_all(&first).expect("a folder");
    let layout = busybox_layout(&first, &[]);
    let creds = format!("AWS:{}", password(&gantry));
    let push = |name: &str| {
        gantry.aws(&["ecr", "create-repository", "--repository-name", name]);
        run(skopeo(&[
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--dest-creds",
            &creds,
        ])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{}/{name}:1", gantry.registry())));
        bytes_below(&gantry.data_dir().join("registry"))
    };
    let once = push("one");
    let twice = push("two");
    assert!(once > 500_000, "the layer is on disk: {once}");
    assert!(twice - once < 10_000, "{once} bytes became {twice}");
}

fn bytes_below(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder)
        .expect("a folder")
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// curl, cut off by its own clock in the middle of a layer, goes on from where the registry says.
#[test]
fn an_upload_whose_connection_is_cut_goes_on_from_what_was_acknowledged() {
    let gantry = Installation::up();
    gantry.aws(&["ecr", "create-repository", "--repository-name", "cut"]);
    let user = format!("AWS:{}", password(&gantry));
    let url = |path: &str| format!("http://{}{path}", gantry.registry());
    let bytes: Vec<u8> = (0..12_000_000_u32).map(|n| (n % 253) as u8).collect();
    let file = |name: &str, from: usize| {
        let path = gantry.scratch(name);
        std::fs::write(&path, &bytes[from..]).expect("a file");
        path.display().to_string()
    };
    let curl = |words: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--include", "--user", &user])
            .args(words)
            .output()
            .expect("curl");
        let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
        (output.status.code(), said)
    };
    let header = |said: &str, name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} {said}"))
            .trim()
            .to_owned()
    };
    let (_, said) = curl(&["--request", "POST", &url("/v2/cut/blobs/uploads/")]);
    let location = url(&header(&said, "location:"));

    // A first chunk is acknowledged; the second is cut, twice, after some megabytes.
    std::fs::write(gantry.scratch("first"), &bytes[..1_000_000]).expect("a file");
    let first = format!("@{}", gantry.scratch("first").display());
    let patch = ["--request", "PATCH", "--header", "expect:"];
    let (code, said) = curl(&[&patch[..], &["--data-binary", &first, &location]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(header(&said, "range:"), "0-999999");
    let rest = file("rest", 1_000_000);
    for _ in 0..2 {
        let slow = ["--limit-rate", "3M", "--max-time", "1"];
        let upload = ["--upload-file", rest.as_str(), location.as_str()];
        let (code, said) = curl(&[&patch[..], &slow, &upload].concat());
        assert_eq!(code, Some(28), "cut by its clock: {said}");
        let range = eventually(Duration::from_secs(20), "the cut is seen", || {
            // While the registry has not seen the end of it, it is busy with it.
            let (_, said) = curl(&[&location]);
            match said.contains(" 204 ") {
                true => Ok(header(&said, "range:")),
                false => Err(said),
            }
        });
        assert_eq!(range, "0-999999");
    }

    let digest = format!("sha256:{}", sha256(&gantry.scratch("whole"), &bytes));
    let finish = format!("{location}?digest={digest}");
    let put = ["--request", "PUT", "--header", "expect:"];
    let range = ["--header", "content-range: 1000000-11999999"];
    let upload = ["--upload-file", rest.as_str(), finish.as_str()];
    let (code, said) = curl(&[&put[..], &range, &upload].concat());
    assert!(code == Some(0) && said.contains(" 201 "), "{said}");
    let back = gantry.scratch("back");
    let words = ["--silent", "--user", &user, "--output"];
    let status = Command::new("curl")
        .args(words)
        .arg(&back)
        .arg(url(&format!("/v2/cut/blobs/{digest}")))
        .status()
        .expect("curl");
    assert!(status.success());
    assert!(std::fs::read(&back).expect("the layer") == bytes);
}

/// As sha256sum has it.
fn sha256(path: &std::path::Path, bytes: &[u8]) -> String {
    std::fs::write(path, bytes).expect("a file");
    let said = run(Command::new("sha256sum").arg(path));
    said.split_whitespace().next().expect("a digest").to_owned()
}
