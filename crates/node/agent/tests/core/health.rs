//! How health is counted.

use gantry_agent::core::HealthStatus::{self, Healthy, Unhealthy, Unknown};
use gantry_agent::core::{Input, Output};
use serde_json::{Value, json};

use crate::scripted::{Agent, BEGIN, adopted_exited, adopted_running};

const SECOND: u64 = 1_000_000_000;

fn check(retries: u32, start_period: u64) -> Value {
    json!({"Test": ["CMD", "/healthy"], "Interval": 10 * SECOND, "Timeout": 3 * SECOND,
           "Retries": retries, "StartPeriod": start_period * SECOND})
}

fn web(retries: u32, start_period: u64) -> Agent {
    let mut agent = Agent::with(
        json!([{"name": "web", "healthCheck": check(retries, start_period)}]),
        &[],
    );
    agent.started("web");
    agent
}

/// The next check comes after so many seconds and no earlier, and shows this.
fn after(agent: &mut Agent, seconds: u64, healthy: bool) -> HealthStatus {
    agent.pass(seconds - 1);
    assert_eq!(agent.names(), [""; 0], "too early");
    agent.pass(1);
    assert_eq!(agent.names(), ["check web 0"]);
    agent.checked("web", 0, healthy);
    agent.health_of("web").unwrap()
}

#[test]
fn failures_in_a_row_decide_and_one_success_does() {
    let mut agent = web(3, 0);
    assert_eq!(agent.health_of("web"), Some(Unknown));
    assert_eq!(after(&mut agent, 10, false), Unknown);
    assert_eq!(after(&mut agent, 10, true), Healthy);
    assert_eq!(after(&mut agent, 10, false), Healthy);
    assert_eq!(after(&mut agent, 10, false), Healthy);
    assert_eq!(after(&mut agent, 10, true), Healthy);
    assert_eq!(after(&mut agent, 10, false), Healthy);
    assert_eq!(after(&mut agent, 10, false), Healthy);
    assert_eq!(after(&mut agent, 10, false), Unhealthy);
    assert_eq!(after(&mut agent, 10, false), Unhealthy);
    assert_eq!(after(&mut agent, 10, true), Healthy);
    assert!(
        !agent.is_stopping(),
        "an unhealthy task is not the agent's to stop"
    );
}

#[test]
fn failures_within_the_start_period_do_not_count_and_checks_come_faster() {
    let mut agent = web(2, 12);
    assert_eq!(after(&mut agent, 5, false), Unknown);
    assert_eq!(after(&mut agent, 5, false), Unknown);
    // It began within the start period, so the next came early; it ends after it.
    assert_eq!(after(&mut agent, 5, false), Unknown);
    assert_eq!(after(&mut agent, 10, false), Unhealthy);
}

#[test]
fn the_first_success_ends_the_start_period() {
    let mut agent = web(2, 300);
    assert_eq!(after(&mut agent, 5, true), Healthy);
    assert_eq!(after(&mut agent, 10, false), Healthy);
    assert_eq!(after(&mut agent, 10, false), Unhealthy);
}

#[test]
fn the_next_check_waits_for_the_one_before() {
    let mut agent = web(1, 0);
    agent.pass(10);
    assert_eq!(agent.names(), ["check web 0"]);
    agent.pass(3);
    assert_eq!(agent.names(), [""; 0]);
    agent.checked("web", 0, true);
    agent.pass(9);
    assert_eq!(agent.names(), [""; 0]);
    agent.pass(1);
    assert_eq!(agent.names(), ["check web 0"]);
}

#[test]
fn a_tasks_health_is_that_of_its_essential_containers_with_a_check() {
    let mut agent = Agent::with(
        json!([
            {"name": "a", "healthCheck": check(1, 0)},
            {"name": "b", "healthCheck": check(1, 0)},
            {"name": "side", "essential": false, "healthCheck": check(1, 0)},
            {"name": "plain"},
        ]),
        &["a", "b", "side", "plain"],
    );
    let of = |agent: &Agent| agent.core.tasks().next().unwrap().1.health();
    let shows = |agent: &mut Agent, results: &[(&str, bool)]| {
        agent.pass(10);
        for (container, healthy) in results {
            agent.checked(container, 0, *healthy);
        }
        of(agent)
    };
    assert_eq!(of(&agent), Unknown);
    assert_eq!(shows(&mut agent, &[("a", true), ("side", false)]), Unknown);
    assert_eq!(shows(&mut agent, &[("b", true)]), Healthy);
    assert_eq!(agent.health_of("side"), Some(Unhealthy));
    assert_eq!(agent.health_of("plain"), None);
    assert_eq!(shows(&mut agent, &[("a", false)]), Unhealthy);
}

#[test]
fn a_stopping_task_is_not_checked_and_in_the_end_has_no_health() {
    let mut agent = web(1, 0);
    agent.pass(10);
    agent.names();
    agent.step(Input::StopAll {
        reason: "over".to_owned(),
    });
    agent.checked("web", 0, false);
    assert_eq!(agent.health_of("web"), Some(Unknown));
    agent.names();
    agent.pass(60);
    assert_eq!(agent.names(), [""; 0]);
    agent.exited("web", 0, false);
    let last = agent.out.iter().rev().find_map(|o| match o {
        Output::Health { containers, .. } => Some(containers.len()),
        _ => None,
    });
    assert_eq!(last, Some(0));
}

#[test]
fn health_and_its_count_outlive_the_agent() {
    let mut agent = web(3, 0);
    assert_eq!(after(&mut agent, 10, true), Healthy);
    after(&mut agent, 10, false);
    after(&mut agent, 10, false);
    agent.persist_all();
    agent.pass(10);
    assert_eq!(agent.names(), ["check web 0"]);
    // It dies with a check under way: that one is lost, the next comes an interval later.
    agent.reborn(&[("web", adopted_running("web", BEGIN, 0))]);
    assert_eq!(agent.health_of("web"), Some(Healthy), "told again");
    assert_eq!(after(&mut agent, 10, false), Unhealthy);
}

#[test]
fn a_container_that_is_started_again_begins_anew() {
    let policy = json!({"enabled": true, "restartAttemptPeriod": 60});
    let mut agent = Agent::with(
        json!([{"name": "web", "healthCheck": check(2, 0), "restartPolicy": policy}]),
        &["web"],
    );
    agent.pass(10);
    agent.checked("web", 0, true);
    agent.pass(50);
    agent.names();
    agent.exited("web", 1, false);
    assert_eq!(agent.health_of("web"), Some(Unknown));
    assert_eq!(agent.names(), ["restart web 1"]);
    agent.pass(30);
    assert_eq!(agent.names(), [""; 0], "nothing to check");
    agent.started("web");
    // The answer of a check of the run before does not count.
    agent.checked("web", 0, true);
    assert_eq!(agent.health_of("web"), Some(Unknown));
    agent.pass(10);
    assert_eq!(agent.names(), ["check web 1"]);
    agent.checked("web", 0, true);
    assert_eq!(agent.health_of("web"), Some(Unknown));
    agent.checked("web", 1, true);
    assert_eq!(agent.health_of("web"), Some(Healthy));
    // The same, had the agent been away all the while.
    agent.reborn(&[("web", adopted_running("web", agent.now, 1))]);
    assert_eq!(agent.health_of("web"), Some(Unknown));
    agent.reborn(&[("web", adopted_exited("web", agent.now, 1, (1, agent.now)))]);
    assert!(agent.is_stopping());
}
