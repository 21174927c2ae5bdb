//! What users send to run: task definitions and overrides on their whole way to an agent, requests to
//! run tasks, and the cluster query language.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::acs::{Frame, PayloadMessage};
use gantry_api::ecs::{LaunchType, RegisterTaskDefinitionRequest, RunTaskRequest, TaskOverride};
use gantry_ecs::acs::payload::build;
use gantry_ecs::model::task_definition::defaults::{Registration, definition};
use gantry_ecs::model::{enums, overrides, run_request, task_definition};
use gantry_ecs::tables::TaskRow;
use gantry_env::Timestamp;
use gantry_placement::query::{Expression, parse};
use gantry_placement::{Candidate, Capacity, Eligibility};
use serde_json::json;

use crate::{agent, first_line, text};

/// RegisterTaskDefinition's input in the first line, a task's overrides after it. What is accepted is
/// a payload that the agent reads as it was sent, or a reason in words.
pub fn registered(data: &[u8]) {
    let (input, given) = first_line(data);
    let Ok(input) = serde_json::from_slice::<RegisterTaskDefinitionRequest>(input) else {
        return;
    };
    if enums::validate(&input).is_err() || task_definition::validate(&input).is_err() {
        return;
    }
    let registration = Registration {
        arn: "arn:aws:ecs:us-east-1:000000000000:task-definition/f:1".to_owned(),
        revision: 1,
        registered_at: Timestamp::EPOCH,
        registered_by: "arn:aws:iam::000000000000:root".to_owned(),
    };
    let definition = definition(input, registration);
    let given: Option<TaskOverride> = serde_json::from_slice(given).ok();
    let given = given.filter(|given| overrides::validate(given, &definition).is_ok());
    let normal = overrides::normalized(given, &definition);
    let again = overrides::normalized(Some(normal.clone()), &definition);
    assert_eq!(again, normal, "normalized twice");
    let reserved = overrides::reserved(&definition, &normal, "group");
    let row = json!({
        "id": "00000000000000000000000000000001", "cluster": "default", "family": "f", "revision": 1,
        "container_instance": "00000000000000000000000000000002", "launch_type": LaunchType::Ec2,
        "group": "group", "created_at": Timestamp::EPOCH, "overrides": normal, "containers": [],
        "reserved": reserved, "cpu": "", "memory": "",
    });
    let row: TaskRow = serde_json::from_value(row).expect("a row");
    let names = gantry_ecs::acs::image::RegistryNames {
        account: Default::default(),
        region: Default::default(),
        joined: Some("localhost:4566".to_owned()),
    };
    let task = match build(&names, &definition, &row) {
        Ok(built) => built.task,
        Err(reason) => return assert!(!reason.is_empty()),
    };
    let frame = Frame::Payload(PayloadMessage {
        tasks: vec![task.clone()],
        ..Default::default()
    });
    let Ok(Frame::Payload(received)) = Frame::decode(&frame.encode()) else {
        panic!("another frame");
    };
    assert_eq!(received.tasks.len(), 1);
    let (sent, received) = (agent::planned(&task), agent::planned(&received.tasks[0]));
    assert_eq!(
        sent, received,
        "the plan of what was sent is that of what came"
    );
}

/// RunTask's input, with the constraints and strategies in it.
pub fn run_requests(data: &[u8]) {
    let Ok(input) = serde_json::from_slice::<RunTaskRequest>(data) else {
        return;
    };
    if enums::validate(&input).is_ok() && run_request::validate(&input).is_ok() {
        let (constraints, again) = (
            run_request::constraints(&input),
            run_request::constraints(&input),
        );
        assert_eq!(constraints.is_ok(), again.is_ok());
        assert!(!run_request::strategies(&input).is_ok_and(|found| found.len() > 5));
    }
}

/// What was parsed prints as what parses to the same, and holds where its opposite does not.
pub fn queries(data: &[u8]) {
    let Some(Ok(expression)) = text(data).map(parse) else {
        return;
    };
    let printed = expression.to_string();
    // A form that says every parenthesis may be too long to be read.
    if printed.len() <= gantry_placement::query::EXPRESSION_LENGTH_MAX {
        let again = parse(&printed).unwrap_or_else(|error| panic!("{printed}: {error}"));
        assert_eq!(again.to_string(), printed);
        assert_eq!(again, expression, "{printed}");
    }
    for candidate in candidates() {
        let opposite = Expression::Not(Box::new(expression.clone()));
        assert_ne!(expression.holds(&candidate), opposite.holds(&candidate));
    }
}

fn candidates() -> [Candidate; 2] {
    let bare = Candidate {
        id: "00000000000000000000000000000002".parse().expect("an id"),
        eligibility: Eligibility::default(),
        launch_type: Default::default(),
        free: Capacity::default(),
        tcp_ports_taken: Default::default(),
        udp_ports_taken: Default::default(),
        attributes: Default::default(),
        tasks_by_group: BTreeMap::new(),
        running_tasks: 0,
        agent_connected: false,
        agent_version: None,
        ec2_instance_id: Arc::from(""),
        registered_at_ms: 0,
        busy: false,
    };
    let attributes = [
        ("ecs.instance-type", Some("c5.large")),
        ("stack", Some("prod")),
        ("count", Some("42")),
        ("empty", None),
    ];
    let full = Candidate {
        attributes: Arc::new(
            attributes
                .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
                .into(),
        ),
        tasks_by_group: [("service:web".to_owned(), 2), ("family:f".to_owned(), 1)].into(),
        running_tasks: 3,
        agent_connected: true,
        agent_version: Some(Arc::from("1.92.0")),
        ec2_instance_id: Arc::from("i-0123456789abcdef0"),
        registered_at_ms: 1_800_000_000_000,
        ..bare.clone()
    };
    [bare, full]
}
