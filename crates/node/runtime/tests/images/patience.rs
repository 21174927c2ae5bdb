//! How long a test waits for what must come.

use std::time::Duration;

/// Longer than anything takes that works, on the machine that this is.
pub fn patience() -> Duration {
    scaled(Duration::from_secs(30))
}

/// A limit that was measured on a real machine. An emulated one says of itself how much slower it is.
pub fn scaled(limit: Duration) -> Duration {
    let said = std::env::var("GANTRY_TEST_PATIENCE").ok();
    limit * said.and_then(|times| times.parse().ok()).unwrap_or(1)
}
