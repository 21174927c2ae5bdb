//! Account settings, cluster settings and health: what is stored, who it holds for, what is refused.

use std::collections::BTreeMap;

use gantry_api::RequestContext;
use gantry_api::ecs::{self, Ecs as _, SettingName};
use gantry_arn::Arn;
use gantry_ecs::tables::{HealthStatus, LogDriverMode, TaskHealthRow, TaskRow};
use gantry_store::Transaction;

use crate::harness::{Harness, done, refusal};

fn user(harness: &Harness) -> RequestContext {
    let mut ctx = harness.ctx();
    ctx.principal.arn = Arn::global("iam", &ctx.account, "user/alice");
    ctx
}

fn put(harness: &Harness, ctx: &RequestContext, name: SettingName, value: &str) -> ecs::Setting {
    let input = ecs::PutAccountSettingRequest {
        name,
        value: value.to_owned(),
        ..Default::default()
    };
    let answer = done(harness.service.put_account_setting(ctx, input)).unwrap();
    answer.setting.unwrap()
}

fn list(harness: &Harness, ctx: &RequestContext, effective: bool) -> BTreeMap<String, String> {
    let mut listed = BTreeMap::new();
    let mut next_token = None;
    loop {
        let input = ecs::ListAccountSettingsRequest {
            effective_settings: Some(effective),
            next_token: next_token.take(),
            ..Default::default()
        };
        let answer = done(harness.service.list_account_settings(ctx, input)).unwrap();
        for setting in answer.settings.unwrap() {
            listed.insert(setting.name.unwrap().to_string(), setting.value.unwrap());
        }
        next_token = answer.next_token;
        if next_token.is_none() {
            return listed;
        }
    }
}

#[test]
fn a_principals_own_setting_wins_over_the_accounts_and_that_over_awss() {
    let harness = Harness::new();
    let (root, alice) = (harness.ctx(), user(&harness));
    let insights = |ctx| list(&harness, ctx, true)["containerInsights"].clone();
    assert_eq!(insights(&alice), "disabled");
    assert_eq!(list(&harness, &alice, true).len(), 11);
    assert_eq!(list(&harness, &alice, false).len(), 0);
    put(&harness, &root, SettingName::ContainerInsights, "enabled");
    assert_eq!(
        (insights(&alice), insights(&root)),
        ("enabled".into(), "enabled".into())
    );
    let own = put(&harness, &alice, SettingName::ContainerInsights, "enhanced");
    assert_eq!(
        own.principal_arn.as_deref(),
        Some("arn:aws:iam::000000000000:user/alice")
    );
    assert_eq!(
        (insights(&alice), insights(&root)),
        ("enhanced".into(), "enabled".into())
    );
    assert_eq!(list(&harness, &alice, false).len(), 1);
    let delete = ecs::DeleteAccountSettingRequest {
        name: SettingName::ContainerInsights,
        ..Default::default()
    };
    let deleted = done(harness.service.delete_account_setting(&alice, delete)).unwrap();
    assert_eq!(deleted.setting.unwrap().value.as_deref(), Some("enabled"));
    assert_eq!(insights(&alice), "enabled");
    // And it holds: a cluster that names no setting has the account's.
    let cluster = harness.create_cluster("insight");
    assert_eq!(
        cluster.settings.unwrap()[0].value.as_deref(),
        Some("enabled")
    );
}

#[test]
fn values_that_a_setting_cannot_have_are_refused() {
    let harness = Harness::new();
    let refused = |name: SettingName, value: &str, principal: Option<&str>| {
        let input = ecs::PutAccountSettingRequest {
            name,
            value: value.to_owned(),
            principal_arn: principal.map(str::to_owned),
        };
        refusal(done(
            harness.service.put_account_setting(&harness.ctx(), input),
        ))
    };
    let invalid = "InvalidParameterException".to_owned();
    for (name, value, principal) in [
        (SettingName::ContainerInsights, "maybe", None),
        (SettingName::TaskLongArnFormat, "disabled", None),
        (SettingName::GuardDutyActivate, "on", None),
        (SettingName::from("colour"), "red", None),
        (SettingName::AwsvpcTrunking, "enabled", Some("alice")),
        (
            SettingName::AwsvpcTrunking,
            "enabled",
            Some("arn:aws:iam::111111111111:user/alice"),
        ),
    ] {
        assert_eq!(refused(name.clone(), value, principal).0, invalid, "{name}");
    }
    assert_eq!(
        refused(SettingName::FargateTaskRetirementWaitPeriod, "3", None).1,
        "Invalid value '3' for account setting fargateTaskRetirementWaitPeriod. Valid values are 0, 7, 14."
    );
    assert_eq!(list(&harness, &harness.ctx(), false).len(), 0);
}

#[test]
fn a_task_keeps_the_log_driver_mode_of_the_day_it_was_run() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    harness.run_one("web");
    put(
        &harness,
        &harness.ctx(),
        SettingName::DefaultLogDriverMode,
        "blocking",
    );
    harness.run_one("web");
    let rows = harness.store.snapshot().list_everywhere::<TaskRow>();
    let modes: Vec<LogDriverMode> = rows.iter().map(|row| row.default_log_driver_mode).collect();
    assert!(
        modes.contains(&LogDriverMode::Blocking) && modes.contains(&LogDriverMode::NonBlocking)
    );
}

