//! What a service says.

use crate::asked::*;
use gantry_api::ecs;
use gantry_world::Behaviour;
use gantry_world::stage::Stage;

fn named(tasks: &[ecs::Task]) -> Vec<String> {
    let mut named: Vec<String> = arns(tasks)
        .iter()
        .map(|arn| format!("(task {})", arn.rsplit('/').next().unwrap_or_default()))
        .collect();
    named.sort();
    named
}

/// `(service web) has started 2 tasks: (task A) (task B).`: what is before the colon, and the tasks by name.
fn parts(said: &str) -> (&str, Vec<String>) {
    let (what, whom) = said.split_once(": ").expect("a list");
    let whom = whom.strip_suffix('.').expect("a full stop");
    let mut whom: Vec<String> = whom
        .split_inclusive(')')
        .map(|it| it.trim().to_owned())
        .collect();
    whom.sort();
    (what, whom)
}

#[test]
fn a_service_says_what_it_started_completed_and_stopped_in_the_words_of_aws() {
    let mut stage = running(&[10], 2, within(100, 200));
    let tasks = stage.tasks("web");
    let deployment = primary(&stage).id.expect("an id");
    let messages = stage.messages();
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages[0], "(service web) has reached a steady state.");
    assert_eq!(
        messages[1],
        format!("(service web) (deployment {deployment}) deployment completed.")
    );
    assert_eq!(
        parts(&messages[2]),
        ("(service web) has started 2 tasks", named(&tasks))
    );
    stage.update(to_count(0));
    steady(&mut stage);
    let messages = stage.messages();
    assert_eq!(messages[0], "(service web) has reached a steady state.");
    assert_eq!(
        parts(&messages[1]),
        ("(service web) has stopped 2 running tasks", named(&tasks))
    );
}

#[test]
fn a_repeated_event_is_suppressed_for_6_hours() {
    let mut stage = Stage::new(&[1]);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(web(2, &good));
    let said = |stage: &Stage| {
        let all = stage.messages();
        let no_place = |it: &&String| it.contains("was unable to place a task");
        all.iter().filter(no_place).count()
    };
    stage.run(5 * 60 * 60 + 3_500);
    assert_eq!(said(&stage), 1);
    stage.run(200);
    assert_eq!(said(&stage), 2);
}

#[test]
fn a_cluster_without_instances_is_named_as_the_reason() {
    let mut stage = Stage::new(&[]);
    let good = stage.define(Behaviour::Lives, false);
    stage.create(web(1, &good));
    assert_eq!(
        stage.messages(),
        [
            "(service web) was unable to place a task. Reason: No Container Instances were found in your cluster."
        ]
    );
}

#[test]
fn the_last_hundred_events_are_kept_newest_first() {
    let mut stage = Stage::new(&[10]);
    let ends = stage.define(
        Behaviour::EndsAfter(std::time::Duration::from_secs(15)),
        false,
    );
    stage.create(web(1, &ends));
    stage.run(2_700);
    let events = stage.service().events.unwrap_or_default();
    assert_eq!(events.len(), 100);
    let times: Vec<_> = events.iter().filter_map(|event| event.created_at).collect();
    assert!(times.is_sorted_by(|one, other| one >= other));
    let last = stage.all_tasks().pop().and_then(|it| it.created_at);
    assert_eq!(last, times.first().copied());
}
