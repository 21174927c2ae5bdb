//! A service on a memory store, a clock moved by hand, and short ways to ask it things.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gantry_api::ecs::{self, Ecs as _, EcsError};
use gantry_api::{ApiError, Principal, RequestContext};
use gantry_arn::{AccountId, Arn, Region};
use gantry_ecs::controllers::DeregisteredInstances;
use gantry_ecs::model::reference::Scope;
use gantry_ecs::tables::{AcsSessionRow, container_instance_name};
use gantry_ecs::{EcsOptions, EcsService};
use gantry_env::VirtualEnv;
use gantry_reconcile::Controller;
use gantry_store::{MemoryStore, Store, Transaction};

pub struct Harness {
    pub store: Arc<dyn Store>,
    pub service: EcsService,
    pub env: VirtualEnv,
}

/// Waits for what needs no waiting: a memory store commits when it is polled.
pub fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a memory store never waits")
}

/// The code and the message that a caller reads.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, EcsError>) -> (String, String) {
    let error: ApiError = result.expect_err("this should have been refused").into();
    (error.code, error.message)
}

impl Harness {
    pub fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()), 1)
    }

    pub fn on(store: Arc<dyn Store>, seed: u64) -> Self {
        let env = VirtualEnv::seeded(seed);
        env.advance(Duration::from_secs(1_700_000_000));
        let service = EcsService::new(store.clone(), env.env(), EcsOptions::default());
        Self {
            store,
            service,
            env,
        }
    }

    /// With the cluster `default` and one connected instance of 4 vCPUs and 8 GiB.
    pub fn with_instance() -> (Self, String) {
        let harness = Self::new();
        harness.create_cluster("default");
        let arn = harness.register_instance(4096, 8192);
        (harness, arn)
    }

    pub fn ctx(&self) -> RequestContext {
        let account = AccountId::default();
        RequestContext {
            principal: Principal {
                arn: Arn::global("iam", &account, "root"),
                user_id: account.to_string(),
                access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            },
            account,
            region: Region::default(),
            request_id: "test".to_owned(),
            host: Some("localhost:4566".to_owned()),
            now: self.env.now(),
        }
    }

    pub fn scope(&self) -> Scope {
        Scope::of(&self.ctx())
    }

    pub fn create_cluster(&self, name: &str) -> ecs::Cluster {
        let input = ecs::CreateClusterRequest {
            cluster_name: Some(name.to_owned()),
            ..Default::default()
        };
        done(self.service.create_cluster(&self.ctx(), input))
            .unwrap()
            .cluster
            .unwrap()
    }

    pub fn register_instance(&self, cpu: i32, memory: i32) -> String {
        let arn = self.register_unconnected(cpu, memory);
        self.connect(&arn, true);
        arn
    }

    pub fn register_unconnected(&self, cpu: i32, memory: i32) -> String {
        self.register_with(cpu, memory, Vec::new())
    }

    /// A connected instance that says where it is.
    pub fn register_in_zone(&self, zone: &str, cpu: i32, memory: i32) -> String {
        let there = attribute("ecs.availability-zone", Some(zone));
        let arn = self.register_with(cpu, memory, vec![there]);
        self.connect(&arn, true);
        arn
    }

    pub fn register_with(&self, cpu: i32, memory: i32, own: Vec<ecs::Attribute>) -> String {
        let mut attributes = vec![
            attribute("ecs.cpu-architecture", Some("x86_64")),
            attribute("com.amazonaws.ecs.capability.logging-driver.awslogs", None),
            attribute("com.amazonaws.ecs.capability.docker-remote-api.1.18", None),
            attribute("com.amazonaws.ecs.capability.docker-remote-api.1.21", None),
            attribute("com.amazonaws.ecs.capability.docker-remote-api.1.24", None),
            attribute("ecs.capability.container-health-check", None),
        ];
        attributes.extend(own);
        let input = ecs::RegisterContainerInstanceRequest {
            total_resources: Some(resources(cpu, memory)),
            attributes: Some(attributes),
            ..Default::default()
        };
        let response = done(self.service.register_container_instance(&self.ctx(), input)).unwrap();
        response
            .container_instance
            .unwrap()
            .container_instance_arn
            .unwrap()
    }

    /// What the agent session writes when an agent comes or goes.
    pub fn connect(&self, instance_arn: &str, connected: bool) {
        let scope = self.scope();
        let cluster = cluster_of(instance_arn).parse().unwrap();
        let id = scope.container_instance(&cluster, instance_arn).unwrap();
        let row = AcsSessionRow {
            session: 1,
            connected,
            since: Some(self.env.now()),
            ..Default::default()
        };
        let mut transaction = Transaction::new();
        let name = container_instance_name(&cluster, &id);
        transaction.write::<AcsSessionRow>(&scope.account, &scope.region, &name, &row);
        done(self.store.commit(transaction)).unwrap();
    }

    pub fn register(
        &self,
        input: ecs::RegisterTaskDefinitionRequest,
    ) -> Result<ecs::TaskDefinition, EcsError> {
        let response = done(self.service.register_task_definition(&self.ctx(), input))?;
        Ok(response.task_definition.unwrap())
    }

    pub fn register_web(&self) -> ecs::TaskDefinition {
        self.register(web()).unwrap()
    }

    pub fn run(&self, input: ecs::RunTaskRequest) -> Result<ecs::RunTaskResponse, EcsError> {
        done(self.service.run_task(&self.ctx(), input))
    }

    pub fn run_one(&self, task_definition: &str) -> String {
        let response = self.run(run(task_definition)).unwrap();
        assert_eq!(response.failures, Some(vec![]));
        response.tasks.unwrap()[0].task_arn.clone().unwrap()
    }

    pub fn task(&self, arn: &str) -> ecs::Task {
        let input = ecs::DescribeTasksRequest {
            cluster: Some(cluster_of(arn)),
            tasks: vec![arn.to_owned()],
            include: Some(vec![ecs::TaskField::Tags]),
        };
        let response = done(self.service.describe_tasks(&self.ctx(), input)).unwrap();
        assert_eq!(response.failures, Some(vec![]), "{arn}");
        response.tasks.unwrap().remove(0)
    }

    pub fn stop(&self, arn: &str, reason: &str) -> Result<ecs::Task, EcsError> {
        let input = ecs::StopTaskRequest {
            cluster: Some(cluster_of(arn)),
            task: arn.to_owned(),
            reason: Some(reason.to_owned()),
        };
        Ok(done(self.service.stop_task(&self.ctx(), input))?
            .task
            .unwrap())
    }

    pub fn submit(&self, arn: &str, status: &str, exit_code: Option<i32>) {
        let input = report(arn, status, exit_code);
        done(self.service.submit_task_state_change(&self.ctx(), input)).unwrap();
    }

    pub fn instance(&self, arn: &str) -> ecs::ContainerInstance {
        let input = ecs::DescribeContainerInstancesRequest {
            cluster: Some(cluster_of(arn)),
            container_instances: vec![arn.to_owned()],
            include: Some(vec![ecs::ContainerInstanceField::Tags]),
        };
        let response = done(
            self.service
                .describe_container_instances(&self.ctx(), input),
        )
        .unwrap();
        response.container_instances.unwrap().remove(0)
    }

    /// What UpdateContainerInstancesState makes of an instance.
    pub fn set_state(&self, arn: &str, status: ecs::ContainerInstanceStatus) {
        let input = ecs::UpdateContainerInstancesStateRequest {
            container_instances: vec![arn.to_owned()],
            status,
            ..Default::default()
        };
        done(
            self.service
                .update_container_instances_state(&self.ctx(), input),
        )
        .unwrap();
    }

    /// Deregisters it by force, and gives its tasks up.
    pub fn deregister(&self, arn: &str) {
        let input = ecs::DeregisterContainerInstanceRequest {
            container_instance: arn.to_owned(),
            force: Some(true),
            ..Default::default()
        };
        done(
            self.service
                .deregister_container_instance(&self.ctx(), input),
        )
        .unwrap();
        let controller = DeregisteredInstances;
        for key in controller.all_keys(&self.store.snapshot()) {
            let plan = controller.reconcile(&self.store.snapshot(), self.env.now(), &key);
            done(self.store.commit(plan.transaction)).unwrap();
        }
    }

    /// What is left of a resource on an instance.
    pub fn remaining(&self, instance_arn: &str, name: &str) -> i32 {
        let resources = self.instance(instance_arn).remaining_resources.unwrap();
        let resource = resources
            .iter()
            .find(|r| r.name.as_deref() == Some(name))
            .unwrap();
        resource.integer_value.unwrap()
    }
}

