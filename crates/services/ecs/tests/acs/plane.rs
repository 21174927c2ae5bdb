//! A control plane on a loopback port, and an agent that does what a test says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use gantry_api::acs::{
    AckRequest, Frame, PayloadMessage, RoleCredentials as Issued, RoleType, Task,
};
use gantry_api::auth::node::NodePrincipal;
use gantry_api::auth::{Credential, CredentialPolicy, CredentialSource};
use gantry_api::client::{Client, ClientSocket};
use gantry_api::ecs;
use gantry_api::server::Server;
use gantry_api::sigv4::SigningCredentials;
use gantry_api::{Operation, Principal, RequestContext};
use gantry_arn::{AccountId, Region};
use gantry_ecs::acs::{
    AcsRoute, ContainerKey, ContainerStats, ContainerUsage, NodePermissions, RoleCredentials,
    RoleRefusal, TcsRoute, Telemetry,
};
use gantry_ecs::{EcsOptions, EcsService};
use gantry_env::Env;
use gantry_store::{MemoryStore, Store};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use crate::amazon_agent::{AmazonAgent, Memory};

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

/// The keys of two nodes; every other key is the root's.
struct NodeKeysOnly;

/// What nodes sign with here.
pub const NODE_SECRET: &str = "a node's secret";

/// The principal behind one of the keys `AKIANODEONE` and `AKIANODETWO` (of the cluster `default`), and
/// `AKIANODEBLUE` (of another one).
fn node(access_key_id: &str) -> Option<NodePrincipal> {
    let (node, cluster) = match access_key_id {
        "AKIANODEONE" => ("1111111111111111", "default"),
        "AKIANODETWO" => ("2222222222222222", "default"),
        "AKIANODEBLUE" => ("3333333333333333", "blue"),
        _ => return None,
    };
    Some(NodePrincipal {
        account: AccountId::default(),
        region: Region::default(),
        cluster: cluster.parse().unwrap(),
        node: node.to_owned(),
    })
}

#[async_trait]
impl CredentialSource for NodeKeysOnly {
    async fn lookup(&self, access_key_id: &str) -> Option<Credential> {
        let node = node(access_key_id)?;
        Some(Credential {
            secret: NODE_SECRET.to_owned(),
            session_token: None,
            expiration: None,
            account: node.account,
            principal: Principal {
                arn: node.arn(),
                user_id: node.node,
                access_key_id: access_key_id.to_owned(),
            },
        })
    }
}

/// Every role can be assumed, but those that are called `missing`.
struct Roles(Env);

#[async_trait]
impl RoleCredentials for Roles {
    async fn assume(
        &self,
        _context: &RequestContext,
        role_arn: &str,
        role: &RoleType,
        task_arn: &str,
    ) -> Result<Issued, RoleRefusal> {
        if role_arn.ends_with("/missing") {
            return Err(RoleRefusal::Unassumable);
        }
        Ok(Issued {
            credentials_id: Some(format!("{role:?}-{task_arn}")),
            role_arn: Some(role_arn.to_owned()),
            access_key_id: Some("ASIATASK".into()),
            secret_access_key: Some("secret".into()),
            session_token: Some("token".into()),
            expiration: Some((self.0.now() + Duration::from_secs(6 * 3600)).to_string()),
        })
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
    /// A control plane, its cluster `default`, and one container instance.
    pub async fn start() -> Plane {
        let mut plane = Plane::empty().await;
        plane.container_instance = plane.register().await;
        plane
    }

    /// The same without a container instance.
    pub async fn empty() -> Plane {
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
            Arc::new(Roles(env.clone())),
        );
        let tcs = Arc::new(TcsRoute::new(
            store.clone(),
            env.clone(),
            service.telemetry(),
        ));
        let telemetry = service.telemetry();
        let policy = CredentialPolicy::AcceptAny {
            source: Arc::new(NodeKeysOnly),
            account: AccountId::default(),
        };
        let server = Server::builder(env.clone(), policy)
            .service(ecs::service(service))
            .websocket("/acs/ws", Arc::new(acs))
            .websocket("/tcs/ws", tcs)
            .authorizer(Arc::new(NodePermissions::new(store)))
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
        let plane = Plane {
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

    /// The double of the Amazon ECS agent, with the root's key.
    pub fn amazon_agent(&self, memory: Memory) -> AmazonAgent {
        AmazonAgent::new(&format!("127.0.0.1:{}", self.port), "test", "test", memory)
    }

    /// The same with a node's key.
    pub fn node_agent(&self, access_key_id: &str) -> AmazonAgent {
        let host = format!("127.0.0.1:{}", self.port);
        let mut agent = AmazonAgent::new(&host, access_key_id, NODE_SECRET, Memory::default());
        access_key_id.clone_into(&mut agent.client_token);
        agent
    }

    pub fn node_client(&self, access_key_id: &str) -> Client {
        self.node_client_in(access_key_id, "us-east-1")
    }

    pub fn node_client_in(&self, access_key_id: &str, region: &str) -> Client {
        let credentials = SigningCredentials {
            access_key_id: access_key_id.into(),
            secret: NODE_SECRET.into(),
            session_token: None,
        };
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let region = region.parse().unwrap();
        Client::new(&endpoint, region, Arc::new(credentials), Env::real()).unwrap()
    }

    pub async fn stop(&self, task: &str) {
        self.call::<ecs::StopTask>(ecs::StopTaskRequest {
            task: task.into(),
            ..ecs::StopTaskRequest::default()
        })
        .await;
    }

    pub fn usage(&self, task: &str, container: &str) -> Option<ContainerUsage> {
        self.telemetry.latest(&ContainerKey {
            task_arn: task.into(),
            container: container.into(),
        })
    }

    async fn instance(&self, arn: &str) -> ecs::ContainerInstance {
        let answer = self
            .call::<ecs::DescribeContainerInstances>(ecs::DescribeContainerInstancesRequest {
                container_instances: vec![arn.into()],
                include: Some(vec![ecs::ContainerInstanceField::ContainerInstanceHealth]),
                ..ecs::DescribeContainerInstancesRequest::default()
            })
            .await;
        answer.container_instances.unwrap()[0].clone()
    }

    pub async fn instance_health(&self, arn: &str) -> String {
        let status = self.instance(arn).await.health_status.unwrap();
        status.overall_status.unwrap().as_str().to_owned()
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
        self.agent_is_connected(&self.container_instance, expected)
            .await;
    }

    pub async fn agent_is_connected(&self, arn: &str, expected: bool) {
        within(async {
            while self.instance(arn).await.agent_connected != Some(expected) {
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
