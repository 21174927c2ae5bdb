//! What a container definition says, seen from inside the container and in how its task ends.

use crate::image::push_busybox;
use crate::installation::Installation;

/// Python that runs one task to its end and gives back the task and its log lines.
const RUN: &str = r#"
import boto3, time, itertools
ecs, logs = boto3.client("ecs"), boto3.client("logs")
families = itertools.count()
def run(containers, overrides=None, stop_after_running=False, network="host", **task):
    family = "t%d" % next(families)
    for c in containers:
        c.setdefault("memory", 64)
        c.setdefault("image", IMAGE)
        c["logConfiguration"] = dict(logDriver="awslogs", options={
            "awslogs-group": "/" + family, "awslogs-region": "us-east-1",
            "awslogs-stream-prefix": "p", "awslogs-create-group": "true"})
    ecs.register_task_definition(family=family, networkMode=network, containerDefinitions=containers, **task)
    answer = ecs.run_task(taskDefinition=family, overrides=overrides or {})
    assert not answer["failures"], answer
    arn = answer["tasks"][0]["taskArn"]
    if stop_after_running:
        ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
        ecs.stop_task(task=arn)
    ecs.get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=90 * PATIENCE))
    task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
    deadline = time.time() + 10 * PATIENCE
    while True:
        lines = []
        for c in task["containers"]:
            try:
                lines += [e["message"] for e in logs.get_log_events(logGroupName="/" + family, startFromHead=True,
                    logStreamName="p/%s/%s" % (c["name"], arn.split("/")[-1]))["events"]]
            except logs.exceptions.ResourceNotFoundException:
                pass
        if "end" in lines or task.get("stopCode") == "TaskFailedToStart" or time.time() > deadline or not any("echo end" in str(c.get("command")) for c in containers):
            return task, lines
        time.sleep(0.1)
def sh(text, **more):
    return dict(name="c", command=["sh", "-c", text.strip() + "; echo end"], **more)
def check(seen, wanted):
    assert seen == wanted, (seen, wanted)
"#;

pub fn with_image(gantry: &Installation, image: &str, program: &str) {
    let printed = gantry.python(&format!(
        "IMAGE = {image:?}\n{RUN}\n{program}\nprint('all true')"
    ));
    assert!(printed.ends_with("all true\n"), "{printed}");
}

#[test]
fn a_container_sees_what_its_definition_says() {
    let gantry = Installation::up();
    let image = push_busybox(
        &gantry,
        "sees",
        &[
            "--config.env",
            "FROM_IMAGE=1",
            "--config.workingdir",
            "/tmp",
            "--config.entrypoint",
            "/bin/env",
        ],
    );
    with_image(
        &gantry,
        &image,
        r#"
# The image's entry point and environment; the definition's environment wins over the image's.
task, lines = run([dict(name="c", command=["A=b", "sh", "-c", "env; pwd; echo end"], environment=[dict(name="X", value="y z")])])
for wanted in ["FROM_IMAGE=1", "X=y z", "A=b", "/tmp", "AWS_EXECUTION_ENV=AWS_ECS_EC2"]:
    assert wanted in lines, (wanted, lines)
# entryPoint replaces the image's, and its command with it.
task, lines = run([dict(name="c", entryPoint=["sh", "-c"], command=["pwd; id -u; id -g; echo end"], workingDirectory="/made/here", user="app")])
check(lines[:3], ["/made/here", "1234", "2345"])
task, lines = run([dict(name="c", entryPoint=["sh", "-c"], command=["id -u; id -g; touch /x || echo readonly; echo end"], user="7:8", readonlyRootFilesystem=True)])
check([l for l in lines if not l.startswith("touch")], ["7", "8", "readonly", "end"])
# Overrides of a run.
task, lines = run([dict(name="c", entryPoint=["sh", "-c"], command=["false"])],
    overrides=dict(containerOverrides=[dict(name="c", command=["echo $Q; echo end"], environment=[dict(name="Q", value="override")])]))
check(lines[0], "override")
# Network mode none has a loopback interface and nothing else.
task, lines = run([dict(name="c", entryPoint=["sh", "-c"], command=["ls /sys/class/net; echo end"])], network="none")
check(lines, ["lo", "end"])
# Limits reach the kernel.
task, lines = run([dict(name="c", entryPoint=["sh", "-c"], memory=48, memoryReservation=32, cpu=512, command=[
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; echo end"])])
check(lines[0], str(48 * 1024 * 1024))
"#,
    );
}

#[test]
fn a_task_ends_the_way_its_containers_do() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "ends", &[]);
    with_image(
        &gantry,
        &image,
        r#"
task, _ = run([dict(name="c", command=["sh", "-c", "exit 42"])])
check((task["stopCode"], task["containers"][0]["exitCode"]), ("EssentialContainerExited", 42))
# A killed child, and an exit code that looks like it, are not the kernel's out-of-memory killer.
task, _ = run([dict(name="c", command=["sh", "-c", "sh -c 'kill -9 $$'; exit $?"])])
check(task["containers"][0]["exitCode"], 137)
assert "reason" not in task["containers"][0] or "OutOfMemory" not in task["containers"][0]["reason"], task

# A side container that is not essential may end; the task ends with the essential one.
task, _ = run([dict(name="side", command=["true"], essential=False), dict(name="main", command=["sh", "-c", "sleep 1; exit 3"])])
codes = {c["name"]: c.get("exitCode") for c in task["containers"]}
check(codes, dict(side=0, main=3))
# When the essential one ends, the others are stopped.
task, _ = run([dict(name="side", command=["sleep", "1000"], essential=False, stopTimeout=2), dict(name="main", command=["true"])])
codes = {c["name"]: c.get("exitCode") for c in task["containers"]}
check(codes["main"], 0)
assert codes["side"] in (137, 143), codes

# The kernel's out-of-memory killer.
task, _ = run([dict(name="c", memory=16, command=["sh", "-c", "exec tail /dev/zero"])])
c = task["containers"][0]
check(c["exitCode"], 137)
assert c["reason"].startswith("OutOfMemoryError"), c

# A process that ignores SIGTERM is killed after stopTimeout; one that heeds it ends by itself.
started = time.time()
task, _ = run([dict(name="c", command=["sh", "-c", "trap '' TERM; while true; do sleep 1; done"], stopTimeout=2)], stop_after_running=True)
check((task["stopCode"], task["containers"][0]["exitCode"]), ("UserInitiated", 137))
task, lines = run([dict(name="c", command=["sh", "-c", "trap 'echo bye; exit 5' TERM; while true; do sleep 0.1; done"])], stop_after_running=True)
check(task["containers"][0]["exitCode"], 5)
"#,
    );
}

#[test]
fn what_cannot_start_says_why() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "fails", &[]);
    with_image(
        &gantry,
        &image,
        r#"
task, _ = run([dict(name="c", command=["/no/such/thing"])])
check(task["stopCode"], "TaskFailedToStart")
reason = task["containers"][0]["reason"]
assert reason.startswith("CannotStartContainerError") and "/no/such/thing" in reason, reason
task, _ = run([dict(name="c", image=IMAGE.rsplit(":", 1)[0] + ":nothing", command=["true"])])
check(task["stopCode"], "TaskFailedToStart")
assert "CannotPullContainerError" in task["containers"][0]["reason"], task
task, _ = run([dict(name="c", image=IMAGE.replace("/fails:", "/absent:"), command=["true"])])
assert "CannotPullContainerError" in task["stoppedReason"] + task["containers"][0]["reason"], task
"#,
    );
}
