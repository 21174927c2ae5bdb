//! Whatever an agent sends: nothing makes the control plane panic, grow or forget its other work.

use std::time::Duration;

use gantry_api::acs::{Frame, TelemetryFrame};
use gantry_ecs::acs::{AcsSession, Identity, Input, Output, Telemetry, Timer};
use gantry_env::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::amazon_agent::{Memory, Seen};
use crate::container;
use crate::plane::{Plane, within};

/// Any JSON value, not too deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!(
            "arn:aws:ecs:us-east-1:000000000000:task/default/00000000000000000000000000000001"
        )),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(member(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Mostly names that mean something.
fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "messageId",
            "cluster",
            "containerInstance",
            "reason",
            "stopCandidates",
            "taskArn",
            "desiredStatus",
            "taskClusterArn",
            "credentialsId",
            "expiration",
            "metadata",
            "fin",
            "tasks",
            "containers",
            "containerName",
            "healthStatus",
            "statusSince",
            "taskMetrics",
            "containerMetrics",
            "cpuStatsSet",
            "min",
            "max",
            "sum",
            "sampleCount",
            "statuses",
            "type",
            "status",
            "timestamp",
            "seqNum",
            "timeline",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

fn kind() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "AckRequest",
            "NackRequest",
            "HeartbeatAckRequest",
            "IAMRoleCredentialsAckRequest",
            "TaskStopVerificationMessage",
            "PayloadMessage",
            "TaskManifestMessage",
            "CloseMessage",
            "PublishMetricsRequest",
            "PublishHealthRequest",
            "PublishInstanceStatusRequest",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ]
}

fn frame_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (kind(), value()).prop_map(|(kind, message)| json!({"type": kind, "message": message}).to_string()),
        1 => "\\PC{0,40}",
        1 => ("\\PC{0,10}", kind(), value())
            .prop_map(|(head, kind, message)| format!("{head}\r\n\r\n{}", json!({"type": kind, "message": message}))),
    ]
}

fn session() -> AcsSession {
    let identity = Identity {
        cluster_arn: "c".into(),
        container_instance_arn: "i".into(),
    };
    let mut session = AcsSession::new(identity, 1).unwrap();
    session.step(Timestamp::EPOCH, Input::Connected { tasks: Vec::new() });
    session
}

proptest! {
    #[test]
    fn a_session_takes_any_frames(texts in prop::collection::vec(frame_text(), 1..20)) {
        let mut session = session();
        let mut now = Timestamp::from_millis(1);
        for text in texts {
            now += Duration::from_secs(1);
            let input = match Frame::decode(&text) {
                Ok(frame) => Input::Frame(frame),
                Err(error) => Input::Malformed { cause: error.to_string() },
            };
            let outputs = session.step(now, input);
            // Nothing that an agent says is worth more than a frame, a report and a goodbye.
            prop_assert!(outputs.len() <= 3, "{outputs:?}");
            if session.is_closed() {
                let said_so = matches!(outputs.last(), Some(Output::Close { .. }) | None);
                prop_assert!(said_so);
            }
            session.step(now, Input::Timer(Timer::Heartbeat));
            session.step(now, Input::Timer(Timer::Roles));
        }
    }

    #[test]
    fn telemetry_takes_any_frames(texts in prop::collection::vec(frame_text(), 1..20)) {
        let telemetry = Telemetry::default();
        let now = Timestamp::from_millis(1_000);
        let connection = telemetry.connected("i", now);
        for text in texts {
            match TelemetryFrame::decode(&text) {
                Ok(TelemetryFrame::Metrics(message)) => telemetry.keep_usage("i", &message, now, |_| true),
                Ok(TelemetryFrame::InstanceStatus(message)) => telemetry.keep_status("i", &message.statuses),
                Ok(_) | Err(_) => {}
            }
        }
        telemetry.disconnected("i", connection, now);
        prop_assert!(telemetry.checks("i").is_empty());
    }
}

#[tokio::test]
async fn nonsense_ends_its_own_socket_only() {
    let plane = Plane::empty().await;
    let mut agent = plane.amazon_agent(Memory::default());
    within(agent.register()).await.unwrap();
    for nonsense in [
        "".to_owned(),
        "[]".to_owned(),
        "{\"type\":7}".to_owned(),
        "{\"type\":\"AckRequest\",\"message\":{\"messageId\":7}}".to_owned(),
        format!(
            "{{\"type\":\"AckRequest\",\"message\":{}",
            "[".repeat(5_000)
        ),
        format!("{{\"type\":\"X\",\"message\":\"{}\"}}", "x".repeat(3 << 20)),
    ] {
        within(agent.connect()).await.unwrap();
        agent.send_text(nonsense).await;
        // It is told what was wrong, and hung up on; or it is ignored, and goes on.
        agent.send("HeartbeatAckRequest", json!({})).await;
        let over = |seen: &Seen| matches!(seen, Seen::Closed(_) | Seen::Manifest { .. });
        within(agent.until(over)).await;
        agent.cut();
    }
    within(agent.connect()).await.unwrap();
    plane.define(container(plane.port)).await;
    let task = plane.run(None).await;
    let seen = within(agent.until(|seen| matches!(seen, Seen::Started(_)))).await;
    assert_eq!(seen.last(), Some(&Seen::Started(vec![task])));
}
