//! What a program that ends by itself means for its deployment: a failure, if a health check was to pass and
//! never has.

use std::time::Duration;

use gantry_api::ecs;
use gantry_ecs::tables::{HealthStatus, TaskHealthRow};
use gantry_store::Transaction;

use crate::harness::{done, web};
use crate::services::{
    HEALTHY_AFTER, Plane, change, describe_deployment, list_deployments, three, with_breaker,
};

fn checked() -> ecs::RegisterTaskDefinitionRequest {
    let mut definition = web();
    definition.container_definitions[0].health_check = Some(ecs::HealthCheck {
        command: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
        ..Default::default()
    });
    definition
}

fn find_healthy(plane: &Plane, task: &str) {
    let row = TaskHealthRow {
        status: HealthStatus::Healthy,
        containers: [("web".to_owned(), HealthStatus::Healthy)].into(),
        found: Default::default(),
    };
    let scope = plane.harness.scope();
    let name = format!("default/{}", task.rsplit('/').next().unwrap());
    let mut transaction = Transaction::new();
    transaction.write::<TaskHealthRow>(&scope.account, &scope.region, &name, &row);
    done(plane.harness.store.commit(transaction)).unwrap();
    plane.settle();
}

/// `web:1` runs whole, without a check, and `web:2` is deployed.
fn deployed(second: ecs::RegisterTaskDefinitionRequest) -> Plane {
    let (plane, _) = Plane::new();
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: with_breaker(true),
        ..three()
    });
    plane.converge();
    plane.harness.register(second).unwrap();
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some("web:2".to_owned()),
        ..change()
    });
    plane
}

/// Each task of the revision runs, and ends by itself.
fn run_and_end(plane: &Plane, revision: i32) {
    for task in plane.tasks_of(revision) {
        let arn = task.task_arn.unwrap();
        plane.harness.submit(&arn, "RUNNING", None);
        plane.harness.submit(&arn, "STOPPED", Some(1));
    }
    plane.settle();
}

#[test]
fn what_ends_before_its_health_check_has_passed_opens_the_circuit_breaker() {
    let plane = deployed(checked());
    assert_eq!(plane.tasks_of(2).len(), 3);
    let arn = list_deployments(&plane)[0]
        .service_deployment_arn
        .clone()
        .unwrap();
    run_and_end(&plane, 2);
    let whole = describe_deployment(&plane, &arn);
    let breaker = whole.deployment_circuit_breaker.unwrap();
    assert_eq!(
        (breaker.failure_count, breaker.threshold),
        (Some(3), Some(3))
    );
    plane.converge();
    assert_eq!((plane.tasks_of(1).len(), plane.tasks().len()), (3, 3));
    let status = describe_deployment(&plane, &arn).status.unwrap();
    assert_eq!(status, ecs::ServiceDeploymentStatus::RollbackSuccessful);
}

#[test]
fn what_ends_after_it_was_healthy_is_no_failure_and_puts_no_start_off() {
    let plane = deployed(checked());
    for task in plane.tasks_of(2) {
        let arn = task.task_arn.unwrap();
        plane.harness.submit(&arn, "RUNNING", None);
        find_healthy(&plane, &arn);
        plane.advance(Duration::from_secs(11));
        plane.harness.submit(&arn, "STOPPED", Some(1));
        plane.settle();
    }
    let primary = plane.service().deployments.unwrap().remove(0);
    assert_eq!(primary.failed_tasks, Some(0));
    assert_eq!(primary.rollout_state.unwrap().as_str(), "IN_PROGRESS");
    assert!(plane.tasks_of(2).len() >= 3);
}

#[test]
fn where_nothing_checks_what_ran_and_ended_is_no_failure() {
    let plane = deployed(web());
    for _ in 0..3 {
        run_and_end(&plane, 2);
        plane.advance(Duration::from_secs(10));
    }
    let primary = plane.service().deployments.unwrap().remove(0);
    assert_eq!(primary.failed_tasks, Some(0));
    assert_eq!(primary.rollout_state.unwrap().as_str(), "IN_PROGRESS");
    assert_eq!(
        plane.tasks_of(1).len(),
        3,
        "nothing is taken from the revision before"
    );
}

#[test]
fn what_ends_over_and_over_without_a_circuit_breaker_is_counted_only_so_far() {
    let (plane, _) = Plane::new();
    plane.harness.register(checked()).unwrap();
    plane.create(ecs::CreateServiceRequest {
        desired_count: Some(16),
        ..three()
    });
    for _ in 0..70 {
        run_and_end(&plane, 2);
        plane.advance(Duration::from_secs(10));
    }
    let primary = plane.service().deployments.unwrap().remove(0);
    let failed = primary.failed_tasks.unwrap();
    assert!((1000..1016).contains(&failed), "{failed}");
    assert_eq!(primary.rollout_state.unwrap().as_str(), "IN_PROGRESS");
}

#[test]
fn a_deployment_that_is_returned_to_is_not_blamed_for_what_ended_before() {
    let (plane, _) = Plane::new();
    plane.harness.register(checked()).unwrap();
    plane.create(ecs::CreateServiceRequest {
        deployment_configuration: with_breaker(true),
        ..three()
    });
    for task in plane.tasks() {
        let arn = task.task_arn.unwrap();
        plane.harness.submit(&arn, "RUNNING", None);
        find_healthy(&plane, &arn);
    }
    assert_eq!(plane.rollout().0, "COMPLETED");
    // Replacements of a completed deployment end again and again; those of the next one as well.
    for _ in 0..3 {
        run_and_end(&plane, 2);
        plane.advance(Duration::from_secs(10));
    }
    assert_eq!(plane.rollout().0, "COMPLETED");
    for task in plane.tasks() {
        let arn = task.task_arn.unwrap();
        plane.harness.submit(&arn, "RUNNING", None);
    }
    plane.settle();
    plane.harness.register(checked()).unwrap();
    plane.update(ecs::UpdateServiceRequest {
        task_definition: Some("web:3".to_owned()),
        ..change()
    });
    run_and_end(&plane, 3);
    let status = list_deployments(&plane)[0].status.clone().unwrap();
    assert_eq!(status, ecs::ServiceDeploymentStatus::RollbackInProgress);
    for _ in 0..3 {
        for task in plane.tasks() {
            let arn = task.task_arn.unwrap();
            if task.last_status.as_deref() == Some("PENDING") {
                plane.harness.submit(&arn, "RUNNING", None);
            }
            find_healthy(&plane, &arn);
        }
        plane.nodes_work();
        plane.advance(HEALTHY_AFTER);
    }
    let status = list_deployments(&plane)[0].status.clone().unwrap();
    assert_eq!(status, ecs::ServiceDeploymentStatus::RollbackSuccessful);
}
