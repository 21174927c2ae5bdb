//! A task of the payload, from its task definition, its overrides and its row.
//!
//! What always holds: the same rows give the same payload. What an agent could not honour is an
//! error in words for the task's `stoppedReason`.
//! What it leaves to others: sending it (`session`), and credentials, which are added when it goes.

use std::collections::BTreeMap;

use gantry_api::acs::{
    Condition, Container, ContainerDependency, DesiredStatus, DockerConfig, RestartPolicy,
    RoleType, Task,
};
use gantry_api::ecs::{self, ContainerDefinition, ContainerOverride};
use gantry_arn::Arn;

mod docker;
mod logs;
mod volumes;

use super::image::RegistryNames;
use super::members::{Honoured, honoured, honoured_override, honoured_task, not_built};
use crate::tables::TaskRow;

const MIB: i64 = 1 << 20;
/// What a container sees of where it runs, as on ECS.
const EXECUTION_ENV: &str = "AWS_EXECUTION_ENV";

/// A payload and the roles whose credentials go with it.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltTask {
    pub task: Task,
    pub roles: Vec<(RoleType, String)>,
}

/// Builds the payload of a task, or says why the node cannot run it.
pub fn build(
    names: &RegistryNames,
    definition: &ecs::TaskDefinition,
    row: &TaskRow,
) -> Result<BuiltTask, String> {
    let spec = honoured_task(definition)?;
    let overrides = honoured_override(&row.overrides)?;
    let network_mode = match spec.network_mode.unwrap_or("bridge") {
        mode @ ("bridge" | "host" | "none") => mode,
        mode => {
            return Err(format!(
                "ResourceInitializationError: networkMode '{mode}' is not built yet; use 'bridge', 'host' or 'none'"
            ));
        }
    };
    let execution_role = overrides.execution_role_arn.or(spec.execution_role_arn);
    let task_role = overrides.task_role_arn.or(spec.task_role_arn);
    let place = Place {
        names,
        row,
        network_mode,
        execution_role: execution_role.is_some(),
    };
    let containers = spec
        .containers
        .iter()
        .map(|container| {
            let name = container.name.as_deref();
            let given = overrides
                .containers
                .iter()
                .find(|o| o.name.as_deref() == name);
            place.container(container, given)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let arn = Arn::task(&names.region, &names.account, &row.cluster, &row.id);
    let mut roles = Vec::new();
    roles.extend(execution_role.map(|arn| (RoleType::TaskExecution, arn.to_owned())));
    roles.extend(task_role.map(|arn| (RoleType::TaskApplication, arn.to_owned())));
    let task = Task {
        arn: Some(arn.to_string()),
        containers,
        cpu: overrides
            .cpu
            .or(spec.cpu)
            .and_then(cpu_units)
            .map(|units| units as f64 / 1024.0),
        desired_status: Some(DesiredStatus::Running),
        family: Some(row.family.to_string()),
        launch_type: Some(row.launch_type.as_str().to_owned()),
        memory: overrides.memory.or(spec.memory).and_then(mebibytes),
        ipc_mode: spec.ipc_mode.map(str::to_owned),
        network_mode: Some(network_mode.to_owned()),
        pid_mode: spec.pid_mode.map(str::to_owned),
        service_name: row.group.strip_prefix("service:").map(str::to_owned),
        task_definition_account_id: Some(names.account.to_string()),
        version: Some(row.revision.to_string()),
        volumes: volumes::volumes(spec.volumes)?,
        ..Task::default()
    };
    Ok(BuiltTask { task, roles })
}

struct Place<'a> {
    names: &'a RegistryNames,
    row: &'a TaskRow,
    network_mode: &'a str,
    execution_role: bool,
}

impl Place<'_> {
    /// The image by the digest that the service's deployment found its tag to have, so that all of
    /// its tasks run the same.
    fn pinned(&self, definition: &ContainerDefinition, image: &str) -> String {
        let name = definition.name.as_deref().unwrap_or_default();
        let replica = self.row.replica.as_ref();
        let digest = replica.and_then(|replica| replica.digests.get(name));
        let wanted = definition.version_consistency != Some(ecs::VersionConsistency::Disabled);
        let Some(digest) = digest.filter(|_| wanted && !image.contains('@')) else {
            return image.to_owned();
        };
        let path = image.rfind('/').map_or(0, |at| at + 1);
        let tag = image.get(path..).and_then(|name| name.find(':'));
        let repository = tag.and_then(|at| image.get(..path + at)).unwrap_or(image);
        format!("{repository}@{digest}")
    }

    fn container(
        &self,
        definition: &ContainerDefinition,
        given: Option<&ContainerOverride>,
    ) -> Result<Container, String> {
        let spec = honoured(definition)?;
        let image = spec.image.unwrap_or_default();
        let memory = given.and_then(|o| o.memory).or(spec.memory);
        let reservation = given
            .and_then(|o| o.memory_reservation)
            .or(spec.memory_reservation);
        let inside = docker::container_config(&spec);
        let host = docker::host_config(self, &spec, memory, reservation)?;
        let command = given.and_then(|o| o.command.as_ref()).or(spec.command);
        let container_id = self
            .row
            .containers
            .iter()
            .find(|c| c.name == spec.name)
            .map(|c| &c.id);
        Ok(Container {
            command: command.cloned().unwrap_or_default(),
            container_arn: container_id.map(|id| self.container_arn(id)),
            cpu: given.and_then(|o| o.cpu).or(spec.cpu).map(i64::from),
            depends_on: dependencies(&spec)?,
            docker_config: Some(DockerConfig::of(&inside, &host)),
            entry_point: spec.entry_point.cloned(),
            environment: environment(&self.row.launch_type, &spec, given),
            essential: Some(spec.essential),
            health_check_type: spec.health_check.map(|_| "docker".to_owned()),
            image: Some(self.pinned(definition, image)),
            links: spec.links.to_vec(),
            logs_auth_strategy: self.execution_role.then(|| "ExecutionRole".to_owned()),
            memory: memory.map(i64::from),
            mount_points: volumes::mount_points(spec.mount_points),
            name: Some(spec.name.to_owned()),
            port_mappings: ports(&spec),
            registry_authentication: self.names.authentication(image, self.execution_role),
            restart_policy: restart_policy(&spec),
            start_timeout: spec.start_timeout.map(i64::from),
            stop_timeout: spec.stop_timeout.map(i64::from),
            volumes_from: volumes::volumes_from(spec.volumes_from),
            ..Container::default()
        })
    }

    fn container_arn(&self, id: &str) -> String {
        let resource = format!("container/{}/{}/{id}", self.row.cluster, self.row.id);
        Arn::new("ecs", &self.names.region, &self.names.account, resource).to_string()
    }
}

