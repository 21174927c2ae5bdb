//! What a placement looks at: container instances as they are now, and what a task needs.

use std::collections::{BTreeMap, BTreeSet};

use gantry_arn::ContainerInstanceId;

/// CPU units, MiB and host ports: what an instance has left, or what a task takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    pub cpu: i64,
    pub memory: i64,
}

/// Whether tasks may be placed on an instance at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligibility {
    Eligible,
    /// Deregistered, or DRAINING: new tasks keep away.
    Inactive,
    /// The agent is not connected, so nobody would start the task.
    AgentDisconnected,
}

/// An attribute of an instance, or one that a task requires. A requirement without a value is met
/// by the name alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attribute {
    pub name: String,
    pub value: Option<String>,
}

/// A container instance as placement sees it.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub id: ContainerInstanceId,
    pub eligibility: Eligibility,
    pub free: Capacity,
    pub tcp_ports_taken: BTreeSet<u16>,
    pub udp_ports_taken: BTreeSet<u16>,
    /// Includes `ecs.availability-zone`.
    pub attributes: BTreeMap<String, Option<String>>,
    /// How many tasks of each group it holds: `distinctInstance` and `spread` count these.
    pub tasks_by_group: BTreeMap<String, u32>,
}

/// What one task needs.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    pub needs: Capacity,
    pub tcp_ports: Vec<u16>,
    pub udp_ports: Vec<u16>,
    pub requires_attributes: Vec<Attribute>,
    /// Tasks started together belong together: their group.
    pub group: String,
}

impl Candidate {
    /// How many tasks of the group are here.
    pub fn tasks_of(&self, group: &str) -> u32 {
        self.tasks_by_group.get(group).copied().unwrap_or(0)
    }

    /// The attributes that the task requires and this instance lacks.
    pub fn lacks(&self, demand: &Demand) -> Vec<Attribute> {
        let met = |required: &&Attribute| match self.attributes.get(&required.name) {
            None => false,
            Some(value) => required.value.is_none() || required.value == *value,
        };
        demand
            .requires_attributes
            .iter()
            .filter(|required| !met(required))
            .cloned()
            .collect()
    }

    /// Gives the task its share, as the commit of the plan will.
    pub(crate) fn take(&mut self, demand: &Demand) {
        self.free.cpu -= demand.needs.cpu;
        self.free.memory -= demand.needs.memory;
        self.tcp_ports_taken.extend(&demand.tcp_ports);
        self.udp_ports_taken.extend(&demand.udp_ports);
        *self.tasks_by_group.entry(demand.group.clone()).or_default() += 1;
    }
}
