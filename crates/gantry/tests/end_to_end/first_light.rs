//! Push an image, run a task, read its logs: with the aws CLI alone, and with boto3's waiters.

use std::time::Duration;

use crate::image::push_busybox;
use crate::installation::{Installation, eventually};

#[test]
fn the_aws_cli_pushes_runs_and_reads_logs() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "hello", &[]);

    let identity = gantry.aws(&["sts", "get-caller-identity"]);
    assert_eq!(identity["Account"], "000000000000");

    let containers = serde_json::json!([{
        "name": "hello",
        "image": image,
        "memory": 64,
        "command": ["sh", "-c", "echo first light; echo on stderr >&2"],
        "logConfiguration": {"logDriver": "awslogs", "options": {
            "awslogs-group": "/hello",
            "awslogs-region": "us-east-1",
            "awslogs-stream-prefix": "run",
            "awslogs-create-group": "true",
        }},
    }]);
    let registered = gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "hello",
        "--network-mode",
        "host",
        "--container-definitions",
        &containers.to_string(),
    ]);
    assert_eq!(registered["taskDefinition"]["revision"], 1);
    assert_eq!(registered["taskDefinition"]["status"], "ACTIVE");

    let run = gantry.aws(&["ecs", "run-task", "--task-definition", "hello"]);
    assert_eq!(run["failures"], serde_json::json!([]), "{run}");
    let arn = run["tasks"][0]["taskArn"]
        .as_str()
        .expect("an ARN")
        .to_owned();
    gantry.aws(&["ecs", "wait", "tasks-stopped", "--tasks", &arn]);

    let described = gantry.aws(&["ecs", "describe-tasks", "--tasks", &arn]);
    let task = &described["tasks"][0];
    assert_eq!(task["lastStatus"], "STOPPED", "{task}");
    assert_eq!(task["stopCode"], "EssentialContainerExited");
    assert_eq!(task["stoppedReason"], "Essential container in task exited");
    assert_eq!(task["containers"][0]["exitCode"], 0);
    for moment in [
        "createdAt",
        "pullStartedAt",
        "pullStoppedAt",
        "startedAt",
        "stoppingAt",
        "executionStoppedAt",
        "stoppedAt",
    ] {
        assert!(!task[moment].is_null(), "{moment} is missing: {task}");
    }

    let task_id = arn.rsplit('/').next().expect("an id");
    let streams = gantry.aws(&["logs", "describe-log-streams", "--log-group-name", "/hello"]);
    assert_eq!(
        streams["logStreams"][0]["logStreamName"],
        format!("run/hello/{task_id}")
    );
    // A task is STOPPED when its containers are; what they wrote last arrives a moment later, as at AWS.
    let mut lines = eventually(Duration::from_secs(10), "both log lines", || {
        let events = gantry.aws(&[
            "logs",
            "get-log-events",
            "--log-group-name",
            "/hello",
            "--log-stream-name",
            &format!("run/hello/{task_id}"),
            "--start-from-head",
        ]);
        let lines: Vec<String> = events["events"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|event| event["message"].as_str().unwrap_or_default().to_owned())
            .collect();
        if lines.len() == 2 {
            Ok(lines)
        } else {
            Err(format!("{lines:?}"))
        }
    });
    lines.sort();
    assert_eq!(lines, ["first light", "on stderr"]);

    // Only the second generation of the CLI has `logs tail`; an early one reads no endpoint from the environment.
    let aws = second_generation_cli(&gantry);
    let tail = gantry
        .command(aws)
        .args([
            "--endpoint-url",
            &gantry.endpoint(),
            "logs",
            "tail",
            "/hello",
            "--format",
            "short",
        ])
        .output()
        .expect("aws");
    assert!(
        String::from_utf8_lossy(&tail.stdout).contains("first light"),
        "{}",
        String::from_utf8_lossy(&tail.stderr)
    );
}

/// An `aws` of version 2, wherever it is. `cargo xtask setup --tests` installs Debian's.
fn second_generation_cli(gantry: &Installation) -> &'static str {
    ["aws", "/usr/bin/aws"]
        .into_iter()
        .find(|aws| {
            let version = gantry.command(aws).arg("--version").output();
            version.is_ok_and(|version| {
                String::from_utf8_lossy(&version.stdout).starts_with("aws-cli/2")
            })
        })
        .expect("an aws CLI of version 2")
}

