//! How fast containers start and stop, and how small their shims are. Run as root, in release:
//! `cargo run --release -p gantry-runtime --example measure [TASKS [SINGLES]]`. It is its own shim.

#[allow(dead_code, reason = "shared with the tests of images")]
#[path = "../tests/images/layers.rs"]
mod layers;
#[allow(dead_code, reason = "shared with the tests of images")]
#[path = "../tests/images/registry.rs"]
mod registry;

use std::sync::Arc;
use std::time::Duration;

use gantry_arn::TaskId;
use gantry_env::Env;
use gantry_runtime::image_builder::ImageBuilder;
use gantry_runtime::{
    ContainerSpec, InstallationId, LogMode, LogSpec, NetworkMode, RegistryAccess, Runtime,
    RuntimeEvent, RuntimeOptions, ShimCommand, TaskHandle, TaskSpec,
};

const TASKS: usize = 100;
const WORKERS: usize = 4;
const SINGLES: usize = 50;

/// How many at once and how many one after the other: fewer where whoever asks wants to look closely.
fn counts() -> (usize, usize) {
    let mut words = std::env::args().skip(1);
    let mut number = |usual| {
        words
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(usual)
    };
    (number(TASKS), number(SINGLES).max(1))
}

fn main() {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|word| word == "shim") {
        gantry_runtime::shim::main(args.into_iter().skip(1).collect());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(measure());
}

async fn measure() {
    let (tasks_wanted, singles) = counts();
    let env = Env::real();
    let dir = tempfile::tempdir().expect("a folder");
    let [a, b, c, d, ..] = env.entropy.bytes16();
    let options = RuntimeOptions {
        data_dir: dir.path().to_owned(),
        installation: InstallationId::from_random([a, b, c, d]),
        shim: ShimCommand {
            exe: std::env::current_exe().expect("own path"),
            args: vec!["shim".to_owned()],
        },
        env: env.clone(),
    };
    let runtime = Runtime::open(options.clone()).await.expect("runtime");
    let registry = registry::TestRegistry::start().await;
    let mut image = ImageBuilder::new();
    image.file(
        "bin/busybox",
        0o755,
        std::fs::read("/bin/busybox").expect("busybox-static"),
    );
    registry.put_built("app", "1", &image.build().expect("image"));
    let pulled = runtime
        .pull(&registry.reference("app:1"), &RegistryAccess::default())
        .await;
    let image = Arc::new(pulled.expect("pull").digest);

    let (mut made, mut first) = (Vec::new(), Vec::new());
    for _ in 0..singles {
        let from = env.monotonic();
        let task = task(&runtime, &env).await;
        made.push(env.monotonic() - from);
        start(&task, &image).await;
        let mut reader = task.logs(&"app".parse().expect("name"), 0).expect("logs");
        reader.next_batch(1).await.expect("a line");
        first.push(env.monotonic() - from);
        task.remove().await.expect("remove");
    }
    report("a task's shim", &mut made);
    report("spawn to first byte", &mut first);
    while tokio::time::timeout(Duration::ZERO, runtime.next_event())
        .await
        .is_ok()
    {}

    let from = env.monotonic();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (runtime, env, image) = (runtime.clone(), env.clone(), image.clone());
            tokio::spawn(async move {
                let mut tasks = Vec::new();
                for _ in 0..tasks_wanted / WORKERS {
                    let task = task(&runtime, &env).await;
                    start(&task, &image).await;
                    tasks.push(task);
                }
                tasks
            })
        })
        .collect();
    let mut tasks = Vec::new();
    for worker in workers {
        tasks.extend(worker.await.expect("worker"));
    }
    eprintln!(
        "{} containers with {WORKERS} workers: {:?}",
        tasks.len(),
        env.monotonic() - from
    );
    let pss: Vec<u64> = tasks
        .iter()
        .map(|task| shim_pss_kib(dir.path(), task))
        .collect();
    eprintln!(
        "PSS a shim: {} KiB (largest {})",
        pss.iter().sum::<u64>() / pss.len() as u64,
        pss.iter().max().unwrap_or(&0)
    );

    let from = env.monotonic();
    for task in &tasks {
        task.stop(&"app".parse().expect("name"), Duration::ZERO)
            .await
            .expect("stop");
    }
    let mut ended = 0;
    while ended < tasks.len() {
        if let Some(RuntimeEvent::ContainerExited { .. }) = runtime.next_event().await {
            ended += 1;
        }
    }
    let stopped = env.monotonic() - from;
    for task in &tasks {
        task.remove().await.expect("remove");
    }
    eprintln!(
        "stop {}: {stopped:?}; and remove: {:?}",
        tasks.len(),
        env.monotonic() - from
    );
    gantry_runtime::cleanup(&options.data_dir, &options.installation, &env).expect("cleanup");
}

async fn task(runtime: &Runtime, env: &Env) -> TaskHandle {
    let id = TaskId::from_random(env.entropy.bytes16());
    let spec = TaskSpec::new(id, NetworkMode::Host);
    runtime.create_task(spec).await.expect("task")
}

async fn start(task: &TaskHandle, image: &str) {
    let mut spec = ContainerSpec::new("app".parse().expect("name"), image);
    let words = [
        "/bin/busybox",
        "sh",
        "-c",
        "echo x; exec /bin/busybox sleep 1000",
    ];
    spec.command = Some(words.map(str::to_owned).to_vec());
    spec.logs = LogSpec::Spool {
        mode: LogMode::Blocking,
        bytes_max: 1 << 20,
    };
    task.start_container(spec).await.expect("start");
}

fn shim_pss_kib(data_dir: &std::path::Path, task: &TaskHandle) -> u64 {
    let file = data_dir
        .join("tasks")
        .join(task.id().as_str())
        .join("shim.json");
    let shim: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).expect("shim.json")).expect("JSON");
    let rollup =
        std::fs::read_to_string(format!("/proc/{}/smaps_rollup", shim["pid"])).expect("smaps");
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .expect("Pss");
    line.trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number")
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    eprintln!("{what}: median {:?}, p95 {:?}", at(50), at(95));
}
