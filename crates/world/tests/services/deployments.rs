//! Deployments: what begins one, and what becomes of one that is overtaken.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

#[test]
fn a_change_of_the_count_starts_no_deployment() {
    let mut stage = running(&[10], 2, within(100, 200));
    let before = primary(&stage).id;
    let kept = arns(&stage.tasks("web"));
    stage.update(to_count(4));
    steady(&mut stage);
    assert_eq!(primary(&stage).id, before);
    let now = arns(&stage.tasks("web"));
    assert!(now.len() == 4 && kept.iter().all(|arn| now.contains(arn)));
}

#[test]
fn force_new_deployment_replaces_every_task_of_the_same_revision() {
    let mut stage = running(&[10], 3, within(100, 200));
    let (before, tasks) = (primary(&stage).id, arns(&stage.tasks("web")));
    stage.update(ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    });
    steady(&mut stage);
    assert_ne!(primary(&stage).id, before);
    assert!(
        arns(&stage.tasks("web"))
            .iter()
            .all(|arn| !tasks.contains(arn))
    );
}

#[test]
fn there_is_one_primary_deployment_and_those_before_it_are_active_until_their_tasks_are_gone() {
    let mut stage = running(&[10], 2, within(100, 200));
    let old = primary(&stage).id;
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    stage.run(5);
    let shown: Vec<_> = stage
        .deployments()
        .into_iter()
        .map(|it| (it.status.clone().unwrap_or_default(), it.id.clone() == old))
        .collect();
    assert_eq!(
        shown,
        [("PRIMARY".to_owned(), false), ("ACTIVE".to_owned(), true)]
    );
    steady(&mut stage);
    assert!(stage.deployments().iter().all(|it| it.id != old));
}

#[test]
fn an_update_during_a_deployment_wins() {
    let mut stage = running(&[10], 3, within(100, 200));
    let (second, third) = (
        stage.define(Behaviour::Lives, false),
        stage.define(Behaviour::Lives, false),
    );
    stage.update(to_revision(&second));
    stage.run(20);
    let overtaken = stage.service().current_service_deployment;
    stage.update(to_revision(&third));
    let all = stage.deployments();
    let statuses: Vec<_> = all.iter().filter_map(|it| it.status.as_deref()).collect();
    assert_eq!(statuses[0], "PRIMARY");
    assert!(statuses.len() > 1 && statuses[1..].iter().all(|it| *it == "ACTIVE"));
    let primary = all[0].task_definition.as_deref();
    assert!(primary.is_some_and(|it| it.ends_with(&third)));
    steady(&mut stage);
    assert!(stage.tasks("web").iter().all(|it| revision_of(it) == third));
    assert_ne!(stage.service().current_service_deployment, overtaken);
    let overtaken = stage.service_deployment_of(&overtaken.expect("a deployment"));
    assert_eq!(status(&overtaken), "STOPPED");
    assert_eq!(status(&stage.service_deployment()), "SUCCESSFUL");
    assert!(
        stage.all_tasks().iter().any(|it| revision_of(it) == second),
        "the second had begun"
    );
}

#[test]
fn an_update_during_a_rollback_wins() {
    let mut stage = running(&[10], 2, with_breaker(breaker(true)));
    let bad = stage.define(
        Behaviour::SickensAfter(std::time::Duration::from_secs(1)),
        true,
    );
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(within(0, 100)),
        ..to_revision(&bad)
    });
    stage.until(600, "a rollback", |stage| {
        status(&stage.service_deployment()) == "ROLLBACK_IN_PROGRESS"
    });
    let third = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&third));
    steady(&mut stage);
    assert!(stage.tasks("web").iter().all(|it| revision_of(it) == third));
    assert_eq!(status(&stage.service_deployment()), "SUCCESSFUL");
}

#[test]
fn a_deployment_that_is_stopped_is_rolled_back() {
    let mut stage = running(&[10], 2, within(100, 200));
    let before = arns(&stage.tasks("web"));
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    stage.run(10);
    stage.stop_deployment().expect("it is under way");
    steady(&mut stage);
    assert_eq!(arns(&stage.tasks("web")), before);
    assert_eq!(status(&stage.service_deployment()), "ROLLBACK_SUCCESSFUL");
    let again = stage.stop_deployment();
    assert!(
        matches!(again, Err(ecs::EcsError::ConflictException(_))),
        "{again:?}"
    );
}

#[test]
fn a_control_plane_that_dies_goes_on_where_it_was() {
    let mut stage = running(&[10], 4, within(100, 150));
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    for _ in 0..3 {
        stage.run(30);
        stage.kill_control(5);
        stage.run(6);
    }
    steady(&mut stage);
    assert!(stage.tasks("web").iter().all(|it| revision_of(it) == next));
}

#[test]
fn a_pass_over_what_is_as_it_was_asked_for_writes_nothing() {
    let mut stage = running(&[10], 5, within(100, 200));
    let before = stage.writes();
    stage.run(7 * 60 * 60);
    assert_eq!(stage.writes(), before);
}

#[test]
fn a_deployment_that_is_over_shows_the_tasks_that_it_had_at_its_end() {
    let mut stage = running(&[10], 3, within(100, 200));
    let first = stage.service_deployment().service_deployment_arn;
    let target = |stage: &Stage| {
        let shown = stage.service_deployment().target_service_revision;
        let shown = shown.expect("a revision");
        (shown.requested_task_count, shown.running_task_count)
    };
    assert_eq!(target(&stage), (Some(3), Some(3)));
    stage.update(to_count(5));
    steady(&mut stage);
    assert_eq!(stage.service_deployment().service_deployment_arn, first);
    assert_eq!(target(&stage), (Some(3), Some(3)));
}
