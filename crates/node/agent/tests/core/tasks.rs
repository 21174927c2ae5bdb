//! One task from its payload to its last report.

use std::time::Duration;

use gantry_agent::core::step::{CallError, RuntimeCommand, RuntimeEvent, Timer};
use gantry_agent::core::{ContainerStatus, Input, JournalRecord, Output, TaskStatus};
use gantry_api::acs::{Frame, TaskManifestMessage};
use serde_json::json;

use crate::scripted::{Agent, BEGIN, id};

#[test]
fn a_task_is_acknowledged_and_started_only_once_it_is_on_disk() {
    let mut agent = Agent::new();
    agent.payload("RUNNING", json!([{"name": "web"}]));
    agent.pulled("web");
    assert_eq!(agent.names(), ["pull web"]);
    assert!(agent.acks().is_empty());
    agent.persist_all();
    assert_eq!(agent.names(), ["start web"]);
    assert_eq!(agent.acks(), ["m1"]);
    // The same again is acknowledged and starts nothing.
    agent.number = 0;
    agent.payload("RUNNING", json!([{"name": "web"}]));
    agent.persist_all();
    assert_eq!(agent.acks(), ["m1"]);
    assert_eq!(agent.names(), [""; 0]);
}

#[test]
fn a_node_that_has_registered_anew_takes_what_it_is_sent_from_the_first_number_on() {
    let mut agent = Agent::new();
    agent.number = 5;
    agent.payload("RUNNING", json!([{"name": "web"}]));
    agent.persist_all();
    assert_eq!(agent.acks(), ["m6"]);
    // That task has gone meanwhile; what is left is the number.
    let is_seen = |record: &&JournalRecord| matches!(record, JournalRecord::Seen { .. });
    let seen: Vec<_> = agent.disk.iter().filter(is_seen).cloned().collect();
    assert_eq!(seen.len(), 1);
    for (container_instance, taken) in [("i", false), ("another", true)] {
        agent.reborn_as(container_instance, seen.clone());
        agent.number = 0;
        agent.payload("RUNNING", json!([{"name": "web"}]));
        agent.persist_all();
        assert_eq!(
            agent.acks().len(),
            usize::from(taken),
            "{container_instance}"
        );
    }
    // And it knows its own number after the next start.
    let disk = agent.disk.iter().filter(is_seen).cloned().collect();
    agent.reborn_as("another", disk);
    agent.number = 0;
    agent.payload("RUNNING", json!([{"name": "web"}]));
    agent.persist_all();
    assert_eq!(agent.acks(), [""; 0]);
}

#[test]
fn an_essential_container_that_ends_ends_the_task() {
    let mut agent = Agent::running();
    agent.exited("web", 3, false);
    // An agent that died now would start the task again: nobody may have heard of its end.
    assert!(agent.reports().is_empty(), "the end is not on disk yet");
    assert_eq!(agent.names(), [""; 0], "the runtime keeps it until then");
    agent.persist_all();
    let report = agent.acknowledge();
    assert_eq!(report.status, TaskStatus::Stopped);
    assert_eq!(
        report.reason.as_deref(),
        Some("Essential container in task exited")
    );
    assert_eq!(report.containers[0].exit_code, Some(3));
    assert_eq!(report.execution_stopped_at, Some(BEGIN));
    assert_eq!(agent.names(), ["remove"]);
    agent.step(Input::Runtime(RuntimeEvent::Removed { task: id() }));
    assert!(agent.out.iter().any(|o| matches!(
        o,
        Output::Persist { records, .. }
            if records.contains(&JournalRecord::Forgotten { task_id: id() })
    )));
}

