use gantry_api::ecs::{
    CapacityProviderStrategyItem, Compatibility, ContainerOverride,
    DeregisterTaskDefinitionRequest, Ecs as _, EcsError, KeyValuePair, LaunchType,
    NetworkConfiguration, NetworkMode, PlacementConstraint, PlacementConstraintType,
    PlacementStrategy, PlacementStrategyType, PortMapping, PropagateTags,
    RegisterTaskDefinitionRequest, RunTaskRequest, TaskOverride,
};

use crate::harness::{Harness, container, done, refusal, run, tag, web};

#[test]
fn a_task_starts_pending_with_everything_that_is_known_of_it() {
    let (harness, instance) = Harness::with_instance();
    let definition = harness.register_web();
    let mut input = run("web");
    input.started_by = Some("me".to_owned());
    let answer = harness.run(input).unwrap();
    let task = &answer.tasks.unwrap()[0];
    let text = |value: &Option<String>| value.clone().unwrap();
    assert!(text(&task.task_arn).starts_with("arn:aws:ecs:us-east-1:000000000000:task/default/"));
    assert_eq!(text(&task.task_arn).rsplit('/').next().unwrap().len(), 32);
    assert_eq!(task.task_definition_arn, definition.task_definition_arn);
    assert_eq!(text(&task.container_instance_arn), instance);
    assert_eq!(
        (text(&task.last_status), text(&task.desired_status)),
        ("PENDING".into(), "RUNNING".into())
    );
    assert_eq!(
        (text(&task.group), text(&task.started_by)),
        ("family:web".into(), "me".into())
    );
    assert_eq!(
        (text(&task.cpu), text(&task.memory)),
        ("256".into(), "512".into())
    );
    assert_eq!(task.launch_type, Some(LaunchType::Ec2));
    assert_eq!(
        (task.version, task.created_at),
        (Some(1), Some(harness.env.now()))
    );
    assert_eq!(text(&task.availability_zone), "us-east-1a");
    let attributes = task.attributes.as_ref().unwrap();
    assert_eq!(attributes[0].name, "ecs.cpu-architecture");
    let container = &task.containers.as_ref().unwrap()[0];
    assert_eq!(
        (text(&container.name), text(&container.last_status)),
        ("web".into(), "PENDING".into())
    );
    assert_eq!(
        (text(&container.cpu), text(&container.memory)),
        ("256".into(), "512".into())
    );
    assert!(text(&container.container_arn).contains(":container/default/"));
    let overrides = task.overrides.as_ref().unwrap();
    assert_eq!(
        overrides.container_overrides.as_ref().unwrap()[0]
            .name
            .as_deref(),
        Some("web")
    );
    assert_eq!(overrides.inference_accelerator_overrides, Some(vec![]));
    assert_eq!(&harness.task(&text(&task.task_arn)), task);
    assert_eq!(harness.remaining(&instance, "CPU"), 4096 - 256);
    assert_eq!(harness.remaining(&instance, "MEMORY"), 8192 - 512);
    assert_eq!(harness.instance(&instance).pending_tasks_count, Some(1));
}

