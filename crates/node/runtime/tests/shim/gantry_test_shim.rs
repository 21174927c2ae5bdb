//! The processes that tests of containers need besides their own: `shim`, as Gantry's executable is
//! one; `owner`, which starts a container and is then killed; `guard`, which cleans up after a test
//! that cannot do so itself any more.

use std::io::{Read, Write};
use std::path::PathBuf;

use gantry_env::Env;
use gantry_runtime::{
    CollectionPolicy, ContainerSpec, ImageStore, LogMode, LogSpec, NetworkMode, RegistryAccess,
    Runtime, RuntimeOptions, ShimCommand, TaskSpec,
};

fn main() {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let word = |at: usize| {
        args.get(at)
            .and_then(|arg| arg.to_str())
            .unwrap_or_default()
    };
    match word(0) {
        "shim" => gantry_runtime::shim::main(args.into_iter().skip(1).collect()),
        "guard" => {
            // Ends when the test's process does, however it does.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let installation = word(2).parse().unwrap();
            // Other processes of a test that was killed would go on making tasks after the cleanup.
            while end_others(word(1)) {
                gantry_env::pause_thread(std::time::Duration::from_millis(1));
            }
            gantry_runtime::cleanup(word(1).as_ref(), &installation, &Env::real()).unwrap();
            let _ = std::fs::remove_dir_all(word(1));
        }
        "disk" => {
            // Ends when the test's process does; whoever still uses the disk keeps it until they go.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = rustix::mount::unmount(word(1), rustix::mount::UnmountFlags::DETACH);
            let _ = std::fs::remove_dir(word(1));
        }
        "owner" => own(word(1), word(2), word(3), word(4)),
        "pull" => pull(word(1), word(2)),
        "collect" => collect(word(1), word(2)),
        other => panic!("unknown {other:?}"),
    }
}

/// Kills whoever else has this folder on its command line. Whether there was anybody.
fn end_others(folder: &str) -> bool {
    let own = std::process::id().to_string();
    let mut any = false;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| **name != *own) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let Ok(pid) = pid.parse::<i32>() else {
            continue;
        };
        if String::from_utf8_lossy(&line).contains(folder)
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // Gone already is what we want.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            any = true;
        }
    }
    any
}

/// Starts a container that runs `script`, says so, and waits to be killed.
fn own(data_dir: &str, installation: &str, image: &str, script: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let env = Env::real();
        let options = RuntimeOptions {
            data_dir: PathBuf::from(data_dir),
            installation: installation.parse().unwrap(),
            shim: ShimCommand {
                exe: std::env::current_exe().unwrap(),
                args: vec!["shim".to_owned()],
            },
            env: env.clone(),
        };
        let runtime = Runtime::open(options).await.unwrap();
        let task = TaskSpec::new(
            gantry_arn::TaskId::from_random(env.entropy.bytes16()),
            NetworkMode::Host,
        );
        let handle = runtime.create_task(task).await.unwrap();
        let mut container = ContainerSpec::new("app".parse().unwrap(), image);
        container.command = Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        container.logs = LogSpec::Spool {
            mode: LogMode::Blocking,
            bytes_max: 1 << 20,
        };
        handle.start_container(container).await.unwrap();
        std::io::stdout().write_all(b"started\n").unwrap();
        std::future::pending::<()>().await
    });
}

/// Pulls into a store of images.
fn pull(store: &str, reference: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = ImageStore::open(store.as_ref(), Env::real()).unwrap();
    let reference = reference.parse().unwrap();
    runtime
        .block_on(store.pull(&reference, &RegistryAccess::default()))
        .unwrap();
}

/// Says so and removes all images that no task uses.
fn collect(data_dir: &str, installation: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = RuntimeOptions {
            data_dir: PathBuf::from(data_dir),
            installation: installation.parse().unwrap(),
            shim: ShimCommand {
                exe: std::env::current_exe().unwrap(),
                args: vec!["shim".to_owned()],
            },
            env: Env::real(),
        };
        let runtime = Runtime::open(options).await.unwrap();
        std::io::stdout().write_all(b"started\n").unwrap();
        let policy = CollectionPolicy {
            age_min: std::time::Duration::ZERO,
            ..CollectionPolicy::default()
        };
        runtime.collect_images(&policy).await.unwrap();
    });
}
