//! What is said of a task at each point of its life.

use std::time::Duration;

use gantry_ecs::explain::{self, Explanation};

use crate::harness::{Harness, report};

fn explain(harness: &Harness, arn: &str) -> Explanation {
    let snapshot = harness.store.snapshot();
    explain::task(&snapshot, &harness.scope(), arn, harness.env.now()).unwrap()
}

fn said(harness: &Harness, arn: &str) -> String {
    explain(harness, arn).sentences.join(" ")
}

#[test]
fn a_pending_task_says_where_it_is_and_who_is_to_start_it() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    harness.env.advance(Duration::from_secs(90));
    harness.connect(&instance, false);
    harness.env.advance(Duration::from_secs(10));
    let text = said(&harness, &arn);
    assert!(
        text.contains("100 s ago, which holds 256 CPU units and 512 MiB"),
        "{text}"
    );
    assert!(text.contains("has been disconnected for 10 s"), "{text}");
    assert!(text.contains("reported nothing of it yet"), "{text}");
    let mut input = report(&arn, "PULLED", None);
    input.pull_started_at = Some(harness.env.now());
    crate::harness::done(gantry_api::ecs::Ecs::submit_task_state_change(
        &harness.service,
        &harness.ctx(),
        input,
    ))
    .unwrap();
    assert!(said(&harness, &arn).contains("images have been pulling for 0 s"));
}

#[test]
fn a_stopped_task_says_who_stopped_it_and_how_its_containers_ended() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    harness.submit(&arn, "RUNNING", None);
    harness.env.advance(Duration::from_secs(180));
    assert_eq!(
        explain(&harness, &arn).sentences,
        ["The task has been running for 3 min."]
    );
    harness.stop(&arn, "maintenance").unwrap();
    let text = said(&harness, &arn);
    assert!(
        text.starts_with("Somebody stopped the task: maintenance"),
        "{text}"
    );
    assert!(text.contains("told to stop 0 s ago"), "{text}");
    harness.submit(&arn, "STOPPED", Some(137));
    let stopped = explain(&harness, &arn);
    assert_eq!(
        (
            stopped.last_status.as_str(),
            stopped.desired_status.as_str()
        ),
        ("STOPPED", "STOPPED")
    );
    assert!(stopped.sentences[1].starts_with("Container web ended with exit code 137 (SIGKILL"));
}

#[test]
fn a_task_that_is_not_there_has_no_explanation() {
    let (harness, _) = Harness::with_instance();
    let snapshot = harness.store.snapshot();
    for reference in ["", "nonsense", &"0".repeat(32)] {
        assert_eq!(
            explain::task(&snapshot, &harness.scope(), reference, harness.env.now()),
            None
        );
    }
}
