//! The second half: no more faults, and all must come to rest as the users were promised.

use super::{Report, World};
use crate::faults::Faults;
use crate::founding;
use gantry_arn::TaskId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl World {
    /// No more faults; what is down comes back.
    pub(super) fn heal(&mut self) {
        self.trace
            .note(self.monotonic(), "no more faults".to_owned());
        self.faults = Faults::NONE;
        self.users_act = false;
        if !self.control.is_up() {
            self.control.start();
        }
        for machine in 0..self.nodes.len() {
            self.nodes[machine].is_cut_off = false;
            self.nodes[machine].machine.calm_down();
            self.start_agent(machine);
        }
        if self.settings.subject == super::Subject::Services {
            let arns: Vec<String> = self.nodes.iter().map(|node| node.arn.clone()).collect();
            self.service_users
                .finish(&self.control, &arns, &mut self.chance);
            return self.settle();
        }
        self.users.finish(&self.control, &mut self.chance);
        // What does not end by itself ends only if its stop arrives.
        let endless: Vec<TaskId> = self
            .nodes
            .iter()
            .flat_map(|node| node.machine.runtime().endless())
            .collect();
        self.users
            .stop_half(&self.control, &endless, &mut self.chance);
        self.settle();
    }

    /// Waits until everything is over, and looks whether all is as it should be.
    pub(super) fn converge(mut self) -> Report {
        let healed_at = self.monotonic();
        let deadline = healed_at + self.settings.converges_within;
        loop {
            self.run_for(Duration::from_secs(10));
            // What is seen at a glance is looked at first; only at the end everybody is asked.
            if self.machines_are_empty() && self.left().is_empty() {
                break;
            }
            if self.monotonic() > deadline {
                let left = self.left();
                panic!(
                    "the world did not come to rest; {} left, first {:?}",
                    left.len(),
                    &left[..left.len().min(10)]
                );
            }
        }
        self.check_rest();
        let tasks = self.users.tasks().len();
        let converged_after = self.monotonic() - healed_at;
        self.report(tasks, converged_after)
    }

    /// What came of it all.
    pub(super) fn report(mut self, tasks: usize, converged_after: Duration) -> Report {
        let begun: BTreeSet<TaskId> = self
            .nodes
            .iter()
            .flat_map(|node| node.machine.runtime().begun())
            .collect();
        let sum = |of: fn(&crate::runtime::SimulatedRuntime) -> usize| {
            self.nodes
                .iter()
                .map(|node| of(node.machine.runtime()))
                .sum()
        };
        let (restarts, checks) = (
            sum(|runtime| runtime.restarted),
            sum(|runtime| runtime.checked),
        );
        self.trace.is_over = true;
        Report {
            seed: self.trace.seed(),
            events: self.trace.events,
            faults: self.happened.clone(),
            tasks,
            ran: begun.len(),
            unplaced: self.users.unplaced,
            restarts,
            checks,
            services: self.service_users.created,
            completed: self.laws.completed,
            opened: self.laws.opened,
            rolled_back: self.laws.rolled_back,
            converged_after,
            digest: self.trace.digest(),
        }
    }

    fn machines_are_empty(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.machine.runtime().is_empty() && node.machine.journal().tasks.is_empty()
        })
    }

    /// What is not over yet.
    pub(super) fn left(&mut self) -> Vec<String> {
        let mut left = self.users.unstopped(&self.control);
        for (number, node) in self.nodes.iter().enumerate() {
            if !node.machine.runtime().is_empty() {
                left.push(format!(
                    "machine {number} is not empty: {:?}",
                    node.machine.runtime()
                ));
            }
            for (task, kept) in &node.machine.journal().tasks {
                left.push(format!("machine {number} keeps {task}: {:?}", kept.state));
            }
        }
        left
    }

    pub(super) fn check_rest(&mut self) {
        let stopped = self
            .users
            .list(&self.control, "STOPPED")
            .expect("the control plane is up");
        let running = self
            .users
            .list(&self.control, "RUNNING")
            .expect("the control plane is up");
        assert!(running.is_empty(), "listed as to run: {running:?}");
        assert_eq!(
            &stopped,
            self.users.tasks(),
            "the tasks that are there are those that users were promised"
        );
        let known: BTreeSet<&str> = stopped
            .iter()
            .filter_map(|arn| arn.rsplit('/').next())
            .collect();
        let mut ran_on: BTreeMap<TaskId, usize> = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for task in node.machine.runtime().begun() {
                assert!(
                    known.contains(task.to_string().as_str()),
                    "machine {number} ran {task}, which nobody knows"
                );
                let other = ran_on.insert(task, number);
                assert!(
                    other.is_none(),
                    "{task} ran on machines {number} and {other:?}"
                );
            }
        }
        let arns: Vec<String> = self.nodes.iter().map(|node| node.arn.clone()).collect();
        founding::check_free(&self.control, &arns);
    }
}
