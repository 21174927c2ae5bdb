//! Time in a shim: it has no runtime that could give it an `Env`'s timers, only the clocks.

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

    /// Since the machine's start, as the kernel's log counts it.
    pub fn since_boot(&self) -> Duration {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the pointer is to a local.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
        Duration::new(
            time.tv_sec.unsigned_abs(),
            time.tv_nsec.unsigned_abs() as u32,
        )
    }
}
