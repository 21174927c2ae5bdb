//! A double of the Amazon ECS agent: what that agent puts on the wire and what it does with what comes,
//! and no container.
//!
//! It knows nothing of Gantry's types: every request and frame is JSON of the shape that the agent was
//! seen to send, read with that agent's rules (which answers it insists on, which messages it drops). What
//! it has to remember across a restart is [`Memory`], as the agent's own is a file.
#![allow(dead_code, reason = "each test uses its own part of the agent")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use gantry_api::client::{Client, ClientError, ClientSocket};
use gantry_api::sigv4::{Payload, Signing, SigningCredentials, SigningScope, sign};
use gantry_arn::Region;
use gantry_env::Env;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const AGENT_VERSION: &str = "1.105.0";
const AGENT_HASH: &str = "*7df3fd3e";
const DOCKER_VERSION: &str = "DockerVersion: 25.0.14";
const REGION: &str = "us-east-1";

/// Everything that the agent says it can do, 47 attributes: 28 versions of Docker's API, and these.
const CAPABILITIES: [&str; 16] = [
    "com.amazonaws.ecs.capability.privileged-container",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
    "com.amazonaws.ecs.capability.logging-driver.syslog",
    "com.amazonaws.ecs.capability.logging-driver.awslogs",
    "com.amazonaws.ecs.capability.logging-driver.none",
    "com.amazonaws.ecs.capability.ecr-auth",
    "com.amazonaws.ecs.capability.task-iam-role",
    "com.amazonaws.ecs.capability.task-iam-role-network-host",
    "ecs.capability.docker-plugin.local",
    "ecs.capability.task-cpu-mem-limit",
    "ecs.capability.container-ordering",
    "ecs.capability.container-health-check",
    "ecs.capability.execution-role-awslogs",
    "ecs.capability.execution-role-ecr-pull",
    "ecs.capability.private-registry-authentication.secretsmanager",
    "ecs.capability.secrets.ssm.environment-variables",
];

pub fn attributes() -> Vec<Value> {
    let versions =
        (17..=44).map(|n| format!("com.amazonaws.ecs.capability.docker-remote-api.1.{n}"));
    let mut attributes: Vec<Value> = versions
        .chain(CAPABILITIES.map(str::to_owned))
        .map(|name| json!({ "name": name }))
        .collect();
    for (name, value) in [
        ("ecs.os-type", "linux"),
        ("ecs.os-family", "LINUX"),
        ("ecs.cpu-architecture", "x86_64"),
    ] {
        attributes.push(json!({ "name": name, "value": value }));
    }
    attributes
}

/// What survives a restart of the agent.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub container_instance: Option<String>,
    /// The highest number of any payload or manifest.
    pub latest_number: i64,
    pub manifest_message: String,
    pub tasks: BTreeMap<String, HeldTask>,
}

#[derive(Clone, Debug, Default)]
pub struct HeldTask {
    /// As the payload said it.
    pub payload: Value,
    pub stopping: bool,
    pub stopped: bool,
    /// By `TaskApplication` and `TaskExecution`: what the credentials endpoint would serve.
    pub credentials: BTreeMap<String, Value>,
}

/// What one message made the agent do.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Tasks that it had not held before.
    Started(Vec<String>),
    /// Tasks that it stops from now on, by a payload.
    Stops(Vec<String>),
    /// A manifest that was newer than everything; what it would stop was asked for.
    Manifest {
        asked_to_stop: Vec<String>,
    },
    /// A manifest that was not, dropped without an answer.
    DroppedManifest,
    /// What really stops, after it was asked.
    VerifiedStops(Vec<String>),
    /// An answer to another manifest than the last one, dropped.
    DroppedVerification,
    Credentials {
        task: String,
        role: String,
    },
    Heartbeat,
    Closed(String),
    Error {
        kind: String,
        message: String,
    },
    HungUp,
}

pub struct AmazonAgent {
    /// `127.0.0.1:4566`.
    host: String,
    keys: SigningCredentials,
    pub cluster: String,
    pub client_token: String,
    pub memory: Memory,
    acs: Option<ClientSocket>,
    tcs: Option<ClientSocket>,
    env: Env,
}

