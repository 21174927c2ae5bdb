//! An image with the program that tries to get out, and the libraries that it is linked with.

use std::path::Path;
use std::process::Command;

use gantry_runtime::image_builder::ImageBuilder;
use gantry_runtime::{ContainerSpec, NetworkMode};

use crate::{Fixture, busybox};

const INTRUDER: &str = env!("CARGO_BIN_EXE_gantry-test-intruder");

/// Busybox, and `/intruder`.
pub fn image() -> ImageBuilder {
    let mut image = busybox();
    image.file("intruder", 0o755, std::fs::read(INTRUDER).unwrap());
    let listed = Command::new("ldd").arg(INTRUDER).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, and the loader alone.
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for library in libraries {
        image.file(
            library.trim_start_matches('/'),
            0o755,
            std::fs::read(library).unwrap(),
        );
    }
    image.directory("tmp", 0o1777);
    for name in [
        "ln", "mkdir", "mv", "rm", "chmod", "ps", "kill", "dd", "head", "ls", "df", "stat", "find",
        "ip", "seq",
    ] {
        image.symlink(&format!("bin/{name}"), "busybox");
    }
    image
}

/// The same program under another name.
pub fn add(image: &mut ImageBuilder, path: &str, mode: u32) {
    image.file(path, mode, std::fs::read(INTRUDER).unwrap());
}

impl Fixture {
    /// With that image.
    pub async fn with_intruder() -> Self {
        Self::with_image(&image()).await
    }

    pub fn intruder(&self, words: &[&str]) -> ContainerSpec {
        let mut all = vec!["/intruder"];
        all.extend(words);
        self.program(&all)
    }

    /// What the intruder says when it tries this.
    pub async fn tries(&self, words: &[&str]) -> Vec<String> {
        self.tries_in(NetworkMode::Host, self.intruder(words)).await
    }

    /// The process that holds a task's containers.
    pub fn shim_pid(&self, task: &gantry_runtime::TaskHandle) -> i32 {
        let file = self
            .data_dir
            .join("tasks")
            .join(task.id().as_str())
            .join("shim.json");
        let shim: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        shim["pid"].as_i64().unwrap() as i32
    }

    pub async fn tries_in(&self, network: NetworkMode, spec: ContainerSpec) -> Vec<String> {
        let (exit, lines) = self.run_in(network, spec).await;
        assert_eq!(exit.exit_code, 0, "{lines:?}");
        lines
    }
}

/// Each line ends with one of these answers.
pub fn assert_all(lines: &[String], answers: &[&str]) {
    assert!(!lines.is_empty());
    for line in lines {
        let answer = line.rsplit(": ").next().unwrap();
        assert!(answers.contains(&answer), "{line:?} in {lines:?}");
    }
}

/// The disk below a folder, as `major:minor`.
pub fn disk(folder: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(folder).unwrap().dev();
    format!("{}:{}", libc::major(device), libc::minor(device))
}
