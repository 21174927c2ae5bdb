//! Containers that wait for one another, are checked, and start again.

use std::time::Duration;

use crate::containers::with_image;
use crate::image::push_busybox;
use crate::installation::{Installation, eventually};

#[test]
fn containers_start_when_what_they_need_is_so_and_stop_in_reverse() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "chain", &[]);
    with_image(
        &gantry,
        &image,
        r#"
def says(name, text):
    return "trap 'echo %s stops; sleep 0.3; echo %s gone; exit 0' TERM; %s; while true; do sleep 0.1; done" % (name, name, text)
def stamped(family, arn, names):
    lines = []
    for name in names:
        for e in logs.get_log_events(logGroupName="/" + family, startFromHead=True, logStreamName="p/%s/%s" % (name, arn.split("/")[-1]))["events"]:
            lines.append((e["timestamp"], e["message"]))
    return [message for _, message in sorted(lines)]
healthy = dict(command=["CMD-SHELL", "test -e /tmp/ready"], interval=5, timeout=2, retries=2, startPeriod=30)
task, _ = run([
    dict(name="app", command=["sh", "-c", says("app", "echo app starts")], dependsOn=[dict(containerName="db", condition="HEALTHY")]),
    dict(name="db", command=["sh", "-c", says("db", "echo db starts; sleep 1; echo db is ready; touch /tmp/ready")],
         healthCheck=healthy, dependsOn=[dict(containerName="init", condition="SUCCESS")]),
    dict(name="init", essential=False, command=["sh", "-c", "echo init starts; sleep 1; echo init gone"]),
], stop_after_running=True)
wanted = ["init starts", "init gone", "db starts", "db is ready", "app starts", "app stops", "app gone", "db stops", "db gone"]
deadline = time.time() + 20 * PATIENCE
while True:
    seen = stamped("t0", task["taskArn"], ["app", "db", "init"])
    if seen == wanted: break
    assert time.time() < deadline, seen
    time.sleep(0.2)
check({c["name"]: c["exitCode"] for c in task["containers"]}, dict(app=0, db=0, init=0))

# What never succeeds fails what waits for its success.
task, _ = run([
    dict(name="app", command=["sh", "-c", "echo never"], dependsOn=[dict(containerName="init", condition="SUCCESS")]),
    dict(name="init", essential=False, command=["sh", "-c", "exit 3"]),
])
by_name = {c["name"]: c for c in task["containers"]}
check(by_name["init"]["exitCode"], 3)
assert "[init] for target [app] as dependency did not exit successfully" in by_name["app"]["reason"], task

# What is not healthy in time does as well.
task, _ = run([
    dict(name="app", command=["sh", "-c", "echo never"], dependsOn=[dict(containerName="db", condition="HEALTHY")]),
    dict(name="db", command=["sleep", "1000"], startTimeout=8, stopTimeout=2,
         healthCheck=dict(command=["CMD", "false"], interval=5, startPeriod=60)),
])
assert "dependency [db] for target [app] has timed out" in str(task["containers"]), task
"#,
    );
}

#[test]
fn a_container_starts_again_across_kill_9_and_with_ignored_codes_it_does_not() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "again", &[]);
    let arn = gantry
        .python(&format!(
            r#"
import boto3
ecs = boto3.client("ecs")
def container(name, command, **more):
    return dict(name=name, image="{image}", memory=32, command=["sh", "-c", command],
        restartPolicy=dict(enabled=True, ignoredExitCodes=[3], restartAttemptPeriod=60),
        logConfiguration=dict(logDriver="awslogs", options={{"awslogs-group": "/again", "awslogs-region": "us-east-1",
            "awslogs-stream-prefix": "p", "awslogs-create-group": "true", "mode": "blocking"}}), **more)
ecs.register_task_definition(family="again", networkMode="host", containerDefinitions=[
    container("web", "echo x >>/n; echo run $(wc -l </n); test $(wc -l </n) -gt 1 && exec sleep 1000; sleep 61; exit 1", stopTimeout=2,
        healthCheck=dict(command=["CMD-SHELL", "echo checked >>/checks"], interval=5)),
    container("side", "echo run; sleep 61; exit 3", essential=False)])
arn = ecs.run_task(taskDefinition="again")["tasks"][0]["taskArn"]
ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
print(arn)
"#
        ))
        .trim()
        .to_owned();
    let describe = |gantry: &Installation| {
        gantry.aws(&["ecs", "describe-tasks", "--tasks", &arn])["tasks"][0].clone()
    };
    let lines = |gantry: &Installation, container: &str| {
        let stream = format!("p/{container}/{}", arn.rsplit('/').next().expect("an id"));
        let words = [
            "logs",
            "get-log-events",
            "--log-group-name",
            "/again",
            "--log-stream-name",
        ];
        let events = gantry.aws(&[&words[..], &[&stream, "--start-from-head"]].concat());
        let events = events["events"].as_array().cloned().unwrap_or_default();
        let messages = events
            .iter()
            .map(|e| e["message"].as_str().unwrap_or_default());
        messages.map(str::to_owned).collect::<Vec<_>>()
    };
    // Amid health checks, and again about when the restart is due.
    gantry.signal_and_wait("KILL");
    gantry.start();
    eventually(
        Duration::from_secs(120),
        "the ends of the first runs",
        || {
            let task = describe(&gantry);
            let side = task["containers"]
                .as_array()
                .and_then(|all| all.iter().find(|c| c["name"] == "side"))
                .cloned()
                .unwrap_or_default();
            match side["exitCode"].as_i64() {
                Some(3) => Ok(()),
                _ => Err(task.to_string()),
            }
        },
    );
    gantry.signal_and_wait("KILL");
    gantry.start();
    eventually(Duration::from_secs(30), "the second run", || {
        let seen = lines(&gantry, "web");
        match seen[..] == ["run 1", "run 2"] {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    });
    assert_eq!(lines(&gantry, "side"), ["run"]);
    let task = describe(&gantry);
    assert_eq!(task["lastStatus"], "RUNNING", "{task}");

    gantry.aws(&["ecs", "stop-task", "--task", &arn]);
    let task = eventually(Duration::from_secs(30), "the task is STOPPED", || {
        let task = describe(&gantry);
        match task["lastStatus"] == "STOPPED" {
            true => Ok(task),
            false => Err(task.to_string()),
        }
    });
    assert_eq!(task["stopCode"], "UserInitiated", "{task}");
    assert_eq!(
        lines(&gantry, "web"),
        ["run 1", "run 2"],
        "a stopped container stays so"
    );
}
