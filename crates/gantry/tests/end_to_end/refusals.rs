//! Bad input: each is refused with AWS's error, and changes nothing.

use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn bad_requests_get_the_errors_of_aws() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "refused", &[]);
    let printed = gantry.python(&format!(
        r#"
import boto3, botocore, json, os, urllib.request
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
IMAGE = "{image}"
ecs = boto3.client("ecs")
endpoint = os.environ["AWS_ENDPOINT_URL"]
good = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
def refused(call, code, *words, **arguments):
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        seen = error.response["Error"]
        assert seen["Code"] == code, (seen, code)
        for word in words:
            assert word in seen["Message"], (seen, word)
    else:
        raise SystemExit("accepted: %r" % (arguments,))
def raw(body, target="AmazonEC2ContainerServiceV20141113.ListClusters", credentials=good, service="ecs", change=None, headers=()):
    request = AWSRequest("POST", endpoint + "/", data=body, headers=dict({{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}}, **dict(headers)))
    SigV4Auth(credentials, service, "us-east-1").add_auth(request)
    prepared = request.prepare()
    sent = urllib.request.Request(prepared.url, data=change or prepared.body, headers=dict(prepared.headers), method="POST")
    try:
        answer = urllib.request.urlopen(sent)
    except urllib.error.HTTPError as error:
        answer = error
    text = answer.read().decode()
    assert answer.headers["x-amzn-RequestId"], dict(answer.headers)
    return answer.status, text

assert raw(b"{{}}")[0] == 200
status, text = raw(b"{{}}", target="AmazonEC2ContainerServiceV20141113.NoSuchThing")
assert status == 400 and "UnknownOperationException" in text, (status, text)
status, text = raw(b"{{}}", target="AmazonEC2ContainerServiceV20141113.CreateCapacityProvider")
assert status >= 400 and "CreateCapacityProvider" in text, (status, text)
status, text = raw(b'{{"cluster": ')
assert status == 400 and "SerializationException" in text, (status, text)
status, text = raw(b'{{"maxResults": "many"}}')
assert status == 400 and "SerializationException" in text, (status, text)
status, text = raw(b'{{"x": "' + b"y" * 10_000_000 + b'"}}')
assert status in (400, 413), (status, text)
# Signatures.
for credentials, service, change, code in [
    (Credentials("AKIAAAAAAAAAAAAAAAAA", "x"), "ecs", None, "UnrecognizedClientException"),
    (Credentials(good.access_key, "wrong"), "ecs", None, "InvalidSignatureException"),
    (good, "sqs", None, "InvalidSignatureException"),
    (good, "ecs", b'{{"maxResults": 1}}', "InvalidSignatureException"),
]:
    status, text = raw(b"{{}}", credentials=credentials, service=service, change=change)
    assert status in (400, 403) and code in text, (status, text, code)

# Names that are not there.
refused(ecs.run_task, "ClusterNotFoundException", "Cluster not found.", cluster="nowhere", taskDefinition="x")
refused(ecs.list_tasks, "ClusterNotFoundException", cluster="nowhere")
assert ecs.describe_clusters(clusters=["nowhere"])["failures"][0]["reason"] == "MISSING"
refused(ecs.run_task, "ClientException", "TaskDefinition not found.", taskDefinition="nothing")
refused(ecs.describe_task_definition, "ClientException", "Unable to describe task definition.", taskDefinition="nothing")
refused(ecs.stop_task, "InvalidParameterException", "not found", task="0" * 32)

# Task definitions.
def define(*containers, code="ClientException", words=(), **more):
    refused(ecs.register_task_definition, code, *words, family="f", containerDefinitions=list(containers), **more)
c = lambda **more: dict(dict(name="c", image=IMAGE, memory=64), **more)
define(c(memory=5), words=["memory"])
define(dict(name="c", image=IMAGE), words=["memory"])
define(c(memoryReservation=128), words=["memory"])
define(c(), c())
define(c(name="bad name!"))
define(c(essential=False), words=["essential"])
define(c(dependsOn=[dict(containerName="c", condition="START")]))
define(c(name="a", dependsOn=[dict(containerName="b", condition="START")]), c(name="b", dependsOn=[dict(containerName="a", condition="START")]), words=["ycl"])
define(c(dependsOn=[dict(containerName="other", condition="START")]))
define(c(mountPoints=[dict(sourceVolume="none", containerPath="/x")]), words=["olume"])
define(c(portMappings=[dict(containerPort=80, hostPort=81)]), networkMode="host", words=["ort"])
define(c(), networkMode="sideways", code="InvalidParameterException", words=["networkMode"])
assert ecs.list_task_definitions()["taskDefinitionArns"] == []

# What does not fit or is not built.
ecs.register_task_definition(family="huge", networkMode="host", containerDefinitions=[c(memory=10_000_000)])
answer = ecs.run_task(taskDefinition="huge")
assert answer["tasks"] == [] and answer["failures"][0]["reason"] == "RESOURCE:MEMORY", answer
ecs.register_task_definition(family="wide", networkMode="host", containerDefinitions=[c(cpu=8192)])
answer = ecs.run_task(taskDefinition="wide")
assert answer["failures"][0]["reason"] == "RESOURCE:CPU", answer
ecs.register_task_definition(family="fine", networkMode="host", containerDefinitions=[c()])
for more in [dict(launchType="FARGATE"), dict(count=11), dict(count=0)]:
    try:
        answer = ecs.run_task(taskDefinition="fine", **more)
        raise SystemExit("accepted: %r %r" % (more, answer))
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] in ("InvalidParameterException", "ClientException", "NotImplementedException"), error
assert ecs.list_tasks()["taskArns"] == [] and ecs.list_tasks(desiredStatus="STOPPED")["taskArns"] == []
print("all true")
"#
    ));
    assert_eq!(printed.trim(), "all true");
}

