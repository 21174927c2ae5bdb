//! The parts of Docker's Config and HostConfig that travel in a container's `dockerConfig`.
//!
//! What always holds: a member that is not known here is kept in `unknown`, so an agent can refuse it
//! by name instead of leaving it out in silence.
//! What it leaves to others: which members an agent honours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// As on the wire: two JSON documents inside strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Docker's `Config`: what is inside the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DockerContainerConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// Docker's `HostConfig`: how the host runs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DockerHostConfig {
    /// `host`, `none`, `bridge` or another container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_rootfs: Option<bool>,
    /// The soft limit, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_config: Option<DockerLogConfig>,
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DockerLogConfig {
    /// `awslogs`, `none`, …
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(rename = "Config", skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl DockerConfig {
    /// Wraps the two documents the way the wire wants them.
    pub fn of(config: &DockerContainerConfig, host: &DockerHostConfig) -> DockerConfig {
        DockerConfig {
            config: serde_json::to_string(config).ok(),
            host_config: serde_json::to_string(host).ok(),
            version: Some("1.21".to_owned()),
        }
    }

    /// Docker's `Config`, empty where none was sent.
    pub fn container_config(&self) -> Result<DockerContainerConfig, serde_json::Error> {
        self.config.as_deref().map_or_else(
            || Ok(DockerContainerConfig::default()),
            serde_json::from_str,
        )
    }

    /// Docker's `HostConfig`, empty where none was sent.
    pub fn docker_host_config(&self) -> Result<DockerHostConfig, serde_json::Error> {
        self.host_config
            .as_deref()
            .map_or_else(|| Ok(DockerHostConfig::default()), serde_json::from_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_member_is_kept_by_name() {
        let config = DockerConfig {
            host_config: Some(r#"{"NetworkMode":"host","Privileged":true}"#.to_owned()),
            ..DockerConfig::default()
        };
        let host = config.docker_host_config().unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("host"));
        assert_eq!(host.unknown.keys().collect::<Vec<_>>(), ["Privileged"]);
    }

    #[test]
    fn both_documents_round_trip() {
        let inside = DockerContainerConfig {
            user: Some("1000".into()),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            ..DockerContainerConfig::default()
        };
        let host = DockerHostConfig {
            log_config: Some(DockerLogConfig {
                driver: Some("awslogs".into()),
                options: BTreeMap::from([("awslogs-group".into(), "g".into())]),
            }),
            ..DockerHostConfig::default()
        };
        let wire = DockerConfig::of(&inside, &host);
        assert_eq!(wire.container_config().unwrap(), inside);
        assert_eq!(wire.docker_host_config().unwrap(), host);
    }
}
