//! Pause hooks: places in a deployment where somebody is asked whether it may go on.
//!
//! What always holds: a hook awaits its answer until it expires. The first of the two settles it, and
//! nothing settles it again.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_api::ecs;
use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use super::stages::Stage;
use crate::model::absent::items;

/// How long a hook waits, if its configuration does not say.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// A pause hook as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseHook {
    pub stages: BTreeSet<Stage>,
    pub timeout: Duration,
    pub timeout_action: Action,
}

impl PauseHook {
    /// Its configuration was checked when it was stored ([`super::request`]).
    pub fn of(given: &ecs::DeploymentLifecycleHook) -> Self {
        let stages = items(&given.lifecycle_stages).iter();
        let timeout = given.timeout_configuration.as_ref();
        let minutes = timeout.and_then(|it| it.timeout_in_minutes);
        let minutes = minutes.and_then(|minutes| u64::try_from(minutes).ok());
        let action = timeout.and_then(|it| it.action.as_ref());
        Self {
            stages: stages.filter_map(|it| Stage::named(it.as_str())).collect(),
            timeout: minutes.map_or(TIMEOUT_DEFAULT, |minutes| Duration::from_secs(minutes * 60)),
            timeout_action: action.map_or(Action::Rollback, Action::of),
        }
    }
}

/// What is done about a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    Continue,
    Rollback,
}

impl Action {
    pub fn of(given: &ecs::DeploymentLifecycleHookAction) -> Self {
        match given {
            ecs::DeploymentLifecycleHookAction::Continue => Self::Continue,
            _ => Self::Rollback,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Rollback => "ROLLBACK",
        }
    }
}

/// A hook that a deployment has reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub id: String,
    pub stage: Stage,
    pub expires_at: Timestamp,
    pub timeout_action: Action,
    pub status: HookStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HookStatus {
    AwaitingAction,
    Succeeded,
    Failed,
    TimedOut,
}

impl HookStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingAction => "AWAITING_ACTION",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
        }
    }
}

impl Hook {
    pub fn reached(id: String, hook: &PauseHook, stage: Stage, now: Timestamp) -> Self {
        Self {
            id,
            stage,
            expires_at: now + hook.timeout,
            timeout_action: hook.timeout_action,
            status: HookStatus::AwaitingAction,
        }
    }

    /// An answer that was taken in time counts, however late it is looked at.
    pub fn settle(&mut self, answer: Option<Action>, now: Timestamp) {
        if self.status != HookStatus::AwaitingAction {
            return;
        }
        self.status = match answer {
            Some(Action::Continue) => HookStatus::Succeeded,
            Some(Action::Rollback) => HookStatus::Failed,
            None if now >= self.expires_at => HookStatus::TimedOut,
            None => HookStatus::AwaitingAction,
        };
    }
}
