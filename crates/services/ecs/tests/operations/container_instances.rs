use gantry_api::ecs::{
    ContainerInstanceStatus, DeregisterContainerInstanceRequest, DescribeContainerInstancesRequest,
    DiscoverPollEndpointRequest, Ecs as _, EcsError, ListContainerInstancesRequest,
    RegisterContainerInstanceRequest, SubmitAttachmentStateChangesRequest,
    UpdateContainerInstancesStateRequest, VersionInfo,
};

use crate::harness::{Harness, attribute, done, refusal, resources, run, tag};

fn registration() -> RegisterContainerInstanceRequest {
    RegisterContainerInstanceRequest {
        total_resources: Some(resources(1024, 2048)),
        attributes: Some(
            (0..47)
                .map(|n| attribute(&format!("ecs.capability.{n}"), None))
                .collect(),
        ),
        instance_identity_document: Some(
            r#"{"instanceId": "i-0abc", "availabilityZone": "us-east-1d"}"#.to_owned(),
        ),
        version_info: Some(VersionInfo {
            agent_version: Some("1.105.0".to_owned()),
            ..Default::default()
        }),
        tags: Some(vec![tag("rack", "7")]),
        ..Default::default()
    }
}

fn register(
    harness: &Harness,
    input: RegisterContainerInstanceRequest,
) -> Result<gantry_api::ecs::ContainerInstance, EcsError> {
    let answer = done(
        harness
            .service
            .register_container_instance(&harness.ctx(), input),
    )?;
    Ok(answer.container_instance.unwrap())
}

#[test]
fn a_registration_echoes_every_attribute_and_adds_the_zone() {
    let harness = Harness::new();
    harness.create_cluster("default");
    let instance = register(&harness, registration()).unwrap();
    let attributes = instance.attributes.as_ref().unwrap();
    assert_eq!(attributes.len(), 48);
    assert_eq!(
        attributes[47],
        attribute("ecs.availability-zone", Some("us-east-1d"))
    );
    assert_eq!(instance.ec2_instance_id.as_deref(), Some("i-0abc"));
    assert_eq!(instance.status.as_deref(), Some("ACTIVE"));
    assert_eq!(instance.agent_connected, Some(false));
    assert_eq!(instance.registered_resources, instance.remaining_resources);
    assert_eq!(
        instance
            .version_info
            .as_ref()
            .unwrap()
            .agent_version
            .as_deref(),
        Some("1.105.0")
    );
    let arn = instance.container_instance_arn.clone().unwrap();
    assert!(arn.starts_with("arn:aws:ecs:us-east-1:000000000000:container-instance/default/"));
    harness.connect(&arn, true);
    let described = harness.instance(&arn);
    assert_eq!(described.agent_connected, Some(true));
    assert_eq!(described.tags, Some(vec![tag("rack", "7")]));
}

#[test]
fn registering_again_by_arn_or_token_is_the_same_instance() {
    let harness = Harness::new();
    harness.create_cluster("default");
    let mut input = registration();
    input.client_token = Some("t".to_owned());
    let first = register(&harness, input.clone()).unwrap();
    let again = register(&harness, input.clone()).unwrap();
    assert_eq!(first.container_instance_arn, again.container_instance_arn);
    input.client_token = None;
    input.container_instance_arn = first.container_instance_arn.clone();
    input.attributes = Some(vec![attribute("new", None)]);
    let newer = register(&harness, input.clone()).unwrap();
    assert_eq!(first.container_instance_arn, newer.container_instance_arn);
    assert_eq!(newer.attributes.unwrap().len(), 2);
    assert!(newer.version > first.version);
    assert_eq!(newer.registered_at, first.registered_at);
    let list = ListContainerInstancesRequest::default();
    let listed = done(
        harness
            .service
            .list_container_instances(&harness.ctx(), list),
    )
    .unwrap();
    assert_eq!(listed.container_instance_arns.unwrap().len(), 1);
    input.container_instance_arn = Some(format!(
        "{}{}",
        "arn:aws:ecs:us-east-1:000000000000:container-instance/default/",
        "0".repeat(32)
    ));
    assert_eq!(
        refusal(register(&harness, input)).1,
        "The referenced container instance was not found."
    );
}

#[test]
fn a_registration_needs_a_cluster_and_resources() {
    let harness = Harness::new();
    assert_eq!(
        refusal(register(&harness, registration())),
        (
            "ClusterNotFoundException".to_owned(),
            "Cluster not found.".to_owned()
        )
    );
    harness.create_cluster("default");
    let mut input = registration();
    input.total_resources = Some(vec![]);
    assert_eq!(
        refusal(register(&harness, input)).1,
        "Invalid resource CPU in totalResources."
    );
}

fn deregister(
    harness: &Harness,
    arn: &str,
    force: bool,
) -> Result<gantry_api::ecs::ContainerInstance, EcsError> {
    let input = DeregisterContainerInstanceRequest {
        container_instance: arn.to_owned(),
        force: Some(force),
        ..Default::default()
    };
    let answer = done(
        harness
            .service
            .deregister_container_instance(&harness.ctx(), input),
    )?;
    Ok(answer.container_instance.unwrap())
}

