//! A container's `logConfiguration`, as Docker's LogConfig.
//!
//! What always holds: a driver or an option that no agent of ours honours is refused by name.

use gantry_api::acs::DockerLogConfig;
use gantry_api::ecs;

use super::Place;
use crate::acs::members::{Honoured, not_built};

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
        if !matches!(driver, "awslogs" | "none") {
            return Err(not_built(
                &format!("logConfiguration.logDriver={driver}"),
                spec.name,
            ));
        }
        let mut options = options.clone().unwrap_or_default();
        if driver == "awslogs" {
            const KNOWN: [&str; 6] = [
                "awslogs-group",
                "awslogs-region",
                "awslogs-stream-prefix",
                "awslogs-create-group",
                "mode",
                "max-buffer-size",
            ];
            if let Some(unknown) = options
                .keys()
                .find(|option| !KNOWN.contains(&option.as_str()))
            {
                return Err(not_built(
                    &format!("logConfiguration.options.{unknown}"),
                    spec.name,
                ));
            }
            if let Some(prefix) = options.remove("awslogs-stream-prefix") {
                let stream = format!("{prefix}/{}/{}", spec.name, self.row.id);
                options.insert("awslogs-stream".to_owned(), stream);
            }
            let region = self.names.region.to_string();
            options.entry("awslogs-region".to_owned()).or_insert(region);
        }
        Ok(Some(DockerLogConfig {
            driver: Some(driver.to_owned()),
            options,
        }))
    }
}
