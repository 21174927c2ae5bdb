//! When containers start and stop that depend on one another.

use gantry_agent::core::step::RuntimeEvent;
use gantry_agent::core::{ContainerStatus, Input, TaskStatus};
use serde_json::json;

use crate::scripted::{Agent, BEGIN, adopted_running, id};

const CHECK: &str = r#"{"Test": ["CMD", "/healthy"], "Interval": 10000000000, "Retries": 2}"#;

fn check() -> serde_json::Value {
    serde_json::from_str(CHECK).unwrap()
}

#[test]
fn a_chain_starts_link_by_link_and_stops_in_reverse() {
    let mut agent = Agent::with(
        json!([
            {"name": "app", "dependsOn": [{"containerName": "proxy", "condition": "START"}]},
            {"name": "proxy", "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]},
            {"name": "db", "healthCheck": check(), "dependsOn": [
                {"containerName": "init", "condition": "SUCCESS"},
                {"containerName": "say", "condition": "COMPLETE"},
            ]},
            {"name": "init", "essential": false},
            {"name": "say", "essential": false},
        ]),
        &["init", "say"],
    );
    agent.exited("say", 7, false);
    assert_eq!(agent.names(), [""; 0]);
    agent.exited("init", 0, false);
    assert_eq!(agent.names(), ["start db"]);
    agent.started("db");
    agent.pass(10);
    assert_eq!(agent.names(), ["check db 0"]);
    agent.checked("db", 0, true);
    assert_eq!(agent.names(), ["start proxy"]);
    agent.started("proxy");
    assert_eq!(agent.names(), ["start app"]);
    agent.started("app");
    assert_eq!(agent.acknowledge().status, TaskStatus::Running);
    agent.payload("STOPPED", json!([]));
    for container in ["app", "proxy", "db"] {
        assert_eq!(agent.names(), [format!("stop {container}")]);
        agent.exited(container, 0, false);
    }
}

#[test]
fn a_dependency_that_decides_is_not_hidden_by_one_that_is_waited_for() {
    let mut agent = Agent::with(
        json!([
            {"name": "app", "dependsOn": [
                {"containerName": "slow", "condition": "COMPLETE"},
                {"containerName": "init", "condition": "SUCCESS"},
            ]},
            {"name": "slow", "essential": false},
            {"name": "init", "essential": false},
        ]),
        &["slow", "init"],
    );
    agent.exited("init", 3, false);
    assert_eq!(
        agent.reason().as_deref(),
        Some(
            "CannotStartContainerError: dependency graph: failed to resolve container ordering \
             dependency [init] for target [app] as dependency did not exit successfully."
        )
    );
    assert_eq!(agent.names(), ["stop slow"]);
    agent.exited("slow", 143, false);
    // The first and only report: a task that was never RUNNING has failed to start.
    let report = agent.acknowledge();
    assert_eq!(report.status, TaskStatus::Stopped);
    let app = report.containers.iter().find(|c| c.name == "app").unwrap();
    assert_eq!(
        (app.status, app.exit_code, &app.runtime_id),
        (ContainerStatus::Stopped, Some(143), &None)
    );
}

#[test]
fn what_waits_for_what_never_starts_is_not_left_waiting() {
    // None is essential but the one that runs on: nothing else would ever look again.
    let mut agent = Agent::with(
        json!([
            {"name": "last", "essential": false,
             "dependsOn": [{"containerName": "middle", "condition": "START"}]},
            {"name": "middle", "essential": false,
             "dependsOn": [{"containerName": "init", "condition": "SUCCESS"}]},
            {"name": "init", "essential": false},
            {"name": "web"},
        ]),
        &["init", "web"],
    );
    agent.exited("init", 1, false);
    assert!(!agent.is_stopping());
    let (_, machine) = agent.core.tasks().next().unwrap();
    let reason = |name: &str| machine.state.containers[name].reason.clone().unwrap();
    assert!(reason("middle").contains("[init] for target [middle] as dependency did not exit"));
    assert!(reason("last").contains("[middle] for target [last] because dependency will never"));
}

#[test]
fn an_unhealthy_dependency_fails_what_waits_for_its_health() {
    let mut agent = Agent::with(
        json!([
            {"name": "app", "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]},
            {"name": "db", "healthCheck": check()},
        ]),
        &["db"],
    );
    for _ in 0..2 {
        assert!(!agent.is_stopping());
        agent.pass(10);
        agent.checked("db", 0, false);
    }
    assert!(
        agent
            .reason()
            .unwrap()
            .contains("[db] for target [app] as dependency is unhealthy")
    );
}

#[test]
fn a_dependency_that_ends_before_it_is_healthy_fails_what_waits_for_it() {
    let mut agent = Agent::with(
        json!([
            {"name": "app", "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]},
            {"name": "db", "essential": false, "healthCheck": check()},
        ]),
        &["db"],
    );
    agent.exited("db", 0, false);
    assert!(
        agent
            .reason()
            .unwrap()
            .contains("stopped before it was healthy")
    );
}

#[test]
fn health_matters_at_the_start_only() {
    let mut agent = Agent::with(
        json!([
            {"name": "app", "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]},
            {"name": "db", "healthCheck": check()},
        ]),
        &["db"],
    );
    agent.pass(10);
    agent.checked("db", 0, true);
    agent.started("app");
    for _ in 0..3 {
        agent.pass(10);
        agent.checked("db", 0, false);
    }
    assert!(!agent.is_stopping());
}

#[test]
fn a_start_timeout_is_how_long_dependants_wait_and_no_longer() {
    for (condition, is_bounded) in [
        ("COMPLETE", true),
        ("SUCCESS", true),
        ("HEALTHY", true),
        ("START", false),
    ] {
        let mut agent = Agent::with(
            json!([
                {"name": "app", "dependsOn": [
                    {"containerName": "slow", "condition": condition},
                    {"containerName": "slower", "condition": "COMPLETE"},
                ]},
                {"name": "slow", "essential": false, "startTimeout": 20, "healthCheck": check()},
                {"name": "slower", "essential": false},
            ]),
            &["slow", "slower"],
        );
        agent.pass(19);
        assert!(!agent.is_stopping(), "{condition}");
        agent.pass(1);
        assert_eq!(agent.is_stopping(), is_bounded, "{condition}");
        if is_bounded {
            assert!(
                agent
                    .reason()
                    .unwrap()
                    .contains("dependency [slow] for target [app] has timed out."),
            );
        }
    }
}

#[test]
fn a_start_timeout_goes_on_over_a_restart_of_the_agent() {
    let mut agent = Agent::with(
        json!([
            {"name": "app", "dependsOn": [{"containerName": "init", "condition": "SUCCESS"}]},
            {"name": "init", "essential": false, "startTimeout": 20},
        ]),
        &["init"],
    );
    agent.pass(15);
    agent.reborn(&[("init", adopted_running("init", BEGIN, 0))]);
    agent.pass(4);
    assert!(!agent.is_stopping());
    agent.pass(1);
    assert!(agent.is_stopping());
}

#[test]
fn without_a_start_timeout_a_dependency_takes_as_long_as_it_takes() {
    let mut agent = Agent::with(
        json!([
            {"name": "app", "dependsOn": [{"containerName": "init", "condition": "SUCCESS"}]},
            {"name": "init", "essential": false},
        ]),
        &["init"],
    );
    agent.pass(100_000);
    agent.exited("init", 0, false);
    assert_eq!(agent.names(), ["start app"]);
}

#[test]
fn the_runtime_has_three_minutes_to_start_a_container() {
    let mut agent = Agent::with(json!([{"name": "web", "startTimeout": 10}]), &[]);
    agent.pass(179);
    assert!(!agent.is_stopping());
    agent.pass(1);
    assert!(
        agent
            .reason()
            .unwrap()
            .starts_with("ContainerRuntimeTimeoutError: ")
    );
    // Should it come up after all, it is stopped.
    agent.persist_all();
    agent.started("web");
    assert_eq!(agent.names(), ["stop web"]);
}

#[test]
fn each_container_has_its_own_time_to_stop() {
    let mut agent = Agent::with(
        json!([
            {"name": "app", "stopTimeout": 5,
             "dependsOn": [{"containerName": "db", "condition": "START"}]},
            {"name": "db", "stopTimeout": 90},
        ]),
        &["db", "app"],
    );
    agent.step(Input::StopAll {
        reason: "over".to_owned(),
    });
    let grace = |agent: &mut Agent| match &agent.commands()[..] {
        [gantry_agent::core::step::RuntimeCommand::Stop { grace, .. }] => grace.as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(grace(&mut agent), 5);
    agent.exited("app", 0, false);
    assert_eq!(grace(&mut agent), 90);
}

#[test]
fn a_dead_shim_ends_what_it_was_starting_again_as_well() {
    let mut agent = Agent::with(
        json!([{"name": "web", "restartPolicy": {"enabled": true, "restartAttemptPeriod": 60}}]),
        &["web"],
    );
    agent.pass(60);
    agent.exited("web", 1, false);
    assert_eq!(agent.names(), ["restart web 1"]);
    agent.step(Input::Runtime(RuntimeEvent::ShimDied {
        task: id(),
        reason: "ContainerRuntimeError: the task's shim ended".to_owned(),
    }));
    assert!(agent.reason().unwrap().starts_with("ContainerRuntimeError"));
    let (_, machine) = agent.core.tasks().next().unwrap();
    assert_eq!(machine.state.status, TaskStatus::Stopped);
}
