//! Plans that are being committed: what they take is kept from other plans until that is over.
//!
//! What always holds: nothing rests on it. A plan of which nothing is heard lets go when its service is
//! looked at again; and the commit itself says whether a place was still free.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_store::Key;

use crate::api::placing::Reservation;

/// How long one commit that another waits for takes, about.
const TURN: Duration = Duration::from_millis(2);

/// The longest that a service waits without looking again.
const TURNS_MAX: usize = 500;

#[derive(Default)]
pub(super) struct Open {
    reservations: BTreeMap<Key, Reservation>,
    /// Services whose next task goes where another plan is being committed.
    waiting: BTreeSet<Key>,
}

impl Open {
    /// What the plan of a service takes, to be dropped when no lock is held: its commit is over.
    #[must_use]
    pub fn settled(&mut self, key: &Key) -> Option<Reservation> {
        self.waiting.remove(key);
        self.reservations.remove(key)
    }

    /// Notes what a pass came to. If it waits, says for how long: the more stand in line for the
    /// same few instances, the longer, so that not all of them look again each time that one is done.
    pub fn note(
        &mut self,
        key: &Key,
        reservation: Option<Reservation>,
        waits: bool,
    ) -> Option<Duration> {
        if let Some(reservation) = reservation {
            self.reservations.insert(key.clone(), reservation);
        }
        if !waits {
            return None;
        }
        self.waiting.insert(key.clone());
        let turns = self.waiting.len().min(TURNS_MAX);
        Some(TURN.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)))
    }
}
