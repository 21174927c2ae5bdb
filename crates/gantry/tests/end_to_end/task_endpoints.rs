//! What a task can ask about itself: its role's credentials, its metadata and stats; and what its agent
//! tells of it. Asked by boto3 and Python inside of tasks, with the interpreter of this machine.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::machine;
use crate::containers::with_image;
use crate::image::{push_busybox, run};
use crate::installation::{Installation, eventually};

/// Roles, and containers that run Python: the interpreter's folders are mounted from the host.
const PYTHON: &str = r#"
import json, os, sys
def role(name):
    trust = json.dumps(dict(Version="2012-10-17", Statement=[dict(Effect="Allow", Principal=dict(Service="ecs-tasks.amazonaws.com"), Action="sts:AssumeRole")]))
    return boto3.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
folders = {}
# Each once: where Python is Debian's own, its folder is `/usr`.
for folder in sorted({"/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(boto3.__file__))}):
    if os.path.isdir(folder) and not folder.startswith("/usr/"):
        folders["v%d" % len(folders)] = (os.path.realpath(folder), folder)
# A folder within another one that is mounted is there already.
folders = {n: (s, t) for n, (s, t) in folders.items() if not any(t != o and t.startswith(o + "/") for _, o in folders.values())}
volumes = [dict(name=n, host=dict(sourcePath=s)) for n, (s, _) in folders.items()]
def python(program, **more):
    env = dict(PYTHONPATH=os.path.dirname(os.path.dirname(boto3.__file__)), PYTHONDONTWRITEBYTECODE="1", AWS_EC2_METADATA_DISABLED="true", AWS_DEFAULT_REGION="us-east-1", PATIENCE=str(PATIENCE))
    env.update(more.pop("env", {}))
    return dict(dict(name="c", memory=256, command=["sh", "-c", 'exec "$0" -c "$1"', sys.executable, program + "\nprint('end') # echo end"],
        environment=[dict(name=n, value=v) for n, v in env.items()],
        mountPoints=[dict(sourceVolume=n, containerPath=t, readOnly=True) for n, (_, t) in folders.items()]), **more)
"#;

pub fn with_python(gantry: &Installation, image: &str, program: &str) {
    with_image(gantry, image, &format!("{PYTHON}\n{program}"));
}

#[test]
fn boto3_in_a_task_on_the_hosts_network_finds_its_role() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "role", &[]);
    with_python(
        &gantry,
        &image,
        r#"
app = role("app")
task, lines = run([python("""
import boto3, os
session = boto3.Session()
print(session.get_credentials().method)
print(session.client("sts").get_caller_identity()["Arn"])
assert os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"].startswith("http://127.0.0.1:"), os.environ
assert "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" not in os.environ
# An id that is not there, and one that is another's: nobody gets anything.
import urllib.request, json
base, _ = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"].rsplit("/", 1)
try:
    urllib.request.urlopen(base + "/" + "0" * 32)
    raise SystemExit("answered")
except urllib.error.HTTPError as error:
    assert error.code == 400 and json.load(error)["code"] == "InvalidIdInRequest", error
""", env=dict(AWS_ENDPOINT_URL=os.environ["AWS_ENDPOINT_URL"]))], volumes=volumes, taskRoleArn=app)
task_id = task["taskArn"].split("/")[-1]
check(lines, ["container-role", "arn:aws:sts::000000000000:assumed-role/app/" + task_id, "end"])
# Without a role there are no credentials, and without a network nothing at all.
task, lines = run([sh("env")], network="host")
assert not [l for l in lines if "CREDENTIALS" in l], lines
assert [l for l in lines if l.startswith("ECS_CONTAINER_METADATA_URI_V4=http://127.0.0.1:")], lines
task, lines = run([sh("env")], network="none", taskRoleArn=app)
assert not [l for l in lines if "CREDENTIALS" in l or "ECS_CONTAINER" in l or "ECS_AGENT" in l], lines
"#,
    );
}

