//! What a placement looks at: container instances as they are now, and what a task needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_arn::ContainerInstanceId;

/// CPU units and MiB: what an instance has left, or what a task takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capacity {
    pub cpu: i64,
    pub memory: i64,
}

/// Whether tasks may be placed on an instance at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Eligibility {
    #[default]
    Eligible,
    /// Deregistered, or DRAINING: new tasks keep away.
    Inactive,
    /// The agent is not connected, so nobody would start the task.
    AgentDisconnected,
}

/// Which launch type an instance serves. Instances of another one are not looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LaunchType {
    #[default]
    Ec2,
    External,
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
    pub launch_type: LaunchType,
    pub free: Capacity,
    pub tcp_ports_taken: BTreeSet<u16>,
    pub udp_ports_taken: BTreeSet<u16>,
    /// Includes `ecs.availability-zone`.
    pub attributes: Arc<BTreeMap<String, Option<String>>>,
    /// How many tasks of each group it holds: `distinctInstance` and `spread` count these.
    pub tasks_by_group: BTreeMap<String, u32>,
    pub running_tasks: u32,
    pub agent_connected: bool,
    pub agent_version: Option<Arc<str>>,
    /// Empty where the machine brought none.
    pub ec2_instance_id: Arc<str>,
    pub registered_at_ms: i64,
    /// A placement on it is being committed, so another one would have to wait. Among instances
    /// that are equally good, those that are not busy are taken first.
    pub busy: bool,
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
    pub launch_type: LaunchType,
}

impl Candidate {
    /// An instance that is empty, eligible and has nothing but an id.
    pub fn new(id: ContainerInstanceId) -> Self {
        Self {
            id,
            eligibility: Eligibility::Eligible,
            launch_type: LaunchType::Ec2,
            free: Capacity::default(),
            tcp_ports_taken: BTreeSet::new(),
            udp_ports_taken: BTreeSet::new(),
            attributes: Arc::default(),
            tasks_by_group: BTreeMap::new(),
            running_tasks: 0,
            agent_connected: true,
            agent_version: None,
            ec2_instance_id: Arc::from(""),
            registered_at_ms: 0,
            busy: false,
        }
    }

    /// How many tasks of the group are here.
    pub fn tasks_of(&self, group: &str) -> u32 {
        self.tasks_by_group.get(group).copied().unwrap_or(0)
    }

    /// The value of an attribute: none where there is no such attribute, or it has no value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).and_then(Option::as_deref)
    }

    pub(crate) fn meets(&self, required: &Attribute) -> bool {
        match self.attributes.get(&required.name) {
            None => false,
            Some(value) => required.value.is_none() || required.value == *value,
        }
    }

    /// The attributes that the task requires and this instance lacks.
    pub fn lacks(&self, demand: &Demand) -> Vec<Attribute> {
        let required = demand.requires_attributes.iter();
        required.filter(|r| !self.meets(r)).cloned().collect()
    }

    /// Gives the task its share, as the commit of the plan will.
    pub(crate) fn take(&mut self, demand: &Demand) {
        self.free.cpu -= demand.needs.cpu;
        self.free.memory -= demand.needs.memory;
        self.tcp_ports_taken.extend(&demand.tcp_ports);
        self.udp_ports_taken.extend(&demand.udp_ports);
        match self.tasks_by_group.get_mut(&demand.group) {
            Some(count) => *count += 1,
            None => {
                self.tasks_by_group.insert(demand.group.clone(), 1);
            }
        }
    }
}
