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
    ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
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
deadline = time.time() + 10 * PATIENCE
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

/// What the table says of members that are refused when the task starts, in its own words.
fn documented_reasons() -> Vec<&'static str> {
    let table = include_str!("../../../../docs/task-definitions.md");
    let mut reasons: Vec<&str> = table
        .lines()
        .filter_map(|row| row.split_once("| refused | ResourceInitializationError: "))
        .map(|(_, reason)| reason.trim_end_matches(" |"))
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert!(
        reasons.len() > 15,
        "the table has another form: {reasons:?}"
    );
    reasons
}

#[test]
fn what_is_not_built_fails_the_task_by_name() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "unbuilt", &[]);
    let documented = format!("DOCUMENTED = {:?}\n", documented_reasons());
    let program = r#"
import json, re
families, extra = [], {}
role = "arn:aws:iam::000000000000:role/ecsTaskExecutionRole"
# Members that are newer than this machine's client.
def beyond_the_client(params, **_):
    params["body"] = json.dumps(dict(json.loads(params["body"]), **extra)).encode()
ecs.meta.events.register("before-call.ecs.RegisterTaskDefinition", beyond_the_client)
def refused(container={}, overrides={}, newer={}, **task):
    family = "u%d" % len(families)
    extra.clear()
    extra.update(newer)
    ecs.register_task_definition(family=family, containerDefinitions=[dict(dict(name="c", image=IMAGE, memory=32, command=["true"]), **container)],
        **dict(dict(networkMode="none", executionRoleArn=role) if needs_role(container) else dict(networkMode="none"), **task))
    answer = ecs.run_task(taskDefinition=family, overrides=overrides)
    assert not answer["failures"], answer
    families.append(answer["tasks"][0]["taskArn"])
# A role that is not there fails a task before anybody looks at its members, but some must name one.
def needs_role(container):
    return any(member in container for member in ("secrets", "repositoryCredentials", "environmentFiles", "logConfiguration"))
volume = lambda **kind: dict(volumes=[dict(name="v", **kind)])
newer_volume = lambda **kind: dict(newer=dict(volumes=[dict(name="v", **kind)]))
override = lambda **more: dict(overrides=dict(containerOverrides=[dict(name="c", **more)]))
log = lambda **more: dict(logConfiguration=dict(dict(logDriver="awslogs", options={"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}), **more))
refused(dict(credentialSpecs=["credentialspec:x"]))
refused(dict(environmentFiles=[dict(type="s3", value="arn:aws:s3:::b/x.env")]))
refused(dict(firelensConfiguration=dict(type="fluentbit")))
refused(log(logDriver="splunk", options={}))
refused(log(secretOptions=[dict(name="a", valueFrom="b")]))
refused(dict(repositoryCredentials=dict(credentialsParameter="arn:aws:secretsmanager:us-east-1:000000000000:secret:x")))
refused(dict(resourceRequirements=[dict(type="GPU", value="1")]))
refused(dict(secrets=[dict(name="A", valueFrom="b")]))
refused(dict(disableNetworking=True), networkMode="host")
refused(**volume(configuredAtLaunch=True))
refused(**volume(dockerVolumeConfiguration=dict(driver="rexray/ebs", scope="task")))
refused(**volume(efsVolumeConfiguration=dict(fileSystemId="fs-1")))
refused(**volume(fsxWindowsFileServerVolumeConfiguration=dict(fileSystemId="fs-1", rootDirectory="x", authorizationConfig=dict(credentialsParameter="arn:aws:secretsmanager:us-east-1:000000000000:secret:x", domain="d"))))
refused(**newer_volume(s3filesVolumeConfiguration=dict(fileSystemArn="arn:aws:s3files:us-east-1:000000000000:file-system/fs-1")))
refused(**override(environmentFiles=[dict(type="s3", value="arn:aws:s3:::b/x.env")]))
refused(**override(resourceRequirements=[dict(type="GPU", value="1")]))
refused(runtimePlatform=dict(operatingSystemFamily="WINDOWS_SERVER_2022_CORE"))
refused(enableFaultInjection=True)
refused(ephemeralStorage=dict(sizeInGiB=30))
refused(inferenceAccelerators=[dict(deviceName="d", deviceType="eia1.medium")])
refused(newer=dict(trustedExecutionConfiguration=dict(isolationMode="SHARED")))
# What only the agent looks at says as well what kind of error it is, and names the member.
agents = {}
for word, container, task in [
    ("dockerSecurityOptions", dict(dockerSecurityOptions=["nonsense"]), {}),
    ("'rel'", dict(mountPoints=[dict(sourceVolume="v", containerPath="rel")]), volume(host={})),
    ("host.sourcePath", {}, volume(host=dict(sourcePath="rel"))),
    ("'nope'", {}, volume(dockerVolumeConfiguration=dict(driver="local", scope="task", driverOpts=dict(nope="x")))),
    ("extraHosts", dict(extraHosts=[dict(hostname="a", ipAddress="b")]), dict(networkMode="host")),
    ("dnsServers", dict(dnsServers=["b"]), dict(networkMode="host")),
    ("systemControls \"kernel.sem=x\"", dict(systemControls=[dict(namespace="kernel.sem", value="x")]), {}),
    ("hostname", dict(hostname="a" * 65), {}),
]:
    refused(container, **task)
    agents[families[-1]] = word
# LINUX is what container instances are.
extra.clear()
ecs.register_task_definition(family="linux", networkMode="none", runtimePlatform=dict(operatingSystemFamily="LINUX", cpuArchitecture="X86_64"),
    containerDefinitions=[dict(name="c", image=IMAGE, memory=32, command=["true"])])
linux = ecs.run_task(taskDefinition="linux")["tasks"][0]["taskArn"]
ecs.get_waiter("tasks_stopped").wait(tasks=families + [linux], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
tasks = {t["taskArn"]: t for t in ecs.describe_tasks(tasks=families + [linux])["tasks"]}
seen = []
for arn in families:
    task = tasks[arn]
    kind, _, reason = task["stoppedReason"].partition(": ")
    check((task["stopCode"], reason), ("TaskFailedToStart", reason))
    if arn in agents:
        assert kind.endswith("Error") and agents[arn] in reason, (agents[arn], task["stoppedReason"])
    else:
        check(kind, "ResourceInitializationError")
        seen.append(reason)
check(tasks[linux]["containers"][0]["exitCode"], 0)
# Each in the words of the table, and none of the table is missing.
words = lambda reason: re.escape(reason).replace("NAME", "[cv]").replace("VALUE", "[A-Za-z0-9_/]+") + "$"
for reason in DOCUMENTED:
    assert any(re.match(words(reason), was) for was in seen), (reason, seen)
for was in seen:
    assert any(re.match(words(reason), was) for reason in DOCUMENTED), was
"#;
    with_image(&gantry, &image, &(documented + program));
}
