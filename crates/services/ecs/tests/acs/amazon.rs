//! The Amazon ECS agent as a member of the cluster, by its double: the whole life of a task, cut lines,
//! restarts, replays, telemetry.

use gantry_api::ecs;
use serde_json::json;

use crate::amazon_agent::{AmazonAgent, Memory, Seen, attributes};
use crate::container;
use crate::plane::{Plane, within};

async fn agent(plane: &Plane) -> AmazonAgent {
    let mut agent = plane.amazon_agent(Memory::default());
    within(agent.register()).await.unwrap();
    agent
}

async fn connected(plane: &Plane) -> AmazonAgent {
    let mut agent = agent(plane).await;
    within(agent.connect()).await.unwrap();
    agent
}

fn role(name: &str) -> String {
    format!("arn:aws:iam::000000000000:role/{name}")
}

#[tokio::test]
async fn it_registers_once_and_again_as_the_same_container_instance() {
    let plane = Plane::empty().await;
    let mut first = plane.amazon_agent(Memory::default());
    assert_eq!(attributes().len(), 47);
    let registered = within(first.register()).await.unwrap();
    assert_eq!(registered["ec2InstanceId"], "");
    // It was asked for twice with one token, because an answer got lost.
    let mut again = plane.amazon_agent(Memory::default());
    within(again.register()).await.unwrap();
    assert_eq!(again.instance(), first.instance());
    // And once more by its name, after a restart.
    let mut restarted = plane.amazon_agent(first.memory.clone());
    let registered = within(restarted.register()).await.unwrap();
    assert_eq!(restarted.instance(), first.instance());
    assert_eq!(registered["version"], 3);
    let mut stranger = plane.amazon_agent(Memory {
        container_instance: Some(
            first
                .instance()
                .replace(&first.instance()[60..70], "0000000000"),
        ),
        ..Memory::default()
    });
    let refused = within(stranger.register()).await.unwrap_err();
    assert!(refused["__type"].as_str().unwrap().contains("Exception"));
}

#[tokio::test]
async fn a_task_runs_and_ends_with_its_exit_code() {
    let plane = Plane::empty().await;
    let mut agent = connected(&plane).await;
    plane
        .define_task(container(plane.port), |mut task| {
            task.task_role_arn = Some(role("app"));
            task.execution_role_arn = Some(role("pull"));
            task
        })
        .await;
    let task = plane.run(None).await;
    let seen = within(agent.until(|seen| matches!(seen, Seen::Started(_)))).await;
    assert_eq!(seen.last(), Some(&Seen::Started(vec![task.clone()])));
    let held = &agent.memory.tasks[&task];
    let credentials = &held.credentials["TaskApplication"];
    assert_eq!(credentials["roleArn"], role("app"));
    assert!(credentials["sessionToken"].is_string());
    assert!(held.credentials.contains_key("TaskExecution"));
    let auth = &held.payload["containers"][0]["registryAuthentication"]["ecrAuthData"];
    assert!(
        auth["endpointOverride"]
            .as_str()
            .unwrap()
            .contains(&plane.port.to_string())
    );

    assert_eq!(within(agent.report(&task, None)).await.0, 200);
    assert_eq!(
        plane.describe(&task).await.last_status.as_deref(),
        Some("RUNNING")
    );
    let (status, answer) = within(agent.report(&task, Some(7))).await;
    assert_eq!((status, answer["acknowledgment"].is_string()), (200, true));
    let stopped = plane.stopped(&task).await;
    assert_eq!(stopped.containers.unwrap()[0].exit_code, Some(7));
    assert_eq!(
        stopped.stop_code.unwrap().as_str(),
        "EssentialContainerExited"
    );
    // The answer was lost: the same report is taken again and changes nothing.
    assert_eq!(within(agent.report(&task, Some(7))).await.0, 200);
}

