//! The table's refusals are what the code says: each row's sample is refused with the row's reason.

use gantry_api::ecs::{ContainerDefinition, NetworkConfiguration, RunTaskRequest, TaskDefinition};
use gantry_api::ecs::{LaunchType, TaskDefinitionStatus, TaskOverride};
use gantry_arn::{AccountId, Region};
use serde_json::{Value, json};

use super::table::REFUSED;
use super::{Refused, refusal};
use crate::acs::image::RegistryNames;
use crate::acs::payload::build;
use crate::model::{overrides, run_request};
use crate::tables::TaskRow;

/// Lays `sample` over `base`: objects member by member, a list's first item over the list's first item.
fn overlay(base: &mut Value, sample: &Value) {
    match (base, sample) {
        (Value::Object(base), Value::Object(sample)) => {
            for (member, value) in sample {
                overlay(base.entry(member).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(sample)) if !base.is_empty() => {
            overlay(&mut base[0], &sample[0]);
        }
        (base, sample) => *base = sample.clone(),
    }
}

fn definition(sample: &Value) -> TaskDefinition {
    let mut definition = json!({
        "networkMode": "none",
        "status": "ACTIVE",
        "containerDefinitions": [{"name": "app", "image": "app", "memory": 64, "essential": true}],
    });
    overlay(&mut definition, sample);
    serde_json::from_value(definition).expect("a task definition")
}

fn task(overrides: &TaskOverride) -> TaskRow {
    serde_json::from_value(json!({
        "id": "0123456789abcdef0123456789abcdef",
        "cluster": "default",
        "family": "f",
        "revision": 1,
        "container_instance": "0123456789abcdef0123456789abcdef",
        "launch_type": "EC2",
        "group": "family:f",
        "created_at": 0,
        "overrides": overrides,
        "containers": [],
        "reserved": crate::tables::Reserved::default(),
        "cpu": "0",
        "memory": "64",
    }))
    .expect("a task")
}

fn names() -> RegistryNames {
    RegistryNames {
        account: AccountId::default(),
        region: Region::default(),
        joined: None,
    }
}

/// What a user reads when he registers and runs the sample.
fn refused(row: &Refused) -> String {
    let sample: Value = serde_json::from_str(row.sample).expect("a sample is JSON");
    let (definition, overrides) = match row.member.strip_prefix("overrides.") {
        Some(_) => (
            definition(&json!({})),
            serde_json::from_value(sample).expect("overrides"),
        ),
        None => (definition(&sample), TaskOverride::default()),
    };
    if row.at_run_task {
        assert_eq!(definition.status, Some(TaskDefinitionStatus::Active));
        let awsvpc = definition.network_mode.as_ref().map(|mode| mode.as_str()) == Some("awsvpc");
        let request = RunTaskRequest {
            network_configuration: awsvpc.then(NetworkConfiguration::default),
            ..RunTaskRequest::default()
        };
        let refusal = run_request::validate_with(&request, &definition)
            .and_then(|()| overrides::validate(&overrides, &definition));
        return refusal.expect_err(row.member).to_string();
    }
    build(&names(), &definition, &task(&overrides)).expect_err(row.member)
}

#[test]
fn every_sample_is_refused_for_its_reason() {
    assert!(REFUSED.len() > 20);
    for row in REFUSED {
        let seen = refused(row);
        let values = ["", "WINDOWS_SERVER_2022_CORE", "rexray/ebs", "splunk"];
        let expected = |value: &&str| {
            let container = if row.member.starts_with("volumes") {
                "v"
            } else {
                "app"
            };
            seen.contains(&refusal(row.member, container, value))
        };
        assert!(values.iter().any(expected), "{}: {seen}", row.member);
    }
}

#[test]
fn a_member_that_asks_for_nothing_is_no_reason() {
    let nothing = definition(&json!({
        "pidMode": null, "inferenceAccelerators": [], "enableFaultInjection": false,
        "containerDefinitions": [{"secrets": [], "privileged": false, "restartPolicy": {"enabled": false},
            "disableNetworking": false, "dependsOn": []}],
    }));
    let built = build(&names(), &nothing, &task(&TaskOverride::default())).expect("a payload");
    let container: &ContainerDefinition = &nothing.container_definitions.as_ref().unwrap()[0];
    assert_eq!(built.task.containers[0].name, container.name);
    assert_eq!(built.task.containers[0].restart_policy, None);
}

#[test]
fn a_container_is_told_where_it_runs() {
    for (launch_type, word) in [
        (LaunchType::Ec2, "AWS_ECS_EC2"),
        (LaunchType::External, "EXTERNAL"),
    ] {
        let mut row = task(&TaskOverride::default());
        row.launch_type = launch_type;
        let built = build(&names(), &definition(&json!({})), &row).expect("a payload");
        let environment = &built.task.containers[0].environment;
        assert_eq!(environment["AWS_EXECUTION_ENV"], word);
    }
}
