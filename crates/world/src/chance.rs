//! The world's own dice, from its seed. Never drawn by what is tested.

use std::ops::Range;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

/// A seeded stream of decisions.
#[derive(Debug)]
pub struct Chance(ChaCha12Rng);

impl Chance {
    pub fn seeded(seed: u64) -> Self {
        // Another stream than the virtual environment's entropy, which has the same seed.
        Self(ChaCha12Rng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 {
            0
        } else {
            (self.0.next_u64() % limit as u64) as usize
        }
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&mut self, many: u32) -> bool {
        self.0.next_u32() % 1_000 < many
    }

    pub fn duration(&mut self, range: Range<Duration>) -> Duration {
        let width = (range.end - range.start).as_micros().max(1) as u64;
        range.start + Duration::from_micros(self.0.next_u64() % width)
    }

    pub fn token(&mut self) -> String {
        format!("{:016x}", self.0.next_u64())
    }
}
