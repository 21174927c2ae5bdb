//! Time in a shim: it has no runtime that could give it an `Env`'s timers, only the two clocks.

use std::time::Duration;

use gantry_env::{Env, Timestamp};

/// The real clocks.
pub(super) struct ShimClock(Env);

impl ShimClock {
    pub fn new() -> ShimClock {
        ShimClock(Env::real())
    }

    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    pub fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}
