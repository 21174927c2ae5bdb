//! Container instances in the order of one chain of strategies, for tasks of one size and group.
//!
//! One level a strategy: the instances stand under their key of the first, there under their key of
//! the second, and so on; what is equal in all of them stands together in the last level. A spread
//! over an attribute is keyed by the value, and the values are ordered by their counts when somebody
//! asks, because a task on one instance moves all those that share its value.
//!
//! What always holds: only instances stand here that take tasks and have room for one of this size,
//! so nobody who looks for one passes by those that are full.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::candidate::{Candidate, Capacity, Eligibility};
use crate::strategy::{Resource, Strategy, mix};

/// An instance's number in its index.
pub(crate) type Slot = u32;

/// What is looked for, besides room.
pub(crate) struct Search<'a> {
    pub fits: &'a dyn Fn(Slot) -> bool,
    pub busy: &'a dyn Fn(Slot) -> bool,
    /// Decides where nothing else does.
    pub seed: u64,
}

/// How often chance is tried before every instance is looked at. With half of them unfit, that
/// happens once in four billion placements.
const DRAWS_MAX: u64 = 32;

#[derive(Debug)]
pub(crate) struct Order {
    chain: Vec<Strategy>,
    group: String,
    needs: Capacity,
    salt: u64,
    root: Level,
    /// For each level that spreads over an attribute: its values, by number.
    values: Vec<Values>,
    /// Where each slot stands.
    standing: Vec<Standing>,
    /// Made and unmade with each change; kept for its memory.
    scratch: Standing,
    pub used: u64,
}

/// The values of an attribute. Number 0 is for instances that have none.
#[derive(Debug, Default)]
struct Values {
    numbers: BTreeMap<String, i64>,
    /// The tasks of the group by value, counted on all instances, also on those that take no more.
    counts: BTreeMap<i64, i64>,
}

/// Where an instance stands: its key at each level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Standing {
    known: bool,
    ordered: bool,
    path: Vec<i64>,
    tasks: i64,
    /// How many tasks of the size have room, at the last level.
    room: i64,
    /// In the list of a `Random` level.
    position: u32,
}

#[derive(Debug)]
enum Level {
    /// Sorted by the counts of their values when somebody asks.
    Values(BTreeMap<i64, Level>),
    /// The least first.
    Keys(BTreeMap<i64, Level>),
    Random(Vec<Slot>),
    /// Equally good ones: those with room for the most tasks first, so that no single one fills
    /// up, and then in an order that is nobody's favourite.
    Equal(BTreeSet<(Reverse<i64>, u64, Slot)>),
}

impl Order {
    pub(crate) fn new(chain: Vec<Strategy>, group: String, needs: Capacity, salt: u64) -> Self {
        let values = chain.iter().map(|_| Values::default()).collect();
        let root = Level::of(&chain);
        Self {
            chain,
            group,
            needs,
            salt,
            root,
            values,
            standing: Vec::new(),
            scratch: Standing::default(),
            used: 0,
        }
    }

    /// Moves an instance to where it is now. An instance that is gone stands nowhere.
    pub(crate) fn change(&mut self, slot: Slot, is: Option<&Candidate>) {
        let at = slot as usize;
        if self.standing.len() <= at {
            self.standing.resize(at + 1, Standing::default());
        }
        let mut now = std::mem::take(&mut self.scratch);
        self.stand(&mut now, is);
        let Some(before) = self.standing.get_mut(at) else {
            return;
        };
        now.position = before.position;
        if now == *before {
            self.scratch = now;
            return;
        }
        let before = std::mem::replace(before, now);
        let Some(now) = self.standing.get(at) else {
            return;
        };
        count(&self.chain, &mut self.values, &before, -1);
        count(&self.chain, &mut self.values, now, 1);
        let moved =
            (before.ordered, &before.path, before.room) != (now.ordered, &now.path, now.room);
        if moved {
            let chance = mix(self.salt ^ mix(u64::from(slot)));
            let (ordered, path, room) = (now.ordered, now.path.clone(), now.room);
            if before.ordered {
                let leaf = Leaf {
                    slot,
                    room: before.room,
                    chance,
                };
                take_out(&mut self.root, &before.path, &leaf, &mut self.standing);
            }
            if ordered {
                let leaf = Leaf { slot, room, chance };
                put_in(
                    &mut self.root,
                    &path,
                    &leaf,
                    &self.chain,
                    &mut self.standing,
                );
            }
        }
        self.scratch = before;
    }

