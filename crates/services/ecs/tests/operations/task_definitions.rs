use gantry_api::ecs::{
    Compatibility, ContainerDefinition, DeleteTaskDefinitionsRequest,
    DeregisterTaskDefinitionRequest, DescribeTaskDefinitionRequest, Ecs as _, EcsError,
    ListTaskDefinitionFamiliesRequest, ListTaskDefinitionsRequest, PortMapping,
    RegisterTaskDefinitionRequest, SortOrder, TaskDefinition, TaskDefinitionFamilyStatus,
    TaskDefinitionField, TaskDefinitionStatus, TransportProtocol,
};

use crate::harness::{Harness, container, done, refusal, run, tag, web};

fn describe(harness: &Harness, name: &str) -> Result<TaskDefinition, EcsError> {
    let input = DescribeTaskDefinitionRequest {
        task_definition: name.to_owned(),
        include: None,
    };
    let answer = done(
        harness
            .service
            .describe_task_definition(&harness.ctx(), input),
    )?;
    Ok(answer.task_definition.unwrap())
}

fn deregister(harness: &Harness, name: &str) -> Result<TaskDefinition, EcsError> {
    let input = DeregisterTaskDefinitionRequest {
        task_definition: name.to_owned(),
    };
    let answer = done(
        harness
            .service
            .deregister_task_definition(&harness.ctx(), input),
    )?;
    Ok(answer.task_definition.unwrap())
}

fn named(family: &str) -> RegisterTaskDefinitionRequest {
    RegisterTaskDefinitionRequest {
        family: family.to_owned(),
        ..web()
    }
}

/// A definition that uses every part of a container that is compatible with the others.
const EVERYTHING: &str = r#"{
  "family": "everything", "taskRoleArn": "arn:aws:iam::000000000000:role/task",
  "executionRoleArn": "arn:aws:iam::000000000000:role/execution", "networkMode": "bridge",
  "cpu": "1024", "memory": "2048", "pidMode": "task", "ipcMode": "none",
  "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
  "enableFaultInjection": true,
  "requiresCompatibilities": ["EC2"],
  "volumes": [
    {"name": "data", "host": {"sourcePath": "/srv"}},
    {"name": "shared", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true,
       "driver": "local", "driverOpts": {"type": "tmpfs"}, "labels": {"a": "b"}}},
    {"name": "efs", "efsVolumeConfiguration": {"fileSystemId": "fs-1234", "rootDirectory": "/x",
       "transitEncryption": "ENABLED", "transitEncryptionPort": 2999,
       "authorizationConfig": {"iam": "ENABLED"}}}],
  "containerDefinitions": [
    {"name": "init", "image": "busybox:1.36", "memory": 64, "essential": false,
     "command": ["true"], "environment": [], "mountPoints": [], "volumesFrom": [],
     "systemControls": [], "portMappings": [], "cpu": 0},
    {"name": "web", "image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/web@sha256:0f",
     "repositoryCredentials": {"credentialsParameter": "arn:aws:secretsmanager:us-east-1:0:secret:x"},
     "cpu": 512, "memory": 1024, "memoryReservation": 512, "links": ["init:i"],
     "portMappings": [{"containerPort": 80, "hostPort": 8080, "protocol": "udp", "name": "http",
        "appProtocol": "http"}, {"containerPortRange": "9000-9010", "protocol": "tcp"}],
     "essential": true,
     "restartPolicy": {"enabled": true, "ignoredExitCodes": [0, 1], "restartAttemptPeriod": 60},
     "entryPoint": ["/bin/sh"], "command": ["-c", "sleep 1"],
     "environment": [{"name": "A", "value": "1"}],
     "environmentFiles": [{"value": "arn:aws:s3:::bucket/x.env", "type": "s3"}],
     "mountPoints": [{"sourceVolume": "data", "containerPath": "/data", "readOnly": true}],
     "volumesFrom": [{"sourceContainer": "init", "readOnly": true}],
     "linuxParameters": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "devices": [{"hostPath": "/dev/null", "containerPath": "/dev/n", "permissions": ["read"]}],
        "initProcessEnabled": true, "sharedMemorySize": 64,
        "tmpfs": [{"containerPath": "/t", "size": 8, "mountOptions": ["ro"]}],
        "maxSwap": 10, "swappiness": 5},
     "secrets": [{"name": "S", "valueFrom": "arn:aws:ssm:us-east-1:0:parameter/s"}],
     "dependsOn": [{"containerName": "init", "condition": "SUCCESS"}],
     "startTimeout": 10, "stopTimeout": 20, "versionConsistency": "disabled", "hostname": "h",
     "user": "1000:1000", "workingDirectory": "/w", "disableNetworking": false,
     "privileged": true, "readonlyRootFilesystem": true, "dnsServers": ["10.0.0.2"],
     "dnsSearchDomains": ["x.local"], "extraHosts": [{"hostname": "o", "ipAddress": "10.1.1.1"}],
     "dockerSecurityOptions": ["no-new-privileges"], "interactive": true, "pseudoTerminal": true,
     "dockerLabels": {"k": "v"}, "ulimits": [{"name": "nofile", "softLimit": 10, "hardLimit": -1}],
     "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "g",
        "awslogs-region": "us-east-1", "mode": "blocking"},
        "secretOptions": [{"name": "t", "valueFrom": "arn:aws:ssm:us-east-1:0:parameter/t"}]},
     "healthCheck": {"command": ["CMD", "true"], "interval": 10, "timeout": 3, "retries": 2,
        "startPeriod": 7},
     "systemControls": [{"namespace": "net.core.somaxconn", "value": "100"}],
     "resourceRequirements": [{"value": "1", "type": "GPU"}],
     "firelensConfiguration": {"type": "fluentbit", "options": {"x": "y"}},
     "credentialSpecs": ["credentialspec:arn:aws:s3:::b/c"]}]
}"#;