#[test]
fn a_bridge_task_finds_its_role_its_metadata_and_its_stats() {
    machine();
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "bridged", &[]);
    with_python(
        &gantry,
        &image,
        r#"
app = role("app")
shared = dict(name="shared", host=dict(sourcePath=os.environ["AWS_CONFIG_FILE"] + "-shared"))
os.makedirs(shared["host"]["sourcePath"])
at_shared = dict(sourceVolume="shared", containerPath="/shared")
first = python("""
import boto3, json, os, time, urllib.request, urllib.error
def get(url, method="GET"):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
            assert answer.headers["Content-Type"] == "application/json", answer.headers
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
v4, v3 = os.environ["ECS_CONTAINER_METADATA_URI_V4"], os.environ["ECS_CONTAINER_METADATA_URI"]
assert v4.startswith("http://169.254.170.2/v4/") and v3.startswith("http://169.254.170.2/v3/"), (v4, v3)
# What the task asks for is also what its role's credentials say.
credentials = boto3.Session().get_credentials()
print(json.dumps([credentials.method, credentials.access_key, credentials.secret_key, credentials.token]))
deadline = time.time() + 10 * int(os.environ["PATIENCE"])
while True:
    status, own = get(v4)
    assert status == 200, own
    if own["KnownStatus"] == "RUNNING": break
    assert time.time() < deadline, own
print(json.dumps(own))
print(json.dumps(get(v4 + "/task")[1]))
print(json.dumps(get(v4 + "/taskWithTags")[1]))
print(json.dumps(get(v3)[1]))
burn = sum(i * i for i in range(300000))
print(json.dumps(get(v4 + "/stats")[1]))
print(json.dumps(get(v4 + "/stats")[1]))
print(json.dumps(get(v4 + "/task/stats")[1]))
print(json.dumps(get(os.environ["ECS_AGENT_URI"] + "/task-protection/v1/state", "PUT")))
assert get(v4 + "/nothing")[0] == 404 and get("http://169.254.170.2/")[0] == 404
assert get(v4, "POST")[0] == 405
time.sleep(2)
from concurrent.futures import ThreadPoolExecutor
began = time.monotonic()
with ThreadPoolExecutor(16) as threads: statuses = list(threads.map(lambda _: get(v4)[0], range(600)))
allowed, passed = statuses.count(200), time.monotonic() - began
# Whoever asks faster than that is refused; an emulated machine does not get to ask so fast.
assert 60 <= allowed <= 61 + 40 * passed and statuses.count(429) == 600 - allowed, (allowed, passed, set(statuses))
time.sleep(1)
assert get(v4)[0] == 200
# For the task that comes next, while this one still runs.
with open("/shared/new", "w") as file: json.dump(dict(os.environ), file)
os.rename("/shared/new", "/shared/environment")
while not os.path.exists("/shared/done"): time.sleep(0.05)
""", portMappings=[dict(containerPort=80)], dockerLabels=dict(mine="1"), healthCheck=dict(command=["CMD", "true"]), cpu=64)
first["mountPoints"].append(at_shared)
second = python("""
import json, os, time, urllib.request, urllib.error
while not os.path.exists("/shared/environment"): time.sleep(0.05)
try:
    theirs = json.load(open("/shared/environment"))
    for url in [theirs["ECS_CONTAINER_METADATA_URI_V4"], theirs["ECS_CONTAINER_METADATA_URI"] + "/task/stats", theirs["ECS_AGENT_URI"] + "/task-protection/v1/state",
                "http://169.254.170.2" + theirs["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]]:
        try:
            urllib.request.urlopen(url)
            raise SystemExit("another task's " + url)
        except urllib.error.HTTPError as error:
            assert error.code in (400, 404), (url, error)
finally:
    open("/shared/done", "w")
""")
second["mountPoints"].append(at_shared)
ecs.register_task_definition(family="second", networkMode="bridge", containerDefinitions=[dict(second, image=IMAGE)], volumes=volumes + [shared])
other = ecs.run_task(taskDefinition="second")["tasks"][0]["taskArn"]
task, lines = run([first, dict(name="side", essential=False, command=["sleep", "1000"], stopTimeout=1)], network="bridge", volumes=volumes + [shared], taskRoleArn=app,
    tags=[dict(key="of", value="definition")])
assert lines[-1] == "end" and len(lines) == 10, lines
credentials, own, whole, tagged, old, stats, again, all_stats, protection = map(json.loads, lines[:-1])
ecs.get_waiter("tasks_stopped").wait(tasks=[other], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
check(ecs.describe_tasks(tasks=[other])["tasks"][0]["containers"][0]["exitCode"], 0)
arn, task_id = task["taskArn"], task["taskArn"].split("/")[-1]
method, key, secret, token = credentials
check(method, "container-role")
identity = boto3.client("sts", aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token).get_caller_identity()
check(identity["Arn"], "arn:aws:sts::000000000000:assumed-role/app/" + task_id)
described = {c["name"]: c for c in task["containers"]}["c"]
check((own["Name"], own["DockerId"], own["ContainerARN"], own["Image"], own["ImageID"]), ("c", described["runtimeId"], described["containerArn"], IMAGE, described["imageDigest"]))
check((own["DesiredStatus"], own["Type"], own["Limits"], own["LogDriver"]), ("RUNNING", "NORMAL", dict(CPU=64, Memory=256), "awslogs"))
check((own["Labels"]["mine"], own["Labels"]["com.amazonaws.ecs.task-arn"], own["Labels"]["com.amazonaws.ecs.cluster"]), ("1", arn, "default"))
port = described["networkBindings"][0]["hostPort"]
check(own["Ports"], [dict(ContainerPort=80, Protocol="tcp", HostPort=port, HostIp="0.0.0.0")])
check(own["Networks"][0]["NetworkMode"], "bridge")
assert own["Networks"][0]["IPv4Addresses"][0].count(".") == 3, own
assert own["CreatedAt"] <= own["StartedAt"], own
assert own["Health"]["status"] in ("UNKNOWN", "HEALTHY"), own
assert dict(Source=shared["host"]["sourcePath"], Destination="/shared") in own["Volumes"], own
check((whole["Cluster"], whole["TaskARN"], whole["Family"], whole["Revision"], whole["LaunchType"]), ("default", arn, "t0", "1", "EC2"))
assert whole["AvailabilityZone"].startswith("us-east-1"), whole
assert whole["PullStartedAt"] <= whole["PullStoppedAt"], whole
check(sorted(c["Name"] for c in whole["Containers"]), ["c", "side"])
check(tagged.get("Errors"), None)
assert "TaskTags" in tagged and "ContainerInstanceTags" in tagged, tagged
assert "ContainerARN" not in old and old["DockerId"] == own["DockerId"], old
# The numbers are the kernel's: processor time and traffic grow, and memory is within its limit.
assert again["cpu_stats"]["cpu_usage"]["total_usage"] >= stats["cpu_stats"]["cpu_usage"]["total_usage"] > 10_000_000, stats
check(again["precpu_stats"]["cpu_usage"]["total_usage"], stats["cpu_stats"]["cpu_usage"]["total_usage"])
assert 1 << 20 < stats["memory_stats"]["usage"] <= stats["memory_stats"]["limit"] == 256 << 20, stats
assert again["networks"]["eth0"]["rx_bytes"] > stats["networks"]["eth0"]["rx_bytes"] > 0, stats
assert stats["pids_stats"]["current"] >= 1 and stats["cpu_stats"]["online_cpus"] >= 1, stats
check(sorted(all_stats), sorted(c["runtimeId"] for c in task["containers"]))
check((protection[0], protection[1]["error"]["Arn"]), (501, arn))
assert "not built" in protection[1]["error"]["Message"], protection
"#,
    );
}

