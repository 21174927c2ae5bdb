//! This machine as a container instance: what it has, and its name in the cluster.
//!
//! What always holds: the name is on disk once it was given, so a restarted agent is the same
//! container instance; one that the control plane no longer takes is registered anew.
//! What it leaves to others: what is placed on it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_api::client::{Client, ClientError};
use gantry_api::ecs;
use gantry_env::Env;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// What ECS keeps from tasks on every container instance: SSH, Docker and the agent itself.
const RESERVED_PORTS: [&str; 6] = ["22", "2375", "2376", "51678", "51679", "51680"];
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What this machine gives to tasks.
#[derive(Clone, Copy, Debug)]
pub struct MachineResources {
    /// 1024 a core.
    pub cpu_units: i32,
    pub memory_mib: i32,
}

impl MachineResources {
    pub fn of_this_machine() -> io::Result<MachineResources> {
        let cores = std::thread::available_parallelism()?.get();
        let text = std::fs::read_to_string("/proc/meminfo")?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| {
                rest.trim()
                    .trim_end_matches("kB")
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .ok_or_else(|| io::Error::other("/proc/meminfo does not name MemTotal"))?;
        Ok(MachineResources {
            cpu_units: i32::try_from(cores * 1024).unwrap_or(i32::MAX),
            memory_mib: i32::try_from(kib / 1024).unwrap_or(i32::MAX),
        })
    }
}

/// What is on disk about the registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub cluster: String,
    pub cluster_arn: String,
    pub container_instance_arn: String,
}

impl Registration {
    fn path(directory: &Path) -> PathBuf {
        directory.join("container-instance.json")
    }

    fn load(directory: &Path) -> io::Result<Option<Registration>> {
        match std::fs::read(Self::path(directory)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn save(&self, directory: &Path) -> io::Result<()> {
        let path = Self::path(directory);
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec(self)?)?;
        std::fs::File::open(&fresh)?.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        std::fs::File::open(directory)?.sync_all()
    }
}

/// Registers until it has worked.
pub async fn register(
    client: &Client,
    directory: &Path,
    cluster: &str,
    version: &str,
    resources: MachineResources,
    own_attributes: &[(String, String)],
    env: &Env,
) -> io::Result<Registration> {
    let mut known = Registration::load(directory)?.filter(|known| known.cluster == cluster);
    let token = hex(&env.entropy.bytes16());
    let mut attempt = 0;
    loop {
        let arn = known
            .as_ref()
            .map(|known| known.container_instance_arn.clone());
        let mut request = request(cluster, arn.clone(), token.clone(), version, resources);
        let own = own_attributes.iter().map(|(name, value)| ecs::Attribute {
            name: name.clone(),
            // Some of ECS's own attributes are there or not, and have no value.
            value: Some(value.clone()).filter(|value| !value.is_empty()),
            ..ecs::Attribute::default()
        });
        request.attributes.get_or_insert_default().extend(own);
        match client.call::<ecs::RegisterContainerInstance>(request).await {
            Ok(answer) => {
                let Some(arn) = answer
                    .container_instance
                    .and_then(|instance| instance.container_instance_arn)
                else {
                    return Err(io::Error::other(
                        "RegisterContainerInstance answered without a container instance",
                    ));
                };
                let registration = Registration {
                    cluster: cluster.to_owned(),
                    cluster_arn: cluster_arn(&arn),
                    container_instance_arn: arn,
                };
                if known.as_ref() != Some(&registration) {
                    registration.save(directory)?;
                }
                info!(
                    container_instance = registration.container_instance_arn,
                    "registered"
                );
                return Ok(registration);
            }
            Err(error) if arn.is_some() && is_unwanted(&error) => {
                warn!(%error, "the container instance is not taken any more; registering anew");
                known = None;
            }
            Err(error) => {
                let (first, last) = RETRY;
                let wait = gantry_api::client::backoff(attempt, first, last, env.entropy.u64());
                attempt = attempt.saturating_add(1);
                warn!(%error, ?wait, "registering again");
                env.sleep(wait).await;
            }
        }
    }
}

/// The service answered that it does not know this container instance, or not any more.
fn is_unwanted(error: &ClientError) -> bool {
    !error.retryable
        && matches!(
            error.code.as_str(),
            "ClientException"
                | "InvalidParameterException"
                | "InactiveInstanceException"
                // It is another node's: this directory has joined anew since.
                | "AccessDeniedException"
        )
}

/// `…:container-instance/CLUSTER/ID` is in `…:cluster/CLUSTER`.
fn cluster_arn(container_instance: &str) -> String {
    match container_instance.split_once(":container-instance/") {
        Some((place, rest)) => {
            let cluster = rest.split('/').next().unwrap_or_default();
            format!("{place}:cluster/{cluster}")
        }
        None => container_instance.to_owned(),
    }
}

fn request(
    cluster: &str,
    container_instance_arn: Option<String>,
    token: String,
    version: &str,
    resources: MachineResources,
) -> ecs::RegisterContainerInstanceRequest {
    ecs::RegisterContainerInstanceRequest {
        attributes: Some(attributes()),
        client_token: Some(token),
        cluster: Some(cluster.to_owned()),
        container_instance_arn,
        total_resources: Some(total_resources(resources)),
        version_info: Some(ecs::VersionInfo {
            agent_hash: Some("gantry".to_owned()),
            agent_version: Some(version.to_owned()),
            docker_version: None,
        }),
        ..ecs::RegisterContainerInstanceRequest::default()
    }
}

fn total_resources(resources: MachineResources) -> Vec<ecs::Resource> {
    let integer = |name: &str, value: i32| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        integer_value: Some(value),
        ..ecs::Resource::default()
    };
    let set = |name: &str, values: &[&str]| ecs::Resource {
        name: Some(name.to_owned()),
        r#type: Some("STRINGSET".to_owned()),
        string_set_value: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        ..ecs::Resource::default()
    };
    vec![
        integer("CPU", resources.cpu_units),
        integer("MEMORY", resources.memory_mib),
        set("PORTS", &RESERVED_PORTS),
        set("PORTS_UDP", &[]),
    ]
}