    /// The best instance that fits.
    pub(crate) fn first(&self, search: &Search<'_>) -> Option<Slot> {
        self.first_in(&self.root, 0, search)
    }

    fn stand(&mut self, now: &mut Standing, is: Option<&Candidate>) {
        now.path.clear();
        now.known = is.is_some();
        (now.ordered, now.tasks, now.room) = (false, 0, 0);
        let Some(is) = is else { return };
        now.tasks = i64::from(is.tasks_of(&self.group));
        now.room = room(&is.free, &self.needs);
        now.ordered = is.eligibility == Eligibility::Eligible && now.room > 0;
        for (strategy, values) in self.chain.iter().zip(&mut self.values) {
            now.path.push(match strategy {
                Strategy::SpreadByAttribute(name) => values.number(is.attribute(name)),
                Strategy::SpreadByInstance => now.tasks,
                Strategy::Binpack(Resource::Cpu) => is.free.cpu,
                Strategy::Binpack(Resource::Memory) => is.free.memory,
                Strategy::Random => 0,
            });
        }
    }

    fn first_in(&self, level: &Level, depth: usize, search: &Search<'_>) -> Option<Slot> {
        let below = |level: &Level| self.first_in(level, depth + 1, search);
        match level {
            Level::Values(levels) => {
                let counts = self.values.get(depth).map(|values| &values.counts);
                let count = |number: &i64| counts.and_then(|c| c.get(number)).copied().unwrap_or(0);
                let mut ordered: Vec<_> = levels
                    .iter()
                    .map(|(number, level)| (count(number), level))
                    .collect();
                // Stable: values with equal counts stay in their order.
                ordered.sort_by_key(|(count, _)| *count);
                ordered.into_iter().find_map(|(_, level)| below(level))
            }
            Level::Keys(levels) => levels.values().find_map(below),
            Level::Random(slots) => drawn(slots, search),
            Level::Equal(equal) => first_of(equal, search),
        }
    }
}

/// How many tasks of a size have room.
fn room(free: &Capacity, needs: &Capacity) -> i64 {
    // What needs nothing of a resource has room also where that is used up.
    let of = |free: i64, needs: i64| match needs {
        ..=0 => i64::MAX,
        needs => free.max(0) / needs,
    };
    of(free.cpu, needs.cpu).min(of(free.memory, needs.memory))
}

fn count(chain: &[Strategy], values: &mut [Values], standing: &Standing, sign: i64) {
    if !standing.known || standing.tasks == 0 {
        return;
    }
    for ((strategy, values), number) in chain.iter().zip(values).zip(&standing.path) {
        if matches!(strategy, Strategy::SpreadByAttribute(_)) {
            *values.counts.entry(*number).or_default() += sign * standing.tasks;
        }
    }
}

impl Values {
    fn number(&mut self, value: Option<&str>) -> i64 {
        let Some(value) = value else { return 0 };
        match self.numbers.get(value) {
            Some(number) => *number,
            None => {
                let number = self.numbers.len() as i64 + 1;
                self.numbers.insert(value.to_owned(), number);
                number
            }
        }
    }
}

