//! The wall clock, read in one place only, so that it is easy to see who depends on it.
//! Invariant: nothing that decides over order or safety uses this; deadlines use `tokio::time::Instant`.

use std::time::{Duration, UNIX_EPOCH};

/// Milliseconds since 1970 by the wall clock, which may jump; never before 1970.
pub fn now_ms() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one reader of the wall clock"
    )]
    let now = std::time::SystemTime::now();
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
