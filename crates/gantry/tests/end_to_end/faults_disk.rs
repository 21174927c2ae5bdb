//! Full disks, one under each of the things that Gantry keeps: honest answers, and all is well once there is room.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults_client::{Boto, NoAnswer, awslogs, id_of};
use crate::image::{password, push_busybox, run};
use crate::installation::{Installation, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// A file that takes what is free of its disk, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(folder: &Path) -> Filler {
        let path = (0..)
            .map(|at| folder.join(format!("filler-{at}")))
            .find(|path| !path.exists())
            .expect("a free name");
        let mut file = std::fs::File::create(&path).expect("a file");
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Filler(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Pushes the busybox image once more, with a layer of its own of so many MiB.
fn push_with_layer(gantry: &Installation, name: &str, mib: u64) -> String {
    let layout = gantry.scratch("image-base").join("layout");
    let noise = gantry.scratch("noise");
    let random = std::fs::File::open("/dev/urandom").expect("noise");
    let mut file = std::fs::File::create(&noise).expect("a file");
    std::io::copy(&mut std::io::Read::take(random, mib << 20), &mut file).expect("noise");
    let image = format!("{}:latest", layout.display());
    run(Command::new("umoci").args(["tag", "--image", &image, name]));
    run(Command::new("umoci")
        .args(["insert", "--image"])
        .arg(format!("{}:{name}", layout.display()))
        .arg(&noise)
        .arg("/noise"));
    let reference = format!("{}/base:{name}", gantry.registry());
    run(Command::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--dest-creds",
        ])
        .arg(format!("AWS:{}", password(gantry)))
        .arg(format!("oci:{}:{name}", layout.display()))
        .arg(format!("docker://{reference}")));
    reference
}

fn define(boto: &mut Boto, family: &str, image: &str, command: &str) {
    let container = json!({"name": "c", "image": image, "memory": 32, "stopTimeout": 2,
        "command": ["sh", "-c", command], "logConfiguration": awslogs("/disk")});
    let with =
        json!({"family": family, "networkMode": "none", "containerDefinitions": [container]});
    boto.persist("ecs", "register_task_definition", &with);
}

fn layers(gantry: &Installation) -> usize {
    let folder = gantry.data_dir().join("node/images/layers/sha256");
    std::fs::read_dir(folder).expect("the layers").count()
}

/// Counts until it is told to stop by a file, and then ends with 7.
const COUNTER: &str =
    "i=0; while test ! -e /tmp/stop; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 7";

fn first_process(gantry: &Installation, arn: &str) -> u64 {
    let file = format!("node/tasks/{}/c/c/started.json", id_of(arn));
    let text = std::fs::read(gantry.data_dir().join(file)).expect("started.json");
    let value: Value = serde_json::from_slice(&text).expect("JSON");
    value["pid"].as_u64().expect("a pid")
}

#[test]
fn a_full_disk_of_images_fails_a_pull_by_name_and_takes_only_images_that_nobody_uses() {
    let gantry = Installation::up_with(
        &[("ECS_IMAGE_CLEANUP_INTERVAL", "1s")],
        &[("node/images", "24m")],
    );
    let base = push_busybox(&gantry, "base", &[]);
    let (a, b) = (
        push_with_layer(&gantry, "a", 6),
        push_with_layer(&gantry, "b", 6),
    );
    let mut boto = Boto::of(&gantry);
    define(&mut boto, "counter", &base, COUNTER);
    define(&mut boto, "a", &a, "test -s /noise && exit 3");
    define(&mut boto, "b", &b, "test -s /noise && exit 4");
    let images = gantry.data_dir().join("node/images");
    let counter = boto.run("counter");
    boto.until(&counter, "RUNNING");
    let used = layers(&gantry);

    // No room at all: the reason says so, and nothing of the image is left.
    let filler = Filler::fill(&images);
    let arn = boto.run("a");
    let task = boto.until(&arn, "STOPPED");
    let reason = task["containers"][0]["reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("CannotPullContainerError"),
        "the disk is full: {task}"
    );
    assert!(reason.contains("No space left on device"), "{task}");
    assert_eq!(task["stopCode"], "TaskFailedToStart", "{task}");
    drop(filler);
    assert_eq!(layers(&gantry), used);

    // There is room again, so it works, also for a second one.
    for (family, code) in [("a", 3), ("b", 4)] {
        let arn = boto.run(family);
        let task = boto.until(&arn, "STOPPED");
        assert_eq!(task["containers"][0]["exitCode"], code, "{task}");
    }
    assert_eq!(layers(&gantry), used + 2);

    // Full once more: an image that nobody uses goes although it is young, and no more of them than must;
    // when that does not help, the next one. That of the running task stays.
    let mut fillers = vec![Filler::fill(&images)];
    let kept = |kept: usize| match layers(&gantry) {
        left if left == used + kept => Ok(()),
        left => Err(format!("{left} layers")),
    };
    let what = "an unused image goes from a full disk";
    eventually(PATIENCE, what, || kept(1));
    // The files of what just went may still be on their way out, so the disk is filled until it stays full.
    eventually(PATIENCE, what, || {
        fillers.push(Filler::fill(&images));
        kept(0)
    });
    drop(fillers);
    assert_eq!(boto.task(&counter)["lastStatus"], "RUNNING");
    // What went is fetched again, and what stayed can still be started.
    for (family, code) in [("a", 3), ("b", 4)] {
        let arn = boto.run(family);
        let task = boto.until(&arn, "STOPPED");
        assert_eq!(task["containers"][0]["exitCode"], code, "{task}");
    }
    let again = boto.run("counter");
    boto.until(&again, "RUNNING");
}

