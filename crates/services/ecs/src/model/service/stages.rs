//! The stages of a blue/green deployment, as a pure state machine: the service runs *blue*, the revision
//! before, and *green*, which the deployment brings, side by side until green has proved itself.
//!
//! What always holds:
//! - A course only goes forward. It is given up or it reaches CLEAN_UP, and never both ways again.
//! - Green has no replica before SCALE_UP, and blue keeps all of its own until CLEAN_UP
//!   ([`super::sides`] says who has which).
//! - A stage is left when its work is done and each of its pause hooks is answered. A hook asks once; an
//!   answer, or the end of its time, is final.
//! - Asked again of the same sight, it goes nowhere.
//!
//! Left to others: starting and stopping ([`super::sides`], [`super::rolling`]), failures that the
//! circuit breaker counts, and what a rollback does to the service's deployments.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use gantry_api::ecs::DeploymentConfiguration;
use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use super::hooks::{Action, Hook, HookStatus, PauseHook};
use crate::model::absent::items;

/// Where a course is. PRE_PRODUCTION_TRAFFIC_SHIFT stands in AWS's text and in the list of stages that
/// hooks may have, though not in its list of lifecycle stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Stage {
    ReconcileService,
    PreScaleUp,
    ScaleUp,
    PostScaleUp,
    TestTrafficShift,
    PostTestTrafficShift,
    PreProductionTrafficShift,
    ProductionTrafficShift,
    PostProductionTrafficShift,
    BakeTime,
    CleanUp,
}

impl Stage {
    pub const ALL: [Stage; 11] = [
        Self::ReconcileService,
        Self::PreScaleUp,
        Self::ScaleUp,
        Self::PostScaleUp,
        Self::TestTrafficShift,
        Self::PostTestTrafficShift,
        Self::PreProductionTrafficShift,
        Self::ProductionTrafficShift,
        Self::PostProductionTrafficShift,
        Self::BakeTime,
        Self::CleanUp,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReconcileService => "RECONCILE_SERVICE",
            Self::PreScaleUp => "PRE_SCALE_UP",
            Self::ScaleUp => "SCALE_UP",
            Self::PostScaleUp => "POST_SCALE_UP",
            Self::TestTrafficShift => "TEST_TRAFFIC_SHIFT",
            Self::PostTestTrafficShift => "POST_TEST_TRAFFIC_SHIFT",
            Self::PreProductionTrafficShift => "PRE_PRODUCTION_TRAFFIC_SHIFT",
            Self::ProductionTrafficShift => "PRODUCTION_TRAFFIC_SHIFT",
            Self::PostProductionTrafficShift => "POST_PRODUCTION_TRAFFIC_SHIFT",
            Self::BakeTime => "BAKE_TIME",
            Self::CleanUp => "CLEAN_UP",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == name)
    }

    fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage > self)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a deployment was asked to go: fixed when it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    pub bake_time: Duration,
    pub hooks: Vec<PauseHook>,
}

impl Route {
    /// Of a configuration that was checked when it was stored ([`super::request`]).
    pub fn of(configuration: &DeploymentConfiguration) -> Self {
        let minutes = u64::try_from(configuration.bake_time_in_minutes.unwrap_or(0)).unwrap_or(0);
        let hooks = items(&configuration.lifecycle_hooks).iter();
        Self {
            bake_time: Duration::from_secs(minutes * 60),
            hooks: hooks.map(PauseHook::of).collect(),
        }
    }
}

/// How far a blue/green deployment has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    pub stage: Stage,
    pub since: Timestamp,
    /// The deployment that ran before. A service's first deployment has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue: Option<String>,
    /// All hooks that were reached so far, in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// It is rolled back: the stage is where that began.
    #[serde(default)]
    pub given_up: bool,
}

/// What a course sees of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    pub now: Timestamp,
    /// Only blue's and green's tasks are left, but for those that are protected.
    pub others_are_gone: bool,
    /// Green has all of its replicas, and all of them are healthy.
    pub green_is_up: bool,
}

