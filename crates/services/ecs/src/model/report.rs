//! What a node's report adds to what was reported before.
//!
//! What always holds: the same report again adds nothing; a late report takes nothing back; what
//! was once known (an exit code, a runtime id, a time) stays as it was first reported.

use gantry_api::ecs::{
    ContainerStateChange, EcsError, NetworkBinding, SubmitContainerStateChangeRequest,
    SubmitTaskStateChangeRequest, TaskDefinition, TransportProtocol,
};
use gantry_env::Timestamp;

use super::absent::items;
use super::last_status::LastStatus;
use super::refusal::invalid;
use super::task_definition::network::port_range;
use crate::tables::{ContainerReport, Ending, StopCode, TaskReportRow};

/// A report, whichever operation it came by.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub status: Option<LastStatus>,
    pub reason: Option<String>,
    pub containers: Vec<ContainerReport>,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
    pub execution_stopped_at: Option<Timestamp>,
}

impl Report {
    pub fn of_task(input: SubmitTaskStateChangeRequest) -> Result<Self, EcsError> {
        let containers = input.containers.unwrap_or_default();
        Ok(Self {
            status: status(input.status.as_deref())?,
            reason: input.reason.filter(|reason| !reason.is_empty()),
            containers: containers
                .into_iter()
                .map(container)
                .collect::<Result<_, _>>()?,
            pull_started_at: input.pull_started_at,
            pull_stopped_at: input.pull_stopped_at,
            execution_stopped_at: input.execution_stopped_at,
        })
    }

    pub fn of_container(input: SubmitContainerStateChangeRequest) -> Result<Self, EcsError> {
        let change = ContainerStateChange {
            container_name: input.container_name,
            exit_code: input.exit_code,
            image_digest: None,
            network_bindings: input.network_bindings,
            reason: input.reason,
            runtime_id: input.runtime_id,
            status: input.status,
        };
        Ok(Self {
            containers: vec![container(change)?],
            ..Self::default()
        })
    }
}

fn status(word: Option<&str>) -> Result<Option<LastStatus>, EcsError> {
    match word {
        None | Some("") => Ok(None),
        Some(word) => match LastStatus::from_report(word) {
            Some(status) => Ok(Some(status)),
            None => Err(invalid(format!("Invalid status '{word}'."))),
        },
    }
}

fn container(change: ContainerStateChange) -> Result<ContainerReport, EcsError> {
    let name = change.container_name.unwrap_or_default();
    if name.is_empty() {
        return Err(invalid("containerName should not be null or empty."));
    }
    Ok(ContainerReport {
        name,
        status: status(change.status.as_deref())?.unwrap_or(LastStatus::Pending),
        runtime_id: change.runtime_id,
        image_digest: change.image_digest,
        exit_code: change.exit_code,
        reason: change.reason.filter(|reason| !reason.is_empty()),
        network_bindings: sorted(change.network_bindings.unwrap_or_default()),
    })
}

/// The row with the report in it, or `None` if the report says nothing new.
///
/// `stop_decided` tells that somebody already wants the task stopped: then its end is no surprise
/// and has its reason already.
pub fn merge(
    before: Option<&TaskReportRow>,
    report: &Report,
    definition: &TaskDefinition,
    stop_decided: bool,
    now: Timestamp,
) -> Option<TaskReportRow> {
    let mut after = before.cloned().unwrap_or(TaskReportRow {
        status: LastStatus::Pending,
        changes: 0,
        containers: Vec::new(),
        pull_started_at: None,
        pull_stopped_at: None,
        started_at: None,
        execution_stopped_at: None,
        stopped_at: None,
        ending: None,
    });
    for reported in &report.containers {
        // A container that the task has not is no business of anybody who reads the task.
        if is_defined(definition, &reported.name) {
            merge_container(&mut after.containers, reported);
        }
    }
    order(&mut after.containers, definition);
    after.status = after
        .status
        .advance(report.status.unwrap_or(LastStatus::Pending));
    fill(&mut after.pull_started_at, report.pull_started_at);
    fill(&mut after.pull_stopped_at, report.pull_stopped_at);
    fill(&mut after.execution_stopped_at, report.execution_stopped_at);
    let ended = ended_essential(&after.containers, definition);
    let (essential_ended, exited) = (
        ended.is_some(),
        ended.is_some_and(|c| c.exit_code.is_some() && c.runtime_id.is_some()),
    );
    // A task may end before its node comes to report it RUNNING: an exit code tells that it ran. That of a container
    // which the runtime never made (143, where a dependency failed) tells the opposite.
    if exited || (LastStatus::Running..LastStatus::Stopped).contains(&after.status) {
        fill(&mut after.started_at, Some(now));
    }
    if essential_ended {
        fill(&mut after.execution_stopped_at, Some(now));
    }
    if after.status.is_stopped() {
        fill(&mut after.stopped_at, Some(now));
    }
    if after.ending.is_none() && !stop_decided && (essential_ended || after.status.is_stopped()) {
        after.ending = Some(ending(&after, report, definition, now));
    }
    if before == Some(&after) {
        return None;
    }
    after.changes += 1;
    Some(after)
}

