//! The agent's calls to the control plane: clients, credentials, and what an error means.
//!
//! What always holds: a report is given up only when the service itself refused it for good; whatever
//! did not reach it, or may be the clock's or a key's fault, is tried again.
//! What it leaves to others: when to try again (the core).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use gantry_api::acs::{RoleCredentials, RoleType};
use gantry_api::client::{Client, ClientError, CredentialsProvider};
use gantry_api::ecs;
use gantry_api::sigv4::SigningCredentials;
use gantry_arn::{Region, TaskId};
use gantry_env::Env;

use crate::core::step::{CallError, NetworkBinding, TaskStateChange};

/// Clients of the endpoint that this agent joined, by region and by whose credentials.
pub struct Clients {
    endpoint: String,
    region: Region,
    env: Env,
    own: Arc<dyn CredentialsProvider>,
    clients: Mutex<BTreeMap<(String, Option<TaskId>), Client>>,
    roles: Mutex<BTreeMap<(TaskId, RoleType), RoleCredentials>>,
}

impl Clients {
    pub fn new(
        endpoint: String,
        region: Region,
        own: Arc<dyn CredentialsProvider>,
        env: Env,
    ) -> Clients {
        Clients {
            endpoint,
            region,
            env,
            own,
            clients: Mutex::default(),
            roles: Mutex::default(),
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A client of this agent's own, in its own region.
    pub fn own(&self) -> Result<Client, ClientError> {
        self.client(self.region.as_str(), None)
    }

    /// A client for a task: with its execution role where that is asked for and known.
    pub fn for_task(
        &self,
        task: TaskId,
        region: &str,
        execution_role: bool,
    ) -> Result<Client, ClientError> {
        let region = if region.is_empty() {
            self.region.as_str()
        } else {
            region
        };
        self.client(region, execution_role.then_some(task))
    }

    pub fn keep_role(&self, task: TaskId, role: RoleType, credentials: RoleCredentials) {
        self.lock(&self.roles).insert((task, role), credentials);
        // The next call makes a client with the new credentials.
        self.lock(&self.clients)
            .retain(|(_, of), _| *of != Some(task));
    }

    pub fn forget_task(&self, task: TaskId) {
        self.lock(&self.roles).retain(|(of, _), _| *of != task);
        self.lock(&self.clients)
            .retain(|(_, of), _| *of != Some(task));
    }

    /// A client of another endpoint that the control plane named.
    pub fn at(&self, endpoint: &str) -> Result<Client, ClientError> {
        Client::new(
            endpoint,
            self.region.clone(),
            self.own.clone(),
            self.env.clone(),
        )
    }

    fn client(&self, region: &str, task: Option<TaskId>) -> Result<Client, ClientError> {
        let role = task.and_then(|task| {
            self.lock(&self.roles)
                .get(&(task, RoleType::TaskExecution))
                .cloned()
        });
        let key = (region.to_owned(), task.filter(|_| role.is_some()));
        let mut clients = self.lock(&self.clients);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let credentials: Arc<dyn CredentialsProvider> = match role {
            Some(role) => Arc::new(SigningCredentials {
                access_key_id: role.access_key_id.unwrap_or_default(),
                secret: role.secret_access_key.unwrap_or_default(),
                session_token: role.session_token,
            }),
            None => self.own.clone(),
        };
        let parsed = region
            .parse()
            .map_err(|_| ClientError::misuse(format!("'{region}' is not a region")))?;
        let client = Client::new(&self.endpoint, parsed, credentials, self.env.clone())?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn lock<'a, T>(&self, of: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries one report.
pub async fn submit(client: &Client, change: TaskStateChange) -> Result<(), CallError> {
    let request = on_the_wire(change);
    client
        .call::<ecs::SubmitTaskStateChange>(request)
        .await
        .map(|_| ())
        .map_err(call_error)
}

/// Only what the service itself says about this very report is final.
fn call_error(error: ClientError) -> CallError {
    const FINAL: [&str; 4] = [
        "ClientException",
        "InvalidParameterException",
        "ClusterNotFoundException",
        "ValidationException",
    ];
    let message = error.to_string();
    if !error.retryable && FINAL.contains(&error.code.as_str()) {
        CallError::Refused { message }
    } else {
        CallError::Retry { message }
    }
}

/// For whoever carries reports by another way than a client.
impl From<TaskStateChange> for ecs::SubmitTaskStateChangeRequest {
    fn from(change: TaskStateChange) -> Self {
        on_the_wire(change)
    }
}

fn network_binding(binding: NetworkBinding) -> ecs::NetworkBinding {
    let told = ecs::NetworkBinding {
        bind_ip: Some("0.0.0.0".to_owned()),
        protocol: Some(binding.protocol.as_str().into()),
        ..ecs::NetworkBinding::default()
    };
    let (container_port, host_port) = (binding.container_port, binding.host_port);
    match binding.last_container_port {
        Some(last) => ecs::NetworkBinding {
            container_port_range: Some(format!("{container_port}-{last}")),
            host_port_range: Some(format!("{host_port}-{}", binding.last_host_port())),
            ..told
        },
        None => ecs::NetworkBinding {
            container_port: Some(i32::from(container_port)),
            host_port: Some(i32::from(host_port)),
            ..told
        },
    }
}

fn on_the_wire(change: TaskStateChange) -> ecs::SubmitTaskStateChangeRequest {
    let TaskStateChange {
        cluster,
        task_arn,
        status,
        reason,
        containers,
        pull_started_at,
        pull_stopped_at,
        execution_stopped_at,
    } = change;
    let containers = containers
        .into_iter()
        .map(|container| ecs::ContainerStateChange {
            container_name: Some(container.name),
            exit_code: container.exit_code,
            image_digest: container.image_digest,
            network_bindings: Some(
                container
                    .network_bindings
                    .into_iter()
                    .map(network_binding)
                    .collect(),
            ),
            reason: container.reason,
            runtime_id: container.runtime_id,
            status: Some(container.status.as_reported().to_owned()),
        })
        .collect();
    ecs::SubmitTaskStateChangeRequest {
        cluster: Some(cluster),
        task: Some(task_arn),
        status: Some(status.as_reported().to_owned()),
        reason,
        containers: Some(containers),
        pull_started_at,
        pull_stopped_at,
        execution_stopped_at,
        ..ecs::SubmitTaskStateChangeRequest::default()
    }
}
