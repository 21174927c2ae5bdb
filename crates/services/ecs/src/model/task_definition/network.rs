//! Ports and names on the network: what each network mode allows.

use std::collections::BTreeSet;

use gantry_api::ecs::{
    ContainerDefinition, EcsError, NetworkMode, PortMapping, RegisterTaskDefinitionRequest,
    TransportProtocol,
};

use super::super::absent::items;
use super::super::refusal::client;

/// Of single ports and of ranges together.
const PORT_MAPPINGS_MAX: usize = 100;

pub(super) fn validate(input: &RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    let mode = input.network_mode.clone().unwrap_or(NetworkMode::Bridge);
    let mut taken = BTreeSet::new();
    let mut names = BTreeSet::new();
    for container in &input.container_definitions {
        if mode != NetworkMode::Bridge && !items(&container.links).is_empty() {
            return Err(client(format!(
                "Links are not supported when networkMode={}.",
                mode.as_str()
            )));
        }
        if mode == NetworkMode::None && !items(&container.port_mappings).is_empty() {
            return Err(client(
                "Port mappings are not supported when networkMode=none.",
            ));
        }
        if items(&container.port_mappings).len() > PORT_MAPPINGS_MAX {
            return Err(client("Too many port mappings."));
        }
        validate_host_names(container, &mode)?;
        validate_overlaps(items(&container.port_mappings))?;
        for mapping in items(&container.port_mappings) {
            validate_mapping(mapping, &mode)?;
            let protocol = protocol(mapping);
            let port = host_port(mapping, &mode);
            if port != 0 && !taken.insert((protocol, port)) {
                return Err(client(format!(
                    "{} host port '{port}' is mapped multiple times in task.",
                    protocol.to_uppercase()
                )));
            }
            if let Some(name) = &mapping.name
                && !names.insert(name.clone())
            {
                return Err(client(format!(
                    "Port mapping name '{name}' must be unique within a Task Definition."
                )));
            }
        }
    }
    Ok(())
}

/// The host port that the mapping holds on its container instance; 0 if the node chooses one.
pub fn host_port(mapping: &PortMapping, mode: &NetworkMode) -> i32 {
    match mode {
        NetworkMode::Bridge => mapping.host_port.unwrap_or(0),
        _ => mapping.host_port.or(mapping.container_port).unwrap_or(0),
    }
}

/// `tcp` unless it is said to be `udp`.
pub fn protocol(mapping: &PortMapping) -> &'static str {
    match &mapping.protocol {
        Some(TransportProtocol::Udp) => "udp",
        _ => "tcp",
    }
}

fn validate_mapping(mapping: &PortMapping, mode: &NetworkMode) -> Result<(), EcsError> {
    if let Some(range) = &mapping.container_port_range {
        return validate_range(range, mapping, mode);
    }
    let Some(container_port) = mapping.container_port else {
        return Err(client(
            "Port mapping's containerPort or containerPortRange must be specified.",
        ));
    };
    if !(1..=65535).contains(&container_port) {
        return Err(client(format!(
            "Invalid container port '{container_port}' in port mapping. Valid ports are between 1 and 65535."
        )));
    }
    let host_port = mapping.host_port.unwrap_or(0);
    if !(0..=65535).contains(&host_port) {
        return Err(client(format!(
            "Invalid host port '{host_port}' in port mapping. Valid ports are between 0 and 65535."
        )));
    }
    // Zero stands for "not given" here as it does for the node.
    let differs = host_port != 0 && host_port != container_port;
    match mode {
        NetworkMode::Awsvpc | NetworkMode::Host if differs => Err(client(format!(
            "When networkMode={}, the host ports and container ports in port mappings must match.",
            mode.as_str()
        ))),
        _ => Ok(()),
    }
}

fn validate_range(range: &str, mapping: &PortMapping, mode: &NetworkMode) -> Result<(), EcsError> {
    if mapping.container_port.is_some() || mapping.host_port.is_some() {
        return Err(client(
            "containerPortRange cannot be specified together with containerPort or hostPort in port mappings.",
        ));
    }
    if !matches!(mode, NetworkMode::Bridge | NetworkMode::Awsvpc) {
        return Err(client(format!(
            "containerPortRange is not supported when networkMode={}.",
            mode.as_str()
        )));
    }
    match port_range(range) {
        Some(_) => Ok(()),
        None => Err(client(format!(
            "Invalid containerPortRange '{range}' in port mapping. It must be FIRST-LAST, with ports between 1 and 65535, and the first less than the last."
        ))),
    }
}

/// The bounds of `FIRST-LAST`: two ports, the first less than the last.
pub fn port_range(range: &str) -> Option<(u16, u16)> {
    let port = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (first, last) = range.split_once('-')?;
    let (first, last) = (port(first)?, port(last)?);
    (first >= 1 && first < last).then_some((first, last))
}

/// What a container has once cannot lead to two places: where there is a range, no port is in two mappings.
fn validate_overlaps(mappings: &[PortMapping]) -> Result<(), EcsError> {
    let span = |mapping: &PortMapping| {
        let range = mapping.container_port_range.as_deref();
        let port = || u16::try_from(mapping.container_port?).ok();
        match range {
            Some(range) => port_range(range),
            None => port().map(|port| (port, port)),
        }
    };
    let ranges = mappings
        .iter()
        .enumerate()
        .filter_map(|(at, mapping)| Some((at, mapping.container_port_range.as_deref()?, mapping)));
    for (at, range, mapping) in ranges {
        let Some((first, last)) = span(mapping) else {
            continue;
        };
        let others = mappings
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at);
        for (_, other) in others.filter(|(_, other)| protocol(other) == protocol(mapping)) {
            if span(other).is_some_and(|(from, to)| from <= last && first <= to) {
                return Err(client(format!(
                    "The containerPortRange '{range}' overlaps another port mapping of the container. A port can only be included in one port mapping per container."
                )));
            }
        }
    }
    Ok(())
}

/// A container that shares the host's or no network cannot have names of its own on it.
fn validate_host_names(
    container: &ContainerDefinition,
    mode: &NetworkMode,
) -> Result<(), EcsError> {
    let refuse = |member: &str| {
        Err(client(format!(
            "{member} is not supported when networkMode={}.",
            mode.as_str()
        )))
    };
    if *mode == NetworkMode::Awsvpc {
        if container
            .hostname
            .as_ref()
            .is_some_and(|name| !name.is_empty())
        {
            return refuse("hostname");
        }
        if !items(&container.extra_hosts).is_empty() {
            return refuse("extraHosts");
        }
        if !items(&container.dns_servers).is_empty() {
            return refuse("dnsServers");
        }
        if !items(&container.dns_search_domains).is_empty() {
            return refuse("dnsSearchDomains");
        }
    }
    if *mode == NetworkMode::Host
        && container
            .hostname
            .as_ref()
            .is_some_and(|name| !name.is_empty())
    {
        return refuse("hostname");
    }
    if *mode == NetworkMode::None && !items(&container.extra_hosts).is_empty() {
        return refuse("extraHosts");
    }
    Ok(())
}
