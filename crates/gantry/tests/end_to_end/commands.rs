//! The command line itself.

use std::process::Command;

use crate::installation::{GANTRY, Installation};

#[test]
fn help_teaches_and_version_tells() {
    let help = Command::new(GANTRY).arg("--help").output().expect("gantry");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for word in [
        "up",
        "down",
        "env",
        "doctor",
        "coverage",
        "explain",
        "version",
        "eval \"$(gantry env)\"",
    ] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    let version = Command::new(GANTRY)
        .arg("version")
        .output()
        .expect("gantry");
    assert_eq!(
        String::from_utf8_lossy(&version.stdout).trim(),
        format!("gantry {}", env!("CARGO_PKG_VERSION"))
    );
    let coverage = Command::new(GANTRY)
        .args(["coverage", "--all"])
        .output()
        .expect("gantry");
    let coverage = String::from_utf8_lossy(&coverage.stdout).into_owned();
    assert!(
        coverage.contains("RunTask") && coverage.contains("CreateService"),
        "{coverage}"
    );
    assert!(
        Command::new(GANTRY)
            .arg("doctor")
            .output()
            .expect("gantry")
            .status
            .success()
    );
}

#[test]
fn any_credentials_are_refused_beyond_loopback() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(GANTRY)
        .args([
            "up",
            "--listen",
            "0.0.0.0:0",
            "--accept-any-credentials",
            "--data-dir",
        ])
        .arg(folder.path())
        .output()
        .expect("gantry");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("loopback"), "{said}");
}

#[test]
fn without_root_up_says_how_to_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    // The executable must be readable for the other user, wherever the target directory is.
    let copy = folder.path().join("gantry");
    std::fs::copy(GANTRY, &copy).expect("a copy");
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).expect("chown");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .output()
        .expect("setpriv");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("root") && said.contains("sudo"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
}

#[test]
fn one_data_directory_serves_one_up() {
    let gantry = Installation::up();
    let second = gantry.gantry(&["up", "--listen", "127.0.0.1:0"]);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        said.contains(&gantry.pid().to_string()),
        "it names who holds it: {said}"
    );
}

#[test]
fn explain_tells_why_a_task_stopped() {
    let gantry = Installation::up();
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "x",
        "--network-mode",
        "host",
        "--container-definitions",
        &format!(
            r#"[{{"name":"c","image":"{}/absent:1","memory":32}}]"#,
            gantry.registry()
        ),
    ]);
    let run = gantry.aws(&["ecs", "run-task", "--task-definition", "x"]);
    let arn = run["tasks"][0]["taskArn"]
        .as_str()
        .expect("an ARN")
        .to_owned();
    gantry.aws(&["ecs", "wait", "tasks-stopped", "--tasks", &arn]);
    let output = gantry.gantry(&["explain", "task", &arn]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("CannotPullContainerError"), "{said}");
}

#[test]
fn the_sample_runs() {
    let gantry = Installation::up();
    let output = gantry.gantry(&["sample"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Again: the repository and the task definition are there already.
    assert!(gantry.gantry(&["sample"]).status.success());
}
