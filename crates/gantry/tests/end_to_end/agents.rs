//! Several container instances on one machine: agents that join with a token, each in a data directory of
//! its own; killed and back, drained, refused what is not theirs, and gone without a trace.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::image::push_busybox;
use crate::installation::{GANTRY, Installation, eventually, guard, send_signal};

const PATIENCE: Duration = Duration::from_secs(60);

/// The agents of one test and their folder, cleaned up even when the test is killed.
pub struct Agents {
    folder: tempfile::TempDir,
    guard: Child,
}

impl Agents {
    pub fn new() -> Agents {
        let folder = tempfile::Builder::new()
            .prefix("gantry-agents-")
            .tempdir()
            .expect("a temporary folder");
        let guard = guard(folder.path());
        Agents { folder, guard }
    }

    pub fn agent(&self, gantry: &Installation, name: &str) -> Agent {
        Agent {
            data_dir: self.folder.path().join(name),
            log: self.folder.path().join(format!("{name}.log")),
            endpoint: gantry.endpoint(),
            name: name.to_owned(),
            attributes: String::new(),
            external: false,
            namespace: None,
            process: None,
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

pub struct Agent {
    pub name: String,
    /// Attributes besides those that every agent here has.
    pub attributes: String,
    pub external: bool,
    /// The network namespace that it runs in, if it is not the test's own.
    pub namespace: Option<&'static str>,
    data_dir: PathBuf,
    log: PathBuf,
    endpoint: String,
    process: Option<Child>,
}

impl Agent {
    fn command(&self, token: Option<&str>) -> Command {
        let mut command = match self.namespace {
            Some(name) => {
                // Not `ip netns exec`, which covers the cgroups with a /sys of its own.
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg(GANTRY);
                command
            }
            None => Command::new(GANTRY),
        };
        command
            .args(["agent", "--endpoint", &self.endpoint, "--cpu", "1024"])
            .args(["--memory", "512", "--attributes"])
            .arg(format!("rack={},kind=test{}", self.name, self.attributes))
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null());
        if self.external {
            command.arg("--external");
        }
        if let Some(token) = token {
            command.args(["--token", token]);
        }
        command
    }

    pub fn start(&mut self, token: Option<&str>) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file");
        let mut child = self
            .command(token)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("gantry agent");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout"))
            .read_line(&mut line)
            .expect("the first line");
        assert!(
            line.starts_with("Gantry agent: node "),
            "{line:?}; its log:\n{}",
            std::fs::read_to_string(&self.log).unwrap_or_default()
        );
        self.process = Some(child);
    }

    pub fn signal_and_wait(&mut self, signal: &str) {
        let mut child = self.process.take().expect("it runs");
        send_signal(child.id(), signal);
        child.wait().expect("its end");
    }

    pub fn down(&self) -> String {
        let output = Command::new(GANTRY)
            .arg("down")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .output()
            .expect("gantry down");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }

    fn installation_id(&self) -> String {
        let file = std::fs::read(self.data_dir.join("installation.json")).expect("its name");
        let value: Value = serde_json::from_slice(&file).expect("JSON");
        value["installation_id"].as_str().expect("an id").to_owned()
    }

    /// The container instance that this agent is.
    pub fn container_instance(&self) -> String {
        let file = self.data_dir.join("node/agent/container-instance.json");
        eventually(PATIENCE, "a registration", || {
            let bytes = std::fs::read(&file).map_err(|error| error.to_string())?;
            let value: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
            Ok(value["container_instance_arn"]
                .as_str()
                .expect("an ARN")
                .to_owned())
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("the log of {}:\n{log}", self.name);
        }
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn token(gantry: &Installation, words: &[&str]) -> String {
    let mut all = vec!["token"];
    all.extend(words);
    let output = gantry.gantry(&all);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn instance(gantry: &Installation, arn: &str) -> Value {
    gantry.aws(&[
        "ecs",
        "describe-container-instances",
        "--cluster",
        "fleet",
        "--container-instances",
        arn,
    ])["containerInstances"][0]
        .clone()
}

pub fn connected(gantry: &Installation, arn: &str, wanted: bool) {
    eventually(PATIENCE, "whether the agent is connected", || {
        let seen = instance(gantry, arn)["agentConnected"].clone();
        if seen == wanted {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
}

fn run_tasks(gantry: &Installation, count: &str) -> Vec<String> {
    let answer = gantry.aws(&[
        "ecs",
        "run-task",
        "--cluster",
        "fleet",
        "--task-definition",
        "long",
        "--count",
        count,
        "--placement-strategy",
        "type=spread,field=instanceId",
    ]);
    assert_eq!(answer["failures"], Value::Array(Vec::new()), "{answer}");
    let tasks = answer["tasks"].as_array().expect("tasks");
    tasks
        .iter()
        .map(|task| task["taskArn"].as_str().expect("an ARN").to_owned())
        .collect()
}

fn described(gantry: &Installation, arn: &str) -> Value {
    gantry.aws(&[
        "ecs",
        "describe-tasks",
        "--cluster",
        "fleet",
        "--tasks",
        arn,
    ])["tasks"][0]
        .clone()
}

pub fn reaches(gantry: &Installation, arn: &str, status: &str) -> Value {
    eventually(PATIENCE, status, || {
        let task = described(gantry, arn);
        if task["lastStatus"] == status {
            Ok(task)
        } else {
            Err(task.to_string())
        }
    })
}

/// How many processes are in the cgroups of this installation.
fn processes_of(installation: &str) -> usize {
    let cgroup = format!("gantry-{installation}/");
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("cgroup"))
                .is_ok_and(|cgroups| cgroups.contains(&cgroup))
        })
        .count()
}

#[test]
fn three_agents_on_one_machine_share_a_cluster() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "fleet", &[]);
    gantry.aws(&["ecs", "create-cluster", "--cluster-name", "fleet"]);
    gantry.aws(&[
        "ecs", "register-task-definition", "--family", "long", "--network-mode", "host",
        "--container-definitions",
        &format!(r#"[{{"name":"c","image":"{image}","memory":32,"command":["sleep","600"],"stopTimeout":2}}]"#),
    ]);
    let three = token(&gantry, &["--cluster", "fleet", "--uses", "3"]);
    let agents = Agents::new();
    let mut all: Vec<Agent> = ["one", "two", "three"]
        .iter()
        .map(|name| agents.agent(&gantry, name))
        .collect();
    for agent in &mut all {
        agent.start(Some(&three));
    }
    let instances: Vec<String> = all.iter().map(Agent::container_instance).collect();
    for (agent, arn) in all.iter().zip(&instances) {
        connected(&gantry, arn, true);
        let seen = instance(&gantry, arn);
        let attributes = seen["attributes"].as_array().expect("attributes");
        let rack = attributes
            .iter()
            .find(|a| a["name"] == "rack")
            .expect("rack");
        assert_eq!(rack["value"], agent.name.as_str());
        let cpu = seen["registeredResources"].as_array().expect("resources");
        let cpu = cpu.iter().find(|r| r["name"] == "CPU").expect("CPU");
        assert_eq!(cpu["integerValue"], 1024);
    }
    // The token is used up, and says so.
    let refused = agents.agent(&gantry, "four").command(Some(&three)).output();
    let refused = said(&refused.expect("gantry agent"));
    assert!(refused.contains("as many nodes have joined"), "{refused}");

    // Spread: two tasks on each.
    let tasks = run_tasks(&gantry, "6");
    for task in &tasks {
        reaches(&gantry, task, "RUNNING");
    }
    let on = |arn: &str| -> Vec<String> {
        let on_it = |task: &&String| described(&gantry, task)["containerInstanceArn"] == *arn;
        tasks.iter().filter(on_it).cloned().collect()
    };
    for arn in &instances {
        assert_eq!(on(arn).len(), 2);
    }

    // One is killed and comes back as the same, with its tasks as they were.
    let its_tasks = on(&instances[0]);
    let before = described(&gantry, &its_tasks[0]);
    all[0].signal_and_wait("KILL");
    connected(&gantry, &instances[0], false);
    assert_eq!(described(&gantry, &its_tasks[0])["lastStatus"], "RUNNING");
    all[0].start(None);
    connected(&gantry, &instances[0], true);
    assert_eq!(all[0].container_instance(), instances[0]);
    let after = described(&gantry, &its_tasks[0]);
    assert_eq!(
        after["containers"][0]["runtimeId"],
        before["containers"][0]["runtimeId"]
    );
    gantry.aws(&[
        "ecs",
        "stop-task",
        "--cluster",
        "fleet",
        "--task",
        &its_tasks[0],
    ]);
    reaches(&gantry, &its_tasks[0], "STOPPED");
    assert_eq!(described(&gantry, &its_tasks[1])["lastStatus"], "RUNNING");

    // One is drained: nothing new comes to it, and a standalone task stays.
    gantry.aws(&[
        "ecs",
        "update-container-instances-state",
        "--cluster",
        "fleet",
        "--status",
        "DRAINING",
        "--container-instances",
        &instances[1],
    ]);
    for task in run_tasks(&gantry, "4") {
        let there = described(&gantry, &task)["containerInstanceArn"].clone();
        assert_ne!(there, instances[1].as_str());
        reaches(&gantry, &task, "RUNNING");
    }
    for task in on(&instances[1]) {
        assert_eq!(described(&gantry, &task)["lastStatus"], "RUNNING");
    }

    // `down` for each leaves nothing of it, whether its agent lives or not.
    all[2].signal_and_wait("KILL");
    for agent in &mut all {
        let installation = agent.installation_id();
        assert!(processes_of(&installation) > 0, "{} runs tasks", agent.name);
        let said = agent.down();
        assert!(said.contains("removed"), "{said}");
        assert_eq!(processes_of(&installation), 0, "{said}");
        if let Some(mut child) = agent.process.take() {
            child.wait().expect("its end");
        }
    }
    for arn in &instances {
        connected(&gantry, arn, false);
    }
}

#[test]
fn a_nodes_key_does_what_an_agent_must_and_is_revoked_with_its_token() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "nodes", &[]);
    let agents = Agents::new();
    // A token is for a cluster that is there, and for a while.
    let output = gantry.gantry(&["token", "--cluster", "nowhere"]);
    assert!(
        said(&output).contains("there is no cluster nowhere"),
        "{}",
        said(&output)
    );
    let none = agents.agent(&gantry, "none").command(None).output();
    let none = said(&none.expect("gantry agent"));
    assert!(none.contains("make a token with `gantry token`"), "{none}");
    let forged = agents
        .agent(&gantry, "forged")
        .command(Some("gj1.e30.AAAA"))
        .output();
    let forged = said(&forged.expect("gantry agent"));
    assert!(
        forged.contains("not one of this installation's"),
        "{forged}"
    );

    let join = token(&gantry, &["--expires", "30m"]);
    let mut agent = agents.agent(&gantry, "one");
    agent.start(Some(&join));
    agent.container_instance();
    let key: Value = serde_json::from_slice(
        &std::fs::read(agent.data_dir.join("node-credentials")).expect("its key"),
    )
    .expect("JSON");
    let as_node = |words: &[&str]| {
        gantry
            .command("aws")
            .args(words)
            .env(
                "AWS_ACCESS_KEY_ID",
                key["key"]["access_key_id"].as_str().expect("id"),
            )
            .env(
                "AWS_SECRET_ACCESS_KEY",
                key["key"]["secret_access_key"].as_str().expect("secret"),
            )
            .output()
            .expect("aws")
    };
    for words in [
        &["ecs", "list-clusters"][..],
        &["ecs", "run-task", "--task-definition", "x"],
        &["ecr", "create-repository", "--repository-name", "mine"],
        &["logs", "describe-log-groups"],
    ] {
        let refused = said(&as_node(words));
        assert!(
            refused.contains("AccessDeniedException"),
            "{words:?}: {refused}"
        );
    }
    for words in [
        &["iam", "list-roles"][..],
        &[
            "sts",
            "assume-role",
            "--role-arn",
            "arn:aws:iam::000000000000:role/x",
            "--role-session-name",
            "xx",
        ],
    ] {
        let refused = said(&as_node(words));
        assert!(refused.contains("AccessDenied"), "{words:?}: {refused}");
    }
    let who = as_node(&["sts", "get-caller-identity"]);
    let who = String::from_utf8_lossy(&who.stdout).into_owned();
    assert!(
        who.contains("assumed-role/AWSServiceRoleForGantryNode/"),
        "{who}"
    );
    // It pulls images and pushes none.
    let password = as_node(&["ecr", "get-login-password"]);
    let password = String::from_utf8_lossy(&password.stdout).trim().to_owned();
    let (registry, path) = image.split_once('/').expect("registry/name");
    let (name, tag) = path.split_once(':').expect("name:tag");
    let pull = gantry.python(&asking(
        registry,
        &format!("GET /v2/{name}/manifests/{tag}"),
        &password,
    ));
    assert_eq!(pull.trim(), "200");
    let push = gantry.python(&asking(
        registry,
        &format!("POST /v2/{name}/blobs/uploads/"),
        &password,
    ));
    assert_eq!(push.trim(), "403");
    let catalog = gantry.python(&asking(registry, "GET /v2/_catalog", &password));
    assert_eq!(catalog.trim(), "403");

    // Revoked: nobody joins, and with --nodes who joined is out as well.
    let list = token(&gantry, &["list"]);
    let id = list.split_whitespace().next().expect("an id").to_owned();
    assert!(list.contains("used 1 of 1"), "{list}");
    let revoked = token(&gantry, &["revoke", &id, "--nodes"]);
    assert!(revoked.contains("1 node"), "{revoked}");
    assert!(token(&gantry, &["list"]).contains("revoked"));
    let refused = said(&as_node(&["ecs", "discover-poll-endpoint"]));
    assert!(refused.contains("UnrecognizedClientException"), "{refused}");
    agent.signal_and_wait("TERM");
    let refused = agent.command(None).output().expect("gantry agent");
    assert!(said(&refused).contains("was revoked"), "{}", said(&refused));
    agent.down();
}

fn asking(registry: &str, request: &str, password: &str) -> String {
    let (method, path) = request.split_once(' ').expect("method and path");
    format!(
        r#"
import base64, urllib.request, urllib.error
request = urllib.request.Request("http://{registry}{path}", method="{method}")
request.add_header("Authorization", "Basic " + base64.b64encode(b"AWS:{password}").decode())
request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
"#
    )
}

/// A small file system over a folder, gone with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn over(folder: &Path, size: &str) -> Mounted {
        let kept = folder.with_extension("kept");
        std::fs::rename(folder, &kept).expect("moved away");
        std::fs::create_dir(folder).expect("a folder");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "gantry-test"])
            .arg(folder)
            .status()
            .expect("mount");
        assert!(status.success());
        let status = Command::new("cp")
            .arg("-a")
            .arg(format!("{}/.", kept.display()))
            .arg(folder)
            .status()
            .expect("cp");
        assert!(status.success());
        Mounted(folder.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn agent_health(gantry: &Installation) -> Value {
    let text = gantry.python(&format!(
        "import urllib.request; print(urllib.request.urlopen('{}/_gantry/health').read().decode())",
        gantry.endpoint()
    ));
    let health: Value = serde_json::from_str(&text).expect("JSON");
    health["agent"].clone()
}

#[test]
fn an_agent_that_fails_is_started_again_and_health_tells_of_it() {
    let mut gantry = Installation::up();
    let image = push_busybox(&gantry, "again", &[]);
    assert_eq!(agent_health(&gantry)["status"], "running");
    gantry.signal_and_wait("TERM");
    // Its journal has no room any more, which an agent cannot work with.
    let journal = gantry.data_dir().join("node/agent");
    let _mounted = Mounted::over(&journal, "256k");
    gantry.start();
    let filler = journal.join("filler");
    let status = Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", "status=none"])
        .arg(format!("of={}", filler.display()))
        .stderr(Stdio::null())
        .status()
        .expect("dd");
    assert!(!status.success(), "it is full");
    let definition =
        format!(r#"[{{"name":"c","image":"{image}","memory":32,"command":["true"]}}]"#);
    gantry.aws(&[
        "ecs",
        "register-task-definition",
        "--family",
        "again",
        "--network-mode",
        "host",
        "--container-definitions",
        &definition,
    ]);
    // What there is of the journal's last page takes a few tasks yet.
    let mut arn = String::new();
    let seen = eventually(PATIENCE, "the agent's failure", || {
        let answer = gantry.aws(&[
            "ecs",
            "run-task",
            "--task-definition",
            "again",
            "--count",
            "5",
        ]);
        answer["tasks"][0]["taskArn"]
            .as_str()
            .expect("a task")
            .clone_into(&mut arn);
        let health = agent_health(&gantry);
        if health["restarts"].as_u64().unwrap_or_default() > 0 {
            Ok(health)
        } else {
            Err(health.to_string())
        }
    });
    assert!(seen["lastError"].is_string(), "{seen}");
    std::fs::remove_file(&filler).expect("room again");
    eventually(PATIENCE, "the task that waited", || {
        let task = gantry.aws(&["ecs", "describe-tasks", "--tasks", &arn])["tasks"][0].clone();
        if task["containers"][0]["exitCode"] == 0 {
            Ok(())
        } else {
            Err(task.to_string())
        }
    });
    assert_eq!(agent_health(&gantry)["status"], "running");
}
