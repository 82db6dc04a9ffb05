//! The clock of leases: monotonic, never the wall clock, and only the leader's word counts.
//!
//! Every member keeps it, so that a new leader has it; there all leases begin anew at full length,
//! since nobody knows what was left under the old one, and the others count with it, to tell what is
//! left. An expiry is proposed with the renewal that was seen, so that a renewal on its way wins.
//! Invariant: no lease ends under a leader under whom it did not begin anew.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use service::planted::{Bug, is_planted};

use super::host::Lead;
use super::state::Lease;

#[derive(Default)]
pub struct LeaseClock {
    running: Mutex<All>,
    /// Revisions that leases pin; few leases do.
    pins: Mutex<HashMap<u64, Pin>>,
    /// The lead of this node under which all leases began anew last.
    led: Mutex<Option<Lead>>,
}

/// All leases by their ids, and how many each owner has.
#[derive(Default)]
struct All {
    by_id: HashMap<u64, Running>,
    by_owner: HashMap<String, usize>,
}

struct Running {
    owner: String,
    ttl: Duration,
    renewals: u64,
    since: Instant,
}

struct Pin {
    owner: String,
    revision: u64,
}

const POISON: &str = "no holder of the lease clock panics";

impl LeaseClock {
    /// Starts over with what the state holds.
    pub fn reset(&self, leases: Vec<(u64, Lease)>) {
        let since = Instant::now();
        let pins = leases
            .iter()
            .filter_map(|(id, lease)| Some((*id, Pin::of(lease)?)));
        *self.pins.lock().expect(POISON) = pins.collect();
        let mut running = All::default();
        for (id, lease) in leases {
            running.put(id, &lease, since);
        }
        *self.running.lock().expect(POISON) = running;
    }

    /// Before the state changes: what is not pinned any more may be removed at once.
    pub fn changes(&self, id: u64, lease: Option<&Lease>) {
        if lease.is_none_or(|lease| lease.pin.is_none()) {
            self.pins.lock().expect(POISON).remove(&id);
        }
    }

    /// After it has changed.
    pub fn changed(&self, id: u64, lease: Option<&Lease>) {
        if let Some(pin) = lease.and_then(Pin::of) {
            self.pins.lock().expect(POISON).insert(id, pin);
        }
        let mut running = self.running.lock().expect(POISON);
        let mut since = Instant::now();
        if is_planted(Bug::RenewalsForgotten)
            && let Some(began) = running.by_id.get(&id)
        {
            since = began.since;
        }
        match lease {
            Some(lease) => running.put(id, lease, since),
            None => running.remove(id),
        }
    }

    /// The first entry of a leader is applied. Where this node has led since, or is that leader and has asked what ended,
    /// nothing changes: it counts from when it first asked, and an entry that is applied late must not delay an end.
    pub fn begin_anew(&self, lead: Lead) {
        if is_planted(Bug::PinsForgotten) {
            self.pins.lock().expect(POISON).clear();
        }
        let now = Instant::now();
        let mut running = self.running.lock().expect(POISON);
        if self.led.lock().expect(POISON).is_none_or(|led| led < lead) {
            for lease in running.by_id.values_mut() {
                lease.since = now;
            }
        }
    }

    /// Leases whose time is over, with the renewal that was seen, and how long it is until the next one ends. A leader
    /// gives every lease its full length when it first asks.
    pub fn ended(&self, lead: Lead, limit: usize) -> (Vec<(u64, u64)>, Option<Duration>) {
        let now = Instant::now();
        let mut running = self.running.lock().expect(POISON);
        if self.led.lock().expect(POISON).replace(lead) != Some(lead) {
            if is_planted(Bug::LeasesForgotten) {
                *running = All::default();
            }
            for lease in running.by_id.values_mut() {
                lease.since = now;
            }
        }
        let (mut ended, mut next) = (Vec::new(), None);
        for (id, lease) in &running.by_id {
            let mut left = lease.ttl.saturating_sub(now.duration_since(lease.since));
            if is_planted(Bug::LeasesShort) {
                left = left.saturating_sub(lease.ttl * 3 / 10);
            }
            if !left.is_zero() {
                next = Some(next.map_or(left, |next: Duration| next.min(left)));
            } else if ended.len() < limit {
                ended.push((*id, lease.renewals));
            }
        }
        (ended, next)
    }

