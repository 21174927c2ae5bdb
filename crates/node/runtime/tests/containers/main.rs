//! Containers on the real kernel: what they see, how they end, what is left of them when anything is
//! killed. Run as root. Each test has a data directory and an installation of its own, so any number
//! runs at once; a guard process cleans up even when the test is killed.

mod collection;
mod ends;
mod escapes;
mod faults;
mod intruders;
mod kills;
#[allow(dead_code, reason = "shared with the tests of images")]
#[path = "../images/layers.rs"]
mod layers;
mod limits;
mod output;
#[path = "../images/patience.rs"]
mod patience;
mod privileges;
mod programs;
#[allow(dead_code, reason = "shared with the tests of images")]
#[path = "../images/registry.rs"]
mod registry;
mod sharing;
mod surroundings;
mod volume_programs;
mod volumes;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gantry_arn::TaskId;
use gantry_env::Env;
use gantry_runtime::image_builder::ImageBuilder;
use gantry_runtime::{
    ContainerName, ContainerSpec, Exit, InstallationId, LogMode, LogSpec, NetworkMode,
    RegistryAccess, Runtime, RuntimeEvent, RuntimeOptions, ShimCommand, TaskHandle, TaskSpec,
};
use patience::{patience, scaled};
use registry::TestRegistry;

const SHIM: &str = env!("CARGO_BIN_EXE_gantry-test-shim");

struct Fixture {
    data_dir: PathBuf,
    installation: InstallationId,
    image: String,
    runtime: Runtime,
    guard: Child,
    env: Env,
}

fn busybox() -> ImageBuilder {
    let mut image = ImageBuilder::new();
    image.file(
        "bin/busybox",
        0o755,
        std::fs::read("/bin/busybox").expect("busybox-static"),
    );
    for name in [
        "sh", "cat", "id", "env", "pwd", "grep", "sleep", "tail", "unshare", "true", "touch",
        "mount", "hostname", "head", "test", "yes", "readlink", "tty", "stty", "kill", "ps",
    ] {
        image.symlink(&format!("bin/{name}"), "busybox");
    }
    image
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        )
        .file(
            "etc/group",
            0o644,
            "root:x:0:\napp:x:1001:\nvideo:x:44:app\n",
        )
        .file("data", 0o644, "no program\n")
        .file("garbage", 0o755, [0x7f, b'E', b'L', b'F', 9, 9, 9, 9])
        .environment("FROM=image")
        .command(["/bin/true"]);
    image
}

impl Fixture {
    async fn new() -> Self {
        Self::with_image(&busybox()).await
    }

    async fn with_image(image: &ImageBuilder) -> Self {
        Self::with(image, &std::env::temp_dir()).await
    }

    /// With its data somewhere else.
    async fn in_folder(parent: &std::path::Path) -> Self {
        Self::with(&busybox(), parent).await
    }