/// What comes of looking at a course.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// It waits, until then at most.
    Waits(Option<Timestamp>),
    /// A hook wants it rolled back.
    RollsBack(RolledBackBy),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolledBackBy {
    Answer,
    TimeOut,
}

impl Course {
    /// `revisions` is how many of the service's revisions had tasks when the deployment was taken up: more than
    /// one are brought down to blue's before anything else.
    pub fn begin(
        blue: Option<String>,
        revisions: usize,
        route: &Route,
        now: Timestamp,
        ids: &dyn Fn(Stage, usize) -> String,
    ) -> Self {
        let stage = match revisions > 1 {
            true => Stage::ReconcileService,
            false => Stage::PreScaleUp,
        };
        let mut course = Self {
            stage,
            since: now,
            blue,
            hooks: Vec::new(),
            given_up: false,
        };
        course.enter(stage, route, now, ids);
        course
    }

    /// Goes as far as can be gone now. `ids` names the hooks that are reached.
    pub fn advance(
        &mut self,
        route: &Route,
        sight: &Sight,
        answers: &BTreeMap<String, Action>,
        ids: &dyn Fn(Stage, usize) -> String,
    ) -> Outlook {
        while !self.given_up {
            let mut wake: Option<Timestamp> = None;
            let mut waits = false;
            for hook in self.hooks.iter_mut().filter(|it| it.stage == self.stage) {
                hook.settle(answers.get(&hook.id).copied(), sight.now);
                match (hook.status, hook.timeout_action) {
                    (HookStatus::AwaitingAction, _) => {
                        waits = true;
                        let ends = hook.expires_at;
                        wake = Some(wake.map_or(ends, |before| before.min(ends)));
                    }
                    (HookStatus::Failed, _) => return Outlook::RollsBack(RolledBackBy::Answer),
                    (HookStatus::TimedOut, Action::Rollback) => {
                        return Outlook::RollsBack(RolledBackBy::TimeOut);
                    }
                    (HookStatus::Succeeded | HookStatus::TimedOut, _) => {}
                }
            }
            match self.stage {
                Stage::ReconcileService => waits |= !sight.others_are_gone,
                Stage::ScaleUp => waits |= !sight.green_is_up,
                // There is nothing to compare green with where there is no blue.
                Stage::BakeTime if self.blue.is_some() => {
                    let ends = self.since + route.bake_time;
                    if sight.now < ends {
                        waits = true;
                        wake = Some(ends);
                    }
                }
                // Whoever carries the course out sees the end of the last stage: only green is left.
                Stage::CleanUp => waits = true,
                // Without a load balancer no traffic is shifted, and nothing is to be waited for.
                _ => {}
            }
            match self.stage.next().filter(|_| !waits) {
                Some(next) => self.enter(next, route, sight.now, ids),
                None => return Outlook::Waits(wake),
            }
        }
        Outlook::Waits(None)
    }

    fn enter(
        &mut self,
        stage: Stage,
        route: &Route,
        now: Timestamp,
        ids: &dyn Fn(Stage, usize) -> String,
    ) {
        self.stage = stage;
        self.since = now;
        let reached = route.hooks.iter().enumerate();
        let reached = reached.filter(|(_, hook)| hook.stages.contains(&stage));
        self.hooks
            .extend(reached.map(|(at, hook)| Hook::reached(ids(stage, at), hook, stage, now)));
    }

    /// Its deployment is rolled back: whoever stays, stays in green's place.
    pub fn give_up(&mut self) {
        self.given_up = true;
        self.stop_asking();
    }

    /// Nobody waits for an answer any more: a hook that has none will have let nothing go on.
    pub fn stop_asking(&mut self) {
        let unanswered = |hook: &&mut Hook| hook.status == HookStatus::AwaitingAction;
        for hook in self.hooks.iter_mut().filter(unanswered) {
            hook.status = HookStatus::Failed;
        }
    }

    /// Whether its deployment is completed once only its own tasks are left, and all of them healthy.
    pub fn is_at_its_end(&self) -> bool {
        self.given_up || self.stage == Stage::CleanUp
    }
}

#[cfg(test)]
#[path = "stages/tests.rs"]
mod tests;
