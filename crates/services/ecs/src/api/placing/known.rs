//! One container instance as the rows say it is, and as a placement sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_arn::{ClusterName, TaskId};
use gantry_placement::{Candidate, Capacity, Eligibility, LaunchType};
use gantry_store::Versioned;

use super::Committing;
use crate::api::lookup::Rows;
use crate::model::attributes::EXTERNAL;
use crate::model::last_status::LastStatus;
use crate::model::resources::{Taken, number, ports};
use crate::tables::{AllocationRow, ContainerInstanceRow, ContainerInstanceStatus, Reserved};

/// What is known of one instance.
pub(super) struct Known {
    pub(super) row: Versioned<ContainerInstanceRow>,
    pub(super) connected: bool,
    pub(super) allocation: Option<Versioned<AllocationRow>>,
    /// Entries of the allocation that no longer count.
    pub(super) over: BTreeSet<TaskId>,
    pub(super) running: BTreeSet<TaskId>,
    /// Shares that are being committed.
    pub(super) in_flight: BTreeMap<TaskId, Reserved>,
    /// Of the plan whose shares they are: no other takes any meanwhile.
    pub(super) committing: Option<Committing>,
    /// All that follows from the instance's row alone.
    pub(super) template: Candidate,
}

impl Known {
    /// Everything that the rows say of an instance.
    pub(super) fn load(
        rows: &Rows<'_>,
        cluster: &ClusterName,
        row: Versioned<ContainerInstanceRow>,
    ) -> Self {
        let allocation = rows.allocation(cluster, &row.id);
        let session = rows.session(cluster, &row.id);
        let mut known = Self::of(row);
        known.connected = session.is_some_and(|session| session.connected);
        known.over = allocation.over.iter().copied().collect();
        let running = allocation
            .tasks
            .iter()
            .filter(|task| task.last_status() == LastStatus::Running);
        known.running = running.map(|task| task.spec.id).collect();
        known.allocation = allocation.row;
        known
    }

    pub(super) fn of(row: Versioned<ContainerInstanceRow>) -> Self {
        Self {
            template: Self::template(&row),
            row,
            connected: false,
            allocation: None,
            over: BTreeSet::new(),
            running: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            committing: None,
        }
    }

    pub(super) fn template(row: &ContainerInstanceRow) -> Candidate {
        let resources = &row.registered_resources;
        let attributes: BTreeMap<String, Option<String>> = row
            .attributes
            .iter()
            .map(|attribute| (attribute.name.clone(), attribute.value.clone()))
            .collect();
        let version = row.version_info.as_ref();
        Candidate {
            launch_type: match attributes.contains_key(EXTERNAL) {
                true => LaunchType::External,
                false => LaunchType::Ec2,
            },
            free: Capacity {
                cpu: number(resources, "CPU").unwrap_or(0),
                memory: number(resources, "MEMORY").unwrap_or(0),
            },
            tcp_ports_taken: ports(resources, "PORTS"),
            udp_ports_taken: ports(resources, "PORTS_UDP"),
            attributes: Arc::new(attributes),
            agent_version: version
                .and_then(|version| version.agent_version.as_deref())
                .map(Arc::from),
            ec2_instance_id: Arc::from(row.ec2_instance_id.as_str()),
            registered_at_ms: (row.registered_at.as_epoch_seconds_f64() * 1000.0).round() as i64,
            ..Candidate::new(row.id)
        }
    }

    pub(super) fn candidate(&self) -> Candidate {
        let mut taken = Taken::default();
        let mut tasks_by_group: BTreeMap<String, u32> = BTreeMap::new();
        let mut running_tasks = 0;
        let allocated = self.allocation.iter().flat_map(|row| &row.row.tasks);
        let counted = allocated.filter(|(task, _)| !self.over.contains(*task));
        // A share that is both in the row and still in flight counts once.
        let in_flight = self.in_flight.iter().filter(|(task, _)| {
            let row = self.allocation.as_ref();
            row.is_none_or(|row| !row.row.tasks.contains_key(*task))
        });
        for (task, reserved) in counted.chain(in_flight) {
            taken.add(reserved);
            running_tasks += u32::from(self.running.contains(task));
            match tasks_by_group.get_mut(&reserved.group) {
                Some(count) => *count += 1,
                None => {
                    tasks_by_group.insert(reserved.group.clone(), 1);
                }
            }
        }
        let mut candidate = self.template.clone();
        candidate.eligibility = match self.row.status {
            ContainerInstanceStatus::Active if self.connected => Eligibility::Eligible,
            ContainerInstanceStatus::Active => Eligibility::AgentDisconnected,
            _ => Eligibility::Inactive,
        };
        candidate.free.cpu -= taken.cpu;
        candidate.free.memory -= taken.memory;
        candidate.tcp_ports_taken.extend(&taken.tcp_ports);
        candidate.udp_ports_taken.extend(&taken.udp_ports);
        candidate.tasks_by_group = tasks_by_group;
        candidate.running_tasks = running_tasks;
        candidate.agent_connected = self.connected;
        candidate.busy = !self.in_flight.is_empty();
        candidate
    }
}
