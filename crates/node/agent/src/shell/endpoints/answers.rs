//! What is answered at the tasks' endpoints.
//!
//! What always holds: an address that does not exist and one that is another task's get the same answer;
//! what cannot be measured or found out is left out or an error, never made up.
//! What it leaves to others: the documents' shapes (`crate::endpoints`), connections (`listener`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gantry_api::acs::RoleCredentials;
use gantry_api::client::Client;
use gantry_api::ecs;
use gantry_arn::TaskId;
use gantry_env::Env;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::{ANSWER_TIMEOUT, Endpoints, FoundCredentials, Place, Purpose};
use crate::core::{ContainerStatus, TaskMachine};
use crate::endpoints::address::{Asked, Document, Door, Version};
use crate::endpoints::metadata::{self, FieldError, Surroundings, TaskDocument, Volume};
use crate::endpoints::stats::{self, Look, Whose};
use crate::shell::Onlooker;
use crate::shell::driver::Driver;
use crate::shell::network::Networks;
use crate::shell::registration::Registration;

const TASK_PROTECTION: &str = "task-protection/v1/state";
const AVAILABILITY_ZONE: &str = "ecs.availability-zone";

/// Everything that the answers are made of.
pub(in crate::shell) struct Answers {
    pub endpoints: Endpoints,
    pub driver: Driver,
    pub networks: Networks,
    pub onlooker: Onlooker,
    pub own: Client,
    pub registration: Registration,
    pub machine_memory_bytes: u64,
    pub availability_zone: OnceCell<Option<String>>,
}

pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

impl Answer {
    fn of(status: StatusCode, document: &impl Serialize) -> Answer {
        match serde_json::to_vec(document) {
            Ok(body) => Answer { status, body },
            Err(_) => Answer {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                body: b"\"the answer could not be written\"".to_vec(),
            },
        }
    }

    fn ok(document: &impl Serialize) -> Answer {
        Answer::of(StatusCode::OK, document)
    }

    /// As the Amazon agent says it: a JSON string.
    fn error(status: StatusCode, message: &str) -> Answer {
        Answer::of(status, &message)
    }

    fn unknown() -> Answer {
        Answer::error(
            StatusCode::NOT_FOUND,
            "there is no such container or document here",
        )
    }

    fn too_many() -> Answer {
        Answer::error(
            StatusCode::TOO_MANY_REQUESTS,
            "a task may ask 40 times a second, and 60 times at once",
        )
    }

    pub fn too_large() -> Answer {
        Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "nothing here takes so much")
    }

    /// The shape that SDKs read errors of credentials from.
    fn no_credentials(status: StatusCode, code: &str, message: &str) -> Answer {
        let error = json!({
            "code": code,
            "message": message,
            "HTTPErrorCode": status.as_u16(),
        });
        Answer::of(status, &error)
    }
}

impl Answers {
    pub(super) fn env(&self) -> &Env {
        self.endpoints.env()
    }

    /// Whose address this is.
    pub(super) async fn task_at(&self, peer: IpAddr) -> Option<TaskId> {
        let networks = self.networks.clone();
        let owner = tokio::task::spawn_blocking(move || networks.owner_of(peer));
        owner.await.ok()?.map(|(task, _)| task)
    }

    /// `task` is the one that asks, where that is known.
    pub(super) async fn to(
        &self,
        door: Door,
        task: Option<TaskId>,
        method: &Method,
        path: &str,
    ) -> Answer {
        let Some(asked) = Asked::of(path) else {
            return Answer::unknown();
        };
        let is_get = method == Method::GET;
        let answering = async {
            match asked {
                Asked::Credentials { id } if is_get => self.credentials(id, door, task),
                Asked::Metadata {
                    id,
                    version,
                    document,
                } if is_get => {
                    let Some(place) = self.place(id, door, task) else {
                        return Answer::unknown();
                    };
                    if !self.endpoints.may_ask(place.task, Purpose::Metadata) {
                        return Answer::too_many();
                    }
                    self.document(&place, version, document)
                        .await
                        .unwrap_or_else(Answer::unknown)
                }
                Asked::Agent { id, api } => self.agent_api(id, api, door, task).await,
                Asked::Credentials { .. } | Asked::Metadata { .. } => Answer::error(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "only GET is understood here",
                ),
            }
        };
        tokio::select! {
            answer = answering => answer,
            () = self.env().sleep(ANSWER_TIMEOUT) => {
                Answer::error(StatusCode::GATEWAY_TIMEOUT, "the answer took too long")
            }
        }
    }

    fn place(&self, id: &str, door: Door, task: Option<TaskId>) -> Option<Place> {
        let place = self.endpoints.place(id)?;
        let is_theirs = place.door == door && task.is_none_or(|task| task == place.task);
        is_theirs.then_some(place)
    }

