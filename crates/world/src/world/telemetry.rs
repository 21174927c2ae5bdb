//! The health of tasks, carried from the agents to the control plane as their telemetry sockets do.
//!
//! What always holds: what is told of a machine arrives in order; what is lost is told again with all the rest
//! after an interval of the real publisher, because acknowledgements do not say of what they are.

use std::time::Duration;

use gantry_api::acs::TaskHealth;

use super::World;
use crate::event::Event;

/// The publisher looks every so often whether all has been acknowledged.
const AGAIN_AFTER: Duration = Duration::from_secs(20);

impl World {
    /// An agent tells what is new, or all that it knows.
    pub(super) fn tell_health(&mut self, machine: usize, all: bool) {
        for told in self.nodes[machine].machine.take_health(all) {
            let lost = self.chance.per_mille(self.faults.losses.call_per_mille);
            if self.nodes[machine].is_cut_off || lost {
                self.tell_health_again(machine);
                continue;
            }
            let arrives = self.monotonic() + self.delay();
            let arrives = arrives.max(self.nodes[machine].health_arrives);
            self.nodes[machine].health_arrives = arrives;
            let told = Box::new(told);
            self.schedule
                .at(arrives, Event::HealthTold { machine, told });
        }
    }

    pub(super) fn health_told(&mut self, machine: usize, told: &TaskHealth) {
        let is_kept = self.control.health(&self.nodes[machine].arn, told);
        if !is_kept || self.nodes[machine].is_cut_off {
            self.tell_health_again(machine);
        }
    }

    /// Once for all that is lost until then: otherwise each repetition of each task's health would be repeated.
    fn tell_health_again(&mut self, machine: usize) {
        let incarnation = self.nodes[machine].machine.incarnation();
        if self.nodes[machine].tells_again.replace(incarnation) == Some(incarnation) {
            return;
        }
        let again = Event::HealthAgain {
            machine,
            incarnation,
        };
        self.after(AGAIN_AFTER, again);
    }
}
