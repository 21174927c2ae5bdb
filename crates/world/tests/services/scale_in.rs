//! Which tasks go first, and which stay.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

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

fn packed(machines: &[i64], strategies: Vec<ecs::PlacementStrategy>) -> Stage {
    let mut stage = Stage::new(machines);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(ecs::CreateServiceRequest {
        placement_strategy: Some(strategies),
        ..web(8, &good)
    });
    steady(&mut stage);
    stage
}

#[test]
fn scale_in_under_a_binpack_empties_the_instances_on_which_most_is_left_free() {
    let pack = strategy(ecs::PlacementStrategyType::Binpack, "memory");
    // On 5, 3 of 9 and nothing: the second has most left of those that have any.
    let mut stage = packed(&[5, 9, 20], vec![pack]);
    let there = |stage: &Stage| [0, 1, 2].map(|machine| on(stage, machine).len());
    assert_eq!(there(&stage), [5, 3, 0]);
    for (count, left) in [(6, [5, 1, 0]), (4, [4, 0, 0]), (1, [1, 0, 0])] {
        stage.update(to_count(count));
        steady(&mut stage);
        assert_eq!(there(&stage), left, "of {count}");
    }
}

#[test]
fn scale_in_under_a_spread_and_a_binpack_keeps_the_zones_and_empties_instances_in_each() {
    let spread = strategy(
        ecs::PlacementStrategyType::Spread,
        "attribute:ecs.availability-zone",
    );
    let pack = strategy(ecs::PlacementStrategyType::Binpack, "memory");
    let mut stage = packed(&[3, 3, 9, 9], vec![spread, pack]);
    let there = |stage: &Stage| [0, 1, 2, 3].map(|machine| on(stage, machine).len());
    assert_eq!(there(&stage), [3, 3, 1, 1]);
    for (count, left) in [(6, [3, 3, 0, 0]), (4, [2, 2, 0, 0])] {
        stage.update(to_count(count));
        steady(&mut stage);
        assert_eq!(there(&stage), left, "of {count}");
    }
}

#[test]
fn a_protection_lasts_2_hours_unless_it_says_otherwise() {
    let mut stage = running(&[10], 1, within(100, 200));
    let tasks = stage.tasks("web");
    let answer = stage.try_protect(&tasks, true, None).expect("protection");
    let shown = answer.protected_tasks.into_iter().flatten().next();
    let until = shown.and_then(|it| it.expiration_date).expect("a time");
    assert_eq!(until.since(stage.now()).as_secs().div_ceil(60), 120);
    stage.update(to_count(0));
    stage.run(2 * 60 * 60 - 5);
    assert_eq!(stage.tasks("web").len(), 1);
    stage.run(10);
    assert_eq!(stage.tasks("web"), []);
}

#[test]
fn a_protection_lasts_from_a_minute_to_48_hours() {
    let mut stage = running(&[10], 1, within(100, 200));
    let tasks = stage.tasks("web");
    for minutes in [0, 48 * 60 + 1] {
        let refused = stage.try_protect(&tasks, true, Some(minutes));
        assert!(refusal(refused).contains("expiresInMinutes"));
    }
    for minutes in [48 * 60, 1] {
        stage.protect(&tasks, Some(minutes));
    }
    stage.update(to_count(0));
    stage.run(50);
    assert_eq!(stage.tasks("web").len(), 1);
    stage.run(20);
    assert_eq!(stage.tasks("web"), []);
}
