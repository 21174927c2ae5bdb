//! The credentials of the roles of one task, in one session: asked for, held, renewed. No I/O.
//!
//! What always holds: a role is asked for at most once at a time; what was got is renewed before it
//! ends, long enough before that several attempts fit; the whole session has one moment at which it
//! next looks.
//! What it leaves to others: what becomes of a task whose role cannot be assumed (`session`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_api::acs::{RoleCredentials, RoleType};
use gantry_api::protocol::timestamp;
use gantry_arn::TaskId;
use gantry_env::Timestamp;

/// Why there are no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleRefusal {
    /// The role is not there, or nobody may assume it.
    Unassumable,
    /// Nobody can say right now: ask again.
    Unavailable,
}

/// Before a first answer a task waits, so it is asked for again soon.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// What still counts is good for a while longer.
const RENEWAL_RETRY: Duration = Duration::from_secs(60);
/// No credentials are renewed faster than this, however short they live.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(15);

/// The roles of one task.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskRoles {
    roles: BTreeMap<RoleType, Role>,
}

#[derive(Clone, Debug)]
struct Role {
    arn: String,
    credentials: Option<RoleCredentials>,
    asked: bool,
    /// In [`Renewals`] as well.
    again_at: Option<Timestamp>,
}

impl TaskRoles {
    /// What is to be asked for because the task needs it and nothing was asked yet.
    pub(super) fn begin(&mut self, needed: &[(RoleType, String)]) -> Vec<(RoleType, String)> {
        let mut ask = Vec::new();
        for (role, arn) in needed {
            if !self.roles.contains_key(role) {
                let fresh = Role {
                    arn: arn.clone(),
                    credentials: None,
                    asked: true,
                    again_at: None,
                };
                self.roles.insert(role.clone(), fresh);
                ask.push((role.clone(), arn.clone()));
            }
        }
        ask
    }

    /// Whether something is still missing without which the task is not sent.
    pub(super) fn is_waiting(&self) -> bool {
        self.roles.values().any(|role| role.credentials.is_none())
    }

    pub(super) fn credentials(&self, role: &RoleType) -> Option<RoleCredentials> {
        self.roles.get(role)?.credentials.clone()
    }

    pub(super) fn arn(&self, role: &RoleType) -> &str {
        self.roles.get(role).map_or("", |role| &role.arn)
    }

    /// Takes an answer and says when to ask again.
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        role: &RoleType,
        answer: &Result<RoleCredentials, RoleRefusal>,
    ) -> Option<Timestamp> {
        let held = self.roles.get_mut(role)?;
        held.asked = false;
        held.again_at = match answer {
            Ok(credentials) => {
                held.credentials = Some(credentials.clone());
                renewal(now, credentials)
            }
            Err(_) if held.credentials.is_some() => Some(now + RENEWAL_RETRY),
            Err(_) => Some(now + FIRST_RETRY),
        };
        held.again_at
    }

    /// The role to ask for now, if this moment is still the one that was meant.
    pub(super) fn again(&mut self, role: &RoleType, at: Timestamp) -> Option<String> {
        let held = self.roles.get_mut(role)?;
        if held.asked || held.again_at != Some(at) {
            return None;
        }
        (held.asked, held.again_at) = (true, None);
        Some(held.arn.clone())
    }
}

/// Three quarters of the way to the end. None for credentials that do not say when they end.
fn renewal(now: Timestamp, credentials: &RoleCredentials) -> Option<Timestamp> {
    let end = timestamp::parse(credentials.expiration.as_deref()?)?;
    let life = end.since(now) * 3 / 4;
    Some(now + life.max(SHORTEST_RENEWAL))
}

/// When which role is to be asked for again, over all tasks of the session.
#[derive(Clone, Debug, Default)]
pub(super) struct Renewals {
    due: BTreeSet<(Timestamp, TaskId, RoleType)>,
    /// What the timer is set to.
    timer: Option<Timestamp>,
}

impl Renewals {
    pub(super) fn add(&mut self, at: Timestamp, task: TaskId, role: RoleType) {
        self.due.insert((at, task, role));
    }

    /// How long until the next one, where the timer does not know it yet.
    pub(super) fn timer(&mut self, now: Timestamp) -> Option<Duration> {
        let first = self.due.first().map(|(at, ..)| *at)?;
        if self.timer.is_some_and(|timer| timer <= first) {
            return None;
        }
        self.timer = Some(first);
        Some(first.since(now))
    }

    /// The timer has rung: what is due, and what it was due for. A task that is gone is not named
    /// again.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<(Timestamp, TaskId, RoleType)> {
        self.timer = None;
        let mut due = Vec::new();
        while self.due.first().is_some_and(|(at, ..)| *at <= now) {
            due.extend(self.due.pop_first());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(expiration: Option<Timestamp>) -> RoleCredentials {
        RoleCredentials {
            expiration: expiration.map(|at| at.to_string()),
            ..RoleCredentials::default()
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000) + Duration::from_secs(seconds)
    }

    #[test]
    fn what_ends_is_renewed_at_three_quarters_of_its_life() {
        let role = RoleType::TaskApplication;
        let mut roles = TaskRoles::default();
        let needed = [(role.clone(), "arn".to_owned())];
        assert_eq!(roles.begin(&needed), needed);
        assert_eq!(roles.begin(&needed), []);
        assert!(roles.is_waiting());
        let again = roles.answered(at(0), &role, &Ok(credentials(Some(at(4_000)))));
        assert_eq!(again, Some(at(3_000)));
        assert!(!roles.is_waiting());
        assert_eq!(roles.again(&role, at(1)), None);
        assert_eq!(roles.again(&role, at(3_000)), Some("arn".to_owned()));
        assert_eq!(roles.again(&role, at(3_000)), None);
        // A renewal that fails leaves what there is, and is tried again.
        let again = roles.answered(at(3_000), &role, &Err(RoleRefusal::Unavailable));
        assert_eq!(again, Some(at(3_060)));
        assert!(roles.credentials(&role).is_some());
        assert_eq!(roles.answered(at(1), &role, &Ok(credentials(None))), None);
    }

    #[test]
    fn the_timer_is_set_for_the_first_one_only() {
        let task = TaskId::from_random([1; 16]);
        let mut renewals = Renewals::default();
        renewals.add(at(50), task, RoleType::TaskApplication);
        assert_eq!(renewals.timer(at(0)), Some(Duration::from_secs(50)));
        renewals.add(at(60), task, RoleType::TaskExecution);
        assert_eq!(renewals.timer(at(0)), None);
        renewals.add(at(40), task, RoleType::TaskExecution);
        assert_eq!(renewals.timer(at(0)), Some(Duration::from_secs(40)));
        assert_eq!(renewals.take_due(at(55)).len(), 2);
        assert_eq!(renewals.timer(at(55)), Some(Duration::from_secs(5)));
    }
}
