//! The clock of leases: monotonic, never the wall clock, and only the leader's word counts.
//!
//! Every member keeps it, so that a new leader has it; there all leases begin anew at full length,
//! since nobody knows what was left under the old one. An expiry is proposed with the renewal that
//! was seen, so that a renewal on its way wins.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::state::Lease;

#[derive(Default)]
pub struct LeaseClock {
    running: Mutex<HashMap<u64, Running>>,
}

#[derive(Clone, Copy)]
struct Running {
    ttl: Duration,
    renewals: u64,
    since: Instant,
}

const POISON: &str = "no holder of the lease clock panics";

impl LeaseClock {
    /// Starts over with what the state holds.
    pub fn reset(&self, leases: Vec<(u64, Lease)>) {
        let since = Instant::now();
        let running = leases
            .into_iter()
            .map(|(id, lease)| (id, Running::new(&lease, since)))
            .collect();
        *self.running.lock().expect(POISON) = running;
    }

    /// A new leader gives every lease its full length.
    pub fn begin_anew(&self) {
        let since = Instant::now();
        for running in self.running.lock().expect(POISON).values_mut() {
            running.since = since;
        }
    }

    pub fn changed(&self, id: u64, lease: Option<&Lease>) {
        let mut running = self.running.lock().expect(POISON);
        match lease {
            Some(lease) => running.insert(id, Running::new(lease, Instant::now())),
            None => running.remove(&id),
        };
    }

    /// Leases whose time is over, with the renewal that was seen.
    pub fn ended(&self, limit: usize) -> Vec<(u64, u64)> {
        let now = Instant::now();
        let running = self.running.lock().expect(POISON);
        let ended = running
            .iter()
            .filter(|(_, lease)| now.duration_since(lease.since) >= lease.ttl);
        ended
            .take(limit)
            .map(|(id, lease)| (*id, lease.renewals))
            .collect()
    }

    pub fn remaining(&self, id: u64) -> Option<Duration> {
        let running = self.running.lock().expect(POISON);
        running
            .get(&id)
            .map(|lease| lease.ttl.saturating_sub(lease.since.elapsed()))
    }

    pub fn len(&self) -> usize {
        self.running.lock().expect(POISON).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Running {
    fn new(lease: &Lease, since: Instant) -> Self {
        Self {
            ttl: Duration::from_millis(lease.ttl_ms),
            renewals: lease.renewals,
            since,
        }
    }
}
