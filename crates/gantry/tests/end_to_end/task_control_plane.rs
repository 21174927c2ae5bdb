//! The control plane from inside of a task in bridge mode, while Gantry listens on 127.0.0.1 alone.

use std::process::Command;

use crate::bridge::machine;
use crate::image::{push_busybox, run};
use crate::installation::Installation;
use crate::task_endpoints::with_python;

#[test]
fn boto3_in_a_bridge_task_reaches_the_control_plane() {
    machine();
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "calls", &[]);
    with_python(
        &gantry,
        &image,
        r#"
app = role("app")
port = os.environ["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]
task, lines = run([python("""
import base64, boto3, botocore, os, socket, time, urllib.error, urllib.request
assert os.environ["AWS_ENDPOINT_URL"] == "http://169.254.170.2:4566", os.environ
session = boto3.Session()
print(session.get_credentials().method)
print(session.client("sts").get_caller_identity()["Arn"])
# A service with bodies of some size, in both directions.
logs = session.client("logs")
logs.create_log_group(logGroupName="/from/inside")
logs.create_log_stream(logGroupName="/from/inside", logStreamName="s")
text = "x" * 200000
logs.put_log_events(logGroupName="/from/inside", logStreamName="s", logEvents=[dict(timestamp=int(time.time() * 1000), message=text)] * 4)
assert [e["message"] for e in logs.get_log_events(logGroupName="/from/inside", logStreamName="s")["events"]] == [text] * 4
print(session.client("ecs").list_clusters()["clusterArns"][0].split(":")[-1])
# The registry answers here as well, with the token that ECR gives.
token = session.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
registry = urllib.request.Request("http://169.254.170.2:4566/v2/", headers=dict(Authorization="Basic " + token))
print("registry", urllib.request.urlopen(registry).status)
# What is presigned here is good here.
url = session.client("sts").generate_presigned_url("get_caller_identity", HttpMethod="GET")
assert url.startswith("http://169.254.170.2:4566/"), url
print("presigned", urllib.request.urlopen(url).status)
# Coming this way gives no rights: who does not sign, or signs with the wrong key, is refused.
frozen = session.get_credentials().get_frozen_credentials()
forged = boto3.client("sts", aws_access_key_id=frozen.access_key, aws_secret_access_key="wrong", aws_session_token=frozen.token)
for client in [forged, boto3.client("ecs", config=botocore.config.Config(signature_version=botocore.UNSIGNED))]:
    try:
        client.get_caller_identity() if client is forged else client.list_clusters()
        raise SystemExit("answered")
    except botocore.exceptions.ClientError as error:
        print(error.response["ResponseMetadata"]["HTTPStatusCode"])
# Gantry itself listens on the machine's loopback alone.
for address in ["192.0.2.1", "169.254.170.2", "127.0.0.1"]:
    try:
        socket.create_connection((address, PORT), timeout=2)
        raise SystemExit("connected to " + address)
    except OSError:
        pass
""".replace("PORT", port))], volumes=volumes, taskRoleArn=app, network="bridge")
task_id = task["taskArn"].split("/")[-1]
assert len(lines) == 8, lines
check(lines[:3], ["container-role", "arn:aws:sts::000000000000:assumed-role/app/" + task_id, "cluster/default"])
check(lines[3:], ["registry 200", "presigned 200", "403", "400", "end"])
check(boto3.client("logs").describe_log_streams(logGroupName="/from/inside")["logStreams"][0]["logStreamName"], "s")
# What the definition says is not touched; on the host's network it is the endpoint itself.
said = lambda lines: sorted(l for l in lines if l.startswith("AWS_") and "ENDPOINT" in l or "HOST_PREFIX" in l)
task, lines = run([sh("env", environment=[dict(name="AWS_ENDPOINT_URL", value="http://mine")])], network="bridge")
check(said(lines), ["AWS_ENDPOINT_URL=http://mine"])
task, lines = run([sh("env")], network="host")
joined = [l for l in said(lines) if l.startswith("AWS_ENDPOINT_URL=")][0].split("=")[1]
check(joined.rsplit(":", 1)[1], port)
check(said(lines)[0], "AWS_DISABLE_HOST_PREFIX_INJECTION=true")
task, lines = run([sh("env")], network="none")
check(said(lines), [])
"#,
    );
    // The door is there by now, and open to nobody but containers.
    let rules = run(Command::new("nft").args(["list", "ruleset"]));
    let rule = rules
        .lines()
        .find(|line| line.contains("dport 4566"))
        .expect("a rule");
    let listener = rule
        .rsplit("dnat ip to ")
        .next()
        .expect("an address")
        .trim();
    assert!(listener.starts_with("127.0.0.1:"), "{rule}");
    run(Command::new("ip").args([
        "-n",
        "outside",
        "route",
        "add",
        "169.254.170.2",
        "via",
        "192.0.2.1",
    ]));
    let refused = |from: &[&str], authority: &str| {
        let url = format!("http://{authority}/_gantry/health");
        let program = [
            from,
            &["curl", "-sS", "--max-time", "2", "--noproxy", "*", &url],
        ]
        .concat();
        let output = Command::new(program[0])
            .args(&program[1..])
            .output()
            .expect("curl");
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{program:?}: {output:?}"
        );
    };
    let outside = ["ip", "netns", "exec", "outside"];
    refused(&outside, "169.254.170.2:4566");
    refused(&outside, &listener.replace("127.0.0.1", "192.0.2.1"));
    refused(&[], "169.254.170.2:4566");
    // Somebody on this machine finds the listener, and is shown out.
    refused(&[], listener);
}