pub fn cluster_of(arn: &str) -> String {
    arn.split('/').nth(1).unwrap().to_owned()
}

pub fn attribute(name: &str, value: Option<&str>) -> ecs::Attribute {
    ecs::Attribute {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        ..Default::default()
    }
}

pub fn resources(cpu: i32, memory: i32) -> Vec<ecs::Resource> {
    let number = |name: &str, value| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        double_value: Some(0.0),
        long_value: Some(0),
        integer_value: Some(value),
        string_set_value: None,
    };
    let ports = |name: &str, values: &[&str]| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("STRINGSET".to_owned()),
        double_value: Some(0.0),
        long_value: Some(0),
        integer_value: Some(0),
        string_set_value: Some(values.iter().map(|value| (*value).to_owned()).collect()),
    };
    vec![
        number("CPU", cpu),
        number("MEMORY", memory),
        ports("PORTS", &["22", "2375", "51678"]),
        ports("PORTS_UDP", &[]),
    ]
}

pub fn container(name: &str) -> ecs::ContainerDefinition {
    ecs::ContainerDefinition {
        name: Some(name.to_owned()),
        image: Some("busybox".to_owned()),
        memory: Some(128),
        ..Default::default()
    }
}

/// A family `web` of one container of 256 CPU units and 512 MiB, in host mode.
pub fn web() -> ecs::RegisterTaskDefinitionRequest {
    let mut web = container("web");
    web.cpu = Some(256);
    web.memory = Some(512);
    ecs::RegisterTaskDefinitionRequest {
        family: "web".to_owned(),
        network_mode: Some(ecs::NetworkMode::Host),
        container_definitions: vec![web],
        ..Default::default()
    }
}

pub fn run(task_definition: &str) -> ecs::RunTaskRequest {
    ecs::RunTaskRequest {
        task_definition: task_definition.to_owned(),
        ..Default::default()
    }
}

pub fn report(
    arn: &str,
    status: &str,
    exit_code: Option<i32>,
) -> ecs::SubmitTaskStateChangeRequest {
    ecs::SubmitTaskStateChangeRequest {
        cluster: Some(cluster_of(arn)),
        task: Some(arn.to_owned()),
        status: Some(status.to_owned()),
        containers: Some(vec![ecs::ContainerStateChange {
            container_name: Some("web".to_owned()),
            status: Some(status.to_owned()),
            runtime_id: Some("abc-123".to_owned()),
            exit_code,
            ..Default::default()
        }]),
        ..Default::default()
    }
}

pub fn tag(key: &str, value: &str) -> ecs::Tag {
    ecs::Tag {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    }
}
