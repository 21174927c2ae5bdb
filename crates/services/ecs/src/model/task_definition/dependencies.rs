//! The order of containers: `dependsOn` and `links` must name other containers of the task and
//! have no cycle, or no container of it could ever start.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ecs::{ContainerCondition, ContainerDefinition, EcsError};

use super::super::absent::items;
use super::super::refusal::client;

pub(super) fn validate(containers: &[ContainerDefinition]) -> Result<(), EcsError> {
    let by_name: BTreeMap<&str, &ContainerDefinition> = containers
        .iter()
        .map(|c| (c.name.as_deref().unwrap_or_default(), c))
        .collect();
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, container) in &by_name {
        for dependency in items(&container.depends_on) {
            let on = dependency.container_name.as_str();
            let Some(depended_on) = by_name.get(on) else {
                return Err(client(format!(
                    "Container '{name}' depends on container '{on}', which is not in the task definition."
                )));
            };
            if on == *name {
                return Err(client(format!(
                    "Container '{name}' cannot depend on itself."
                )));
            }
            validate_condition(&dependency.condition, depended_on)?;
            edges.entry(name).or_default().push(on);
        }
    }
    if has_cycle(&edges) {
        return Err(client("Container dependencies should not have a cycle"));
    }
    validate_links(&by_name)
}

fn validate_condition(
    condition: &ContainerCondition,
    depended_on: &ContainerDefinition,
) -> Result<(), EcsError> {
    match condition {
        ContainerCondition::Start => Ok(()),
        // An essential container that ends, ends its task: nobody could go on after it.
        ContainerCondition::Complete | ContainerCondition::Success
            if depended_on.essential != Some(false) =>
        {
            Err(client(
                "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
            ))
        }
        ContainerCondition::Complete | ContainerCondition::Success => Ok(()),
        ContainerCondition::Healthy if depended_on.health_check.is_none() => Err(client(
            "A dependency container with HEALTHY condition must have a health check defined.",
        )),
        // Unknown conditions were refused with all other unknown words.
        ContainerCondition::Healthy | ContainerCondition::Unknown(_) => Ok(()),
    }
}

fn validate_links(by_name: &BTreeMap<&str, &ContainerDefinition>) -> Result<(), EcsError> {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, container) in by_name {
        for link in items(&container.links) {
            // A link is `name` or `name:alias`.
            let on = link.split(':').next().unwrap_or_default();
            if !by_name.contains_key(on) || on == *name {
                return Err(client(format!(
                    "Container '{name}' has an invalid link '{link}': it must name another container of the task definition."
                )));
            }
            edges.entry(name).or_default().push(on);
        }
    }
    if has_cycle(&edges) {
        return Err(client("Container links should not have a cycle"));
    }
    Ok(())
}

/// Takes away again and again what depends on nothing that is left. What cannot be taken away is
/// on a cycle, or waits for one.
fn has_cycle(edges: &BTreeMap<&str, Vec<&str>>) -> bool {
    let mut waiting: BTreeSet<&str> = edges.keys().copied().collect();
    loop {
        let free: Vec<&str> = waiting
            .iter()
            .copied()
            .filter(|name| edges[name].iter().all(|on| !waiting.contains(on)))
            .collect();
        if free.is_empty() {
            return !waiting.is_empty();
        }
        for name in free {
            waiting.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_of_any_length_are_found_and_diamonds_are_not_cycles() {
        let edges = |pairs: &[(&'static str, &'static str)]| {
            let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (from, to) in pairs {
                edges.entry(from).or_default().push(to);
            }
            edges
        };
        assert!(has_cycle(&edges(&[("a", "b"), ("b", "a")])));
        assert!(has_cycle(&edges(&[
            ("a", "b"),
            ("b", "c"),
            ("c", "a"),
            ("d", "a")
        ])));
        assert!(!has_cycle(&edges(&[
            ("a", "b"),
            ("a", "c"),
            ("b", "d"),
            ("c", "d")
        ])));
        assert!(!has_cycle(&edges(&[])));
    }
}