#[test]
fn a_full_disk_of_the_journal_or_of_the_store_loses_nothing_and_is_told() {
    let mut gantry = Installation::up_with(&[], &[("node/agent", "256k"), ("store", "3m")]);
    let base = push_busybox(&gantry, "base", &[]);
    let mut boto = Boto::of(&gantry);
    define(&mut boto, "counter", &base, COUNTER);
    define(&mut boto, "short", &base, "exit 3");
    let counter = boto.run("counter");
    boto.until(&counter, "RUNNING");
    let pid = first_process(&gantry, &counter);

    // The journal: what cannot be written down is not acknowledged, so it waits; what runs runs on.
    let filler = Filler::fill(&gantry.data_dir().join("node/agent"));
    let mut last = boto.run("short");
    let health = format!("{}/_gantry/health", gantry.endpoint());
    let told = eventually(PATIENCE, "the health endpoint names the full disk", || {
        // Until the journal's last page is full, tasks still get through; then the agent is away, and says so.
        let answer = boto.ask("ecs", "run_task", &json!({"taskDefinition": "short"}));
        match answer["tasks"][0]["taskArn"].as_str() {
            Some(arn) => arn.clone_into(&mut last),
            None => assert_eq!(answer["failures"][0]["reason"], "AGENT", "{answer}"),
        }
        let output = Command::new("curl")
            .args(["-s", &health])
            .output()
            .expect("curl");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        match told.contains("No space left on device") {
            true => Ok(told),
            false => Err(told),
        }
    });
    assert!(told.contains("lastError"), "{told}");
    assert_eq!(boto.task(&counter)["lastStatus"], "RUNNING");
    assert_eq!(first_process(&gantry, &counter), pid);
    drop(filler);
    let task = boto.until(&last, "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 3, "{task}");

    // The store: what is not on disk is not acknowledged, and what was stays; reading goes on.
    let filler = Filler::fill(&gantry.data_dir().join("store"));
    let mut acknowledged = Vec::new();
    let refusal = eventually(PATIENCE, "a refusal for want of space", || {
        let with = json!({"family": "more", "networkMode": "none", "containerDefinitions":
            [{"name": "c", "image": base, "memory": 32, "command": ["sh", "-c", "x".repeat(20_000)]}]});
        match boto.once("ecs", "register_task_definition", &with) {
            Ok(answer) => {
                acknowledged.push(answer["taskDefinition"]["taskDefinitionArn"].clone());
                Err(format!("{} were acknowledged", acknowledged.len()))
            }
            Err(error) => Ok(error),
        }
    });
    assert!(
        matches!(refusal, NoAnswer::Refused { status: 500.., .. }),
        "{refusal:?}"
    );
    assert_eq!(boto.task(&counter)["lastStatus"], "RUNNING");
    // A task that ends now cannot be told of yet; it is when there is room, with its own exit code.
    std::fs::write(format!("/proc/{pid}/root/tmp/stop"), "").expect("a file in the container");
    eventually(
        PATIENCE,
        "the container's end",
        || match std::path::Path::new(&format!("/proc/{pid}")).exists() {
            true => Err("it runs".to_owned()),
            false => Ok(()),
        },
    );
    // Killed while nothing can be written, it starts again on what it has.
    gantry.signal_and_wait("KILL");
    drop(filler);
    gantry.start();
    let mut boto = Boto::of(&gantry);
    let task = boto.until(&counter, "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 7, "{task}");
    let stream = format!("p/c/{}", id_of(&counter));
    let lines = eventually(PATIENCE, "every line of the counter", || {
        let lines = boto.lines("/disk", &stream);
        match lines.is_empty() {
            true => Err("none".to_owned()),
            false => Ok(lines),
        }
    });
    let wanted: Vec<String> = (0..lines.len()).map(|at| format!("line {at}")).collect();
    assert_eq!(lines, wanted);
    for definition in acknowledged {
        let with = json!({ "taskDefinition": definition });
        boto.ask("ecs", "describe_task_definition", &with);
    }
    let arn = boto.run("short");
    let task = boto.until(&arn, "STOPPED");
    assert_eq!(task["containers"][0]["exitCode"], 3, "{task}");
}
