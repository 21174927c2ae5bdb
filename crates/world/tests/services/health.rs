//! When a task is healthy, and what becomes of one that is not.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;
use std::time::Duration;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn created(behaviour: Behaviour, grace: Option<i32>, percents: (i32, i32)) -> Stage {
    let mut stage = Stage::new(&[10]);
    let definition = stage.define(behaviour, true);
    stage.create(ecs::CreateServiceRequest {
        health_check_grace_period_seconds: grace,
        deployment_configuration: Some(within(percents.0, percents.1)),
        ..web(1, &definition)
    });
    stage
}

#[test]
fn without_a_check_a_task_is_healthy_once_it_has_run_for_40_seconds() {
    let mut stage = Stage::new(&[10]);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(web(2, &good));
    steady(&mut stage);
    let started = stage
        .tasks("web")
        .into_iter()
        .filter_map(|it| it.started_at);
    let last = started.max().expect("a task");
    let completed = primary(&stage).updated_at.expect("a time");
    assert_eq!(completed.since(last), seconds(40));
}

#[test]
fn with_a_check_a_task_is_healthy_when_the_check_passes() {
    let mut stage = created(Behaviour::Lives, None, (100, 200));
    assert!(steady(&mut stage) < 30);
    let task = stage.tasks("web").remove(0);
    assert_eq!(
        task.health_status.as_ref().map(|it| it.as_str()),
        Some("HEALTHY")
    );
}

#[test]
fn the_grace_period_covers_container_checks() {
    let heals = Behaviour::HealsAfter(seconds(60));
    let mut covered = created(heals, Some(90), (100, 200));
    steady(&mut covered);
    assert_eq!(covered.all_tasks().len(), 1);
    // And without it the first is found unhealthy, and another is started.
    let mut bare = created(heals, None, (100, 200));
    bare.until(60, "a replacement", |stage| stage.tasks("web").len() == 2);
}

#[test]
fn an_unhealthy_task_is_replaced_first_where_the_maximum_allows() {
    let mut stage = created(Behaviour::SickensAfter(seconds(100)), None, (100, 200));
    steady(&mut stage);
    let first = arns(&stage.tasks("web"));
    stage.until(200, "a replacement", |stage| stage.tasks("web").len() == 2);
    let ran_on = |stage: &Stage| {
        stage
            .tasks("web")
            .iter()
            .filter(|it| is_running(it))
            .count()
    };
    stage.until(60, "its end", |stage| {
        assert!(ran_on(stage) >= 1, "nothing runs");
        stage.tasks("web").len() == 1
    });
    assert_ne!(arns(&stage.tasks("web")), first);
}

#[test]
fn an_unhealthy_task_is_stopped_first_where_there_is_no_room_for_both() {
    let mut stage = created(Behaviour::SickensAfter(seconds(100)), None, (0, 100));
    steady(&mut stage);
    let first = stage.tasks("web").remove(0);
    stage.until(200, "another one", |stage| {
        let tasks = stage.tasks("web");
        assert!(tasks.len() <= 1);
        tasks
            .first()
            .is_some_and(|task| task.task_arn != first.task_arn)
    });
    let ended = stage.all_tasks().remove(0);
    assert_eq!(ended.task_arn, first.task_arn);
    assert_eq!(
        ended.stopped_reason.as_deref(),
        Some("Task failed container health checks")
    );
    assert_eq!(
        ended.stop_code.as_ref().map(|code| code.as_str()),
        Some("ServiceSchedulerInitiated")
    );
}

#[test]
fn a_replacement_takes_the_slot_of_the_task_it_replaces() {
    let mut stage = running(&[10], 3, within(100, 200));
    let tasks = stage.tasks("web");
    let slot = stage.slot(&tasks[1]);
    stage.stop_task(&tasks[1]);
    stage.run(60);
    let new: Vec<_> = stage
        .tasks("web")
        .into_iter()
        .filter(|it| !tasks.iter().any(|known| known.task_arn == it.task_arn))
        .collect();
    assert_eq!(new.len(), 1);
    assert_eq!(stage.slot(&new[0]), slot);
}

#[test]
fn what_ends_within_ten_seconds_is_started_again_only_when_those_are_over() {
    let mut stage = Stage::new(&[10]);
    let ends = stage.define(Behaviour::EndsAfter(seconds(1)), false);
    stage.create(web(1, &ends));
    stage.run(300);
    let created: Vec<_> = stage
        .all_tasks()
        .iter()
        .filter_map(|task| task.created_at)
        .collect();
    assert!(created.len() > 20, "{created:?}");
    for pair in created.windows(2) {
        let gap = pair[1].since(pair[0]);
        assert!(seconds(10) <= gap && gap < seconds(14), "{gap:?}");
    }
}

#[test]
fn health_that_was_lost_is_told_again_once_for_all_of_a_machine() {
    let mut stage = Stage::new(&[8]);
    let good = stage.define(Behaviour::Lives, true);
    stage.create(web(8, &good));
    steady(&mut stage);
    let before = stage.events();
    stage.run(90);
    let at_peace = stage.events() - before;
    // What repeats itself grows eightfold every twenty seconds.
    stage.cut_off(0, 85);
    stage.run(90);
    let cut_off = stage.events() - before - at_peace;
    assert!(cut_off < 3 * at_peace, "{cut_off} instead of {at_peace}");
}
