//! What a service tells, on real containers: `gantry explain service` while it waits, and `gantry history
//! service` afterwards, through a kill of Gantry and the end of the service.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::image::push_busybox;
use crate::installation::{Installation, eventually};

const SERVES: &str = r#"["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"]"#;

fn register(gantry: &Installation, image: &str, more: &str) {
    let containers = format!(
        r#"[{{"name":"web","image":"{image}","memory":16,"stopTimeout":2,"command":{SERVES}{more}}}]"#
    );
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "web",
        "--network-mode",
        "host",
        "--container-definitions",
        &containers,
    ]);
}

fn said(gantry: &Installation, words: &[&str]) -> String {
    let output = gantry.gantry(words);
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(gantry: &Installation, words: &[&str]) -> String {
    let output = gantry.gantry(words);
    assert!(!output.status.success(), "{words:?} should be refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn until_said(gantry: &Installation, words: &[&str], all: &[&str]) -> String {
    eventually(Duration::from_secs(90), "what is said", || {
        let said = said(gantry, words);
        match all.iter().find(|words| !said.contains(**words)) {
            None => Ok(said),
            Some(missing) => Err(format!("'{missing}' is missing in\n{said}")),
        }
    })
}

#[test]
fn a_service_says_what_it_waits_for_and_what_happened_to_it() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "told", &[]);
    register(&gantry, &image, "");
    gantry.aws(&[
        "ecs",
        "create-service",
        "--service-name",
        "web",
        "--task-definition",
        "web",
        "--desired-count",
        "2",
        "--deployment-configuration",
        "deploymentCircuitBreaker={enable=true,rollback=true}",
    ]);
    let explain = ["explain", "service", "web"];
    until_said(
        &gantry,
        &explain,
        &["2 RUNNING and 0 PENDING", "nothing checks their health"],
    );
    let listed = gantry.aws(&["ecs", "list-tasks", "--service-name", "web"]);
    let gone = listed["taskArns"][0].as_str().expect("a task").to_owned();
    gantry.aws(&["ecs", "stop-task", "--task", &gone, "--reason", "by hand"]);
    until_said(&gantry, &explain, &["It is steady: it waits for nothing."]);
    gantry.signal_and_wait("KILL");
    gantry.start();

    // A revision whose health check fails: what it saw is told.
    let check = r#","healthCheck":{"command":["CMD-SHELL","echo broken; exit 7"],"interval":5,"timeout":2,"retries":1}"#;
    register(&gantry, &image, check);
    gantry.aws(&[
        "ecs",
        "update-service",
        "--service",
        "web",
        "--task-definition",
        "web",
        "--health-check-grace-period-seconds",
        "15",
    ]);
    until_said(
        &gantry,
        &explain,
        &[
            "is UNHEALTHY, which counts from",
            "The health check of container web failed: exit code 7: broken",
        ],
    );
    // When it has gone back to what was good, what failed of the other is still told.
    until_said(
        &gantry,
        &explain,
        &[
            "The deployment that it rolls back to",
            "It is steady: it waits for nothing.",
            "Task failed container health checks",
            "The health check of container web failed: exit code 7: broken",
        ],
    );
    // One that needs more than there is: each container instance is told with its reason.
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "huge",
        "--network-mode",
        "host",
        "--container-definitions",
        &format!(r#"[{{"name":"web","image":"{image}","memory":100000000}}]"#),
    ]);
    gantry.aws(&[
        "ecs",
        "create-service",
        "--service-name",
        "huge",
        "--task-definition",
        "huge",
        "--desired-count",
        "1",
    ]);
    until_said(
        &gantry,
        &["explain", "service", "huge"],
        &[
            "A task has found no place",
            "Container instance",
            "MiB of memory free and the task needs 100000000",
            "No circuit breaker is enabled",
        ],
    );

    gantry.aws(&["ecs", "delete-service", "--service", "web", "--force"]);
    eventually(Duration::from_secs(60), "the end of the service", || {
        let now = gantry.aws(&["ecs", "describe-services", "--services", "web"]);
        match now["services"][0]["status"].as_str() {
            Some("INACTIVE") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let history = said(&gantry, &["history", "service", "web"]);
    let stopped = format!(
        "{} STOPPED: UserInitiated by hand",
        gone.rsplit('/').next().expect("an id")
    );
    let mut after = 0;
    for words in [
        "created with desired count 2 of web:1",
        "IN_PROGRESS",
        "has started 2 tasks",
        stopped.as_str(),
        "COMPLETED",
        "has reached a steady state.",
        "a deployment of web:2",
        "deleted",
    ] {
        let at = history[after..].find(words);
        after += at.unwrap_or_else(|| panic!("'{words}' is missing, or too early, in\n{history}"));
    }
    assert!(
        history.contains("task slot 0") && history.contains("task slot 1"),
        "{history}"
    );
    whole(&gantry, &gone);
    // Names that are not there.
    let why = refused(&gantry, &["explain", "service", "wbe"]);
    assert!(why.contains("There are:") && why.contains("huge"), "{why}");
    let why = refused(&gantry, &["explain", "service", "web", "--cluster", "prod"]);
    assert!(why.contains("list-clusters"), "{why}");
    let why = refused(&gantry, &["history", "service", "wbe"]);
    assert!(why.contains("Nothing is known of a service wbe"), "{why}");
    let why = refused(&gantry, &["history", "service", "web", "--since", "soon"]);
    assert!(why.contains("'soon' is not a time"), "{why}");
}

/// The history as JSON: every change of a task once and in order, though Gantry was killed in between.
fn whole(gantry: &Installation, gone: &str) {
    let text = said(gantry, &["history", "service", "web", "--output", "json"]);
    let all: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let ids: BTreeSet<&str> = all.iter().filter_map(|it| it["id"].as_str()).collect();
    assert_eq!(ids.len(), all.len(), "each event once");
    let of_task = all.iter().filter(|it| it["resource"] == gone);
    let states: Vec<(String, i64)> = of_task
        .map(|it| {
            assert_eq!(it["detailType"], "ECS Task State Change");
            let detail = &it["detail"];
            let status = detail["lastStatus"].as_str().expect("a status").to_owned();
            (status, detail["version"].as_i64().expect("a version"))
        })
        .collect();
    let statuses: Vec<&str> = states.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["PENDING", "RUNNING", "STOPPING", "STOPPED"]);
    assert!(states.is_sorted_by(|a, b| a.1 < b.1), "{states:?}");
    let tasks = all.iter().filter(|it| it["kind"] == "task");
    let ended = tasks
        .filter(|it| it["detail"]["lastStatus"] == "STOPPED")
        .count();
    assert!(
        ended >= 3,
        "{ended} tasks are told to have stopped in\n{text}"
    );
}

#[test]
fn nothing_is_kept_for_less_than_an_hour() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = std::process::Command::new(crate::installation::GANTRY)
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--history",
            "10m",
            "--data-dir",
        ])
        .arg(folder.path())
        .output()
        .expect("gantry");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--history is at least an hour"), "{said}");
}
