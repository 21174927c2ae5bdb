//! Killed at any moment: the owner, the shim, everything.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_runtime::RuntimeEvent;

use crate::{Fixture, SHIM, event, eventually, exit, lines, name, open};

/// A process that owns a running container, killed as soon as that runs.
fn start_and_kill_an_owner(fixture: &Fixture, script: &str) {
    let mut owner = Command::new(SHIM)
        .args([
            "owner",
            fixture.data_dir.to_str().unwrap(),
            fixture.installation.as_str(),
            &fixture.image,
            script,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 8];
    owner.stdout.take().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"started\n");
    owner.kill().unwrap();
    owner.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_outlives_its_owner_and_is_adopted() {
    let fixture = Fixture::new().await;
    start_and_kill_an_owner(
        &fixture,
        "trap 'exit 5' TERM; echo before; while true; do sleep 0.01; done",
    );
    let runtime = open(&fixture.data_dir, &fixture.installation).await;
    let adopted = runtime.adopt().await.unwrap().remove(0);
    assert!(adopted.shim_alive);
    assert!(adopted.containers[0].pid.is_some() && adopted.containers[0].exit.is_none());
    adopted
        .handle
        .logs(&name("app"), 0)
        .unwrap()
        .next_batch(1)
        .await
        .unwrap();
    adopted
        .handle
        .stop(&name("app"), crate::patience())
        .await
        .unwrap();
    assert_eq!(exit(&runtime).await.exit_code, 5);
    assert_eq!(lines(&adopted.handle).await, ["before"]);
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_nobody_saw_is_found_with_its_output() {
    let fixture = Fixture::new().await;
    start_and_kill_an_owner(&fixture, "echo last words; exit 9");
    eventually("the container ends", || !ends(&fixture).is_empty()).await;
    let runtime = open(&fixture.data_dir, &fixture.installation).await;
    let adopted = runtime.adopt().await.unwrap().remove(0);
    // It stays for as long as the task is open, and goes with it.
    assert!(adopted.shim_alive);
    assert_eq!(adopted.containers[0].exit.as_ref().unwrap().exit_code, 9);
    assert_eq!(lines(&adopted.handle).await, ["last words"]);
    adopted.handle.close().await.unwrap();
    eventually("the shim goes", || fixture.processes().is_empty()).await;
    adopted.handle.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

/// The ends of containers that are on disk.
fn ends(fixture: &Fixture) -> Vec<std::path::PathBuf> {
    let tasks = std::fs::read_dir(fixture.data_dir.join("tasks")).unwrap();
    tasks
        .flatten()
        .map(|task| task.path().join("c/app/exit.json"))
        .filter(|file| file.exists())
        .collect()
}

pub fn shim_pid(task_dir: &Path) -> i32 {
    let text = std::fs::read_to_string(task_dir.join("shim.json")).unwrap();
    let shim: serde_json::Value = serde_json::from_str(&text).unwrap();
    shim["pid"].as_i64().unwrap() as i32
}

pub fn kill(pid: i32) {
    signal(pid, rustix::process::Signal::KILL);
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_is_reported_and_takes_its_containers_along() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    task.start_container(fixture.script("exec sleep 1000"))
        .await
        .unwrap();
    kill(shim_pid(
        &fixture.data_dir.join("tasks").join(task.id().as_str()),
    ));
    loop {
        match event(&fixture.runtime).await {
            RuntimeEvent::ShimDied { containers, .. } => {
                assert_eq!(containers, [name("app")]);
                break;
            }
            RuntimeEvent::ContainerStarted { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    eventually("its container is gone", || fixture.processes().is_empty()).await;
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_and_shim_killed_leave_nothing_that_runs() {
    let fixture = Fixture::new().await;
    start_and_kill_an_owner(&fixture, "exec sleep 1000");
    let task_dir = std::fs::read_dir(fixture.data_dir.join("tasks"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    kill(shim_pid(&task_dir));
    let runtime = open(&fixture.data_dir, &fixture.installation).await;
    let adopted = runtime.adopt().await.unwrap().remove(0);
    assert!(!adopted.shim_alive && adopted.containers[0].exit.is_none());
    eventually("its container is gone", || fixture.processes().is_empty()).await;
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_works_without_the_state_and_twice() {
    let fixture = Fixture::new().await;
    start_and_kill_an_owner(&fixture, "exec sleep 1000");
    let task_dir = std::fs::read_dir(fixture.data_dir.join("tasks"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::remove_file(task_dir.join("shim.json")).unwrap();
    std::fs::remove_file(task_dir.join("task.json")).unwrap();
    fixture.assert_nothing_left().await;
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_holds_nothing_that_its_starter_left_open() {
    let fixture = Fixture::new().await;
    let (reader, writer) = std::io::pipe().unwrap();
    // A duplicate is inherited, unlike what Rust opens.
    let leaked = rustix::io::dup(&writer).unwrap();
    let inode = rustix::fs::fstat(&reader).unwrap().st_ino;
    let task = fixture.task().await;
    task.start_container(fixture.script("exec sleep 1000"))
        .await
        .unwrap();
    drop(leaked);
    let shim = shim_pid(&fixture.data_dir.join("tasks").join(task.id().as_str()));
    let held: Vec<_> = std::fs::read_dir(format!("/proc/{shim}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| target.to_str() == Some(&format!("pipe:[{inode}]")))
        .collect();
    assert!(held.is_empty(), "{held:?}");
    fixture.assert_nothing_left().await;
}

/// The delays walk over the whole of a start, so that the owner dies in each of its steps.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_killed_at_any_moment_of_a_start_leaves_what_can_be_taken_over() {
    let fixture = Fixture::new().await;
    // How long a start takes on this machine, with some of what comes after it.
    let from = fixture.env.monotonic();
    start_and_kill_an_owner(&fixture, "exec sleep 1000");
    let whole = (fixture.env.monotonic() - from) * 5 / 4;
    fixture.assert_nothing_left().await;
    let mut ran = 0;
    for step in 0..30 {
        let delay = whole * step / 30;
        let mut owner = Command::new(SHIM)
            .args([
                "owner",
                fixture.data_dir.to_str().unwrap(),
                fixture.installation.as_str(),
            ])
            .args([&fixture.image, "exec sleep 1000"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        fixture.env.sleep(delay).await;
        owner.kill().unwrap();
        owner.wait().unwrap();
        let runtime = open(&fixture.data_dir, &fixture.installation).await;
        for adopted in runtime.adopt().await.unwrap() {
            for container in &adopted.containers {
                assert!(container.failed.is_none(), "{container:?}");
                if adopted.shim_alive && container.pid.is_some() {
                    ran += 1;
                    adopted
                        .handle
                        .stop(&container.spec.name, Duration::ZERO)
                        .await
                        .unwrap();
                    assert_eq!(exit(&runtime).await.signal, Some(9), "after {delay:?}");
                }
            }
            adopted.handle.remove().await.unwrap();
        }
        eventually("all processes go", || fixture.processes().is_empty()).await;
    }
    assert!(ran > 0, "no owner lived long enough to start anything");
    fixture.assert_nothing_left().await;
}
