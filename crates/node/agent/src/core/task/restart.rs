//! When a container that ended is started again.
//!
//! What always holds: it is, if its restart policy is enabled, its exit code is not among the ignored
//! ones, it had run for the attempt period since it was last started, and the task shall not stop.
//! So it is started again at most once every attempt period. All the while it counts as RUNNING:
//! nothing is reported, and an essential container does not end its task. Restarts are numbered, so
//! asking for one again, as after a restart of the agent, does not make two of it.
//! What it leaves to others: making the process (the runtime).

use gantry_env::Timestamp;

use super::super::plan::{RestartPlan, TaskPlan};
use super::super::step::{Exit, Output, RuntimeCommand};
use super::TaskMachine;
use super::health::HealthState;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Restarting {
    #[default]
    No,
    /// It ended like this, and is to be started again.
    Due(Exit),
    /// That is asked for.
    Asked {
        restarts: u32,
        /// How it ended before, where that was seen.
        last: Option<Exit>,
    },
}

impl Restarting {
    /// The end that was not final, if it is now.
    pub(super) fn take_exit(&mut self) -> Option<Exit> {
        match std::mem::take(self) {
            Restarting::No => None,
            Restarting::Due(exit) => Some(exit),
            Restarting::Asked { last, .. } => last,
        }
    }
}

impl TaskMachine {
    /// Decides about a container that has just ended, and says whether it is to be started again.
    pub(super) fn begin_restart(&mut self, container: &str, exit: &Exit) -> bool {
        let started_at = self
            .state
            .containers
            .get(container)
            .and_then(|state| state.started_at);
        let policy = self
            .plan_of(container)
            .and_then(|plan| plan.restart_policy.as_ref());
        let (Some(policy), Some(started_at)) = (policy, started_at) else {
            return false;
        };
        if !self.may_go_forward() || !allows(policy, exit, started_at) {
            return false;
        }
        self.asked_mut(container).restart = Restarting::Due(exit.clone());
        // What the ended process was found to be is not what the next one is.
        self.reset_health(container, exit.at);
        true
    }

    pub(super) fn drive_restarts(&mut self, plan: &TaskPlan, out: &mut Vec<Output>) {
        for container in &plan.containers {
            let name = &container.name;
            let restarts = self.container_mut(name).restarts + 1;
            let task = self.id;
            let asked = self.asked_mut(name);
            if let Restarting::Due(exit) = asked.restart.clone() {
                asked.restart = Restarting::Asked {
                    restarts,
                    last: Some(exit),
                };
                out.push(self.start_timer(name));
                out.push(Output::Runtime(RuntimeCommand::Restart {
                    task,
                    container: name.clone(),
                    restarts,
                }));
            }
        }
    }

    /// The task shall stop: an end that was to be followed by a restart is final.
    pub(super) fn give_up_restart(&mut self, container: &str) {
        let asked = self.asked_mut(container);
        if let Restarting::Due(exit) = asked.restart.clone() {
            asked.restart = Restarting::No;
            self.ended(container, &exit);
        }
    }

    /// A start is told: if the container was to be started again, it has been.
    pub(super) fn started_again(&mut self, container: &str, at: Timestamp) {
        let asked = self.asked_mut(container);
        if let Restarting::Asked { restarts, .. } = asked.restart {
            asked.restart = Restarting::No;
            self.adopt_run(container, restarts, at);
        }
    }

    /// Takes in which run of the container this is.
    pub(super) fn adopt_run(&mut self, container: &str, restarts: u32, started_at: Timestamp) {
        let state = self.container_mut(container);
        if restarts > state.restarts {
            state.restarts = restarts;
            state.started_at = Some(started_at);
            self.dirty = true;
            self.reset_health(container, started_at);
        }
    }

    /// Whether this end has had its effect: it is told again where the runtime does not know by whom
    /// it was heard.
    pub(super) fn is_known_exit(&self, container: &str, exit: &Exit) -> bool {
        match self.asked.get(container).map(|asked| &asked.restart) {
            Some(Restarting::Due(_)) => true,
            Some(Restarting::Asked { last, .. }) => last.as_ref() == Some(exit),
            Some(Restarting::No) | None => false,
        }
    }

    fn reset_health(&mut self, container: &str, at: Timestamp) {
        if let Some(health) = &mut self.container_mut(container).health {
            *health = HealthState::unknown(at);
            self.dirty = true;
        }
    }
}

fn allows(policy: &RestartPlan, exit: &Exit, started_at: Timestamp) -> bool {
    !policy.ignored_exit_codes.contains(&exit.exit_code)
        && exit.at.since(started_at) >= policy.attempt_period
}
