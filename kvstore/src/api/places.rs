//! The places of watches, of which this node has a bounded number.
//!
//! Invariant: a place is taken for as long as its watch is served, and counts for the token that opened it. One that has
//! more than a quarter of them leaves the last one to others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use prometheus::IntGauge;

use crate::store::fair_part;

const POISON: &str = "no holder of the places panics";

pub(super) struct Places {
    max: usize,
    /// By the names of tokens.
    taken: Mutex<BTreeMap<String, usize>>,
    /// All that are taken, for who asks.
    gauge: IntGauge,
}

/// One of them, given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    owner: String,
}

impl Places {
    pub(super) fn new(max: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
            gauge,
        })
    }

    pub(super) fn take(self: &Arc<Self>, owner: &str) -> Option<Place> {
        let mut taken = self.taken.lock().expect(POISON);
        let all: usize = taken.values().sum();
        let own = taken.get(owner).copied().unwrap_or_default();
        if all as u64 >= fair_part(self.max as u64, own as u64) {
            return None;
        }
        taken.insert(owner.to_owned(), own + 1);
        self.gauge.inc();
        Some(Place {
            places: Arc::clone(self),
            owner: owner.to_owned(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().expect(POISON);
        let own = taken.get_mut(&self.owner);
        let own = own.expect("a place that is taken is counted");
        *own -= 1;
        if *own == 0 {
            taken.remove(&self.owner);
        }
        self.places.gauge.dec();
    }
}
