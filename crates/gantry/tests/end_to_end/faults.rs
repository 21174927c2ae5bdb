//! `kill -9` of Gantry at thirty moments in a row, while tasks are pulled, started, stopped and write logs.

use std::time::Duration;

use crate::adopt::assert_nothing_left;
use crate::image::push_busybox;
use crate::installation::{Installation, eventually};

/// Runs beside Gantry and never gives up: starts tasks under client tokens, stops some, and keeps a
/// record of what was acknowledged. Every answer that does not come is asked for again.
const LOAD: &str = r#"
import boto3, botocore, json, sys, time, uuid, random, os
from botocore.config import Config
ecs = boto3.client("ecs", config=Config(retries=dict(max_attempts=1), connect_timeout=2, read_timeout=10))
def persist(call, **arguments):
    while True:
        try:
            return call(**arguments)
        except botocore.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500: raise
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError):
            pass
        if os.path.exists(sys.argv[3]): raise SystemExit("told to end while Gantry did not answer")
        time.sleep(0.02)
random.seed(int(sys.argv[1]))
record = open(sys.argv[2], "a", buffering=1)
running = []
while not os.path.exists(sys.argv[3]):
    answer = persist(ecs.run_task, taskDefinition=random.choice(["writer", "short"]), clientToken=str(uuid.uuid4()))
    for task in answer["tasks"]:
        running.append(task["taskArn"])
        record.write(json.dumps(dict(run=task["taskArn"], family=task["taskDefinitionArn"].split("/")[-1].split(":")[0])) + "\n")
    if len(running) > 6:
        arn = running.pop(0)
        persist(ecs.stop_task, task=arn)
        record.write(json.dumps(dict(stop=arn)) + "\n")
    time.sleep(0.05)
for arn in running:
    persist(ecs.stop_task, task=arn)
    record.write(json.dumps(dict(stop=arn)) + "\n")
"#;

/// What must be true of everything that was acknowledged.
const CHECK: &str = r#"
import boto3, json, os, sys, time, re
PATIENCE = int(os.environ.get("GANTRY_TEST_PATIENCE", 1))
ecs, logs = boto3.client("ecs"), boto3.client("logs")
records = [json.loads(line) for line in open(sys.argv[1])]
family = {r["run"]: r["family"] for r in records if "run" in r}
arns = list(family)
assert len(arns) > 30, len(arns)
deadline = time.time() + 90 * PATIENCE
while True:
    tasks = []
    for i in range(0, len(arns), 100):
        answer = ecs.describe_tasks(tasks=arns[i:i + 100])
        assert not answer["failures"], ("a task is forgotten", answer["failures"])
        tasks += answer["tasks"]
    open_ = [t["taskArn"] + " " + t["lastStatus"] for t in tasks if t["lastStatus"] != "STOPPED"]
    if not open_: break
    assert time.time() < deadline, ("not stopped", open_)
    time.sleep(0.2)
listed = [a for page in ecs.get_paginator("list_tasks").paginate(desiredStatus="STOPPED") for a in page["taskArns"]]
assert len(listed) == len(set(listed)) and set(arns) <= set(listed)
# A run whose answer was lost is repeated under the same token, so there is none that nobody knows.
assert set(listed) == set(arns), ("doubled", set(listed) - set(arns))
left = ecs.describe_container_instances(containerInstances=ecs.list_container_instances()["containerInstanceArns"])["containerInstances"]
assert len(left) == 1, left
resources = lambda key: {r["name"]: r.get("integerValue") for r in left[0][key] if r["type"] == "INTEGER"}
assert resources("registeredResources") == resources("remainingResources"), left
# Log lines: numbered by the container, none lost in the middle, none repeated.
checked = 0
streams = {}
try:
    for page in logs.get_paginator("describe_log_streams").paginate(logGroupName="/fault"):
        for s in page["logStreams"]: streams[s["logStreamName"].split("/")[-1]] = s["logStreamName"]
except logs.exceptions.ResourceNotFoundException:
    pass
for task in tasks:
    code = task["containers"][0].get("exitCode")
    reason = task.get("stoppedReason", "") + task["containers"][0].get("reason", "")
    if family[task["taskArn"]] != "writer": 
        assert code in (0, 143, 137) or task.get("startedAt") is None, task
        continue
    name = streams.get(task["taskArn"].split("/")[-1])
    if not name:
        assert task.get("startedAt") is None, ("no stream", task)
        continue
    lines, token = [], None
    while True:
        more = dict(nextToken=token) if token else {}
        page = logs.get_log_events(logGroupName="/fault", logStreamName=name, startFromHead=True, **more)
        lines += [e["message"] for e in page["events"]]
        if page["nextForwardToken"] == token: break
        token = page["nextForwardToken"]
    assert lines == ["line %d" % i for i in range(len(lines))], (name, lines[:5], len(lines))
    checked += len(lines)
assert checked > 200, checked
print(len(tasks), "tasks,", checked, "lines")
"#;

#[test]
fn thirty_kills_lose_double_and_forget_nothing() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "fault", &[]);
    gantry.python(&format!(
        r#"
import boto3
ecs = boto3.client("ecs")
log = dict(logDriver="awslogs", options={{"awslogs-group": "/fault", "awslogs-region": "us-east-1",
    "awslogs-stream-prefix": "p", "awslogs-create-group": "true", "mode": "blocking"}})
ecs.register_task_definition(family="writer", networkMode="host", containerDefinitions=[dict(name="c", image="{image}", memory=16, stopTimeout=2,
    command=["sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.01; done"], logConfiguration=log)])
ecs.register_task_definition(family="short", networkMode="none", containerDefinitions=[dict(name="c", image="{image}", memory=16, command=["true"])])
"#
    ));
    let record = gantry.scratch("record");
    let end = gantry.scratch("end");
    let mut load = gantry
        .command("python3")
        .args(["-c", LOAD, "7"])
        .arg(&record)
        .arg(&end)
        .spawn()
        .expect("python3");
    let lines = || {
        std::fs::read_to_string(&record)
            .unwrap_or_default()
            .lines()
            .count()
    };
    for kill in 0..30 {
        // The next kill comes after something new was acknowledged, a little later each time, so that
        // it falls into pulls, starts, stops and log writes alike.
        let seen = lines();
        let wanted = seen + 1 + kill % 3;
        eventually(
            Duration::from_secs(60),
            "something is acknowledged between two kills",
            || {
                if lines() >= wanted {
                    Ok(())
                } else {
                    Err(format!("{} records, kill {kill}", lines()))
                }
            },
        );
        gantry.signal_and_wait("KILL");
        gantry.start();
    }
    std::fs::write(&end, "").expect("the end mark");
    assert!(load.wait().expect("the load").success());

    let checked = gantry
        .command("python3")
        .args(["-c", CHECK])
        .arg(&record)
        .output()
        .expect("python3");
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    eprintln!("{}", String::from_utf8_lossy(&checked.stdout).trim());
    let down = gantry.gantry(&["down"]);
    assert!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
    assert_nothing_left(&gantry, &[]);
}
