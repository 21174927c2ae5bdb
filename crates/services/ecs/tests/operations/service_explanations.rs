//! What is said of a service: what it waits for, and why.

use std::time::Duration;

use gantry_api::ecs::{self, Ecs as _};
use gantry_ecs::controllers::Services;
use gantry_ecs::explain;
use gantry_ecs::tables::{HealthStatus, TaskHealthRow};
use gantry_reconcile::Controller;
use gantry_store::Transaction;

use crate::harness::{Harness, done, refusal, web};

fn reconcile(harness: &Harness) {
    let services = Services::of(&harness.service);
    for _ in 0..20 {
        for key in services.all_keys(&harness.store.snapshot()) {
            let snapshot = harness.store.snapshot();
            let plan = services.reconcile(&snapshot, harness.env.now(), &key);
            done(harness.store.commit(plan.transaction)).unwrap();
        }
    }
}

fn create(harness: &Harness, desired: i32) {
    let breaker = ecs::DeploymentCircuitBreaker {
        enable: true,
        rollback: true,
        ..Default::default()
    };
    let input = ecs::CreateServiceRequest {
        service_name: "web".to_owned(),
        task_definition: Some("web".to_owned()),
        desired_count: Some(desired),
        deployment_configuration: Some(ecs::DeploymentConfiguration {
            deployment_circuit_breaker: Some(breaker),
            ..Default::default()
        }),
        ..Default::default()
    };
    done(harness.service.create_service(&harness.ctx(), input)).unwrap();
    reconcile(harness);
}

fn tasks(harness: &Harness) -> Vec<String> {
    let input = ecs::ListTasksRequest {
        service_name: Some("web".to_owned()),
        ..Default::default()
    };
    let answer = done(harness.service.list_tasks(&harness.ctx(), input)).unwrap();
    answer.task_arns.unwrap()
}

fn said(harness: &Harness) -> String {
    let (snapshot, scope) = (harness.store.snapshot(), harness.scope());
    let told = explain::service(&snapshot, &scope, None, "web", harness.env.now());
    told.unwrap().sentences.join("\n")
}

#[track_caller]
fn says(harness: &Harness, words: &[&str]) {
    let said = said(harness);
    for words in words {
        assert!(said.contains(words), "'{words}' is missing in\n{said}");
    }
}

#[test]
fn what_a_service_waits_for_from_its_creation_to_its_steady_state() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    create(&harness, 2);
    says(
        &harness,
        &[
            "It shall have 2 tasks and has 0 RUNNING and 2 PENDING.",
            "at least 2 stay up and at most 4 are",
            "is IN_PROGRESS since",
            "has counted 0 of 3 failed tasks",
            "none was completed that it could roll back to",
            "is not RUNNING yet. The task was placed on",
        ],
    );
    for task in tasks(&harness) {
        harness.submit(&task, "RUNNING", None);
    }
    reconcile(&harness);
    says(
        &harness,
        &["2 of its tasks run, and nothing checks their health"],
    );
    harness.env.advance(Duration::from_secs(40));
    reconcile(&harness);
    says(
        &harness,
        &[
            "is COMPLETED since",
            "then it rolls back to web:1",
            "It is steady: it waits for nothing.",
        ],
    );
}

#[test]
fn tasks_that_do_not_start_are_told_of_with_the_time_until_the_next_try() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    create(&harness, 1);
    harness.submit(&tasks(&harness)[0], "STOPPED", None);
    reconcile(&harness);
    says(
        &harness,
        &[
            "Starts are put off until",
            "1 times in a row",
            "has counted 1 of 3 failed tasks",
            "The task failed to start",
        ],
    );
}

#[test]
fn what_finds_no_place_is_told_for_each_container_instance() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    create(&harness, 17);
    let id = instance.rsplit('/').next().unwrap();
    says(
        &harness,
        &[
            "A task has found no place since",
            &format!("Container instance {id}: it has 0 CPU units free and the task needs 256"),
        ],
    );
}

#[test]
fn the_check_that_failed_is_told_with_what_it_saw() {
    let (harness, _) = Harness::with_instance();
    let mut definition = web();
    definition.container_definitions[0].health_check = Some(ecs::HealthCheck {
        command: vec!["CMD-SHELL".to_owned(), "wget -qO- localhost".to_owned()],
        ..Default::default()
    });
    harness.register(definition).unwrap();
    create(&harness, 1);
    let task = tasks(&harness).remove(0);
    harness.submit(&task, "RUNNING", None);
    reconcile(&harness);
    says(
        &harness,
        &[
            "waits for the first result of its health check (web: CMD-SHELL wget -qO- localhost every 30 s)",
        ],
    );
    let row = TaskHealthRow {
        status: HealthStatus::Unhealthy,
        containers: [("web".to_owned(), HealthStatus::Unhealthy)].into(),
        found: [("web".to_owned(), "exit code 1: refused\n".to_owned())].into(),
    };
    let scope = harness.scope();
    let name = format!("default/{}", task.rsplit('/').next().unwrap());
    let mut transaction = Transaction::new();
    transaction.write::<TaskHealthRow>(&scope.account, &scope.region, &name, &row);
    done(harness.store.commit(transaction)).unwrap();
    says(
        &harness,
        &[
            "is UNHEALTHY and will be replaced. The health check of container web failed: exit code 1: refused",
        ],
    );
}

#[test]
fn a_name_that_is_not_there_is_answered_with_those_that_are() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    create(&harness, 1);
    let explain = |cluster: Option<&str>, name: &str| {
        let (snapshot, scope) = (harness.store.snapshot(), harness.scope());
        explain::service(&snapshot, &scope, cluster, name, harness.env.now())
    };
    let (code, message) = refusal(explain(None, "wbe"));
    assert_eq!(code, "ServiceNotFoundException");
    assert!(message.contains("There are: web."), "{message}");
    let (code, message) = refusal(explain(Some("prod"), "web"));
    assert_eq!(code, "ClusterNotFoundException");
    assert!(message.contains("list-clusters"), "{message}");
    let arn = harness
        .scope()
        .service_arn(&"default".parse().unwrap(), &"web".parse().unwrap());
    assert!(explain(None, &arn).is_ok());
}
