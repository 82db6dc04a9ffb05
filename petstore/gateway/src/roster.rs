//! Who is registered, in which turn they are asked, and who is left out since it failed.
//! Invariant: one that failed gets no request until it has answered that it is ready, unless all have failed: then
//! any is better than none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use kvstore_client::Registration;

/// Instances of each service, in the order of their names.
type Services = BTreeMap<String, Vec<Arc<Registration>>>;

pub(crate) struct Roster {
    services: ArcSwap<Services>,
    /// Whether the store could not be asked lately, so that the list may be old.
    stale: AtomicBool,
    /// Whether there ever was a list.
    known: AtomicBool,
    turn: AtomicUsize,
    /// Addresses that failed, and why.
    left_out: Mutex<HashMap<String, String>>,
}

impl Roster {
    pub(crate) fn new() -> Self {
        Self {
            services: ArcSwap::default(),
            stale: AtomicBool::new(true),
            known: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            left_out: Mutex::default(),
        }
    }

    pub(crate) fn replace(&self, registered: Vec<Registration>) {
        let mut services = Services::new();
        for instance in registered {
            let instances = services.entry(instance.service.clone()).or_default();
            instances.push(Arc::new(instance));
        }
        // Who came back is tried afresh, and nothing is remembered of who is gone.
        let addresses: HashSet<&str> = services
            .values()
            .flatten()
            .map(|instance| instance.address.as_str())
            .collect();
        self.failures()
            .retain(|address, _| addresses.contains(address.as_str()));
        self.services.store(Arc::new(services));
        self.stale.store(false, Ordering::Release);
        self.known.store(true, Ordering::Release);
    }

    pub(crate) fn set_stale(&self) -> bool {
        self.stale.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// The next instance in turn that did not fail, none of `excluded`.
    pub(crate) fn next(&self, service: &str, excluded: &[String]) -> Option<Arc<Registration>> {
        let services = self.services.load();
        let instances = services.get(service)?.iter();
        let failures = self.failures();
        let sound = instances.filter(|instance| {
            !excluded.contains(&instance.address) && !failures.contains_key(&instance.address)
        });
        self.in_turn(&sound.collect::<Vec<_>>())
    }

    /// The same, or one that failed if there is no other.
    pub(crate) fn next_or_any(&self, service: &str, excluded: &[String]) -> Option<Arc<Registration>> {
        self.next(service, excluded).or_else(|| {
            let services = self.services.load();
            let instances = services.get(service)?.iter();
            let wanted = instances.filter(|instance| !excluded.contains(&instance.address));
            self.in_turn(&wanted.collect::<Vec<_>>())
        })
    }

    fn in_turn(&self, choice: &[&Arc<Registration>]) -> Option<Arc<Registration>> {
        if choice.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(choice[turn % choice.len()]))
    }

    pub(crate) fn leave_out(&self, instance: &Registration, reason: &str) {
        let before = self
            .failures()
            .insert(instance.address.clone(), reason.to_owned());
        if before.is_none() {
            tracing::warn!(
                process.name = instance.name,
                reason,
                "an instance failed and is left out until it is ready again"
            );
        }
    }

    pub(crate) fn take_back(&self, instance: &Registration) {
        if self.failures().remove(&instance.address).is_some() {
            tracing::info!(
                process.name = instance.name,
                "an instance that had failed is ready again"
            );
        }
    }

    /// Those that are registered but get no requests.
    pub(crate) fn failed(&self) -> Vec<Arc<Registration>> {
        let failures = self.failures();
        let services = self.services.load();
        let all = services.values().flatten();
        all.filter(|instance| failures.contains_key(&instance.address))
            .cloned()
            .collect()
    }

    /// Everything, with the reason of those that are left out.
    pub(crate) fn all(&self) -> Vec<(Arc<Registration>, Option<String>)> {
        let failures = self.failures();
        let services = self.services.load();
        let all = services.values().flatten();
        all.map(|instance| (Arc::clone(instance), failures.get(&instance.address).cloned()))
            .collect()
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.left_out.lock().expect("no holder of the failures panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(name: &str, address: &str) -> Registration {
        Registration {
            service: "petstore".to_owned(),
            name: name.to_owned(),
            address: address.to_owned(),
            version: String::new(),
            started_ms: 0,
        }
    }

    fn two() -> Roster {
        let roster = Roster::new();
        roster.replace(vec![registration("shop1", "a:1"), registration("shop2", "b:2")]);
        roster
    }

    fn asked(roster: &Roster, excluded: &[String]) -> Vec<String> {
        let asked = (0..4).filter_map(|_| roster.next_or_any("petstore", excluded));
        asked.map(|instance| instance.name.clone()).collect()
    }

    #[test]
    fn instances_are_asked_in_turn() {
        let roster = two();
        assert_eq!(asked(&roster, &[]), ["shop1", "shop2", "shop1", "shop2"]);
        assert_eq!(asked(&roster, &["a:1".to_owned()]), ["shop2"; 4]);
        assert!(roster.next("payment", &[]).is_none());
        assert!(
            roster
                .next("petstore", &["a:1".to_owned(), "b:2".to_owned()])
                .is_none()
        );
    }

    #[test]
    fn one_that_failed_is_left_out_until_it_is_ready_or_nobody_else_is() {
        let roster = two();
        roster.leave_out(&registration("shop1", "a:1"), "refused");
        assert_eq!(asked(&roster, &[]), ["shop2"; 4]);
        assert_eq!(roster.failed().len(), 1);
        roster.leave_out(&registration("shop2", "b:2"), "refused");
        assert_eq!(asked(&roster, &[]).len(), 4, "any is better than none");
        assert!(
            roster.next("petstore", &[]).is_none(),
            "but it is named to nobody"
        );
        roster.take_back(&registration("shop1", "a:1"));
        assert_eq!(asked(&roster, &[]), ["shop1"; 4]);
        // Gone and registered anew: what it did before is forgotten.
        roster.replace(vec![registration("shop1", "a:1")]);
        roster.replace(vec![registration("shop1", "a:1"), registration("shop2", "b:2")]);
        assert!(roster.failed().is_empty());
    }
}
