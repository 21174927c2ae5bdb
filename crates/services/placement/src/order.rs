//! Container instances in the order of one chain of strategies, for tasks of one size and group.
//!
//! One level a strategy: the instances stand under their key of the first, there under their key of
//! the second, and so on; what is equal in all of them stands together in the last level. A spread
//! over an attribute is keyed by the value, and the values are ordered by their counts when somebody
//! asks, because a task on one instance moves all those that share its value.
//!
//! An order may also be of no group. It then counts no tasks and serves every group that has few: the
//! instances that hold some of them are looked at one by one, and of all others the order knows the
//! best ([`Order::first_beside`]). So thousands of small services share one order.
//!
//! What always holds: only instances stand here that take tasks and have room for one of this size,
//! so nobody who looks for one passes by those that are full.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::candidate::{Candidate, Capacity, Eligibility};
use crate::strategy::{Resource, Strategy, mix};

/// An instance's number in its index.
pub(crate) type Slot = u32;

/// The instances that hold tasks of a group, and how many.
pub(crate) type Holders = BTreeMap<Slot, u32>;

/// What is looked for, besides room.
#[derive(Clone, Copy)]
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
    /// Whose tasks are counted.
    group: Option<String>,
    needs: Capacity,
    salt: u64,
    root: Level,
    /// For each level that spreads over an attribute: its values, by number.
    values: Vec<Values>,
    /// Where each slot stands.
    standing: Vec<Standing>,
    pub used: u64,
}

/// The values of an attribute. Number 0 is for instances that have none.
#[derive(Debug, Default)]
struct Values {
    numbers: BTreeMap<String, i64>,
    /// The tasks of the group by value, counted on all instances, also on those that take no more.
    counts: BTreeMap<i64, i64>,
}

/// AWS takes five strategies, and a constraint may put one more before them.
pub(crate) const LEVELS_MAX: usize = 6;

/// Where an instance stands: its key at each level. In one piece, because there are many.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// Those that the keys were made from: looking a value up costs more than all the rest.
    attributes: Option<Arc<BTreeMap<String, Option<String>>>>,
    ordered: bool,
    path: [i64; LEVELS_MAX],
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
    /// up, and then in the order of their slots, from another one on in each index.
    Equal(BTreeSet<(Reverse<i64>, u32, Slot)>),
}

