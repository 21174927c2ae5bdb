//! What a node may do over the wire, and what it may not: its own instance, its own tasks, nothing else.

use gantry_api::ecs;
use serde_json::{Value, json};

use crate::amazon_agent::{AmazonAgent, Seen};
use crate::container;
use crate::plane::{Plane, within};

async fn node(plane: &Plane, key: &str) -> AmazonAgent {
    let mut agent = plane.node_agent(key);
    within(agent.register()).await.unwrap();
    agent
}

#[track_caller]
fn assert_denied((status, answer): (u16, Value), what: &str) {
    let code = answer["__type"].as_str().unwrap_or_default();
    assert!(
        status == 400 && code.ends_with("AccessDeniedException"),
        "{what}: {status} {answer}"
    );
    let message = answer["message"].as_str().or(answer["Message"].as_str());
    assert!(
        message
            .unwrap()
            .contains("is not authorized to perform: ecs:"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_node_does_all_that_an_agent_must() {
    let plane = Plane::empty().await;
    let mut agent = node(&plane, "AKIANODEONE").await;
    // Registered again, as itself.
    within(agent.register()).await.unwrap();
    within(agent.connect()).await.unwrap();
    within(agent.connect_telemetry()).await.unwrap();
    plane.define(container(plane.port)).await;
    let task = plane.run(None).await;
    within(agent.until(|seen| matches!(seen, Seen::Started(_)))).await;
    assert_eq!(within(agent.report(&task, None)).await.0, 200);
    let change =
        json!({"cluster": "default", "task": task, "containerName": "web", "status": "RUNNING"});
    assert_eq!(
        within(agent.call("SubmitContainerStateChange", change))
            .await
            .0,
        200
    );
    let state = json!({"containerInstances": [agent.instance()], "status": "DRAINING"});
    assert_eq!(
        within(agent.call("UpdateContainerInstancesState", state))
            .await
            .0,
        200
    );
    let tags = json!({"resourceArn": agent.instance()});
    assert_eq!(within(agent.call("ListTagsForResource", tags)).await.0, 200);
    let tags = json!({"resourceArn": task});
    assert_eq!(within(agent.call("ListTagsForResource", tags)).await.0, 200);
    assert_eq!(within(agent.report(&task, Some(0))).await.0, 200);
    let gone = json!({"containerInstance": agent.instance(), "force": true});
    assert_eq!(
        within(agent.call("DeregisterContainerInstance", gone))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_node_speaks_for_no_other() {
    let plane = Plane::empty().await;
    let mut one = node(&plane, "AKIANODEONE").await;
    let mut two = node(&plane, "AKIANODETWO").await;
    assert_ne!(one.instance(), two.instance());
    within(one.connect()).await.unwrap();
    plane.define(container(plane.port)).await;
    let task = plane.run(None).await;
    within(one.until(|seen| matches!(seen, Seen::Started(_)))).await;

    let others = one.instance().to_owned();
    assert_denied(within(two.report(&task, Some(0))).await, "another's task");
    let change =
        json!({"cluster": "default", "task": task, "containerName": "web", "status": "STOPPED"});
    assert_denied(
        within(two.call("SubmitContainerStateChange", change)).await,
        "its container",
    );
    for (operation, input) in [
        ("DiscoverPollEndpoint", json!({"containerInstance": others})),
        (
            "UpdateContainerInstancesState",
            json!({"containerInstances": [two.instance(), others], "status": "DRAINING"}),
        ),
        (
            "DeregisterContainerInstance",
            json!({"containerInstance": others, "force": true}),
        ),
        (
            "DescribeContainerInstances",
            json!({"containerInstances": [others]}),
        ),
        ("ListTagsForResource", json!({"resourceArn": others})),
        ("ListTagsForResource", json!({"resourceArn": task})),
        (
            "ListTagsForResource",
            json!({"resourceArn": "arn:aws:ecs:us-east-1:000000000000:cluster/default"}),
        ),
    ] {
        assert_denied(within(two.call(operation, input)).await, operation);
    }
    // By its id alone as well.
    let id = others.rsplit('/').next().unwrap();
    let input = json!({"containerInstance": id});
    assert_denied(
        within(two.call("DiscoverPollEndpoint", input)).await,
        "by id",
    );
    let described = plane.describe(&task).await;
    assert_eq!(described.last_status.as_deref(), Some("PENDING"));

    // Its sockets, and its name.
    two.memory.container_instance = Some(others);
    let query = [
        ("containerInstanceArn", one.instance()),
        ("containerInstance", one.instance()),
    ];
    for socket in ["/acs/ws", "/tcs/ws"] {
        let refused = within(plane.node_client("AKIANODETWO").websocket(socket, &query)).await;
        assert_eq!(
            refused.unwrap_err().code,
            "AccessDeniedException",
            "{socket}"
        );
    }
    let refused = within(two.register()).await.unwrap_err();
    assert!(
        refused["__type"]
            .as_str()
            .unwrap()
            .ends_with("AccessDeniedException")
    );
}

#[tokio::test]
async fn a_node_is_no_administrator() {
    let plane = Plane::empty().await;
    let agent = node(&plane, "AKIANODEONE").await;
    plane.define(container(plane.port)).await;
    for (operation, input) in [
        ("RunTask", json!({"taskDefinition": "app"})),
        ("StopTask", json!({"task": "0".repeat(32)})),
        ("CreateCluster", json!({"clusterName": "mine"})),
        ("DeleteCluster", json!({"cluster": "default"})),
        ("DescribeTasks", json!({"tasks": ["0".repeat(32)]})),
        ("ListTasks", json!({})),
        ("DescribeTaskDefinition", json!({"taskDefinition": "app"})),
        (
            "RegisterTaskDefinition",
            json!({"family": "mine", "containerDefinitions": [{"name": "a", "image": "b"}]}),
        ),
        (
            "TagResource",
            json!({"resourceArn": agent.instance(), "tags": [{"key": "a", "value": "b"}]}),
        ),
        ("ListContainerInstances", json!({})),
    ] {
        assert_denied(within(agent.call(operation, input)).await, operation);
    }
}

#[tokio::test]
async fn a_node_stays_in_its_cluster_and_region() {
    let plane = Plane::empty().await;
    let create = ecs::CreateClusterRequest {
        cluster_name: Some("blue".into()),
        ..ecs::CreateClusterRequest::default()
    };
    plane.call::<ecs::CreateCluster>(create).await;
    let mut blue = plane.node_agent("AKIANODEBLUE");
    let refused = within(blue.register()).await.unwrap_err();
    assert!(
        refused["__type"]
            .as_str()
            .unwrap()
            .ends_with("AccessDeniedException")
    );
    blue.cluster = "blue".into();
    within(blue.register()).await.unwrap();
    let mut one = plane.node_agent("AKIANODEONE");
    one.cluster = "arn:aws:ecs:us-east-1:000000000000:cluster/blue".into();
    let refused = within(one.register()).await.unwrap_err();
    assert!(
        refused["__type"]
            .as_str()
            .unwrap()
            .ends_with("AccessDeniedException")
    );
    let elsewhere = plane.node_client_in("AKIANODEONE", "eu-west-1");
    let request = ecs::DiscoverPollEndpointRequest::default();
    let refused = within(elsewhere.call::<ecs::DiscoverPollEndpoint>(request)).await;
    assert_eq!(refused.unwrap_err().code, "AccessDeniedException");
}
