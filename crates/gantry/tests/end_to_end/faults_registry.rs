//! A registry that is killed in the middle of a pull: Debian's docker-registry, behind a wire that can be held.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults_client::Boto;
use crate::image::{busybox_layout, run};
use crate::installation::{Installation, eventually};

const LAYER_BYTES: usize = 16 << 20;
/// In the middle of that layer.
const HELD_AFTER: u64 = 6 << 20;
/// `hush`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$abcdefghijklmnopqrstuuppZFpU9n.F.R29ic//YRPBUgRHbgy9m\n";

/// Debian's docker-registry. Its folder is on its command line, so the guard of the test finds it.
struct DockerRegistry {
    server: Child,
    port: u16,
}

impl DockerRegistry {
    fn start(folder: &Path, auth: &str) -> DockerRegistry {
        std::fs::create_dir_all(folder).expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its number").port();
        drop(free);
        let configuration = folder.join(format!("{port}.yml"));
        let blobs = folder.join("blobs");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{auth}",
            blobs.display()
        );
        std::fs::write(&configuration, text).expect("its configuration");
        let server = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        eventually(Duration::from_secs(30), "docker-registry answers", || {
            TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
        });
        DockerRegistry { server, port }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What lies between the node and the registry. It lets so many bytes through and then holds them back.
struct Wire {
    port: u16,
    to: AtomicU16,
    allowed: AtomicU64,
    passed: AtomicU64,
    /// Connections that found nobody at the other end.
    refused: AtomicU64,
}

impl Wire {
    fn to(registry: &DockerRegistry) -> Arc<Wire> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let wire = Arc::new(Wire {
            port: listener.local_addr().expect("its number").port(),
            to: AtomicU16::new(registry.port),
            allowed: AtomicU64::new(u64::MAX),
            passed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let served = wire.clone();
        // Threads of the wire end with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let wire = served.clone();
                std::thread::spawn(move || wire.carry(near));
            }
        });
        wire
    }

    fn carry(&self, near: TcpStream) {
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.to.load(SeqCst))) else {
            self.refused.fetch_add(1, SeqCst);
            return;
        };
        let (mut asks, mut hears) = (near.try_clone().expect("a clone"), near);
        let (mut told, mut tells) = (far.try_clone().expect("a clone"), far);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut asks, &mut told);
            let _ = told.shutdown(Shutdown::Write);
        });
        let mut piece = [0; 16 << 10];
        while let Ok(read @ 1..) = tells.read(&mut piece) {
            while self.passed.load(SeqCst) >= self.allowed.load(SeqCst) {
                // What a registry said before it died is lost on the way.
                if self.to.load(SeqCst) == 0 {
                    let _ = hears.shutdown(Shutdown::Both);
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            self.passed.fetch_add(read as u64, SeqCst);
            if hears.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        let _ = hears.shutdown(Shutdown::Both);
    }

    /// Lets only this much more through.
    fn hold_after(&self, bytes: u64) {
        self.passed.store(0, SeqCst);
        self.allowed.store(bytes, SeqCst);
    }

    fn until_held(&self) {
        eventually(
            Duration::from_secs(60),
            "the middle of the pull",
            || match self.passed.load(SeqCst) {
                passed if passed >= self.allowed.load(SeqCst) => Ok(()),
                passed => Err(format!("{passed} bytes")),
            },
        );
    }

    /// The registry at the other end is gone.
    fn cut(&self) {
        self.to.store(0, SeqCst);
        self.refused.store(0, SeqCst);
    }

    fn leads_to(&self, registry: &DockerRegistry) {
        self.to.store(registry.port, SeqCst);
        self.allowed.store(u64::MAX, SeqCst);
    }
}

/// A busybox image with one more layer that does not compress.
fn large_layout(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).expect("a folder");
    let layout = busybox_layout(folder, &[]);
    let noise = folder.join("noise");
    let random = std::fs::File::open("/dev/urandom").expect("noise");
    let mut file = std::fs::File::create(&noise).expect("a file");
    std::io::copy(&mut random.take(LAYER_BYTES as u64), &mut file).expect("noise");
    run(Command::new("umoci")
        .args(["insert", "--image"])
        .arg(format!("{}:latest", layout.display()))
        .arg(&noise)
        .arg("/noise"));
    layout
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn define(boto: &mut Boto, family: &str, more: &Value) {
    let mut container =
        json!({"name": "c", "memory": 32, "command": ["sh", "-c", "test -s /noise && exit 3"]});
    for (key, value) in more.as_object().expect("members") {
        container[key] = value.clone();
    }
    let with =
        json!({"family": family, "networkMode": "none", "containerDefinitions": [container]});
    boto.ask("ecs", "register_task_definition", &with);
}

#[test]
fn a_registry_that_dies_in_the_middle_of_a_pull_fails_it_by_name_or_is_waited_for() {
    let gantry = Installation::up();
    let folder = gantry.scratch("docker-registry");
    let layout = large_layout(&gantry.scratch("large"));
    let first = DockerRegistry::start(&folder, "");
    run(Command::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
        ])
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://127.0.0.1:{}/large:1", first.port)));
    let wire = Wire::to(&first);
    let mut boto = Boto::of(&gantry);
    let image = format!("127.0.0.1:{}/large:1", wire.port);
    define(&mut boto, "large", &json!({"image": image}));

    // It does not come back: the task says which registry and which blob, and nothing of the pull is left.
    wire.hold_after(HELD_AFTER);
    let arn = boto.run("large");
    wire.until_held();
    let pending = boto.task(&arn);
    assert_eq!(pending["lastStatus"], "PENDING", "{pending}");
    wire.cut();
    drop(first);
    let task = boto.until(&arn, "STOPPED");
    assert_eq!(task["stopCode"], "TaskFailedToStart", "{task}");
    let reason = task["containers"][0]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("CannotPullContainerError") && reason.contains(&image),
        "{task}"
    );
    assert!(
        reason.contains("sha256:") && reason.contains("onnection"),
        "{task}"
    );
    assert!(task["containers"][0]["exitCode"].is_null(), "{task}");
    let images = gantry.data_dir().join("node/images");
    let partial = images.join("partial");
    eventually(
        Duration::from_secs(10),
        "the partial blob goes",
        || match files_below(&partial) {
            files if files.is_empty() => Ok(()),
            files => Err(format!("{files:?}")),
        },
    );

    // Killed in the middle again, and back after the node has knocked in vain: the pull goes on and ends well.
    let second = DockerRegistry::start(&folder, "");
    wire.leads_to(&second);
    wire.hold_after(HELD_AFTER);
    let arn = boto.run("large");
    wire.until_held();
    let third = DockerRegistry::start(&folder, "");
    wire.cut();
    drop(second);
    eventually(
        Duration::from_secs(30),
        "the node knocks again",
        || match wire.refused.load(SeqCst) {
            0 => Err("nobody knocked".to_owned()),
            _ => Ok(()),
        },
    );
    wire.passed.store(0, SeqCst);
    wire.leads_to(&third);
    let task = boto.until(&arn, "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 3, "{task}");
    // It went on where it broke: what came before was not fetched again.
    let fetched = wire.passed.load(SeqCst);
    assert!(
        fetched < LAYER_BYTES as u64,
        "{fetched} bytes for the rest of the layer"
    );
    assert_eq!(files_below(&partial), Vec::<PathBuf>::new());

    // A registry with passwords refuses a task that says none (how one is said: `repositoryCredentials`, not built).
    let htpasswd = gantry.scratch("htpasswd");
    std::fs::write(&htpasswd, HTPASSWD).expect("a password");
    let auth = format!(
        "auth: {{htpasswd: {{realm: here, path: {}}}}}\n",
        htpasswd.display()
    );
    let closed = DockerRegistry::start(&folder, &auth);
    let image = format!("127.0.0.1:{}/large:1", closed.port);
    define(&mut boto, "closed", &json!({"image": image}));
    let arn = boto.run("closed");
    let task = boto.until(&arn, "STOPPED");
    let reason = task["containers"][0]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("CannotPullContainerError") && reason.contains("pull access denied"),
        "{task}"
    );
    assert_eq!(task["stopCode"], "TaskFailedToStart", "{task}");
}
