//! What went wrong with a call, and how long to wait before another.

use std::error::Error as _;
use std::time::Duration;

use hyper_util::client::legacy;

use crate::error::ApiError;

/// A call that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ClientError {
    /// AWS's code where the service answered; otherwise `ConnectionError`, `RequestTimeout`,
    /// `UnreadableAnswer` or `InvalidRequest`.
    pub code: String,
    pub message: String,
    /// `None` if no answer came.
    pub status: Option<u16>,
    /// Whether the same call may succeed later. A call that was cut off may have been carried
    /// out, so only idempotent ones are to be repeated.
    pub retryable: bool,
}

/// Codes that say "later", whatever their status.
const THROTTLED: [&str; 6] = [
    "ThrottlingException",
    "Throttling",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "LimitExceededException",
    "ServiceUnavailableException",
];

impl ClientError {
    pub(super) fn answered(error: ApiError) -> Self {
        let retryable = error.http_status == 429
            || (error.http_status >= 500 && error.http_status != 501)
            || THROTTLED.contains(&error.code.as_str());
        Self {
            code: error.code,
            message: error.message,
            status: Some(error.http_status),
            retryable,
        }
    }

    /// The caller's own mistake, found before anything was sent.
    pub fn misuse(message: impl Into<String>) -> Self {
        Self::unanswered("InvalidRequest", message, false)
    }

    pub(super) fn unreadable(message: impl Into<String>) -> Self {
        Self::unanswered("UnreadableAnswer", message, false)
    }

    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self::unanswered("ConnectionError", message, true)
    }

    pub(super) fn timed_out(after: Duration) -> Self {
        Self::unanswered(
            "RequestTimeout",
            format!("no answer within {after:?}"),
            true,
        )
    }

    pub(super) fn from_http(error: &legacy::Error) -> Self {
        // The innermost cause is the one that says what happened ("connection refused").
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        Self::unreachable(message)
    }

    fn unanswered(code: &str, message: impl Into<String>, retryable: bool) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            status: None,
            retryable,
        }
    }
}

/// How long to wait before attempt `attempt` (the first repetition is 1): doubling from `base` up
/// to `cap`, and of that a random part between half and all, so that callers cut off together do
/// not come back together. `random` is one draw from `gantry_env`.
pub fn backoff(attempt: u32, base: Duration, cap: Duration, random: u64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let full = base.saturating_mul(1u32 << doublings).min(cap);
    let half = full / 2;
    let spread_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(random % spread_ns.saturating_add(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_between_half_and_all_of_its_step(attempt: u32, base_ms in 1u64..5000, random: u64) {
            let (base, cap) = (Duration::from_millis(base_ms), Duration::from_secs(60));
            let wait = backoff(attempt, base, cap, random);
            prop_assert!(wait <= cap);
            prop_assert!(wait >= base / 2);
            if attempt <= 1 {
                prop_assert!(wait <= base);
            }
        }
    }

    #[test]
    fn only_what_may_pass_is_retryable() {
        let answered = |code: &str, status| {
            ClientError::answered(ApiError::sender(code, "").with_status(status))
        };
        assert!(answered("InternalFailure", 500).retryable);
        assert!(answered("ThrottlingException", 400).retryable);
        assert!(!answered("ClusterNotFoundException", 400).retryable);
        assert!(!answered("NotImplemented", 501).retryable);
    }
}
