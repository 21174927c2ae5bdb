//! What a payload becomes, and what is refused under its name.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_agent::core::plan::{
    Address, DeliveryMode, LogDriverPlan, LogPlan, NetworkMode, RegistryAccess, ShippedLog,
    StartCondition, plan_task,
};
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
            LogPlan::Shipped(log) => log,
            LogPlan::None => panic!("no log"),
        })
    };
    let plain = log(json!({"awslogs-group": "g", "awslogs-stream-prefix": "p"})).unwrap();
    let awslogs = |log: &ShippedLog| match &log.driver {
        LogDriverPlan::AwsLogs(plan) => plan.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (
            awslogs(&plain).group.as_str(),
            awslogs(&plain).stream.as_str()
        ),
        ("g", "p/web/0123")
    );
    let tagged = log(json!({"awslogs-group": "g", "tag": "{{.Name}}-{{ .ID }}"})).unwrap();
    assert_eq!(awslogs(&tagged).stream, "web-0123-web");
    let dated = log(json!({"awslogs-group": "g", "awslogs-datetime-format": "%Y"})).unwrap();
    assert_eq!(awslogs(&dated).begins_event.as_deref(), Some(r"\d{4}"));
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
            json!({"awslogs-group": "g", "awslogs-datetime-format": "%Q"}),
            "awslogs-datetime-format",
        ),
        (
            json!({"awslogs-group": "g", "awslogs-multiline-pattern": "("}),
            "awslogs-multiline-pattern",
        ),
        (
            json!({"awslogs-group": "g", "awslogs-multiline-pattern": "x", "awslogs-datetime-format": "%Y"}),
            "cannot be given together",
        ),
        (
            json!({"awslogs-group": "g", "awslogs-format": "json/emf"}),
            "awslogs-format",
        ),
        (
            json!({"awslogs-group": "g", "tag": "{{.What}}"}),
            "{{.What}}",
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
        ("secrets", json!([{"name": "s"}])),
        ("firelensConfiguration", json!({"type": "fluentbit"})),
        ("environmentFiles", json!([{"type": "s3", "value": "x"}])),
        ("somethingNew", json!(1)),
        ("healthCheckType", json!("http")),
        ("containerPortRange", json!("1-2")),
    ];
    for (member, value) in on_container {
        let container = match member {
            "containerPortRange" => json!({"portMappings": [{ member: value }]}),
            _ => json!({ member: value }),
        };
        let reason = plan_task(&task(container)).unwrap_err();
        assert!(
            reason.contains(member) && reason.contains("web"),
            "{member}: {reason}"
        );
    }
    for (member, value, named) in [
        ("Binds", json!(["/a:/b"]), "Binds"),
        (
            "SecurityOpt",
            json!(["seccomp=unconfined"]),
            "seccomp=unconfined",
        ),
        ("ExtraHosts", json!(["one\ntwo:1.2.3.4"]), "extraHosts"),
        ("ExtraHosts", json!(["one:two"]), "extraHosts"),
        ("Dns", json!(["one.two"]), "dnsServers"),
        ("Tmpfs", json!({"/t": "size=lots"}), "/t"),
        ("Devices", json!([{"PathOnHost": "relative"}]), "relative"),
    ] {
        let reason = plan_task(&task(host_config(json!({ member: value })))).unwrap_err();
        assert!(reason.contains(named), "{member}: {reason}");
        // What kind of error it is comes first, and one line is one line.
        assert!(
            reason.starts_with("ResourceInitializationError: "),
            "{reason}"
        );
        assert!(!reason.contains('\n'), "{reason}");
    }
    let mut whole = task(json!({}));
    whole.unknown = BTreeMap::from([("elasticNetworkInterfaces".to_owned(), json!([1]))]);
    let reason = plan_task(&whole).unwrap_err();
    assert!(reason.contains("elasticNetworkInterfaces"));
    for (mode, member) in [(Some("pod"), "pidMode"), (Some("pod"), "ipcMode")] {
        let mut whole = task(json!({}));
        match member {
            "pidMode" => whole.pid_mode = mode.map(str::to_owned),
            _ => whole.ipc_mode = mode.map(str::to_owned),
        }
        assert!(plan_task(&whole).unwrap_err().contains(member));
    }
    let asm = json!({"registryAuthentication": {"type": "asm", "asmAuthData": {"region": "x"}}});
    assert!(
        plan_task(&task(asm))
            .unwrap_err()
            .contains("repositoryCredentials")
    );
    let reason = plan_task(&task(host_config(json!({"NetworkMode": "awsvpc"})))).unwrap_err();
    assert!(reason.contains("awsvpc"), "{reason}");
    let kinds = [
        (
            json!({"name": "v", "type": "efs", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}),
            "efsVolumeConfiguration",
        ),
        (json!({"name": "v", "type": "ebs"}), "ebs"),
        (
            json!({"name": "v", "host": {"sourcePath": "relative"}}),
            "relative",
        ),
        (
            json!({"name": "v", "type": "docker", "dockerVolumeConfiguration": {"driver": "rexray"}}),
            "rexray",
        ),
        (
            json!({"name": "v", "type": "docker", "dockerVolumeConfiguration": {"driverOpts": {"type": "nfs", "o": "addr=x"}}}),
            "nfs",
        ),
        (
            json!({"name": "v", "type": "docker", "dockerVolumeConfiguration": {"driverOpts": {"speed": "high"}}}),
            "speed",
        ),
    ];
    for (volume, named) in kinds {
        let mut whole = task(json!({}));
        whole.volumes = vec![serde_json::from_value(volume).unwrap()];
        let reason = plan_task(&whole).unwrap_err();
        assert!(
            reason.contains(named) && reason.contains("'v'") || reason.contains("ebs"),
            "{reason}"
        );
    }
    let unknown = json!({"mountPoints": [{"containerPath": "/x", "sourceVolume": "missing"}]});
    assert!(plan_task(&task(unknown)).unwrap_err().contains("missing"));
}

