//! Waiting for a condition, never for a time.
//! Invariant: a wait that fails says where, for what, and what it saw last.

use std::time::{Duration, Instant};

/// Long enough for a busy machine, short enough for a person to wait for a failure.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Looks again and again until the condition holds; at the deadline it fails with what it saw last.
#[track_caller]
pub(crate) fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let end = Instant::now() + deadline;
        loop {
            let seen = match look().await {
                Ok(found) => return found,
                Err(seen) => seen,
            };
            assert!(
                Instant::now() < end,
                "{place}: waited {deadline:?} for: {what}; last seen: {seen}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
