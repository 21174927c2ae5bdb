//! skopeo and buildah against the registry: push, pull, inspect, list, delete.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use gantry_api::ecr::{DescribeImagesRequest, Ecr};
use gantry_ecr::EcrService;
use gantry_ecr::tables::BlobRow;
use gantry_store::{MemoryStore, Store};
use serde_json::Value;
use tokio::process::Command;

use crate::serving;

pub struct Registry {
    directory: tempfile::TempDir,
    store: Arc<dyn Store>,
    service: Arc<EcrService>,
    pub address: SocketAddr,
    pub credentials: String,
}

impl Registry {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let service = serving::open(store.clone(), &directory.path().join("blobs")).await;
        let address = serving::serve(&service).await;
        let credentials = serving::credentials(&service, address).await;
        for name in ["app", "team/other"] {
            serving::create(&service, address, name).await;
        }
        Self {
            directory,
            store,
            service,
            address,
            credentials,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn remote(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// An image with busybox in it, as an OCI layout made by umoci.
    pub async fn layout(&self, name: &str) -> String {
        let layout = self.path().join(name);
        let (layout, root) = (layout.to_str().unwrap(), self.path().join("root"));
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        let image = format!("{layout}:latest");
        run("umoci", &["init", "--layout", layout]).await;
        run("umoci", &["new", "--image", &image]).await;
        let root = root.to_str().unwrap();
        run(
            "umoci",
            &["insert", "--rootless", "--image", &image, root, "/"],
        )
        .await;
        run(
            "umoci",
            &["config", "--image", &image, "--config.cmd", "/bin/busybox"],
        )
        .await;
        format!("oci:{image}")
    }

    pub async fn skopeo(&self, arguments: &[&str]) -> String {
        let (command, rest) = arguments.split_first().unwrap();
        let mut all = vec![*command];
        match *command {
            "copy" => {
                for side in ["src", "dest"] {
                    all.push(if side == "src" {
                        "--src-tls-verify=false"
                    } else {
                        "--dest-tls-verify=false"
                    });
                }
                all.extend([
                    "--src-creds",
                    &self.credentials,
                    "--dest-creds",
                    &self.credentials,
                ]);
            }
            _ => all.extend(["--tls-verify=false", "--creds", &self.credentials]),
        }
        all.extend(rest);
        run("skopeo", &all).await
    }

    fn objects(&self) -> usize {
        std::fs::read_dir(self.path().join("blobs"))
            .unwrap()
            .count()
    }
}

/// Runs a program that must succeed, and answers what it printed.
async fn run(program: &str, arguments: &[&str]) -> String {
    let (good, out) = attempt(program, arguments).await;
    assert!(good, "{program} {arguments:?}\n{out}");
    out
}

pub async fn attempt(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program}: {error} (install it with `cargo xtask setup`)"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => (true, text(&output.stdout)),
        false => (false, text(&output.stdout) + &text(&output.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_pushes_inspects_lists_copies_and_deletes() {
    let registry = Registry::start().await;
    let source = registry.layout("layout").await;
    for format in ["oci", "v2s2"] {
        let remote = registry.remote(&format!("app:{format}"));
        registry
            .skopeo(&["copy", "--format", format, &source, &remote])
            .await;
    }
    let inspected = registry
        .skopeo(&["inspect", &registry.remote("app:oci")])
        .await;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["RepoTags"], serde_json::json!(["oci", "v2s2"]));
    let listed = registry
        .skopeo(&["list-tags", &registry.remote("app")])
        .await;
    assert_eq!(
        serde_json::from_str::<Value>(&listed).unwrap()["Tags"][1],
        "v2s2"
    );

    // To another repository of the same registry: the layers are mounted, not stored again.
    let before = registry.objects();
    let (from, to) = (
        registry.remote("app:oci"),
        registry.remote("team/other:copy"),
    );
    registry.skopeo(&["copy", &from, &to]).await;
    assert_eq!(registry.objects(), before);

    // What comes back has the digests that went in.
    let back = format!("oci:{}:back", registry.path().join("back").display());
    registry.skopeo(&["copy", &to, &back]).await;
    let manifest = |image: &str| {
        let image = image.to_owned();
        async move { run("skopeo", &["inspect", "--raw", &image]).await }
    };
    assert_eq!(manifest(&back).await, manifest(&source).await);

    registry
        .skopeo(&["delete", &registry.remote("app:oci")])
        .await;
    let listed = registry
        .skopeo(&["list-tags", &registry.remote("app")])
        .await;
    assert_eq!(
        serde_json::from_str::<Value>(&listed).unwrap()["Tags"],
        serde_json::json!(["v2s2"])
    );

    let input = DescribeImagesRequest {
        repository_name: "team/other".to_owned(),
        ..DescribeImagesRequest::default()
    };
    let context = serving::context(registry.address);
    let images = registry
        .service
        .describe_images(&context, input)
        .await
        .unwrap();
    let image = &images.image_details.unwrap()[0];
    assert_eq!(image.image_tags, Some(vec!["copy".to_owned()]));
    assert!(image.image_size_in_bytes > Some(100_000) && image.last_recorded_pull_time.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_is_told_what_is_wrong() {
    let registry = Registry::start().await;
    let source = registry.layout("layout").await;
    let remote = registry.remote("missing:v1");
    let creds = registry.credentials.as_str();
    let copy = [
        "copy",
        "--dest-tls-verify=false",
        "--dest-creds",
        creds,
        source.as_str(),
        &remote,
    ];
    let (good, out) = attempt("skopeo", &copy).await;
    assert!(
        !good && out.contains("does not exist in the registry with id"),
        "{out}"
    );
    let remote = registry.remote("app:v1");
    let wrong = [
        "copy",
        "--dest-tls-verify=false",
        "--dest-creds",
        "AWS:x",
        source.as_str(),
        &remote,
    ];
    let (good, out) = attempt("skopeo", &wrong).await;
    assert!(
        !good && (out.contains("unauthorized") || out.contains("authentication")),
        "{out}"
    );
    assert_eq!(registry.objects(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pushes_of_one_image_at_once_store_it_once() {
    let registry = Registry::start().await;
    let source = registry.layout("layout").await;
    let remotes: Vec<String> = (0..4)
        .map(|n| registry.remote(&format!("{}:v{n}", ["app", "team/other"][n % 2])))
        .collect();
    let pushes = remotes.iter().map(|remote| {
        let (registry, source) = (&registry, source.as_str());
        async move { registry.skopeo(&["copy", source, remote]).await }
    });
    futures_util::future::join_all(pushes).await;
    let blobs = registry.store.snapshot().list_everywhere::<BlobRow>();
    assert_eq!(registry.objects(), blobs.len());
    assert_eq!(registry.service.open_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buildah_builds_pushes_and_pulls() {
    let registry = Registry::start().await;
    let work = registry.path().join("build");
    std::fs::create_dir(&work).unwrap();
    std::fs::copy("/bin/busybox", work.join("busybox")).unwrap();
    let file = "FROM scratch\nCOPY busybox /bin/busybox\nCMD [\"/bin/busybox\"]\n";
    std::fs::write(work.join("Containerfile"), file).unwrap();
    let storage = |name: &str| {
        let at = |part: &str| registry.path().join(name).join(part).display().to_string();
        [
            "--storage-driver".to_owned(),
            "vfs".to_owned(),
            "--root".to_owned(),
            at("root"),
            "--runroot".to_owned(),
            at("run"),
        ]
    };
    let buildah = |name: &str, arguments: &[&str]| {
        let mut all: Vec<String> = storage(name).to_vec();
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        async move {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            run("buildah", &all).await
        }
    };
    let work = work.to_str().unwrap();
    let remote = registry.remote("team/other:built");
    let creds = registry.credentials.as_str();
    buildah(
        "one",
        &["bud", "--isolation", "chroot", "-t", "built", work],
    )
    .await;
    buildah(
        "one",
        &[
            "push",
            "--tls-verify=false",
            "--creds",
            creds,
            "built",
            &remote,
        ],
    )
    .await;
    buildah(
        "two",
        &["pull", "--tls-verify=false", "--creds", creds, &remote],
    )
    .await;
    let images = buildah("two", &["images"]).await;
    assert!(images.contains("team/other"), "{images}");
}
