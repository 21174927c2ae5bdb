//! The agent session over a real socket: what an agent is told, and what its answers do.

mod amazon;
mod amazon_agent;
mod frames;
mod log_mode;
mod nodes;
mod plane;
mod renewals;

use std::collections::BTreeMap;

use gantry_api::acs::{
    AuthenticationType, DesiredStatus, Frame, NackRequest, TaskIdentifier,
    TaskStopVerificationMessage,
};
use gantry_api::ecs;
use plane::{Plane, within};

pub fn container(port: u16) -> ecs::ContainerDefinition {
    ecs::ContainerDefinition {
        name: Some("web".into()),
        image: Some(format!("localhost:{port}/app:1")),
        memory: Some(64),
        ..ecs::ContainerDefinition::default()
    }
}

fn pair(name: &str, value: &str) -> ecs::KeyValuePair {
    ecs::KeyValuePair {
        name: Some(name.into()),
        value: Some(value.into()),
    }
}

#[tokio::test]
async fn a_task_goes_to_the_agent_with_everything_it_needs() {
    let plane = Plane::start().await;
    let mut agent = plane.connect().await;
    plane
        .define(ecs::ContainerDefinition {
            command: Some(vec!["serve".into()]),
            environment: Some(vec![pair("A", "1"), pair("B", "1")]),
            working_directory: Some("/srv".into()),
            user: Some("1000:1000".into()),
            readonly_root_filesystem: Some(true),
            memory_reservation: Some(32),
            stop_timeout: Some(7),
            log_configuration: Some(ecs::LogConfiguration {
                log_driver: ecs::LogDriver::Awslogs,
                options: Some(BTreeMap::from([
                    ("awslogs-group".into(), "g".into()),
                    ("awslogs-region".into(), "us-east-1".into()),
                    ("awslogs-stream-prefix".into(), "p".into()),
                ])),
                secret_options: None,
            }),
            ..container(plane.port)
        })
        .await;
    let overrides = ecs::TaskOverride {
        container_overrides: Some(vec![ecs::ContainerOverride {
            name: Some("web".into()),
            command: Some(vec!["other".into()]),
            environment: Some(vec![pair("B", "2")]),
            ..ecs::ContainerOverride::default()
        }]),
        ..ecs::TaskOverride::default()
    };
    let arn = plane.run(Some(overrides)).await;
    let (payload, task) = agent.payload().await;
    agent.ack(&payload).await;
    assert_eq!(task.arn.as_deref(), Some(arn.as_str()));
    assert_eq!(task.desired_status, Some(DesiredStatus::Running));
    let web = &task.containers[0];
    assert_eq!(web.command, ["other"]);
    assert_eq!(
        (web.memory, web.stop_timeout, web.essential),
        (Some(64), Some(7), Some(true))
    );
    let environment: Vec<(&str, &str)> = web
        .environment
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        environment,
        [("A", "1"), ("AWS_EXECUTION_ENV", "AWS_ECS_EC2"), ("B", "2")]
    );
    let registry = web.registry_authentication.clone().unwrap();
    assert_eq!(registry.kind, Some(AuthenticationType::Ecr));
    let docker = web.docker_config.clone().unwrap();
    let inside = docker.container_config().unwrap();
    assert_eq!(
        (inside.user.as_deref(), inside.working_dir.as_deref()),
        (Some("1000:1000"), Some("/srv"))
    );
    let host = docker.docker_host_config().unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("host"));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.memory_reservation, Some(32 << 20));
    let id = arn.rsplit('/').next().unwrap();
    assert_eq!(
        host.log_config.unwrap().options["awslogs-stream"],
        format!("p/web/{id}")
    );

    plane.report(&arn, "RUNNING").await;
    plane
        .call::<ecs::StopTask>(ecs::StopTaskRequest {
            task: arn.clone(),
            ..ecs::StopTaskRequest::default()
        })
        .await;
    let (stop, task) = agent.payload().await;
    assert_eq!(task.arn.as_deref(), Some(arn.as_str()));
    assert_eq!(task.desired_status, Some(DesiredStatus::Stopped));
    assert!(stop.seq_num > payload.seq_num);
}

