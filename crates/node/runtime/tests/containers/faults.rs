//! What goes wrong on a machine: programs that take all they can, full disks, agents that fall behind.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_runtime::{LogMode, LogSpec, RuntimeEvent, TaskHandle};
use rustix::process::Signal;

use crate::kills::{kill, shim_pid, signal};
use crate::{Fixture, eventually, exit, lines, name, open};

const MIB: u64 = 1 << 20;

impl Fixture {
    fn task_dir(&self, task: &TaskHandle) -> PathBuf {
        self.data_dir.join("tasks").join(task.id().as_str())
    }
}

/// Speaks to a task's shim in its own words.
struct Raw(UnixStream);

impl Raw {
    async fn connect(task_dir: &Path) -> Raw {
        let socket = task_dir.join("shim.sock");
        eventually("the shim listens", || UnixStream::connect(&socket).is_ok()).await;
        Raw(UnixStream::connect(socket).unwrap())
    }

    fn frame(text: &str) -> Vec<u8> {
        let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    }

    fn hear(&mut self) -> serde_json::Value {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut bytes).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_of_a_newer_agent_is_refused_by_name() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    let mut shim = Raw::connect(&fixture.task_dir(&task)).await;
    assert_eq!(shim.hear()["Event"]["Ready"]["protocol"], 2);
    for request in [
        r#"{"id":41,"verb":{"Dance":{"container":"app"}}}"#,
        r#"{"id":42,"verb":"Sing"}"#,
        r#"{"id":43,"verb":{"Signal":{"strength":"much"}}}"#,
    ] {
        shim.0.write_all(&Raw::frame(request)).unwrap();
    }
    for (id, verb) in [(41, "Dance"), (42, "Sing"), (43, "Signal")] {
        let reply = &shim.hear()["Reply"];
        assert_eq!(reply["id"], id);
        let message = reply["answer"]["Failed"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(verb), "{message}");
    }
    // It goes on serving, also those who spoke well all the time.
    shim.0
        .write_all(&Raw::frame(r#"{"id":44,"verb":"Hello"}"#))
        .unwrap();
    assert_eq!(shim.hear()["Reply"]["id"], 44);
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_read_is_waited_for_and_never_cut_off() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    let dir = fixture.task_dir(&task);
    let requests = 200_000;
    let mut slow = Raw::connect(&dir).await;
    let mut writer = slow.0.try_clone().unwrap();
    let asking = std::thread::spawn(move || {
        for id in 0..requests {
            let request = format!(r#"{{"id":{id},"verb":"Hello"}}"#);
            writer.write_all(&Raw::frame(&request)).unwrap();
        }
    });
    // Meanwhile others are served, and the shim stays small.
    task.start_container(fixture.program(&["/bin/true"]))
        .await
        .unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 0);
    let shim = shim_pid(&dir);
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kib: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 4096, "{kib} KiB");
    slow.hear();
    let (mut answered, mut ends) = (0, 0);
    while answered < requests {
        let heard = slow.hear();
        if heard["Reply"]["id"].is_number() {
            assert_eq!(heard["Reply"]["id"], answered);
            answered += 1;
        } else if heard["Event"]["Exited"].is_object() {
            ends += 1;
        }
    }
    asking.join().unwrap();
    assert_eq!(ends, 1);
    task.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_on_in_its_shim_after_its_containers_and_its_agent_ended() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    task.start_container(fixture.program(&["/bin/true"]))
        .await
        .unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 0);
    // Another agent: the same containers, and a next one in the same task.
    let runtime = open(&fixture.data_dir, &fixture.installation).await;
    let adopted = runtime.adopt().await.unwrap().remove(0);
    assert!(adopted.shim_alive && adopted.containers[0].exit.is_some());
    let mut next = fixture.script("exit 9");
    next.name = name("next");
    adopted.handle.start_container(next).await.unwrap();
    assert_eq!(exit(&runtime).await.exit_code, 9);
    adopted
        .handle
        .restart_container(&name("app"))
        .await
        .unwrap();
    assert_eq!(exit(&runtime).await.exit_code, 0);
    adopted.handle.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

/// The adoption and the end come at the same time, a little earlier or later each time.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_at_the_moment_of_an_adoption_is_told_once() {
    let fixture = Fixture::new().await;
    for round in 0..25 {
        let task = fixture.task().await;
        task.start_container(
            fixture.script("trap 'exit 5' TERM; echo up; while true; do sleep 0.01; done"),
        )
        .await
        .unwrap();
        task.logs(&name("app"), 0)
            .unwrap()
            .next_batch(1)
            .await
            .unwrap();
        let runtime = open(&fixture.data_dir, &fixture.installation).await;
        let ending = task.clone();
        let delay = Duration::from_micros(400 * round);
        let env = fixture.env.clone();
        let ended = tokio::spawn(async move {
            env.sleep(delay).await;
            ending.signal(&name("app"), 9).await.unwrap();
        });
        let adopted = runtime.adopt().await.unwrap().remove(0);
        ended.await.unwrap();
        assert_eq!(exit(&fixture.runtime).await.signal, Some(9));
        let mut told = usize::from(adopted.containers[0].exit.is_some());
        // Whatever the shim has sent has been heard when it has answered this.
        adopted.handle.signal(&name("app"), 9).await.unwrap();
        while let Ok(event) =
            tokio::time::timeout(Duration::from_millis(1), runtime.next_event()).await
        {
            assert!(
                matches!(event, Some(RuntimeEvent::ContainerExited { .. })),
                "{event:?}"
            );
            told += 1;
        }
        assert_eq!(told, 1, "in round {round}");
        adopted.handle.remove().await.unwrap();
    }
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_from_outside_is_not_taken_for_the_kernels() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    let mut spec = fixture.script("tail /dev/zero; echo went on; exec sleep 1000");
    spec.resources.memory_bytes = Some(24 * MIB);
    let started = task.start_container(spec).await.unwrap();
    let mut reader = task.logs(&name("app"), 0).unwrap();
    loop {
        let batch = reader.next_batch(10).await.unwrap();
        if batch
            .iter()
            .any(|record| record.bytes.ends_with(b"went on"))
        {
            break;
        }
    }
    assert!(
        task.stats(&name("app"))
            .await
            .unwrap()
            .memory
            .out_of_memory_kills
            > 0
    );
    // Not through the shim, which would know.
    kill(started.pid);
    let end = exit(&fixture.runtime).await;
    assert_eq!((end.signal, end.out_of_memory), (Some(9), false));
    task.remove().await.unwrap();

