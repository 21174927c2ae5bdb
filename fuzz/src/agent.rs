//! What an agent and its control plane say to each other, in both directions, and what an agent makes
//! of it.

use std::collections::BTreeSet;

use gantry_agent::core::plan::{LogDriverPlan, LogPlan, TaskPlan, plan_task};
use gantry_agent::core::step::{Input, Output};
use gantry_agent::core::{AgentCore, Identity};
use gantry_api::acs::{
    Container, DockerContainerConfig, DockerHostConfig, Frame, PayloadMessage, Task,
    TelemetryFrame, split_header_text,
};
use gantry_ecs::acs::session;
use gantry_ecs::acs::{AcsSession, AssignedTask};
use gantry_env::Timestamp;
use serde_json::{Value, json};

use crate::{first_line, same_but_for_rounding, text};

const CLUSTER: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/default";
const INSTANCE: &str = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/0123456789abcdef0123456789abcdef";
const TASK: &str =
    "arn:aws:ecs:us-east-1:000000000000:task/default/00000000000000000000000000000001";

fn value(json: &str) -> Value {
    serde_json::from_str(json).expect("a JSON document")
}

/// A frame that was read is written and read to the same.
pub fn acs_frames(data: &[u8]) {
    let Some(Ok(frame)) = text(data).map(Frame::decode) else {
        return;
    };
    let written = frame.encode();
    let again = Frame::decode(&written).expect("what was written can be read");
    assert_eq!(again.kind(), frame.kind());
    let (once, twice) = (value(&written), value(&again.encode()));
    assert!(same_but_for_rounding(&once, &twice), "{once}\n{twice}");
}

pub fn tcs_frames(data: &[u8]) {
    let Some(text) = text(data) else { return };
    // Header text before a frame changes nothing of it.
    let body = split_header_text(text);
    let with_header = format!("Host: localhost\r\nX-Amz-Date: 1\r\n\r\n{body}");
    let Ok(frame) = TelemetryFrame::decode(text) else {
        return;
    };
    if body.trim_start().starts_with('{') {
        assert_eq!(TelemetryFrame::decode(&with_header).as_ref(), Ok(&frame));
    }
    let written = frame.encode();
    let again = TelemetryFrame::decode(&written).expect("what was written can be read");
    assert_eq!(again.ack(), frame.ack());
    let (once, twice) = (value(&written), value(&again.encode()));
    assert!(same_but_for_rounding(&once, &twice), "{once}\n{twice}");
    if let Some(ack) = frame.ack() {
        assert!(value(&ack.encode()).is_object());
    }
}

/// Docker's Config in the first line and its HostConfig after it. Whatever is not known is kept.
pub fn docker_configs(data: &[u8]) {
    let (config, host) = first_line(data);
    if let Ok(config) = serde_json::from_slice::<DockerContainerConfig>(config) {
        let written = serde_json::to_value(&config).expect("JSON");
        let again: DockerContainerConfig = serde_json::from_value(written.clone()).expect("same");
        let again = serde_json::to_value(&again).expect("JSON");
        assert!(
            same_but_for_rounding(&written, &again),
            "{written}\n{again}"
        );
    }
    if let Ok(host) = serde_json::from_slice::<DockerHostConfig>(host) {
        let written = serde_json::to_value(&host).expect("JSON");
        let again: DockerHostConfig = serde_json::from_value(written.clone()).expect("same");
        let again = serde_json::to_value(&again).expect("JSON");
        assert!(
            same_but_for_rounding(&written, &again),
            "{written}\n{again}"
        );
    }
    let (Some(config), Some(host)) = (text(config), text(host)) else {
        return;
    };
    let container = json!({"name": "web", "image": "app",
        "dockerConfig": {"config": config, "hostConfig": host}});
    let container: Container = serde_json::from_value(container).expect("a container");
    let task = Task {
        arn: Some(TASK.to_owned()),
        containers: vec![container],
        ..Task::default()
    };
    planned(&task);
}

/// The message of a PayloadMessage.
pub fn task_plans(data: &[u8]) {
    if let Ok(payload) = serde_json::from_slice::<PayloadMessage>(data) {
        for task in &payload.tasks {
            planned(task);
        }
    }
}

/// A payload has one plan, whose containers are those of the payload, or a reason to be refused with.
pub fn planned(task: &Task) -> Option<TaskPlan> {
    let plan = plan_task(task);
    assert_eq!(plan, plan_task(task));
    let plan = match plan {
        Ok(plan) => plan,
        Err(reason) => {
            assert!(!reason.is_empty());
            return None;
        }
    };
    let names: BTreeSet<&str> = plan.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(plan.containers.len(), task.containers.len());
    assert_eq!(names.len(), plan.containers.len(), "names are unique");
    for container in &plan.containers {
        if let LogPlan::Shipped(log) = &container.log
            && let LogDriverPlan::AwsLogs(logs) = &log.driver
            && let Some(expression) = &logs.begins_event
        {
            assert!(regex::Regex::new(expression).is_ok(), "{expression}");
        }
    }
    Some(plan)
}

