//! The second half of a world of services: no more faults, every service comes to what was asked for, and then
//! nothing happens any more but that what is over is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_arn::TaskId;
use gantry_ecs::controllers::INACTIVE_SERVICE_RETENTION;

use super::{Report, World};
use crate::services::{describe, list};

impl World {
    pub(super) fn keep_steady(mut self) -> Report {
        let healed_at = self.monotonic();
        let deadline = healed_at + self.settings.converges_within;
        loop {
            self.run_for(Duration::from_secs(10));
            let left = self.unsteady();
            if left.is_empty() {
                break;
            }
            assert!(
                self.monotonic() <= deadline,
                "the services did not come to rest: {left:#?}"
            );
        }
        let converged_after = self.monotonic() - healed_at;
        let tasks = self.laws.mirror.tasks.len();
        // What was said of the last health check may still be on its way.
        self.run_for(Duration::from_secs(60));
        let writes = self.laws.writes;
        self.run_for(self.settings.rests_for);
        assert_eq!(
            self.laws.writes, writes,
            "the services came to rest, and were written about again"
        );
        let left = self.unsteady();
        assert!(left.is_empty(), "the services did not stay: {left:#?}");
        self.check_forgotten();
        self.report(tasks, converged_after)
    }

    /// What is not as it was asked for.
    fn unsteady(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut wanted_tasks: BTreeSet<String> = BTreeSet::new();
        for (name, wanted) in &self.service_users.wanted {
            let service = describe(&self.control, name);
            let Some((count, definition)) = wanted else {
                let status = service.and_then(|it| it.status);
                if status.is_some_and(|status| status != "INACTIVE") {
                    left.push(format!("{name} is deleted, and still there"));
                }
                continue;
            };
            wanted_tasks.extend(list(&self.control, name));
            let service = service.unwrap_or_else(|| panic!("{name} is gone"));
            let deployments = service.deployments.clone().unwrap_or_default();
            let ends = |arn: &Option<String>| {
                let arn = arn.as_deref().unwrap_or_default();
                arn.ends_with(&format!("/{definition}"))
            };
            let is_there = service.running_count == Some(*count)
                && service.desired_count == Some(*count)
                && service.pending_count == Some(0)
                && deployments.len() == 1
                && deployments[0].rollout_state.as_ref().map(|it| it.as_str()) == Some("COMPLETED")
                && ends(&deployments[0].task_definition)
                && ends(&service.task_definition);
            let said = service.events.into_iter().flatten().next();
            let said = said.and_then(|event| event.message).unwrap_or_default();
            if !is_there || !said.ends_with("has reached a steady state.") {
                left.push(format!(
                    "{name}: {count} of {definition} are wanted; {:?}+{:?} of {:?}, {said}: {deployments:?}",
                    service.running_count, service.pending_count, service.desired_count
                ));
            }
        }
        let wanted: BTreeSet<TaskId> = wanted_tasks
            .iter()
            .filter_map(|arn| arn.rsplit('/').next()?.parse().ok())
            .collect();
        let drained = self.service_users.drained.as_ref();
        for (number, node) in self.nodes.iter().enumerate() {
            for task in node.machine.runtime().running() {
                if !wanted.contains(&task) || drained == Some(&node.arn) {
                    left.push(format!("machine {number} runs {task}"));
                }
            }
        }
        left
    }

    /// Each slot holds one replica, what stopped is forgotten, and so is what was deleted.
    fn check_forgotten(&self) {
        let mut slots: BTreeMap<(&str, u32), &str> = BTreeMap::new();
        for (name, task) in &self.laws.mirror.tasks {
            assert!(
                !task.last_status().is_stopped(),
                "{name} stopped long ago, and is still there"
            );
            let slot = task.spec.replica.as_ref().map_or(0, |spec| spec.slot);
            let other = slots.insert((&task.spec.group, slot), name);
            assert_eq!(other, None, "slot {slot} of {} at rest", task.spec.group);
        }
        if self.settings.rests_for > INACTIVE_SERVICE_RETENTION {
            for name in self.laws.mirror.services.keys() {
                let short = name.rsplit('/').next().unwrap_or_default();
                let wanted = self.service_users.wanted.get(short);
                assert!(
                    matches!(wanted, Some(Some(_))),
                    "{name} was deleted long ago, and is still there"
                );
            }
        }
    }
}
