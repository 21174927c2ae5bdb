//! What a task definition says of the task as a whole, what a run overrides, and what is not built.

use crate::containers::with_image;
use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn a_task_has_limits_of_its_own_and_a_run_overrides_them() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "limits", &[]);
    with_image(
        &gantry,
        &image,
        r#"
iam = boto3.client("iam")
import json
trust = json.dumps(dict(Version="2012-10-17", Statement=[dict(Effect="Allow", Principal=dict(Service="ecs-tasks.amazonaws.com"), Action="sts:AssumeRole")]))
roles = {name: iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"] for name in ("execution", "app", "other")}
for name in roles:
    iam.attach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")
    iam.put_role_policy(RoleName=name, PolicyName="logs", PolicyDocument=json.dumps(dict(Version="2012-10-17", Statement=[dict(Effect="Allow", Action="logs:*", Resource="*")])))
# The task's own cgroup is above the container's, so its limits are read from outside while it runs.
import glob
def limits(arn):
    task = arn.split("/")[-1]
    found = {}
    for kind, names in dict(memory=["memory.limit_in_bytes", "memory.max"], quota=["cpu.cfs_quota_us", "cpu.max"], shares=["cpu.shares"], soft=["memory.soft_limit_in_bytes", "memory.low"]).items():
        for name in names:
            for path in glob.glob("/sys/fs/cgroup/**/%s" % name, recursive=True):
                if task in path:
                    depth = "container" if path.split("/" )[-2] == "c" else "task"
                    if depth == "container" or path.split("/")[-2] == task:
                        found[depth, kind] = open(path).read().split()[0]
    return found
containers = [dict(name="c", image=IMAGE, cpu=128, memory=64, memoryReservation=32, stopTimeout=2, command=["sleep", "1000"],
    logConfiguration=dict(logDriver="awslogs", options={"awslogs-group": "/limits", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p", "awslogs-create-group": "true"}))]
definition = ecs.register_task_definition(family="limits", networkMode="none", cpu="256", memory="0.5 GB", requiresCompatibilities=["EC2"],
    executionRoleArn=roles["execution"], taskRoleArn=roles["app"], containerDefinitions=containers)["taskDefinition"]
check((definition["family"], definition["cpu"], definition["memory"]), ("limits", "256", "512"))
def running(**overrides):
    answer = ecs.run_task(taskDefinition="limits", overrides=overrides)
    assert not answer["failures"], answer
    arn = answer["tasks"][0]["taskArn"]
    ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60))
    return arn
arn = running()
seen = limits(arn)
check(seen["task", "memory"], str(512 << 20))
check(seen["task", "quota"], "25000")
check(seen["container", "memory"], str(64 << 20))
ecs.stop_task(task=arn)
# Overrides of the task and of its container.
arn = running(cpu="512", memory="256", executionRoleArn=roles["other"], taskRoleArn=roles["other"], containerOverrides=[
    dict(name="c", cpu=300, memory=48, memoryReservation=24, command=["sh", "-c", "echo $A $B; exec sleep 1000"],
         environment=[dict(name="A", value="1"), dict(name="B", value="2")])])
seen = limits(arn)
check(seen["task", "memory"], str(256 << 20))
check(seen["task", "quota"], "50000")
check((seen["container", "memory"], seen["container", "soft"]), (str(48 << 20), str(24 << 20)))
check(seen.get(("container", "shares"), "300"), "300")
deadline = time.time() + 10
while True:
    try:
        events = logs.get_log_events(logGroupName="/limits", logStreamName="p/c/" + arn.split("/")[-1])["events"]
    except logs.exceptions.ResourceNotFoundException:
        events = []
    if events or time.time() > deadline:
        break
    time.sleep(0.1)
check([e["message"] for e in events], ["1 2"])
task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
check((task["overrides"]["taskRoleArn"], task["overrides"]["cpu"], task["cpu"], task["memory"]), (roles["other"], "512", "512", "256"))
ecs.stop_task(task=arn)
# Where it may be placed.
for expression, failures in [("attribute:ecs.os-type == linux", 0), ("attribute:ecs.os-type == plan9", 1)]:
    ecs.register_task_definition(family="placed", networkMode="none", placementConstraints=[dict(type="memberOf", expression=expression)], containerDefinitions=containers)
    answer = ecs.run_task(taskDefinition="placed")
    check((expression, len(answer["failures"])), (expression, failures))
    for placed in answer["tasks"]:
        ecs.stop_task(task=placed["taskArn"])
# One that only Fargate may run is not run here.
ecs.register_task_definition(family="fargate", networkMode="awsvpc", cpu="256", memory="512", requiresCompatibilities=["FARGATE"], executionRoleArn=roles["execution"], containerDefinitions=containers)
try:
    ecs.run_task(taskDefinition="fargate")
    raise SystemExit("ran")
except ecs.exceptions.InvalidParameterException as error:
    assert "EC2" in str(error), error
"#,
    );
}

#[test]
fn what_is_not_built_fails_the_task_by_name() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "unbuilt", &[]);
    with_image(
        &gantry,
        &image,
        r#"
families = []
def refused(word, container={}, **task):
    family = "u%d" % len(families)
    role = "arn:aws:iam::000000000000:role/ecsTaskExecutionRole"
    ecs.register_task_definition(family=family, containerDefinitions=[dict(dict(name="c", image=IMAGE, memory=32, command=["true"]), **container)],
        **dict(dict(networkMode="none", executionRoleArn=role) if needs_role(container) else dict(networkMode="none"), **task))
    answer = ecs.run_task(taskDefinition=family)
    assert not answer["failures"], (word, answer)
    families.append((word, answer["tasks"][0]["taskArn"]))
def needs_role(container):
    return any(member in container for member in ("secrets", "repositoryCredentials", "environmentFiles"))
volume = lambda **kind: dict(volumes=[dict(name="v", **kind)])
refused("efsVolumeConfiguration", **volume(efsVolumeConfiguration=dict(fileSystemId="fs-1")))
refused("configuredAtLaunch", **volume(configuredAtLaunch=True))
refused("rexray/ebs", **volume(dockerVolumeConfiguration=dict(driver="rexray/ebs", scope="task")))
refused("WINDOWS_SERVER_2022_CORE", runtimePlatform=dict(operatingSystemFamily="WINDOWS_SERVER_2022_CORE"))
refused("disableNetworking", dict(disableNetworking=True), networkMode="host")
refused("resourceRequirements", dict(resourceRequirements=[dict(type="GPU", value="1")]))
refused("secrets", dict(secrets=[dict(name="A", valueFrom="b")]))
# LINUX is what container instances are.
ecs.register_task_definition(family="linux", networkMode="none", runtimePlatform=dict(operatingSystemFamily="LINUX", cpuArchitecture="X86_64"),
    containerDefinitions=[dict(name="c", image=IMAGE, memory=32, command=["true"])])
linux = ecs.run_task(taskDefinition="linux")["tasks"][0]["taskArn"]
arns = [arn for _, arn in families]
ecs.get_waiter("tasks_stopped").wait(tasks=arns + [linux], WaiterConfig=dict(Delay=1, MaxAttempts=60))
tasks = {t["taskArn"]: t for t in ecs.describe_tasks(tasks=arns + [linux])["tasks"]}
for word, arn in families:
    task = tasks[arn]
    check((word, task["stopCode"]), (word, "TaskFailedToStart"))
    assert word in task["stoppedReason"], (word, task["stoppedReason"])
check(tasks[linux]["containers"][0]["exitCode"], 0)
"#,
    );
}