/// Runs a task on the host's network and gives its ARN and what a container of it has in its environment.
fn host_task(gantry: &Installation, image: &str) -> (String, Vec<(String, String)>) {
    let folder = gantry.scratch("told");
    std::fs::create_dir_all(&folder).expect("a folder");
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"}}]});
    let role = gantry.aws(&[
        "iam",
        "create-role",
        "--role-name",
        "kept",
        "--assume-role-policy-document",
        &trust.to_string(),
    ]);
    let containers = json!([{
        "name": "c", "image": image, "memory": 32, "stopTimeout": 1,
        "command": ["sh", "-c", "env > /told/new; /bin/busybox mv /told/new /told/env; exec sleep 1000"],
        "mountPoints": [{"sourceVolume": "told", "containerPath": "/told"}],
    }]);
    let volumes = json!([{"name": "told", "host": {"sourcePath": folder}}]);
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "kept",
        "--network-mode",
        "host",
        "--task-role-arn",
        role["Role"]["Arn"].as_str().expect("an ARN"),
        "--container-definitions",
        &containers.to_string(),
        "--volumes",
        &volumes.to_string(),
    ]);
    let started = gantry.aws(&["ecs", "run-task", "--task-definition", "kept"]);
    let arn = started["tasks"][0]["taskArn"].as_str().expect("an ARN");
    let told = eventually(Duration::from_secs(60), "the container runs", || {
        std::fs::read_to_string(folder.join("env")).map_err(|error| error.to_string())
    });
    let told = told
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    (arn.to_owned(), told)
}

