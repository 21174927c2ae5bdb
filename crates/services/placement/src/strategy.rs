//! Strategies: which of the instances that fit is the best.
//!
//! A chain of strategies is a chain of keys: the first decides, each next one breaks its ties. What is
//! still equal after the last goes to the instance with room for the most, so that no single one fills
//! up, and among those to the one that a seed puts first.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Cpu,
    Memory,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// As many tasks of the group on one instance as on the next.
    SpreadByInstance,
    /// As many tasks of the group on the instances with one value of the attribute as with another.
    SpreadByAttribute(String),
    /// On the instance that has the least left of the resource.
    Binpack(Resource),
    Random,
}

/// What counts where a request names no strategy.
pub(crate) fn default_chain() -> Vec<Strategy> {
    vec![
        Strategy::SpreadByAttribute("ecs.availability-zone".to_owned()),
        Strategy::SpreadByInstance,
    ]
}

/// SplitMix64's finalizer: spreads a seed's bits, so that neighbouring numbers are unrelated.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