fn merge_container(containers: &mut Vec<ContainerReport>, reported: &ContainerReport) {
    let Some(known) = containers
        .iter_mut()
        .find(|known| known.name == reported.name)
    else {
        containers.push(reported.clone());
        return;
    };
    let over = known.status.is_stopped();
    known.status = known.status.advance(reported.status);
    fill(&mut known.image_digest, reported.image_digest.clone());
    if over {
        fill(&mut known.runtime_id, reported.runtime_id.clone());
        fill(&mut known.exit_code, reported.exit_code);
        fill(&mut known.reason, reported.reason.clone());
        return;
    }
    // Until it is over, a restarted container has a new runtime id and a newer exit code.
    replace(&mut known.runtime_id, reported.runtime_id.clone());
    replace(&mut known.exit_code, reported.exit_code);
    replace(&mut known.reason, reported.reason.clone());
    if !reported.network_bindings.is_empty() {
        known
            .network_bindings
            .clone_from(&reported.network_bindings);
    }
}

/// The host ports that lead into a container by this protocol.
pub fn host_ports(container: &ContainerReport, protocol: &str) -> Vec<u16> {
    let mut ports = Vec::new();
    for binding in &container.network_bindings {
        let is_udp = binding.protocol == Some(TransportProtocol::Udp);
        if is_udp != (protocol == "udp") {
            continue;
        }
        let range = binding.host_port_range.as_deref().and_then(port_range);
        match (range, binding.host_port) {
            (Some((first, last)), _) => ports.extend(first..=last),
            (None, Some(port)) => ports.extend(u16::try_from(port).ok().filter(|port| *port > 0)),
            (None, None) => {}
        }
    }
    ports
}

/// Agents list bindings in no particular order; the same ones again are no change.
fn sorted(mut bindings: Vec<NetworkBinding>) -> Vec<NetworkBinding> {
    bindings.sort_by_key(|binding| {
        (
            binding.container_port,
            binding.host_port,
            binding.container_port_range.clone(),
            binding.host_port_range.clone(),
            binding.bind_ip.clone(),
        )
    });
    bindings
}

fn order(containers: &mut [ContainerReport], definition: &TaskDefinition) {
    let position = |name: &str| {
        items(&definition.container_definitions)
            .iter()
            .position(|container| container.name.as_deref() == Some(name))
    };
    containers.sort_by_key(|container| position(&container.name));
}

fn is_defined(definition: &TaskDefinition, name: &str) -> bool {
    let named = |c: &gantry_api::ecs::ContainerDefinition| c.name.as_deref() == Some(name);
    items(&definition.container_definitions).iter().any(named)
}

/// The first essential container that has ended.
fn ended_essential<'a>(
    containers: &'a [ContainerReport],
    definition: &TaskDefinition,
) -> Option<&'a ContainerReport> {
    let is_essential = |name: &str| {
        items(&definition.container_definitions)
            .iter()
            .any(|c| c.name.as_deref() == Some(name) && c.essential != Some(false))
    };
    containers
        .iter()
        .find(|c| c.status.is_stopped() && is_essential(&c.name))
}

/// Why it ended by itself. A task none of whose containers ever ran has failed to start.
fn ending(
    row: &TaskReportRow,
    report: &Report,
    definition: &TaskDefinition,
    now: Timestamp,
) -> Ending {
    let essential = ended_essential(&row.containers, definition);
    if row.started_at.is_some() {
        return Ending {
            stop_code: StopCode::EssentialContainerExited,
            reason: "Essential container in task exited".to_owned(),
            at: now,
        };
    }
    let of_container = || {
        let first = row
            .containers
            .iter()
            .find_map(|container| container.reason.clone());
        essential
            .and_then(|container| container.reason.clone())
            .or(first)
    };
    let reason = report.reason.clone().or_else(of_container);
    Ending {
        stop_code: StopCode::TaskFailedToStart,
        reason: reason.unwrap_or_else(|| "Task failed to start".to_owned()),
        at: now,
    }
}

fn fill<T>(known: &mut Option<T>, reported: Option<T>) {
    if known.is_none() {
        *known = reported;
    }
}

fn replace<T>(known: &mut Option<T>, reported: Option<T>) {
    if reported.is_some() {
        *known = reported;
    }
}
