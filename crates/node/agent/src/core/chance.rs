//! Jitter and back-off from a seed, so that a run can be replayed.
//!
//! What always holds: the same seed gives the same waits.
//! What it leaves to others: drawing the seed (from `gantry_env`).

use std::time::Duration;

/// SplitMix64: one word of state, good enough to spread reconnects.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn seeded(seed: u64) -> Chance {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Somewhere in `from..=to`.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX - 1);
        from + Duration::from_millis(self.next() % (span + 1))
    }

    /// Doubles from `first` with every failure up to `last`, and takes away up to a third at random,
    /// so that agents that lost the same control plane do not come back in step.
    pub fn back_off(&mut self, first: Duration, last: Duration, failures: u32) -> Duration {
        let whole = first.saturating_mul(1 << failures.min(16)).min(last);
        self.between(whole - whole / 3, whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_limit_and_is_replayable() {
        let (first, last) = (Duration::from_millis(100), Duration::from_secs(10));
        let waits = |seed| {
            let mut chance = Chance::seeded(seed);
            (0..40)
                .map(|n| chance.back_off(first, last, n))
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        assert!(
            waits(7)
                .iter()
                .all(|wait| *wait >= first - first / 3 && *wait <= last)
        );
        assert!(waits(7)[39] >= last - last / 3);
    }
}