/// ECS's own variables, the definition's and the override's, the later over the earlier.
fn environment(
    launch_type: &ecs::LaunchType,
    spec: &Honoured<'_>,
    given: Option<&ContainerOverride>,
) -> BTreeMap<String, String> {
    let place = match launch_type {
        ecs::LaunchType::External => "EXTERNAL",
        ecs::LaunchType::Fargate => "AWS_ECS_FARGATE",
        _ => "AWS_ECS_EC2",
    };
    let overridden = given
        .and_then(|o| o.environment.as_deref())
        .unwrap_or_default();
    let mut environment = BTreeMap::from([(EXECUTION_ENV.to_owned(), place.to_owned())]);
    for pair in spec.environment.iter().chain(overridden) {
        if let Some(name) = &pair.name {
            environment.insert(name.clone(), pair.value.clone().unwrap_or_default());
        }
    }
    environment
}

/// One that is not enabled is none.
fn restart_policy(spec: &Honoured<'_>) -> Option<RestartPolicy> {
    let ecs::ContainerRestartPolicy {
        enabled,
        ignored_exit_codes,
        restart_attempt_period,
    } = spec.restart_policy?;
    enabled.then(|| RestartPolicy {
        enabled: Some(true),
        ignored_exit_codes: ignored_exit_codes.clone().unwrap_or_default(),
        restart_attempt_period: restart_attempt_period.map(i64::from),
    })
}

fn dependencies(spec: &Honoured<'_>) -> Result<Vec<ContainerDependency>, String> {
    spec.depends_on
        .iter()
        .map(|dependency| {
            let condition = match dependency.condition.as_str() {
                "START" => Condition::Start,
                "COMPLETE" => Condition::Complete,
                "SUCCESS" => Condition::Success,
                "HEALTHY" => Condition::Healthy,
                other => {
                    return Err(not_built(
                        &format!("dependsOn condition {other}"),
                        spec.name,
                    ));
                }
            };
            Ok(ContainerDependency {
                container_name: dependency.container_name.clone(),
                condition,
            })
        })
        .collect()
}

fn ports(spec: &Honoured<'_>) -> Vec<gantry_api::acs::PortMapping> {
    spec.port_mappings
        .iter()
        .map(|mapping| {
            let ecs::PortMapping {
                app_protocol: _,
                container_port,
                container_port_range,
                host_port,
                name,
                protocol,
            } = mapping;
            gantry_api::acs::PortMapping {
                container_port: container_port.map(i64::from),
                container_port_range: container_port_range.clone(),
                host_port: host_port.map(i64::from),
                name: name.clone(),
                protocol: protocol
                    .as_ref()
                    .map(|protocol| protocol.as_str().to_owned()),
            }
        })
        .collect()
}

/// `256` or `.25 vCPU`, as a task definition says it.
fn cpu_units(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    match text.strip_suffix("vcpu") {
        Some(vcpu) => vcpu
            .trim()
            .parse::<f64>()
            .ok()
            .map(|vcpu| (vcpu * 1024.0).round() as i64),
        None => text.parse().ok(),
    }
}

/// `512` or `0.5 GB`.
fn mebibytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    match text.strip_suffix("gb") {
        Some(gb) => gb
            .trim()
            .parse::<f64>()
            .ok()
            .map(|gb| (gb * 1024.0).round() as i64),
        None => text.parse().ok(),
    }
}
