//! What follows from tasks that fail: when the circuit breaker opens, and how long starts are put off.

use std::time::Duration;

use gantry_api::ecs::{DeploymentCircuitBreaker, ThresholdType};

/// What the threshold is at least and at most, unless it is COUNT or UNBOUNDED_PERCENT.
const THRESHOLD: (u64, u64) = (3, 200);
const DEFAULT_PERCENT: u64 = 50;

/// The longest delay between starts of tasks that do not come up.
pub const DELAY_MAX: Duration = Duration::from_secs(27 * 60);

/// How soon the first delay ends; each next one is twice as long.
const DELAY_MIN: Duration = Duration::from_secs(1);

/// A task that ended by itself sooner than this after it was made is replaced only then, so that a
/// program that ends at once does not fill the cluster with stopped tasks.
pub const RESTART_PACE: Duration = Duration::from_secs(10);

/// After how many failures in a row a service says that it cannot start tasks.
pub const FAILURES_SAID: u32 = 3;

/// How many failed tasks make a deployment fail.
pub fn threshold(breaker: Option<&DeploymentCircuitBreaker>, desired: u32) -> u32 {
    let given = breaker.and_then(|breaker| breaker.threshold_configuration.as_ref());
    let value = given.map_or(DEFAULT_PERCENT, |given| {
        u64::try_from(given.value).unwrap_or(0)
    });
    let percent = (u64::from(desired) * value).div_ceil(100);
    let count = match given.map(|given| &given.r#type) {
        Some(ThresholdType::Count) => value.max(1),
        Some(ThresholdType::UnboundedPercent) => percent.max(1),
        _ => percent.clamp(THRESHOLD.0, THRESHOLD.1),
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How long no task is started after so many times in a row that tasks stopped before they ran.
pub fn delay(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(20);
    DELAY_MIN.saturating_mul(1 << doublings).min(DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::ecs::ThresholdConfiguration;

    fn breaker(kind: ThresholdType, value: i32) -> DeploymentCircuitBreaker {
        DeploymentCircuitBreaker {
            enable: true,
            rollback: true,
            reset_on_healthy_task: None,
            threshold_configuration: Some(ThresholdConfiguration {
                r#type: kind,
                value,
            }),
        }
    }

    #[test]
    fn the_circuit_breaker_opens_after_half_of_the_tasks_at_least_three_at_most_two_hundred() {
        let of = |desired| threshold(None, desired);
        assert_eq!([1, 6, 7, 25, 400, 5000].map(of), [3, 3, 4, 13, 200, 200]);
    }

    #[test]
    fn the_newer_forms_of_the_threshold() {
        let count = breaker(ThresholdType::Count, 1);
        assert_eq!(threshold(Some(&count), 1000), 1);
        let bounded = breaker(ThresholdType::BoundedPercent, 10);
        assert_eq!(threshold(Some(&bounded), 10), 3);
        assert_eq!(threshold(Some(&bounded), 100), 10);
        let unbounded = breaker(ThresholdType::UnboundedPercent, 10);
        assert_eq!(threshold(Some(&unbounded), 10), 1);
        assert_eq!(threshold(Some(&unbounded), 5000), 500);
    }

    #[test]
    fn starts_are_put_off_for_up_to_twenty_seven_minutes() {
        assert_eq!(delay(1), Duration::from_secs(1));
        assert_eq!(delay(4), Duration::from_secs(8));
        assert_eq!(delay(12), Duration::from_secs(27 * 60));
        assert_eq!(delay(u32::MAX), Duration::from_secs(27 * 60));
    }
}
