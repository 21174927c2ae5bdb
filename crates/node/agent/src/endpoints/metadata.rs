//! Task metadata: what a container is told of itself and of its task.
//!
//! What always holds: names and nesting are those that AWS documents for EC2 container instances; a
//! version 3 document has nothing that came with version 4; what is not known yet is left out.
//! What it leaves to others: tags, which the control plane knows (the shell asks for them).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gantry_api::acs;
use gantry_env::Timestamp;
use serde::Serialize;

use super::address::Version;
use crate::core::journal::ContainerState;
use crate::core::plan::{ContainerPlan, NetworkMode};
use crate::core::{ContainerStatus, TaskMachine};

/// What the agent's core does not know of a container.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub created_at: Option<Timestamp>,
    /// Of its interface, where it has one of its own.
    pub address: Option<Ipv4Addr>,
    pub mounts: Vec<Volume>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    pub source: String,
    pub destination: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskDocument {
    pub cluster: String,
    #[serde(rename = "TaskARN")]
    pub task_arn: String,
    pub family: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    pub revision: String,
    pub desired_status: &'static str,
    pub known_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<TaskLimits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_type: Option<String>,
    pub containers: Vec<ContainerDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_tags: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_instance_tags: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// Why a member is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FieldError {
    pub error_field: &'static str,
    pub error_code: String,
    pub error_message: String,
    #[serde(rename = "ResourceARN")]
    pub resource_arn: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TaskLimits {
    /// In vCPU.
    #[serde(rename = "CPU", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// In MiB.
    #[serde(rename = "Memory", skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerDocument {
    pub docker_id: String,
    pub name: String,
    pub docker_name: String,
    pub image: String,
    #[serde(rename = "ImageID")]
    pub image_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    pub labels: BTreeMap<String, String>,
    pub desired_status: &'static str,
    pub known_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    pub limits: ContainerLimits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    #[serde(rename = "Type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub log_options: BTreeMap<String, String>,
    #[serde(rename = "ContainerARN", skip_serializing_if = "Option::is_none")]
    pub container_arn: Option<String>,
    pub networks: Vec<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port {
    pub container_port: u16,
    pub protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerLimits {
    /// In 1/1024 vCPU.
    #[serde(rename = "CPU")]
    pub cpu: i64,
    /// In MiB.
    #[serde(rename = "Memory", skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub status: &'static str,
    pub status_since: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    pub network_mode: &'static str,
    #[serde(rename = "IPv4Addresses", skip_serializing_if = "Vec::is_empty")]
    pub ipv4_addresses: Vec<String>,
}

/// The document of a task, without tags.
pub fn task(
    machine: &TaskMachine,
    version: Version,
    availability_zone: Option<&str>,
    around: impl Fn(&str) -> Surroundings,
) -> TaskDocument {
    let payload = &machine.payload;
    let state = &machine.state;
    let limits = TaskLimits {
        cpu: payload.cpu.filter(|cpu| *cpu > 0.0),
        memory: payload.memory.filter(|memory| *memory > 0),
    };
    let is_v4 = version == Version::V4;
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    TaskDocument {
        cluster: cluster_name(machine).to_owned(),
        task_arn: payload.arn.clone().unwrap_or_default(),
        family: payload.family.clone().unwrap_or_default(),
        service_name: payload.service_name.clone().filter(|_| is_v4),
        revision: payload.version.clone().unwrap_or_default(),
        desired_status: desired_status(machine),
        known_status: known_status(
            state
                .containers
                .values()
                .map(|container| container.status)
                .min()
                .unwrap_or_default(),
        ),
        limits: (limits.cpu.is_some() || limits.memory.is_some()).then_some(limits),
        pull_started_at: time(state.pull_started_at),
        pull_stopped_at: time(state.pull_stopped_at),
        execution_stopped_at: time(state.execution_stopped_at),
        availability_zone: availability_zone.map(str::to_owned),
        launch_type: payload.launch_type.clone().filter(|_| is_v4),
        containers: payload
            .containers
            .iter()
            .filter_map(|container| {
                let name = container.name.as_deref()?;
                // One that was not made yet has nothing to tell, as with AWS.
                let state = state.containers.get(name)?;
                (state.status >= ContainerStatus::Created)
                    .then(|| of(machine, container, name, state, version, around(name)))
            })
            .collect(),
        task_tags: None,
        container_instance_tags: None,
        errors: Vec::new(),
    }
}

/// The document of one container.
pub fn container(
    machine: &TaskMachine,
    name: &str,
    version: Version,
    around: Surroundings,
) -> Option<ContainerDocument> {
    let mut containers = machine.payload.containers.iter();
    let payload = containers.find(|container| container.name.as_deref() == Some(name))?;
    let state = machine.state.containers.get(name)?;
    Some(of(machine, payload, name, state, version, around))
}

/// What stands for Docker's id: what DescribeTasks shows as `runtimeId`.
pub fn runtime_id(machine: &TaskMachine, container: &str) -> String {
    format!("{}-{container}", machine.id)
}

/// The name that the Amazon agent would give the container in Docker.
pub fn docker_name(machine: &TaskMachine, container: &str) -> String {
    let family = machine.payload.family.as_deref().unwrap_or_default();
    let revision = machine.payload.version.as_deref().unwrap_or_default();
    let task = machine.id;
    let suffix = task.as_str().get(..20).unwrap_or_default();
    format!("ecs-{family}-{revision}-{container}-{suffix}")
}

fn of(
    machine: &TaskMachine,
    payload: &acs::Container,
    name: &str,
    state: &ContainerState,
    version: Version,
    around: Surroundings,
) -> ContainerDocument {
    let plan = machine
        .plan()
        .and_then(|plan| plan.containers.iter().find(|c| c.name == name));
    let is_v4 = version == Version::V4;
    let log = payload
        .docker_config
        .as_ref()
        .and_then(|config| config.docker_host_config().ok()?.log_config)
        .filter(|_| is_v4);
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    ContainerDocument {
        docker_id: runtime_id(machine, name),
        name: name.to_owned(),
        docker_name: docker_name(machine, name),
        image: payload.image.clone().unwrap_or_default(),
        image_id: state.image_digest.clone().unwrap_or_default(),
        ports: ports(machine, plan, name),
        labels: labels(machine, plan, name),
        desired_status: desired_status(machine),
        known_status: known_status(state.status),
        exit_code: state.exit_code,
        limits: ContainerLimits {
            cpu: payload.cpu.unwrap_or_default(),
            memory: payload.memory.filter(|memory| *memory > 0),
        },
        created_at: time(around.created_at),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        kind: "NORMAL",
        health: state.health.as_ref().map(|health| Health {
            status: health.status.as_reported(),
            status_since: health.since.to_string(),
            output: health.output.clone(),
        }),
        volumes: around.mounts,
        log_driver: log.as_ref().and_then(|log| log.driver.clone()),
        log_options: log.map(|log| log.options).unwrap_or_default(),
        container_arn: payload.container_arn.clone().filter(|_| is_v4),
        networks: vec![Network {
            network_mode: network_mode(machine),
            ipv4_addresses: around.address.iter().map(Ipv4Addr::to_string).collect(),
        }],
        restart_count: plan
            .filter(|plan| plan.restart_policy.is_some() && is_v4)
            .map(|_| state.restarts),
    }
}

fn ports(machine: &TaskMachine, plan: Option<&ContainerPlan>, name: &str) -> Vec<Port> {
    let bound = machine.bindings_of(name);
    let asked = plan.map_or(&[][..], |plan| plan.ports.as_slice());
    let of_ranges = bound.iter().filter_map(|range| {
        let ports = range.container_port..=range.last_container_port?;
        Some(
            ports
                .zip(range.host_port..)
                .map(|(container_port, host_port)| Port {
                    container_port,
                    protocol: range.protocol.clone(),
                    host_port: Some(host_port),
                    host_ip: Some("0.0.0.0"),
                }),
        )
    });
    asked
        .iter()
        .map(|asked| {
            let host_port = bound
                .iter()
                .find(|bound| {
                    bound.container_port == asked.container_port
                        && bound.last_container_port.is_none()
                        && bound.protocol == asked.protocol
                        && (asked.host_port == 0 || asked.host_port == bound.host_port)
                })
                .map(|bound| bound.host_port);
            Port {
                container_port: asked.container_port,
                protocol: asked.protocol.clone(),
                host_port,
                host_ip: host_port.map(|_| "0.0.0.0"),
            }
        })
        .chain(of_ranges.flatten())
        .collect()
}

fn labels(
    machine: &TaskMachine,
    plan: Option<&ContainerPlan>,
    name: &str,
) -> BTreeMap<String, String> {
    let mut labels = plan.map(|plan| plan.labels.clone()).unwrap_or_default();
    let payload = &machine.payload;
    for (label, value) in [
        ("cluster", Some(cluster_name(machine))),
        ("container-name", Some(name)),
        ("task-arn", payload.arn.as_deref()),
        ("task-definition-family", payload.family.as_deref()),
        ("task-definition-version", payload.version.as_deref()),
    ] {
        let value = value.unwrap_or_default().to_owned();
        labels.insert(format!("com.amazonaws.ecs.{label}"), value);
    }
    labels
}

/// On container instances that a cluster's agent registered, AWS gives the cluster's name.
fn cluster_name(machine: &TaskMachine) -> &str {
    let arn = machine.cluster.as_str();
    arn.rsplit_once('/').map_or(arn, |(_, name)| name)
}

fn desired_status(machine: &TaskMachine) -> &'static str {
    if machine.state.stopping.is_some() {
        "STOPPED"
    } else {
        "RUNNING"
    }
}

fn known_status(status: ContainerStatus) -> &'static str {
    match status {
        ContainerStatus::None => "NONE",
        ContainerStatus::Pulled => "PULLED",
        ContainerStatus::Created => "CREATED",
        ContainerStatus::Running => "RUNNING",
        ContainerStatus::Stopped => "STOPPED",
    }
}

fn network_mode(machine: &TaskMachine) -> &'static str {
    match machine.plan().map(|plan| plan.network_mode) {
        Some(NetworkMode::Host) => "host",
        Some(NetworkMode::None) => "none",
        Some(NetworkMode::Bridge) | None => "bridge",
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::acs::{DockerConfig, DockerContainerConfig, DockerHostConfig, DockerLogConfig};
    use gantry_arn::TaskId;
    use serde_json::json;

    use super::*;
    use crate::core::HealthState;

    fn machine() -> TaskMachine {
        let host = DockerHostConfig {
            network_mode: Some("bridge".to_owned()),
            log_config: Some(DockerLogConfig {
                driver: Some("json-file".to_owned()),
                options: BTreeMap::from([("max-size".to_owned(), "1m".to_owned())]),
            }),
            ..DockerHostConfig::default()
        };
        let inside = DockerContainerConfig {
            labels: BTreeMap::from([("mine".to_owned(), "1".to_owned())]),
            ..DockerContainerConfig::default()
        };
        let mapping = acs::PortMapping {
            container_port: Some(80),
            protocol: Some("tcp".to_owned()),
            ..acs::PortMapping::default()
        };
        let container = |name: &str| acs::Container {
            name: Some(name.to_owned()),
            image: Some("web:1".to_owned()),
            cpu: Some(10),
            memory: Some(64),
            container_arn: Some("arn:c".to_owned()),
            port_mappings: vec![mapping.clone()],
            docker_config: Some(DockerConfig::of(&inside, &host)),
            ..acs::Container::default()
        };
        let payload = acs::Task {
            arn: Some("arn:task".to_owned()),
            family: Some("fam".to_owned()),
            version: Some("3".to_owned()),
            launch_type: Some("EC2".to_owned()),
            cpu: Some(0.5),
            containers: vec![container("web"), container("later")],
            ..acs::Task::default()
        };
        let cluster = "arn:aws:ecs:us-east-1:000000000000:cluster/default".to_owned();
        let mut machine = TaskMachine::new(TaskId::from_random([1; 16]), cluster, payload);
        let at = Timestamp::from_millis(1_000);
        let state = machine.state.containers.get_mut("web").unwrap();
        state.status = ContainerStatus::Running;
        state.image_digest = Some("sha256:1".to_owned());
        state.started_at = Some(at);
        state.health = Some(HealthState::unknown(at));
        state.network_bindings = vec![crate::core::step::NetworkBinding {
            container_port: 80,
            host_port: 32_768,
            last_container_port: None,
            protocol: "tcp".to_owned(),
        }];
        machine
    }

    fn around(_: &str) -> Surroundings {
        Surroundings {
            created_at: Some(Timestamp::from_millis(500)),
            address: Some(Ipv4Addr::new(10, 0, 0, 2)),
            mounts: vec![Volume {
                source: "/s".to_owned(),
                destination: "/d".to_owned(),
            }],
        }
    }

    #[test]
    fn version_4_has_the_documented_names() {
        let machine = machine();
        let seen = json!(container(&machine, "web", Version::V4, around("web")).unwrap());
        let task_id = machine.id.to_string();
        assert_eq!(
            seen,
            json!({
                "DockerId": format!("{task_id}-web"),
                "Name": "web",
                "DockerName": format!("ecs-fam-3-web-{}", &task_id[..20]),
                "Image": "web:1",
                "ImageID": "sha256:1",
                "Ports": [{"ContainerPort": 80, "Protocol": "tcp", "HostPort": 32768, "HostIp": "0.0.0.0"}],
                "Labels": {
                    "mine": "1",
                    "com.amazonaws.ecs.cluster": "default",
                    "com.amazonaws.ecs.container-name": "web",
                    "com.amazonaws.ecs.task-arn": "arn:task",
                    "com.amazonaws.ecs.task-definition-family": "fam",
                    "com.amazonaws.ecs.task-definition-version": "3",
                },
                "DesiredStatus": "RUNNING",
                "KnownStatus": "RUNNING",
                "Limits": {"CPU": 10, "Memory": 64},
                "CreatedAt": "1970-01-01T00:00:00.500Z",
                "StartedAt": "1970-01-01T00:00:01.000Z",
                "Type": "NORMAL",
                "Health": {"status": "UNKNOWN", "statusSince": "1970-01-01T00:00:01.000Z"},
                "Volumes": [{"Source": "/s", "Destination": "/d"}],
                "LogDriver": "json-file",
                "LogOptions": {"max-size": "1m"},
                "ContainerARN": "arn:c",
                "Networks": [{"NetworkMode": "bridge", "IPv4Addresses": ["10.0.0.2"]}],
            })
        );
        assert_eq!(container(&machine, "no", Version::V4, around("no")), None);
    }

    #[test]
    fn a_task_has_what_was_made_of_it_so_far() {
        let mut machine = machine();
        machine.stop(None);
        let seen = json!(task(&machine, Version::V4, Some("us-east-1a"), around));
        assert_eq!(seen["Containers"].as_array().unwrap().len(), 1);
        for (member, wanted) in [
            ("Cluster", json!("default")),
            ("TaskARN", json!("arn:task")),
            ("Family", json!("fam")),
            ("Revision", json!("3")),
            ("DesiredStatus", json!("STOPPED")),
            ("KnownStatus", json!("NONE")),
            ("AvailabilityZone", json!("us-east-1a")),
            ("LaunchType", json!("EC2")),
            ("Limits", json!({"CPU": 0.5})),
        ] {
            assert_eq!(seen[member], wanted, "{member}");
        }
        let old = json!(task(&machine, Version::V3, None, around));
        for member in ["LaunchType", "AvailabilityZone", "ServiceName"] {
            assert_eq!(old[member], json!(null), "{member}");
        }
        for member in ["ContainerARN", "LogDriver", "LogOptions", "RestartCount"] {
            assert_eq!(old["Containers"][0][member], json!(null), "{member}");
        }
    }
}
