//! Agents of one machine in network namespaces of their own: each has its addresses and its host ports.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::agents::{Agent, Agents, token};
use crate::bridge::machine;
use crate::image::{push_busybox, run};
use crate::installation::{Installation, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace that reaches the machine of the test as `ADDRESS.1`, and is `ADDRESS.2` itself.
fn namespace(name: &str, address: &str) {
    run(Command::new("sh").args([
        "-ec",
        &format!(
            "ip netns add {name}
         ip link add to-{name} type veth peer name uplink netns {name}
         ip addr add {address}.1/24 dev to-{name} && ip link set to-{name} up
         ip -n {name} addr add {address}.2/24 dev uplink && ip -n {name} link set uplink up
         ip -n {name} link set lo up && ip -n {name} route add default via {address}.1"
        ),
    ]));
}

/// What the namespace is answered, or the test's own machine.
fn curl(namespace: Option<&str>, url: &str) -> Result<String, String> {
    let net = namespace.map(|name| format!("--net=/run/netns/{name}"));
    let output = Command::new("nsenter")
        .args(net)
        .args([
            "--",
            "curl",
            "-sS",
            "--max-time",
            "2",
            "--noproxy",
            "*",
            url,
        ])
        .output()
        .expect("nsenter");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn agents_in_namespaces_of_their_own_have_their_own_host_ports() {
    machine();
    for (name, address) in [
        ("left", "198.51.100"),
        ("right", "203.0.113"),
        ("other", "192.0.3"),
    ] {
        namespace(name, address);
    }
    let networks = ["--plain-http-from", "198.51.100.0/24,203.0.113.0/24"];
    let gantry = Installation::up_at("192.0.2.1", &networks);
    let health = format!("{}/_gantry/health", gantry.endpoint());
    for (name, let_in) in [("left", true), ("right", true), ("other", false)] {
        let said = curl(Some(name), &health).expect("an answer");
        assert_eq!(said.contains("serving"), let_in, "{name}: {said}");
        assert_eq!(
            said.contains("--plain-http-from"),
            !let_in,
            "{name}: {said}"
        );
    }

    let image = push_busybox(&gantry, "fleet", &[]);
    gantry.aws(&["ecs", "create-cluster", "--cluster-name", "fleet"]);
    // What it serves is the addresses that it sees.
    let serve = "mkdir -p /www; ip -o -4 addr > /www/index.html; exec /bin/busybox httpd -f -p 8080 -h /www";
    gantry.aws(&[
        "ecs", "register-task-definition", "--family", "web", "--network-mode", "host",
        "--container-definitions",
        &format!(
            r#"[{{"name":"c","image":"{image}","memory":32,"command":["sh","-c","{serve}"],"stopTimeout":2,"portMappings":[{{"containerPort":8080}}]}}]"#
        ),
    ]);
    let two = token(&gantry, &["--cluster", "fleet", "--uses", "2"]);
    let agents = Agents::new();
    let mut all: Vec<Agent> = ["left", "right"]
        .iter()
        .map(|name| {
            let mut agent = agents.agent(&gantry, name);
            agent.namespace = Some(*name);
            agent.start(Some(&two));
            agent
        })
        .collect();
    let instances: Vec<String> = all.iter().map(Agent::container_instance).collect();
    let mut words = vec![
        "ecs",
        "start-task",
        "--cluster",
        "fleet",
        "--task-definition",
        "web",
    ];
    words.push("--container-instances");
    words.extend(instances.iter().map(String::as_str));
    // The agents are connected a moment after they are registered.
    eventually(PATIENCE, "both tasks to be placed", || {
        let ready = gantry.aws(&[
            "ecs",
            "list-container-instances",
            "--cluster",
            "fleet",
            "--filter",
            "agentConnected == true",
        ]);
        match ready["containerInstanceArns"].as_array().map(Vec::len) {
            Some(2) => Ok(()),
            _ => Err(ready.to_string()),
        }
    });
    let answer = gantry.aws(&words);
    assert_eq!(answer["failures"], Value::Array(Vec::new()), "{answer}");
    // One host port, on two container instances of one machine.
    for address in ["198.51.100.2", "203.0.113.2"] {
        let page = eventually(PATIENCE, "the task's own page", || {
            curl(None, &format!("http://{address}:8080/"))
        });
        assert!(page.contains(address), "{page}");
    }
    for agent in &mut all {
        agent.signal_and_wait("INT");
        agent.down();
    }
}