/// Containers by name, with what is on top of the least there must be.
fn containers(list: Value) -> Result<gantry_agent::core::plan::TaskPlan, String> {
    let mut whole = task(json!({}));
    whole.containers = list
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, more)| {
            let mut of = task(more.clone()).containers.remove(0);
            of.name = Some(name.clone());
            of
        })
        .collect();
    plan_task(&whole)
}

#[test]
fn links_and_shared_volumes_wait_for_a_start_and_circles_are_refused() {
    let waits = |on: &str, condition: &str| json!({"dependsOn": [{"containerName": on, "condition": condition}]});
    let plan = containers(json!({
        "a": {"links": ["b:db"], "volumesFrom": [{"sourceContainer": "c"}]}, "b": {}, "c": {},
    }))
    .unwrap();
    let on = &plan.containers[0].depends_on;
    let start = |name: &str| (name.to_owned(), StartCondition::Start);
    assert_eq!(on, &[start("b"), start("c")]);
    for list in [
        json!({"a": {"links": ["b"]}, "b": {"links": ["a"]}}),
        json!({"a": {"links": ["b"]}, "b": waits("c", "SUCCESS"), "c": {"volumesFrom": [{"sourceContainer": "a"}]}}),
    ] {
        let reason = containers(list).unwrap_err();
        assert!(
            reason.starts_with("TaskDependencyError") && reason.contains("cycle"),
            "{reason}"
        );
    }
    let reason = containers(json!({"a": waits("b", "HEALTHY"), "b": {}})).unwrap_err();
    assert!(reason.contains("HEALTHY"), "{reason}");
    let reason = containers(json!({"a": waits("gone", "START")})).unwrap_err();
    assert!(reason.contains("gone"), "{reason}");
}

#[test]
fn what_docker_writes_becomes_numbers_and_names() {
    let config = json!({"Tty": true, "OpenStdin": true, "Hostname": "h",
        "Healthcheck": {"Test": ["CMD-SHELL", "test -f /ok"], "Interval": 7_000_000_000_i64, "Retries": 2}});
    let host = json!({"NetworkMode": "host", "Init": true, "ShmSize": 1024, "MemorySwap": -1, "MemorySwappiness": 0,
        "Tmpfs": {"/t": "size=8m,noexec"}, "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": -1}],
        "SecurityOpt": ["no-new-privileges", "apparmor:mine", "label=type:t"], "ExtraHosts": ["v6:::1"],
        "Devices": [{"PathOnHost": "/dev/fuse"}]});
    let container = json!({"healthCheckType": "docker", "restartPolicy": {"enabled": true, "ignoredExitCodes": [3, 3]},
        "dockerConfig": {"config": config.to_string(), "hostConfig": host.to_string()}});
    let plan = plan_task(&task(container)).unwrap().containers.remove(0);
    let check = plan.health_check.unwrap();
    assert_eq!(check.command, ["/bin/sh", "-c", "test -f /ok"]);
    let seconds = Duration::from_secs;
    assert_eq!(
        (
            check.interval,
            check.timeout,
            check.retries,
            check.start_period
        ),
        (seconds(7), seconds(5), 2, seconds(0))
    );
    let restart = plan.restart_policy.unwrap();
    assert_eq!(
        (restart.ignored_exit_codes.len(), restart.attempt_period),
        (1, seconds(300))
    );
    let linux = plan.linux;
    assert!(linux.terminal && linux.stdin_open && linux.init_process);
    assert_eq!(
        (
            linux.shm_size_bytes,
            linux.memory_swap_bytes,
            linux.memory_swappiness
        ),
        (Some(1024), Some(-1), Some(0))
    );
    assert_eq!(
        (linux.tmpfs[0].size_bytes, linux.tmpfs[0].options.as_slice()),
        (8 << 20, ["noexec".to_owned()].as_slice())
    );
    assert_eq!(
        (linux.ulimits[0].soft, linux.ulimits[0].hard),
        (10, u64::MAX)
    );
    assert!(linux.security.no_new_privileges);
    assert_eq!(linux.security.apparmor_profile.as_deref(), Some("mine"));
    assert_eq!(linux.security.selinux_label.as_deref(), Some("type:t"));
    assert_eq!(
        plan.names.extra_hosts,
        [("v6".to_owned(), "::1".to_owned())]
    );
    assert_eq!(
        (
            linux.devices[0].container_path.as_str(),
            linux.devices[0].permissions.as_str()
        ),
        ("/dev/fuse", "rwm")
    );
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

