//! Events in EventBridge's form: each change is told once, in order, in the commit that made it, and the
//! table of them stays bounded.

use std::time::Duration;

use gantry_api::ecs::{self, Ecs as _};
use gantry_ecs::controllers::{STATE_CHANGE_RETENTION, Services, StateChangeRetention};
use gantry_ecs::tables::{ChangeKind, StateChange, StateChangesRow};
use gantry_reconcile::Controller;
use gantry_store::Table;

use crate::harness::{Harness, done, run, web};

/// All events in the order in which they are told.
fn told(harness: &Harness) -> Vec<StateChange> {
    let mut rows = harness
        .store
        .snapshot()
        .list_everywhere::<StateChangesRow>();
    rows.sort_by_key(|row| row.revision);
    rows.iter().flat_map(|row| row.events.clone()).collect()
}

/// Name or status of each event of the kind.
fn named(events: &[StateChange], kind: ChangeKind) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let of = |event: &&StateChange| event.kind == kind;
    let name = |event: &StateChange| match kind {
        ChangeKind::Task => format!(
            "{}/{}",
            text(&event.detail["lastStatus"]),
            text(&event.detail["desiredStatus"])
        ),
        ChangeKind::ServiceMessage | ChangeKind::Request => text(&event.detail["message"]),
        _ => text(&event.detail["eventName"]),
    };
    events.iter().filter(of).map(name).collect()
}

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
        assert!(commits < 500, "{} does not settle", controller.name());
    }
}

#[test]
fn every_change_of_a_tasks_statuses_is_one_event_and_nothing_else_is() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    let task = harness.run_one("web");
    harness.submit(&task, "RUNNING", None);
    // The same again, and a change that is none of its status, are no events.
    harness.submit(&task, "RUNNING", None);
    harness.stop(&task, "no longer needed").unwrap();
    harness.stop(&task, "once more").unwrap();
    harness.submit(&task, "STOPPED", Some(3));
    let events = told(&harness);
    assert_eq!(
        named(&events, ChangeKind::Task),
        [
            "PENDING/RUNNING",
            "RUNNING/RUNNING",
            "STOPPING/STOPPED",
            "STOPPED/STOPPED"
        ]
    );
    let versions: Vec<i64> = events
        .iter()
        .map(|it| it.detail["version"].as_i64().unwrap())
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let envelope = events[3].envelope(&harness.scope()).unwrap();
    assert_eq!(envelope["detail-type"], "ECS Task State Change");
    assert_eq!(envelope["resources"][0], task.as_str());
    let detail = &envelope["detail"];
    assert_eq!(detail["taskArn"], task.as_str());
    assert_eq!(detail["containerInstanceArn"], instance.as_str());
    assert_eq!(detail["stopCode"], "UserInitiated");
    assert_eq!(detail["stoppedReason"], "no longer needed");
    assert_eq!(detail["containers"][0]["exitCode"], 3);
    assert_eq!(detail["overrides"]["containerOverrides"][0]["name"], "web");
    assert!(detail["createdAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(detail["group"], "family:web");
}

#[test]
fn ten_tasks_of_one_request_are_one_row() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let input = ecs::RunTaskRequest {
        count: Some(10),
        ..run("web")
    };
    assert_eq!(harness.run(input).unwrap().tasks.unwrap().len(), 10);
    let rows = harness
        .store
        .snapshot()
        .list_everywhere::<StateChangesRow>();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].events.len(), 10);
}

