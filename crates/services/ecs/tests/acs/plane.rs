//! A control plane on a loopback port, and an agent that does what a test says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use gantry_api::Operation;
use gantry_api::acs::{AckRequest, Frame, PayloadMessage, Task};
use gantry_api::auth::{Credential, CredentialPolicy, CredentialSource};
use gantry_api::client::{Client, ClientSocket};
use gantry_api::ecs;
use gantry_api::server::Server;
use gantry_api::sigv4::SigningCredentials;
use gantry_arn::{AccountId, Region};
use gantry_ecs::acs::{AcsRoute, NoRoleCredentials, TcsRoute, Telemetry};
use gantry_ecs::{EcsOptions, EcsService};
use gantry_env::Env;
use gantry_store::{MemoryStore, Store};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

/// What an agent must say it can do, or it is never given the task.
const CAPABILITIES: [&str; 11] = [
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.docker-remote-api.1.24",
    "com.amazonaws.ecs.capability.ecr-auth",
    "com.amazonaws.ecs.capability.logging-driver.awslogs",
    "com.amazonaws.ecs.capability.privileged-container",
    "ecs.capability.container-health-check",
    "ecs.capability.execution-role-awslogs",
    "ecs.capability.execution-role-ecr-pull",
    "ecs.capability.secrets.ssm.environment-variables",
];

fn capability(name: &str) -> ecs::Attribute {
    ecs::Attribute {
        name: name.to_owned(),
        ..ecs::Attribute::default()
    }
}

struct NoKeys;

#[async_trait]
impl CredentialSource for NoKeys {
    async fn lookup(&self, _access_key_id: &str) -> Option<Credential> {
        None
    }
}

pub struct Plane {
    pub client: Client,
    pub port: u16,
    pub telemetry: Arc<Telemetry>,
    pub container_instance: String,
}

/// A deadline for what should be there at once.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    let late = Env::real().sleep(Duration::from_secs(20));
    tokio::select! {
        done = work => done,
        () = late => panic!("it takes too long"),
    }
}

impl Plane {
    pub async fn start() -> Plane {
        let env = Env::real();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let service = Arc::new(EcsService::new(
            store.clone(),
            env.clone(),
            EcsOptions::default(),
        ));
        let acs = AcsRoute::new(
            store.clone(),
            env.clone(),
            service.clone(),
            Arc::new(NoRoleCredentials),
        );
        let tcs = Arc::new(TcsRoute::new(store, env.clone(), service.telemetry()));
        let telemetry = service.telemetry();
        let policy = CredentialPolicy::AcceptAny {
            source: Arc::new(NoKeys),
            account: AccountId::default(),
        };
        let server = Server::builder(env.clone(), policy)
            .service(ecs::service(service))
            .websocket("/acs/ws", Arc::new(acs))
            .websocket("/tcs/ws", tcs)
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
        let credentials = SigningCredentials {
            access_key_id: "test".into(),
            secret: "test".into(),
            session_token: None,
        };
        let endpoint = format!("http://127.0.0.1:{port}");
        let client = Client::new(&endpoint, Region::default(), Arc::new(credentials), env).unwrap();
        let mut plane = Plane {
            client,
            port,
            telemetry,
            container_instance: String::new(),
        };
        plane
            .call::<ecs::CreateCluster>(ecs::CreateClusterRequest {
                cluster_name: Some("default".into()),
                ..ecs::CreateClusterRequest::default()
            })
            .await;
        plane.container_instance = plane.register().await;
        plane
    }

    pub async fn call<O: Operation>(&self, input: O::Input) -> O::Output {
        within(self.client.call::<O>(input)).await.unwrap()
    }

    async fn register(&self) -> String {
        let integer = |name: &str, value| ecs::Resource {
            name: Some(name.into()),
            r#type: Some("INTEGER".into()),
            integer_value: Some(value),
            ..ecs::Resource::default()
        };
        let answer = self
            .call::<ecs::RegisterContainerInstance>(ecs::RegisterContainerInstanceRequest {
                cluster: Some("default".into()),
                attributes: Some(CAPABILITIES.map(capability).into()),
                total_resources: Some(vec![integer("CPU", 4096), integer("MEMORY", 8192)]),
                ..ecs::RegisterContainerInstanceRequest::default()
            })
            .await;
        answer
            .container_instance
            .unwrap()
            .container_instance_arn
            .unwrap()
    }