    // The program below an init is the kernel's victim as if it were the first process.
    let mut spec = fixture.program(&["tail", "/dev/zero"]);
    spec.resources.memory_bytes = Some(24 * MIB);
    spec.init_process = true;
    let (end, _) = fixture.run(spec).await;
    assert_eq!((end.exit_code, end.out_of_memory), (137, true));
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hungry_and_stubborn_programs_harm_only_their_own_task() {
    let fixture = Fixture::new().await;
    let quiet = fixture.task().await;
    let mut spec = fixture.script("i=0; while true; do echo beat $i; i=$((i+1)); sleep 0.05; done");
    spec.name = name("quiet");
    quiet.start_container(spec).await.unwrap();

    let bomb = fixture.task().await;
    bomb.start_container(fixture.script("bomb() { bomb | bomb & }; bomb; exec sleep 1000"))
        .await
        .unwrap();
    let hog = fixture.task().await;
    let mut spec = fixture.script("while true; do tail /dev/zero; done");
    spec.resources.memory_bytes = Some(24 * MIB);
    hog.start_container(spec).await.unwrap();
    let stubborn = fixture.task().await;
    stubborn
        .start_container(fixture.script("trap '' TERM INT HUP; while true; do sleep 1; done"))
        .await
        .unwrap();

    // All of that goes on while the quiet one's beats come in, and a new task starts.
    let mut reader = quiet.logs(&name("quiet"), 0).unwrap();
    let mut beats = 0;
    while beats < 20 {
        let batch = tokio::time::timeout(crate::patience(), reader.next_batch(100));
        beats += batch
            .await
            .expect("the quiet task is starved")
            .unwrap()
            .len();
    }
    let processes = bomb.task_stats().await.unwrap().pids.current;
    assert!(processes <= 4096, "{processes}");
    let newcomer = fixture.task().await;
    newcomer
        .start_container(fixture.program(&["/bin/true"]))
        .await
        .unwrap();
    for task in [&bomb, &hog, &stubborn] {
        task.stop(&name("app"), Duration::from_millis(100))
            .await
            .unwrap();
        task.remove().await.unwrap();
    }
    newcomer.remove().await.unwrap();
    quiet.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_lines_a_second_come_through_and_delay_nobody() {
    let fixture = Fixture::new().await;
    let task = fixture.task().await;
    // `yes` writes as fast as it is read: what comes through is what the spool carries.
    let mut spec =
        fixture.script("exec yes a line of a program that says much more than anybody reads");
    spec.logs = LogSpec::Spool {
        mode: LogMode::Blocking,
        bytes_max: 1 << 20,
    };
    task.start_container(spec).await.unwrap();
    let other = fixture.task().await;
    let mut reader = task.logs(&name("app"), 0).unwrap();
    let (from, mut read) = (fixture.env.monotonic(), 0);
    while read < 50_000 {
        let batch = reader.next_batch(1000).await.unwrap();
        read += batch.len();
        reader.trim(batch.last().unwrap().end_offset).await.unwrap();
    }
    let took = fixture.env.monotonic() - from;
    assert!(
        took < crate::scaled(Duration::from_secs(5)),
        "{read} lines in {took:?}"
    );
    let (from, mut spec) = (fixture.env.monotonic(), fixture.program(&["/bin/true"]));
    spec.name = name("other");
    other.start_container(spec).await.unwrap();
    let took = fixture.env.monotonic() - from;
    assert!(
        took < crate::scaled(Duration::from_secs(2)),
        "a start took {took:?}"
    );
    task.remove().await.unwrap();
    other.remove().await.unwrap();
    fixture.assert_nothing_left().await;
}

/// Killed in each step of a start, both at once: whatever ran is known to have run, so that nobody runs
/// it a second time.
#[tokio::test(flavor = "multi_thread")]
async fn what_ran_is_known_when_agent_and_shim_die_together() {
    let fixture = Fixture::new().await;
    let tasks = fixture.data_dir.join("tasks");
    let (mut ran, mut not) = (0, 0);
    for round in 0..60u64 {
        let mut owner = std::process::Command::new(crate::SHIM)
            .args(["owner", fixture.data_dir.to_str().unwrap()])
            .args([fixture.installation.as_str(), &fixture.image])
            .arg("echo x > /ran; exec sleep 1000")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let folder = || std::fs::read_dir(&tasks).unwrap().flatten().next();
        eventually("its shim is there", || {
            folder().is_some_and(|entry| entry.path().join("shim.json").exists())
        })
        .await;
        let dir = folder().unwrap().path();
        // From its first moment to well after its start.
        fixture.env.sleep(Duration::from_micros(500 * round)).await;
        kill(shim_pid(&dir));
        owner.kill().unwrap();
        owner.wait().unwrap();
        let runtime = open(&fixture.data_dir, &fixture.installation).await;
        let adopted = runtime.adopt().await.unwrap().remove(0);
        assert!(!adopted.shim_alive);
        let has_run = dir.join("c/app/upper/ran").exists();
        let is_known = adopted
            .containers
            .iter()
            .any(|container| container.pid.is_some());
        assert!(
            is_known || !has_run,
            "in round {round} something ran in secret"
        );
        *(if has_run { &mut ran } else { &mut not }) += 1;
        adopted.handle.remove().await.unwrap();
    }
    assert!(ran > 0 && not > 0, "{ran} ran, {not} did not");
    eventually("all processes go", || fixture.processes().is_empty()).await;
    fixture.assert_nothing_left().await;
}

/// Whether a process runs no longer; whoever started it may not have asked for its end yet.
fn has_ended(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}

/// A small disk, gone with its test, however that ends.
struct Disk {
    folder: PathBuf,
    guard: std::process::Child,
}

impl Disk {
    fn new() -> Disk {
        let folder = tempfile::tempdir().unwrap().keep();
        let guard = std::process::Command::new(crate::SHIM)
            .arg("disk")
            .arg(&folder)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(&folder)
            .status();
        assert!(status.unwrap().success());
        Disk { folder, guard }
    }

    fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        if !std::thread::panicking() {
            assert!(!self.folder.exists(), "the disk is left");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_neither_output_nor_the_end() {
    let disk = Disk::new();
    let fixture = Fixture::in_folder(disk.path()).await;
    let task = fixture.task().await;
    let script = "trap go=1 USR1; echo before; while [ -z \"$go\" ]; do sleep 0.01; done; \
                  i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 4";
    let mut spec = fixture.script(script);
    spec.logs = LogSpec::Spool {
        mode: LogMode::Blocking,
        bytes_max: 8 << 20,
    };
    let started = task.start_container(spec).await.unwrap();
    let mut reader = task.logs(&name("app"), 0).unwrap();
    reader.next_batch(1).await.unwrap();
    let dir = fixture.task_dir(&task).join("c/app");
    // Full to the last page, and only then does the container go on: to its end, as all that it
    // writes fits into the pipe. The shim's own log is on that disk too, so it tells nothing here.
    let filler = disk.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    signal(started.pid, Signal::USR1);
    eventually("the container ends", || has_ended(started.pid)).await;
    assert!(!dir.join("exit.json").exists(), "the disk was not full");
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(exit(&fixture.runtime).await.exit_code, 4);
    let lines = lines(&task).await;
    assert_eq!(lines.len(), 3001);
    assert_eq!(lines[3000], "line 2999");
    eventually("the end is on disk", || dir.join("exit.json").exists()).await;
    task.remove().await.unwrap();
    drop(fixture);
}
