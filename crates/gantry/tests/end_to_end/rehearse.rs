//! `gantry rehearse` beside the real thing: what it says would happen is what happens, and it changes nothing.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::image::push_busybox;
use crate::installation::{Installation, eventually};

fn register(gantry: &Installation, image: &str, ports: &str) {
    let containers = format!(
        r#"[{{"name":"web","image":"{image}","memory":16,"stopTimeout":2,"command":["sh","-c","trap 'exit 0' TERM; while true; do sleep 0.1; done"],"healthCheck":{{"command":["CMD","true"],"interval":5}}{ports}}}]"#
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

fn rehearse(gantry: &Installation, input: &str, more: &[&str]) -> (Output, String) {
    let file = gantry.scratch("change.json");
    std::fs::write(&file, input).expect("a file");
    let mut words = vec!["rehearse", file.to_str().expect("a path")];
    words.extend(more);
    let output = gantry.gantry(&words);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output, said)
}

#[track_caller]
fn says(said: &str, all: &[&str]) {
    for words in all {
        assert!(said.contains(words), "'{words}' is missing in\n{said}");
    }
}

#[test]
fn a_change_is_rehearsed_on_a_copy_and_then_made() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "rehearsed", &[]);
    register(&gantry, &image, "");
    let create = r#"{"serviceName":"web","taskDefinition":"web","desiredCount":2,
        "deploymentConfiguration":{"deploymentCircuitBreaker":{"enable":true,"rollback":true}}}"#;
    let (output, said) = rehearse(&gantry, create, &[]);
    assert!(output.status.success(), "{said}");
    says(
        &said,
        &[
            "because no task has run yet",
            "Nothing speaks against it beforehand.",
            "created with desired count 2 of web:1",
            "has started 2 tasks",
            "the service is steady.",
        ],
    );
    let listed = gantry.aws(&["ecs", "list-services"]);
    assert_eq!(
        listed["serviceArns"].as_array().map(Vec::len),
        Some(0),
        "nothing was made"
    );

    // The real thing, from the same file.
    let file = gantry.scratch("change.json");
    let input = format!("file://{}", file.display());
    gantry.aws(&["ecs", "create-service", "--cli-input-json", &input]);
    let steady = |gantry: &Installation| {
        eventually(Duration::from_secs(60), "a steady state", || {
            let now = gantry.aws(&["ecs", "describe-services", "--services", "web"]);
            let service = &now["services"][0];
            match service["deployments"][0]["rolloutState"].as_str() {
                Some("COMPLETED") if service["runningCount"] == 2 => Ok(()),
                _ => Err(service.to_string()),
            }
        });
    };
    steady(&gantry);

    // An update on a copy that has the real tasks: times are now measured on them.
    let update = r#"{"service":"web","forceNewDeployment":true}"#;
    let (output, said) = rehearse(&gantry, update, &["--output", "json"]);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["outcome"]["is"], "steady", "{report}");
    assert_eq!(report["assumptions"]["measuredOn"], 2, "{report}");
    assert_eq!(report["leastRunning"], 2, "{report}");
    assert_eq!(report["mostTasks"], 4, "{report}");
    let (output, said) = rehearse(&gantry, update, &["--tasks", "unhealthy"]);
    assert!(!output.status.success());
    says(
        &said,
        &[
            "Task failed container health checks",
            "rolled back",
            "fewer than 2 of its tasks",
        ],
    );

    // Bounds that deadlock, and a host port that is there once.
    let both = r#"{"service":"web","forceNewDeployment":true,
        "deploymentConfiguration":{"minimumHealthyPercent":100,"maximumPercent":100}}"#;
    let (_, said) = rehearse(&gantry, both, &[]);
    says(
        &said,
        &["it would be refused", "this will block deployments"],
    );
    let tight = r#"{"service":"web","forceNewDeployment":true,
        "deploymentConfiguration":{"minimumHealthyPercent":90,"maximumPercent":110}}"#;
    let (output, said) = rehearse(&gantry, tight, &["--for", "10m"]);
    assert!(!output.status.success(), "{said}");
    says(
        &said,
        &["the minimum and the maximum deadlock", "not become steady"],
    );
    register(
        &gantry,
        &image,
        r#","portMappings":[{"containerPort":18080}]"#,
    );
    let roll = r#"{"service":"web","taskDefinition":"web"}"#;
    let (output, said) = rehearse(&gantry, roll, &["--for", "10m"]);
    assert!(!output.status.success(), "{said}");
    says(
        &said,
        &[
            "host ports collide",
            "1 of 2 tasks find no place",
            "host port 18080 is taken there",
        ],
    );
    let many = r#"{"serviceName":"many","taskDefinition":"web:1","desiredCount":10000}"#;
    let (_, said) = rehearse(&gantry, many, &["--for", "1s"]);
    says(&said, &["capacity is not there"]);

    // What the call itself would be refused with, and what is no such call.
    let (_, said) = rehearse(
        &gantry,
        r#"{"service":"web","taskDefinition":"absent"}"#,
        &[],
    );
    says(
        &said,
        &[
            "it would be refused: ClientException",
            "TaskDefinition not found",
        ],
    );
    let (_, said) = rehearse(&gantry, r#"{"service":"web","desiredCuont":3}"#, &[]);
    says(&said, &["UpdateService has no member desiredCuont"]);
    let (_, said) = rehearse(&gantry, r#"{"desiredCount":3}"#, &[]);
    says(&said, &["--as"]);
    steady(&gantry);
}