#[test]
fn every_log_driver_is_read_and_what_it_cannot_do_is_named() {
    let log = |driver: &str, options: Value| {
        let host = host_config(json!({"LogConfig": {"Type": driver, "Config": options}}));
        plan_task(&task(host)).map(|plan| match plan.containers[0].log.clone() {
            LogPlan::Shipped(log) => log.driver,
            LogPlan::None => panic!("no log"),
        })
    };
    let LogDriverPlan::JsonFile(file) =
        log("json-file", json!({"max-size": "10m", "max-file": "3"})).unwrap()
    else {
        panic!("another driver");
    };
    assert_eq!((file.max_bytes, file.max_files), (Some(10 << 20), 3));
    let LogDriverPlan::Fluentd(fluentd) = log(
        "fluentd",
        json!({"fluentd-address": "unix:///run/x", "fluentd-async": "true", "fluentd-retry-wait": "1m30s", "tag": "docker.{{.Name}}"}),
    )
    .unwrap() else {
        panic!("another driver");
    };
    let unix = Address::Unix {
        path: "/run/x".into(),
    };
    assert_eq!(
        (fluentd.address, fluentd.source.tag.as_str()),
        (unix, "docker.web")
    );
    assert_eq!(
        (fluentd.asynchronous, fluentd.retry_wait),
        (true, Duration::from_secs(90))
    );
    let LogDriverPlan::Syslog(syslog) = log(
        "syslog",
        json!({"syslog-address": "udp://box", "syslog-facility": "local7"}),
    )
    .unwrap() else {
        panic!("another driver");
    };
    let udp = Address::Udp {
        host: "box".into(),
        port: 514,
    };
    assert_eq!((syslog.address, syslog.facility), (udp, 23));
    let LogDriverPlan::Loki(loki) = log(
        "loki",
        json!({"loki-url": "http://box:3100/loki/api/v1/push", "loki-external-labels": "job=x,name={{.Name}}"}),
    )
    .unwrap() else {
        panic!("another driver");
    };
    assert_eq!(
        (loki.host.as_str(), loki.port, loki.path.as_str()),
        ("box", 3100, "/loki/api/v1/push")
    );
    assert_eq!(loki.labels["name"], "web");
    for (driver, options, named) in [
        ("splunk", json!({}), "splunk"),
        ("awsfirelens", json!({}), "awsfirelens"),
        ("journald", json!({}), "journald"),
        ("json-file", json!({"max-file": "3"}), "max-size"),
        ("json-file", json!({"compress": "true"}), "compress"),
        ("fluentd", json!({"fluentd-address": "tls://x"}), "tls://"),
        ("fluentd", json!({"fluentd-what": "x"}), "fluentd-what"),
        (
            "syslog",
            json!({"syslog-address": "tcp+tls://x"}),
            "tcp+tls://",
        ),
        ("syslog", json!({"syslog-facility": "x"}), "syslog-facility"),
        (
            "syslog",
            json!({"syslog-tls-skip-verify": "true"}),
            "syslog-tls-skip-verify",
        ),
        ("gelf", json!({}), "gelf-address"),
        (
            "gelf",
            json!({"gelf-address": "tcp://x:1", "gelf-compression-type": "gzip"}),
            "gelf-compression-type",
        ),
        ("loki", json!({"loki-url": "https://x"}), "https://"),
        (
            "loki",
            json!({"loki-url": "http://x", "loki-pipeline-stages": "x"}),
            "loki-pipeline-stages",
        ),
    ] {
        let reason = log(driver, options).unwrap_err();
        assert!(
            reason.contains(named) && reason.contains("web"),
            "{driver}: {reason}"
        );
    }
}
