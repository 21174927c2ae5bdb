//! Container instances in the order of one chain of strategies.
//!
//! One level a strategy: the instances stand under their key of the first, there under their key of
//! the second, and so on; what is equal in all of them stands together in the last level. A spread
//! over an attribute is keyed by the value, and the values are ordered by their counts when somebody
//! asks, because a task on one instance moves all those that share its value.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::candidate::{Candidate, Capacity};
use crate::index::is_ordered;
use crate::strategy::{Resource, Strategy, mix};

/// An instance's number in its index.
pub(crate) type Slot = u32;

/// What is looked for.
pub(crate) struct Search<'a> {
    pub needs: Capacity,
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
    salt: u64,
    root: Level,
    /// For each level that spreads over an attribute: the tasks of the group by value, counted on
    /// all instances, also on those that take no more tasks.
    counts: Vec<BTreeMap<Option<String>, i64>>,
    /// Where each slot stands in the list of a `Random` level.
    positions: Vec<u32>,
    pub used: u64,
}

#[derive(Debug)]
enum Level {
    Values(BTreeMap<Option<String>, Level>),
    Tasks(BTreeMap<u32, Level>),
    Free(Resource, BTreeMap<i64, Level>),
    Random(Vec<Slot>),
    Equal(Equal),
}

/// Instances that are equally good, by what is left on them, the most first: of those that are
/// looked for in vain, none comes before one that would do.
#[derive(Debug, Default)]
struct Equal {
    by_cpu: BTreeSet<(Reverse<i64>, u64, Slot)>,
    by_memory: BTreeSet<(Reverse<i64>, u64, Slot)>,
}

/// What an instance stands under, level by level.
enum StandsUnder {
    Value(Option<String>),
    Tasks(u32),
    Free(i64),
    Random,
}

impl Order {
    pub(crate) fn new(chain: Vec<Strategy>, group: String, salt: u64) -> Self {
        let counts = chain.iter().map(|_| BTreeMap::new()).collect();
        let root = Level::of(&chain);
        Self {
            chain,
            group,
            salt,
            root,
            counts,
            positions: Vec::new(),
            used: 0,
        }
    }

    /// Moves an instance from where it was to where it is now.
    pub(crate) fn change(&mut self, slot: Slot, was: Option<&Candidate>, is: Option<&Candidate>) {
        if let Some(was) = was {
            self.count(was, -1);
        }
        if let Some(was) = was.filter(|it| is_ordered(it)) {
            let path = self.path(was);
            let leaf = Leaf::of(slot, was, self.salt);
            take_out(&mut self.root, &path, &leaf, &mut self.positions);
        }
        if let Some(is) = is {
            self.count(is, 1);
        }
        if let Some(is) = is.filter(|it| is_ordered(it)) {
            let path = self.path(is);
            let leaf = Leaf::of(slot, is, self.salt);
            put_in(
                &mut self.root,
                &path,
                &leaf,
                &self.chain,
                &mut self.positions,
            );
        }
    }

    /// The best instance that fits.
    pub(crate) fn first(&self, search: &Search<'_>) -> Option<Slot> {
        self.first_in(&self.root, 0, search)
    }

    fn count(&mut self, candidate: &Candidate, sign: i64) {
        let tasks = i64::from(candidate.tasks_of(&self.group));
        if tasks == 0 {
            return;
        }
        for (strategy, counts) in self.chain.iter().zip(&mut self.counts) {
            if let Strategy::SpreadByAttribute(name) = strategy {
                let value = candidate.attribute(name).map(str::to_owned);
                let count = counts.entry(value.clone()).or_default();
                *count += sign * tasks;
                if *count == 0 {
                    counts.remove(&value);
                }
            }
        }
    }

    fn path(&self, candidate: &Candidate) -> Vec<StandsUnder> {
        let key = |strategy: &Strategy| match strategy {
            Strategy::SpreadByAttribute(name) => {
                StandsUnder::Value(candidate.attribute(name).map(str::to_owned))
            }
            Strategy::SpreadByInstance => StandsUnder::Tasks(candidate.tasks_of(&self.group)),
            Strategy::Binpack(resource) => StandsUnder::Free(resource.free_on(candidate)),
            Strategy::Random => StandsUnder::Random,
        };
        self.chain.iter().map(key).collect()
    }

    fn first_in(&self, level: &Level, depth: usize, search: &Search<'_>) -> Option<Slot> {
        let below = |level: &Level| self.first_in(level, depth + 1, search);
        match level {
            Level::Values(values) => {
                let counts = self.counts.get(depth);
                let count = |value: &Option<String>| {
                    counts.and_then(|c| c.get(value)).copied().unwrap_or(0)
                };
                let mut ordered: Vec<_> = values
                    .iter()
                    .map(|(value, level)| (count(value), level))
                    .collect();
                // Stable: values with equal counts stay in their order.
                ordered.sort_by_key(|(count, _)| *count);
                ordered.into_iter().find_map(|(_, level)| below(level))
            }
            Level::Tasks(counts) => counts.values().find_map(below),
            Level::Free(resource, amounts) => {
                let needed = match resource {
                    Resource::Cpu => search.needs.cpu,
                    Resource::Memory => search.needs.memory,
                };
                // What needs nothing of it fits also where it is used up.
                let least = if needed > 0 { needed } else { i64::MIN };
                amounts.range(least..).find_map(|(_, level)| below(level))
            }
            Level::Random(slots) => drawn(slots, search),
            Level::Equal(equal) => equal.first(search),
        }
    }
}

