//! The parts of Docker's Config and HostConfig that travel in a container's `dockerConfig`.
//!
//! What always holds: a member that is not known here is kept in `unknown`, so an agent can refuse it
//! by name instead of leaving it out in silence.
//! What it leaves to others: which members an agent honours.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
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
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub labels: BTreeMap<String, String>,
    /// A pseudo-terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_stdin: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_disabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<DockerHealthcheck>,
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// Docker's `HealthcheckConfig`. Its durations are in nanoseconds; 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DockerHealthcheck {
    /// `CMD` and words, or `CMD-SHELL` and a line for the shell.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub cap_add: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub cap_drop: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub devices: Vec<DockerDevice>,
    /// A small first process in front of the container's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<i64>,
    /// Mount options by path, as mount(8) reads them.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub tmpfs: BTreeMap<String, String>,
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub sysctls: BTreeMap<String, String>,
    /// `NAME:ADDRESS`.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub extra_hosts: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub dns: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub dns_search: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub security_opt: Vec<String>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_absent"
    )]
    pub ulimits: Vec<DockerUlimit>,
    /// Memory and swap together, in bytes; -1 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DockerDevice {
    pub path_on_host: String,
    pub path_in_container: String,
    /// Of `r`, `w` and `m`.
    pub cgroup_permissions: String,
}

/// -1 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DockerUlimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
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

/// Docker writes a list that is not there as null.
fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_member_is_kept_by_name() {
        let config = DockerConfig {
            host_config: Some(r#"{"NetworkMode":"host","Runtime":"other"}"#.to_owned()),
            ..DockerConfig::default()
        };
        let host = config.docker_host_config().unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("host"));
        assert_eq!(host.unknown.keys().collect::<Vec<_>>(), ["Runtime"]);
    }

    #[test]
    fn both_documents_round_trip() {
        let inside = DockerContainerConfig {
            user: Some("1000".into()),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            healthcheck: Some(DockerHealthcheck {
                test: vec!["CMD".into(), "true".into()],
                interval: Some(30_000_000_000),
                ..DockerHealthcheck::default()
            }),
            ..DockerContainerConfig::default()
        };
        let host = DockerHostConfig {
            log_config: Some(DockerLogConfig {
                driver: Some("awslogs".into()),
                options: BTreeMap::from([("awslogs-group".into(), "g".into())]),
            }),
            dns: vec!["10.0.0.2".into()],
            ulimits: vec![DockerUlimit {
                name: "nofile".into(),
                soft: 1,
                hard: -1,
            }],
            ..DockerHostConfig::default()
        };
        let wire = DockerConfig::of(&inside, &host);
        assert_eq!(wire.container_config().unwrap(), inside);
        assert_eq!(wire.docker_host_config().unwrap(), host);
    }
    #[test]
    fn members_have_dockers_own_names() {
        let text = r#"{"CapAdd":["SYS_TIME"],"Devices":[{"PathOnHost":"/dev/fuse","PathInContainer":"/dev/f","CgroupPermissions":"rw"}],
            "Init":true,"ShmSize":67108864,"Tmpfs":{"/t":"size=1m"},"Sysctls":{"net.core.somaxconn":"1"},"ExtraHosts":["a:1.2.3.4"],
            "Dns":["1.1.1.1"],"DnsSearch":["x"],"SecurityOpt":["no-new-privileges"],"Ulimits":[{"Name":"core","Soft":0,"Hard":0}],
            "MemorySwap":-1,"MemorySwappiness":60,"ReadonlyRootfs":true,"Privileged":true,"CapDrop":["ALL"]}"#;
        let host: DockerHostConfig = serde_json::from_str(text).unwrap();
        assert!(host.unknown.is_empty(), "{:?}", host.unknown);
        let again: Value = serde_json::to_value(&host).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    }
}
