//! What the agent does with each message that comes over ACS, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{AmazonAgent, Seen};

impl AmazonAgent {
    pub(super) async fn take(&mut self, kind: &str, message: Value) -> Seen {
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