#[test]
fn what_is_wrong_with_a_request_is_said_and_nothing_is_created() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    let mut inactive = web();
    inactive.family = "old".to_owned();
    harness.register(inactive).unwrap();
    let input = DeregisterTaskDefinitionRequest {
        task_definition: "old:1".to_owned(),
    };
    done(
        harness
            .service
            .deregister_task_definition(&harness.ctx(), input),
    )
    .unwrap();
    let with = |change: &dyn Fn(&mut RunTaskRequest)| {
        let mut input = run("web");
        change(&mut input);
        refusal(harness.run(input))
    };
    let overridden = |container: ContainerOverride| TaskOverride {
        container_overrides: Some(vec![container]),
        ..Default::default()
    };
    let constraint = |kind: PlacementConstraintType| {
        Some(vec![PlacementConstraint {
            r#type: Some(kind),
            expression: None,
        }])
    };
    let strategy = |kind: PlacementStrategyType, field: &str| {
        Some(vec![PlacementStrategy {
            r#type: Some(kind),
            field: Some(field.to_owned()),
        }])
    };
    let invalid = "InvalidParameterException";
    let cases: Vec<((String, String), &str, &str)> = vec![
        (
            with(&|r| r.count = Some(0)),
            invalid,
            "Count must be between 1 and 10.",
        ),
        (
            with(&|r| r.count = Some(11)),
            invalid,
            "Count must be between 1 and 10.",
        ),
        (
            with(&|r| r.task_definition = String::new()),
            "ClientException",
            "TaskDefinition can not be blank.",
        ),
        (
            with(&|r| r.task_definition = "none".into()),
            "ClientException",
            "TaskDefinition not found.",
        ),
        (
            with(&|r| r.task_definition = "old:1".into()),
            "ClientException",
            "TaskDefinition is inactive",
        ),
        (
            with(&|r| r.launch_type = Some(LaunchType::Fargate)),
            "ClientException",
            "Launch type FARGATE is not built in Gantry yet.",
        ),
        (
            with(&|r| r.launch_type = Some(LaunchType::from("MANAGED_INSTANCES"))),
            "ClientException",
            "Launch type MANAGED_INSTANCES is not built in Gantry yet.",
        ),
        (
            with(&|r| r.launch_type = Some(LaunchType::from("MOON"))),
            invalid,
            "1 validation error detected: Value 'MOON' at 'launchType' failed to satisfy constraint: Member must satisfy enum value set: [EC2, FARGATE, EXTERNAL, MANAGED_INSTANCES]",
        ),
        (
            with(&|r| {
                r.capacity_provider_strategy = Some(vec![CapacityProviderStrategyItem::default()])
            }),
            "ClientException",
            "capacityProviderStrategy is not built in Gantry yet.",
        ),
        (
            with(&|r| {
                r.launch_type = Some(LaunchType::Ec2);
                r.capacity_provider_strategy = Some(vec![CapacityProviderStrategyItem::default()]);
            }),
            invalid,
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
        ),
        (
            with(&|r| r.network_configuration = Some(NetworkConfiguration::default())),
            invalid,
            "Network Configuration is not valid for the given networkMode of this task definition.",
        ),
        (
            with(&|r| r.platform_version = Some("1.4.0".into())),
            invalid,
            "The platform version must be null when specifying an EC2 launch type.",
        ),
        (
            with(&|r| r.enable_execute_command = Some(true)),
            "ClientException",
            "enableExecuteCommand is not built in Gantry yet.",
        ),
        (
            with(&|r| {
                r.overrides = Some(overridden(ContainerOverride {
                    name: Some("x".into()),
                    ..Default::default()
                }))
            }),
            invalid,
            "Override for container named x is not a container in the TaskDefinition.",
        ),
        (
            with(&|r| {
                r.overrides = Some(overridden(ContainerOverride {
                    name: Some("web".into()),
                    memory: Some(5),
                    ..Default::default()
                }))
            }),
            "ClientException",
            "Invalid 'memory' setting for container 'web'. The minimum is 6 MiB.",
        ),
        (
            with(&|r| {
                let value = Some("x".repeat(9000));
                let environment = Some(vec![KeyValuePair {
                    name: Some("A".into()),
                    value,
                }]);
                r.overrides = Some(overridden(ContainerOverride {
                    name: Some("web".into()),
                    environment,
                    ..Default::default()
                }));
            }),
            invalid,
            "Container Overrides length must be at most 8192",
        ),
        (
            with(&|r| r.placement_constraints = constraint(PlacementConstraintType::MemberOf)),
            invalid,
            "A memberOf placement constraint requires an expression.",
        ),
        (
            with(&|r| r.placement_strategy = strategy(PlacementStrategyType::Binpack, "disk")),
            invalid,
            "Placement strategy binpack requires the field cpu or memory.",
        ),
        (
            with(&|r| r.group = Some("service:x".into())),
            invalid,
            "Invalid namespace for group: 'service' is reserved.",
        ),
        (
            with(&|r| r.client_token = Some("x".repeat(65))),
            invalid,
            "clientToken must have at most 64 printable ASCII characters.",
        ),
        (
            with(&|r| r.propagate_tags = Some(PropagateTags::Service)),
            invalid,
            "Invalid value SERVICE for propagateTags: the task is not part of a service.",
        ),
    ];
    for (refused, code, message) in cases {
        assert_eq!(refused, (code.to_owned(), message.to_owned()));
    }
    assert_eq!(harness.remaining(&instance, "CPU"), 4096);
}

#[test]
fn awsvpc_and_fargate_definitions_are_refused_by_name() {
    let (harness, _) = Harness::with_instance();
    let mut vpc = web();
    vpc.network_mode = Some(NetworkMode::Awsvpc);
    harness.register(vpc.clone()).unwrap();
    assert_eq!(
        refusal(harness.run(run("web"))).1,
        "Network Configuration must be provided when networkMode 'awsvpc' is specified."
    );
    let mut input = run("web");
    input.network_configuration = Some(NetworkConfiguration::default());
    assert_eq!(
        refusal(harness.run(input)).1,
        "Network mode awsvpc is not built in Gantry yet."
    );
    vpc.requires_compatibilities = Some(vec![Compatibility::Fargate]);
    (vpc.cpu, vpc.memory) = (Some("256".to_owned()), Some("512".to_owned()));
    harness.register(vpc).unwrap();
    assert_eq!(
        refusal(harness.run(run("web"))).1,
        "Task definition does not support launch_type EC2."
    );
}