/// A frame a line, to an agent that stands between its journal and its runtime. What it sends can be
/// read, and it comes to rest.
pub fn core(data: &[u8]) {
    let identity = Identity {
        cluster_arn: CLUSTER.to_owned(),
        container_instance_arn: INSTANCE.to_owned(),
    };
    let mut core = AgentCore::new(identity, 1);
    let mut inputs = vec![
        Input::Loaded {
            records: Vec::new(),
            adopted: Vec::new(),
        },
        Input::Connected,
    ];
    let frames = data.split(|byte| *byte == b'\n').filter_map(text);
    inputs.extend(
        frames
            .filter_map(|line| Frame::decode(line).ok())
            .map(Input::Frame),
    );
    let mut now = Timestamp::from_millis(1_800_000_000_000);
    let mut steps = 0;
    for input in inputs {
        let mut waiting = vec![input];
        while let Some(input) = waiting.pop() {
            steps += 1;
            assert!(steps < 10_000, "it does not come to rest");
            now += std::time::Duration::from_millis(1);
            for output in core.step(now, input) {
                match output {
                    Output::Send(frame) => {
                        assert!(Frame::decode(&frame.encode()).is_ok(), "{frame:?}");
                    }
                    Output::Persist { id, records } => {
                        let written = serde_json::to_string(&records).expect("records are JSON");
                        value(&written);
                        waiting.push(Input::Persisted(id));
                    }
                    Output::Call { call, .. } => waiting.push(Input::Reply {
                        call,
                        result: Ok(()),
                    }),
                    _ => {}
                }
            }
        }
    }
}

/// A frame a line, from an agent to its control plane, which has one task for it.
pub fn acs_session(data: &[u8]) {
    let identity = session::Identity {
        cluster_arn: CLUSTER.to_owned(),
        container_instance_arn: INSTANCE.to_owned(),
    };
    let mut session = AcsSession::new(identity, 1).expect("a session");
    let task = AssignedTask {
        id: "00000000000000000000000000000001".parse().expect("an id"),
        arn: TASK.to_owned(),
        cluster_arn: CLUSTER.to_owned(),
        stop: false,
        reported: false,
        payload: Ok(Task::default().into()),
        roles: Vec::new(),
    };
    let now = Timestamp::from_millis(1_800_000_000_000);
    session.step(now, session::Input::Connected { tasks: vec![task] });
    for line in data.split(|byte| *byte == b'\n').filter_map(text) {
        let was_closed = session.is_closed();
        let input = match Frame::decode(line) {
            Ok(frame) => session::Input::Frame(frame),
            Err(error) => session::Input::Malformed {
                cause: error.to_string(),
            },
        };
        let outputs = session.step(now, input);
        assert!(!was_closed || outputs.is_empty(), "{outputs:?}");
        for output in outputs {
            if let session::Output::Send(frame) = output {
                assert!(Frame::decode(&frame.encode()).is_ok(), "{frame:?}");
            }
        }
    }
}

/// `awslogs-datetime-format` in the first line, lines of a container after it.
pub fn datetime_patterns(data: &[u8]) {
    let (format, lines) = first_line(data);
    let (Some(format), Some(lines)) = (text(format), text(lines)) else {
        return;
    };
    let host = json!({"LogConfig": {"Type": "awslogs", "Config": {
        "awslogs-group": "group", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "web",
        "awslogs-datetime-format": format}}});
    let container = json!({"name": "web", "image": "app",
        "dockerConfig": {"config": "{}", "hostConfig": host.to_string()}});
    let task = Task {
        arn: Some(TASK.to_owned()),
        containers: vec![serde_json::from_value(container).expect("a container")],
        ..Task::default()
    };
    let Some(plan) = planned(&task) else { return };
    let LogPlan::Shipped(log) = &plan.containers[0].log else {
        panic!("no log")
    };
    let LogDriverPlan::AwsLogs(logs) = &log.driver else {
        panic!("another driver")
    };
    let Some(expression) = &logs.begins_event else {
        return;
    };
    let begins = regex::Regex::new(expression).expect("the plan has compiled it");
    for line in lines.lines() {
        let found = begins.is_match(line);
        // A format without a verb is found where it stands.
        assert!(format.contains('%') || found == line.contains(format));
    }
}
