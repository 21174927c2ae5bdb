//! Credentials of roles over the hours of a session: renewed before they end, whatever goes wrong
//! meanwhile. On the core alone, with made-up time.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::acs::{DesiredStatus, Frame, NackRequest, RoleCredentials, RoleType, Task};
use gantry_arn::TaskId;
use gantry_ecs::acs::{AcsSession, AssignedTask, Identity, Input, Output, RoleRefusal, Timer};
use gantry_env::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);
const ROLE: &str = "arn:aws:iam::000000000000:role/app";

fn start() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn task(reported: bool) -> AssignedTask {
    AssignedTask {
        id: TaskId::from_random([1; 16]),
        arn: "arn:task".into(),
        cluster_arn: "arn:cluster".into(),
        stop: false,
        reported,
        payload: Ok(Arc::new(Task {
            arn: Some("arn:task".into()),
            ..Task::default()
        })),
        roles: vec![(RoleType::TaskApplication, ROLE.into())],
    }
}

fn session(task: AssignedTask) -> (AcsSession, Vec<Output>) {
    let identity = Identity {
        cluster_arn: "arn:cluster".into(),
        container_instance_arn: "arn:instance".into(),
    };
    let mut session = AcsSession::new(identity, 1).unwrap();
    let tasks = vec![task];
    let outputs = session.step(start(), Input::Connected { tasks });
    (session, outputs)
}

fn answer(result: Result<Timestamp, RoleRefusal>) -> Input {
    Input::Role {
        task: TaskId::from_random([1; 16]),
        role: RoleType::TaskApplication,
        credentials: result.map(|expiration| RoleCredentials {
            credentials_id: Some("id".into()),
            expiration: Some(expiration.to_string()),
            ..RoleCredentials::default()
        }),
    }
}

fn asks(outputs: &[Output]) -> bool {
    outputs
        .iter()
        .any(|output| matches!(output, Output::AssumeRole { role_arn, .. } if role_arn == ROLE))
}

/// When the session will look at its roles again.
fn timer(outputs: &[Output]) -> Option<Duration> {
    outputs.iter().find_map(|output| match output {
        Output::SetTimer {
            timer: Timer::Roles,
            after,
        } => Some(*after),
        _ => None,
    })
}

fn sent(outputs: &[Output]) -> Option<&Frame> {
    outputs.iter().find_map(|output| match output {
        Output::Send(frame) => Some(frame),
        _ => None,
    })
}

#[test]
fn a_running_task_gets_new_credentials_long_before_the_old_ones_end() {
    let (mut session, outputs) = session(task(false));
    assert!(asks(&outputs));
    let outputs = session.step(start(), answer(Ok(start() + 6 * HOUR)));
    let Some(Frame::Payload(payload)) = sent(&outputs) else {
        panic!("{outputs:?}");
    };
    let given = payload.tasks[0].role_credentials.as_ref().unwrap();
    assert_eq!(given.credentials_id.as_deref(), Some("id"));
    assert_eq!(timer(&outputs), Some(4 * HOUR + HOUR / 2));

    // Nothing is due before its time.
    assert!(!asks(
        &session.step(start() + HOUR, Input::Timer(Timer::Roles))
    ));
    let due = start() + 4 * HOUR + HOUR / 2;
    assert!(asks(&session.step(due, Input::Timer(Timer::Roles))));
    // Nobody can say right now; what there is still counts, and it is tried again.
    let outputs = session.step(due, answer(Err(RoleRefusal::Unavailable)));
    assert_eq!(timer(&outputs), Some(Duration::from_secs(60)));
    assert_eq!(sent(&outputs), None);
    let again = due + Duration::from_secs(60);
    assert!(asks(&session.step(again, Input::Timer(Timer::Roles))));
    let outputs = session.step(again, answer(Ok(again + 6 * HOUR)));
    let Some(Frame::IamRoleCredentials(message)) = sent(&outputs) else {
        panic!("{outputs:?}");
    };
    assert_eq!(message.task_arn.as_deref(), Some("arn:task"));
    assert_eq!(message.role_type, Some(RoleType::TaskApplication));
    assert_eq!(timer(&outputs), Some(4 * HOUR + HOUR / 2));
}

#[test]
fn a_role_that_vanishes_ends_no_running_task_and_a_task_that_stops_needs_none() {
    let (mut session, outputs) = session(task(true));
    assert!(asks(&outputs));
    let outputs = session.step(start(), answer(Err(RoleRefusal::Unassumable)));
    assert!(
        !outputs
            .iter()
            .any(|o| matches!(o, Output::ReportStopped { .. }))
    );
    assert!(timer(&outputs).is_some());
    let stopping = AssignedTask {
        stop: true,
        ..task(true)
    };
    session.step(start(), Input::Changed(vec![(stopping.id, Some(stopping))]));
    assert!(!asks(
        &session.step(start() + HOUR, Input::Timer(Timer::Roles))
    ));
}

#[test]
fn a_task_waits_while_nobody_can_say_and_fails_when_the_role_is_not_there() {
    let (mut session, _) = session(task(false));
    let outputs = session.step(start(), answer(Err(RoleRefusal::Unavailable)));
    assert_eq!(sent(&outputs), None);
    let after = timer(&outputs).unwrap();
    assert!(asks(
        &session.step(start() + after, Input::Timer(Timer::Roles))
    ));
    let outputs = session.step(start() + after, answer(Err(RoleRefusal::Unassumable)));
    let [Output::ReportStopped { task_arn, reason }] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(task_arn, "arn:task");
    assert!(reason.starts_with(&format!("ECS was unable to assume the role '{ROLE}'")));
}

#[test]
fn a_refused_stop_does_not_say_that_the_task_is_over() {
    let (mut session, _) = session(task(true));
    let stopping = AssignedTask {
        stop: true,
        ..task(true)
    };
    let outputs = session.step(start(), Input::Changed(vec![(stopping.id, Some(stopping))]));
    let Some(Frame::Payload(payload)) = sent(&outputs) else {
        panic!("{outputs:?}");
    };
    assert_eq!(
        payload.tasks[0].desired_status,
        Some(DesiredStatus::Stopped)
    );
    let nack = NackRequest {
        message_id: payload.message_id.clone(),
        ..NackRequest::default()
    };
    assert_eq!(session.step(start(), Input::Frame(Frame::Nack(nack))), []);
}
