//! Who in this process needs an image or a layer that no container's file names yet: pulls, and starts.
//!
//! What always holds: what is held when a collection begins, or is held at any time while it runs, is not removed
//! by it, even if it was let go meanwhile. So whoever writes down his use while he holds it is never overlooked: the
//! collection either sees the hold or reads what was written.
//! What it leaves to others: uses that outlive the process (the tasks' files).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::digest::Digest;

#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Digest, usize>,
    /// While a collection runs: all that was held since it began.
    seen: Option<BTreeSet<Digest>>,
}

/// Keeps what it names until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    holds: Arc<Holds>,
    digests: Vec<Digest>,
}

/// A collection under way. Only one runs at a time.
pub(crate) struct Collecting<'a>(&'a Holds);

impl Holds {
    pub fn hold(self: &Arc<Self>, digests: impl IntoIterator<Item = Digest>) -> Hold {
        let mut hold = Hold {
            holds: self.clone(),
            digests: Vec::new(),
        };
        hold.also(digests);
        hold
    }

    /// `None` where a collection runs already.
    pub fn begin(&self) -> Option<Collecting<'_>> {
        let mut state = self.lock();
        if state.seen.is_some() {
            return None;
        }
        state.seen = Some(state.counts.keys().cloned().collect());
        Some(Collecting(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    pub fn also(&mut self, digests: impl IntoIterator<Item = Digest>) {
        let mut state = self.holds.lock();
        for digest in digests {
            *state.counts.entry(digest.clone()).or_default() += 1;
            if let Some(seen) = &mut state.seen {
                seen.insert(digest.clone());
            }
            self.digests.push(digest);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.holds.lock();
        for digest in &self.digests {
            if let Some(count) = state.counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.counts.remove(digest);
                }
            }
        }
    }
}

impl Collecting<'_> {
    pub fn held(&self) -> BTreeSet<Digest> {
        self.0.lock().seen.clone().unwrap_or_default()
    }

    /// Does `work` while nobody can take hold of anything, unless somebody holds or held one of these.
    /// `None`: somebody does.
    pub fn unless_held<'d, T>(
        &self,
        mut digests: impl Iterator<Item = &'d Digest>,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let state = self.0.lock();
        let is_held = |digest| {
            state
                .seen
                .as_ref()
                .is_some_and(|seen| seen.contains(digest))
        };
        if digests.any(is_held) {
            return None;
        }
        Some(work())
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        self.0.lock().seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_while_a_collection_ran_is_not_its_to_remove() {
        let holds = Arc::new(Holds::default());
        let [a, b, c, d] = [0u8, 1, 2, 3].map(|at| Digest::of(&[at]));
        let before = holds.hold([a.clone()]);
        drop(holds.hold([d.clone()]));
        let collecting = holds.begin().unwrap();
        assert!(holds.begin().is_none());
        drop(before);
        let mut during = holds.hold([b.clone()]);
        during.also([c.clone()]);
        drop(during);
        for digest in [&a, &b, &c] {
            assert_eq!(collecting.unless_held([digest].into_iter(), || ()), None);
        }
        assert_eq!(collecting.unless_held([&d].into_iter(), || ()), Some(()));
        drop(collecting);
        let next = holds.begin().unwrap();
        assert_eq!(next.held(), BTreeSet::new());
    }
}