impl Order {
    pub(crate) fn new(
        chain: Vec<Strategy>,
        group: Option<String>,
        needs: Capacity,
        salt: u64,
    ) -> Self {
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
            used: 0,
        }
    }

    /// Moves an instance to where it is now. An instance that is gone stands nowhere.
    pub(crate) fn change(&mut self, slot: Slot, is: Option<&Candidate>) {
        let at = slot as usize;
        if self.standing.len() <= at {
            self.standing.resize(at + 1, Standing::default());
        }
        let Some(before) = self.standing.get_mut(at).map(std::mem::take) else {
            return;
        };
        let now = self.stand(&before, is);
        if (before.tasks, &before.path) != (now.tasks, &now.path) {
            count(&self.chain, &mut self.values, &before, -1);
            count(&self.chain, &mut self.values, &now, 1);
        }
        let moved =
            (before.ordered, &before.path, before.room) != (now.ordered, &now.path, now.room);
        let path = now.path;
        let (ordered, room) = (now.ordered, now.room);
        if let Some(place) = self.standing.get_mut(at) {
            *place = now;
        }
        if !moved {
            return;
        }
        let chance = self.chance(slot);
        let levels = self.chain.len().min(LEVELS_MAX);
        if before.ordered {
            let leaf = Leaf {
                slot,
                room: before.room,
                chance,
            };
            let path = before.path.get(..levels).unwrap_or_default();
            take_out(&mut self.root, path, &leaf, &mut self.standing);
        }
        if ordered {
            let leaf = Leaf { slot, room, chance };
            let path = path.get(..levels).unwrap_or_default();
            put_in(&mut self.root, path, &leaf, &self.chain, &mut self.standing);
        }
    }

    /// The best instance that fits.
    pub(crate) fn first(&self, search: &Search<'_>) -> Option<Slot> {
        let counts: Vec<&BTreeMap<i64, i64>> = self.values.iter().map(|it| &it.counts).collect();
        let found = self.first_in(&self.root, 0, search, &counts);
        found.map(|found| found.slot)
    }

    /// The best instance that fits, in an order of no group, for one whose tasks are on `holders`.
    pub(crate) fn first_beside(&self, holders: &Holders, search: &Search<'_>) -> Option<Slot> {
        let counts: Vec<BTreeMap<i64, i64>> = (0..self.chain.len())
            .map(|depth| self.counts_of(holders, depth))
            .collect();
        let counts: Vec<&BTreeMap<i64, i64>> = counts.iter().collect();
        // Only where tasks on the instance itself count is a holder another than it stands here for.
        if !self.chain.contains(&Strategy::SpreadByInstance) {
            let found = self.first_in(&self.root, 0, search, &counts);
            return found.map(|found| found.slot);
        }
        let fits = |slot: Slot| !holders.contains_key(&slot) && (search.fits)(slot);
        let others = Search {
            fits: &fits,
            ..*search
        };
        let other = self.first_in(&self.root, 0, &others, &counts);
        let holders = holders
            .iter()
            .filter_map(|(slot, tasks)| self.ranked(*slot, *tasks, search, &counts));
        holders.chain(other).min().map(|found| found.slot)
    }

    /// How many tasks the holders have by the value of the attribute that this level spreads over.
    fn counts_of(&self, holders: &Holders, depth: usize) -> BTreeMap<i64, i64> {
        let mut counts = BTreeMap::new();
        if !matches!(self.chain.get(depth), Some(Strategy::SpreadByAttribute(_))) {
            return counts;
        }
        for (slot, tasks) in holders {
            let standing = self.standing.get(*slot as usize);
            if let Some(number) = standing.and_then(|it| it.path.get(depth)) {
                *counts.entry(*number).or_default() += i64::from(*tasks);
            }
        }
        counts
    }

    /// An instance that holds tasks of the group, if it fits, as it compares with others.
    fn ranked(
        &self,
        slot: Slot,
        tasks: u32,
        search: &Search<'_>,
        counts: &[&BTreeMap<i64, i64>],
    ) -> Option<Found> {
        let standing = self.standing.get(slot as usize)?;
        if !standing.ordered || !(search.fits)(slot) {
            return None;
        }
        let mut rank = standing.path;
        let levels = self.chain.iter().zip(counts).zip(&mut rank);
        for ((strategy, counts), key) in levels {
            match strategy {
                Strategy::SpreadByAttribute(_) => *key = counts.get(key).copied().unwrap_or(0),
                Strategy::SpreadByInstance => *key = i64::from(tasks),
                Strategy::Binpack(_) | Strategy::Random => {}
            }
        }
        let is_random = self.chain.last() == Some(&Strategy::Random);
        Some(match is_random {
            true => Found {
                rank,
                ..Found::drawn(slot, search.seed)
            },
            false => Found {
                rank,
                busy: (search.busy)(slot),
                room: Reverse(standing.room),
                chance: u64::from(self.chance(slot)),
                slot,
            },
        })
    }

    /// Neighbours in memory stand next to each other, which is where the next placement looks; and
    /// where the row of them begins is another place in each index.
    fn chance(&self, slot: Slot) -> u32 {
        slot.wrapping_add(self.salt as u32)
    }

    fn stand(&mut self, before: &Standing, is: Option<&Candidate>) -> Standing {
        let Some(is) = is else {
            return Standing::default();
        };
        let tasks = self.group.as_ref().map_or(0, |group| is.tasks_of(group));
        let tasks = i64::from(tasks);
        let room = room(&is.free, &self.needs);
        let same_attributes = before
            .attributes
            .as_ref()
            .is_some_and(|attributes| Arc::ptr_eq(attributes, &is.attributes));
        let mut path = before.path;
        let levels = self.chain.iter().zip(&mut self.values).zip(&mut path);
        for ((strategy, values), key) in levels {
            *key = match strategy {
                Strategy::SpreadByAttribute(_) if same_attributes => *key,
                Strategy::SpreadByAttribute(name) => values.number(is.attribute(name)),
                Strategy::SpreadByInstance => tasks,
                Strategy::Binpack(Resource::Cpu) => is.free.cpu,
                Strategy::Binpack(Resource::Memory) => is.free.memory,
                Strategy::Random => 0,
            };
        }
        Standing {
            attributes: Some(is.attributes.clone()),
            ordered: is.eligibility == Eligibility::Eligible && room > 0,
            path,
            tasks,
            room,
            position: before.position,
        }
    }

    /// `counts` are the tasks of the group by value, for each level.
    fn first_in(
        &self,
        level: &Level,
        depth: usize,
        search: &Search<'_>,
        counts: &[&BTreeMap<i64, i64>],
    ) -> Option<Found> {
        // Levels are left from the last to the first.
        let below = |level: &Level, key: i64| {
            let mut found = self.first_in(level, depth + 1, search, counts)?;
            if let Some(place) = found.rank.get_mut(depth) {
                *place = key;
            }
            Some(found)
        };
        match level {
            Level::Values(levels) => {
                let counts = counts.get(depth);
                let count = |number: &i64| counts.and_then(|c| c.get(number)).copied().unwrap_or(0);
                let mut ordered: Vec<(i64, &Level)> = levels
                    .iter()
                    .map(|(number, level)| (count(number), level))
                    .collect();
                ordered.sort_by_key(|(count, _)| *count);
                // Values with the same count are equally good: what comes after decides among
                // the best of each.
                let mut equally_good = ordered.chunk_by(|a, b| a.0 == b.0);
                equally_good.find_map(|equal| {
                    let best = equal
                        .iter()
                        .filter_map(|(count, level)| below(level, *count));
                    best.min()
                })
            }
            Level::Keys(levels) => levels.iter().find_map(|(key, level)| below(level, *key)),
            Level::Random(slots) => drawn(slots, search),
            Level::Equal(equal) => first_of(equal, search),
        }
    }
}

