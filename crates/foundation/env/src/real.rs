//! The real environment. Nothing outside this file may ask the machine for time or randomness.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Clock, Entropy, Sleep, Timers, Timestamp};

pub(crate) struct Real {
    started: Instant,
}

impl Real {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one reader of the monotonic clock"
    )]
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock for Real {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one reader of the wall clock"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            // A machine whose clock was never set may stand before 1970.
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Timestamp::from_millis(since_epoch)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Entropy for Real {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one reader of the kernel's randomness"
    )]
    #[allow(
        clippy::expect_used,
        reason = "ids drawn without randomness would collide: stopping is right"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the kernel gives random bytes");
    }
}

impl Timers for Real {
    fn sleep_until_monotonic(&self, deadline: Duration) -> Sleep {
        let deadline = self.started.checked_add(deadline);
        Box::pin(async move {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                // Further away than the clock can count: it never comes.
                None => std::future::pending().await,
            }
        })
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the one user of the machine's timers"
    )]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(async move { tokio::time::sleep(duration).await })
    }
}

/// Holds this thread up. Only for code that has no runtime to wait in: the command line, and work on the kernel that
/// is already on a thread of its own.
pub fn pause_thread(duration: std::time::Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Env;

    #[test]
    fn the_clock_is_after_this_was_written_and_time_passes() {
        let env = Env::real();
        assert!(env.now() > Timestamp::from_millis(1_700_000_000_000));
        let before = env.monotonic();
        assert!(env.monotonic() >= before);
        assert_ne!(env.entropy.bytes16(), env.entropy.bytes16());
    }

    #[tokio::test]
    async fn a_sleep_lasts_at_least_as_long_as_asked() {
        let env = Env::real();
        let before = env.monotonic();
        env.sleep(Duration::from_millis(5)).await;
        assert!(env.monotonic() - before >= Duration::from_millis(5));
        let deadline = env.monotonic() + Duration::from_millis(5);
        env.timers.sleep_until_monotonic(deadline).await;
        assert!(env.monotonic() >= deadline);
    }
}
