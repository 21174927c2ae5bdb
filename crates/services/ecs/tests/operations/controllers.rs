//! The controllers, stepped by hand: what they do, and that doing it twice does nothing.

use std::time::Duration;

use gantry_api::ecs::{
    DeleteTaskDefinitionsRequest, DeregisterContainerInstanceRequest,
    DeregisterTaskDefinitionRequest, DescribeTaskDefinitionRequest, DescribeTasksRequest, Ecs as _,
    TaskStopCode,
};
use gantry_ecs::controllers::{
    CLIENT_TOKEN_RETENTION, ClientTokenExpiry, DeregisteredInstances, INACTIVE_INSTANCE_RETENTION,
    STOPPED_TASK_RETENTION, StateChangeRetention, StoppedTaskRetention, TaskDefinitionDeletion,
};
use gantry_reconcile::Controller;

use crate::harness::{Harness, done, run};

/// Reconciles every key until nothing is planned, then once more: that must plan nothing either.
fn settle<C: Controller>(harness: &Harness, controller: &C) -> usize {
    let mut commits = 0;
    loop {
        let before = commits;
        for key in controller.all_keys(&harness.store.snapshot()) {
            let snapshot = harness.store.snapshot();
            let plan = controller.reconcile(&snapshot, harness.env.now(), &key);
            if !plan.is_nothing() {
                done(harness.store.commit(plan.transaction)).unwrap();
                commits += 1;
            }
        }
        if commits == before {
            return commits;
        }
        assert!(commits < 1000, "{} does not settle", controller.name());
    }
}

fn settle_all(harness: &Harness) -> usize {
    settle(harness, &StoppedTaskRetention::default())
        + settle(harness, &DeregisteredInstances)
        + settle(harness, &TaskDefinitionDeletion)
        + settle(harness, &ClientTokenExpiry)
}

fn is_there(harness: &Harness, arn: &str) -> bool {
    let input = DescribeTasksRequest {
        tasks: vec![arn.to_owned()],
        ..Default::default()
    };
    let answer = done(harness.service.describe_tasks(&harness.ctx(), input)).unwrap();
    !answer.tasks.unwrap().is_empty()
}

#[test]
fn a_stopped_task_is_shown_for_an_hour_and_then_gone() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    let (stopped, running) = (harness.run_one("web"), harness.run_one("web"));
    harness.stop(&stopped, "x").unwrap();
    harness.submit(&stopped, "STOPPED", Some(0));
    assert_eq!(settle_all(&harness), 0);
    let key = StoppedTaskRetention::default()
        .all_keys(&harness.store.snapshot())
        .into_iter()
        .find(|key| stopped.ends_with(key.name().rsplit('/').next().unwrap()))
        .unwrap();
    let plan = StoppedTaskRetention::default().reconcile(
        &harness.store.snapshot(),
        harness.env.now(),
        &key,
    );
    assert_eq!(
        plan.again_at,
        Some(harness.env.now() + STOPPED_TASK_RETENTION)
    );
    harness
        .env
        .advance(STOPPED_TASK_RETENTION - Duration::from_millis(1));
    assert_eq!(settle_all(&harness), 0);
    harness.env.advance(Duration::from_millis(1));
    assert_eq!(settle_all(&harness), 1);
    assert!(!is_there(&harness, &stopped) && is_there(&harness, &running));
    assert_eq!(harness.remaining(&instance, "CPU"), 4096 - 256);
    // The next placement sweeps its entry, and still counts the one that runs.
    harness.run_one("web");
    assert_eq!(harness.remaining(&instance, "CPU"), 4096 - 2 * 256);
}

