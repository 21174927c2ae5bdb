//! The account's setting decides how output is delivered where a container does not.

use std::collections::BTreeMap;

use gantry_api::ecs;

use super::container;
use super::plane::Plane;

#[tokio::test]
async fn the_account_says_how_output_is_delivered_unless_the_container_does() {
    let plane = Plane::start().await;
    let mut agent = plane.connect().await;
    let with_mode = |mode: Option<&str>| {
        let place = [("awslogs-group", "g"), ("awslogs-region", "us-east-1")];
        let options = place.into_iter().chain(mode.map(|mode| ("mode", mode)));
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ecs::ContainerDefinition {
            log_configuration: Some(ecs::LogConfiguration {
                log_driver: ecs::LogDriver::Awslogs,
                options: Some(BTreeMap::from_iter(options)),
                secret_options: None,
            }),
            ..container(plane.port)
        }
    };
    for (setting, given, expected) in [
        (None, None, None),
        (Some("blocking"), None, Some("blocking")),
        (Some("blocking"), Some("non-blocking"), Some("non-blocking")),
        (Some("non-blocking"), None, None),
    ] {
        if let Some(value) = setting {
            plane
                .call::<ecs::PutAccountSettingDefault>(ecs::PutAccountSettingDefaultRequest {
                    name: ecs::SettingName::DefaultLogDriverMode,
                    value: value.into(),
                })
                .await;
        }
        plane.define(with_mode(given)).await;
        plane.run(None).await;
        let (payload, task) = agent.payload().await;
        agent.ack(&payload).await;
        let docker = task.containers[0].docker_config.clone().unwrap();
        let log = docker.docker_host_config().unwrap().log_config.unwrap();
        let mode = log.options.get("mode").map(String::as_str);
        assert_eq!(mode, expected, "{setting:?} {given:?}");
    }
}
