//! What the checks look at, read from the copied rows after the change was asked for.

use std::sync::Arc;

use gantry_api::ecs::{Resource, SchedulingStrategy};
use gantry_ecs::model::absent::items;
use gantry_ecs::model::overrides::{normalized, reserved};
use gantry_ecs::model::reference::Scope;
use gantry_ecs::model::service::request::percents;
use gantry_ecs::model::task_view::TaskState;
use gantry_ecs::tables::{
    AcsSessionRow, AllocationRow, ContainerInstanceRow, ContainerInstanceStatus, Reserved,
    ServiceRow, ServiceStateRow, TaskDefinitionRow, TaskDesiredRow, TaskReportRow, TaskRow,
    cluster_prefix, service_group, service_row_name, task_definition_name, task_name,
};
use gantry_store::{Snapshot, Table};

use super::checks::{Facts, Finding, Room, check};

/// Looks at a service that shall be as `service` says. A DAEMON has no count that could be too high, and is
/// replaced where it is: there is nothing to find out beforehand.
pub fn findings(snapshot: &Snapshot, scope: &Scope, service: &ServiceRow) -> Vec<Finding> {
    if service.scheduling_strategy == SchedulingStrategy::Daemon {
        return Vec::new();
    }
    let revision = &service.target.revision;
    let name = task_definition_name(&revision.family, revision.task_definition);
    let Some(definition) = read::<TaskDefinitionRow>(snapshot, scope, &name) else {
        return Vec::new();
    };
    let definition = &definition.definition;
    let group = service_group(&service.name);
    let takes = reserved(definition, &normalized(None, definition), &group);
    let (minimum_percent, maximum_percent) = percents(&service.configuration);
    let name = service_row_name(&service.cluster, &service.name);
    let state = read::<ServiceStateRow>(snapshot, scope, &name);
    let state = state.filter(|state| state.incarnation == service.incarnation);
    let rooms = rooms(snapshot, scope, service, &takes);
    let has_tasks = rooms.iter().any(|room| room.of_service > 0);
    let asks = state.is_some_and(|it| it.handled != service.target.service_deployment);
    let mut host_ports: Vec<u16> = takes.tcp_ports.clone();
    host_ports.extend(&takes.udp_ports);
    let containers = items(&definition.container_definitions);
    check(&Facts {
        desired: service.desired_count,
        minimum_percent,
        maximum_percent,
        cpu: takes.cpu,
        memory: takes.memory,
        host_ports,
        rooms,
        replaces: has_tasks && asks,
        breaker: service.configuration.deployment_circuit_breaker.as_ref(),
        is_checked: containers
            .iter()
            .any(|it| it.essential != Some(false) && it.health_check.is_some()),
    })
}

fn read<T: Table<Row = T>>(snapshot: &Snapshot, scope: &Scope, name: &str) -> Option<Arc<T>> {
    let read = snapshot.read::<T>(&scope.account, &scope.region, name);
    read.map(|read| read.row)
}

fn rooms(snapshot: &Snapshot, scope: &Scope, service: &ServiceRow, takes: &Reserved) -> Vec<Room> {
    let prefix = cluster_prefix(&service.cluster);
    let instances =
        snapshot.list_prefix::<ContainerInstanceRow>(&scope.account, &scope.region, &prefix);
    let can_take = |name: &str| {
        let session = read::<AcsSessionRow>(snapshot, scope, name);
        session.is_some_and(|session| session.connected)
    };
    instances
        .iter()
        .filter(|it| it.status == ContainerInstanceStatus::Active && can_take(it.name()))
        .map(|it| room(snapshot, scope, service, takes, &it.row, it.name()))
        .collect()
}

fn room(
    snapshot: &Snapshot,
    scope: &Scope,
    service: &ServiceRow,
    takes: &Reserved,
    instance: &ContainerInstanceRow,
    name: &str,
) -> Room {
    let registered = &instance.registered_resources;
    let mut room = Room {
        cpu: number(registered, "CPU"),
        memory: number(registered, "MEMORY"),
        ..Room::default()
    };
    let mut used = ports(registered, "PORTS");
    used.extend(ports(registered, "PORTS_UDP"));
    let allocation = read::<AllocationRow>(snapshot, scope, name);
    for (task, share) in allocation.iter().flat_map(|row| &row.tasks) {
        let name = task_name(&service.cluster, task);
        let Some(task) = task_state(snapshot, scope, &name) else {
            continue;
        };
        if task.last_status().is_stopped() {
            continue;
        }
        room.cpu -= share.cpu;
        room.memory -= share.memory;
        if task.spec.group == service_group(&service.name) {
            room.of_service += 1;
            continue;
        }
        used.extend(share.tcp_ports.iter().chain(&share.bound_tcp_ports));
        used.extend(share.udp_ports.iter().chain(&share.bound_udp_ports));
    }
    let wanted = takes.tcp_ports.iter().chain(&takes.udp_ports);
    room.taken_ports = wanted.filter(|port| used.contains(port)).copied().collect();
    room
}

/// A task from its rows.
pub fn task_state(snapshot: &Snapshot, scope: &Scope, name: &str) -> Option<TaskState> {
    Some(TaskState {
        spec: read::<TaskRow>(snapshot, scope, name)?,
        desired: read::<TaskDesiredRow>(snapshot, scope, name),
        report: read::<TaskReportRow>(snapshot, scope, name),
        health: None,
    })
}

fn number(resources: &[Resource], name: &str) -> i64 {
    let named = resources.iter().find(|it| it.name.as_deref() == Some(name));
    named.and_then(|it| it.integer_value).map_or(0, i64::from)
}

fn ports(resources: &[Resource], name: &str) -> Vec<u16> {
    let named = resources.iter().find(|it| it.name.as_deref() == Some(name));
    let texts = named
        .map(|it| items(&it.string_set_value))
        .unwrap_or_default();
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