#[test]
fn a_cluster_without_instances_says_so() {
    let harness = Harness::new();
    harness.create_cluster("default");
    harness.register_web();
    assert_eq!(
        refusal(harness.run(run("web"))),
        (
            "InvalidParameterException".to_owned(),
            "No Container Instances were found in your cluster.".to_owned()
        )
    );
}

#[test]
fn what_finds_no_place_comes_back_as_failures_with_the_instance() {
    let harness = Harness::new();
    harness.create_cluster("default");
    let small = harness.register_instance(200, 8192);
    let mut input = run("web");
    harness.register_web();
    input.count = Some(3);
    let reason = |answer: gantry_api::ecs::RunTaskResponse| {
        assert_eq!(answer.tasks, Some(vec![]));
        let failures = answer.failures.unwrap();
        (
            failures[0].arn.clone().unwrap(),
            failures[0].reason.clone().unwrap(),
        )
    };
    let answer = harness.run(input.clone()).unwrap();
    assert_eq!(reason(answer), (small.clone(), "RESOURCE:CPU".to_owned()));

    harness.connect(&small, false);
    let answer = harness.run(input.clone()).unwrap();
    assert_eq!(reason(answer).1, "AGENT");

    // Room for two of three: what fits runs, and the rest is answered.
    let roomy = harness.register_instance(4096, 1100);
    let answer = harness.run(input).unwrap();
    assert_eq!(answer.tasks.unwrap().len(), 2);
    let mut reasons: Vec<String> = answer
        .failures
        .unwrap()
        .into_iter()
        .map(|f| f.reason.unwrap())
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["AGENT", "RESOURCE:MEMORY"]);
    assert_eq!(harness.remaining(&roomy, "MEMORY"), 1100 - 2 * 512);
    let said = gantry_ecs::explain::placements(
        &harness.store.snapshot(),
        &harness.scope(),
        "default",
        &gantry_ecs::explain::PlacementFilter::default(),
        harness.env.now(),
    )
    .unwrap();
    assert_eq!(said[0], "0 s ago, 1 of 3 tasks of web:1 found no place.");
    assert!(
        said.iter()
            .any(|s| s.contains("MiB of memory free and the task needs 512")),
        "{said:?}"
    );
}

#[test]
fn a_host_port_is_given_once_and_comes_back_when_its_task_stops() {
    let (harness, instance) = Harness::with_instance();
    let mut input = web();
    input.container_definitions[0].port_mappings = Some(vec![PortMapping {
        container_port: Some(8080),
        ..Default::default()
    }]);
    harness.register(input).unwrap();
    let first = harness.run_one("web");
    let ports = |harness: &Harness| {
        let resources = harness.instance(&instance).remaining_resources.unwrap();
        resources[2].string_set_value.clone().unwrap()
    };
    assert!(ports(&harness).contains(&"8080".to_owned()));
    let refused = harness.run(run("web")).unwrap().failures.unwrap();
    assert_eq!(refused[0].reason.as_deref(), Some("RESOURCE:PORTS"));
    harness.submit(&first, "STOPPED", Some(0));
    assert!(!ports(&harness).contains(&"8080".to_owned()));
    harness.run_one("web");
}

#[test]
fn an_instance_that_lacks_a_capability_is_passed_over() {
    let (harness, _) = Harness::with_instance();
    let mut input = web();
    input.container_definitions[0].privileged = Some(true);
    harness.register(input).unwrap();
    let failures = harness.run(run("web")).unwrap().failures.unwrap();
    assert_eq!(failures[0].reason.as_deref(), Some("ATTRIBUTE"));
    assert_eq!(
        failures[0].detail.as_deref(),
        Some("com.amazonaws.ecs.capability.privileged-container")
    );
}

#[test]
fn overrides_are_kept_and_change_what_is_taken() {
    let (harness, instance) = Harness::with_instance();
    let mut two = web();
    two.container_definitions.push(container("side"));
    harness.register(two).unwrap();
    let over = ContainerOverride {
        name: Some("web".to_owned()),
        command: Some(vec!["x".to_owned()]),
        cpu: Some(1000),
        memory: Some(700),
        ..Default::default()
    };
    let mut input = run("web");
    input.overrides = Some(TaskOverride {
        container_overrides: Some(vec![over.clone()]),
        task_role_arn: Some("arn:aws:iam::000000000000:role/other".to_owned()),
        ..Default::default()
    });
    let task = harness.run(input).unwrap().tasks.unwrap().remove(0);
    let overrides = task.overrides.unwrap();
    let containers = overrides.container_overrides.unwrap();
    assert_eq!(containers[0], over);
    assert_eq!(containers[1].name.as_deref(), Some("side"));
    assert!(overrides.task_role_arn.is_some());
    assert_eq!(task.cpu.as_deref(), Some("1000"));
    assert_eq!(task.memory.as_deref(), Some("828"));
    assert_eq!(task.containers.unwrap()[0].cpu.as_deref(), Some("1000"));
    assert_eq!(harness.remaining(&instance, "CPU"), 4096 - 1000);
    assert_eq!(harness.remaining(&instance, "MEMORY"), 8192 - 828);
}