#[test]
fn every_member_is_kept_and_returned() {
    let harness = Harness::new();
    let sent: serde_json::Value = serde_json::from_str(EVERYTHING).unwrap();
    let input: RegisterTaskDefinitionRequest = serde_json::from_str(EVERYTHING).unwrap();
    let registered = harness.register(input).unwrap();
    let described = describe(&harness, "everything:1").unwrap();
    assert_eq!(registered, described);
    let answered = serde_json::to_value(&described).unwrap();
    for (member, value) in sent.as_object().unwrap() {
        // This container's ranges have no host port to default, so all comes back as it went.
        assert_eq!(&answered[member], value, "{member}");
    }
    let sent = sent["containerDefinitions"][1].as_object().unwrap();
    let model = serde_json::to_value(ContainerDefinition::default()).unwrap();
    assert_eq!(model, serde_json::json!({}));
    // The test is only worth something while it names every member there is.
    let members = gantry_api::shape::Structure::schema(&ContainerDefinition::default()).members();
    for member in members {
        assert!(
            sent.contains_key(member.wire_name()),
            "{} is not tested",
            member.wire_name()
        );
    }
}

#[test]
fn what_is_not_given_gets_the_defaults_of_aws() {
    let harness = Harness::new();
    let mut app = container("app");
    app.port_mappings = Some(vec![PortMapping {
        container_port: Some(80),
        ..Default::default()
    }]);
    app.health_check = Some(gantry_api::ecs::HealthCheck {
        command: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
        ..Default::default()
    });
    let input = RegisterTaskDefinitionRequest {
        family: "app".to_owned(),
        cpu: Some("1 vCPU".to_owned()),
        memory: Some("2 GB".to_owned()),
        container_definitions: vec![app],
        ..Default::default()
    };
    let definition = harness.register(input).unwrap();
    assert_eq!(
        (definition.cpu.as_deref(), definition.memory.as_deref()),
        (Some("1024"), Some("2048"))
    );
    assert_eq!(definition.revision, Some(1));
    assert_eq!(definition.status, Some(TaskDefinitionStatus::Active));
    assert_eq!(
        definition.task_definition_arn.as_deref(),
        Some("arn:aws:ecs:us-east-1:000000000000:task-definition/app:1")
    );
    assert_eq!(definition.registered_at, Some(harness.env.now()));
    assert_eq!(
        definition.registered_by.as_deref(),
        Some("arn:aws:iam::000000000000:root")
    );
    assert_eq!(definition.volumes, Some(vec![]));
    assert_eq!(definition.placement_constraints, Some(vec![]));
    assert_eq!(
        definition.compatibilities,
        Some(vec![Compatibility::External, Compatibility::Ec2])
    );
    let app = &definition.container_definitions.unwrap()[0];
    assert_eq!((app.cpu, app.essential), (Some(0), Some(true)));
    assert_eq!(app.environment, Some(vec![]));
    assert_eq!(app.mount_points, Some(vec![]));
    assert_eq!(app.volumes_from, Some(vec![]));
    let mapping = &app.port_mappings.as_ref().unwrap()[0];
    assert_eq!(
        (mapping.host_port, mapping.protocol.clone()),
        (Some(0), Some(TransportProtocol::Tcp))
    );
    let check = app.health_check.as_ref().unwrap();
    assert_eq!(
        (check.interval, check.timeout, check.retries),
        (Some(30), Some(5), Some(3))
    );
    let required = definition.requires_attributes.unwrap();
    assert!(
        required
            .iter()
            .any(|a| a.name == "ecs.capability.container-health-check")
    );
}

