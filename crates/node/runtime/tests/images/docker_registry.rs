//! Debian's docker-registry, which nobody here wrote: open, and with passwords.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gantry_env::Env;
use gantry_runtime::image_builder::{BuiltImage, ImageBuilder};
use gantry_runtime::{ErrorKind, ImageReference, RegistryAccess};

use crate::Fixture;
use crate::patience::patience;

/// `hush`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$abcdefghijklmnopqrstuuppZFpU9n.F.R29ic//YRPBUgRHbgy9m\n";

struct DockerRegistry {
    /// A shell that ends the registry when its input ends, which it does with the test, however that ends.
    guard: Child,
    port: u16,
}

impl DockerRegistry {
    async fn start(folder: &Path, name: &str, auth: &str) -> DockerRegistry {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let configuration = folder.join(format!("{name}.yml"));
        let blobs = folder.join("blobs");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{auth}",
            blobs.display()
        );
        std::fs::write(&configuration, text).unwrap();
        let script = r#"/usr/bin/docker-registry serve "$1" </dev/null & read -r _; kill -9 $!"#;
        let guard = Command::new("setsid")
            .args(["sh", "-c", script, "registry"])
            .arg(&configuration)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = DockerRegistry { guard, port };
        let env = Env::real();
        let deadline = env.monotonic() + patience();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(env.monotonic() < deadline, "docker-registry is not there");
            env.sleep(std::time::Duration::from_millis(10)).await;
        }
        registry
    }

    fn reference(&self) -> ImageReference {
        format!("127.0.0.1:{}/team/app:1", self.port)
            .parse()
            .unwrap()
    }

    /// Pushes with skopeo, from a layout on disk.
    fn push(&self, built: &BuiltImage, folder: &Path) {
        let layout = folder.join("layout");
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for blob in [&built.config, &built.layer, &built.manifest] {
            let name = blob.digest.strip_prefix("sha256:").unwrap();
            std::fs::write(blobs.join(name), &blob.bytes).unwrap();
        }
        std::fs::write(
            layout.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": built.manifest.digest, "size": built.manifest.bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
        std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
            .args(["--dest-creds", "user:hush"])
            .arg(format!("oci:{}:1", layout.display()))
            .arg(format!("docker://{}", self.reference()))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

#[tokio::test]
async fn debians_registry_is_pulled_from_with_its_password_and_refuses_without() {
    let fixture = Fixture::new().await;
    let folder = fixture.dir.path();
    let htpasswd = folder.join("htpasswd");
    std::fs::write(&htpasswd, HTPASSWD).unwrap();
    let auth = format!(
        "auth: {{htpasswd: {{realm: here, path: {}}}}}\n",
        htpasswd.display()
    );
    let closed = DockerRegistry::start(folder, "closed", &auth).await;
    let built = ImageBuilder::new().file("x", 0o644, "y").build().unwrap();
    closed.push(&built, folder);

    let with = |password: &str| RegistryAccess {
        basic: Some(("user".to_owned(), password.to_owned())),
        ..RegistryAccess::default()
    };
    for access in [RegistryAccess::default(), with("wrong")] {
        let error = fixture
            .store
            .pull(&closed.reference(), &access)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::CannotPullContainer);
        assert!(error.to_string().contains("pull access denied"), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    fixture.assert_empty();
    let pulled = fixture
        .store
        .pull(&closed.reference(), &with("hush"))
        .await
        .unwrap();
    assert_eq!(pulled.digest, built.manifest.digest);

    // The same blobs without a password.
    let open = DockerRegistry::start(folder, "open", "").await;
    let pulled = fixture
        .store
        .pull(&open.reference(), &RegistryAccess::default())
        .await
        .unwrap();
    assert_eq!(pulled.digest, built.manifest.digest);
}
