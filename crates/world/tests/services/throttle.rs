//! Starts that are put off.

use crate::asked::*;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;
use std::collections::BTreeSet;
use std::time::Duration;

/// When the tasks were made that are made within so many seconds, as far as their definition is this one.
fn made_within(stage: &mut Stage, seconds: u64, definition: &str) -> Vec<Duration> {
    let from = stage.now();
    let mut made = BTreeSet::new();
    for _ in 0..seconds / 30 {
        let all = stage.all_tasks();
        let mine = all.iter().filter(|task| revision_of(task) == definition);
        made.extend(mine.filter_map(|task| task.created_at));
        stage.run(30);
    }
    made.into_iter().map(|at| at.since(from)).collect()
}

fn gaps(made: &[Duration]) -> Vec<u64> {
    made.windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect()
}

#[test]
fn starts_are_put_off_for_longer_and_longer_up_to_27_minutes() {
    let mut stage = Stage::new(&[10]);
    let broken = stage.define(Behaviour::DoesNotStart, false);
    stage.create(web(1, &broken));
    let made = made_within(&mut stage, 4 * 60 * 60, &broken);
    let gaps = gaps(&made);
    assert!(gaps[0] <= 5, "{gaps:?}");
    for pair in gaps.windows(2) {
        assert!(pair[0] <= pair[1] + 4, "{gaps:?}");
        assert!(pair[1] <= 2 * pair[0] + 4, "{gaps:?}");
    }
    let (longest, most) = (gaps[gaps.len() - 1], 27 * 60);
    assert!((most..most + 5).contains(&longest), "{gaps:?}");
    let said = "is unable to consistently start tasks successfully.";
    assert!(stage.messages().iter().any(|it| it.ends_with(said)));
}

#[test]
fn a_new_task_definition_resets_the_delay() {
    let mut stage = Stage::new(&[10]);
    let broken = stage.define(Behaviour::DoesNotStart, false);
    stage.create(web(1, &broken));
    stage.run(2 * 60 * 60);
    let next = stage.define(Behaviour::DoesNotStart, false);
    stage.update(to_revision(&next));
    let made = made_within(&mut stage, 120, &next);
    assert!(made.len() >= 4, "{made:?}");
    assert!(made[0] < Duration::from_secs(2), "{made:?}");
}

#[test]
fn a_task_that_comes_up_ends_the_delay() {
    let mut stage = Stage::new(&[10]);
    let at = stage.now() + Duration::from_secs(100);
    let definition = stage.define(Behaviour::StartsFrom(at), false);
    stage.create(web(2, &definition));
    stage.run(100);
    let failed = stage.all_tasks().len();
    assert!((6..20).contains(&failed), "{failed}");
    steady(&mut stage);
    // Whatever was put off before: one that is stopped is replaced at once.
    let gone = stage.tasks("web").remove(0);
    stage.stop_task(&gone);
    stage.run(2);
    assert_eq!(stage.tasks("web").len(), 2);
}

#[test]
fn only_tasks_that_stop_before_they_run_put_starts_off() {
    let mut stage = Stage::new(&[10]);
    let ends = stage.define(Behaviour::EndsAfter(Duration::from_secs(15)), false);
    stage.create(web(1, &ends));
    let made = made_within(&mut stage, 1_800, &ends);
    let gaps = gaps(&made);
    assert!(gaps.len() > 80, "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap < 22), "{gaps:?}");
}

#[test]
fn a_forced_deployment_resets_the_delay_as_well() {
    let mut stage = Stage::new(&[10]);
    let broken = stage.define(Behaviour::DoesNotStart, false);
    stage.create(web(1, &broken));
    stage.run(2 * 60 * 60);
    stage.update(gantry_api::ecs::UpdateServiceRequest {
        force_new_deployment: Some(true),
        ..change()
    });
    let before = stage.now();
    stage.run(120);
    let all = stage.all_tasks();
    let made = all.iter().filter_map(|task| task.created_at);
    let made = made.filter(|at| before.since(*at) < Duration::from_secs(1));
    assert!(made.count() >= 4);
}
