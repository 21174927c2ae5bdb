//! What a payload becomes, and what is refused under its name.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_agent::core::plan::{DeliveryMode, LogPlan, NetworkMode, RegistryAccess, plan_task};
use gantry_api::acs::{Container, Task};
use serde_json::{Value, json};

/// A task of one container whose members are `container`'s on top of the least there must be.
fn task(container: Value) -> Task {
    let mut whole = json!({
        "name": "web",
        "image": "localhost:4566/app",
        "dockerConfig": {"config": "{}", "hostConfig": "{\"NetworkMode\":\"host\"}"},
    });
    for (member, value) in container.as_object().unwrap() {
        whole[member] = value.clone();
    }
    Task {
        arn: Some("arn:aws:ecs:us-east-1:000000000000:task/default/0123".into()),
        containers: vec![serde_json::from_value::<Container>(whole).unwrap()],
        ..Task::default()
    }
}

fn host_config(host: Value) -> Value {
    let mut whole = json!({"NetworkMode": "host"});
    for (member, value) in host.as_object().unwrap() {
        whole[member] = value.clone();
    }
    json!({"dockerConfig": {"config": "{}", "hostConfig": whole.to_string()}})
}

#[test]
fn the_least_container_gets_ecs_defaults() {
    let plan = plan_task(&task(json!({}))).unwrap();
    assert_eq!(plan.network_mode, NetworkMode::Host);
    let web = &plan.containers[0];
    assert!(web.essential);
    assert_eq!(web.stop_timeout, Duration::from_secs(30));
    assert_eq!(web.cpu_shares, 2);
    assert_eq!(
        (web.memory_limit_bytes, web.memory_reservation_bytes),
        (None, None)
    );
    assert_eq!(web.registry, RegistryAccess::Anonymous);
    assert_eq!(web.log, LogPlan::None);
}

#[test]
fn units_are_those_of_ecs() {
    let mut task = task(json!({"cpu": 256, "memory": 64, "stopTimeout": 5}));
    (task.cpu, task.memory) = (Some(0.5), Some(128));
    let plan = plan_task(&task).unwrap();
    assert_eq!(
        (plan.cpu_limit, plan.memory_limit_bytes),
        (Some(512), Some(128 << 20))
    );
    let web = &plan.containers[0];
    assert_eq!(
        (web.cpu_shares, web.memory_limit_bytes),
        (256, Some(64 << 20))
    );
    assert_eq!(web.stop_timeout, Duration::from_secs(5));
}

#[test]
fn awslogs_is_read_and_its_mode_has_ecs_default() {
    let log = |options: Value| {
        let host = host_config(json!({"LogConfig": {"Type": "awslogs", "Config": options}}));
        plan_task(&task(host)).map(|plan| match plan.containers[0].log.clone() {
            LogPlan::AwsLogs(log) => log,
            LogPlan::None => panic!("no log"),
        })
    };
    let plain = log(json!({"awslogs-group": "g", "awslogs-stream-prefix": "p"})).unwrap();
    assert_eq!(
        (plain.group.as_str(), plain.stream.as_str()),
        ("g", "p/web/0123")
    );
    assert_eq!(
        plain.mode,
        DeliveryMode::NonBlocking {
            max_buffer_bytes: 10 << 20
        }
    );
    let blocking = log(json!({"awslogs-group": "g", "mode": "blocking"})).unwrap();
    assert_eq!(blocking.mode, DeliveryMode::Blocking);
    let small = log(json!({"awslogs-group": "g", "max-buffer-size": "512k"})).unwrap();
    assert_eq!(
        small.mode,
        DeliveryMode::NonBlocking {
            max_buffer_bytes: 512 << 10
        }
    );
    for (options, named) in [
        (json!({}), "awslogs-group"),
        (
            json!({"awslogs-group": "g", "awslogs-datetime-format": "%Y"}),
            "awslogs-datetime-format",
        ),
        (
            json!({"awslogs-group": "g", "awslogs-multiline-pattern": "x"}),
            "awslogs-multiline-pattern",
        ),
        (
            json!({"awslogs-group": "g", "mode": "sometimes"}),
            "sometimes",
        ),
        (
            json!({"awslogs-group": "g", "max-buffer-size": "lots"}),
            "max-buffer-size",
        ),
    ] {
        let reason = log(options).unwrap_err();
        assert!(reason.contains(named), "{reason}");
    }
}

#[test]
fn every_member_that_is_not_honoured_is_refused_by_name() {
    let on_container = [
        ("healthCheckType", json!("docker")),
        ("secrets", json!([{"name": "s"}])),
        ("links", json!(["db"])),
        ("volumesFrom", json!([{"sourceContainer": "db"}])),
        ("firelensConfiguration", json!({"type": "fluentbit"})),
        ("restartPolicy", json!({"enabled": true})),
        ("environmentFiles", json!([{"type": "s3", "value": "x"}])),
        (
            "mountPoints",
            json!([{"containerPath": "/x", "sourceVolume": "v"}]),
        ),
        ("somethingNew", json!(1)),
    ];
    for (member, value) in on_container {
        let reason = plan_task(&task(json!({ member: value }))).unwrap_err();
        assert!(
            reason.contains(member) && reason.contains("web"),
            "{member}: {reason}"
        );
    }
    let on_host = [
        ("Privileged", json!(true)),
        ("CapAdd", json!(["NET_ADMIN"])),
        ("Ulimits", json!([{"Name": "nofile"}])),
        ("Binds", json!(["/a:/b"])),
    ];
    for (member, value) in on_host {
        let reason = plan_task(&task(host_config(json!({ member: value })))).unwrap_err();
        assert!(reason.contains(member), "{member}: {reason}");
    }
    for (member, value) in [
        ("volumes", json!([{"name": "v"}])),
        ("pidMode", json!("host")),
    ] {
        let mut whole = task(json!({}));
        whole.unknown = BTreeMap::from([(member.to_owned(), value)]);
        assert!(plan_task(&whole).unwrap_err().contains(member));
    }
    let healthy = json!({"dependsOn": [{"containerName": "web", "condition": "HEALTHY"}]});
    assert!(plan_task(&task(healthy)).unwrap_err().contains("HEALTHY"));
    let asm = json!({"registryAuthentication": {"type": "asm", "asmAuthData": {"region": "x"}}});
    assert!(
        plan_task(&task(asm))
            .unwrap_err()
            .contains("repositoryCredentials")
    );
    for mode in ["bridge", "awsvpc"] {
        let reason = plan_task(&task(host_config(json!({"NetworkMode": mode})))).unwrap_err();
        assert!(reason.contains(mode), "{reason}");
    }
}

#[test]
fn what_asks_for_nothing_is_not_refused() {
    let quiet = json!({"links": [], "secrets": null, "privileged": false, "volumesFrom": []});
    plan_task(&task(quiet)).unwrap();
    plan_task(&task(host_config(
        json!({"Privileged": false, "CapAdd": null, "Binds": []}),
    )))
    .unwrap();
}
