//! The resources of a container instance: what it registered, and what is left.

use std::collections::BTreeSet;

use gantry_api::ecs::{EcsError, Resource};

use super::absent::items;
use super::refusal::invalid;
use crate::tables::Reserved;

/// What is set aside on an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    pub cpu: i64,
    pub memory: i64,
    pub tcp_ports: BTreeSet<u16>,
    pub udp_ports: BTreeSet<u16>,
}

impl Taken {
    pub fn add(&mut self, reserved: &Reserved) {
        self.cpu += reserved.cpu;
        self.memory += reserved.memory;
        self.tcp_ports.extend(&reserved.tcp_ports);
        self.tcp_ports.extend(&reserved.bound_tcp_ports);
        self.udp_ports.extend(&reserved.udp_ports);
        self.udp_ports.extend(&reserved.bound_udp_ports);
    }
}

/// An instance must say how much CPU and memory it has.
pub fn validate(resources: &[Resource]) -> Result<(), EcsError> {
    for name in ["CPU", "MEMORY"] {
        match number(resources, name) {
            Some(amount) if amount >= 0 => {}
            _ => {
                return Err(invalid(format!(
                    "Invalid resource {name} in totalResources."
                )));
            }
        }
    }
    Ok(())
}

/// The amount of a numeric resource, however it was typed.
pub fn number(resources: &[Resource], name: &str) -> Option<i64> {
    let resource = resources
        .iter()
        .find(|resource| resource.name.as_deref() == Some(name))?;
    // Agents fill in every member and name the one that counts.
    match resource.r#type.as_deref() {
        Some("LONG") => resource.long_value,
        Some("DOUBLE") => resource.double_value.map(|value| value as i64),
        _ => resource
            .integer_value
            .map(i64::from)
            .or(resource.long_value),
    }
}

/// The ports that the instance itself uses.
pub fn ports(resources: &[Resource], name: &str) -> BTreeSet<u16> {
    let resource = resources
        .iter()
        .find(|resource| resource.name.as_deref() == Some(name));
    let texts = resource
        .map(|resource| items(&resource.string_set_value))
        .unwrap_or_default();
    texts.iter().filter_map(|port| port.parse().ok()).collect()
}

/// What is left: amounts less what is taken, and port sets with what is taken added.
pub fn remaining(registered: &[Resource], taken: &Taken) -> Vec<Resource> {
    let less = |resource: &Resource, amount: i64| {
        let mut left = resource.clone();
        match resource.r#type.as_deref() {
            Some("LONG") => left.long_value = left.long_value.map(|value| value - amount),
            Some("DOUBLE") => {
                left.double_value = left.double_value.map(|value| value - amount as f64);
            }
            _ => {
                let amount = i32::try_from(amount).unwrap_or(i32::MAX);
                left.integer_value = left.integer_value.map(|value| value.saturating_sub(amount));
            }
        }
        left
    };
    let with = |resource: &Resource, name: &str, more: &BTreeSet<u16>| {
        let mut all = ports(registered, name);
        all.extend(more);
        let mut used = resource.clone();
        used.string_set_value = Some(all.iter().map(u16::to_string).collect());
        used
    };
    let left = |resource: &Resource| match resource.name.as_deref() {
        Some("CPU") => less(resource, taken.cpu),
        Some("MEMORY") => less(resource, taken.memory),
        Some("PORTS") => with(resource, "PORTS", &taken.tcp_ports),
        Some("PORTS_UDP") => with(resource, "PORTS_UDP", &taken.udp_ports),
        _ => resource.clone(),
    };
    registered.iter().map(left).collect()
}