    /// Whether some lease keeps this revision readable.
    pub fn pins(&self, revision: u64) -> bool {
        let pins = self.pins.lock().expect(POISON);
        pins.values().any(|pin| pin.revision <= revision)
    }

    /// Whether this lease keeps a revision readable.
    pub fn has_pin(&self, id: u64) -> bool {
        self.pins.lock().expect(POISON).contains_key(&id)
    }

    /// That of this owner which keeps this revision readable, and the least before it.
    pub fn pin_of(&self, owner: &str, revision: u64) -> Option<u64> {
        let pins = self.pins.lock().expect(POISON);
        let keeps = |pin: &Pin| pin.owner == owner && pin.revision <= revision;
        let keeping = pins.iter().filter(|(_, pin)| keeps(pin));
        keeping.max_by_key(|(_, pin)| pin.revision).map(|(id, _)| *id)
    }

    pub fn pins_len(&self) -> usize {
        self.pins.lock().expect(POISON).len()
    }

    pub fn pins_of(&self, owner: &str) -> usize {
        let pins = self.pins.lock().expect(POISON);
        pins.values().filter(|pin| pin.owner == owner).count()
    }

    pub fn remaining(&self, id: u64) -> Option<Duration> {
        let running = self.running.lock().expect(POISON);
        running
            .by_id
            .get(&id)
            .map(|lease| lease.ttl.saturating_sub(lease.since.elapsed()))
    }

    pub fn len(&self) -> usize {
        self.running.lock().expect(POISON).by_id.len()
    }

