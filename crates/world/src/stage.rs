//! A world that a test directs: the whole control plane and simulated agents on virtual time, nothing that goes
//! wrong by chance, and whatever the test asks for. Every law of the world holds here as well.
//!
//! What always holds: time passes only in [`Stage::run`] and [`Stage::until`]; the same test plays the same.
//! What it leaves to others: what must be seen (the tests).

use std::time::Duration;

use gantry_api::ecs::{self, EcsError};
use gantry_env::Timestamp;

use crate::faults::{Fault, Faults};
use crate::founding::{self, PLANNED, Size};
use crate::network::Losses;
use crate::runtime::Behaviour;
use crate::services;
use crate::world::{Settings, World};

pub struct Stage {
    world: World,
    required: Vec<ecs::Attribute>,
}

impl Stage {
    /// With machines that have room for so many tasks each, in the zones `zone-a` and `zone-b` by turns.
    pub fn new(machines: &[i64]) -> Stage {
        let settings = Settings {
            faults: Faults {
                losses: Losses::PROMPT,
                ..Faults::NONE
            },
            machines: 0,
            looks_every: Duration::ZERO,
            ..Settings::services()
        };
        let mut world = World::new(0, settings);
        let required = world.open();
        let mut stage = Stage { world, required };
        for (number, tasks) in machines.iter().enumerate() {
            stage.add_machine(*tasks, ["zone-a", "zone-b"][number % 2]);
        }
        stage.run(5);
        stage
    }

    /// A machine with room for so many tasks joins. Gives its number.
    pub fn add_machine(&mut self, tasks: i64, zone: &str) -> usize {
        let size = Size {
            cpu: PLANNED.cpu * tasks,
            memory: PLANNED.memory * tasks,
        };
        self.world.add_machine(&self.required, size, Some(zone));
        self.world.calm(self.world.machines() - 1)
    }

    /// A new revision of the family `web`, whose containers behave so. With a health check if it is `checked`.
    pub fn define(&mut self, behaviour: Behaviour, checked: bool) -> String {
        let definition = founding::define(&self.world.control, "web", behaviour, checked);
        format!("web:{}", definition.revision.expect("a revision"))
    }

    /// The same, with something about it changed.
    pub fn define_otherwise(
        &mut self,
        behaviour: Behaviour,
        change: impl FnOnce(&mut ecs::RegisterTaskDefinitionRequest),
    ) -> String {
        let mut request = founding::planned("web", behaviour, false);
        change(&mut request);
        let definition = founding::register(&self.world.control, request);
        format!("web:{}", definition.revision.expect("a revision"))
    }

    /// From now on every tag stands for another image.
    pub fn push_images(&mut self) {
        self.world.push_images();
    }

    pub fn now(&self) -> Timestamp {
        self.world.control.now()
    }

    pub fn run(&mut self, seconds: u64) {
        self.world.run_for(Duration::from_secs(seconds));
    }

    /// Lets time pass, second by second, until it is so. Gives how many seconds that took.
    pub fn until(&mut self, within_s: u64, what: &str, is_so: impl Fn(&Stage) -> bool) -> u64 {
        for second in 0..=within_s {
            if is_so(self) {
                return second;
            }
            self.run(1);
        }
        panic!(
            "not within {within_s} s: {what}; {:?}, {:#?}",
            self.tasks("web"),
            services::describe(&self.world.control, "web")
        );
    }

    /// The service `web` as it is described.
    pub fn service(&self) -> ecs::Service {
        services::describe(&self.world.control, "web").expect("a service")
    }

    pub fn try_service(&self) -> Option<ecs::Service> {
        services::describe(&self.world.control, "web")
    }

    /// The deployments of `web`, the PRIMARY one first.
    pub fn deployments(&self) -> Vec<ecs::Deployment> {
        self.service().deployments.unwrap_or_default()
    }

    /// The texts of its events, newest first.
    pub fn messages(&self) -> Vec<String> {
        let events = self.service().events.unwrap_or_default();
        events
            .into_iter()
            .filter_map(|event| event.message)
            .collect()
    }

    /// The tasks of a service that are meant to run.
    pub fn tasks(&self, service: &str) -> Vec<ecs::Task> {
        self.described(services::list(&self.world.control, service))
    }

    /// All of its tasks, also those that have stopped and are still shown.
    pub fn all_tasks(&self) -> Vec<ecs::Task> {
        let (account, region) = self.world.control.place();
        let names = self.world.laws.mirror.tasks.keys();
        let arns = names.filter_map(|name| {
            let (cluster, id) = name.split_once('/')?;
            let (cluster, id) = (cluster.parse().ok()?, id.parse().ok()?);
            Some(gantry_arn::Arn::task(region, account, &cluster, &id).to_string())
        });
        let mut tasks = self.described(arns.collect());
        tasks.sort_by_key(|task| task.created_at);
        tasks
    }