#[tokio::test]
async fn a_task_is_stopped_by_a_payload_or_after_a_cut_by_the_manifest() {
    let plane = Plane::empty().await;
    let mut agent = connected(&plane).await;
    plane.define(container(plane.port)).await;
    let (first, second) = (plane.run(None).await, plane.run(None).await);
    for _ in 0..2 {
        within(agent.until(|seen| matches!(seen, Seen::Started(_)))).await;
    }
    for task in [&first, &second] {
        within(agent.report(task, None)).await;
    }
    plane.stop(&first).await;
    let seen = within(agent.until(|seen| matches!(seen, Seen::Stops(_)))).await;
    assert_eq!(seen.last(), Some(&Seen::Stops(vec![first.clone()])));
    within(agent.report(&first, Some(143))).await;

    // Nobody hears of this stop before the line is back.
    agent.cut();
    plane.agent_is_connected(agent.instance(), false).await;
    plane.stop(&second).await;
    let before = agent.memory.latest_number;
    within(agent.connect()).await.unwrap();
    let seen = within(agent.until(|seen| matches!(seen, Seen::VerifiedStops(_)))).await;
    assert_eq!(
        seen[0],
        Seen::Manifest {
            asked_to_stop: vec![second.clone()]
        }
    );
    assert_eq!(
        seen.last(),
        Some(&Seen::VerifiedStops(vec![second.clone()]))
    );
    assert!(agent.memory.latest_number > before);
    within(agent.report(&second, Some(137))).await;
    plane.stopped(&second).await;
}

#[tokio::test]
async fn a_restarted_agent_keeps_its_tasks_and_gets_their_credentials_anew() {
    let plane = Plane::empty().await;
    let mut agent = connected(&plane).await;
    plane
        .define_task(container(plane.port), |mut task| {
            task.task_role_arn = Some(role("app"));
            task
        })
        .await;
    let task = plane.run(None).await;
    within(agent.until(|seen| matches!(seen, Seen::Started(_)))).await;
    within(agent.report(&task, None)).await;
    let id = |agent: &AmazonAgent| {
        agent.memory.tasks[&task].credentials["TaskApplication"]["credentialsId"].clone()
    };
    let before = id(&agent);

    let memory = agent.memory.clone();
    drop(agent);
    let mut restarted = plane.amazon_agent(memory);
    within(restarted.register()).await.unwrap();
    within(restarted.connect()).await.unwrap();
    let seen = within(restarted.until(|seen| matches!(seen, Seen::Credentials { .. }))).await;
    assert_eq!(
        seen[0],
        Seen::Manifest {
            asked_to_stop: vec![]
        }
    );
    // A container asks for them by this id for as long as it runs.
    assert_eq!(id(&restarted), before);
    within(restarted.report(&task, Some(0))).await;
    plane.stopped(&task).await;
}

#[tokio::test]
async fn an_agent_that_lost_its_memory_gets_its_tasks_again_and_one_that_did_not_drops_replays() {
    let plane = Plane::empty().await;
    let mut agent = connected(&plane).await;
    plane.define(container(plane.port)).await;
    let task = plane.run(None).await;
    within(agent.until(|seen| matches!(seen, Seen::Started(_)))).await;
    let instance = agent.memory.container_instance.clone();
    drop(agent);
    let mut forgetful = plane.amazon_agent(Memory {
        container_instance: instance,
        ..Memory::default()
    });
    within(forgetful.connect()).await.unwrap();
    let seen = within(forgetful.until(|seen| matches!(seen, Seen::Started(_)))).await;
    assert_eq!(seen.last(), Some(&Seen::Started(vec![task])));

    // What an older replica would still send: this agent drops it, as the real one does.
    let far_ahead = Memory {
        latest_number: i64::MAX,
        ..forgetful.memory.clone()
    };
    drop(forgetful);
    let mut ahead = plane.amazon_agent(far_ahead);
    within(ahead.connect()).await.unwrap();
    assert_eq!(within(ahead.next()).await, Seen::DroppedManifest);
}