#[test]
fn an_instance_with_tasks_is_only_deregistered_by_force() {
    let (harness, arn) = Harness::with_instance();
    harness.register_web();
    harness.run_one("web");
    assert_eq!(
        refusal(deregister(&harness, &arn, false)),
        (
            "InvalidParameterException".to_owned(),
            "Found running tasks on the instance.".to_owned()
        )
    );
    let gone = deregister(&harness, &arn, true).unwrap();
    assert_eq!(
        (gone.status.as_deref(), gone.agent_connected),
        (Some("INACTIVE"), Some(false))
    );
    assert_eq!(
        deregister(&harness, &arn, false).unwrap().status.as_deref(),
        Some("INACTIVE")
    );
    assert_eq!(
        refusal(harness.run(run("web"))).1,
        "No Container Instances were found in your cluster."
    );
    // Its token does not bring it back, and neither does its ARN.
    let mut input = registration();
    input.container_instance_arn = Some(arn);
    assert_eq!(
        refusal(register(&harness, input)).1,
        "The referenced container instance is inactive."
    );
}

#[test]
fn a_drained_instance_takes_nothing_new_and_stays_drained_over_a_restart() {
    let (harness, arn) = Harness::with_instance();
    harness.register_web();
    let update = |arns: Vec<String>, status: &str| {
        let input = UpdateContainerInstancesStateRequest {
            cluster: None,
            container_instances: arns,
            status: ContainerInstanceStatus::from(status),
        };
        done(
            harness
                .service
                .update_container_instances_state(&harness.ctx(), input),
        )
    };
    let missing = "0".repeat(32);
    let answer = update(vec![arn.clone(), missing], "DRAINING").unwrap();
    assert_eq!(
        answer.container_instances.unwrap()[0].status.as_deref(),
        Some("DRAINING")
    );
    assert_eq!(
        answer.failures.unwrap()[0].reason.as_deref(),
        Some("MISSING")
    );
    let failures = harness.run(run("web")).unwrap().failures.unwrap();
    assert_eq!(failures[0].reason.as_deref(), Some("INACTIVE"));
    let mut input = registration();
    input.container_instance_arn = Some(arn.clone());
    assert_eq!(
        register(&harness, input).unwrap().status.as_deref(),
        Some("DRAINING")
    );
    update(vec![arn], "ACTIVE").unwrap();
    harness.run_one("web");
    assert_eq!(
        refusal(update(vec!["x".to_owned()], "REGISTERING")).0,
        "InvalidParameterException"
    );
}

#[test]
fn lists_and_descriptions_know_what_is_missing() {
    let (harness, arn) = Harness::with_instance();
    let list = |status: Option<&str>, filter: Option<&str>| {
        let input = ListContainerInstancesRequest {
            status: status.map(ContainerInstanceStatus::from),
            filter: filter.map(str::to_owned),
            ..Default::default()
        };
        done(
            harness
                .service
                .list_container_instances(&harness.ctx(), input),
        )
    };
    assert_eq!(
        list(None, None).unwrap().container_instance_arns,
        Some(vec![arn.clone()])
    );
    assert_eq!(
        list(Some("DRAINING"), None)
            .unwrap()
            .container_instance_arns,
        Some(vec![])
    );
    assert_eq!(
        list(None, Some("runningTasksCount > 1"))
            .unwrap()
            .container_instance_arns,
        Some(vec![])
    );
    let describe = |instances: Vec<String>| {
        let input = DescribeContainerInstancesRequest {
            container_instances: instances,
            ..Default::default()
        };
        done(
            harness
                .service
                .describe_container_instances(&harness.ctx(), input),
        )
    };
    let answer = describe(vec!["0".repeat(32)]).unwrap();
    assert_eq!(
        answer.failures.unwrap()[0].reason.as_deref(),
        Some("MISSING")
    );
    assert_eq!(
        refusal(describe(vec![])).1,
        "Container Instances cannot be empty."
    );
}

#[test]
fn an_agent_is_sent_back_to_the_host_that_it_came_by() {
    let (harness, arn) = Harness::with_instance();
    let input = DiscoverPollEndpointRequest {
        container_instance: Some(arn),
        cluster: Some("default".to_owned()),
    };
    let answer = done(
        harness
            .service
            .discover_poll_endpoint(&harness.ctx(), input),
    )
    .unwrap();
    assert_eq!(
        answer.endpoint.as_deref(),
        Some("http://localhost:4566/acs")
    );
    assert_eq!(
        answer.telemetry_endpoint.as_deref(),
        Some("http://localhost:4566/tcs")
    );
}

#[test]
fn an_attachment_that_nobody_has_is_not_found() {
    let (harness, _) = Harness::with_instance();
    let submit = |attachments| {
        let input = SubmitAttachmentStateChangesRequest {
            cluster: None,
            attachments,
        };
        done(
            harness
                .service
                .submit_attachment_state_changes(&harness.ctx(), input),
        )
    };
    assert!(submit(vec![]).is_ok());
    let one = gantry_api::ecs::AttachmentStateChange {
        attachment_arn: "arn:aws:ecs:us-east-1:000000000000:attachment/x".to_owned(),
        status: "ATTACHED".to_owned(),
    };
    assert_eq!(refusal(submit(vec![one])).0, "InvalidParameterException");
}
