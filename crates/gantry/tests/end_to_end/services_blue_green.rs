//! Blue/green with boto3 on real containers: a deployment that bakes and is continued at its pause hook, across a
//! kill of Gantry, one that is rolled back by its hook, and one that is stopped while it bakes.

use crate::image::push_busybox;
use crate::installation::Installation;

const PRELUDE: &str = r#"
import boto3, time
ecs = boto3.client("ecs")
def register(word):
    return ecs.register_task_definition(family="web", networkMode="host", containerDefinitions=[dict(name="web", image=IMAGE,
        memory=16, stopTimeout=2, command=["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done", word],
        healthCheck=dict(command=["CMD-SHELL", "true"], interval=5))])["taskDefinition"]["taskDefinitionArn"]
def until(what, seen, holds, seconds=120):
    deadline = time.time() + seconds * PATIENCE
    while True:
        now = seen()
        if holds(now): return now
        assert time.time() < deadline, (what, now)
        time.sleep(0.3)
def service():
    return ecs.describe_services(services=["web"])["services"][0]
def running():
    return sorted(ecs.list_tasks(serviceName="web")["taskArns"])
def newest():
    arn = ecs.list_service_deployments(service="web")["serviceDeployments"][0]["serviceDeploymentArn"]
    return ecs.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"][0]
def is_in(stage):
    return until(stage, newest, lambda it: it.get("lifecycleStage") == stage)
def ends(status):
    return until(status, newest, lambda it: it["status"] == status)
def counts(revision):
    return [revision[it + "TaskCount"] for it in ("requested", "running", "pending")]
def answer(action):
    whole = until("a hook", newest, lambda it: it.get("lifecycleStage") == "POST_SCALE_UP" and it["lifecycleHookDetails"])
    hook = whole["lifecycleHookDetails"][0]
    assert hook["targetType"] == "PAUSE" and hook["status"] == "AWAITING_ACTION" and hook["timeoutAction"] == "ROLLBACK", hook
    assert counts(whole["targetServiceRevision"]) == [2, 2, 0] == counts(whole["sourceServiceRevisions"][0]), whole
    assert service()["runningCount"] == 4, service()
    ecs.continue_service_deployment(serviceDeploymentArn=whole["serviceDeploymentArn"], hookId=hook["hookId"], action=action)
"#;

#[test]
fn a_service_rolls_blue_green_with_a_pause_and_is_rolled_back() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "blue-green", &[]);
    let python = |gantry: &Installation, program: &str| {
        let program = format!("IMAGE = {image:?}\n{PRELUDE}{program}\nprint('all of it')\n");
        let printed = gantry.python(&program);
        assert!(printed.contains("all of it"), "{printed}");
    };
    python(
        &gantry,
        r#"
register("one")
made = ecs.create_service(serviceName="web", taskDefinition="web", desiredCount=2, deploymentConfiguration=dict(
    strategy="BLUE_GREEN", bakeTimeInMinutes=1))["service"]
assert made["deploymentConfiguration"]["strategy"] == "BLUE_GREEN", made
ends("SUCCESSFUL")
blue = running()
second = register("two")
ecs.update_service(service="web", taskDefinition="web", deploymentConfiguration=dict(
    lifecycleHooks=[dict(targetType="PAUSE", lifecycleStages=["POST_SCALE_UP"], timeoutConfiguration=dict(timeoutInMinutes=30))]))
until("green is up", newest, lambda it: it.get("lifecycleStage") == "POST_SCALE_UP")
assert set(blue) < set(running()) and len(running()) == 4, (blue, running())
"#,
    );
    // A deployment that waits is found waiting by whoever comes after.
    gantry.signal_and_wait("KILL");
    gantry.start();
    python(
        &gantry,
        r#"
both = running()
answer("CONTINUE")
baking = is_in("BAKE_TIME")
assert baking["status"] == "IN_PROGRESS" and running() == both and service()["runningCount"] == 4, baking
began = time.time()
after = ends("SUCCESSFUL")
assert time.time() - began > 50, "it bakes for a minute"
assert after["lifecycleStage"] == "CLEAN_UP" and counts(after["targetServiceRevision"]) == [2, 2, 0], after
ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
green = running()
assert len(green) == 2 and set(green) < set(both), (green, both)
# The next one is turned away at its hook, and what ran runs on untouched.
register("three")
ecs.update_service(service="web", taskDefinition="web")
answer("ROLLBACK")
back = ends("ROLLBACK_SUCCESSFUL")
assert running() == green and back["lifecycleHookDetails"][0]["status"] == "FAILED", (green, running(), back)
assert back["rollback"]["serviceRevisionArn"] == after["targetServiceRevision"]["arn"], back
# And one is stopped while it bakes.
ecs.update_service(service="web", taskDefinition="web:3")
answer("CONTINUE")
baking = is_in("BAKE_TIME")
ecs.stop_service_deployment(serviceDeploymentArn=baking["serviceDeploymentArn"], stopType="ROLLBACK")
ends("ROLLBACK_SUCCESSFUL")
assert running() == green, (green, running())
now = service()
assert now["taskDefinition"].endswith("web:2") and len(now["deployments"]) == 1, now
ecs.delete_service(service="web", force=True)
ecs.get_waiter("services_inactive").wait(services=["web"], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
"#,
    );
}
