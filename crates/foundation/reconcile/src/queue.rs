//! Which key is due when.
//!
//! What always holds: a key is in the queue at most once, at the earliest time that anybody asked
//! for; keys due at one time come in the order in which they were put in.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_env::Timestamp;

pub(crate) struct KeyQueue<K> {
    by_time: BTreeMap<(Timestamp, u64), K>,
    by_key: BTreeMap<K, (Timestamp, u64)>,
    next_number: u64,
}

impl<K: Ord + Clone> KeyQueue<K> {
    pub(crate) fn new() -> Self {
        Self {
            by_time: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// Puts `key` in for `due`, or moves it there if that is earlier.
    pub(crate) fn put(&mut self, key: K, due: Timestamp) {
        if let Some(place) = self.by_key.get(&key) {
            if place.0 <= due {
                return;
            }
            self.by_time.remove(place);
        }
        self.next_number += 1;
        let place = (due, self.next_number);
        self.by_time.insert(place, key.clone());
        self.by_key.insert(key, place);
    }

    /// Takes the first key that is due.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<K> {
        let first = self.by_time.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let key = first.remove();
        self.by_key.remove(&key);
        Some(key)
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(place) = self.by_key.remove(key) {
            self.by_time.remove(&place);
        }
    }

    /// When the next key is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.by_time.keys().next().map(|(due, _)| *due)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn clear(&mut self) {
        self.by_time.clear();
        self.by_key.clear();
    }

    /// Makes everything due: after the clock was set back, no time in here means what it meant.
    pub(crate) fn make_all_due(&mut self, now: Timestamp) {
        let keys: Vec<K> = std::mem::take(&mut self.by_time).into_values().collect();
        self.by_key.clear();
        for key in keys {
            self.put(key, now);
        }
    }
}

/// `first`, doubled for each failure before, up to `most`.
pub(crate) fn back_off(failures_before: u32, first: Duration, most: Duration) -> Duration {
    let factor = 1_u32
        .checked_shl(failures_before.min(31))
        .unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_key_is_in_once_at_its_earliest_time() {
        let mut queue = KeyQueue::new();
        queue.put("a", at(5));
        queue.put("b", at(3));
        queue.put("a", at(1));
        queue.put("a", at(9));
        assert_eq!((queue.len(), queue.next_due()), (2, Some(at(1))));
        assert_eq!(queue.take(at(0)), None);
        assert_eq!(queue.take(at(9)), Some("a"));
        assert_eq!(queue.take(at(9)), Some("b"));
        assert_eq!(queue.take(at(9)), None);
    }

    #[test]
    fn the_delay_doubles_up_to_its_limit() {
        let delay = |failures| {
            back_off(failures, Duration::from_millis(10), Duration::from_secs(1)).as_millis()
        };
        assert_eq!(
            [0, 1, 2, 6, 7, 40, u32::MAX].map(delay),
            [10, 20, 40, 640, 1000, 1000, 1000]
        );
    }

    proptest! {
        #[test]
        fn it_is_what_a_map_of_earliest_times_is(
            puts in prop::collection::vec((0..5u8, 0..20i64), 0..40),
            now in 0..20i64,
        ) {
            let mut queue = KeyQueue::new();
            let mut model: BTreeMap<u8, i64> = BTreeMap::new();
            for (key, due) in puts {
                queue.put(key, at(due));
                let earliest = model.entry(key).or_insert(due);
                *earliest = due.min(*earliest);
            }
            let mut taken = Vec::new();
            while let Some(key) = queue.take(at(now)) {
                taken.push(key);
            }
            prop_assert!(taken.is_sorted_by_key(|key| model[key]));
            taken.sort_unstable();
            let due: Vec<u8> = model.iter().filter(|(_, due)| **due <= now).map(|(k, _)| *k).collect();
            prop_assert_eq!(taken, due);
            prop_assert_eq!(queue.len(), model.values().filter(|due| **due > now).count());
        }
    }
}
