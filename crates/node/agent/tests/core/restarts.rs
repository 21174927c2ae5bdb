//! When a container that ended is started again.

use gantry_agent::core::step::{AdoptedContainer, RuntimeEvent};
use gantry_agent::core::{ContainerStatus, Input, TaskStatus};
use serde_json::{Value, json};

use crate::scripted::{Agent, BEGIN, adopted_exited, adopted_running, id};

fn policy() -> Value {
    json!({"enabled": true, "ignoredExitCodes": [42], "restartAttemptPeriod": 60})
}

fn web() -> Agent {
    let mut agent = Agent::with(
        json!([{"name": "web", "restartPolicy": policy()}]),
        &["web"],
    );
    assert_eq!(agent.acknowledge().status, TaskStatus::Running);
    agent.persist_all();
    agent
}

fn restarts(agent: &Agent) -> u32 {
    let (_, machine) = agent.core.tasks().next().unwrap();
    machine.state.containers["web"].restarts
}

#[test]
fn a_restarted_essential_container_does_not_end_its_task_and_nothing_is_told() {
    let mut agent = web();
    for restart in 1..=3 {
        agent.pass(60);
        agent.exited("web", 0, false);
        assert_eq!(agent.names(), [format!("restart web {restart}")]);
        agent.started("web");
        assert_eq!(restarts(&agent), restart);
    }
    assert!(agent.reports().is_empty());
    assert!(!agent.is_stopping());
}

#[test]
fn one_that_did_not_run_for_the_attempt_period_is_not_restarted() {
    let mut agent = web();
    agent.pass(59);
    agent.exited("web", 1, false);
    assert_eq!(agent.names(), [""; 0]);
    assert_eq!(agent.acknowledge().status, TaskStatus::Stopped);

    // The period is counted from the last start, not from the first.
    let mut agent = web();
    agent.pass(60);
    agent.exited("web", 1, false);
    agent.started("web");
    agent.names();
    agent.pass(59);
    agent.exited("web", 1, false);
    assert_eq!(agent.names(), [""; 0]);
    assert!(agent.is_stopping());
}

#[test]
fn an_ignored_exit_code_is_an_end() {
    let mut agent = web();
    agent.pass(600);
    agent.exited("web", 42, false);
    assert_eq!(agent.acknowledge().containers[0].exit_code, Some(42));
}

#[test]
fn without_a_policy_that_is_enabled_nothing_is_restarted() {
    for policy in [
        json!(null),
        json!({"enabled": false, "restartAttemptPeriod": 60}),
    ] {
        let mut agent = Agent::with(json!([{"name": "web", "restartPolicy": policy}]), &["web"]);
        agent.pass(6000);
        agent.exited("web", 0, false);
        assert_eq!(agent.names(), [""; 0]);
        assert!(agent.is_stopping());
    }
}

#[test]
fn five_minutes_are_the_default() {
    for (ran, is_restarted) in [(299, false), (300, true)] {
        let policy = json!({"enabled": true});
        let mut agent = Agent::with(json!([{"name": "web", "restartPolicy": policy}]), &["web"]);
        agent.pass(ran);
        agent.exited("web", 1, false);
        assert_eq!(agent.is_stopping(), !is_restarted, "after {ran} s");
    }
}

#[test]
fn a_stopping_task_restarts_nothing() {
    let mut agent = web();
    agent.pass(600);
    agent.payload("STOPPED", json!([]));
    // That it shall stop must be on disk first, or the next agent would take the end for one to be
    // followed by a restart.
    assert_eq!(agent.names(), [""; 0]);
    agent.persist_all();
    assert_eq!(agent.names(), ["stop web"]);
    agent.exited("web", 143, false);
    assert_eq!(agent.names(), [""; 0]);
    assert_eq!(agent.acknowledge().status, TaskStatus::Stopped);
}

#[test]
fn the_next_agent_does_not_restart_what_was_stopped() {
    let mut agent = web();
    agent.pass(600);
    agent.payload("STOPPED", json!([]));
    agent.persist_all();
    let exited = adopted_exited("web", BEGIN, 0, (143, agent.now));
    agent.reborn(&[("web", exited)]);
    assert_eq!(agent.names(), [""; 0]);
    assert!(agent.is_stopping());
}