#[tokio::test]
async fn a_new_session_repeats_what_is_not_reported_under_higher_numbers_and_ends_the_old_one() {
    let plane = Plane::start().await;
    plane.agent_connected(false).await;
    let mut first = plane.connect().await;
    plane.agent_connected(true).await;
    plane.define(container(plane.port)).await;
    let reported = plane.run(None).await;
    plane.report(&reported, "RUNNING").await;
    let arn = plane.run(None).await;
    let (old, _) = first.payload().await;

    let mut second = plane.connect().await;
    let Some(Frame::TaskManifest(manifest)) = second.frame().await else {
        panic!("the first frame is the manifest");
    };
    assert!(manifest.timeline > old.seq_num);
    let named: Vec<_> = manifest
        .tasks
        .iter()
        .map(|t| t.task_arn.clone().unwrap())
        .collect();
    assert_eq!(named.len(), 2);
    assert!(named.contains(&reported) && named.contains(&arn));
    let (new, task) = second.payload().await;
    assert_eq!(task.arn.as_deref(), Some(arn.as_str()));
    assert!(new.seq_num > manifest.timeline);

    while first.frame().await.is_some() {}
    // The old session's end says nothing about the new one.
    plane.agent_connected(true).await;
    second.hang_up().await;
    plane.agent_connected(false).await;
}

#[tokio::test]
async fn a_manifest_stops_only_what_the_rows_do_not_want() {
    let plane = Plane::start().await;
    let mut agent = plane.connect().await;
    plane.define(container(plane.port)).await;
    let wanted = plane.run(None).await;
    agent.payload().await;
    let stray = format!("{}/{}", wanted.rsplit_once('/').unwrap().0, "0".repeat(32));
    let candidate = |arn: &str| TaskIdentifier {
        desired_status: Some(DesiredStatus::Stopped),
        task_arn: Some(arn.to_owned()),
        task_cluster_arn: None,
    };
    agent
        .send(Frame::TaskStopVerification(TaskStopVerificationMessage {
            message_id: Some("m".into()),
            stop_candidates: vec![candidate(&wanted), candidate(&stray), candidate("nonsense")],
        }))
        .await;
    let Some(Frame::TaskStopVerificationAck(answer)) = agent.frame().await else {
        panic!("a verification is answered");
    };
    assert_eq!(answer.message_id.as_deref(), Some("m"));
    assert_eq!(answer.stop_tasks, [candidate(&stray)]);
}

#[tokio::test]
async fn a_payload_that_the_agent_refuses_stops_the_task_and_says_why() {
    let plane = Plane::start().await;
    let mut agent = plane.connect().await;
    plane.define(container(plane.port)).await;
    let arn = plane.run(None).await;
    let (payload, _) = agent.payload().await;
    agent
        .send(Frame::Nack(NackRequest {
            message_id: payload.message_id,
            reason: Some("no such thing".into()),
            ..NackRequest::default()
        }))
        .await;
    let task = plane.stopped(&arn).await;
    assert!(task.stopped_reason.unwrap().contains("no such thing"));
    assert_eq!(task.stop_code.unwrap().as_str(), "TaskFailedToStart");
}

#[tokio::test]
async fn a_member_that_is_not_built_stops_the_task_under_its_name() {
    let plane = Plane::start().await;
    let mut agent = plane.connect().await;
    let base = || container(plane.port);
    let refused: Vec<(&str, ecs::ContainerDefinition)> = vec![(
        "secrets",
        ecs::ContainerDefinition {
            secrets: Some(vec![ecs::Secret {
                name: "S".into(),
                value_from: "x".into(),
            }]),
            ..base()
        },
    )];
    for (member, definition) in refused {
        plane
            .define_task(definition, |mut task| {
                // What ECS itself wants beside some of them.
                task.execution_role_arn = Some("arn:aws:iam::000000000000:role/x".into());
                task
            })
            .await;
        let arn = plane.run(None).await;
        let task = plane.stopped(&arn).await;
        let reason = task.stopped_reason.unwrap_or_default();
        assert!(reason.contains(member), "{member}: {reason}");
        assert_eq!(task.stop_code.unwrap().as_str(), "TaskFailedToStart");
    }
    // The agent was sent none of them.
    plane.define(base()).await;
    let arn = plane.run(None).await;
    let (_, task) = agent.payload().await;
    assert_eq!(task.arn, Some(arn));
}

#[tokio::test]
async fn a_deregistered_container_instance_is_told_to_stay_away() {
    let plane = Plane::start().await;
    let mut agent = plane.connect().await;
    plane
        .call::<ecs::DeregisterContainerInstance>(ecs::DeregisterContainerInstanceRequest {
            container_instance: plane.container_instance.clone(),
            force: Some(true),
            ..ecs::DeregisterContainerInstanceRequest::default()
        })
        .await;
    let mut told = false;
    while let Some(frame) = agent.frame().await {
        told |= matches!(frame, Frame::InactiveInstance(_));
    }
    assert!(told);
    let query = plane.query();
    let query: Vec<(&str, &str)> = query.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let refused = within(plane.client.websocket("/acs/ws", &query))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "InactiveInstanceException");
}