#[test]
fn a_definition_for_fargate_says_that_it_is_one() {
    let harness = Harness::new();
    let mut input = named("f");
    input.network_mode = Some(gantry_api::ecs::NetworkMode::Awsvpc);
    input.requires_compatibilities = Some(vec![Compatibility::Fargate]);
    (input.cpu, input.memory) = (Some("256".to_owned()), Some("512".to_owned()));
    let definition = harness.register(input).unwrap();
    assert_eq!(
        definition.compatibilities,
        Some(vec![Compatibility::Ec2, Compatibility::Fargate])
    );
}

#[test]
fn revisions_only_grow_and_are_never_used_again() {
    let harness = Harness::new();
    for revision in 1..=3 {
        assert_eq!(
            harness.register(named("web")).unwrap().revision,
            Some(revision)
        );
    }
    deregister(&harness, "web:3").unwrap();
    let input = DeleteTaskDefinitionsRequest {
        task_definitions: vec!["web:3".to_owned()],
    };
    done(
        harness
            .service
            .delete_task_definitions(&harness.ctx(), input),
    )
    .unwrap();
    assert_eq!(harness.register(named("web")).unwrap().revision, Some(4));
    assert_eq!(harness.register(named("other")).unwrap().revision, Some(1));
}

#[test]
fn a_family_means_its_latest_active_revision() {
    let harness = Harness::new();
    for _ in 0..3 {
        harness.register(named("web")).unwrap();
    }
    deregister(&harness, "web:3").unwrap();
    assert_eq!(describe(&harness, "web").unwrap().revision, Some(2));
    let inactive = describe(&harness, "web:3").unwrap();
    assert_eq!(inactive.status, Some(TaskDefinitionStatus::Inactive));
    assert_eq!(inactive.deregistered_at, Some(harness.env.now()));
    let arn = inactive.task_definition_arn.unwrap();
    assert_eq!(describe(&harness, &arn).unwrap().revision, Some(3));
    for (name, message) in [
        ("nothing", "Unable to describe task definition."),
        ("web:99", "Unable to describe task definition."),
        ("web:x", "Invalid revision number. Number: x"),
        ("", "TaskDefinition can not be blank."),
    ] {
        let refused = refusal(describe(&harness, name));
        assert_eq!(refused, ("ClientException".to_owned(), message.to_owned()));
    }
}

#[test]
fn deregistering_is_idempotent_and_needs_a_revision_that_exists() {
    let harness = Harness::new();
    harness.register(named("web")).unwrap();
    let first = deregister(&harness, "web:1").unwrap();
    harness.env.advance(std::time::Duration::from_secs(5));
    assert_eq!(deregister(&harness, "web:1").unwrap(), first);
    let refused = refusal(deregister(&harness, "web:2"));
    assert_eq!(refused.1, "The specified task definition does not exist.");
    assert_eq!(refusal(deregister(&harness, "web")).0, "ClientException");
}

