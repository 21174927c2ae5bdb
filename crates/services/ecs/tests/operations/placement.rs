//! Where RunTask and StartTask put tasks: constraints, strategies, instances that drain, disconnect,
//! come back and change their attributes.

use std::collections::BTreeSet;

use gantry_api::ecs::{
    self, Ecs as _, LaunchType, PlacementConstraint, PlacementConstraintType, PlacementStrategy,
    PlacementStrategyType, RunTaskRequest,
};

use crate::harness::{Harness, attribute, done, refusal, resources, run, web};

/// `web`, but only on instances that the expression means.
fn on(expression: &str, count: i32) -> RunTaskRequest {
    RunTaskRequest {
        count: Some(count),
        placement_constraints: Some(vec![member_of(expression)]),
        ..run("web")
    }
}

fn member_of(expression: &str) -> PlacementConstraint {
    PlacementConstraint {
        r#type: Some(PlacementConstraintType::MemberOf),
        expression: Some(expression.to_owned()),
    }
}

fn strategy(kind: PlacementStrategyType, field: &str) -> PlacementStrategy {
    PlacementStrategy {
        r#type: Some(kind),
        field: Some(field.to_owned()),
    }
}

/// Where the tasks of an answer went.
fn places(answer: &ecs::RunTaskResponse) -> Vec<String> {
    let tasks = answer.tasks.as_deref().unwrap_or_default();
    let place = |task: &ecs::Task| task.container_instance_arn.clone().unwrap();
    tasks.iter().map(place).collect()
}

fn reasons(answer: &ecs::RunTaskResponse) -> Vec<String> {
    let failures = answer.failures.as_deref().unwrap_or_default();
    failures.iter().map(|f| f.reason.clone().unwrap()).collect()
}

/// An instance that has these attributes besides what every one has.
fn register(harness: &Harness, attributes: Vec<ecs::Attribute>) -> String {
    let input = ecs::RegisterContainerInstanceRequest {
        total_resources: Some(resources(4096, 8192)),
        attributes: Some(attributes),
        ..Default::default()
    };
    let answer = done(
        harness
            .service
            .register_container_instance(&harness.ctx(), input),
    )
    .unwrap();
    let arn = answer
        .container_instance
        .unwrap()
        .container_instance_arn
        .unwrap();
    harness.connect(&arn, true);
    arn
}

fn cluster() -> Harness {
    let harness = Harness::new();
    harness.create_cluster("default");
    harness.register_web();
    harness
}

fn zone(name: &str) -> Vec<ecs::Attribute> {
    vec![attribute("ecs.availability-zone", Some(name))]
}

fn drain(harness: &Harness, arn: &str, status: &str) {
    let input = ecs::UpdateContainerInstancesStateRequest {
        container_instances: vec![arn.to_owned()],
        status: ecs::ContainerInstanceStatus::from(status),
        ..Default::default()
    };
    let answer = done(
        harness
            .service
            .update_container_instances_state(&harness.ctx(), input),
    );
    assert_eq!(answer.unwrap().failures, Some(vec![]));
}

#[test]
fn member_of_takes_only_instances_that_the_expression_means() {
    let harness = cluster();
    let one = register(&harness, zone("us-east-1a"));
    let other = register(&harness, zone("us-east-1b"));
    let answer = harness
        .run(on("attribute:ecs.availability-zone == us-east-1b", 3))
        .unwrap();
    assert_eq!(places(&answer), vec![other.clone(); 3]);
    let answer = harness.run(on("not(task:group == family:web)", 2)).unwrap();
    // After the first, the group is there as well.
    assert_eq!(places(&answer), [one.as_str()]);
    assert_eq!(reasons(&answer), ["MemberOf constraint unsatisfied."; 2]);
    let answer = harness.run(on("runningTasksCount > 0", 1)).unwrap();
    assert_eq!(reasons(&answer), ["MemberOf constraint unsatisfied."; 2]);
    assert_eq!(
        refusal(harness.run(on("colour == red", 1))),
        (
            "InvalidParameterException".to_owned(),
            "Invalid expression: unknown subject 'colour', expected agentConnected, agentVersion, attribute:NAME, ec2InstanceId, registeredAt, runningTasksCount or task:group (at character 7)"
                .to_owned()
        )
    );
}