impl Level {
    fn of(chain: &[Strategy]) -> Self {
        match chain.first() {
            Some(Strategy::SpreadByAttribute(_)) => Self::Values(BTreeMap::new()),
            Some(Strategy::SpreadByInstance | Strategy::Binpack(_)) => Self::Keys(BTreeMap::new()),
            Some(Strategy::Random) => Self::Random(Vec::new()),
            None => Self::Equal(BTreeSet::new()),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Values(levels) | Self::Keys(levels) => levels.is_empty(),
            Self::Random(slots) => slots.is_empty(),
            Self::Equal(equal) => equal.is_empty(),
        }
    }
}

/// An instance in the last level.
struct Leaf {
    slot: Slot,
    room: i64,
    chance: u64,
}

fn put_in(
    level: &mut Level,
    path: &[i64],
    leaf: &Leaf,
    chain: &[Strategy],
    standing: &mut [Standing],
) {
    let chain = chain.get(1..).unwrap_or_default();
    match level {
        Level::Values(levels) | Level::Keys(levels) => {
            // A path is made of the same chain as the levels are.
            let Some((key, rest)) = path.split_first() else {
                return;
            };
            let next = levels.entry(*key).or_insert_with(|| Level::of(chain));
            put_in(next, rest, leaf, chain, standing);
        }
        Level::Random(slots) => {
            if let Some(standing) = standing.get_mut(leaf.slot as usize) {
                standing.position = slots.len() as u32;
            }
            slots.push(leaf.slot);
        }
        Level::Equal(equal) => {
            equal.insert((Reverse(leaf.room), leaf.chance, leaf.slot));
        }
    }
}

/// Takes an instance out, and every level above it that it leaves empty.
fn take_out(level: &mut Level, path: &[i64], leaf: &Leaf, standing: &mut [Standing]) {
    match level {
        Level::Values(levels) | Level::Keys(levels) => {
            let Some((key, rest)) = path.split_first() else {
                return;
            };
            if let Some(next) = levels.get_mut(key) {
                take_out(next, rest, leaf, standing);
                if next.is_empty() {
                    levels.remove(key);
                }
            }
        }
        Level::Random(slots) => {
            let Some(position) = standing.get(leaf.slot as usize).map(|it| it.position) else {
                return;
            };
            if slots.get(position as usize) != Some(&leaf.slot) {
                return;
            }
            slots.swap_remove(position as usize);
            // The last one has moved into the gap.
            if let Some(moved) = slots.get(position as usize)
                && let Some(standing) = standing.get_mut(*moved as usize)
            {
                standing.position = position;
            }
        }
        Level::Equal(equal) => {
            equal.remove(&(Reverse(leaf.room), leaf.chance, leaf.slot));
        }
    }
}

/// The first that fits; a busy one only where no other does.
fn first_of(equal: &BTreeSet<(Reverse<i64>, u64, Slot)>, search: &Search<'_>) -> Option<Slot> {
    let mut only_busy = None;
    for (_, _, slot) in equal {
        if !(search.fits)(*slot) {
            continue;
        }
        if !(search.busy)(*slot) {
            return Some(*slot);
        }
        only_busy.get_or_insert(*slot);
    }
    only_busy
}

/// One that fits, each with the same chance. An instance that is busy is as good as another here:
/// to avoid it would not be random.
fn drawn(slots: &[Slot], search: &Search<'_>) -> Option<Slot> {
    let pick = |seed: u64, of: usize| {
        // The high half of the product: as even as the seed, without a division.
        let at = (u128::from(seed) * of as u128) >> 64;
        usize::try_from(at).unwrap_or_default()
    };
    for n in 0..DRAWS_MAX.min(slots.len() as u64 * 2) {
        let slot = slots.get(pick(mix(search.seed.wrapping_add(n)), slots.len()))?;
        if (search.fits)(*slot) {
            return Some(*slot);
        }
    }
    let fit: Vec<Slot> = slots
        .iter()
        .copied()
        .filter(|s| (search.fits)(*s))
        .collect();
    fit.get(pick(mix(search.seed), fit.len())).copied()
}
