//! What happens when: every event of the world in one ordered queue on virtual time.
//!
//! What always holds: events come out by time, those of one moment in the order in which they went
//! in, so a seed replays exactly.

use std::collections::BTreeMap;
use std::time::Duration;

/// Events by the moment (since the world began) at which they happen.
#[derive(Debug)]
pub struct Schedule<E> {
    events: BTreeMap<(Duration, u64), E>,
    next: u64,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self {
            events: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<E> Schedule<E> {
    pub fn at(&mut self, moment: Duration, event: E) {
        self.events.insert((moment, self.next), event);
        self.next += 1;
    }

    /// The next event and its moment.
    pub fn pop(&mut self) -> Option<(Duration, E)> {
        self.events
            .pop_first()
            .map(|((moment, _), event)| (moment, event))
    }

    pub fn next_moment(&self) -> Option<Duration> {
        self.events.keys().next().map(|(moment, _)| *moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_keep_their_order() {
        let mut schedule = Schedule::default();
        schedule.at(Duration::from_secs(2), 'c');
        schedule.at(Duration::from_secs(1), 'a');
        schedule.at(Duration::from_secs(1), 'b');
        let order: Vec<char> = std::iter::from_fn(|| schedule.pop().map(|(_, e)| e)).collect();
        assert_eq!(order, ['a', 'b', 'c']);
    }
}