#[test]
fn boto3_waits_for_running_and_stopped_and_lists() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "team/app", &[]);
    let printed = gantry.python(&format!(
        r#"
import boto3, time
ecs = boto3.client("ecs")
ecs.register_task_definition(family="app", networkMode="host", containerDefinitions=[
    dict(name="app", image="{image}", memory=64, cpu=10, command=["sleep", "1000"])])
tasks = ecs.run_task(taskDefinition="app:1", count=3, group="blue", startedBy="me", tags=[dict(key="k", value="v")])["tasks"]
assert len(tasks) == 3 and all(t["desiredStatus"] == "RUNNING" for t in tasks), tasks
arns = [t["taskArn"] for t in tasks]
ecs.get_waiter("tasks_running").wait(tasks=arns, WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
described = ecs.describe_tasks(tasks=arns, include=["TAGS"])["tasks"]
assert [t["tags"] for t in described] == [[dict(key="k", value="v")]] * 3, described
assert all(t["launchType"] == "EC2" and t["group"] == "blue" and t["startedBy"] == "me" for t in described)
assert sorted(ecs.list_tasks(family="app")["taskArns"]) == sorted(arns)
assert sorted(ecs.list_tasks(startedBy="me")["taskArns"]) == sorted(arns)
assert ecs.list_tasks(startedBy="you")["taskArns"] == []
instance = ecs.list_container_instances()["containerInstanceArns"][0]
seen = ecs.describe_container_instances(containerInstances=[instance])["containerInstances"][0]
assert seen["runningTasksCount"] == 3 and seen["agentConnected"] and seen["status"] == "ACTIVE", seen
left = {{r["name"]: r.get("integerValue") for r in seen["remainingResources"]}}
had = {{r["name"]: r.get("integerValue") for r in seen["registeredResources"]}}
assert had["CPU"] - left["CPU"] == 30 and had["MEMORY"] - left["MEMORY"] == 192, (had, left)
cluster = ecs.describe_clusters(clusters=["default"])["clusters"][0]
assert cluster["runningTasksCount"] == 3 and cluster["registeredContainerInstancesCount"] == 1, cluster
stopped = ecs.stop_task(task=arns[0], reason="enough")["task"]
assert stopped["desiredStatus"] == "STOPPED" and stopped["stopCode"] == "UserInitiated", stopped
for arn in arns[1:]:
    ecs.stop_task(task=arn.split("/")[-1])
ecs.get_waiter("tasks_stopped").wait(tasks=arns, WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
first = ecs.describe_tasks(tasks=arns[:1])["tasks"][0]
assert first["stoppedReason"] == "enough", first
assert sorted(ecs.list_tasks(desiredStatus="STOPPED")["taskArns"]) == sorted(arns)
assert ecs.list_tasks()["taskArns"] == []
seen = ecs.describe_container_instances(containerInstances=[instance])["containerInstances"][0]
left = {{r["name"]: r.get("integerValue") for r in seen["remainingResources"]}}
assert left == had, (left, had)
print("all true")
"#
    ));
    assert_eq!(printed.trim(), "all true");
}

#[test]
fn a_client_token_runs_a_task_once() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "once", &[]);
    let printed = gantry.python(&format!(
        r#"
import boto3, botocore
ecs = boto3.client("ecs")
ecs.register_task_definition(family="once", networkMode="none", containerDefinitions=[
    dict(name="once", image="{image}", memory=32, command=["sleep", "1000"])])
first = ecs.run_task(taskDefinition="once", clientToken="a")["tasks"][0]["taskArn"]
second = ecs.run_task(taskDefinition="once", clientToken="a")["tasks"][0]["taskArn"]
assert first == second, (first, second)
try:
    ecs.run_task(taskDefinition="once", clientToken="a", count=2)
    raise SystemExit("another request under the same token was accepted")
except botocore.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] == "ConflictException", error
assert ecs.list_tasks()["taskArns"] == [first]
print("all true")
"#
    ));
    assert_eq!(printed.trim(), "all true");
}