    fn described(&self, arns: Vec<String>) -> Vec<ecs::Task> {
        let mut tasks = Vec::new();
        for some in arns.chunks(100) {
            let request = ecs::DescribeTasksRequest {
                tasks: some.to_vec(),
                ..Default::default()
            };
            let answer =
                self.call(|ecs, ctx| async move { ecs.describe_tasks(&ctx, request).await });
            tasks.extend(answer.expect("tasks").tasks.into_iter().flatten());
        }
        tasks
    }

    /// The slot of a task in its service.
    pub fn slot(&self, task: &ecs::Task) -> u32 {
        let arn = task.task_arn.as_deref().unwrap_or_default();
        let id = arn.rsplit('/').next().unwrap_or_default();
        let tasks = &self.world.laws.mirror.tasks;
        let state = &tasks[&format!("default/{id}")];
        state.spec.replica.as_ref().expect("a replica").slot
    }

    pub fn create(&mut self, request: ecs::CreateServiceRequest) -> ecs::Service {
        self.try_create(request).expect("a service")
    }

    pub fn try_create(
        &mut self,
        request: ecs::CreateServiceRequest,
    ) -> Result<ecs::Service, EcsError> {
        let answer = self.call(|ecs, ctx| async move { ecs.create_service(&ctx, request).await });
        self.take_in();
        answer.map(|answer| answer.service.expect("a service"))
    }

    pub fn update(&mut self, request: ecs::UpdateServiceRequest) -> ecs::Service {
        self.try_update(request).expect("a service")
    }

    pub fn try_update(
        &mut self,
        request: ecs::UpdateServiceRequest,
    ) -> Result<ecs::Service, EcsError> {
        let answer = self.call(|ecs, ctx| async move { ecs.update_service(&ctx, request).await });
        self.take_in();
        answer.map(|answer| answer.service.expect("a service"))
    }

    pub fn delete(&mut self, force: bool) -> Result<ecs::Service, EcsError> {
        let request = ecs::DeleteServiceRequest {
            service: "web".to_owned(),
            force: Some(force),
            ..Default::default()
        };
        let answer = self.call(|ecs, ctx| async move { ecs.delete_service(&ctx, request).await });
        self.take_in();
        answer.map(|answer| answer.service.expect("a service"))
    }

    /// Stops the deployment that was asked for last.
    pub fn stop_deployment(&mut self) -> Result<(), EcsError> {
        let request = ecs::StopServiceDeploymentRequest {
            service_deployment_arn: self
                .service()
                .current_service_deployment
                .expect("a deployment"),
            ..Default::default()
        };
        let answer =
            self.call(|ecs, ctx| async move { ecs.stop_service_deployment(&ctx, request).await });
        self.take_in();
        answer.map(drop)
    }

    /// Answers the hook that awaits it.
    pub fn answer(&mut self, action: ecs::DeploymentLifecycleHookAction) {
        let deployment = self.service_deployment();
        let mut hooks = deployment.lifecycle_hook_details.into_iter().flatten();
        let awaits = |hook: &ecs::DeploymentLifecycleHookDetail| {
            hook.status.as_ref().map(|it| it.as_str()) == Some("AWAITING_ACTION")
        };
        let hook = hooks.find(awaits).expect("a hook that awaits an answer");
        let request = ecs::ContinueServiceDeploymentRequest {
            action: Some(action),
            hook_id: hook.hook_id.expect("an id"),
            service_deployment_arn: deployment.service_deployment_arn.expect("an ARN"),
        };
        let answer = self
            .call(|ecs, ctx| async move { ecs.continue_service_deployment(&ctx, request).await });
        answer.expect("it awaits an answer");
        self.take_in();
    }

    /// The service deployment that was asked for last.
    pub fn service_deployment(&self) -> ecs::ServiceDeployment {
        let arn = self.service().current_service_deployment;
        self.service_deployment_of(&arn.expect("a deployment"))
    }

    pub fn service_deployment_of(&self, arn: &str) -> ecs::ServiceDeployment {
        let request = ecs::DescribeServiceDeploymentsRequest {
            service_deployment_arns: vec![arn.to_owned()],
        };
        let answer = self
            .call(|ecs, ctx| async move { ecs.describe_service_deployments(&ctx, request).await });
        let found = answer.expect("service deployments").service_deployments;
        found.into_iter().flatten().next().expect("a deployment")
    }