#[test]
fn a_stop_during_a_restart_waits_for_it() {
    let mut agent = web();
    agent.pass(60);
    agent.exited("web", 1, false);
    assert_eq!(agent.names(), ["restart web 1"]);
    agent.payload("STOPPED", json!([]));
    agent.persist_all();
    assert_eq!(agent.names(), [""; 0]);
    agent.started("web");
    assert_eq!(agent.names(), ["stop web"]);
    agent.exited("web", 143, false);
    assert_eq!(agent.acknowledge().status, TaskStatus::Stopped);
}

#[test]
fn an_essential_end_in_the_same_moment_comes_before_a_restart() {
    let containers = json!([
        {"name": "app"},
        {"name": "side", "essential": false, "restartPolicy": policy()},
    ]);
    let mut agent = Agent::with(containers.clone(), &["app", "side"]);
    agent.pass(60);
    let side = adopted_exited("side", BEGIN, 0, (5, agent.now));
    let app = adopted_exited("app", BEGIN, 0, (0, agent.now));
    agent.reborn(&[("app", app), ("side", side)]);
    assert_eq!(agent.names(), [""; 0]);
    let (_, machine) = agent.core.tasks().next().unwrap();
    assert_eq!(machine.state.status, TaskStatus::Stopped);
    assert_eq!(machine.state.containers["side"].exit_code, Some(5));
}

#[test]
fn a_restart_that_fails_ends_the_container() {
    let mut agent = web();
    agent.pass(60);
    agent.exited("web", 9, false);
    agent.step(Input::Runtime(RuntimeEvent::StartFailed {
        task: id(),
        container: "web".into(),
        reason: "CannotStartContainerError: no".into(),
    }));
    let report = agent.acknowledge();
    assert_eq!(
        report.reason.as_deref(),
        Some("CannotStartContainerError: no")
    );
    assert_eq!(report.containers[0].exit_code, Some(9));
}

#[test]
fn a_restart_that_takes_too_long_fails_the_task() {
    let mut agent = web();
    agent.pass(60);
    agent.exited("web", 9, false);
    agent.pass(179);
    assert!(!agent.is_stopping());
    agent.pass(1);
    assert!(
        agent
            .reason()
            .unwrap()
            .starts_with("ContainerRuntimeTimeoutError: ")
    );
}

#[test]
fn a_restart_under_way_is_not_doubled_by_a_new_agent() {
    let mut agent = web();
    agent.pass(60);
    let (ended, now) = ((1, agent.now), agent.now);
    agent.exited("web", 1, false);
    assert_eq!(agent.names(), ["restart web 1"]);
    agent.persist_all();

    // The runtime had not heard of it: it is asked for again, by the same number.
    agent.reborn(&[("web", adopted_exited("web", BEGIN, 0, ended))]);
    assert_eq!(agent.names()[1..], [""; 0]);
    // The end that has had its effect is told once more.
    agent.exited("web", 1, false);
    assert!(!agent.is_stopping());

    // It is at it: its answer is waited for.
    agent.reborn(&[("web", AdoptedContainer::Starting { restarts: 1 })]);
    assert_eq!(agent.names(), [""; 0]);
    agent.started("web");
    assert_eq!(restarts(&agent), 1);

    // It has done it: that is seen.
    agent.reborn(&[("web", adopted_running("web", now, 1))]);
    assert_eq!(agent.names(), [""; 0]);
    assert_eq!(restarts(&agent), 1);

    // It has, and the new process has ended, too early for another.
    agent.reborn(&[("web", adopted_exited("web", now, 1, (1, now)))]);
    assert_eq!(agent.names(), [""; 0]);
    assert!(agent.is_stopping());
}

#[test]
fn the_count_of_restarts_is_kept() {
    let mut agent = web();
    agent.pass(60);
    agent.exited("web", 1, false);
    agent.started("web");
    agent.persist_all();
    agent.reborn(&[("web", adopted_running("web", agent.now, 1))]);
    assert_eq!(restarts(&agent), 1);
    agent.pass(60);
    agent.exited("web", 1, false);
    assert_eq!(agent.names(), ["restart web 2"]);
    let (_, machine) = agent.core.tasks().next().unwrap();
    assert_eq!(
        machine.state.containers["web"].status,
        ContainerStatus::Running
    );
}