#[test]
fn the_tasks_of_a_deregistered_instance_are_given_up() {
    let harness = Harness::new();
    harness.create_cluster("default");
    let instance = harness.register_instance(100_000, 100_000);
    harness.register_web();
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let mut input = run("web");
        input.count = Some(10);
        let started = harness.run(input).unwrap().tasks.unwrap();
        tasks.extend(started.into_iter().map(|task| task.task_arn.unwrap()));
    }
    harness.submit(&tasks[0], "RUNNING", None);
    harness.stop(&tasks[1], "mine").unwrap();
    harness.submit(&tasks[2], "STOPPED", Some(0));
    let input = DeregisterContainerInstanceRequest {
        container_instance: instance.clone(),
        force: Some(true),
        ..Default::default()
    };
    done(
        harness
            .service
            .deregister_container_instance(&harness.ctx(), input),
    )
    .unwrap();
    assert_eq!(settle_all(&harness), 3);
    for arn in &tasks {
        let task = harness.task(arn);
        assert_eq!(task.last_status.as_deref(), Some("STOPPED"), "{arn}");
        assert!(task.stopped_at.is_some());
    }
    let reason = |n: usize| harness.task(&tasks[n]).stopped_reason.unwrap();
    assert_eq!(
        reason(0),
        "Container instance deregistration forced by user"
    );
    assert_eq!(
        harness.task(&tasks[0]).stop_code,
        Some(TaskStopCode::UserInitiated)
    );
    assert_eq!(reason(1), "mine");
    assert_eq!(
        harness.task(&tasks[2]).stop_code,
        Some(TaskStopCode::EssentialContainerExited)
    );
    // A report that comes after all adds what happened, and takes nothing back.
    harness.submit(&tasks[0], "STOPPED", Some(9));
    assert_eq!(
        harness.task(&tasks[0]).containers.unwrap()[0].exit_code,
        Some(9)
    );
    assert_eq!(
        reason(0),
        "Container instance deregistration forced by user"
    );

    harness.env.advance(INACTIVE_INSTANCE_RETENTION);
    assert!(settle_all(&harness) > 0);
    settle(&harness, &StateChangeRetention::default());
    let snapshot = harness.store.snapshot();
    let prefix = gantry_store::Prefix::service_everywhere("ecs");
    let mut left: Vec<&str> = snapshot.scan(&prefix).map(|row| row.key().kind()).collect();
    left.dedup();
    assert_eq!(left, ["cluster", "family", "task-definition"]);
}

#[test]
fn a_deleted_definition_goes_with_its_last_task() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    let input = DeregisterTaskDefinitionRequest {
        task_definition: "web:1".to_owned(),
    };
    done(
        harness
            .service
            .deregister_task_definition(&harness.ctx(), input),
    )
    .unwrap();
    let input = DeleteTaskDefinitionsRequest {
        task_definitions: vec!["web:1".to_owned()],
    };
    done(
        harness
            .service
            .delete_task_definitions(&harness.ctx(), input),
    )
    .unwrap();
    let described = || {
        let input = DescribeTaskDefinitionRequest {
            task_definition: "web:1".to_owned(),
            include: None,
        };
        done(
            harness
                .service
                .describe_task_definition(&harness.ctx(), input),
        )
        .is_ok()
    };
    settle_all(&harness);
    assert!(described());
    harness.submit(&arn, "STOPPED", Some(0));
    harness.env.advance(STOPPED_TASK_RETENTION);
    assert_eq!(settle_all(&harness), 2);
    assert!(!described());
    assert_eq!(harness.register_web().revision, Some(2));
}

#[test]
fn a_client_token_is_forgotten_after_a_day() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let mut input = run("web");
    input.client_token = Some("t".to_owned());
    let first = harness.run(input.clone()).unwrap();
    harness
        .env
        .advance(CLIENT_TOKEN_RETENTION - Duration::from_secs(1));
    settle_all(&harness);
    assert_eq!(harness.run(input.clone()).unwrap(), first);
    harness.env.advance(Duration::from_secs(1));
    settle_all(&harness);
    assert_ne!(harness.run(input).unwrap(), first);
}
