//! Container instances as placement sees them, and a plan's refusals as the API words them.

use std::collections::BTreeMap;

use gantry_api::ecs::Failure;
use gantry_arn::ClusterName;
use gantry_env::Timestamp;
use gantry_placement::{Candidate, Capacity, Eligibility, Plan, Unfit};
use gantry_store::Versioned;

use super::container_instances::ZONE_ATTRIBUTE;
use super::lookup::{InstanceAllocation, Rows};
use crate::model::reference::Scope;
use crate::model::resources::{number, ports};
use crate::tables::{ContainerInstanceRow, ContainerInstanceStatus, PlacementRejection};

/// A registered instance with what is taken of it.
pub(super) struct Instance {
    pub row: Versioned<ContainerInstanceRow>,
    pub allocation: InstanceAllocation,
    pub candidate: Candidate,
}

impl Instance {
    pub fn availability_zone(&self) -> Option<String> {
        self.candidate
            .attributes
            .get(ZONE_ATTRIBUTE)
            .cloned()
            .flatten()
    }
}

/// The instances of a cluster that are not deregistered.
pub(super) fn instances(rows: &Rows<'_>, cluster: &ClusterName) -> Vec<Instance> {
    let registered = rows
        .container_instances(cluster)
        .into_iter()
        .filter(|row| row.status != ContainerInstanceStatus::Inactive);
    registered
        .map(|row| {
            let allocation = rows.allocation(cluster, &row.id);
            let candidate = candidate(rows, &row, &allocation);
            Instance {
                row,
                allocation,
                candidate,
            }
        })
        .collect()
}

fn candidate(
    rows: &Rows<'_>,
    row: &ContainerInstanceRow,
    allocation: &InstanceAllocation,
) -> Candidate {
    let connected = rows
        .session(&row.cluster, &row.id)
        .is_some_and(|session| session.connected);
    let eligibility = match row.status {
        ContainerInstanceStatus::Active if connected => Eligibility::Eligible,
        ContainerInstanceStatus::Active => Eligibility::AgentDisconnected,
        _ => Eligibility::Inactive,
    };
    let resources = &row.registered_resources;
    let taken = &allocation.taken;
    let mut tasks_by_group = BTreeMap::new();
    for task in &allocation.tasks {
        *tasks_by_group.entry(task.spec.group.clone()).or_default() += 1;
    }
    let mut tcp_ports_taken = ports(resources, "PORTS");
    tcp_ports_taken.extend(&taken.tcp_ports);
    let mut udp_ports_taken = ports(resources, "PORTS_UDP");
    udp_ports_taken.extend(&taken.udp_ports);
    Candidate {
        eligibility,
        free: Capacity {
            cpu: number(resources, "CPU").unwrap_or(0) - taken.cpu,
            memory: number(resources, "MEMORY").unwrap_or(0) - taken.memory,
        },
        tcp_ports_taken,
        udp_ports_taken,
        attributes: std::sync::Arc::new(
            row.attributes
                .iter()
                .map(|attribute| (attribute.name.clone(), attribute.value.clone()))
                .collect(),
        ),
        tasks_by_group,
        ..Candidate::new(row.id)
    }
}

/// One failure for each instance, with the first reason against it, as AWS answers.
pub(super) fn failures(scope: &Scope, cluster: &ClusterName, plan: &Plan) -> Vec<Failure> {
    let failure = |rejection: &gantry_placement::Rejection| {
        let first = rejection.reasons.first();
        Failure {
            arn: Some(scope.container_instance_arn(cluster, &rejection.instance)),
            reason: first.map(|unfit| unfit.api_reason().to_owned()),
            detail: first.and_then(detail),
        }
    };
    plan.rejections.iter().map(failure).collect()
}

/// AWS gives details of none but attributes, which nobody could guess.
fn detail(unfit: &Unfit) -> Option<String> {
    match unfit {
        Unfit::Attributes { missing } => {
            let names: Vec<&str> = missing.iter().map(|a| a.name.as_str()).collect();
            Some(names.join(", "))
        }
        _ => None,
    }
}

/// What is kept of a refused placement for whoever asks why.
pub(super) fn rejection(
    plan: &Plan,
    task_definition: String,
    asked: u32,
    at: Timestamp,
) -> PlacementRejection {
    let sentence = |rejection: &gantry_placement::Rejection| {
        let reasons: Vec<String> = rejection.reasons.iter().map(Unfit::explain).collect();
        format!(
            "Container instance {}: {}.",
            rejection.instance,
            reasons.join("; ")
        )
    };
    PlacementRejection {
        at,
        task_definition,
        asked,
        unplaced: plan.unplaced,
        reasons: plan.rejections.iter().map(sentence).collect(),
    }
}
