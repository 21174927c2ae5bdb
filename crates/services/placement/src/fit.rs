//! Whether a task fits on a container instance, and if not, why not: every reason, in AWS's words.

use gantry_arn::ContainerInstanceId;

use crate::candidate::{Attribute, Candidate, Demand, Eligibility};
use crate::plan::Constraint;

/// One reason why a task does not go on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    Inactive,
    Agent,
    Cpu {
        needed: i64,
        free: i64,
    },
    Memory {
        needed: i64,
        free: i64,
    },
    Ports {
        taken: Vec<u16>,
    },
    Attributes {
        missing: Vec<Attribute>,
    },
    /// It is not one that the expression means.
    MemberOf {
        expression: String,
    },
    /// It already holds a task of the group.
    NotDistinct,
}

/// An instance on which a task was not placed, with everything that speaks against it. The first
/// reason is the one that the API reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub instance: ContainerInstanceId,
    pub reasons: Vec<Unfit>,
}

impl Unfit {
    /// The `reason` of an API failure.
    pub fn api_reason(&self) -> &'static str {
        match self {
            Self::Inactive => "INACTIVE",
            Self::Agent => "AGENT",
            Self::Cpu { .. } => "RESOURCE:CPU",
            Self::Memory { .. } => "RESOURCE:MEMORY",
            Self::Ports { .. } => "RESOURCE:PORTS",
            Self::Attributes { .. } => "ATTRIBUTE",
            Self::MemberOf { .. } => "MemberOf constraint unsatisfied.",
            Self::NotDistinct => "distinctInstance placement constraint unsatisfied.",
        }
    }

    /// A sentence for people: what was needed and what there is.
    pub fn explain(&self) -> String {
        match self {
            Self::Inactive => "it is not ACTIVE".to_owned(),
            Self::Agent => "its agent is not connected".to_owned(),
            Self::Cpu { needed, free } => {
                format!("it has {free} CPU units free and the task needs {needed}")
            }
            Self::Memory { needed, free } => {
                format!("it has {free} MiB of memory free and the task needs {needed}")
            }
            Self::Ports { taken } => format!("host port {} is taken there", join(taken)),
            Self::Attributes { missing } => {
                let names: Vec<String> = missing.iter().map(written).collect();
                format!("it lacks the attribute {}", names.join(", "))
            }
            Self::MemberOf { expression } => format!("it is not a member of {expression}"),
            Self::NotDistinct => "it already holds a task of the same group".to_owned(),
        }
    }
}

/// Whether nothing speaks against the instance: [`unfit`] is empty.
pub(crate) fn fits(candidate: &Candidate, demand: &Demand, constraints: &[Constraint]) -> bool {
    let (needs, free) = (&demand.needs, &candidate.free);
    let free_of = |wanted: &[u16], taken: &std::collections::BTreeSet<u16>| {
        wanted.iter().all(|port| !taken.contains(port))
    };
    candidate.eligibility == Eligibility::Eligible
        && candidate.launch_type == demand.launch_type
        && (needs.cpu <= 0 || needs.cpu <= free.cpu)
        && (needs.memory <= 0 || needs.memory <= free.memory)
        && free_of(&demand.tcp_ports, &candidate.tcp_ports_taken)
        && free_of(&demand.udp_ports, &candidate.udp_ports_taken)
        && demand
            .requires_attributes
            .iter()
            .all(|r| candidate.meets(r))
        && constraints.iter().all(|constraint| match constraint {
            Constraint::DistinctInstance => candidate.tasks_of(&demand.group) == 0,
            Constraint::MemberOf(expression) => expression.holds(candidate),
        })
}

/// Every reason against the instance, in the order in which AWS filters. Empty: it fits. The
/// instance serves the launch type; others are not even looked at.
pub(crate) fn unfit(
    candidate: &Candidate,
    demand: &Demand,
    constraints: &[Constraint],
) -> Vec<Unfit> {
    let mut reasons = Vec::new();
    match candidate.eligibility {
        Eligibility::Eligible => {}
        Eligibility::Inactive => reasons.push(Unfit::Inactive),
        Eligibility::AgentDisconnected => reasons.push(Unfit::Agent),
    }
    // A task that needs nothing of a resource fits also where that resource is used up.
    let (needs, free) = (&demand.needs, &candidate.free);
    if needs.cpu > 0 && needs.cpu > free.cpu {
        reasons.push(Unfit::Cpu {
            needed: needs.cpu,
            free: free.cpu,
        });
    }
    if needs.memory > 0 && needs.memory > free.memory {
        reasons.push(Unfit::Memory {
            needed: needs.memory,
            free: free.memory,
        });
    }
    let tcp = demand
        .tcp_ports
        .iter()
        .filter(|p| candidate.tcp_ports_taken.contains(p));
    let udp = demand
        .udp_ports
        .iter()
        .filter(|p| candidate.udp_ports_taken.contains(p));
    let taken: Vec<u16> = tcp.chain(udp).copied().collect();
    if !taken.is_empty() {
        reasons.push(Unfit::Ports { taken });
    }
    let missing = candidate.lacks(demand);
    if !missing.is_empty() {
        reasons.push(Unfit::Attributes { missing });
    }
    for constraint in constraints {
        match constraint {
            Constraint::MemberOf(expression) if !expression.holds(candidate) => {
                let expression = expression.to_string();
                reasons.push(Unfit::MemberOf { expression });
            }
            Constraint::DistinctInstance if candidate.tasks_of(&demand.group) > 0 => {
                reasons.push(Unfit::NotDistinct);
            }
            _ => {}
        }
    }
    reasons
}

fn written(attribute: &Attribute) -> String {
    match &attribute.value {
        Some(value) => format!("{}={value}", attribute.name),
        None => attribute.name.clone(),
    }
}

fn join(ports: &[u16]) -> String {
    let texts: Vec<String> = ports.iter().map(u16::to_string).collect();
    texts.join(", ")
}
