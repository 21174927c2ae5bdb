//! Strategies: which of the instances that fit is the best.
//!
//! A chain of strategies is a chain of keys: the first decides, each next one breaks its ties, and
//! what is still equal after the last is decided by the seed (for `random`) or by id.

use std::collections::BTreeMap;

use crate::candidate::Candidate;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Cpu,
    Memory,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// As many tasks of the group on one instance as on the next.
    SpreadByInstance,
    /// As many tasks of the group on the instances with one value of the attribute as with another.
    SpreadByAttribute(String),
    /// On the instance that has the least left of the resource.
    Binpack(Resource),
    Random,
}

/// The instance to take among `fits` (indices into `candidates`), or `None` if there is none.
pub(crate) fn choose(
    candidates: &[Candidate],
    fits: &[usize],
    group: &str,
    strategies: &[Strategy],
    seed: u64,
) -> Option<usize> {
    // What a spread over an attribute counts is the whole group of instances that share its value.
    let counts: Vec<BTreeMap<Option<&str>, u32>> = strategies
        .iter()
        .map(|strategy| match strategy {
            Strategy::SpreadByAttribute(name) => tasks_by_value(candidates, name, group),
            _ => BTreeMap::new(),
        })
        .collect();
    let rank = |index: usize| -> Vec<i128> {
        let candidate = &candidates[index];
        let keys = strategies
            .iter()
            .zip(&counts)
            .map(|(strategy, counts)| match strategy {
                Strategy::SpreadByInstance => i128::from(candidate.tasks_of(group)),
                Strategy::SpreadByAttribute(name) => {
                    i128::from(counts.get(&value(candidate, name)).copied().unwrap_or(0))
                }
                Strategy::Binpack(Resource::Cpu) => i128::from(candidate.free.cpu),
                Strategy::Binpack(Resource::Memory) => i128::from(candidate.free.memory),
                Strategy::Random => i128::from(mix(seed ^ mix(index as u64))),
            });
        keys.collect()
    };
    fits.iter().copied().min_by(|&a, &b| {
        let by_rank = rank(a).cmp(&rank(b));
        by_rank.then_with(|| candidates[a].id.cmp(&candidates[b].id))
    })
}

fn value<'a>(candidate: &'a Candidate, name: &str) -> Option<&'a str> {
    candidate
        .attributes
        .get(name)
        .and_then(|value| value.as_deref())
}

fn tasks_by_value<'a>(
    candidates: &'a [Candidate],
    name: &str,
    group: &str,
) -> BTreeMap<Option<&'a str>, u32> {
    let mut counts = BTreeMap::new();
    for candidate in candidates {
        *counts.entry(value(candidate, name)).or_default() += candidate.tasks_of(group);
    }
    counts
}

/// SplitMix64's finalizer: spreads a seed's bits, so that neighbouring indices rank independently.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
