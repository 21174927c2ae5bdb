//! Instances that drain, die, and come later.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

#[test]
fn running_tasks_of_a_draining_instance_are_replaced_within_the_bounds() {
    let mut stage = running(&[4, 4], 4, within(100, 200));
    assert_eq!(on(&stage, 0).len(), 2);
    stage.set_state(0, "DRAINING");
    stage.until(120, "an empty instance", |stage| {
        let tasks = stage.tasks("web");
        assert!(tasks.iter().filter(|it| is_running(it)).count() >= 4);
        on(stage, 0).is_empty()
    });
    steady(&mut stage);
    assert_eq!(on(&stage, 1).len(), 4);
}

#[test]
fn where_the_minimum_allows_no_stop_a_draining_instance_keeps_its_tasks() {
    let mut stage = running(&[2, 2], 4, within(100, 200));
    stage.set_state(0, "DRAINING");
    stage.run(600);
    assert_eq!(on(&stage, 0).len(), 2);
    // And where it allows some, these go first.
    stage.update(ecs::UpdateServiceRequest {
        deployment_configuration: Some(within(75, 200)),
        ..change()
    });
    stage.run(60);
    assert_eq!(on(&stage, 0).len(), 1);
}

#[test]
fn pending_tasks_of_a_draining_instance_stop_at_once() {
    let mut stage = Stage::new(&[4, 4]);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(web(4, &good));
    let pending = on(&stage, 0);
    assert!(!pending.is_empty() && !pending.iter().any(is_running));
    stage.set_state(0, "DRAINING");
    assert_eq!(on(&stage, 0), []);
    steady(&mut stage);
    assert_eq!(on(&stage, 1).len(), 4);
}

#[test]
fn a_protected_task_keeps_its_draining_instance() {
    let mut stage = running(&[4, 4], 2, within(100, 200));
    let there = on(&stage, 0);
    stage.protect(&there, Some(30));
    stage.set_state(0, "DRAINING");
    stage.run(25 * 60);
    assert_eq!(arns(&on(&stage, 0)), arns(&there));
    stage.run(10 * 60);
    assert_eq!(on(&stage, 0), []);
}

#[test]
fn what_finds_no_place_is_started_when_capacity_comes() {
    let mut stage = Stage::new(&[2]);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(web(4, &good));
    stage.run(300);
    assert_eq!(stage.tasks("web").len(), 2);
    assert!(
        stage.messages()[0].ends_with("has insufficient CPU units available."),
        "{:?}",
        stage.messages()
    );
    stage.add_machine(2, "zone-b");
    let seconds = stage.until(60, "four tasks", |stage| stage.tasks("web").len() == 4);
    assert!(seconds <= 16, "{seconds} s");
    steady(&mut stage);
}

#[test]
fn an_instance_that_is_active_again_takes_tasks() {
    let mut stage = Stage::new(&[2]);
    let good = stage.define(Behaviour::Lives, false);
    stage.set_state(0, "DRAINING");
    stage.create(web(2, &good));
    stage.run(120);
    assert_eq!(stage.tasks("web"), []);
    stage.set_state(0, "ACTIVE");
    steady(&mut stage);
    assert_eq!(on(&stage, 0).len(), 2);
}

#[test]
fn what_a_power_cut_took_is_replaced() {
    let mut stage = running(&[4, 4], 4, within(100, 200));
    let lost = arns(&on(&stage, 0));
    stage.power_cut(0, 20);
    stage.run(30);
    steady(&mut stage);
    let now = arns(&stage.tasks("web"));
    assert!(now.len() == 4 && lost.iter().all(|arn| !now.contains(arn)));
}

#[test]
fn a_task_whose_agent_is_disconnected_runs_on_and_counts_and_nothing_new_is_started_there() {
    let mut stage = running(&[10, 10], 4, within(100, 200));
    let before = arns(&stage.tasks("web"));
    stage.cut_off(0, 1_200);
    stage.run(600);
    assert_eq!(arns(&stage.tasks("web")), before);
    assert!(is_steady(&stage));
    stage.update(to_count(8));
    steady(&mut stage);
    assert_eq!([on(&stage, 0).len(), on(&stage, 1).len()], [2, 6]);
}

#[test]
fn an_instance_that_is_active_again_keeps_the_tasks_that_are_still_there() {
    let mut stage = running(&[4, 2], 4, within(75, 200));
    let there = on(&stage, 0);
    stage.set_state(0, "DRAINING");
    stage.run(20);
    let kept = arns(&on(&stage, 0));
    assert!(!kept.is_empty() && kept.len() < there.len());
    stage.set_state(0, "ACTIVE");
    steady(&mut stage);
    let now = arns(&on(&stage, 0));
    assert!(kept.iter().all(|arn| now.contains(arn)), "{now:?}");
}

#[test]
fn what_finds_no_place_is_tried_again_as_soon_as_a_task_of_the_service_has_stopped() {
    let mut stage = running(&[2], 2, within(0, 100));
    stage.update(to_count(4));
    stage.run(300);
    let tasks = stage.tasks("web");
    assert_eq!(tasks.len(), 2);
    stage.stop_task(&tasks[0]);
    // As long as it takes to end, and no longer.
    let has_ended = |stage: &Stage| {
        let gone = &tasks[0].task_arn;
        let all = stage.all_tasks();
        let ended = all.iter().find(|it| it.task_arn == *gone);
        ended.is_none_or(|it| it.last_status.as_deref() == Some("STOPPED"))
    };
    stage.until(60, "its end", has_ended);
    stage.run(1);
    assert_eq!(stage.tasks("web").len(), 2);
}