    fn credentials(&self, id: &str, door: Door, asking: Option<TaskId>) -> Answer {
        let is_theirs = |task: TaskId| asking.is_none_or(|asking| asking == task);
        let unknown = || {
            Answer::no_credentials(
                StatusCode::BAD_REQUEST,
                "InvalidIdInRequest",
                "there are no credentials under this id",
            )
        };
        let (task, credentials) = match self.endpoints.credentials(id, door) {
            FoundCredentials::Here(task, credentials) => (task, Some(credentials)),
            FoundCredentials::NotYet(task) => (task, None),
            FoundCredentials::Unknown => return unknown(),
        };
        if !is_theirs(task) {
            return unknown();
        }
        if !self.endpoints.may_ask(task, Purpose::Credentials) {
            return Answer::too_many();
        }
        let Some(credentials) = credentials else {
            return Answer::no_credentials(
                StatusCode::SERVICE_UNAVAILABLE,
                "CredentialsUninitialized",
                "the agent has just started and waits for the credentials of this task's role",
            );
        };
        let RoleCredentials {
            credentials_id: _,
            role_arn,
            access_key_id,
            secret_access_key,
            session_token,
            expiration,
        } = *credentials;
        Answer::ok(&json!({
            "RoleArn": role_arn,
            "AccessKeyId": access_key_id,
            "SecretAccessKey": secret_access_key,
            "Token": session_token,
            "Expiration": expiration,
        }))
    }

    /// Below `$ECS_AGENT_URI`.
    async fn agent_api(&self, id: &str, api: &str, door: Door, asking: Option<TaskId>) -> Answer {
        let Some(place) = self.place(id, door, asking) else {
            return Answer::unknown();
        };
        if !self.endpoints.may_ask(place.task, Purpose::Metadata) {
            return Answer::too_many();
        }
        if api != TASK_PROTECTION {
            return Answer::unknown();
        }
        let machine = self.machine(place.task).await;
        let error = json!({
            "requestID": format!("{:032x}", u128::from_be_bytes(self.env().entropy.bytes16())),
            "error": {
                "Arn": machine.and_then(|machine| machine.payload.arn),
                "Code": "UnsupportedFeatureException",
                "Message": "Task protection is not built in Gantry yet.",
            },
        });
        Answer::of(StatusCode::NOT_IMPLEMENTED, &error)
    }

    async fn machine(&self, task: TaskId) -> Option<TaskMachine> {
        let look = move |core: &crate::core::AgentCore| core.task(task).cloned();
        self.onlooker.look(look).await?
    }