/// An instance that fits, and how good it is: less is better, and the earliest level counts first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    rank: [i64; LEVELS_MAX],
    busy: bool,
    room: Reverse<i64>,
    chance: u64,
    slot: Slot,
}

impl Found {
    /// One of those among which chance decides. An instance that is busy is as good as another
    /// there: to avoid it would not be random.
    fn drawn(slot: Slot, seed: u64) -> Self {
        Self {
            rank: [0; LEVELS_MAX],
            busy: false,
            room: Reverse(0),
            chance: mix(seed ^ u64::from(slot)),
            slot,
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
    if standing.tasks == 0 {
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
    chance: u32,
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
fn first_of(equal: &BTreeSet<(Reverse<i64>, u32, Slot)>, search: &Search<'_>) -> Option<Found> {
    let mut only_busy = None;
    for (room, chance, slot) in equal {
        if !(search.fits)(*slot) {
            continue;
        }
        let found = Found {
            rank: [0; LEVELS_MAX],
            busy: (search.busy)(*slot),
            room: *room,
            chance: u64::from(*chance),
            slot: *slot,
        };
        if !found.busy {
            return Some(found);
        }
        only_busy.get_or_insert(found);
    }
    only_busy
}

/// One that fits, each with the same chance.
fn drawn(slots: &[Slot], search: &Search<'_>) -> Option<Found> {
    let pick = |seed: u64, of: usize| {
        // The high half of the product: as even as the seed, without a division.
        let at = (u128::from(seed) * of as u128) >> 64;
        usize::try_from(at).unwrap_or_default()
    };
    let found = |slot: Slot| Found::drawn(slot, search.seed);
    for n in 0..DRAWS_MAX.min(slots.len() as u64 * 2) {
        let slot = slots.get(pick(mix(search.seed.wrapping_add(n)), slots.len()))?;
        if (search.fits)(*slot) {
            return Some(found(*slot));
        }
    }
    let fit: Vec<Slot> = slots
        .iter()
        .copied()
        .filter(|s| (search.fits)(*s))
        .collect();
    fit.get(pick(mix(search.seed), fit.len()))
        .copied()
        .map(found)
}