impl AmazonAgent {
    pub fn new(host: &str, access_key_id: &str, secret: &str, memory: Memory) -> AmazonAgent {
        AmazonAgent {
            host: host.to_owned(),
            keys: SigningCredentials {
                access_key_id: access_key_id.to_owned(),
                secret: secret.to_owned(),
                session_token: None,
            },
            cluster: "default".to_owned(),
            client_token: "8c2a7d2e-6a0e-4f6c-9d43-5b1c0a7f1d10".to_owned(),
            memory,
            acs: None,
            tcs: None,
            env: Env::real(),
        }
    }

    pub fn instance(&self) -> &str {
        self.memory.container_instance.as_deref().unwrap()
    }

    /// An awsJson call, written by hand: the status and the answer.
    pub async fn call(&self, operation: &str, input: Value) -> (u16, Value) {
        let body = input.to_string();
        let mut headers = HeaderMap::new();
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        headers.insert("host", HeaderValue::from_str(&self.host).unwrap());
        headers.insert(
            "content-type",
            HeaderValue::from_static("application/x-amz-json-1.1"),
        );
        headers.insert("x-amz-target", HeaderValue::from_str(&target).unwrap());
        let signing = Signing {
            method: &Method::POST,
            path: "/",
            query: "",
            payload: Payload::of(body.as_bytes()),
            credentials: &self.keys,
            scope: SigningScope {
                region: REGION,
                service: "ecs",
            },
            now: self.env.now(),
        };
        sign(&signing, &mut headers).unwrap();
        let mut request = String::from("POST / HTTP/1.1\r\n");
        for (name, value) in &headers {
            request += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        let length = body.len();
        request += &format!("connection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        let mut stream = TcpStream::connect(&self.host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Registers, again where it has a name already, and insists on what that agent insists on.
    pub async fn register(&mut self) -> Result<Value, Value> {
        let integer = |name, value| json!({"name": name, "type": "INTEGER", "integerValue": value});
        let set = |name, values: &[&str]| json!({"name": name, "type": "STRINGSET", "stringSetValue": values});
        let mut input = json!({
            "cluster": self.cluster,
            "clientToken": self.client_token,
            "attributes": attributes(),
            "instanceIdentityDocument": "",
            "instanceIdentityDocumentSignature": "",
            "platformDevices": [],
            "tags": [],
            "totalResources": [
                integer("CPU", 4096),
                integer("MEMORY", 7680),
                set("PORTS", &["22", "2375", "2376", "51678", "51679"]),
                set("PORTS_UDP", &[]),
            ],
            "versionInfo": {
                "agentHash": AGENT_HASH, "agentVersion": AGENT_VERSION, "dockerVersion": DOCKER_VERSION,
            },
        });
        if let Some(arn) = &self.memory.container_instance {
            input["containerInstanceArn"] = json!(arn);
        }
        let (status, answer) = self.call("RegisterContainerInstance", input).await;
        if status != 200 {
            return Err(answer);
        }
        let instance = answer["containerInstance"].clone();
        let echoed: BTreeMap<&str, &str> = instance["attributes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| {
                (
                    a["name"].as_str().unwrap(),
                    a["value"].as_str().unwrap_or(""),
                )
            })
            .collect();
        for asked in attributes() {
            let (name, value) = (
                asked["name"].as_str().unwrap(),
                asked["value"].as_str().unwrap_or(""),
            );
            assert_eq!(echoed.get(name), Some(&value), "{name} is not echoed");
        }
        assert!(!echoed["ecs.availability-zone"].is_empty());
        let arn = instance["containerInstanceArn"]
            .as_str()
            .unwrap()
            .to_owned();
        self.memory.container_instance = Some(arn);
        Ok(instance)
    }

    async fn discover(&self) -> Value {
        let input = json!({
            "cluster": self.cluster, "containerInstance": self.instance(), "zoneId": "use1-az1",
        });
        let (status, answer) = self.call("DiscoverPollEndpoint", input).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn open(
        &self,
        endpoint: &Value,
        query: &[(&str, &str)],
    ) -> Result<ClientSocket, ClientError> {
        // The agent reads `http` as `ws`, which is what this client speaks anyway.
        let endpoint = endpoint.as_str().unwrap();
        let region: Region = REGION.parse().unwrap();
        let keys = Arc::new(self.keys.clone());
        let client = Client::new(endpoint, region, keys, self.env.clone())?;
        client.websocket("/ws", query).await
    }

    pub async fn connect(&mut self) -> Result<(), ClientError> {
        let discovered = self.discover().await;
        let query = [
            ("agentHash", AGENT_HASH),
            ("agentVersion", AGENT_VERSION),
            ("clusterArn", self.cluster.as_str()),
            ("containerInstanceArn", self.instance()),
            ("dockerVersion", DOCKER_VERSION),
            ("protocolVersion", "2"),
            ("sendCredentials", "true"),
            ("seqNum", "1"),
        ];
        self.acs = Some(self.open(&discovered["endpoint"], &query).await?);
        Ok(())
    }

    pub async fn connect_telemetry(&mut self) -> Result<(), ClientError> {
        let discovered = self.discover().await;
        let query = [
            ("agentHash", AGENT_HASH),
            ("agentVersion", AGENT_VERSION),
            ("cluster", self.cluster.as_str()),
            ("containerInstance", self.instance()),
            ("dockerVersion", DOCKER_VERSION),
        ];
        let endpoint = &discovered["telemetryEndpoint"];
        self.tcs = Some(self.open(endpoint, &query).await?);
        Ok(())
    }

    /// The line is cut, with no goodbye.
    pub fn cut(&mut self) {
        (self.acs, self.tcs) = (None, None);
    }

    /// Takes the next message and does what the agent does with it.
    pub async fn next(&mut self) -> Seen {
        loop {
            let Some(socket) = &mut self.acs else {
                return Seen::HungUp;
            };
            let text = match socket.next().await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    self.acs = None;
                    return Seen::HungUp;
                }
                Some(Ok(_)) => continue,
            };
            let frame: Value = serde_json::from_str(text.as_str()).unwrap();
            let kind = frame["type"].as_str().unwrap().to_owned();
            return self.take(&kind, frame["message"].clone()).await;
        }
    }

    /// Takes messages until one makes it do what is waited for. What came before is told as well.
    pub async fn until(&mut self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let mut all = Vec::new();
        loop {
            let seen = self.next().await;
            let (found, over) = (wanted(&seen), seen == Seen::HungUp);
            all.push(seen);
            if found {
                return all;
            }
            assert!(!over, "hung up after {all:?}");
        }
    }

    async fn take(&mut self, kind: &str, message: Value) -> Seen {
        match kind {
            "PayloadMessage" => self.take_payload(message).await,
            "TaskManifestMessage" => self.take_manifest(message).await,
            "TaskStopVerificationAck" => self.take_verification(&message),
            "IAMRoleCredentialsMessage" => self.take_credentials(message).await,
            "HeartbeatMessage" => {
                self.send(
                    "HeartbeatAckRequest",
                    json!({"messageId": message["messageId"]}),
                )
                .await;
                Seen::Heartbeat
            }
            "CloseMessage" => {
                Seen::Closed(message["message"].as_str().unwrap_or_default().to_owned())
            }
            other => Seen::Error {
                kind: other.to_owned(),
                message: message["message"].as_str().unwrap_or_default().to_owned(),
            },
        }
    }

    async fn take_payload(&mut self, message: Value) -> Seen {
        let message_id = message["messageId"]
            .as_str()
            .expect("a payload has an id")
            .to_owned();
        let number = message["seqNum"].as_i64().expect("a payload has a number");
        self.memory.latest_number = self.memory.latest_number.max(number);
        let (mut started, mut stops, mut credentials) = (Vec::new(), Vec::new(), Vec::new());
        for task in message["tasks"].as_array().expect("a payload has tasks") {
            let arn = task["arn"].as_str().expect("a task has an ARN").to_owned();
            let known = self.memory.tasks.contains_key(&arn);
            let held = self.memory.tasks.entry(arn.clone()).or_default();
            if task["desiredStatus"] == "STOPPED" {
                held.stopping = true;
                stops.push(arn.clone());
            } else if !known {
                check_task(task);
                held.payload = task.clone();
                started.push(arn.clone());
            }
            for (member, role) in [
                ("roleCredentials", "TaskApplication"),
                ("executionRoleCredentials", "TaskExecution"),
            ] {
                if task[member].is_object() {
                    held.credentials
                        .insert(role.to_owned(), task[member].clone());
                    credentials.push(task[member].clone());
                }
            }
        }
        self.ack(&message).await;
        for given in credentials {
            self.ack_credentials(&message_id, &given).await;
        }
        if started.is_empty() && !stops.is_empty() {
            return Seen::Stops(stops);
        }
        Seen::Started(started)
    }

    async fn take_manifest(&mut self, message: Value) -> Seen {
        let number = message["timeline"]
            .as_i64()
            .expect("a manifest has a timeline");
        if number <= self.memory.latest_number {
            return Seen::DroppedManifest;
        }
        let message_id = message["messageId"].as_str().expect("a manifest has an id");
        self.memory.latest_number = number;
        message_id.clone_into(&mut self.memory.manifest_message);
        let named: BTreeMap<&str, &str> = message["tasks"]
            .as_array()
            .expect("a manifest has tasks")
            .iter()
            .map(|t| {
                (
                    t["taskArn"].as_str().unwrap(),
                    t["desiredStatus"].as_str().unwrap(),
                )
            })
            .collect();
        let unwanted: Vec<String> = self
            .memory
            .tasks
            .iter()
            .filter(|(arn, held)| !held.stopped && named.get(arn.as_str()) != Some(&"RUNNING"))
            .map(|(arn, _)| arn.clone())
            .collect();
        self.ack(&message).await;
        if !unwanted.is_empty() {
            let candidates: Vec<Value> = unwanted
                .iter()
                .map(|arn| json!({"taskArn": arn, "taskClusterArn": message["clusterArn"], "desiredStatus": "STOPPED"}))
                .collect();
            let question = json!({"messageId": message_id, "stopCandidates": candidates});
            self.send("TaskStopVerificationMessage", question).await;
        }
        Seen::Manifest {
            asked_to_stop: unwanted,
        }
    }

    fn take_verification(&mut self, message: &Value) -> Seen {
        if message["messageId"] != self.memory.manifest_message.as_str() {
            return Seen::DroppedVerification;
        }
        let mut stops = Vec::new();
        for task in message["stopTasks"].as_array().into_iter().flatten() {
            let arn = task["taskArn"].as_str().unwrap();
            if let Some(held) = self.memory.tasks.get_mut(arn) {
                held.stopping = true;
                stops.push(arn.to_owned());
            }
        }
        Seen::VerifiedStops(stops)
    }

    async fn take_credentials(&mut self, message: Value) -> Seen {
        let text = |name: &str| message[name].as_str().expect(name).to_owned();
        let (message_id, task, role) = (text("messageId"), text("taskArn"), text("roleType"));
        let given = message["roleCredentials"].clone();
        let held = self
            .memory
            .tasks
            .get_mut(&task)
            .expect("credentials of a task that it holds");
        held.credentials.insert(role.clone(), given.clone());
        self.ack_credentials(&message_id, &given).await;
        Seen::Credentials { task, role }
    }

    async fn ack(&mut self, message: &Value) {
        let ack = json!({
            "cluster": message["clusterArn"],
            "containerInstance": message["containerInstanceArn"],
            "messageId": message["messageId"],
        });
        self.send("AckRequest", ack).await;
    }

    async fn ack_credentials(&mut self, message_id: &str, given: &Value) {
        let ack = json!({
            "messageId": message_id,
            "credentialsId": given["credentialsId"].as_str().expect("credentials have an id"),
            "expiration": given["expiration"].as_str().expect("credentials end"),
        });
        self.send("IAMRoleCredentialsAckRequest", ack).await;
    }

    pub async fn send(&mut self, kind: &str, message: Value) {
        self.send_text(json!({"type": kind, "message": message}).to_string())
            .await;
    }

    pub async fn send_text(&mut self, text: String) {
        if let Some(socket) = &mut self.acs {
            // The other end may have hung up; the next read tells.
            let _ = socket.send(Message::text(text)).await;
        }
    }

    /// Reports a task in the agent's shape: as it runs, or with the exit code of its container.
    pub async fn report(&mut self, task: &str, exit_code: Option<i64>) -> (u16, Value) {
        let status = if exit_code.is_some() {
            "STOPPED"
        } else {
            "RUNNING"
        };
        let held = self.memory.tasks.entry(task.to_owned()).or_default();
        held.stopped = exit_code.is_some();
        let containers: Vec<Value> = held.payload["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| {
                let mut change = json!({
                    "containerName": container["name"],
                    "imageDigest": "sha256:".to_owned() + &"ab".repeat(32),
                    "runtimeId": "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c0000",
                    "status": status,
                    "networkBindings": [],
                });
                if let Some(code) = exit_code {
                    change["exitCode"] = json!(code);
                }
                change
            })
            .collect();
        let seconds = self.env.now().as_epoch_seconds_f64();
        let mut input = json!({
            "cluster": self.cluster,
            "task": task,
            "status": status,
            "reason": "",
            "containers": containers,
            "attachments": [],
            "managedAgents": [],
            "pullStartedAt": seconds - 2.0,
            "pullStoppedAt": seconds - 1.0,
        });
        if exit_code.is_some() {
            input["executionStoppedAt"] = json!(seconds);
        }
        self.call("SubmitTaskStateChange", input).await
    }