#[test]
fn constraints_of_the_definition_and_of_the_request_hold_together() {
    let harness = Harness::new();
    harness.create_cluster("default");
    let a = register(&harness, zone("us-east-1a"));
    register(&harness, zone("us-east-1b"));
    let mut definition = web();
    let constraint = |expression: &str| ecs::TaskDefinitionPlacementConstraint {
        r#type: Some(ecs::TaskDefinitionPlacementConstraintType::MemberOf),
        expression: Some(expression.to_owned()),
    };
    definition.placement_constraints = Some(vec![constraint("attribute:nonsense")]);
    assert_eq!(
        refusal(harness.register(definition.clone())).0,
        "ClientException"
    );
    definition.placement_constraints =
        Some(vec![constraint("attribute:ecs.availability-zone =~ .*1a")]);
    harness.register(definition).unwrap();
    let mut input = run("web");
    input.count = Some(2);
    assert_eq!(
        places(&harness.run(input.clone()).unwrap()),
        vec![a.clone(); 2]
    );
    input.placement_constraints = Some(vec![member_of("attribute:ecs.availability-zone =~ .*1b")]);
    assert!(places(&harness.run(input).unwrap()).is_empty());
}

#[test]
fn without_a_strategy_tasks_spread_over_zones_and_with_one_they_follow_it() {
    let harness = cluster();
    let a: BTreeSet<String> = (0..3)
        .map(|_| register(&harness, zone("us-east-1a")))
        .collect();
    let b = register(&harness, zone("us-east-1b"));
    let mut input = run("web");
    input.count = Some(6);
    let placed = places(&harness.run(input.clone()).unwrap());
    assert_eq!(placed.iter().filter(|p| **p == b).count(), 3);
    assert_eq!(placed.iter().collect::<BTreeSet<_>>().len(), 4, "{a:?}");

    input.group = Some("packed".to_owned());
    input.placement_strategy = Some(vec![strategy(PlacementStrategyType::Binpack, "MEMORY")]);
    let placed = places(&harness.run(input.clone()).unwrap());
    assert_eq!(
        placed,
        vec![b.clone(); 6],
        "the fullest one, which has room for six more"
    );

    input.group = Some("spread".to_owned());
    input.count = Some(4);
    input.placement_strategy = Some(vec![
        strategy(PlacementStrategyType::Spread, "host"),
        strategy(PlacementStrategyType::Random, ""),
    ]);
    let placed = places(&harness.run(input).unwrap());
    assert_eq!(placed.into_iter().collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn an_instance_that_drains_keeps_its_standalone_tasks_and_takes_no_more() {
    let harness = cluster();
    let arn = register(&harness, zone("us-east-1a"));
    let task = harness.run_one("web");
    harness.submit(&task, "RUNNING", None);
    drain(&harness, &arn, "DRAINING");
    assert_eq!(reasons(&harness.run(run("web")).unwrap()), ["INACTIVE"]);
    assert_eq!(harness.task(&task).desired_status.unwrap(), "RUNNING");
    drain(&harness, &arn, "ACTIVE");
    assert_eq!(places(&harness.run(run("web")).unwrap()), [arn]);
}

#[test]
fn an_instance_that_is_cut_off_takes_tasks_again_when_it_is_back() {
    let harness = cluster();
    let arn = register(&harness, zone("us-east-1a"));
    harness.run_one("web");
    for _ in 0..3 {
        harness.connect(&arn, false);
        assert_eq!(reasons(&harness.run(run("web")).unwrap()), ["AGENT"]);
        harness.connect(&arn, true);
        assert_eq!(places(&harness.run(run("web")).unwrap()), vec![arn.clone()]);
    }
}

#[test]
fn attributes_that_users_put_are_seen_at_once_and_outlive_the_agents_next_registration() {
    let harness = cluster();
    let arn = register(&harness, zone("us-east-1a"));
    harness.run_one("web");
    let stack = |value: &str| ecs::Attribute {
        target_id: Some(arn.clone()),
        ..attribute("stack", Some(value))
    };
    let put = |attributes: Vec<ecs::Attribute>| {
        let input = ecs::PutAttributesRequest {
            attributes,
            ..Default::default()
        };
        done(harness.service.put_attributes(&harness.ctx(), input))
    };
    let wanted = || harness.run(on("attribute:stack == production", 1)).unwrap();
    assert!(places(&wanted()).is_empty());
    let answer = put(vec![stack("production")]).unwrap();
    assert_eq!(answer.attributes.unwrap()[0].target_id, Some(arn.clone()));
    assert_eq!(places(&wanted()), vec![arn.clone()]);

    let again = ecs::RegisterContainerInstanceRequest {
        container_instance_arn: Some(arn.clone()),
        total_resources: Some(resources(4096, 8192)),
        attributes: Some(zone("us-east-1a")),
        ..Default::default()
    };
    done(
        harness
            .service
            .register_container_instance(&harness.ctx(), again),
    )
    .unwrap();
    assert_eq!(places(&wanted()), vec![arn.clone()]);

    let list = |name: Option<&str>, value: Option<&str>| {
        let input = ecs::ListAttributesRequest {
            target_type: ecs::TargetType::ContainerInstance,
            attribute_name: name.map(str::to_owned),
            attribute_value: value.map(str::to_owned),
            ..Default::default()
        };
        done(harness.service.list_attributes(&harness.ctx(), input))
    };
    assert_eq!(
        list(Some("stack"), None).unwrap().attributes.unwrap().len(),
        1
    );
    let none = list(Some("stack"), Some("test")).unwrap().attributes;
    assert_eq!(none, Some(vec![]));
    assert_eq!(
        refusal(list(None, Some("x"))).0,
        "InvalidParameterException"
    );

    let delete = ecs::DeleteAttributesRequest {
        attributes: vec![ecs::Attribute {
            value: None,
            ..stack("")
        }],
        ..Default::default()
    };
    let gone = done(harness.service.delete_attributes(&harness.ctx(), delete)).unwrap();
    let gone = gone.attributes.unwrap();
    assert_eq!(gone[0].value.as_deref(), Some("production"));
    assert!(places(&wanted()).is_empty());

    let refused = |attribute: ecs::Attribute| refusal(put(vec![attribute])).0;
    let bad = |name: &str, value: &str, target: Option<&str>| ecs::Attribute {
        target_id: target.map(str::to_owned),
        ..attribute(name, Some(value))
    };
    let invalid = "InvalidParameterException";
    assert_eq!(refused(bad("ecs.os-type", "x", Some(&arn))), invalid);
    assert_eq!(refused(bad("a b", "x", Some(&arn))), invalid);
    assert_eq!(refused(bad("a", " x", Some(&arn))), invalid);
    assert_eq!(refused(bad("a", "x", None)), invalid);
    assert_eq!(
        refused(bad("a", "x", Some(&"0".repeat(32)))),
        "TargetNotFoundException"
    );
    assert_eq!(refusal(put(vec![])).0, invalid);
    let eleven = (0..11).map(|n| bad(&format!("a{n}"), "x", Some(&arn)));
    assert_eq!(refusal(put(eleven.collect())).0, invalid);
    for n in 0..10 {
        put(vec![bad(&format!("a{n}"), "x", Some(&arn))]).unwrap();
    }
    assert_eq!(
        refused(bad("a10", "x", Some(&arn))),
        "AttributeLimitExceededException"
    );
}

#[test]
fn external_instances_take_external_tasks_alone() {
    let harness = cluster();
    let ec2 = register(&harness, zone("us-east-1a"));
    let mut input = run("web");
    input.launch_type = Some(LaunchType::External);
    assert_eq!(
        refusal(harness.run(input.clone())).1,
        "No Container Instances were found in your cluster."
    );
    let mut attributes = zone("us-east-1a");
    attributes.push(attribute("ecs.capability.external", None));
    let external = register(&harness, attributes);
    let answer = harness.run(input).unwrap();
    assert_eq!(places(&answer), vec![external.clone()]);
    let task = &answer.tasks.unwrap()[0];
    assert_eq!(task.launch_type, Some(LaunchType::External));
    let mut many = run("web");
    many.count = Some(5);
    assert_eq!(places(&harness.run(many).unwrap()), vec![ec2.clone(); 5]);

    let input = ecs::ListTasksRequest {
        launch_type: Some(LaunchType::External),
        ..Default::default()
    };
    let listed = done(harness.service.list_tasks(&harness.ctx(), input)).unwrap();
    assert_eq!(listed.task_arns.unwrap(), [task.task_arn.clone().unwrap()]);
    let input = ecs::DescribeClustersRequest {
        include: Some(vec![
            ecs::ClusterField::Statistics,
            ecs::ClusterField::Attachments,
        ]),
        ..Default::default()
    };
    let described = done(harness.service.describe_clusters(&harness.ctx(), input)).unwrap();
    let cluster = &described.clusters.unwrap()[0];
    let statistic = |name: &str| {
        let all = cluster.statistics.as_deref().unwrap();
        let found = all.iter().find(|it| it.name.as_deref() == Some(name));
        found.unwrap().value.clone().unwrap()
    };
    assert_eq!(statistic("pendingEC2TasksCount"), "5");
    assert_eq!(statistic("pendingExternalTasksCount"), "1");
    assert_eq!(cluster.attachments, Some(vec![]));
}

#[test]
fn start_task_puts_one_task_on_each_instance_that_is_named() {
    let harness = cluster();
    let a = register(&harness, zone("us-east-1a"));
    let b = register(&harness, zone("us-east-1b"));
    let off = harness.register_unconnected(4096, 8192);
    let start = |instances: &[&str]| {
        let input = ecs::StartTaskRequest {
            container_instances: instances.iter().map(|arn| (*arn).to_owned()).collect(),
            task_definition: "web".to_owned(),
            started_by: Some("me".to_owned()),
            group: Some("mine".to_owned()),
            reference_id: Some("42".to_owned()),
            ..Default::default()
        };
        done(harness.service.start_task(&harness.ctx(), input))
    };
    let missing = "0".repeat(32);
    let answer = start(&[&a, &b, &off, &missing]).unwrap();
    let tasks = answer.tasks.unwrap();
    let placed: Vec<_> = tasks
        .iter()
        .map(|t| t.container_instance_arn.clone())
        .collect();
    assert_eq!(placed, [Some(a.clone()), Some(b)]);
    assert_eq!(tasks[0].group.as_deref(), Some("mine"));
    assert_eq!(tasks[0].started_by.as_deref(), Some("me"));
    let failures = answer.failures.unwrap();
    let failed: Vec<_> = failures.iter().map(|f| f.reason.clone().unwrap()).collect();
    assert_eq!(failed, ["AGENT", "MISSING"]);
    // 256 of 4096 CPU units a task: fifteen more fit.
    for _ in 0..15 {
        assert_eq!(start(&[&a]).unwrap().tasks.unwrap().len(), 1);
    }
    let full = start(&[&a]).unwrap().failures.unwrap();
    assert_eq!(full[0].reason.as_deref(), Some("RESOURCE:CPU"));
    assert_eq!(refusal(start(&[])).0, "InvalidParameterException");
    assert_eq!(
        refusal(start(&[&a; 11].map(|arn| arn.as_str()))).0,
        "InvalidParameterException"
    );
}

#[test]
fn instances_are_listed_by_expression_and_status() {
    let harness = cluster();
    let a = register(&harness, zone("us-east-1a"));
    let b = register(&harness, zone("us-east-1b"));
    let task = harness
        .run(on("attribute:ecs.availability-zone =~ .*b", 1))
        .unwrap();
    let task = task.tasks.unwrap()[0].task_arn.clone().unwrap();
    let list = |filter: &str, status: Option<&str>| {
        let input = ecs::ListContainerInstancesRequest {
            filter: Some(filter.to_owned()),
            status: status.map(ecs::ContainerInstanceStatus::from),
            ..Default::default()
        };
        let answer = done(
            harness
                .service
                .list_container_instances(&harness.ctx(), input),
        );
        answer.map(|answer| answer.container_instance_arns.unwrap())
    };
    assert_eq!(list("task:group exists", None).unwrap(), vec![b.clone()]);
    assert_eq!(list("runningTasksCount == 0", None).unwrap().len(), 2);
    harness.submit(&task, "RUNNING", None);
    assert_eq!(
        list("runningTasksCount == 1", None).unwrap(),
        vec![b.clone()]
    );
    harness.connect(&b, false);
    assert_eq!(
        list("agentConnected == true", None).unwrap(),
        vec![a.clone()]
    );
    drain(&harness, &b, "DRAINING");
    assert_eq!(list("", Some("DRAINING")).unwrap(), [b]);
    assert_eq!(
        list("attribute:ecs.availability-zone exists", Some("ACTIVE")).unwrap(),
        [a]
    );
    assert_eq!(
        refusal(list("attribute:", None)).0,
        "InvalidParameterException"
    );
}

#[test]
fn a_task_that_runs_counts_and_one_that_has_stopped_makes_room() {
    let harness = cluster();
    register(&harness, zone("us-east-1a"));
    let mut input = run("web");
    input.count = Some(10);
    let first = harness.run(input.clone()).unwrap().tasks.unwrap();
    // Sixteen fit.
    let answer = harness.run(input.clone()).unwrap();
    assert_eq!((places(&answer).len(), reasons(&answer).len()), (6, 1));
    for task in &first[..3] {
        let arn = task.task_arn.clone().unwrap();
        harness.submit(&arn, "RUNNING", None);
        harness.submit(&arn, "STOPPED", Some(0));
    }
    assert_eq!(places(&harness.run(input).unwrap()).len(), 3);
}

#[test]
fn a_refusal_is_kept_and_found_by_what_the_user_named() {
    let harness = cluster();
    for _ in 0..60 {
        register(&harness, zone("us-east-1a"));
    }
    let mut input = on("attribute:gpu exists", 2);
    input.started_by = Some("nightly".to_owned());
    assert_eq!(reasons(&harness.run(input).unwrap()).len(), 60);
    let said = |filter: gantry_ecs::explain::PlacementFilter| {
        gantry_ecs::explain::placements(
            &harness.store.snapshot(),
            &harness.scope(),
            "default",
            &filter,
            harness.env.now(),
        )
        .unwrap()
    };
    let by = |text: &str| gantry_ecs::explain::PlacementFilter {
        started_by: Some(text.to_owned()),
        task_definition: Some("web".to_owned()),
        ..Default::default()
    };
    let sentences = said(by("nightly"));
    assert_eq!(
        sentences[..2],
        [
            "0 s ago, 2 of 2 tasks of web:1, started by nightly, found no place.",
            "60 container instances were looked at: MemberOf constraint unsatisfied on 60."
        ]
    );
    assert!(sentences[2].ends_with("it is not a member of attribute:gpu exists."));
    assert_eq!(
        sentences.last().unwrap(),
        "The reasons against 10 more container instances are only counted."
    );
    assert!(said(by("somebody")).is_empty());
}
