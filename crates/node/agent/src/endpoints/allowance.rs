//! How often a task may ask: ECS's 40 requests a second, with bursts of 60.
//!
//! What always holds: over any stretch of time a task gets no more than a burst and the rate times the
//! stretch.

use std::time::Duration;

/// Requests a second, over a longer time.
pub const RATE: u32 = 40;
pub const BURST: u32 = 60;

/// What one task has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    left: f64,
    at: Duration,
}

impl Allowance {
    /// A full one, at a moment of the monotonic clock.
    pub fn full(at: Duration) -> Allowance {
        let left = f64::from(BURST);
        Allowance { left, at }
    }

    /// Takes one request, if there is one left.
    pub fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + passed * f64::from(RATE)).min(f64::from(BURST));
        self.at = now.max(self.at);
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Duration::from_secs(7);
        let mut allowance = Allowance::full(start);
        let taken = (0..100).filter(|_| allowance.take(start)).count();
        assert_eq!(taken, BURST as usize);
        // A tenth of a second later four more.
        let later = start + Duration::from_millis(101);
        assert_eq!((0..100).filter(|_| allowance.take(later)).count(), 4);
        // A clock that goes back gives nothing.
        assert!(!allowance.take(start));
        // However long nobody asks, the burst stays the burst.
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| allowance.take(much_later)).count(), 60);
    }
}