    async fn with(image: &ImageBuilder, parent: &std::path::Path) -> Self {
        let env = Env::real();
        let data_dir = tempfile::Builder::new()
            .prefix("gantry-runtime-")
            .tempdir_in(parent)
            .unwrap()
            .keep();
        let [a, b, c, d, ..] = env.entropy.bytes16();
        let installation = InstallationId::from_random([a, b, c, d]);
        let guard = Command::new(SHIM)
            .args(["guard", data_dir.to_str().unwrap(), installation.as_str()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let runtime = open(&data_dir, &installation).await;
        let registry = TestRegistry::start().await;
        registry.put_built("app", "1", &image.build().unwrap());
        let pulled = runtime
            .pull(&registry.reference("app:1"), &RegistryAccess::default())
            .await
            .unwrap();
        Self {
            data_dir,
            installation,
            image: pulled.digest,
            runtime,
            guard,
            env,
        }
    }

    async fn task(&self) -> TaskHandle {
        self.task_in(NetworkMode::Host).await
    }

    async fn task_in(&self, network: NetworkMode) -> TaskHandle {
        let spec = self.task_spec(network);
        self.runtime.create_task(spec).await.unwrap()
    }

    fn task_spec(&self, network: NetworkMode) -> TaskSpec {
        TaskSpec::new(TaskId::from_random(self.env.entropy.bytes16()), network)
    }

    /// A container that runs a script, with its output kept.
    fn script(&self, script: &str) -> ContainerSpec {
        self.program(&["/bin/sh", "-c", script])
    }

    fn program(&self, words: &[&str]) -> ContainerSpec {
        let mut spec = ContainerSpec::new(name("app"), &self.image);
        spec.command = Some(words.iter().map(|word| (*word).to_owned()).collect());
        spec.logs = LogSpec::Spool {
            mode: LogMode::Blocking,
            bytes_max: 1 << 20,
        };
        spec
    }

    /// Runs a container to its end; its exit and its lines.
    async fn run(&self, spec: ContainerSpec) -> (Exit, Vec<String>) {
        self.run_in(NetworkMode::Host, spec).await
    }

    async fn run_in(&self, network: NetworkMode, spec: ContainerSpec) -> (Exit, Vec<String>) {
        let task = self.task_in(network).await;
        task.start_container(spec).await.unwrap();
        let exit = exit(&self.runtime).await;
        let lines = lines(&task).await;
        task.remove().await.unwrap();
        (exit, lines)
    }

    /// Why a container does not start.
    async fn refusal(&self, spec: ContainerSpec) -> String {
        let task = self.task().await;
        let error = task.start_container(spec).await.unwrap_err();
        task.remove().await.unwrap();
        error.to_string()
    }

    fn cgroup_folders(&self) -> Vec<PathBuf> {
        let name = format!("gantry-{}", self.installation);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            found.extend(Some(entry.path().join(&name)).filter(|path| path.exists()));
        }
        found
            .extend(Some(PathBuf::from("/sys/fs/cgroup").join(&name)).filter(|path| path.exists()));
        found
    }

    /// Processes whose command line or root stands in this test's data directory.
    fn processes(&self) -> Vec<String> {
        let marks = |pid: &str| -> Option<String> {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            let ours = line.contains(self.data_dir.to_str()?)
                || group.contains(self.installation.as_str());
            (ours && !line.contains("guard")).then_some(format!("{pid} {line}"))
        };
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| marks(entry.file_name().to_str()?))
            .collect()
    }

    /// Nothing of this installation is in the kernel any more.
    async fn assert_nothing_left(&self) {
        gantry_runtime::cleanup(&self.data_dir, &self.installation, &self.env).unwrap();
        eventually("processes go", || self.processes().is_empty()).await;
        assert_eq!(self.cgroup_folders(), Vec::<PathBuf>::new());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.data_dir.to_str().unwrap()),
            "a mount is left"
        );
        let tasks = std::fs::read_dir(self.data_dir.join("tasks"))
            .unwrap()
            .count();
        assert_eq!(tasks, 0);
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

async fn open(data_dir: &std::path::Path, installation: &InstallationId) -> Runtime {
    let options = RuntimeOptions {
        data_dir: data_dir.to_owned(),
        installation: installation.clone(),
        shim: ShimCommand {
            exe: SHIM.into(),
            args: vec!["shim".to_owned()],
        },
        env: Env::real(),
    };
    Runtime::open(options).await.unwrap()
}

fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

async fn event(runtime: &Runtime) -> RuntimeEvent {
    tokio::time::timeout(patience(), runtime.next_event())
        .await
        .expect("no event comes")
        .unwrap()
}

/// The next exit; starts are passed over.
async fn exit(runtime: &Runtime) -> Exit {
    loop {
        match event(runtime).await {
            RuntimeEvent::ContainerExited { exit, .. } => return exit,
            RuntimeEvent::ContainerStarted { .. } => {}
            other => panic!("{other:?} instead of an exit"),
        }
    }
}

/// All that the container `app` wrote.
async fn lines(task: &TaskHandle) -> Vec<String> {
    lines_of(task, "app").await
}

async fn lines_of(task: &TaskHandle, container: &str) -> Vec<String> {
    let mut reader = task.logs(&name(container), 0).unwrap();
    let mut lines = Vec::new();
    loop {
        let batch = tokio::time::timeout(patience(), reader.next_batch(100))
            .await
            .expect("the spool does not end");
        let batch = batch.unwrap();
        let Some(last) = batch.last() else {
            return lines;
        };
        let end = last.end_offset;
        lines.extend(
            batch
                .iter()
                .map(|record| String::from_utf8_lossy(&record.bytes).into_owned()),
        );
        reader.trim(end).await.unwrap();
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let env = Env::real();
    let deadline = env.monotonic() + patience();
    while !holds() {
        assert!(env.monotonic() < deadline, "not in time: {what}");
        env.sleep(Duration::from_millis(10)).await;
    }
}
