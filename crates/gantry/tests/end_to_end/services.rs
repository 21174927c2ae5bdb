//! Services with boto3 on real containers: its waiters, a roll, a broken revision that rolls back, and
//! a service that outlives Gantry.

use crate::image::push_busybox;
use crate::installation::Installation;

const PRELUDE: &str = r#"
import boto3, time
ecs = boto3.client("ecs")
def register(command, **more):
    return ecs.register_task_definition(family="web", networkMode="host", containerDefinitions=[dict(name="web", image=IMAGE,
        memory=16, stopTimeout=2, command=command, **more)])["taskDefinition"]["taskDefinitionArn"]
SERVES = ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"]
def service():
    return ecs.describe_services(services=["web"])["services"][0]
def until(what, holds, seconds=150):
    deadline = time.time() + seconds * PATIENCE
    while True:
        now = service()
        if holds(now): return now
        assert time.time() < deadline, (what, now)
        time.sleep(0.3)
def running():
    return sorted(ecs.list_tasks(serviceName="web")["taskArns"])
def stable():
    ecs.get_waiter("services_stable").wait(services=["web"], WaiterConfig=dict(Delay=1, MaxAttempts=120 * PATIENCE))
def completed():
    return until("completed", lambda it: len(it["deployments"]) == 1 and it["deployments"][0]["rolloutState"] == "COMPLETED")
"#;

#[test]
fn a_service_rolls_and_rolls_back_and_goes() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "services", &[]);
    let python = |gantry: &Installation, program: &str| {
        let program = format!("IMAGE = {image:?}\n{PRELUDE}{program}\nprint('all of it')\n");
        let printed = gantry.python(&program);
        assert!(printed.contains("all of it"), "{printed}");
    };
    python(
        &gantry,
        r#"
first = register(SERVES)
made = ecs.create_service(serviceName="web", taskDefinition="web", desiredCount=3, deploymentConfiguration=dict(
    deploymentCircuitBreaker=dict(enable=True, rollback=True)))["service"]
assert made["status"] == "ACTIVE" and made["deployments"][0]["status"] == "PRIMARY", made
stable()
assert service()["runningCount"] == 3 == len(running()), service()
# A task that is stopped is replaced.
gone = running()[0]
ecs.stop_task(task=gone)
until("a replacement", lambda it: it["runningCount"] == 3 and gone not in running())
completed()
"#,
    );
    // What was acknowledged outlives a kill, and goes on from there.
    gantry.signal_and_wait("KILL");
    gantry.start();
    python(
        &gantry,
        r#"
before = running()
assert len(before) == 3 and service()["runningCount"] == 3, service()
# A good revision rolls out, never below the three that were asked for.
second = register(SERVES + ["again"])
ecs.update_service(service="web", taskDefinition="web")
least = 9
def rolled(now):
    global least
    least = min(least, now["runningCount"])
    return len(now["deployments"]) == 1 and now["deployments"][0]["rolloutState"] == "COMPLETED"
after = until("rolled", rolled)
assert least >= 3, least
assert after["taskDefinition"] == second and not set(before) & set(running()), after
# A broken one does not come up, and the service returns to the good one.
good = running()
third = register(["/no/such/program"])
ecs.update_service(service="web", taskDefinition=third)
back = until("rolled back", lambda it: rolled(it) and it["taskDefinition"] == second)
assert least >= 3 and running() == good, (least, back)
deployments = ecs.list_service_deployments(service="web")["serviceDeployments"]
assert [it["status"] for it in deployments] == ["ROLLBACK_SUCCESSFUL", "SUCCESSFUL", "SUCCESSFUL"], deployments
whole = ecs.describe_service_deployments(serviceDeploymentArns=[deployments[0]["serviceDeploymentArn"]])["serviceDeployments"][0]
assert whole["deploymentCircuitBreaker"]["status"] == "TRIGGERED", whole
assert whole["rollback"]["serviceRevisionArn"] == deployments[1]["targetServiceRevisionArn"], whole
revision = ecs.describe_service_revisions(serviceRevisionArns=[deployments[1]["targetServiceRevisionArn"]])["serviceRevisions"][0]
assert revision["taskDefinition"] == second and revision["containerImages"][0]["imageDigest"].startswith("sha256:"), revision
# One that runs, and ends before its health check has ever passed, is as broken.
fourth = register(["sh", "-c", "exit 3"], healthCheck=dict(command=["CMD", "true"], interval=5))
ecs.update_service(service="web", taskDefinition=fourth)
back = until("rolled back again", lambda it: rolled(it) and it["taskDefinition"] == second)
assert least >= 3 and running() == good, (least, back)
# Scaled, and deleted.
ecs.update_service(service="web", desiredCount=1)
stable()
ecs.update_service(service="web", desiredCount=0)
stable()
ecs.delete_service(service="web")
ecs.get_waiter("services_inactive").wait(services=["web"], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
assert running() == [] and ecs.list_services()["serviceArns"] == []
"#,
    );
}