#[test]
fn running_is_told_before_stopped_even_if_both_are_late() {
    let mut agent = Agent::new();
    agent.payload("RUNNING", json!([{"name": "web"}]));
    agent.persist_all();
    agent.pulled("web");
    agent.started("web");
    agent.exited("web", 0, false);
    let reports = agent.reports();
    let [(call, report)] = &reports[..] else {
        panic!("one at a time: {reports:?}")
    };
    assert_eq!(report.status, TaskStatus::Running);
    let result = Err(CallError::Retry {
        message: "away".into(),
    });
    agent.step(Input::Reply {
        call: *call,
        result,
    });
    assert!(agent.reports().is_empty(), "it waits");
    agent.step(Input::Timer(Timer::Report(id())));
    assert_eq!(agent.acknowledge().status, TaskStatus::Running);
    assert_eq!(agent.acknowledge().status, TaskStatus::Stopped);
}

#[test]
fn out_of_memory_is_said_so() {
    let mut agent = Agent::running();
    agent.exited("web", 137, true);
    let report = agent.acknowledge();
    let web = &report.containers[0];
    assert_eq!(web.exit_code, Some(137));
    assert!(
        web.reason
            .as_ref()
            .unwrap()
            .starts_with("OutOfMemoryError: ")
    );
}

#[test]
fn a_failed_pull_is_the_tasks_reason() {
    let mut agent = Agent::new();
    agent.payload("RUNNING", json!([{"name": "web"}]));
    agent.persist_all();
    let reason = "CannotPullContainerError: there is no such image".to_owned();
    agent.step(Input::Runtime(RuntimeEvent::PullFailed {
        task: id(),
        container: "web".into(),
        reason: reason.clone(),
    }));
    let report = agent.acknowledge();
    assert_eq!(
        (report.status, report.reason),
        (TaskStatus::Stopped, Some(reason.clone()))
    );
    assert_eq!(report.containers[0].reason, Some(reason));
    assert_eq!(report.containers[0].exit_code, None);
}

#[test]
fn containers_start_in_the_order_of_their_dependencies_and_stop_in_reverse() {
    let mut agent = Agent::new();
    agent.payload(
        "RUNNING",
        json!([
            {"name": "app", "stopTimeout": 7, "dependsOn": [
                {"containerName": "init", "condition": "SUCCESS"},
                {"containerName": "db", "condition": "START"},
            ]},
            {"name": "init", "essential": false},
            {"name": "db"},
        ]),
    );
    agent.persist_all();
    for container in ["app", "init", "db"] {
        agent.pulled(container);
    }
    assert_eq!(agent.names()[3..], ["start init", "start db"]);
    agent.started("init");
    agent.exited("init", 0, false);
    assert_eq!(agent.names(), [""; 0]);
    agent.started("db");
    assert_eq!(agent.names(), ["start app"]);
    agent.started("app");
    assert_eq!(agent.acknowledge().status, TaskStatus::Running);
    agent.payload("STOPPED", json!([]));
    let [
        RuntimeCommand::Stop {
            container, grace, ..
        },
    ] = &agent.commands()[..]
    else {
        panic!("only what nothing depends on is stopped");
    };
    assert_eq!(
        (container.as_str(), *grace),
        ("app", Duration::from_secs(7))
    );
    agent.exited("app", 0, false);
    assert_eq!(agent.names(), ["stop db"]);
    agent.exited("db", 0, false);
    let report = agent.acknowledge();
    assert_eq!((report.status, report.reason), (TaskStatus::Stopped, None));
}

#[test]
fn a_dependency_that_fails_fails_what_waits_for_it() {
    let mut agent = Agent::new();
    agent.payload(
        "RUNNING",
        json!([
            {"name": "app", "dependsOn": [{"containerName": "init", "condition": "SUCCESS"}]},
            {"name": "init", "essential": false},
        ]),
    );
    agent.persist_all();
    agent.pulled("app");
    agent.pulled("init");
    agent.started("init");
    agent.exited("init", 1, false);
    let report = agent.acknowledge();
    assert_eq!(report.status, TaskStatus::Stopped);
    assert!(
        report
            .reason
            .unwrap()
            .contains("dependency did not exit successfully")
    );
}

