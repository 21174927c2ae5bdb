//! How a service ends.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;

#[test]
fn a_service_that_is_scaled_up_is_deleted_only_by_force() {
    let mut stage = running(&[10], 2, within(100, 200));
    let refused = stage.delete(false);
    assert!(
        matches!(refused, Err(ecs::EcsError::InvalidParameterException(_))),
        "{refused:?}"
    );
    assert_eq!(stage.tasks("web").len(), 2);
    stage.delete(true).expect("force");
    assert_eq!(stage.tasks("web"), []);
}

#[test]
fn a_deleted_service_drains_is_inactive_and_is_forgotten_after_an_hour() {
    let mut stage = running(&[10], 2, within(100, 200));
    let deleted = stage.delete(true).expect("force");
    assert_eq!(deleted.status.as_deref(), Some("DRAINING"));
    stage.until(60, "INACTIVE", |stage| {
        stage.service().status.as_deref() == Some("INACTIVE")
    });
    assert_eq!(stage.deployments(), []);
    stage.run(59 * 60);
    assert!(stage.try_service().is_some());
    stage.run(2 * 60);
    assert!(stage.try_service().is_none());
    assert_eq!(stage.all_tasks(), []);
}

#[test]
fn deletion_heeds_no_protection_and_no_minimum() {
    let mut stage = running(&[10], 3, within(100, 200));
    let tasks = stage.tasks("web");
    stage.protect(&tasks, Some(60));
    stage.delete(true).expect("force");
    assert_eq!(stage.tasks("web"), []);
}

#[test]
fn a_service_scaled_to_nothing_is_deleted_without_force() {
    let mut stage = running(&[10], 2, within(100, 200));
    stage.update(to_count(0));
    steady(&mut stage);
    stage.delete(false).expect("nothing runs");
}

#[test]
fn a_service_of_the_name_of_a_deleted_one_begins_anew() {
    let mut stage = running(&[10], 2, within(100, 200));
    let old = stage.all_tasks();
    stage.delete(true).expect("force");
    stage.run(60);
    let next = stage.define(Behaviour::Lives, true);
    stage.create(web(1, &next));
    steady(&mut stage);
    let messages = stage.messages();
    assert!(
        old.iter().all(|task| {
            let id = task.task_arn.as_deref().unwrap_or_default();
            let id = id.rsplit('/').next().unwrap_or_default();
            !messages.iter().any(|said| said.contains(id))
        }),
        "{messages:?}"
    );
    assert_eq!(stage.tasks("web").len(), 1);
    // The hour of the old one does not end the new one.
    stage.run(2 * 60 * 60);
    assert_eq!(stage.service().running_count, Some(1));
}