    pub fn query(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "clusterArn",
                "arn:aws:ecs:us-east-1:000000000000:cluster/default".into(),
            ),
            ("containerInstanceArn", self.container_instance.clone()),
            ("agentVersion", "1.0.0".into()),
            ("seqNum", "1".into()),
        ]
    }

    pub async fn connect(&self) -> ToyAgent {
        let query = self.query();
        let query: Vec<(&str, &str)> = query.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let socket = within(self.client.websocket("/acs/ws", &query))
            .await
            .unwrap();
        ToyAgent {
            socket,
            container_instance: self.container_instance.clone(),
        }
    }

    pub async fn define(&self, container: ecs::ContainerDefinition) {
        self.define_task(container, |task| task).await;
    }

    pub async fn define_task(
        &self,
        container: ecs::ContainerDefinition,
        change: impl FnOnce(ecs::RegisterTaskDefinitionRequest) -> ecs::RegisterTaskDefinitionRequest,
    ) {
        let request = change(ecs::RegisterTaskDefinitionRequest {
            family: "app".into(),
            network_mode: Some(ecs::NetworkMode::Host),
            container_definitions: vec![container],
            ..ecs::RegisterTaskDefinitionRequest::default()
        });
        self.call::<ecs::RegisterTaskDefinition>(request).await;
    }

    pub async fn run(&self, overrides: Option<ecs::TaskOverride>) -> String {
        let answer = self
            .call::<ecs::RunTask>(ecs::RunTaskRequest {
                task_definition: "app".into(),
                launch_type: Some(ecs::LaunchType::Ec2),
                overrides,
                ..ecs::RunTaskRequest::default()
            })
            .await;
        assert_eq!(answer.failures.unwrap_or_default(), []);
        answer.tasks.unwrap()[0].task_arn.clone().unwrap()
    }

    pub async fn describe(&self, task: &str) -> ecs::Task {
        let answer = self
            .call::<ecs::DescribeTasks>(ecs::DescribeTasksRequest {
                tasks: vec![task.into()],
                ..ecs::DescribeTasksRequest::default()
            })
            .await;
        answer.tasks.unwrap()[0].clone()
    }

    pub async fn stopped(&self, task: &str) -> ecs::Task {
        within(async {
            loop {
                let seen = self.describe(task).await;
                if seen.last_status.as_deref() == Some("STOPPED") {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    pub async fn agent_connected(&self, expected: bool) {
        within(async {
            loop {
                let answer = self
                    .call::<ecs::DescribeContainerInstances>(
                        ecs::DescribeContainerInstancesRequest {
                            container_instances: vec![self.container_instance.clone()],
                            ..ecs::DescribeContainerInstancesRequest::default()
                        },
                    )
                    .await;
                let seen = answer.container_instances.unwrap()[0].agent_connected;
                if seen == Some(expected) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub async fn report(&self, task: &str, status: &str) {
        self.call::<ecs::SubmitTaskStateChange>(ecs::SubmitTaskStateChangeRequest {
            cluster: Some("default".into()),
            task: Some(task.into()),
            status: Some(status.into()),
            ..ecs::SubmitTaskStateChangeRequest::default()
        })
        .await;
    }
}

pub struct ToyAgent {
    socket: ClientSocket,
    container_instance: String,
}

impl ToyAgent {
    /// The next frame, or none once the control plane has hung up.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            match within(self.socket.next()).await? {
                Ok(Message::Text(text)) => return Some(Frame::decode(text.as_str()).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn payload(&mut self) -> (PayloadMessage, Task) {
        loop {
            if let Frame::Payload(payload) = self.frame().await.expect("the socket is open") {
                let task = payload.tasks[0].clone();
                return (payload, task);
            }
        }
    }

    pub async fn send(&mut self, frame: Frame) {
        self.socket
            .send(Message::text(frame.encode()))
            .await
            .unwrap();
    }

    pub async fn ack(&mut self, payload: &PayloadMessage) {
        let ack = AckRequest {
            cluster: payload.cluster_arn.clone(),
            container_instance: Some(self.container_instance.clone()),
            message_id: payload.message_id.clone(),
        };
        self.send(Frame::Ack(ack)).await;
    }

    pub async fn hang_up(mut self) {
        let _ = self.socket.close(None).await;
    }
}