    /// How many this owner has.
    pub fn of(&self, owner: &str) -> usize {
        let running = self.running.lock().expect(POISON);
        running.by_owner.get(owner).copied().unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl All {
    fn put(&mut self, id: u64, lease: &Lease, since: Instant) {
        let ttl = Duration::from_millis(lease.ttl_ms);
        // Most often it is renewed.
        if let Some(running) = self.by_id.get_mut(&id)
            && running.owner == lease.owner
        {
            (running.ttl, running.renewals, running.since) = (ttl, lease.renewals, since);
            return;
        }
        self.remove(id);
        *self.by_owner.entry(lease.owner.clone()).or_default() += 1;
        let running = Running {
            owner: lease.owner.clone(),
            ttl,
            renewals: lease.renewals,
            since,
        };
        self.by_id.insert(id, running);
    }

    fn remove(&mut self, id: u64) {
        let Some(Running { owner, .. }) = self.by_id.remove(&id) else {
            return;
        };
        let count = self.by_owner.get_mut(&owner);
        let count = count.expect("an owner is counted until its last lease ends");
        *count -= 1;
        // Its token may be gone for good.
        if *count == 0 {
            self.by_owner.remove(&owner);
        }
    }
}

impl Pin {
    fn of(lease: &Lease) -> Option<Self> {
        let revision = lease.pin?;
        let owner = lease.owner.clone();
        Some(Self { owner, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Lead = Lead { term: 3, node: 1 };
    const SECOND: Lead = Lead { term: 5, node: 1 };

    fn clock(leases: &[(u64, u64)]) -> LeaseClock {
        let clock = LeaseClock::default();
        for (id, ttl_ms) in leases {
            let lease = Lease {
                ttl_ms: *ttl_ms,
                owner: String::new(),
                renewals: 7,
                pin: None,
            };
            clock.changed(*id, Some(&lease));
        }
        clock
    }

    /// As if so much time had gone by.
    fn pass(clock: &LeaseClock, time: Duration) {
        for lease in clock.running.lock().unwrap().by_id.values_mut() {
            lease.since -= time;
        }
    }

    #[test]
    fn a_lease_ends_after_its_time_and_tells_when_the_next_one_does() {
        let clock = clock(&[(1, 1000), (2, 5000)]);
        let (ended, next) = clock.ended(FIRST, 10);
        assert!(ended.is_empty() && next.is_some_and(|next| next <= Duration::from_secs(1)));
        pass(&clock, Duration::from_secs(2));
        let (ended, next) = clock.ended(FIRST, 10);
        assert_eq!(ended, [(1, 7)]);
        assert!(
            next.is_some_and(|next| next <= Duration::from_secs(3)),
            "{next:?}"
        );
        clock.changed(1, None);
        pass(&clock, Duration::from_secs(4));
        assert_eq!(clock.ended(FIRST, 10), (vec![(2, 7)], None));
        assert_eq!(clock.ended(FIRST, 0), (Vec::new(), None));
    }

    #[test]
    fn nothing_ends_at_a_new_leader_before_its_full_time() {
        let clock = clock(&[(1, 1000)]);
        clock.ended(FIRST, 10);
        pass(&clock, Duration::from_secs(2));
        // It did not lead meanwhile, and heard of no renewal.
        assert_eq!(clock.ended(SECOND, 10).0, []);
        assert!(
            clock
                .remaining(1)
                .is_some_and(|left| left > Duration::from_millis(500))
        );
        pass(&clock, Duration::from_secs(1));
        assert_eq!(clock.ended(SECOND, 10).0, [(1, 7)]);
    }

    #[test]
    fn what_is_left_is_told_as_the_new_leader_counts_it() {
        let second = Duration::from_secs(1);
        let clock = clock(&[(1, 7000)]);
        let left = || clock.remaining(1).unwrap();
        pass(&clock, 6 * second);
        clock.begin_anew(FIRST);
        assert!(left() > 6 * second);
        // After this node has led, another leads: in the same term, which may be, or in a later one.
        clock.ended(FIRST, 10);
        for lead in [Lead { node: 2, ..FIRST }, SECOND] {
            pass(&clock, 6 * second);
            clock.begin_anew(lead);
            assert!(left() > 6 * second, "{lead:?}");
        }
    }

    #[test]
    fn the_first_entry_of_a_leader_changes_nothing_of_when_it_ends_a_lease() {
        let second = Duration::from_secs(1);
        let clock = clock(&[(1, 7000)]);
        // Before it asks: it counts from when it does.
        clock.begin_anew(SECOND);
        pass(&clock, 6 * second);
        assert_eq!(clock.ended(SECOND, 10).0, []);
        pass(&clock, 6 * second);
        // Applied late, as may be what leaders of before have begun with.
        for lead in [FIRST, SECOND] {
            clock.begin_anew(lead);
            assert!(clock.remaining(1).unwrap() <= second, "{lead:?}");
        }
        pass(&clock, second);
        assert_eq!(clock.ended(SECOND, 10).0, [(1, 7)]);
    }

    #[test]
    fn each_owner_is_counted_for_what_it_has() {
        let clock = LeaseClock::default();
        let lease = |owner: &str, renewals, pin| Lease {
            ttl_ms: 1000,
            owner: owner.to_owned(),
            renewals,
            pin,
        };
        let counted = |owner| (clock.of(owner), clock.pins_of(owner));
        for (id, owner, pin) in [(1, "one", None), (2, "one", Some(5)), (3, "two", Some(6))] {
            clock.changed(id, Some(&lease(owner, 0, pin)));
        }
        assert_eq!(
            (counted("one"), counted("two"), counted("")),
            ((2, 1), (1, 1), (0, 0))
        );
        let pins = [4, 5, 7].map(|revision| clock.pin_of("one", revision));
        assert_eq!(pins, [None, Some(2), Some(2)]);
        clock.changed(2, Some(&lease("one", 1, Some(5))));
        assert_eq!(counted("one"), (2, 1), "renewed");
        // A batch may end a lease and give its number to another.
        clock.changed(1, Some(&lease("two", 0, None)));
        assert_eq!((counted("one"), counted("two")), ((1, 1), (2, 1)));
        for id in 1..=3 {
            clock.changes(id, None);
            clock.changed(id, None);
        }
        assert_eq!((counted("one"), counted("two"), clock.len()), ((0, 0), (0, 0), 0));
        clock.reset(vec![(4, lease("one", 3, Some(7)))]);
        assert_eq!((counted("one"), clock.len(), clock.pins_len()), ((1, 1), 1, 1));
    }
}
