//! What has to be true of other containers before one starts.
//!
//! What always holds: every container that another waits for is in the task, and nobody waits for
//! himself in a circle. A link and `volumesFrom` wait for a start, as they do in the Amazon ECS agent.
//! What it leaves to others: waiting (`task`).

use gantry_api::acs::{self, Condition};

use super::ContainerPlan;
use super::unknown::not_built;

/// How a reason begins that is about who waits for whom.
pub(super) const KIND: &str = "TaskDependencyError";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCondition {
    Start,
    Complete,
    Success,
    Healthy,
}

pub(super) fn depends_on(
    depends_on: &[acs::ContainerDependency],
    name: &str,
) -> Result<Vec<(String, StartCondition)>, String> {
    depends_on
        .iter()
        .map(|dependency| {
            let condition = match &dependency.condition {
                Condition::Start => StartCondition::Start,
                Condition::Complete => StartCondition::Complete,
                Condition::Success => StartCondition::Success,
                Condition::Healthy => StartCondition::Healthy,
                Condition::Unknown(other) => {
                    return Err(not_built("dependsOn condition", other, Some(name)));
                }
            };
            Ok((dependency.container_name.clone(), condition))
        })
        .collect()
}

/// Adds what links and `volumesFrom` wait for, and checks the whole.
pub(super) fn complete(plans: &mut [ContainerPlan]) -> Result<(), String> {
    for plan in plans.iter_mut() {
        let links = plan.links.iter().map(|link| &link.container);
        let from = plan.volumes_from.iter().map(|from| &from.container);
        let implied: Vec<String> = links.chain(from).cloned().collect();
        for other in implied {
            if !plan.depends_on.iter().any(|(known, _)| *known == other) {
                plan.depends_on.push((other, StartCondition::Start));
            }
        }
    }
    for plan in plans.iter() {
        for (other, condition) in &plan.depends_on {
            let Some(other_plan) = plans.iter().find(|p| p.name == *other) else {
                return Err(format!(
                    "{KIND}: container '{}' depends on '{other}', which is not in the task",
                    plan.name
                ));
            };
            if *condition == StartCondition::Healthy && other_plan.health_check.is_none() {
                return Err(format!(
                    "{KIND}: container '{}' waits for '{other}' to be HEALTHY, which has no health check",
                    plan.name
                ));
            }
        }
    }
    // Taking away whoever waits for nobody left leaves only circles.
    let mut left: Vec<&ContainerPlan> = plans.iter().collect();
    loop {
        let names: Vec<&str> = left.iter().map(|plan| plan.name.as_str()).collect();
        let waits = |plan: &&ContainerPlan| {
            plan.depends_on
                .iter()
                .any(|(other, _)| names.contains(&other.as_str()))
        };
        let still: Vec<&ContainerPlan> = left.iter().copied().filter(waits).collect();
        if still.is_empty() {
            return Ok(());
        }
        if still.len() == left.len() {
            return Err(format!(
                "{KIND}: containers wait for each other in a cycle: {}",
                names.join(", ")
            ));
        }
        left = still;
    }
}
