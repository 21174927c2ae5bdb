//! What is left of a machine's containers when an agent or the power went, and what the next agent finds.
//!
//! What always holds: what ended is found as it ended; what was being made is found coming, or lost.

use std::collections::BTreeMap;

use gantry_agent::core::step::{AdoptedContainer, AdoptedTask};
use gantry_arn::TaskId;

use super::SimulatedRuntime;
use crate::chance::Chance;

impl SimulatedRuntime {
    /// What an agent that starts now finds.
    pub fn adopt(&mut self, chance: &mut Chance) -> Vec<AdoptedTask> {
        let mut tasks: BTreeMap<TaskId, BTreeMap<String, AdoptedContainer>> = BTreeMap::new();
        self.checking.clear();
        // What was being made when the last agent died may come up without it, or never.
        for (task, container) in std::mem::take(&mut self.beginning) {
            let found = if chance.per_mille(500) {
                self.beginning.insert((task, container.clone()));
                AdoptedContainer::Starting { restarts: 0 }
            } else {
                AdoptedContainer::Lost {
                    reason: "it was being started when the agent died".to_owned(),
                }
            };
            tasks.entry(task).or_default().insert(container, found);
        }
        for ((task, container), process) in &mut self.processes {
            // Nobody may have heard that it was to be started again, or somebody has and does not say so.
            let mut is_seen = true;
            if process.begins_again {
                process.begins_again = chance.per_mille(700);
                is_seen = chance.per_mille(600);
            }
            let key = (*task, container.clone());
            match process.begins_again && !is_seen {
                true => self.unseen_restarts.insert(key),
                false => self.unseen_restarts.remove(&key),
            };
            let (runtime_id, started_at) = (process.runtime_id.clone(), process.started_at);
            let restarts = process.restarts;
            let adopted = match &process.exit {
                _ if process.begins_again && is_seen => AdoptedContainer::Starting {
                    restarts: restarts + 1,
                },
                None if process.lost => AdoptedContainer::Lost {
                    reason: "the power went".to_owned(),
                },
                None => AdoptedContainer::Running {
                    runtime_id,
                    started_at,
                    restarts,
                },
                Some(exit) => AdoptedContainer::Exited {
                    runtime_id,
                    started_at,
                    restarts,
                    exit: exit.clone(),
                },
            };
            tasks
                .entry(*task)
                .or_default()
                .insert(container.clone(), adopted);
        }
        tasks
            .into_iter()
            .map(|(task, containers)| AdoptedTask {
                task,
                containers,
                ports: Default::default(),
            })
            .collect()
    }

    /// The power goes: every process ends without anybody seeing how. What had ended before is
    /// still on the disk, and so is that the others had been started.
    pub fn power_cut(&mut self) {
        for ((task, _), process) in &mut self.processes {
            process.lost |= process.exit.is_none();
            process.begins_again = false;
            self.dead_tasks.insert(*task);
        }
        self.beginning.clear();
    }
}
