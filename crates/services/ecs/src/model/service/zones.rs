//! The balance of a service's tasks over availability zones: which single move brings it nearer.
//!
//! What always holds: a move leads from a zone to one that has at least two tasks less, so it never
//! makes another move necessary, let alone the one back; where no zone has two less than another, there
//! is none. A zone all of whose tasks are protected gives none away.
//!
//! Left to others: when a service is looked at at all, finding a place in the poorer zone, and stopping
//! in the richer one once the newcomer is healthy ([`crate::controllers`]).

use std::collections::BTreeMap;
use std::time::Duration;

/// The least by which two zones must differ.
const DIFFERENCE: usize = 2;

/// How long a service waits whose move came to nothing, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(27 * 60));

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Zone {
    pub tasks: usize,
    /// Of those, how many may be taken away.
    pub movable: usize,
    /// It has container instances that the service's constraints mean.
    pub takes: bool,
}

pub type Zones = BTreeMap<String, Zone>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub from: String,
    /// Where to, the poorest first: the next is tried where the one before has no room.
    pub to: Vec<String>,
}

/// No zone that takes tasks has two less than another.
pub fn is_balanced(zones: &Zones) -> bool {
    let most = zones.values().map(|zone| zone.tasks).max().unwrap_or(0);
    let takers = zones.values().filter(|zone| zone.takes);
    takers
        .map(|zone| zone.tasks)
        .min()
        .is_none_or(|least| most < least + DIFFERENCE)
}

/// What is to be moved next: from the richest zone that may lose a task.
pub fn next_move(zones: &Zones) -> Option<Move> {
    let givers = zones.iter().filter(|(_, zone)| zone.movable > 0);
    // Of equals the first by name, so that the same question has the same answer.
    let (from, richest) =
        givers.min_by_key(|(name, zone)| (std::cmp::Reverse(zone.tasks), *name))?;
    let mut to: Vec<(usize, &String)> = zones
        .iter()
        .filter(|(_, zone)| zone.takes && zone.tasks + DIFFERENCE <= richest.tasks)
        .map(|(name, zone)| (zone.tasks, name))
        .collect();
    to.sort();
    (!to.is_empty()).then(|| Move {
        from: from.clone(),
        to: to.into_iter().map(|(_, name)| name.clone()).collect(),
    })
}

/// How long nothing is moved after so many moves in a row that came to nothing.
pub fn pause(times: u32) -> Duration {
    PAUSE
        .0
        .saturating_mul(1 << times.saturating_sub(1).min(10))
        .min(PAUSE.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zones(tasks: &[(usize, usize, bool)]) -> Zones {
        let names = ('a'..).map(String::from);
        let zone = |(tasks, movable, takes): &(usize, usize, bool)| Zone {
            tasks: *tasks,
            movable: *movable,
            takes: *takes,
        };
        names.zip(tasks.iter().map(zone)).collect()
    }

    #[test]
    fn a_task_moves_from_the_richest_zone_to_the_poorest() {
        let seen = next_move(&zones(&[(3, 3, true), (1, 1, true), (0, 0, true)])).unwrap();
        assert_eq!(
            (seen.from.as_str(), seen.to),
            ("a", vec!["c".to_owned(), "b".to_owned()])
        );
        assert_eq!(next_move(&zones(&[(3, 3, true), (2, 2, true)])), None);
        // A zone that takes none is not filled, and what is protected not taken.
        assert_eq!(next_move(&zones(&[(3, 3, true), (0, 0, false)])), None);
        assert_eq!(next_move(&zones(&[(3, 0, true), (0, 0, true)])), None);
    }

    #[test]
    fn what_comes_to_nothing_is_tried_again_less_and_less() {
        assert_eq!(pause(1), Duration::from_secs(60));
        assert_eq!(pause(3), Duration::from_secs(240));
        assert_eq!(pause(u32::MAX), Duration::from_secs(27 * 60));
    }

    proptest! {
        /// It ends, each move is towards the balance, and none is the way back of the one before.
        #[test]
        fn moves_do_not_flap(
            tasks in prop::collection::vec((0..20_usize, 0..20_usize, any::<bool>()), 0..6),
        ) {
            let mut zones = zones(&tasks);
            for zone in zones.values_mut() {
                zone.movable = zone.movable.min(zone.tasks);
            }
            let total: usize = zones.values().map(|zone| zone.tasks).sum();
            let spread = |zones: &Zones| zones.values().map(|zone| zone.tasks * zone.tasks).sum::<usize>();
            let mut before: Option<(String, String)> = None;
            for _ in 0..=total {
                let Some(step) = next_move(&zones) else {
                    let stuck = zones.values().any(|zone| zone.movable < zone.tasks);
                    prop_assert!(is_balanced(&zones) || stuck, "{:?}", zones);
                    return Ok(());
                };
                let was = spread(&zones);
                let to = step.to[0].clone();
                prop_assert_ne!(before.clone(), Some((to.clone(), step.from.clone())));
                let giver = zones.get_mut(&step.from).unwrap();
                giver.tasks -= 1;
                giver.movable -= 1;
                let taker = zones.get_mut(&to).unwrap();
                taker.tasks += 1;
                taker.movable += 1;
                prop_assert!(spread(&zones) < was);
                before = Some((step.from, to));
            }
            prop_assert!(false, "it does not end");
        }
    }
}
