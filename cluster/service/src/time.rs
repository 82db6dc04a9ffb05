//! The wall clock, read in one place only, so that it is easy to see who depends on it, and how long ago something was.
//! Invariant: nothing that decides over order or safety uses the wall clock; deadlines use `tokio::time::Instant`, and
//! whoever must not act too late asks `Since` as well.

use std::time::{Duration, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Counts on while the machine sleeps, and cannot be set.
#[cfg(target_os = "linux")]
const NEVER_STILL: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const NEVER_STILL: ClockId = ClockId::Monotonic;

/// A moment. What is past since then is told also when this machine slept meanwhile, which `Instant` does not count; of
/// a virtual machine that was halted nothing inside it can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Since(Duration);

impl Since {
    pub fn now() -> Self {
        let now = clock_gettime(NEVER_STILL);
        // Time since the machine was started: never below zero.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanoseconds))
    }

    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }

    /// To be kept in an atomic: nanoseconds for some 500 years.
    pub(crate) fn to_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    /// As if it had been so much before this.
    #[must_use]
    pub fn earlier(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

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