    async fn document(
        &self,
        place: &Place,
        version: Version,
        document: Document,
    ) -> Option<Answer> {
        let machine = self.machine(place.task).await?;
        let own = machine.state.containers.get(&place.container)?;
        // An address is that of a container that runs.
        if own.status == ContainerStatus::Stopped {
            return None;
        }
        Some(match document {
            Document::Container => {
                let around = self.surroundings(&machine).await.remove(&place.container);
                let around = around.unwrap_or_default();
                Answer::ok(&metadata::container(
                    &machine,
                    &place.container,
                    version,
                    around,
                )?)
            }
            Document::Task => Answer::ok(&self.task(&machine, version).await),
            Document::TaskWithTags => {
                let mut task = self.task(&machine, version).await;
                self.add_tags(&mut task).await;
                Answer::ok(&task)
            }
            Document::Stats => match self.stats(&machine, &place.container).await {
                Some(stats) => Answer::ok(&stats),
                None => Answer::error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the container's usage cannot be measured right now",
                ),
            },
            Document::TaskStats => {
                let mut all = Map::new();
                for (name, state) in &machine.state.containers {
                    if state.status < ContainerStatus::Created {
                        continue;
                    }
                    // One that does not run uses nothing that could be measured.
                    let stats = match state.status {
                        ContainerStatus::Running => self.stats(&machine, name).await,
                        _ => None,
                    };
                    let id = metadata::runtime_id(&machine, name);
                    all.insert(id, stats.unwrap_or(Value::Null));
                }
                Answer::ok(&all)
            }
        })
    }

    async fn task(&self, machine: &TaskMachine, version: Version) -> TaskDocument {
        let around = self.surroundings(machine).await;
        let zone = self.availability_zone().await;
        metadata::task(machine, version, zone.as_deref(), |name| {
            around.get(name).cloned().unwrap_or_default()
        })
    }

    async fn surroundings(&self, machine: &TaskMachine) -> BTreeMap<String, Surroundings> {
        let task = machine.id;
        let names: Vec<String> = machine.state.containers.keys().cloned().collect();
        let (endpoints, networks, driver) = (
            self.endpoints.clone(),
            self.networks.clone(),
            self.driver.clone(),
        );
        // The network's state may be locked for as long as the kernel takes.
        let gathered = tokio::task::spawn_blocking(move || {
            let of = |name: String| {
                let mounts = driver.mounts(task, &name).into_iter().map(|mount| Volume {
                    source: mount.source.display().to_string(),
                    destination: mount.target.display().to_string(),
                });
                let around = Surroundings {
                    created_at: endpoints.id_of(task, &name).map(|id| id.created_at()),
                    address: networks.address(task, &name),
                    mounts: mounts.collect(),
                };
                (name, around)
            };
            names.into_iter().map(of).collect()
        });
        gathered.await.unwrap_or_default()
    }

    async fn stats(&self, machine: &TaskMachine, name: &str) -> Option<Value> {
        let task = machine.id;
        let handle = self.driver.handle(task)?;
        let stats = handle.stats(&name.parse().ok()?).await.ok()?;
        let networks = self.networks.clone();
        let key = (task, name.to_owned());
        let traffic = tokio::task::spawn_blocking(move || networks.traffic().remove(&key));
        let now = Look {
            stats,
            traffic: traffic.await.ok().flatten(),
        };
        let before = self.endpoints.looked(task, name, now.clone());
        let whose = Whose {
            id: &metadata::runtime_id(machine, name),
            name: &metadata::docker_name(machine, name),
            machine_memory_bytes: self.machine_memory_bytes,
        };
        Some(stats::document(whose, &now, before.as_ref()))
    }

    /// Asked for once; it never changes.
    async fn availability_zone(&self) -> Option<String> {
        let asking = self.availability_zone.get_or_try_init(|| async {
            let request = ecs::DescribeContainerInstancesRequest {
                cluster: Some(self.registration.cluster_arn.clone()),
                container_instances: vec![self.registration.container_instance_arn.clone()],
                include: None,
            };
            let described = self
                .own
                .call::<ecs::DescribeContainerInstances>(request)
                .await?;
            let instances = described.container_instances.unwrap_or_default();
            let mut attributes = instances
                .into_iter()
                .flat_map(|instance| instance.attributes.unwrap_or_default());
            let zone = attributes.find(|attribute| attribute.name == AVAILABILITY_ZONE);
            Ok::<_, gantry_api::client::ClientError>(zone.and_then(|zone| zone.value))
        });
        tokio::select! {
            zone = asking => zone.ok().cloned().flatten(),
            // Cut off from the control plane, the document is told without it.
            () = self.env().sleep(ANSWER_TIMEOUT / 4) => None,
        }
    }

    async fn add_tags(&self, task: &mut TaskDocument) {
        let instance_arn = self.registration.container_instance_arn.clone();
        let (of_task, of_instance) =
            tokio::join!(self.tags(&task.task_arn), self.tags(&instance_arn));
        let mut errors = Vec::new();
        let mut taken = |field, arn: &str, tags: Result<_, (String, String)>| match tags {
            Ok(tags) => Some(tags),
            Err((error_code, error_message)) => {
                errors.push(FieldError {
                    error_field: field,
                    error_code,
                    error_message,
                    resource_arn: arn.to_owned(),
                });
                None
            }
        };
        task.task_tags = taken("TaskTags", &task.task_arn, of_task);
        task.container_instance_tags = taken("ContainerInstanceTags", &instance_arn, of_instance);
        task.errors = errors;
    }

    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, (String, String)> {
        let request = ecs::ListTagsForResourceRequest {
            resource_arn: arn.to_owned(),
        };
        tokio::select! {
            listed = self.own.call::<ecs::ListTagsForResource>(request) => match listed {
                Ok(listed) => {
                    let tags = listed.tags.unwrap_or_default().into_iter();
                    Ok(tags
                        .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
                        .collect())
                }
                Err(error) => Err((error.code.clone(), error.to_string())),
            },
            () = self.env().sleep(ANSWER_TIMEOUT / 4) => Err((
                "RequestTimeout".to_owned(),
                "the control plane did not answer in time".to_owned(),
            )),
        }
    }
}

/// The tasks' endpoints, served for as long as this is held.
pub(in crate::shell) struct Serving(Vec<tokio::task::JoinHandle<()>>);

impl Serving {
    pub fn begin(
        answers: Answers,
        link: std::net::TcpListener,
        loopback: std::net::TcpListener,
    ) -> Serving {
        let answers = Arc::new(answers);
        let doors = [(link, Door::Link), (loopback, Door::Loopback)];
        Serving(
            doors
                .into_iter()
                .map(|(listener, door)| {
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        if let Err(error) = super::serve(listener, door, answers).await {
                            tracing::warn!(%error, ?door, "the tasks' endpoints are not served");
                        }
                    })
                })
                .collect(),
        )
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        for door in &self.0 {
            door.abort();
        }
    }
}