#[test]
fn a_service_tells_of_its_deployments_its_steady_state_and_what_finds_no_place() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let services = Services::of(&harness.service);
    let input = ecs::CreateServiceRequest {
        service_name: "web".to_owned(),
        task_definition: Some("web".to_owned()),
        desired_count: Some(2),
        ..Default::default()
    };
    done(harness.service.create_service(&harness.ctx(), input)).unwrap();
    settle(&harness, &services);
    let arns = || {
        let input = ecs::ListTasksRequest {
            service_name: Some("web".to_owned()),
            ..Default::default()
        };
        let answer = done(harness.service.list_tasks(&harness.ctx(), input)).unwrap();
        answer.task_arns.unwrap()
    };
    for task in arns() {
        harness.submit(&task, "RUNNING", None);
    }
    harness.env.advance(Duration::from_secs(40));
    settle(&harness, &services);
    let events = told(&harness);
    assert_eq!(
        named(&events, ChangeKind::Deployment),
        [
            "SERVICE_DEPLOYMENT_IN_PROGRESS",
            "SERVICE_DEPLOYMENT_COMPLETED"
        ]
    );
    assert_eq!(
        named(&events, ChangeKind::ServiceAction),
        ["SERVICE_STEADY_STATE"]
    );
    assert_eq!(
        named(&events, ChangeKind::Request),
        ["created with desired count 2 of web:1"]
    );
    let messages = named(&events, ChangeKind::ServiceMessage);
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(messages[0].contains("has started 2 tasks"), "{messages:?}");
    let slots: Vec<_> = events.iter().filter_map(|event| event.slot).collect();
    assert_eq!(slots.len(), 4, "two tasks, each born and RUNNING");
    assert!(events.iter().all(|it| it.service.is_some()));
    // More than there is room for.
    let input = ecs::UpdateServiceRequest {
        service: "web".to_owned(),
        desired_count: Some(20),
        ..Default::default()
    };
    done(harness.service.update_service(&harness.ctx(), input)).unwrap();
    settle(&harness, &services);
    let events = told(&harness);
    let failure = events
        .iter()
        .find(|it| it.detail["eventName"] == "SERVICE_TASK_PLACEMENT_FAILURE")
        .expect("a placement failure");
    assert_eq!(failure.detail["reason"], "RESOURCE:CPU");
    assert_eq!(failure.detail["eventType"], "ERROR");
    let ids: std::collections::BTreeSet<_> = events.iter().map(|it| it.id.clone()).collect();
    assert_eq!(ids.len(), events.len(), "every event has an id of its own");
}

#[test]
fn a_deployment_that_the_circuit_breaker_ends_is_told_as_failed() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let services = Services::of(&harness.service);
    let breaker = ecs::DeploymentCircuitBreaker {
        enable: true,
        rollback: false,
        ..Default::default()
    };
    let input = ecs::CreateServiceRequest {
        service_name: "web".to_owned(),
        task_definition: Some("web".to_owned()),
        desired_count: Some(1),
        deployment_configuration: Some(ecs::DeploymentConfiguration {
            deployment_circuit_breaker: Some(breaker),
            ..Default::default()
        }),
        ..Default::default()
    };
    done(harness.service.create_service(&harness.ctx(), input)).unwrap();
    for _ in 0..8 {
        settle(&harness, &services);
        let input = ecs::ListTasksRequest {
            service_name: Some("web".to_owned()),
            ..Default::default()
        };
        let answer = done(harness.service.list_tasks(&harness.ctx(), input)).unwrap();
        for task in answer.task_arns.unwrap() {
            harness.submit(&task, "STOPPED", None);
        }
        harness.env.advance(Duration::from_secs(60));
    }
    let events = told(&harness);
    assert_eq!(
        named(&events, ChangeKind::Deployment),
        [
            "SERVICE_DEPLOYMENT_IN_PROGRESS",
            "SERVICE_DEPLOYMENT_FAILED"
        ]
    );
    assert!(
        named(&events, ChangeKind::ServiceAction)
            .contains(&"SERVICE_TASK_START_IMPAIRED".to_owned())
    );
}

#[test]
fn the_table_is_bounded_by_time_number_and_bytes() {
    let (harness, _) = Harness::with_instance();
    let mut definition = web();
    definition.container_definitions[0].cpu = Some(1);
    definition.container_definitions[0].memory = Some(6);
    harness.register(definition).unwrap();
    let count = || {
        let snapshot = harness.store.snapshot();
        snapshot.scan(&StateChangesRow::everywhere()).count()
    };
    for _ in 0..200 {
        harness.env.advance(Duration::from_millis(1));
        harness.run_one("web");
    }
    let retention = StateChangeRetention::default();
    assert_eq!(settle(&harness, &retention), 0);
    let oldest = told(&harness)[50].id.clone();
    settle(&harness, &StateChangeRetention::bounded(150, usize::MAX));
    assert_eq!(count(), 150);
    assert_eq!(told(&harness)[0].id, oldest, "the oldest went");
    settle(&harness, &StateChangeRetention::bounded(150, 50_000));
    assert!((1..150).contains(&count()), "{}", count());
    harness.env.advance(STATE_CHANGE_RETENTION);
    let young = harness.run_one("web");
    settle(&harness, &retention);
    let left = told(&harness);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].resource, young);
}