fn curl(url: &str) -> Result<Value, String> {
    let output = Command::new("curl")
        .args(["-fsS", "--max-time", "5", "--noproxy", "*", url])
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

#[test]
fn the_endpoints_of_a_task_outlive_its_agent() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "kept", &[]);
    let (arn, told) = host_task(&gantry, &image);
    let value = |name: &str| {
        let found = told.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("{name}")).1.clone()
    };
    let (metadata, credentials) = (
        value("ECS_CONTAINER_METADATA_URI_V4"),
        value("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    );
    let before = curl(&metadata).expect("metadata");
    let first = curl(&credentials).expect("credentials");
    gantry.signal_and_wait("KILL");
    assert!(curl(&metadata).is_err(), "nobody answers now");
    gantry.start();
    let after = eventually(Duration::from_secs(30), "the same address", || {
        curl(&metadata)
    });
    assert_eq!(after["CreatedAt"], before["CreatedAt"]);
    assert_eq!(after["DockerId"], before["DockerId"]);
    // Credentials are never on the agent's disk: they come again from the control plane.
    let again = eventually(Duration::from_secs(30), "the credentials again", || {
        curl(&credentials)
    });
    assert_eq!(again["RoleArn"], first["RoleArn"]);
    let identity = run(gantry
        .command("aws")
        .args(["sts", "get-caller-identity", "--output", "json"])
        .env("AWS_ACCESS_KEY_ID", text(&again["AccessKeyId"]))
        .env("AWS_SECRET_ACCESS_KEY", text(&again["SecretAccessKey"]))
        .env("AWS_SESSION_TOKEN", text(&again["Token"])));
    assert!(identity.contains(":assumed-role/kept/"), "{identity}");
    // What is over has no address any more.
    gantry.aws(&["ecs", "stop-task", "--task", &arn]);
    eventually(Duration::from_secs(60), "the address is gone", || {
        match (curl(&metadata), curl(&credentials)) {
            (Err(_), Err(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn describe_tasks_tells_what_a_health_check_finds() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "checked", &[]);
    let folder = gantry.scratch("well");
    std::fs::create_dir_all(&folder).expect("a folder");
    let containers = json!([
        {"name": "web", "image": image, "memory": 32, "stopTimeout": 1, "command": ["sleep", "1000"],
         "healthCheck": {"command": ["CMD-SHELL", "test -e /well/file"], "interval": 5, "timeout": 2, "retries": 1},
         "mountPoints": [{"sourceVolume": "well", "containerPath": "/well"}]},
        {"name": "plain", "image": image, "memory": 32, "stopTimeout": 1, "command": ["sleep", "1000"]},
    ]);
    let volumes = json!([{"name": "well", "host": {"sourcePath": folder}}]);
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "checked",
        "--network-mode",
        "none",
        "--container-definitions",
        &containers.to_string(),
        "--volumes",
        &volumes.to_string(),
    ]);
    std::fs::write(folder.join("file"), "").expect("a file");
    let started = gantry.aws(&["ecs", "run-task", "--task-definition", "checked"]);
    let arn = text(&started["tasks"][0]["taskArn"]).to_owned();
    assert_eq!(started["tasks"][0]["healthStatus"], "UNKNOWN");
    health_becomes(&gantry, &arn, "HEALTHY");
    std::fs::remove_file(folder.join("file")).expect("the file");
    health_becomes(&gantry, &arn, "UNHEALTHY");
    // The next agent tells it as well.
    gantry.signal_and_wait("KILL");
    std::fs::write(folder.join("file"), "").expect("a file");
    gantry.start();
    health_becomes(&gantry, &arn, "HEALTHY");
    let instances = gantry.aws(&["ecs", "list-container-instances"]);
    eventually(Duration::from_secs(30), "the instance is well", || {
        let described = gantry.aws(&[
            "ecs",
            "describe-container-instances",
            "--include",
            "CONTAINER_INSTANCE_HEALTH",
            "--container-instances",
            text(&instances["containerInstanceArns"][0]),
        ]);
        let health = &described["containerInstances"][0]["healthStatus"];
        if health["overallStatus"] == "OK" && health["details"][0]["type"] == "CONTAINER_RUNTIME" {
            Ok(())
        } else {
            Err(health.to_string())
        }
    });
}

fn health_becomes(gantry: &Installation, arn: &str, wanted: &str) {
    eventually(Duration::from_secs(30), wanted, || {
        let task = &gantry.aws(&["ecs", "describe-tasks", "--tasks", arn])["tasks"][0];
        let containers = task["containers"].as_array().expect("containers");
        let of = |name: &str| {
            let found = containers
                .iter()
                .find(|container| container["name"] == name);
            found.expect("the container")["healthStatus"].clone()
        };
        if task["healthStatus"] == wanted && of("web") == wanted && of("plain") == "UNKNOWN" {
            Ok(())
        } else {
            Err(task.to_string())
        }
    });
}