    /// Protects tasks for so many minutes, or not any more.
    pub fn protect(&mut self, tasks: &[ecs::Task], minutes: Option<i32>) {
        let answer = self.try_protect(tasks, minutes.is_some(), minutes);
        assert_eq!(answer.expect("protection").failures.unwrap_or_default(), []);
    }

    pub fn try_protect(
        &mut self,
        tasks: &[ecs::Task],
        enabled: bool,
        minutes: Option<i32>,
    ) -> Result<ecs::UpdateTaskProtectionResponse, EcsError> {
        let request = ecs::UpdateTaskProtectionRequest {
            cluster: "default".to_owned(),
            tasks: tasks.iter().filter_map(|it| it.task_arn.clone()).collect(),
            protection_enabled: enabled,
            expires_in_minutes: minutes,
        };
        let answer =
            self.call(|ecs, ctx| async move { ecs.update_task_protection(&ctx, request).await });
        self.take_in();
        answer
    }

    /// A task that belongs to no service, on this machine.
    pub fn start_task(&mut self, machine: usize, definition: &str) -> ecs::Task {
        let request = ecs::StartTaskRequest {
            container_instances: vec![self.instance(machine)],
            task_definition: definition.to_owned(),
            ..Default::default()
        };
        let answer = self.call(|ecs, ctx| async move { ecs.start_task(&ctx, request).await });
        self.take_in();
        let started = answer.expect("an answer").tasks;
        started.into_iter().flatten().next().expect("a task")
    }

    /// Gives a machine's container instance an attribute.
    pub fn put_attribute(&mut self, machine: usize, name: &str, value: &str) {
        let request = ecs::PutAttributesRequest {
            attributes: vec![ecs::Attribute {
                name: name.to_owned(),
                value: Some(value.to_owned()),
                target_id: Some(self.instance(machine)),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = self.call(|ecs, ctx| async move { ecs.put_attributes(&ctx, request).await });
        answer.expect("an attribute");
        self.take_in();
    }

    /// Nothing passes to or from a machine for so long.
    pub fn cut_off(&mut self, machine: usize, seconds: u64) {
        let heals_after = Duration::from_secs(seconds);
        self.world
            .apply_on(machine, Fault::Partition { heals_after });
        self.take_in();
    }

    pub fn stop_task(&mut self, task: &ecs::Task) {
        let request = ecs::StopTaskRequest {
            task: task.task_arn.clone().expect("an ARN"),
            ..Default::default()
        };
        let answer = self.call(|ecs, ctx| async move { ecs.stop_task(&ctx, request).await });
        answer.expect("a task");
        self.take_in();
    }

    /// Sets a machine's container instance to DRAINING or back to ACTIVE.
    pub fn set_state(&mut self, machine: usize, status: &str) {
        let arn = self.instance(machine);
        services::set_state(&self.world.control, &arn, status);
        self.take_in();
    }

    /// The ARN of a machine's container instance.
    pub fn instance(&self, machine: usize) -> String {
        self.world.instance(machine)
    }

    /// A machine loses its power, and all that ran there, for so long.
    pub fn power_cut(&mut self, machine: usize, seconds: u64) {
        let back_after = Duration::from_secs(seconds);
        self.world.apply_on(machine, Fault::PowerCut { back_after });
        self.take_in();
    }

    /// The control plane is killed, and comes back after so long.
    pub fn kill_control(&mut self, seconds: u64) {
        let back_after = Duration::from_secs(seconds);
        self.world.apply_on(0, Fault::ControlDies { back_after });
        self.take_in();
    }

    /// How many events there have been in this world.
    pub fn events(&self) -> u64 {
        self.world.events()
    }

    /// How much has been written about services, but for what was forgotten in time.
    pub fn writes(&self) -> u64 {
        self.world.laws.writes
    }

    /// A controller that has just looked at a service rests for some milliseconds before it looks again.
    fn take_in(&mut self) {
        self.world.settle();
        self.world.run_for(Duration::from_millis(10));
    }

    fn call<T, F>(
        &self,
        call: impl FnOnce(std::sync::Arc<dyn ecs::Ecs>, gantry_api::RequestContext) -> F,
    ) -> Result<T, EcsError>
    where
        F: Future<Output = Result<T, EcsError>>,
    {
        let answer = self.world.control.call(call);
        answer.expect("the control plane is up")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What a failed test last saw is worth reading.
        self.world.end(std::thread::panicking());
    }
}
