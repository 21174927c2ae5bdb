//! A container's `logConfiguration`, as Docker's LogConfig.
//!
//! What always holds: a driver that no agent of ours honours is refused by name; an option that its
//! driver does not know is refused by the agent, which reads them all. Where no `mode` is named, the
//! account's setting at the time of RunTask decides.

use gantry_api::acs::DockerLogConfig;
use gantry_api::ecs;

use super::Place;
use crate::acs::members::{Honoured, not_built};
use crate::tables::LogDriverMode;

/// Those that the agent has; `loki` is Loki's plug-in of that name.
const BUILT: [&str; 7] = [
    "awslogs",
    "fluentd",
    "gelf",
    "json-file",
    "loki",
    "none",
    "syslog",
];

impl Place<'_> {
    /// The agent gets the stream's whole name, as ECS sends it; the prefix is only its beginning.
    pub(super) fn log_config(
        &self,
        spec: &Honoured<'_>,
    ) -> Result<Option<DockerLogConfig>, String> {
        let Some(ecs::LogConfiguration {
            log_driver,
            options,
            secret_options,
        }) = spec.log_configuration
        else {
            return Ok(None);
        };
        if secret_options
            .as_ref()
            .is_some_and(|secrets| !secrets.is_empty())
        {
            return Err(not_built("logConfiguration.secretOptions", spec.name));
        }
        let driver = log_driver.as_str();
        if !BUILT.contains(&driver) {
            return Err(not_built(
                &format!("logConfiguration.logDriver={driver}"),
                spec.name,
            ));
        }
        let mut options = options.clone().unwrap_or_default();
        if driver == "awslogs" {
            if let Some(prefix) = options.remove("awslogs-stream-prefix") {
                let stream = format!("{prefix}/{}/{}", spec.name, self.row.id);
                options.insert("awslogs-stream".to_owned(), stream);
            }
            let region = self.names.region.to_string();
            options.entry("awslogs-region".to_owned()).or_insert(region);
        }
        if driver != "none" && self.row.default_log_driver_mode == LogDriverMode::Blocking {
            let mode = options.entry("mode".to_owned());
            mode.or_insert_with(|| "blocking".to_owned());
        }
        Ok(Some(DockerLogConfig {
            driver: Some(driver.to_owned()),
            options,
        }))
    }
}
