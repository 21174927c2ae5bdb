//! How far a deployment may go from the desired count.

use crate::asked::*;
use gantry_world::Behaviour;

/// Rolls so many tasks within these percents; the fewest that ran and the most that there were.
fn roll(count: i32, percents: (i32, i32)) -> (usize, usize) {
    let mut stage = running(&[10, 10], count, within(percents.0, percents.1));
    let next = stage.define(Behaviour::Lives, false);
    stage.update(to_revision(&next));
    let (mut fewest, mut most) = (usize::MAX, 0);
    for _ in 0..900 {
        let tasks = stage.tasks("web");
        fewest = fewest.min(tasks.iter().filter(|it| is_running(it)).count());
        most = most.max(tasks.len());
        if is_steady(&stage) {
            assert!(tasks.iter().all(|task| revision_of(task) == next));
            return (fewest, most);
        }
        stage.run(1);
    }
    panic!(
        "{count} tasks do not roll within {percents:?}: {:?}",
        stage.deployments()
    );
}

#[test]
fn the_minimum_is_rounded_up_and_the_maximum_down() {
    for (count, percents, expected) in [
        (3, (50, 150), (2, 4)),
        (5, (33, 139), (2, 6)),
        (3, (100, 134), (3, 4)),
        (4, (75, 100), (3, 4)),
        (1, (50, 200), (1, 2)),
        (1, (0, 199), (0, 1)),
    ] {
        assert_eq!(
            roll(count, percents),
            expected,
            "{count} within {percents:?}"
        );
    }
}

#[test]
fn running_and_pending_count_toward_the_maximum() {
    assert_eq!(roll(3, (100, 200)), (3, 6));
}

#[test]
fn a_maximum_that_leaves_no_room_beside_the_minimum_lets_nothing_roll() {
    let mut stage = running(&[10], 1, within(100, 150));
    let next = stage.define(Behaviour::Lives, false);
    let before = arns(&stage.tasks("web"));
    stage.update(to_revision(&next));
    stage.run(600);
    assert_eq!(arns(&stage.tasks("web")), before);
    assert_eq!(stage.deployments().len(), 2);
}
