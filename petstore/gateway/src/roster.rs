//! Who is registered, in which turn they are asked, and who is left out since it failed.
//! Invariant: one that failed gets no request until it has answered that it is ready, unless all have failed: then
//! any is better than none. Whoever is told names, and the requests that are passed on, go round each service by
//! themselves, so that neither skips an instance for the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Of those that were named to somebody.
    named: Turns,
    /// Of those that were given a request.
    asked: Turns,
    /// Addresses that failed, and why.
    left_out: Mutex<HashMap<String, String>>,
}

/// How often each service was asked for.
#[derive(Default)]
struct Turns(Mutex<HashMap<String, usize>>);

impl Turns {
    fn pick(&self, service: &str, choice: &[Arc<Registration>]) -> Option<Arc<Registration>> {
        if choice.is_empty() {
            return None;
        }
        let mut turns = self.0.lock().expect("no holder of the turns panics");
        let turn = turns.entry(service.to_owned()).or_default();
        let picked = &choice[*turn % choice.len()];
        *turn = turn.wrapping_add(1);
        Some(Arc::clone(picked))
    }

    /// Nothing is remembered of services that are gone.
    fn retain(&self, services: &Services) {
        let mut turns = self.0.lock().expect("no holder of the turns panics");
        turns.retain(|service, _| services.contains_key(service));
    }
}

impl Roster {
    pub(crate) fn new() -> Self {
        Self {
            services: ArcSwap::default(),
            stale: AtomicBool::new(true),
            known: AtomicBool::new(false),
            named: Turns::default(),
            asked: Turns::default(),
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
        self.named.retain(&services);
        self.asked.retain(&services);
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

    /// The next to be named: in turn, one that did not fail, none of `excluded`.
    pub(crate) fn next(&self, service: &str, excluded: &[String]) -> Option<Arc<Registration>> {
        self.named.pick(service, &self.sound(service, excluded))
    }

    /// The next to be given a request: as above, or one that failed if there is no other.
    pub(crate) fn next_or_any(&self, service: &str, excluded: &[String]) -> Option<Arc<Registration>> {
        let sound = self.sound(service, excluded);
        if sound.is_empty() {
            return self.asked.pick(service, &self.registered(service, excluded));
        }
        self.asked.pick(service, &sound)
    }

    pub(crate) fn has(&self, service: &str) -> bool {
        self.services.load().contains_key(service)
    }

    /// The one of this name, whether it failed lately or not.
    pub(crate) fn instance(&self, service: &str, name: &str) -> Option<Arc<Registration>> {
        let mut instances = self.registered(service, &[]).into_iter();
        instances.find(|instance| instance.name == name)
    }

    fn sound(&self, service: &str, excluded: &[String]) -> Vec<Arc<Registration>> {
        let mut instances = self.registered(service, excluded);
        let failures = self.failures();
        instances.retain(|instance| !failures.contains_key(&instance.address));
        instances
    }

    fn registered(&self, service: &str, excluded: &[String]) -> Vec<Arc<Registration>> {
        let services = self.services.load();
        let instances = services.get(service).into_iter().flatten();
        let wanted = instances.filter(|instance| !excluded.contains(&instance.address));
        wanted.cloned().collect()
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
    fn an_instance_is_found_by_its_name_also_after_it_failed() {
        let roster = two();
        roster.leave_out(&registration("shop2", "b:2"), "refused");
        for _ in 0..3 {
            let found = roster.instance("petstore", "shop2").unwrap();
            assert_eq!(found.address, "b:2");
        }
        assert!(roster.instance("petstore", "shop3").is_none());
        assert!(roster.instance("payment", "shop2").is_none());
    }

    /// Neither requests nor questions for another service take the turn of anybody.
    #[test]
    fn each_service_is_named_in_turns_of_its_own() {
        let payment = Registration {
            service: "payment".to_owned(),
            ..registration("payment1", "c:3")
        };
        let roster = Roster::new();
        roster.replace(vec![
            registration("shop1", "a:1"),
            registration("shop2", "b:2"),
            payment,
        ]);
        let named = (0..4).filter_map(|_| {
            assert!(roster.next("payment", &[]).is_some());
            let asked = roster.next_or_any("petstore", &[]);
            let named = roster.next("petstore", &[])?;
            assert_eq!(
                asked.map(|instance| instance.name.clone()),
                Some(named.name.clone())
            );
            Some(named.name.clone())
        });
        let named: Vec<String> = named.collect();
        assert_eq!(named, ["shop1", "shop2", "shop1", "shop2"]);
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
