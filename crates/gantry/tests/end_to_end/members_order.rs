//! Containers that wait for each other, are looked after, and start again.

use crate::containers::with_image;
use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn containers_wait_for_each_other() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "order", &[]);
    with_image(
        &gantry,
        &image,
        r#"
wait = lambda **on: [dict(containerName=name, condition=condition) for name, condition in on.items()]
side = dict(essential=False, stopTimeout=1)
# Each writes into a folder that they share, so the order is that of the lines.
say = lambda word, more="": ["sh", "-c", "echo %s >> /v/order; %s" % (word, more)]
mount = dict(mountPoints=[dict(sourceVolume="v", containerPath="/v")])
task, lines = run([
    sh("echo last >> /v/order; cat /v/order", dependsOn=wait(done="COMPLETE", good="SUCCESS", well="HEALTHY", begun="START"), **mount),
    dict(side, name="done", command=say("done", "sleep 0.3; exit 3"), dependsOn=wait(begun="START"), **mount),
    dict(side, name="good", command=say("good"), dependsOn=wait(done="COMPLETE"), **mount),
    dict(side, name="well", command=say("well", "sleep 1000"), dependsOn=wait(good="SUCCESS"), **mount,
         healthCheck=dict(command=["CMD-SHELL", "grep -q well /v/order"], interval=5, timeout=2, retries=2)),
    dict(side, name="begun", command=say("begun", "sleep 1000"), **mount),
], network="none", volumes=[dict(name="v")])
check(lines, ["begun", "done", "good", "well", "last", "end"])
codes = {c["name"]: c.get("exitCode") for c in task["containers"]}
check((codes["c"], codes["done"], codes["good"]), (0, 3, 0))
# What can never come true any more ends the task, and says why.
task, _ = run([
    dict(name="c", command=["true"], dependsOn=wait(bad="SUCCESS")),
    dict(side, name="bad", command=["false"]),
], network="none")
check(task["stopCode"], "TaskFailedToStart")
assert "bad" in task["stoppedReason"] + str([c.get("reason") for c in task["containers"]]), task
# One that others wait for has startTimeout to get there.
task, _ = run([
    dict(name="c", command=["true"], dependsOn=wait(slow="COMPLETE")),
    dict(side, name="slow", startTimeout=2, command=["sleep", "1000"]),
], network="none")
check(task["stopCode"], "TaskFailedToStart")
assert "slow" in task["stoppedReason"] + str([c.get("reason") for c in task["containers"]]), task
"#,
    );
}

#[test]
fn a_health_check_decides() {
    let gantry = Installation::up();
    // The image's own check would fail at once; it does not count.
    let image = push_busybox(&gantry, "health", &[]);
    with_image(
        &gantry,
        &image,
        r#"
common = dict(image=IMAGE, memory=32, stopTimeout=1)
def health(arn, wanted, within=60):
    deadline = time.time() + within
    while True:
        task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
        seen = {c["name"]: c.get("healthStatus") for c in task["containers"]}
        if (task.get("healthStatus"), seen) == wanted:
            return task
        assert time.time() < deadline, (task.get("healthStatus"), seen, wanted, task.get("stoppedReason"))
        time.sleep(0.1)
ecs.register_task_definition(family="health", networkMode="none", containerDefinitions=[
    dict(common, name="c", command=["sh", "-c", "touch /tmp/well; sleep 1000"],
         healthCheck=dict(command=["CMD", "test", "-f", "/tmp/well"], interval=5, timeout=2, retries=1, startPeriod=1)),
    dict(common, name="quiet", command=["sleep", "1000"]),
    # A check that does not come back has failed after its timeout.
    dict(common, name="slow", essential=False, command=["sleep", "1000"],
         healthCheck=dict(command=["CMD-SHELL", "sleep 100"], interval=5, timeout=2, retries=1)),
])
arn = ecs.run_task(taskDefinition="health")["tasks"][0]["taskArn"]
health(arn, ("HEALTHY", dict(c="HEALTHY", quiet="UNKNOWN", slow="UNHEALTHY")))
ecs.stop_task(task=arn)
# An essential container that is not well makes the task UNHEALTHY; it runs on, because no service looks after it.
ecs.register_task_definition(family="ill", networkMode="none", containerDefinitions=[
    dict(common, name="c", command=["sleep", "1000"], healthCheck=dict(command=["CMD", "false"], interval=5, timeout=2, retries=2))])
arn = ecs.run_task(taskDefinition="ill")["tasks"][0]["taskArn"]
task = health(arn, ("UNHEALTHY", dict(c="UNHEALTHY")))
check(task["lastStatus"], "RUNNING")
ecs.stop_task(task=arn)
"#,
    );
}

#[test]
fn a_container_starts_again_as_its_policy_says() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "again", &[]);
    with_image(
        &gantry,
        &image,
        r#"
# The writable layer is the same: each run adds a line. It starts again only after restartAttemptPeriod, whose least is a minute.
policy = lambda **more: dict(restartPolicy=dict(enabled=True, restartAttemptPeriod=60, **more))
family = "again"
options = {"awslogs-group": "/again", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p", "awslogs-create-group": "true"}
common = dict(image=IMAGE, memory=32, stopTimeout=1, logConfiguration=dict(logDriver="awslogs", options=options))
ecs.register_task_definition(family=family, networkMode="none", containerDefinitions=[
    # Ends after its period: starts again, with what it wrote before.
    dict(common, name="c", command=["sh", "-c", "echo run >> /tmp/runs; echo runs $(wc -l < /tmp/runs); test $(wc -l < /tmp/runs) -lt 2 && exec sleep 62; exec sleep 1000"], **policy()),
    # Ends before its period: stays ended.
    dict(common, name="early", essential=False, command=["sh", "-c", "echo once; exit 1"], **policy()),
    # Ends after its period with a code that is ignored: stays ended.
    dict(common, name="ignored", essential=False, command=["sh", "-c", "echo one; sleep 61; exit 9"], **policy(ignoredExitCodes=[9])),
    # Not enabled.
    dict(common, name="never", essential=False, command=["sh", "-c", "exit 4"], restartPolicy=dict(enabled=False)),
])
arn = ecs.run_task(taskDefinition=family)["tasks"][0]["taskArn"]
task_id = arn.split("/")[-1]
def lines(name):
    try:
        return [e["message"] for e in logs.get_log_events(logGroupName="/again", startFromHead=True, logStreamName="p/%s/%s" % (name, task_id))["events"]]
    except logs.exceptions.ResourceNotFoundException:
        return []
deadline = time.time() + 100
while "runs 2" not in lines("c"):
    assert time.time() < deadline, (lines("c"), ecs.describe_tasks(tasks=[arn])["tasks"][0])
    time.sleep(0.5)
check(lines("c"), ["runs 1", "runs 2"])
check((lines("early"), lines("ignored")), (["once"], ["one"]))
task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
seen = {c["name"]: (c["lastStatus"], c.get("exitCode")) for c in task["containers"]}
check(seen, dict(c=("RUNNING", None), early=("STOPPED", 1), ignored=("STOPPED", 9), never=("STOPPED", 4)))
ecs.stop_task(task=arn)
"#,
    );
}
