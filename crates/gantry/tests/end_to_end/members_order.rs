//! Containers that wait for each other and are looked after. How they start again: `lifecycle`.

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
assert "bad" in task["stoppedReason"] + str([c.get("reason") for c in task["containers"]]), task
# One that others wait for has startTimeout to get there.
task, _ = run([
    dict(name="c", command=["true"], dependsOn=wait(slow="COMPLETE")),
    dict(side, name="slow", startTimeout=2, command=["sleep", "1000"]),
], network="none")
assert "slow" in task["stoppedReason"] + str([c.get("reason") for c in task["containers"]]), task
"#,
    );
}

#[test]
fn a_health_check_decides() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "health", &[]);
    with_image(
        &gantry,
        &image,
        r#"
healthy = lambda name: [dict(containerName=name, condition="HEALTHY")]
side = dict(essential=False, stopTimeout=1)
# Failures within the start period do not count, so one that gets well late is HEALTHY even with one retry.
task, lines = run([
    sh("echo well", dependsOn=healthy("late")),
    dict(side, name="late", command=["sh", "-c", "sleep 7; echo late; touch /tmp/well; sleep 1000"],
         healthCheck=dict(command=["CMD", "test", "-f", "/tmp/well"], interval=5, timeout=2, retries=1, startPeriod=30)),
], network="none")
check(sorted(lines), ["end", "late", "well"])
# A check that does not come back has failed after its timeout, and what waits for it never starts.
task, lines = run([
    sh("echo never", dependsOn=healthy("ill")),
    dict(side, name="ill", startTimeout=9, command=["sleep", "1000"],
         healthCheck=dict(command=["CMD-SHELL", "sleep 100"], interval=5, timeout=2, retries=1)),
], network="none")
assert "never" not in lines, lines
assert "ill" in task["stoppedReason"] + str([c.get("reason") for c in task["containers"]]), task
"#,
    );
}
