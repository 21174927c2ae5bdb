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
        &["is COMPLETED since", "It is steady: it waits for nothing."],
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
            "A task has found no place,",
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

fn update(harness: &Harness, input: ecs::UpdateServiceRequest) {
    let input = ecs::UpdateServiceRequest {
        service: "web".to_owned(),
        ..input
    };
    done(harness.service.update_service(&harness.ctx(), input)).unwrap();
    reconcile(harness);
}

/// All tasks that wait run, and are healthy.
fn come_up(harness: &Harness) {
    for task in tasks(harness) {
        if harness.task(&task).last_status.as_deref() == Some("PENDING") {
            harness.submit(&task, "RUNNING", None);
        }
    }
    reconcile(harness);
    harness.env.advance(Duration::from_secs(40));
    reconcile(harness);
}

fn roll(harness: &Harness) {
    update(
        harness,
        ecs::UpdateServiceRequest {
            force_new_deployment: Some(true),
            ..Default::default()
        },
    );
}

#[test]
fn who_must_answer_a_blue_green_deployment_is_told() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    create(&harness, 2);
    come_up(&harness);
    let pause = ecs::DeploymentLifecycleHook {
        target_type: Some(ecs::DeploymentLifecycleHookTargetType::Pause),
        lifecycle_stages: Some(vec!["POST_SCALE_UP".into()]),
        ..Default::default()
    };
    update(
        &harness,
        ecs::UpdateServiceRequest {
            force_new_deployment: Some(true),
            deployment_configuration: Some(ecs::DeploymentConfiguration {
                strategy: Some(ecs::DeploymentStrategy::BlueGreen),
                bake_time_in_minutes: Some(5),
                lifecycle_hooks: Some(vec![pause]),
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    says(
        &harness,
        &[
            "is blue, and stays until CLEAN_UP",
            "in stage SCALE_UP for 0 s and waits until all of green's tasks are healthy",
        ],
    );
    come_up(&harness);
    says(
        &harness,
        &[
            "in stage POST_SCALE_UP for",
            "The pause hook ecs-pause-",
            "which then counts as ROLLBACK",
            "aws ecs continue-service-deployment --service-deployment-arn arn:aws:ecs:",
        ],
    );
}

#[test]
fn bounds_that_deadlock_are_told() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    create(&harness, 1);
    come_up(&harness);
    update(
        &harness,
        ecs::UpdateServiceRequest {
            deployment_configuration: Some(ecs::DeploymentConfiguration {
                maximum_percent: Some(150),
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    assert!(
        !said(&harness).contains("deadlock"),
        "nothing is to be replaced"
    );
    roll(&harness);
    says(
        &harness,
        &[
            "The minimum and the maximum deadlock: minimumHealthyPercent 100 of 1 is 1 (rounded up) and maximumPercent 150 is 1",
        ],
    );
}

#[test]
fn protected_tasks_are_told_where_they_are_in_the_way() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    create(&harness, 2);
    come_up(&harness);
    let input = ecs::UpdateTaskProtectionRequest {
        cluster: "default".to_owned(),
        tasks: tasks(&harness),
        protection_enabled: true,
        expires_in_minutes: Some(60),
    };
    done(
        harness
            .service
            .update_task_protection(&harness.ctx(), input),
    )
    .unwrap();
    reconcile(&harness);
    assert!(
        !said(&harness).contains("protected"),
        "they are in nobody's way"
    );
    update(
        &harness,
        ecs::UpdateServiceRequest {
            desired_count: Some(1),
            ..Default::default()
        },
    );
    says(
        &harness,
        &[
            "is protected until",
            "UpdateTaskProtection ends that sooner",
        ],
    );
}

#[test]
fn a_deployment_that_has_failed_is_told_to_replace_nothing() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    create(&harness, 1);
    for _ in 0..3 {
        harness.submit(&tasks(&harness)[0], "STOPPED", None);
        reconcile(&harness);
        harness.env.advance(Duration::from_secs(60));
        reconcile(&harness);
    }
    says(
        &harness,
        &["The deployment has failed: nothing of it is started or replaced any more"],
    );
    assert!(
        !said(&harness).contains("has counted"),
        "{}",
        said(&harness)
    );
}

#[test]
fn a_cluster_without_container_instances_is_told() {
    let harness = Harness::new();
    harness.create_cluster("default");
    harness.register_web();
    create(&harness, 1);
    says(&harness, &["Cluster default has no container instances"]);
}