    /// A frame of the telemetry socket in the agent's odd form, and the type of its answer.
    pub async fn publish(&mut self, kind: &str, message: Value) -> String {
        let body = json!({"type": kind, "message": message});
        let frame = format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/ecs/aws4_request, SignedHeaders=host;x-amz-date, Signature=00\r\nHost: {}\r\nX-Amz-Date: 20260101T000000Z\r\n\r\n{body}",
            self.host
        );
        self.publish_text(frame).await
    }

    pub async fn publish_text(&mut self, frame: String) -> String {
        let socket = self.tcs.as_mut().expect("a telemetry socket");
        socket.send(Message::text(frame)).await.unwrap();
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let answer: Value = serde_json::from_str(text.as_str()).unwrap();
                    let kind = answer["type"].as_str().unwrap();
                    if kind != "HeartbeatMessage" {
                        return kind.to_owned();
                    }
                }
                Some(Ok(_)) => {}
                other => panic!("the telemetry socket ended: {other:?}"),
            }
        }
    }

    /// What it says of itself in each frame of telemetry.
    pub fn metadata(&self) -> Value {
        json!({
            "cluster": self.cluster,
            "containerInstance": self.instance(),
            "messageId": "7b1f3c7e-2f30-4c0a-8b5b-1d2c3f4a5b6c",
            "fin": true,
        })
    }
}

