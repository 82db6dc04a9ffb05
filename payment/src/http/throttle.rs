//! How often one address may call without a credential: a bucket of tokens for each.
//! Invariant: memory is bounded. It only delays: to forget it, as a new process does, changes no outcome.
//! It must not know what the requests are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::request::Parts;
use service::peer;
use service::problem::{self, Problem, Result};
use tokio::time::Instant;

/// Beyond that strangers share one bucket.
const ADDRESSES_MAX: usize = 4096;
/// Who was quiet may catch up on so much.
const BURST_S: u32 = 2;
/// Everybody whose address is not known, and those beyond the bound.
const OTHERS: IpAddr = peer::UNKNOWN;

#[derive(Debug)]
pub(crate) struct Throttle {
    each: Duration,
    burst: Duration,
    /// When the bucket of an address will be full again.
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Throttle {
    pub(crate) fn new(per_s_max: u32) -> Self {
        Self {
            each: Duration::from_secs(1) / per_s_max.max(1),
            burst: Duration::from_secs(BURST_S.into()),
            full_at: Mutex::default(),
        }
    }

    /// Takes a token of whoever sent the request, and tells from where they call.
    pub(super) fn admit(&self, parts: &Parts) -> Result<IpAddr> {
        let address = peer::network(parts);
        self.take(address, Instant::now()).map(|()| address)
    }

    fn take(&self, address: IpAddr, now: Instant) -> Result<()> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= ADDRESSES_MAX && !full_at.contains_key(&address) {
            full_at.retain(|_, full_at| *full_at > now);
        }
        let known = full_at.len() < ADDRESSES_MAX || full_at.contains_key(&address);
        let full_at = full_at.entry(if known { address } else { OTHERS }).or_insert(now);
        let after = (*full_at).max(now) + self.each;
        let missing = after.saturating_duration_since(now + self.burst);
        if missing.is_zero() {
            *full_at = after;
            return Ok(());
        }
        let missing_ms = u64::try_from(missing.as_millis()).unwrap_or(u64::MAX);
        Err(Problem::new(
            problem::TOO_MANY_REQUESTS,
            "This address calls too often without a credential.",
        )
        .retry_after_ms(missing_ms.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_is_too_fast_waits_and_nobody_else() {
        let (throttle, now) = (Throttle::new(10), Instant::now());
        let (fast, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for n in 0..20 {
            assert!(throttle.take(fast, now).is_ok(), "{n}");
        }
        let refused = throttle.take(fast, now).unwrap_err();
        assert_eq!(refused.kind.code, "too-many-requests");
        assert_eq!(refused.retry_after_ms, Some(100));
        assert!(throttle.take(other, now).is_ok());
        // What was refused cost nothing: after a tenth of a second there is one more, and only one.
        let later = now + Duration::from_millis(100);
        assert!(throttle.take(fast, later).is_ok());
        assert!(throttle.take(fast, later).is_err());
        // A long rest gives no more than the burst.
        let rested = now + Duration::from_mins(10);
        let taken = (0..100).filter(|_| throttle.take(fast, rested).is_ok());
        assert_eq!(taken.count(), 20);
    }

    #[test]
    fn more_addresses_than_fit_share_a_bucket() {
        let (throttle, now) = (Throttle::new(1), Instant::now());
        let nth = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 1..=ADDRESSES_MAX {
            assert!(throttle.take(nth(n), now).is_ok());
        }
        let strangers = (1..=100).filter(|n| throttle.take(nth(ADDRESSES_MAX + n), now).is_ok());
        assert_eq!(strangers.count(), 2);
        assert!(throttle.full_at.lock().unwrap().len() <= ADDRESSES_MAX + 1);
        // Those who are quiet are forgotten when room is needed.
        let later = now + Duration::from_secs(5);
        assert!(throttle.take(nth(ADDRESSES_MAX + 1), later).is_ok());
        assert_eq!(throttle.full_at.lock().unwrap().len(), 1);
    }
}
