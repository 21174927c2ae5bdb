//! How long a group's events are kept. Without a policy they never expire.

use std::time::Duration;

/// The values AWS accepts, in days.
pub const ALLOWED_DAYS: [i32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
];

/// A period that AWS accepts.
pub fn retention(days: i32) -> Option<Duration> {
    ALLOWED_DAYS
        .contains(&days)
        .then(|| Duration::from_secs(days as u64 * 24 * 60 * 60))
}

/// The message of InvalidParameterException for any other value.
pub fn not_allowed(days: i32) -> String {
    let allowed: Vec<String> = ALLOWED_DAYS.iter().map(i32::to_string).collect();
    format!(
        "1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy \
         constraint: Member must satisfy enum value set: [{}]",
        allowed.join(", ")
    )
}