#[tokio::test]
async fn of_two_connections_the_newer_one_wins() {
    let plane = Plane::empty().await;
    let mut old = connected(&plane).await;
    let mut new = plane.amazon_agent(old.memory.clone());
    within(new.connect()).await.unwrap();
    let seen = within(old.until(|seen| matches!(seen, Seen::Closed(_)))).await;
    assert_eq!(
        seen.last(),
        Some(&Seen::Closed("a later session has begun".into()))
    );
    assert_eq!(within(old.next()).await, Seen::HungUp);
    plane.define(container(plane.port)).await;
    let task = plane.run(None).await;
    let seen = within(new.until(|seen| matches!(seen, Seen::Started(_)))).await;
    assert_eq!(seen.last(), Some(&Seen::Started(vec![task])));
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_fails_the_task_in_the_words_of_ecs() {
    let plane = Plane::empty().await;
    let mut agent = connected(&plane).await;
    plane
        .define_task(container(plane.port), |mut task| {
            task.task_role_arn = Some(role("missing"));
            task
        })
        .await;
    let task = plane.run(None).await;
    let stopped = plane.stopped(&task).await;
    assert_eq!(stopped.stop_code.unwrap().as_str(), "TaskFailedToStart");
    let reason = stopped.stopped_reason.unwrap();
    assert!(
        reason.starts_with("ECS was unable to assume the role 'arn:aws:iam::000000000000:role/missing' that was provided for this task."),
        "{reason}"
    );
    // The agent was not sent it.
    plane.define(container(plane.port)).await;
    let next = plane.run(None).await;
    let seen = within(agent.until(|seen| matches!(seen, Seen::Started(_)))).await;
    assert_eq!(seen.last(), Some(&Seen::Started(vec![next])));
}

#[tokio::test]
async fn a_deregistered_instance_is_told_so_on_every_way() {
    let plane = Plane::empty().await;
    let mut agent = connected(&plane).await;
    within(agent.connect_telemetry()).await.unwrap();
    let deregister =
        json!({"cluster": "default", "containerInstance": agent.instance(), "force": true});
    assert_eq!(
        within(agent.call("DeregisterContainerInstance", deregister))
            .await
            .0,
        200
    );
    let seen = within(agent.until(|seen| matches!(seen, Seen::Error { .. }))).await;
    assert!(
        matches!(seen.last(), Some(Seen::Error { kind, .. }) if kind == "InactiveInstanceException")
    );
    assert_eq!(within(agent.next()).await, Seen::HungUp);
    let refused = within(agent.connect()).await.unwrap_err();
    assert_eq!(refused.code, "InactiveInstanceException");
    let refused = within(agent.connect_telemetry()).await.unwrap_err();
    assert_eq!(refused.code, "InactiveInstanceException");
    let mut nobody = plane.amazon_agent(Memory {
        container_instance: Some(format!(
            "{}{}",
            &agent.instance()[..agent.instance().len() - 32],
            "0".repeat(32)
        )),
        ..Memory::default()
    });
    assert_eq!(
        within(nobody.connect()).await.unwrap_err().code,
        "InvalidInstanceException"
    );
}

#[tokio::test]
async fn its_other_calls_are_answered() {
    let plane = Plane::empty().await;
    let mut agent = connected(&plane).await;
    let instance = agent.instance().to_owned();
    let drain =
        json!({"cluster": "default", "containerInstances": [instance], "status": "DRAINING"});
    let (status, answer) = within(agent.call("UpdateContainerInstancesState", drain)).await;
    assert_eq!(
        (status, &answer["containerInstances"][0]["status"]),
        (200, &json!("DRAINING"))
    );
    let activate =
        json!({"cluster": "default", "containerInstances": [instance], "status": "ACTIVE"});
    within(agent.call("UpdateContainerInstancesState", activate)).await;
    let (status, answer) =
        within(agent.call("ListTagsForResource", json!({"resourceArn": instance}))).await;
    assert_eq!((status, answer["tags"].is_array()), (200, true), "{answer}");
    let nothing = json!({"cluster": "default", "attachments": []});
    assert_eq!(
        within(agent.call("SubmitAttachmentStateChanges", nothing))
            .await
            .0,
        200
    );

    plane.define(container(plane.port)).await;
    let task = plane.run(None).await;
    within(agent.until(|seen| matches!(seen, Seen::Started(_)))).await;
    let change = json!({
        "cluster": "default", "task": task, "containerName": "web", "status": "RUNNING",
        "runtimeId": "4c01db0b339c", "networkBindings": [],
    });
    let (status, answer) = within(agent.call("SubmitContainerStateChange", change)).await;
    assert_eq!(status, 200, "{answer}");
    let described = plane.describe(&task).await;
    assert_eq!(
        described.containers.unwrap()[0].runtime_id.as_deref(),
        Some("4c01db0b339c")
    );
}

#[tokio::test]
async fn telemetry_in_its_odd_framing_is_acknowledged_and_shown() {
    let plane = Plane::empty().await;
    let mut agent = connected(&plane).await;
    within(agent.connect_telemetry()).await.unwrap();
    plane
        .define(ecs::ContainerDefinition {
            health_check: Some(ecs::HealthCheck {
                command: vec!["CMD-SHELL".into(), "true".into()],
                ..ecs::HealthCheck::default()
            }),
            ..container(plane.port)
        })
        .await;
    let task = plane.run(None).await;
    let health = |status: &str| {
        json!({
            "metadata": {"fin": true},
            "tasks": [{
                "taskArn": task, "clusterArn": "default",
                "taskDefinitionFamily": "app", "taskDefinitionVersion": "1",
                "containers": [{"containerName": "web", "healthStatus": status, "statusSince": 1_700_000_000.5}],
            }],
            "timestamp": 1_700_000_001,
        })
    };
    for status in ["UNKNOWN", "HEALTHY", "UNHEALTHY"] {
        let answer = within(agent.publish("PublishHealthRequest", health(status))).await;
        assert_eq!(answer, "AckPublishHealth");
        let described = plane.describe(&task).await;
        assert_eq!(described.health_status.unwrap().as_str(), status);
    }
    let set = json!({"min": 1.0, "max": 3.0, "sampleCount": 20, "sum": 40.0});
    let metrics = json!({
        "metadata": agent.metadata(),
        "instanceMetrics": {"storage": {"DataFilesystem": 12.5, "OSFilesystem": 20.0}},
        "taskMetrics": [{
            "taskArn": task, "clusterArn": "default",
            "taskDefinitionFamily": "app", "taskDefinitionVersion": "1",
            "containerMetrics": [{
                "containerName": "web", "cpuStatsSet": set, "memoryStatsSet": set,
                "networkStatsSet": {"rxBytes": set, "txBytes": set},
                "storageStatsSet": {"readSizeBytes": set, "writeSizeBytes": set},
                "restartStatsSet": {"restartCount": 2},
            }],
            "ephemeralStorageMetrics": {"bytesUtilized": set},
        }],
        "timestamp": 1_700_000_001.123,
    });
    let answer = within(agent.publish("PublishMetricsRequest", metrics)).await;
    assert_eq!(answer, "AckPublishMetric");
    let usage = plane.usage(&task, "web").unwrap();
    assert_eq!(usage.cpu.unwrap().average(), Some(2.0));
    assert_eq!(
        (usage.received_bytes, usage.restarts),
        (Some(40.0), Some(2))
    );

    assert_eq!(
        plane.instance_health(agent.instance()).await,
        "INSUFFICIENT_DATA"
    );
    let state = json!({
        "metadata": {"cluster": "default", "containerInstance": agent.instance(), "requestId": "r"},
        "statuses": [{"type": "CONTAINER_RUNTIME", "status": "OK", "lastUpdated": 1_700_000_000, "lastStatusChange": 1_700_000_000}],
        "timestamp": 1_700_000_001,
    });
    let answer = within(agent.publish("PublishInstanceStatusRequest", state)).await;
    assert_eq!(answer, "AckPublishInstanceStatus");
    assert_eq!(plane.instance_health(agent.instance()).await, "OK");
    let answer = within(agent.publish_text("nonsense".into())).await;
    assert_eq!(answer, "BadRequestException");
}
