//! The three traits, and the bundle of them that is handed around.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::Timestamp;
use crate::real;

pub trait Clock: Send + Sync {
    /// The time that people and AWS's clients see. It may jump.
    fn now(&self) -> Timestamp;

    /// Time since some moment before this environment was made. It never goes back.
    fn monotonic(&self) -> Duration;
}

pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);

    /// What an id is made from.
    fn bytes16(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }

    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// A wait. Dropping it gives the timer up.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

pub trait Timers: Send + Sync {
    /// Ends once [`Clock::monotonic`] has reached `deadline`.
    fn sleep_until_monotonic(&self, deadline: Duration) -> Sleep;

    /// Ends once `duration` has passed.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// Where a component gets time and chance from. Cloning shares it.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub timers: Arc<dyn Timers>,
}

impl Env {
    /// The machine's clock, the kernel's randomness, tokio's timers.
    pub fn real() -> Self {
        let real = Arc::new(real::Real::new());
        Self {
            clock: real.clone(),
            entropy: real.clone(),
            timers: real,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.timers.sleep(duration)
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}