#[test]
fn only_inactive_definitions_are_deleted_and_each_failure_says_why() {
    let harness = Harness::new();
    for _ in 0..2 {
        harness.register(named("web")).unwrap();
    }
    deregister(&harness, "web:1").unwrap();
    let delete = |names: &[&str]| {
        let input = DeleteTaskDefinitionsRequest {
            task_definitions: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        done(
            harness
                .service
                .delete_task_definitions(&harness.ctx(), input),
        )
    };
    let answer = delete(&["web:1", "web:2", "web:9", "web"]).unwrap();
    let deleted = answer.task_definitions.unwrap();
    assert_eq!(deleted.len(), 1);
    assert_eq!(
        deleted[0].status,
        Some(TaskDefinitionStatus::DeleteInProgress)
    );
    assert_eq!(deleted[0].delete_requested_at, Some(harness.env.now()));
    let failures = answer.failures.unwrap();
    let reasons: Vec<&str> = failures
        .iter()
        .map(|f| f.reason.as_deref().unwrap())
        .collect();
    assert_eq!(
        reasons,
        [
            "TASK_DEFINITION_ACTIVE",
            "TASK_DEFINITION_NOT_FOUND",
            "INVALID_ARGUMENT"
        ]
    );
    let many: Vec<&str> = vec!["web:1"; 11];
    assert_eq!(refusal(delete(&many)).0, "InvalidParameterException");
    assert_eq!(refusal(delete(&[])).0, "InvalidParameterException");
    harness.create_cluster("default");
    harness.register_instance(1024, 1024);
    assert_eq!(
        refusal(harness.run(run("web:1"))).1,
        "TaskDefinition is inactive"
    );
}

fn list(harness: &Harness, input: ListTaskDefinitionsRequest) -> Vec<String> {
    let (mut token, mut listed) = (None, Vec::new());
    loop {
        let input = ListTaskDefinitionsRequest {
            next_token: token.clone(),
            max_results: Some(3),
            ..input.clone()
        };
        let page = done(harness.service.list_task_definitions(&harness.ctx(), input)).unwrap();
        let names = page.task_definition_arns.unwrap();
        listed.extend(
            names
                .iter()
                .map(|arn| arn.rsplit('/').next().unwrap().to_owned()),
        );
        match page.next_token {
            Some(next) => token = Some(next),
            None => return listed,
        }
    }
}

#[test]
fn lists_are_in_order_of_family_and_number_both_ways() {
    let harness = Harness::new();
    for family in ["web", "web-2", "a"] {
        for _ in 0..11 {
            harness.register(named(family)).unwrap();
        }
    }
    deregister(&harness, "a:1").unwrap();
    let all = list(&harness, ListTaskDefinitionsRequest::default());
    assert_eq!(all.len(), 32);
    assert_eq!((all[0].as_str(), all[9].as_str()), ("a:2", "a:11"));
    assert_eq!(all[10], "web:1");
    let mut down = list(
        &harness,
        ListTaskDefinitionsRequest {
            sort: Some(SortOrder::Desc),
            ..Default::default()
        },
    );
    down.reverse();
    assert_eq!(down, all);
    let of_web = ListTaskDefinitionsRequest {
        family_prefix: Some("web".to_owned()),
        ..Default::default()
    };
    assert_eq!(list(&harness, of_web).len(), 11);
    let inactive = ListTaskDefinitionsRequest {
        status: Some(TaskDefinitionStatus::Inactive),
        ..Default::default()
    };
    assert_eq!(list(&harness, inactive), ["a:1"]);
}

#[test]
fn a_family_is_active_while_any_revision_is() {
    let harness = Harness::new();
    for family in ["api", "app", "web"] {
        harness.register(named(family)).unwrap();
    }
    deregister(&harness, "app:1").unwrap();
    let families = |prefix: Option<&str>, status| {
        let input = ListTaskDefinitionFamiliesRequest {
            family_prefix: prefix.map(str::to_owned),
            status,
            ..Default::default()
        };
        let answer = done(
            harness
                .service
                .list_task_definition_families(&harness.ctx(), input),
        );
        answer.unwrap().families.unwrap()
    };
    assert_eq!(families(None, None), ["api", "app", "web"]);
    assert_eq!(
        families(Some("ap"), Some(TaskDefinitionFamilyStatus::Active)),
        ["api"]
    );
    assert_eq!(
        families(None, Some(TaskDefinitionFamilyStatus::Inactive)),
        ["app"]
    );
}

#[test]
fn tags_come_where_they_are_asked_for() {
    let harness = Harness::new();
    let input = RegisterTaskDefinitionRequest {
        tags: Some(vec![tag("a", "b")]),
        ..web()
    };
    let answer = done(
        harness
            .service
            .register_task_definition(&harness.ctx(), input),
    )
    .unwrap();
    assert_eq!(answer.tags, Some(vec![tag("a", "b")]));
    for (include, expected) in [
        (None, vec![]),
        (Some(vec![TaskDefinitionField::Tags]), vec![tag("a", "b")]),
    ] {
        let input = DescribeTaskDefinitionRequest {
            task_definition: "web".to_owned(),
            include,
        };
        let answer = done(
            harness
                .service
                .describe_task_definition(&harness.ctx(), input),
        );
        assert_eq!(answer.unwrap().tags, Some(expected));
    }
}
