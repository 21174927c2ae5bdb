//! Which tasks go first, and which stay.

use crate::asked::*;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

fn zones(stage: &Stage) -> Vec<usize> {
    let tasks = stage.tasks("web");
    ["zone-a", "zone-b"]
        .map(|zone| {
            let there = tasks.iter();
            there
                .filter(|it| it.availability_zone.as_deref() == Some(zone))
                .count()
        })
        .into()
}

#[test]
fn scale_in_keeps_the_balance_of_the_zones() {
    let mut stage = running(&[10, 10, 10, 10], 8, within(100, 200));
    assert_eq!(zones(&stage), [4, 4]);
    for count in [6, 4, 2] {
        stage.update(to_count(count));
        steady(&mut stage);
        let half = count as usize / 2;
        assert_eq!(zones(&stage), [half, half]);
    }
}

#[test]
fn scale_in_takes_first_what_does_not_run_yet() {
    let mut stage = running(&[2], 2, within(0, 200));
    let before = arns(&stage.tasks("web"));
    stage.add_machine(10, "zone-b");
    stage.run(2);
    stage.update(to_count(4));
    assert_eq!(stage.tasks("web").len(), 4);
    stage.update(to_count(2));
    assert_eq!(arns(&stage.tasks("web")), before);
}

#[test]
fn a_protected_task_is_left_alone_by_scale_in_until_its_protection_ends() {
    let mut stage = running(&[10], 3, within(100, 200));
    let tasks = stage.tasks("web");
    stage.protect(&tasks[..2], Some(10));
    stage.update(to_count(0));
    stage.run(9 * 60);
    assert_eq!(arns(&stage.tasks("web")), arns(&tasks[..2]));
    stage.run(2 * 60);
    assert_eq!(stage.tasks("web"), []);
}

#[test]
fn a_protected_task_is_left_alone_by_a_deployment() {
    let mut stage = running(&[10], 2, within(100, 200));
    let tasks = stage.tasks("web");
    stage.protect(&tasks[..1], Some(60));
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    stage.run(20 * 60);
    assert!(arns(&stage.tasks("web")).contains(&arns(&tasks[..1])[0]));
    assert_eq!(rollout(&primary(&stage)), "IN_PROGRESS");
    stage.protect(&tasks[..1], None);
    steady(&mut stage);
    assert!(stage.tasks("web").iter().all(|it| revision_of(it) == next));
}

#[test]
fn stop_task_heeds_no_protection() {
    let mut stage = running(&[10], 1, within(100, 200));
    let tasks = stage.tasks("web");
    stage.protect(&tasks, Some(60));
    stage.stop_task(&tasks[0]);
    stage.run(60);
    assert_ne!(arns(&stage.tasks("web")), arns(&tasks));
    assert_eq!(stage.tasks("web").len(), 1);
}