/// The types that the agent's parser insists on.
fn check_task(task: &Value) {
    let words: BTreeSet<&str> = ["arn", "desiredStatus", "family", "version"].into();
    for word in words {
        assert!(task[word].is_string(), "{word}: {task}");
    }
    let integer = |value: &Value| value.is_null() || value.is_i64();
    assert!(task["cpu"].is_null() || task["cpu"].is_number(), "{task}");
    assert!(integer(&task["memory"]), "{task}");
    for container in task["containers"].as_array().expect("containers") {
        assert!(container["name"].is_string() && container["image"].is_string());
        assert!(integer(&container["cpu"]) && integer(&container["memory"]));
        assert!(container["essential"].is_boolean());
        for list in [
            "command",
            "entryPoint",
            "links",
            "portMappings",
            "mountPoints",
            "volumesFrom",
        ] {
            assert!(
                container[list].is_null() || container[list].is_array(),
                "{list}"
            );
        }
        let environment = container["environment"].as_object().into_iter().flatten();
        assert!(environment.into_iter().all(|(_, value)| value.is_string()));
        assert!(container["overrides"].is_null() || container["overrides"].is_string());
        // Docker's two documents are JSON inside strings.
        for member in ["config", "hostConfig"] {
            let document = container["dockerConfig"][member].as_str().expect(member);
            let parsed: Value = serde_json::from_str(document).expect(member);
            assert!(parsed.is_object());
        }
    }
}