impl Level {
    fn of(chain: &[Strategy]) -> Self {
        match chain.first() {
            Some(Strategy::SpreadByAttribute(_)) => Self::Values(BTreeMap::new()),
            Some(Strategy::SpreadByInstance) => Self::Tasks(BTreeMap::new()),
            Some(Strategy::Binpack(resource)) => Self::Free(*resource, BTreeMap::new()),
            Some(Strategy::Random) => Self::Random(Vec::new()),
            None => Self::Equal(Equal::default()),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Values(values) => values.is_empty(),
            Self::Tasks(counts) => counts.is_empty(),
            Self::Free(_, amounts) => amounts.is_empty(),
            Self::Random(slots) => slots.is_empty(),
            Self::Equal(equal) => equal.by_cpu.is_empty(),
        }
    }
}

/// An instance in the last level.
struct Leaf {
    slot: Slot,
    free: Capacity,
    /// Puts instances with equally much left in an order that is nobody's favourite.
    chance: u64,
}

impl Leaf {
    fn of(slot: Slot, candidate: &Candidate, salt: u64) -> Self {
        Self {
            slot,
            free: candidate.free,
            chance: mix(salt ^ mix(u64::from(slot))),
        }
    }
}

fn put_in(
    level: &mut Level,
    path: &[StandsUnder],
    leaf: &Leaf,
    chain: &[Strategy],
    positions: &mut Vec<u32>,
) {
    let rest = path.get(1..).unwrap_or_default();
    let chain = chain.get(1..).unwrap_or_default();
    let next = match (level, path.first()) {
        (Level::Values(values), Some(StandsUnder::Value(value))) => values
            .entry(value.clone())
            .or_insert_with(|| Level::of(chain)),
        (Level::Tasks(counts), Some(StandsUnder::Tasks(count))) => {
            counts.entry(*count).or_insert_with(|| Level::of(chain))
        }
        (Level::Free(_, amounts), Some(StandsUnder::Free(amount))) => {
            amounts.entry(*amount).or_insert_with(|| Level::of(chain))
        }
        (Level::Random(slots), _) => {
            let at = leaf.slot as usize;
            if positions.len() <= at {
                positions.resize(at + 1, 0);
            }
            if let Some(position) = positions.get_mut(at) {
                *position = slots.len() as u32;
            }
            slots.push(leaf.slot);
            return;
        }
        (Level::Equal(equal), _) => {
            let (free, chance, slot) = (leaf.free, leaf.chance, leaf.slot);
            equal.by_cpu.insert((Reverse(free.cpu), chance, slot));
            equal.by_memory.insert((Reverse(free.memory), chance, slot));
            return;
        }
        // A path is made of the same chain as the levels are.
        _ => return,
    };
    put_in(next, rest, leaf, chain, positions);
}

/// Takes an instance out, and every level above it that it leaves empty.
fn take_out(level: &mut Level, path: &[StandsUnder], leaf: &Leaf, positions: &mut [u32]) {
    let rest = path.get(1..).unwrap_or_default();
    match (level, path.first()) {
        (Level::Values(values), Some(StandsUnder::Value(value))) => {
            if let Some(next) = values.get_mut(value) {
                take_out(next, rest, leaf, positions);
                if next.is_empty() {
                    values.remove(value);
                }
            }
        }
        (Level::Tasks(counts), Some(StandsUnder::Tasks(count))) => {
            if let Some(next) = counts.get_mut(count) {
                take_out(next, rest, leaf, positions);
                if next.is_empty() {
                    counts.remove(count);
                }
            }
        }
        (Level::Free(_, amounts), Some(StandsUnder::Free(amount))) => {
            if let Some(next) = amounts.get_mut(amount) {
                take_out(next, rest, leaf, positions);
                if next.is_empty() {
                    amounts.remove(amount);
                }
            }
        }
        (Level::Random(slots), _) => {
            let Some(position) = positions.get(leaf.slot as usize).copied() else {
                return;
            };
            if slots.get(position as usize) != Some(&leaf.slot) {
                return;
            }
            slots.swap_remove(position as usize);
            // The last one has moved into the gap.
            if let Some(moved) = slots.get(position as usize)
                && let Some(place) = positions.get_mut(*moved as usize)
            {
                *place = position;
            }
        }
        (Level::Equal(equal), _) => {
            let (free, chance, slot) = (leaf.free, leaf.chance, leaf.slot);
            equal.by_cpu.remove(&(Reverse(free.cpu), chance, slot));
            equal
                .by_memory
                .remove(&(Reverse(free.memory), chance, slot));
        }
        _ => {}
    }
}

impl Equal {
    /// The one with the most left that fits; a busy one only where no other does.
    fn first(&self, search: &Search<'_>) -> Option<Slot> {
        let enough = |needed: i64| move |free: i64| needed <= 0 || free >= needed;
        let (cpu, memory) = (enough(search.needs.cpu), enough(search.needs.memory));
        let mut by_cpu = self.by_cpu.iter().take_while(|(free, ..)| cpu(free.0));
        let mut by_memory = self
            .by_memory
            .iter()
            .take_while(|(free, ..)| memory(free.0));
        let mut only_busy = None;
        // In turns from both ends of the question: as soon as one of them has shown all that has
        // enough of its resource, there is nothing else that has enough of both.
        loop {
            let mut look = |slot: Slot| {
                if !(search.fits)(slot) {
                    return false;
                }
                let busy = (search.busy)(slot);
                if busy {
                    only_busy.get_or_insert(slot);
                }
                !busy
            };
            let Some((_, _, slot)) = by_cpu.next() else {
                return only_busy;
            };
            if look(*slot) {
                return Some(*slot);
            }
            let Some((_, _, slot)) = by_memory.next() else {
                return only_busy;
            };
            if look(*slot) {
                return Some(*slot);
            }
        }
    }
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