#[test]
fn an_image_of_another_platform_is_refused_by_name() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "arm", &["--architecture", "arm64"]);
    gantry.python(&format!(
        r#"
import boto3
ecs = boto3.client("ecs")
ecs.register_task_definition(family="arm", networkMode="host", containerDefinitions=[dict(name="c", image="{image}", memory=32)])
arn = ecs.run_task(taskDefinition="arm")["tasks"][0]["taskArn"]
ecs.get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
assert task["stopCode"] == "TaskFailedToStart", task
reason = task["containers"][0]["reason"]
assert reason.startswith("CannotPullContainerError") and "linux/amd64" in reason, reason
"#
    ));
}

#[test]
fn requests_of_foreign_pages_are_refused() {
    let gantry = Installation::up();
    let status = |headers: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        curl.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--noproxy",
            "*",
        ]);
        for header in headers {
            curl.args(["-H", header]);
        }
        let output = curl
            .arg(format!("{}/_gantry/health", gantry.endpoint()))
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(status(&[]), "200");
    assert_eq!(status(&["Host: evil.example"]), "403");
    assert_eq!(status(&["Origin: http://evil.example"]), "403");
    assert_eq!(status(&["Sec-Fetch-Site: cross-site"]), "403");
}

/// What people who come from AWS will try first, with the CLI: each is refused in words that name it.
#[test]
fn what_is_not_built_is_refused_by_its_name_to_the_cli() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "unbuilt", &[]);
    let register = |family: &str, container: serde_json::Value, task: &[&str]| {
        let mut definition =
            serde_json::json!({"name": "c", "image": image, "memory": 32, "command": ["true"]});
        let members = container.as_object().expect("members").clone();
        definition.as_object_mut().expect("members").extend(members);
        let containers = serde_json::json!([definition]).to_string();
        let words = [
            "ecs",
            "register-task-definition",
            "--family",
            family,
            "--container-definitions",
            &containers,
        ];
        gantry.aws(&[&words[..], task].concat());
    };
    let volume = |kind: &str| format!(r#"[{{"name":"v",{kind}}}]"#);
    let efs = volume(r#""efsVolumeConfiguration":{"fileSystemId":"fs-1"}"#);
    let fsx = volume(
        r#""fsxWindowsFileServerVolumeConfiguration":{"fileSystemId":"fs-1","rootDirectory":"/","authorizationConfig":{"credentialsParameter":"arn","domain":"d"}}"#,
    );
    let role = [
        "--execution-role-arn",
        "arn:aws:iam::000000000000:role/ecsTaskExecutionRole",
    ];
    let bare = serde_json::json!({});
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    let mut tasks = Vec::new();
    for (family, name, container, task) in [
        (
            "efs",
            "efsVolumeConfiguration",
            bare.clone(),
            &["--volumes", &efs][..],
        ),
        (
            "fsx",
            "fsxWindowsFileServerVolumeConfiguration",
            bare.clone(),
            &["--volumes", &fsx][..],
        ),
        (
            "firelens",
            "firelensConfiguration",
            json(r#"{"firelensConfiguration":{"type":"fluentbit"}}"#),
            &[][..],
        ),
        (
            "gpu",
            "there are no GPUs",
            json(r#"{"resourceRequirements":[{"type":"GPU","value":"1"}]}"#),
            &[][..],
        ),
        (
            "secrets",
            "'secrets'",
            json(r#"{"secrets":[{"name":"A","valueFrom":"b"}]}"#),
            &role[..],
        ),
    ] {
        register(family, container, task);
        let started = gantry.aws(&["ecs", "run-task", "--task-definition", family]);
        let task = started["tasks"][0]["taskArn"].as_str();
        tasks.push((name, task.unwrap_or_else(|| panic!("{started}")).to_owned()));
    }
    for (name, task) in tasks {
        gantry.aws(&["ecs", "wait", "tasks-stopped", "--tasks", &task]);
        let task = &gantry.aws(&["ecs", "describe-tasks", "--tasks", &task])["tasks"][0];
        assert_eq!(task["stopCode"], "TaskFailedToStart", "{task}");
        let reason = task["stoppedReason"].as_str().expect("a reason");
        assert!(
            reason.contains(name) && reason.contains("not built"),
            "{reason}"
        );
    }

    register("awsvpc", bare, &["--network-mode", "awsvpc"]);
    let network = "awsvpcConfiguration={subnets=[subnet-1]}";
    let words = [
        "ecs",
        "run-task",
        "--task-definition",
        "awsvpc",
        "--network-configuration",
        network,
    ];
    let refused = gantry.aws_refused(&words);
    assert!(refused.contains("awsvpc is not built"), "{refused}");
    let image = ["--repository-name", "unbuilt", "--image-id", "imageTag=1"];
    let refused = gantry.aws_refused(&[&["ecr", "start-image-scan"][..], &image].concat());
    assert!(refused.contains("needs a scanner of images"), "{refused}");
    let refused =
        gantry.aws_refused(&[&["ecr", "describe-image-scan-findings"][..], &image].concat());
    assert!(refused.contains("ScanNotFoundException"), "{refused}");
}