#[test]
fn a_container_that_is_not_essential_ends_alone_and_is_told() {
    let mut agent = Agent::new();
    agent.payload(
        "RUNNING",
        json!([{"name": "web"}, {"name": "side", "essential": false}]),
    );
    agent.persist_all();
    for container in ["web", "side"] {
        agent.pulled(container);
        agent.started(container);
    }
    agent.acknowledge();
    agent.exited("side", 4, false);
    let report = agent.acknowledge();
    assert_eq!(report.status, TaskStatus::Running);
    let side = report.containers.iter().find(|c| c.name == "side").unwrap();
    assert_eq!(
        (side.status, side.exit_code),
        (ContainerStatus::Stopped, Some(4))
    );
}

#[test]
fn a_stop_while_a_start_is_under_way_waits_for_it() {
    let mut agent = Agent::new();
    agent.payload("RUNNING", json!([{"name": "web"}]));
    agent.persist_all();
    agent.pulled("web");
    agent.names();
    agent.payload("STOPPED", json!([]));
    assert_eq!(agent.names(), [""; 0]);
    agent.started("web");
    assert_eq!(agent.names(), ["stop web"]);
    agent.exited("web", 143, false);
    // A task that was to stop all the while is told as such only; that it ran shows in its id.
    let first = agent.acknowledge();
    assert!(first.containers[0].runtime_id.is_some());
}

#[test]
fn a_task_that_was_to_stop_before_it_came_is_told_stopped() {
    let mut agent = Agent::new();
    agent.payload("STOPPED", json!([{"name": "web"}]));
    agent.persist_all();
    assert_eq!(agent.acknowledge().status, TaskStatus::Stopped);
    assert_eq!(agent.names(), ["remove"]);
}

#[test]
fn a_manifest_stops_nothing_by_itself() {
    let mut agent = Agent::running();
    let manifest = |timeline| {
        Input::Frame(Frame::TaskManifest(TaskManifestMessage {
            message_id: Some(format!("t{timeline}")),
            timeline: Some(timeline),
            ..TaskManifestMessage::default()
        }))
    };
    let offers = |agent: &mut Agent| {
        let offered = agent
            .out
            .iter()
            .any(|o| matches!(o, Output::Send(Frame::TaskStopVerification(_))));
        agent.out.clear();
        offered
    };
    // Not newer than the payload that brought the task.
    agent.step(manifest(1));
    assert!(!offers(&mut agent));
    agent.step(manifest(50));
    assert_eq!(agent.names(), [""; 0]);
    assert!(offers(&mut agent));
    let ack = |message_id: &str| {
        let arn = format!("arn:aws:ecs:us-east-1:000000000000:task/default/{}", id());
        let ack = json!({"messageId": message_id, "stopTasks": [{"taskArn": arn}]});
        Input::Frame(Frame::TaskStopVerificationAck(
            serde_json::from_value(ack).unwrap(),
        ))
    };
    agent.step(ack("t1"));
    assert_eq!(agent.names(), [""; 0], "the answer to another manifest");
    agent.step(ack("t50"));
    assert_eq!(agent.names(), ["stop web"]);
}

#[test]
fn a_silent_control_plane_is_given_up_and_found_again() {
    let mut agent = Agent::running();
    agent.step(Input::Timer(Timer::Silence));
    // Something was heard since the socket was opened.
    assert!(!agent.out.contains(&Output::Disconnect));
    agent.step(Input::Timer(Timer::Silence));
    assert!(agent.out.contains(&Output::Disconnect));
    assert!(agent.out.iter().any(|o| matches!(
        o,
        Output::SetTimer {
            timer: Timer::Reconnect,
            ..
        }
    )));
    agent.out.clear();
    agent.step(Input::Timer(Timer::Reconnect));
    assert_eq!(agent.out, [Output::Connect]);
    assert_eq!(agent.core.tasks().count(), 1, "its tasks run on");
}

#[test]
fn a_container_instance_that_is_not_wanted_stays_away_for_an_hour() {
    let mut agent = Agent::running();
    agent.step(Input::Frame(Frame::InactiveInstance(Default::default())));
    let after = agent.out.iter().find_map(|o| match o {
        Output::SetTimer {
            timer: Timer::Reconnect,
            after,
        } => Some(*after),
        _ => None,
    });
    assert_eq!(after, Some(Duration::from_secs(3600)));
}