/// Under which names task definitions ask for what. An agent without a name is never given the task,
/// and whoever ran it reads only ATTRIBUTE. So the names of what is not built are here as well: such a
/// task comes, and fails with a reason that says which member of which container it is.
fn attributes() -> Vec<ecs::Attribute> {
    const BUILT: [&str; 19] = [
        "com.amazonaws.ecs.capability.ecr-auth",
        "com.amazonaws.ecs.capability.logging-driver.awslogs",
        "com.amazonaws.ecs.capability.logging-driver.fluentd",
        "com.amazonaws.ecs.capability.logging-driver.gelf",
        "com.amazonaws.ecs.capability.logging-driver.json-file",
        "com.amazonaws.ecs.capability.logging-driver.loki",
        "com.amazonaws.ecs.capability.logging-driver.none",
        "com.amazonaws.ecs.capability.logging-driver.syslog",
        "com.amazonaws.ecs.capability.privileged-container",
        "com.amazonaws.ecs.capability.task-iam-role",
        "com.amazonaws.ecs.capability.task-iam-role-network-host",
        "ecs.capability.container-health-check",
        "ecs.capability.container-ordering",
        "ecs.capability.container-restart-policy",
        "ecs.capability.execution-role-awslogs",
        "ecs.capability.execution-role-ecr-pull",
        "ecs.capability.logging-driver.awslogs-create-group",
        "ecs.capability.pid-ipc-namespace-sharing",
        "ecs.capability.task-cpu-mem-limit",
    ];
    const REFUSED_BY_NAME: [&str; 12] = [
        "com.amazonaws.ecs.capability.logging-driver.awsfirelens",
        "com.amazonaws.ecs.capability.logging-driver.journald",
        "com.amazonaws.ecs.capability.logging-driver.logentries",
        "com.amazonaws.ecs.capability.logging-driver.splunk",
        "ecs.capability.efs",
        "ecs.capability.env-files.s3",
        "ecs.capability.firelens.fluentbit",
        "ecs.capability.firelens.fluentd",
        "ecs.capability.private-registry-authentication.secretsmanager",
        "ecs.capability.secrets.asm.bootstrap.log-driver",
        "ecs.capability.secrets.asm.environment-variables",
        "ecs.capability.secrets.ssm.environment-variables",
    ];
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    };
    let docker_apis =
        (17..=44).map(|minor| format!("com.amazonaws.ecs.capability.docker-remote-api.1.{minor}"));
    let plain = |name: &str| ecs::Attribute {
        name: name.to_owned(),
        ..ecs::Attribute::default()
    };
    let valued = |name: &str, value: &str| ecs::Attribute {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..ecs::Attribute::default()
    };
    let mut attributes = vec![
        valued("ecs.os-type", "linux"),
        valued("ecs.os-family", "LINUX"),
        valued("ecs.cpu-architecture", architecture),
    ];
    attributes.extend(BUILT.into_iter().chain(REFUSED_BY_NAME).map(plain));
    attributes.extend(docker_apis.map(|name| plain(&name)));
    attributes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_read_from_the_container_instance() {
        assert_eq!(
            cluster_arn("arn:aws:ecs:us-east-1:000000000000:container-instance/blue/0123"),
            "arn:aws:ecs:us-east-1:000000000000:cluster/blue"
        );
    }

    #[test]
    fn a_registration_survives_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Registration::load(directory.path()).unwrap(), None);
        let registration = Registration {
            cluster: "default".into(),
            cluster_arn: "c".into(),
            container_instance_arn: "i".into(),
        };
        registration.save(directory.path()).unwrap();
        assert_eq!(
            Registration::load(directory.path()).unwrap(),
            Some(registration)
        );
    }

    #[test]
    fn this_machine_has_something_to_give() {
        let resources = MachineResources::of_this_machine().unwrap();
        assert!(resources.cpu_units >= 1024 && resources.memory_mib > 64);
    }
}