#[test]
fn clusters_change_what_is_named_and_keep_the_rest() {
    let harness = Harness::new();
    harness.create_cluster("default");
    let update = |input: ecs::UpdateClusterRequest| {
        let answer = done(harness.service.update_cluster(&harness.ctx(), input));
        answer.map(|answer| answer.cluster.unwrap())
    };
    let setting = |value: &str| ecs::ClusterSetting {
        name: Some(ecs::ClusterSettingName::ContainerInsights),
        value: Some(value.to_owned()),
    };
    let execute = |logging| ecs::ClusterConfiguration {
        execute_command_configuration: Some(ecs::ExecuteCommandConfiguration {
            logging: Some(logging),
            ..Default::default()
        }),
        ..Default::default()
    };
    let input = |cluster: &str| ecs::UpdateClusterRequest {
        cluster: cluster.to_owned(),
        ..Default::default()
    };
    let cluster = update(ecs::UpdateClusterRequest {
        configuration: Some(execute(ecs::ExecuteCommandLogging::None)),
        service_connect_defaults: Some(ecs::ClusterServiceConnectDefaultsRequest {
            namespace: "internal".to_owned(),
        }),
        ..input("default")
    })
    .unwrap();
    assert_eq!(
        cluster.settings.unwrap()[0].value.as_deref(),
        Some("disabled")
    );
    let cluster = update(ecs::UpdateClusterRequest {
        settings: Some(vec![setting("enhanced")]),
        ..input("default")
    })
    .unwrap();
    assert_eq!(
        cluster.settings.unwrap()[0].value.as_deref(),
        Some("enhanced")
    );
    assert!(cluster.configuration.is_some() && cluster.service_connect_defaults.is_some());
    let code = |input| refusal(update(input)).0;
    assert_eq!(code(input("nowhere")), "ClusterNotFoundException");
    assert_eq!(code(input("")), "InvalidParameterException");
    assert_eq!(
        code(ecs::UpdateClusterRequest {
            configuration: Some(execute(ecs::ExecuteCommandLogging::Override)),
            ..input("default")
        }),
        "InvalidParameterException"
    );
    let settings = |settings| ecs::UpdateClusterSettingsRequest {
        cluster: "default".to_owned(),
        settings,
    };
    let change = |settings| {
        done(
            harness
                .service
                .update_cluster_settings(&harness.ctx(), settings),
        )
    };
    assert_eq!(
        refusal(change(settings(vec![]))).0,
        "InvalidParameterException"
    );
    assert_eq!(
        refusal(change(settings(vec![setting("on")]))).0,
        "InvalidParameterException"
    );
    let cluster = change(settings(vec![setting("enabled")]))
        .unwrap()
        .cluster
        .unwrap();
    assert_eq!(
        cluster.settings.unwrap()[0].value.as_deref(),
        Some("enabled")
    );
}

#[test]
fn the_health_that_a_node_tells_is_shown_while_the_task_lives() {
    let (harness, _) = Harness::with_instance();
    harness.register_web();
    let arn = harness.run_one("web");
    let shown = || {
        let task = harness.task(&arn);
        let container = task.containers.unwrap()[0].health_status.clone();
        (
            task.health_status.unwrap().to_string(),
            container.unwrap().to_string(),
        )
    };
    let unknown = || ("UNKNOWN".to_owned(), "UNKNOWN".to_owned());
    assert_eq!(shown(), unknown());
    let health = TaskHealthRow {
        status: HealthStatus::Unhealthy,
        containers: [("web".to_owned(), HealthStatus::Unhealthy)].into(),
        found: Default::default(),
    };
    let scope = harness.scope();
    let mut transaction = Transaction::new();
    let name = format!("default/{}", arn.rsplit('/').next().unwrap());
    transaction.write::<TaskHealthRow>(&scope.account, &scope.region, &name, &health);
    done(harness.store.commit(transaction)).unwrap();
    assert_eq!(shown(), ("UNHEALTHY".to_owned(), "UNHEALTHY".to_owned()));
    harness.submit(&arn, "STOPPED", Some(0));
    assert_eq!(shown(), unknown());
}

#[test]
fn an_agent_is_not_updated_from_here_and_the_answer_is_awss() {
    let (harness, instance) = Harness::with_instance();
    let update = |instance: &str| {
        let input = ecs::UpdateContainerAgentRequest {
            container_instance: instance.to_owned(),
            ..Default::default()
        };
        refusal(done(
            harness
                .service
                .update_container_agent(&harness.ctx(), input),
        ))
        .0
    };
    assert_eq!(update(&instance), "MissingVersionException");
    assert_eq!(update(&"0".repeat(32)), "InvalidParameterException");
    let amazon = ecs::RegisterContainerInstanceRequest {
        total_resources: Some(crate::harness::resources(1024, 1024)),
        version_info: Some(ecs::VersionInfo {
            agent_version: Some("1.105.0".to_owned()),
            agent_hash: Some("0123abcd".to_owned()),
            docker_version: Some("DockerVersion: 25.0.8".to_owned()),
        }),
        ..Default::default()
    };
    let answer = done(
        harness
            .service
            .register_container_instance(&harness.ctx(), amazon),
    );
    let arn = answer
        .unwrap()
        .container_instance
        .unwrap()
        .container_instance_arn;
    assert_eq!(update(&arn.unwrap()), "NoUpdateAvailableException");
}
