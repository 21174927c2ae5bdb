//! What tests ask for, in short words.

use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

/// The service `web`: so many of a revision.
pub fn web(count: i32, definition: &str) -> ecs::CreateServiceRequest {
    ecs::CreateServiceRequest {
        service_name: "web".to_owned(),
        task_definition: Some(definition.to_owned()),
        desired_count: Some(count),
        availability_zone_rebalancing: Some(ecs::AvailabilityZoneRebalancing::Disabled),
        ..Default::default()
    }
}

pub fn change() -> ecs::UpdateServiceRequest {
    ecs::UpdateServiceRequest {
        service: "web".to_owned(),
        ..Default::default()
    }
}

pub fn to_revision(definition: &str) -> ecs::UpdateServiceRequest {
    ecs::UpdateServiceRequest {
        task_definition: Some(definition.to_owned()),
        ..change()
    }
}

pub fn to_count(count: i32) -> ecs::UpdateServiceRequest {
    ecs::UpdateServiceRequest {
        desired_count: Some(count),
        ..change()
    }
}

/// `minimumHealthyPercent` and `maximumPercent`.
pub fn within(minimum: i32, maximum: i32) -> ecs::DeploymentConfiguration {
    ecs::DeploymentConfiguration {
        minimum_healthy_percent: Some(minimum),
        maximum_percent: Some(maximum),
        ..Default::default()
    }
}

pub fn breaker(rollback: bool) -> ecs::DeploymentCircuitBreaker {
    ecs::DeploymentCircuitBreaker {
        enable: true,
        rollback,
        ..Default::default()
    }
}

pub fn with_breaker(breaker: ecs::DeploymentCircuitBreaker) -> ecs::DeploymentConfiguration {
    ecs::DeploymentConfiguration {
        deployment_circuit_breaker: Some(breaker),
        ..Default::default()
    }
}

/// A stage on which `web` runs so many good tasks, COMPLETED and steady.
pub fn running(machines: &[i64], count: i32, configuration: ecs::DeploymentConfiguration) -> Stage {
    let mut stage = Stage::new(machines);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(ecs::CreateServiceRequest {
        deployment_configuration: Some(configuration),
        ..web(count, &good)
    });
    steady(&mut stage);
    stage
}

pub fn is_steady(stage: &Stage) -> bool {
    let service = stage.service();
    let deployments = service.deployments.unwrap_or_default();
    deployments.len() == 1
        && rollout(&deployments[0]) == "COMPLETED"
        && service.running_count == service.desired_count
        && service.pending_count == Some(0)
}

/// Until all is as it was asked for, and has been said to be. Gives the seconds.
pub fn steady(stage: &mut Stage) -> u64 {
    stage.until(1_200, "steady", |stage| {
        is_steady(stage)
            && stage
                .messages()
                .first()
                .is_some_and(|said| said.ends_with("has reached a steady state."))
    })
}

pub fn rollout(deployment: &ecs::Deployment) -> &str {
    let state = deployment.rollout_state.as_ref();
    state.map_or("", |state| state.as_str())
}

pub fn primary(stage: &Stage) -> ecs::Deployment {
    stage.deployments().remove(0)
}

pub fn is_running(task: &ecs::Task) -> bool {
    task.last_status.as_deref() == Some("RUNNING")
}

pub fn revision_of(task: &ecs::Task) -> &str {
    let arn = task.task_definition_arn.as_deref().unwrap_or_default();
    arn.rsplit('/').next().unwrap_or_default()
}

pub fn arns(tasks: &[ecs::Task]) -> Vec<String> {
    let mut arns: Vec<String> = tasks.iter().filter_map(|it| it.task_arn.clone()).collect();
    arns.sort();
    arns
}

/// The tasks of `web` on a machine.
pub fn on(stage: &Stage, machine: usize) -> Vec<ecs::Task> {
    let arn = stage.instance(machine);
    let mut tasks = stage.tasks("web");
    tasks.retain(|it| it.container_instance_arn.as_ref() == Some(&arn));
    tasks
}

/// How many tasks of `web` each zone has.
pub fn zones(stage: &Stage) -> [usize; 2] {
    let tasks = stage.tasks("web");
    ["zone-a", "zone-b"].map(|zone| {
        let there = tasks.iter();
        there
            .filter(|it| it.availability_zone.as_deref() == Some(zone))
            .count()
    })
}

/// How many tasks of `web` run.
pub fn up(stage: &Stage) -> usize {
    stage
        .tasks("web")
        .iter()
        .filter(|it| is_running(it))
        .count()
}

/// How many tasks of this revision run.
pub fn of_revision(stage: &Stage, definition: &str) -> usize {
    let tasks = stage.tasks("web");
    tasks
        .iter()
        .filter(|it| is_running(it) && revision_of(it) == definition)
        .count()
}

pub fn strategy(kind: ecs::PlacementStrategyType, field: &str) -> ecs::PlacementStrategy {
    ecs::PlacementStrategy {
        r#type: Some(kind),
        field: Some(field.to_owned()),
    }
}

pub fn member_of(expression: &str) -> ecs::PlacementConstraint {
    ecs::PlacementConstraint {
        r#type: Some(ecs::PlacementConstraintType::MemberOf),
        expression: Some(expression.to_owned()),
    }
}

pub fn status(deployment: &ecs::ServiceDeployment) -> String {
    deployment.status.as_ref().expect("a status").to_string()
}

/// The message of a refusal.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, ecs::EcsError>) -> String {
    format!("{:?}", answer.expect_err("a refusal"))
}
