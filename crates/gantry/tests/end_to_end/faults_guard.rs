//! A test that is killed, its `gantry up` left alive at the worst moments: its guard leaves nothing of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::faults_left;
use crate::installation::{Installation, eventually};

/// Runs until it is killed: starts, runs a task after the other, is killed itself and starts again.
#[test]
#[ignore = "the victim of the test below, which starts it and kills it"]
fn victim() {
    let mut gantry = Installation::up();
    loop {
        gantry.gantry(&["sample"]);
        gantry.signal_and_wait("KILL");
        std::fs::write(gantry.scratch("again"), "").expect("a mark");
        gantry.start();
    }
}

/// What is there when the victim is killed, below its folder.
const MOMENTS: [&str; 4] = [
    // An `up` that has a name, and has not written yet that it runs.
    "data/installation.json",
    // A task's folder, whose shim is just being started.
    "data/node/tasks/*",
    // A container that is just being made.
    "data/node/tasks/*/c/*/container.json",
    // The second `up` takes over from the first.
    "again",
];

#[test]
fn a_killed_test_leaves_nothing_of_its_installation() {
    for moment in MOMENTS {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let mut victim = Command::new(std::env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "faults_guard::victim"])
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the victim");
        let pattern = scratch.path().join("*").join(moment);
        eventually(Duration::from_secs(60), moment, || match first(&pattern) {
            Some(_) => Ok(()),
            None => Err(format!("{:?}", victim.try_wait())),
        });
        victim.kill().expect("kill");
        victim.wait().expect("its end");
        let name = first(&scratch.path().join("*/data/installation.json")).map(|file| {
            let text = std::fs::read(file).expect("its name");
            let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            value["installation_id"].as_str().expect("an id").to_owned()
        });
        eventually(Duration::from_secs(60), "the guard's end", || {
            match first(&scratch.path().join("*")) {
                None => Ok(()),
                Some(left) => Err(left.display().to_string()),
            }
        });
        let name = name.expect("the victim's installation has a name");
        let left = faults_left::everything(&name, scratch.path());
        assert!(left.is_empty(), "killed at {moment}: {left:#?}");
    }
}

/// The first path that a pattern with whole names of `*` stands for.
fn first(pattern: &Path) -> Option<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.components().skip(1) {
        let within = |folder: PathBuf| -> Vec<PathBuf> {
            match part.as_os_str().to_str() {
                Some("*") => std::fs::read_dir(folder)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path())
                    .collect(),
                _ => vec![folder.join(part)],
            }
        };
        found = found.into_iter().flat_map(within).collect();
    }
    found.into_iter().find(|path| path.exists())
}
