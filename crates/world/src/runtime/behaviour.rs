//! How a container behaves whose task definition says so: a revision that is broken is broken the same way
//! wherever it runs.
//!
//! What always holds: the behaviour is the container's command, which travels through the real payload
//! and the real plan of the agent. A container without one fares as the dice fall (`process`).

use std::time::Duration;

use gantry_env::Timestamp;

use super::process::ENDLESS;

/// What the program of a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The dice decide.
    Drawn,
    /// It runs until it is told to stop, and is well.
    Lives,
    EndsAfter(Duration),
    DoesNotStart,
    /// There is no such image.
    IsNotFound,
    StartsNowAndThen,
    /// It does not start before then.
    StartsFrom(Timestamp),
    /// It runs, and its checks fail from the beginning.
    IsSick,
    SickensAfter(Duration),
    HealsAfter(Duration),
}

impl Behaviour {
    pub fn command(self) -> Vec<String> {
        let (word, time) = match self {
            Self::Drawn => return Vec::new(),
            Self::Lives => ("lives", None),
            Self::EndsAfter(time) => ("ends-after", Some(time)),
            Self::DoesNotStart => ("does-not-start", None),
            Self::IsNotFound => ("is-not-found", None),
            Self::StartsNowAndThen => ("starts-now-and-then", None),
            Self::StartsFrom(at) => ("starts-from", Some(at.since(Timestamp::EPOCH))),
            Self::IsSick => ("is-sick", None),
            Self::SickensAfter(time) => ("sickens-after", Some(time)),
            Self::HealsAfter(time) => ("heals-after", Some(time)),
        };
        let time = time.map(|time| time.as_secs().to_string());
        std::iter::once(word.to_owned()).chain(time).collect()
    }

    pub(super) fn of(command: &[String]) -> Behaviour {
        let time = || {
            let seconds = command.get(1).and_then(|word| word.parse().ok());
            Duration::from_secs(seconds.expect("seconds"))
        };
        match command.first().map(String::as_str) {
            None => Self::Drawn,
            Some("lives") => Self::Lives,
            Some("ends-after") => Self::EndsAfter(time()),
            Some("does-not-start") => Self::DoesNotStart,
            Some("is-not-found") => Self::IsNotFound,
            Some("starts-now-and-then") => Self::StartsNowAndThen,
            Some("starts-from") => Self::StartsFrom(Timestamp::EPOCH + time()),
            Some("is-sick") => Self::IsSick,
            Some("sickens-after") => Self::SickensAfter(time()),
            Some("heals-after") => Self::HealsAfter(time()),
            Some(other) => panic!("no container behaves as '{other}'"),
        }
    }

    /// Whether it may fail by chance to be pulled or to start, besides what it does by itself.
    pub(super) fn may_fail(self, calm: bool) -> bool {
        self == Self::Drawn || !calm
    }

    /// How long it lives and its exit code, unless both are drawn.
    pub(super) fn lives(self) -> Option<(Duration, i32)> {
        match self {
            Self::Drawn => None,
            Self::EndsAfter(time) => Some((time, 1)),
            _ => Some((ENDLESS, 0)),
        }
    }

    /// Whether a check succeeds that finds it at this age, unless chance has it otherwise.
    pub(super) fn is_well(self, age: Duration) -> bool {
        match self {
            Self::IsSick => false,
            Self::SickensAfter(time) => age < time,
            Self::HealsAfter(time) => age >= time,
            _ => true,
        }
    }
}
