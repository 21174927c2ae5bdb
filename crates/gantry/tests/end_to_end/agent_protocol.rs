//! The Amazon ECS agent's double as a member of a real installation, with a node's key: an image of its
//! registry, the credentials of a role, a restart of the control plane in between.

#[path = "../../../services/ecs/tests/acs/amazon_agent/mod.rs"]
mod amazon_agent;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::image::push_busybox;
use crate::installation::{Installation, eventually};
use amazon_agent::{AmazonAgent, Memory, Seen};

const PATIENCE: Duration = Duration::from_secs(60);
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

/// Exchanges a token for a node's key, as any HTTP client can.
fn join(host: &str, token: &str) -> Value {
    let body = json!({"token": token, "nonce": "ab".repeat(32)}).to_string();
    let mut stream = TcpStream::connect(host).expect("the port");
    write!(
        stream,
        "POST /_gantry/join HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.contains(" 200 "), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

fn task(gantry: &Installation, arn: &str) -> Value {
    gantry.aws(&[
        "ecs",
        "describe-tasks",
        "--cluster",
        "amazon",
        "--tasks",
        arn,
    ])["tasks"][0]
        .clone()
}

fn stopped(gantry: &Installation, arn: &str) -> Value {
    eventually(PATIENCE, "the task's end", || {
        let seen = task(gantry, arn);
        if seen["lastStatus"] == "STOPPED" {
            Ok(seen)
        } else {
            Err(seen.to_string())
        }
    })
}

#[test]
fn the_amazon_agent_runs_a_task_from_the_registry_with_a_role() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "amazon", &[]);
    gantry.aws(&["ecs", "create-cluster", "--cluster-name", "amazon"]);
    gantry.aws(&[
        "iam",
        "create-role",
        "--role-name",
        "app",
        "--assume-role-policy-document",
        TRUST,
    ]);
    let define = |family: &str, role: &str| {
        gantry.aws(&[
            "ecs",
            "register-task-definition",
            "--family",
            family,
            "--network-mode",
            "host",
            "--task-role-arn",
            &format!("arn:aws:iam::000000000000:role/{role}"),
            "--container-definitions",
            &format!(r#"[{{"name":"c","image":"{image}","memory":32}}]"#),
        ]);
    };
    define("app", "app");
    define("lost", "missing");
    let run = |gantry: &Installation, family: &str| {
        let answer = gantry.aws(&[
            "ecs",
            "run-task",
            "--cluster",
            "amazon",
            "--task-definition",
            family,
        ]);
        answer["tasks"][0]["taskArn"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    };
    let output = gantry.gantry(&["token", "--cluster", "amazon"]);
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let host = gantry.registry().replace("localhost", "127.0.0.1");
    let key = join(&host, &token);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let word = |name: &str| key[name].as_str().expect("a text").to_owned();
    let agent = |memory: Memory| {
        let mut agent = AmazonAgent::new(
            &host,
            &word("access_key_id"),
            &word("secret_access_key"),
            memory,
        );
        agent.cluster = "amazon".to_owned();
        agent
    };
    let mut first = agent(Memory::default());
    runtime.block_on(async {
        soon(first.register()).await.expect("registered");
        soon(first.connect()).await.expect("connected");
    });
    let arn = run(&gantry, "app");
    runtime.block_on(async {
        soon(first.until(|seen| matches!(seen, Seen::Started(_)))).await;
        assert_eq!(soon(first.report(&arn, None)).await.0, 200);
    });
    assert_eq!(task(&gantry, &arn)["lastStatus"], "RUNNING");

    // What a container would be given at the credentials endpoint is the role.
    let held = first.memory.tasks[&arn].clone();
    let given = &held.credentials["TaskApplication"];
    let text = |name: &str| given[name].as_str().expect("a text").to_owned();
    let who = gantry
        .command("aws")
        .args(["sts", "get-caller-identity", "--output", "json"])
        .env("AWS_ACCESS_KEY_ID", text("accessKeyId"))
        .env("AWS_SECRET_ACCESS_KEY", text("secretAccessKey"))
        .env("AWS_SESSION_TOKEN", text("sessionToken"))
        .output()
        .expect("aws");
    let who = String::from_utf8_lossy(&who.stdout).into_owned();
    assert!(who.contains(":assumed-role/app/"), "{who}");
    let id = text("credentialsId");

    // The image is pulled where the payload says: another API than Amazon's.
    let auth = &held.payload["containers"][0]["registryAuthentication"];
    assert_eq!(auth["type"], "ecr");
    let endpoint = auth["ecrAuthData"]["endpointOverride"]
        .as_str()
        .expect("an endpoint");
    let endpoint = if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("http://{endpoint}")
    };
    let password = gantry
        .command("aws")
        .args([
            "ecr",
            "get-authorization-token",
            "--endpoint-url",
            &endpoint,
            "--output",
            "text",
        ])
        .env("AWS_ACCESS_KEY_ID", word("access_key_id"))
        .env("AWS_SECRET_ACCESS_KEY", word("secret_access_key"))
        .output()
        .expect("aws");
    assert!(
        password.status.success(),
        "{}",
        String::from_utf8_lossy(&password.stderr)
    );

    // The control plane dies and comes back; the agent finds it, with new numbers and the same names.
    let number = first.memory.latest_number;
    gantry.signal_and_wait("KILL");
    runtime.block_on(async { soon(first.until(|seen| *seen == Seen::HungUp)).await });
    gantry.start();
    let mut second = agent(first.memory.clone());
    runtime.block_on(async {
        soon(second.register()).await.expect("registered again");
        assert_eq!(second.instance(), first.instance());
        soon(second.connect()).await.expect("connected again");
        let seen = soon(second.until(|seen| matches!(seen, Seen::Credentials { .. }))).await;
        assert_eq!(
            seen[0],
            Seen::Manifest {
                asked_to_stop: vec![]
            }
        );
    });
    assert!(second.memory.latest_number > number);
    let renewed = &second.memory.tasks[&arn].credentials["TaskApplication"];
    assert_eq!(renewed["credentialsId"], id.as_str());
    assert_ne!(renewed["accessKeyId"], given["accessKeyId"]);
    runtime.block_on(async {
        assert_eq!(soon(second.report(&arn, Some(3))).await.0, 200);
    });
    let end = stopped(&gantry, &arn);
    assert_eq!(end["containers"][0]["exitCode"], 3, "{end}");

    // A role that is not there: the task fails before the agent ever hears of it.
    let lost = run(&gantry, "lost");
    let end = stopped(&gantry, &lost);
    assert_eq!(end["stopCode"], "TaskFailedToStart");
    let reason = end["stoppedReason"].as_str().expect("a reason");
    assert!(
        reason.starts_with(
            "ECS was unable to assume the role 'arn:aws:iam::000000000000:role/missing'"
        ),
        "{reason}"
    );
    assert!(!second.memory.tasks.contains_key(&lost));
}