#[test]
fn a_task_size_and_a_reservation_are_what_is_set_aside() {
    let (harness, instance) = Harness::with_instance();
    let mut sized = web();
    (sized.cpu, sized.memory) = (Some("512".to_owned()), Some("1024".to_owned()));
    harness.register(sized).unwrap();
    harness.run_one("web");
    assert_eq!(harness.remaining(&instance, "CPU"), 4096 - 512);
    assert_eq!(harness.remaining(&instance, "MEMORY"), 8192 - 1024);
    let mut soft = RegisterTaskDefinitionRequest {
        family: "soft".to_owned(),
        ..web()
    };
    soft.container_definitions[0].memory_reservation = Some(100);
    harness.register(soft).unwrap();
    harness.run_one("soft");
    assert_eq!(harness.remaining(&instance, "MEMORY"), 8192 - 1024 - 100);
}

#[test]
fn the_same_token_is_the_same_request_and_another_request_is_a_conflict() {
    let (harness, instance) = Harness::with_instance();
    harness.register_web();
    let mut input = run("web");
    input.client_token = Some("once".to_owned());
    input.count = Some(2);
    let first = harness.run(input.clone()).unwrap();
    let again = harness.run(input.clone()).unwrap();
    assert_eq!(first, again);
    assert_eq!(harness.remaining(&instance, "CPU"), 4096 - 2 * 256);
    let arns: Vec<String> = first
        .tasks
        .unwrap()
        .into_iter()
        .map(|task| task.task_arn.unwrap())
        .collect();
    // The answer shows the tasks as they are now.
    harness.submit(&arns[0], "RUNNING", None);
    let later = harness.run(input.clone()).unwrap().tasks.unwrap();
    assert_eq!(later[0].last_status.as_deref(), Some("RUNNING"));
    input.count = Some(1);
    match harness.run(input.clone()) {
        Err(EcsError::ConflictException(conflict)) => assert_eq!(conflict.resource_ids, Some(arns)),
        other => panic!("{other:?}"),
    }
    input.client_token = Some("another".to_owned());
    assert_eq!(harness.run(input).unwrap().tasks.unwrap().len(), 1);
}

#[test]
fn tags_come_from_the_definition_the_request_and_ecs_itself() {
    let (harness, _) = Harness::with_instance();
    let input = RegisterTaskDefinitionRequest {
        tags: Some(vec![tag("team", "a"), tag("env", "test")]),
        ..web()
    };
    harness.register(input).unwrap();
    let mut input = run("web");
    input.tags = Some(vec![tag("env", "prod")]);
    let arn = harness.run(input.clone()).unwrap().tasks.unwrap()[0]
        .task_arn
        .clone()
        .unwrap();
    assert_eq!(harness.task(&arn).tags, Some(vec![tag("env", "prod")]));
    input.propagate_tags = Some(PropagateTags::TaskDefinition);
    input.enable_ecs_managed_tags = Some(true);
    let arn = harness.run(input).unwrap().tasks.unwrap()[0]
        .task_arn
        .clone()
        .unwrap();
    assert_eq!(
        harness.task(&arn).tags,
        Some(vec![
            tag("team", "a"),
            tag("env", "prod"),
            tag("aws:ecs:clusterName", "default")
        ])
    );
}

#[test]
fn constraints_and_strategies_decide_where_tasks_go() {
    let harness = Harness::new();
    harness.create_cluster("default");
    for _ in 0..3 {
        harness.register_instance(4096, 8192);
    }
    harness.register_web();
    let mut input = run("web");
    input.count = Some(4);
    input.placement_constraints = Some(vec![PlacementConstraint {
        r#type: Some(PlacementConstraintType::DistinctInstance),
        expression: None,
    }]);
    let answer = harness.run(input).unwrap();
    assert_eq!(answer.tasks.unwrap().len(), 3);
    assert_eq!(answer.failures.unwrap().len(), 3);

    let mut input = run("web");
    input.count = Some(5);
    input.group = Some("packed".to_owned());
    input.placement_strategy = Some(vec![PlacementStrategy {
        r#type: Some(PlacementStrategyType::Binpack),
        field: Some("memory".to_owned()),
    }]);
    let tasks = harness.run(input).unwrap().tasks.unwrap();
    let first = &tasks[0].container_instance_arn;
    assert!(
        tasks
            .iter()
            .all(|task| task.container_instance_arn == *first)
    );
}
