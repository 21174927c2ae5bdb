//! Every rule of RegisterTaskDefinition, broken one at a time: the message, and that nothing is kept.

use gantry_api::ecs::{Ecs as _, ListTaskDefinitionFamiliesRequest, RegisterTaskDefinitionRequest};
use serde_json::{Value, json};

use crate::harness::{Harness, done, refusal};

/// A good definition, in which each case breaks one thing.
fn good() -> Value {
    json!({
        "family": "f",
        "containerDefinitions": [
            {"name": "a", "image": "busybox", "memory": 64},
            {"name": "b", "image": "busybox", "memory": 64, "essential": false}
        ]
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut definition = good();
    *pointer(&mut definition, path) = value;
    definition
}

/// Like a JSON pointer, but it makes what is not there yet.
fn pointer<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.')
        .fold(value, |value, part| match part.parse::<usize>() {
            Ok(index) => &mut value[index],
            Err(_) => &mut value[part],
        })
}

const C: &str = "containerDefinitions.0";

fn c(member: &str, value: Value) -> Value {
    with(&format!("{C}.{member}"), value)
}

fn also(mut definition: Value, path: &str, value: Value) -> Value {
    *pointer(&mut definition, path) = value;
    definition
}

#[test]
fn each_broken_rule_is_refused_in_its_own_words() {
    let port = |container: i32, host: i32| json!([{"containerPort": container, "hostPort": host}]);
    let client: Vec<(Value, &str)> = vec![
        (
            with("family", json!("")),
            "Family should not be null or empty.",
        ),
        (
            with("family", json!("a b")),
            "Family contains invalid characters.",
        ),
        (
            with("containerDefinitions", json!([])),
            "Container list cannot be empty.",
        ),
        (
            with(
                "containerDefinitions",
                json!(vec![json!({"name": "x"}); 11]),
            ),
            "Too many containers.",
        ),
        (
            c("name", json!("")),
            "Container.name should not be null or empty.",
        ),
        (
            c("name", json!("a b")),
            "Container.name contains invalid characters.",
        ),
        (
            c("name", json!("b")),
            "Container names must be unique within a Task Definition.",
        ),
        (
            c("image", Value::Null),
            "Container.image should not be null or empty.",
        ),
        (
            c("image", json!("bad image")),
            "Container.image contains invalid characters.",
        ),
        (
            c("cpu", json!(-1)),
            "Invalid 'cpu' setting for container 'a'.",
        ),
        (
            c("memory", json!(5)),
            "Invalid 'memory' setting for container 'a'. The minimum is 6 MiB.",
        ),
        (
            c("memory", Value::Null),
            "Invalid setting for container 'a'. At least one of 'memory' or 'memoryReservation' must be specified.",
        ),
        (
            c("memoryReservation", json!(65)),
            "Invalid setting for container 'a'. 'memory' must be greater than or equal to 'memoryReservation'.",
        ),
        (
            c("essential", json!(false)),
            "Task definition doesn't have any essential container.",
        ),
        (
            c(
                "dependsOn",
                json!([{"containerName": "z", "condition": "START"}]),
            ),
            "Container 'a' depends on container 'z', which is not in the task definition.",
        ),
        (
            c(
                "dependsOn",
                json!([{"containerName": "a", "condition": "START"}]),
            ),
            "Container 'a' cannot depend on itself.",
        ),
        (
            also(
                c(
                    "dependsOn",
                    json!([{"containerName": "b", "condition": "START"}]),
                ),
                "containerDefinitions.1.dependsOn",
                json!([{"containerName": "a", "condition": "START"}]),
            ),
            "Container dependencies should not have a cycle",
        ),
        (
            with(
                "containerDefinitions.1.dependsOn",
                json!([{"containerName": "a", "condition": "SUCCESS"}]),
            ),
            "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
        ),
        (
            c(
                "dependsOn",
                json!([{"containerName": "b", "condition": "HEALTHY"}]),
            ),
            "A dependency container with HEALTHY condition must have a health check defined.",
        ),
        (
            also(
                c("links", json!(["b"])),
                "containerDefinitions.1.links",
                json!(["a"]),
            ),
            "Container links should not have a cycle",
        ),
        (
            also(c("links", json!(["b"])), "networkMode", json!("host")),
            "Links are not supported when networkMode=host.",
        ),
        (
            also(
                c("portMappings", port(80, 81)),
                "networkMode",
                json!("host"),
            ),
            "When networkMode=host, the host ports and container ports in port mappings must match.",
        ),
        (
            also(
                c("portMappings", port(80, 81)),
                "networkMode",
                json!("awsvpc"),
            ),
            "When networkMode=awsvpc, the host ports and container ports in port mappings must match.",
        ),
        (
            also(
                c("portMappings", port(80, 80)),
                "networkMode",
                json!("none"),
            ),
            "Port mappings are not supported when networkMode=none.",
        ),
        (
            c("portMappings", port(0, 0)),
            "Invalid container port '0' in port mapping. Valid ports are between 1 and 65535.",
        ),
        (
            c("portMappings", port(80, 70000)),
            "Invalid host port '70000' in port mapping. Valid ports are between 0 and 65535.",
        ),
        (
            also(
                c("portMappings", port(80, 3000)),
                "containerDefinitions.1.portMappings",
                port(81, 3000),
            ),
            "TCP host port '3000' is mapped multiple times in task.",
        ),
        (
            c("portMappings", json!([{"containerPortRange": "20-10"}])),
            "Invalid containerPortRange '20-10' in port mapping. It must be FIRST-LAST, with ports between 1 and 65535, and the first less than the last.",
        ),
        (
            c("portMappings", json!([{"containerPortRange": "20-20"}])),
            "Invalid containerPortRange '20-20' in port mapping. It must be FIRST-LAST, with ports between 1 and 65535, and the first less than the last.",
        ),
        (
            c("portMappings", json!([{"containerPortRange": "0-9"}])),
            "Invalid containerPortRange '0-9' in port mapping. It must be FIRST-LAST, with ports between 1 and 65535, and the first less than the last.",
        ),
        (
            c("portMappings", json!([{"containerPortRange": "9-65536"}])),
            "Invalid containerPortRange '9-65536' in port mapping. It must be FIRST-LAST, with ports between 1 and 65535, and the first less than the last.",
        ),
        (
            c("portMappings", json!([{"containerPortRange": "20-30"}, {"containerPort": 30}])),
            "The containerPortRange '20-30' overlaps another port mapping of the container. A port can only be included in one port mapping per container.",
        ),
        (
            c("portMappings", json!([{"containerPortRange": "20-30"}, {"containerPortRange": "10-20"}])),
            "The containerPortRange '20-30' overlaps another port mapping of the container. A port can only be included in one port mapping per container.",
        ),
        (
            c("portMappings", json!([{"containerPortRange": "20-30", "hostPort": 20}])),
            "containerPortRange cannot be specified together with containerPort or hostPort in port mappings.",
        ),
        (
            also(
                c("portMappings", json!([{"containerPortRange": "20-30"}])),
                "networkMode",
                json!("host"),
            ),
            "containerPortRange is not supported when networkMode=host.",
        ),
        (
            c(
                "portMappings",
                (0..101)
                    .map(|n| json!({"containerPortRange": format!("{}-{}", 10 + n * 10, 15 + n * 10)}))
                    .collect(),
            ),
            "Too many port mappings.",
        ),
        (
            c(
                "mountPoints",
                json!([{"sourceVolume": "v", "containerPath": "/v"}]),
            ),
            "Unknown volume 'v'.",
        ),
        (
            c("mountPoints", json!([{"containerPath": "/v"}])),
            "Unknown volume 'null'.",
        ),
        (
            c("volumesFrom", json!([{"sourceContainer": "z"}])),
            "Invalid 'volumesFrom' setting for container 'a': unknown container 'z'.",
        ),
        (
            with("volumes", json!([{"name": "v"}, {"name": "v"}])),
            "Volume names must be unique within a Task Definition.",
        ),
        (
            with("volumes", json!([{}])),
            "Volume.name should not be null or empty.",
        ),
        (
            with(
                "volumes",
                json!([{"name": "v", "host": {"sourcePath": " "}}]),
            ),
            "host.sourcePath should not be blank.",
        ),
        (
            with(
                "volumes",
                json!([{"name": "v", "host": {}, "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]),
            ),
            "Volume 'v' has more than one volume configuration. Only one may be specified.",
        ),
        (
            with(
                "volumes",
                json!([{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "x"}}]),
            ),
            "Invalid file system id 'x': it must begin with 'fs-'.",
        ),
        (
            with(
                "volumes",
                json!([{"name": "v", "efsVolumeConfiguration":
                {"fileSystemId": "fs-1", "authorizationConfig": {"iam": "ENABLED"}}}]),
            ),
            "EFS transit encryption must be enabled when an access point or IAM authorization is used.",
        ),
        (
            c("secrets", json!([{"name": "S", "valueFrom": "x"}])),
            "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.",
        ),
        (
            also(
                also(
                    c("secrets", json!([{"name": "A", "valueFrom": "x"}])),
                    "executionRoleArn",
                    json!("r"),
                ),
                &format!("{C}.environment"),
                json!([{"name": "A", "value": "1"}]),
            ),
            "The secret name must be unique and not shared with any new or existing environment variables set on the container, such as 'A'.",
        ),
        (
            c("environment", json!([{"value": "1"}])),
            "Invalid 'environment' setting for container 'a': the name should not be null or empty.",
        ),
        (
            c("logConfiguration", json!({"logDriver": "awslogs"})),
            "Log driver awslogs requires options: awslogs-region, awslogs-group",
        ),
        (
            c(
                "healthCheck",
                json!({"command": ["CMD", "true"], "interval": 4}),
            ),
            "Invalid 'healthCheck' setting for container 'a': interval must be between 5 and 300.",
        ),
        (
            c(
                "healthCheck",
                json!({"command": ["CMD", "true"], "timeout": 61}),
            ),
            "Invalid 'healthCheck' setting for container 'a': timeout must be between 2 and 60.",
        ),
        (
            c(
                "healthCheck",
                json!({"command": ["CMD", "true"], "retries": 11}),
            ),
            "Invalid 'healthCheck' setting for container 'a': retries must be between 1 and 10.",
        ),
        (
            c(
                "healthCheck",
                json!({"command": ["CMD", "true"], "startPeriod": 301}),
            ),
            "Invalid 'healthCheck' setting for container 'a': startPeriod must be between 0 and 300.",
        ),
        (
            c("healthCheck", json!({"command": ["true"]})),
            "Invalid 'healthCheck' setting for container 'a': the command must begin with CMD or CMD-SHELL and name a command.",
        ),
        (
            c(
                "ulimits",
                json!([{"name": "nofile", "softLimit": 2, "hardLimit": 1}]),
            ),
            "Invalid 'ulimits' setting for container 'a': the soft limit of 'nofile' must not be greater than its hard limit.",
        ),
        (
            c(
                "restartPolicy",
                json!({"enabled": true, "restartAttemptPeriod": 59}),
            ),
            "Invalid 'restartPolicy' setting for container 'a': restartAttemptPeriod must be between 60 and 1800 seconds.",
        ),
        (
            c(
                "restartPolicy",
                json!({"enabled": true, "ignoredExitCodes": vec![0; 51]}),
            ),
            "Invalid 'restartPolicy' setting for container 'a': at most 50 ignoredExitCodes may be specified.",
        ),
        (
            c("stopTimeout", json!(-1)),
            "Invalid 'stopTimeout' setting for container 'a'.",
        ),
        (
            c("linuxParameters", json!({"swappiness": 101})),
            "Invalid 'linuxParameters' setting for container 'a': swappiness must be between 0 and 100.",
        ),
        (
            with("cpu", json!("1")),
            "Invalid 'cpu' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
        ),
        (
            with("memory", json!("lots")),
            "Invalid 'memory' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
        ),
        (
            also(c("cpu", json!(512)), "cpu", json!("256")),
            "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.",
        ),
        (
            with("memory", json!("100")),
            "The sum of all container 'memory' values cannot be greater than the value of the task 'memory'.",
        ),
        (
            with("taskRoleArn", json!("arn:aws:iam::1:nothing")),
            "Role is not valid",
        ),
        (
            with(
                "placementConstraints",
                json!(vec![json!({"type": "memberOf", "expression": "x"}); 11]),
            ),
            "Too many placement constraints. The maximum is 10.",
        ),
        (
            with("ephemeralStorage", json!({"sizeInGiB": 20})),
            "Ephemeral storage size must be between 21 and 200 GiB.",
        ),
        (c("firelensConfiguration", json!({"type": "fluentbit"})), ""),
        (
            c("logConfiguration", json!({"logDriver": "awsfirelens"})),
            "When a container uses log driver awsfirelens, the task definition must have a container with a firelensConfiguration.",
        ),
        (
            with("requiresCompatibilities", json!(["FARGATE"])),
            "Fargate only supports network mode ‘awsvpc’.",
        ),
        (
            also(
                with("requiresCompatibilities", json!(["FARGATE"])),
                "networkMode",
                json!("awsvpc"),
            ),
            "Fargate requires that 'cpu' be defined at the task level.",
        ),
    ];
    let harness = Harness::new();
    for (definition, message) in client {
        let input: RegisterTaskDefinitionRequest =
            serde_json::from_value(definition.clone()).unwrap();
        if message.is_empty() {
            harness.register(input).unwrap();
            continue;
        }
        let refused = refusal(harness.register(input));
        assert_eq!(
            refused,
            ("ClientException".to_owned(), message.to_owned()),
            "{definition}"
        );
    }
    let families = ListTaskDefinitionFamiliesRequest::default();
    let answer = done(
        harness
            .service
            .list_task_definition_families(&harness.ctx(), families),
    );
    // Only the one case that breaks nothing has left a family.
    assert_eq!(answer.unwrap().families.unwrap(), ["f"]);
}

#[test]
fn fargate_has_its_own_sizes_and_limits() {
    let harness = Harness::new();
    let fargate = |cpu: &str, memory: &str| {
        let mut definition = good();
        definition["requiresCompatibilities"] = json!(["FARGATE"]);
        definition["networkMode"] = json!("awsvpc");
        definition["cpu"] = json!(cpu);
        definition["memory"] = json!(memory);
        definition
    };
    let cases = [
        (
            fargate("256", "4096"),
            "No Fargate configuration exists for given values: 256 CPU, 4096 memory. See the Amazon ECS documentation for the valid values.",
        ),
        (
            also(
                fargate("256", "512"),
                &format!("{C}.privileged"),
                json!(true),
            ),
            "Fargate does not support privileged containers.",
        ),
        (
            also(
                fargate("256", "512"),
                &format!("{C}.stopTimeout"),
                json!(121),
            ),
            "Invalid 'stopTimeout' setting for container 'a': it must be between 2 and 120 seconds on Fargate.",
        ),
        (
            also(
                fargate("256", "512"),
                &format!("{C}.image"),
                json!("000000000000.dkr.ecr.us-east-1.amazonaws.com/x"),
            ),
            "Fargate requires task definition to have execution role ARN to support ECR images.",
        ),
    ];
    for (definition, message) in cases {
        let input = serde_json::from_value(definition).unwrap();
        assert_eq!(refusal(harness.register(input)).1, message);
    }
    let good = serde_json::from_value(fargate("256", "512")).unwrap();
    harness.register(good).unwrap();
}

#[test]
fn unknown_words_and_bad_tags_are_invalid_parameters() {
    let harness = Harness::new();
    let refuse = |definition: Value| {
        let input = serde_json::from_value(definition).unwrap();
        let (code, message) = refusal(done(
            harness
                .service
                .register_task_definition(&harness.ctx(), input),
        ));
        assert_eq!(code, "InvalidParameterException");
        message
    };
    assert_eq!(
        refuse(with("networkMode", json!("bridged"))),
        "1 validation error detected: Value 'bridged' at 'networkMode' failed to satisfy constraint: Member must satisfy enum value set: [bridge, host, awsvpc, none]"
    );
    // A list is told as a whole.
    let listed = refuse(with("requiresCompatibilities", json!(["EC2", "MOON"])));
    assert!(
        listed.starts_with(
            "1 validation error detected: Value '[EC2, MOON]' at 'requiresCompatibilities'"
        ),
        "{listed}"
    );
    assert!(refuse(c("logConfiguration", json!({"logDriver": "paper"}))).contains("logDriver"));
    let tags = |n: usize| -> Value {
        (0..n)
            .map(|i| json!({"key": format!("k{i}"), "value": "v"}))
            .collect()
    };
    assert_eq!(
        refuse(with("tags", tags(51))),
        "The number of tags exceeds the limit of 50."
    );
    assert!(refuse(with("tags", json!([{"key": "aws:x", "value": ""}]))).contains("reserved"));
    assert!(
        refuse(with("tags", json!([{"key": "", "value": ""}])))
            .contains("greater than or equal to 1")
    );
    assert!(refuse(with("tags", json!([{"key": "a"}, {"key": "a"}]))).contains("Duplicate"));
    let good = serde_json::from_value(with("tags", tags(50))).unwrap();
    harness.register(good).unwrap();
}

#[test]
fn a_definition_has_at_most_64_kib() {
    let harness = Harness::new();
    let definition = c(
        "environment",
        json!([{"name": "A", "value": "x".repeat(70_000)}]),
    );
    let input = serde_json::from_value(definition).unwrap();
    let (code, message) = refusal(harness.register(input));
    assert_eq!(code, "ClientException");
    assert!(
        message.ends_with("Max allowed length is '65536' bytes."),
        "{message}"
    );
}
