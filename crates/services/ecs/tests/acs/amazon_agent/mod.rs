//! A double of the Amazon ECS agent: what that agent puts on the wire and what it does with what comes,
//! and no container.
//!
//! It knows nothing of Gantry's types: every request and frame is JSON of the shape that the agent was
//! seen to send, read with that agent's rules (which answers it insists on, which messages it drops). What
//! it has to remember across a restart is [`Memory`], as the agent's own is a file.
#![allow(dead_code, reason = "each test uses its own part of the agent")]

mod messages;

use std::collections::BTreeMap;
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
