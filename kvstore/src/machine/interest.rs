//! Who watches which keys, so that a change wakes those whom it concerns, and nobody looks through changes of others.
//!
//! Invariant: before a revision is published as progress, every interest that one of its events concerns says so. So an
//! interest that names no revision from N on has nothing to read up to what progress said before it was asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use tokio::sync::Notify;

use super::state::Event;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Key(Bytes),
    Prefix(Bytes),
}

impl Selector {
    pub(super) fn matches(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(wanted) => wanted == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

#[derive(Debug)]
struct Slot {
    /// The newest revision that may concern it.
    newest: AtomicU64,
    woken: Notify,
}

impl Slot {
    fn tell(&self, revision: u64) {
        self.newest.fetch_max(revision, Ordering::AcqRel);
        self.woken.notify_one();
    }
}

type Slots = HashMap<Bytes, Vec<Arc<Slot>>>;

#[derive(Debug, Default)]
struct Registry {
    keys: Slots,
    prefixes: Slots,
    /// How many prefixes of each length there are, so that few are tried for a key.
    lengths: BTreeMap<usize, usize>,
}

impl Registry {
    fn place(&mut self, selector: &Selector) -> (&mut Slots, Bytes) {
        match selector {
            Selector::Key(key) => (&mut self.keys, key.clone()),
            Selector::Prefix(prefix) => (&mut self.prefixes, prefix.clone()),
        }
    }

    fn concerned(&self, key: &[u8]) -> impl Iterator<Item = &Arc<Slot>> {
        let prefixes = self.lengths.keys().take_while(|length| **length <= key.len());
        let by_prefix = prefixes.filter_map(|length| self.prefixes.get(&key[..*length]));
        self.keys.get(key).into_iter().chain(by_prefix).flatten()
    }
}

#[derive(Debug)]
pub(super) struct Interests {
    registry: RwLock<Registry>,
    /// The newest revision that was told.
    newest: AtomicU64,
}

const POISON: &str = "no holder of the interests panics";

impl Interests {
    pub(super) fn new(revision: u64) -> Self {
        Self {
            registry: RwLock::default(),
            newest: AtomicU64::new(revision),
        }
    }

    /// What came before may concern it: it has to look for itself.
    pub(super) fn open(self: &Arc<Self>, selector: Selector) -> Interest {
        let mut registry = self.registry.write().expect(POISON);
        let slot = Arc::new(Slot {
            newest: AtomicU64::new(self.newest.load(Ordering::Acquire)),
            woken: Notify::new(),
        });
        if let Selector::Prefix(prefix) = &selector {
            *registry.lengths.entry(prefix.len()).or_default() += 1;
        }
        let (slots, key) = registry.place(&selector);
        slots.entry(key).or_default().push(Arc::clone(&slot));
        drop(registry);
        Interest {
            all: Arc::clone(self),
            selector,
            slot,
        }
    }

    pub(super) fn tell(&self, events: &[Event]) {
        let registry = self.registry.read().expect(POISON);
        for event in events {
            for slot in registry.concerned(&event.key) {
                slot.tell(event.record.modified);
            }
        }
        if let Some(last) = events.last() {
            self.newest.store(last.record.modified, Ordering::Release);
        }
    }

    /// Anything may have happened up to this revision.
    pub(super) fn tell_all(&self, revision: u64) {
        let registry = self.registry.read().expect(POISON);
        for slot in registry.keys.values().chain(registry.prefixes.values()).flatten() {
            slot.tell(revision);
        }
        self.newest.store(revision, Ordering::Release);
    }
}

/// What one watcher watches; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Interest {
    all: Arc<Interests>,
    selector: Selector,
    slot: Arc<Slot>,
}

impl Interest {
    pub(super) fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Whether revision `from` or a later one may concern it.
    pub(super) fn may_have(&self, from: u64) -> bool {
        self.slot.newest.load(Ordering::Acquire) >= from
    }

    /// Something that concerns it was told, now or since this was last asked.
    pub(super) async fn woken(&self) {
        self.slot.woken.notified().await;
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut registry = self.all.registry.write().expect(POISON);
        let (slots, key) = registry.place(&self.selector);
        let of_key = slots
            .get_mut(&key)
            .expect("an interest is registered until it ends");
        let own = of_key.iter().position(|slot| Arc::ptr_eq(slot, &self.slot));
        of_key.swap_remove(own.expect("an interest is registered until it ends"));
        if of_key.is_empty() {
            slots.remove(&key);
        }
        if let Selector::Prefix(prefix) = &self.selector {
            let count = registry.lengths.get_mut(&prefix.len());
            let count = count.expect("the length of a prefix is counted until it ends");
            *count -= 1;
            if *count == 0 {
                registry.lengths.remove(&prefix.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Record;

    fn event(key: &'static str, revision: u64) -> Event {
        Event {
            key: Bytes::from_static(key.as_bytes()),
            record: Record {
                created: 1,
                modified: revision,
                version: 1,
                lease: 0,
                value: Bytes::new(),
            },
        }
    }

    fn key(key: &'static str) -> Selector {
        Selector::Key(Bytes::from_static(key.as_bytes()))
    }

    fn prefix(prefix: &'static str) -> Selector {
        Selector::Prefix(Bytes::from_static(prefix.as_bytes()))
    }

    #[test]
    fn a_change_concerns_its_key_and_every_prefix_of_it() {
        let interests = Arc::new(Interests::new(10));
        let selectors = [
            key("a/b"),
            key("a/bc"),
            prefix(""),
            prefix("a/"),
            prefix("a/b"),
            prefix("a/bc"),
            prefix("b"),
        ];
        let opened: Vec<Interest> = selectors
            .into_iter()
            .map(|selector| interests.open(selector))
            .collect();
        assert!(
            opened
                .iter()
                .all(|interest| interest.may_have(10) && !interest.may_have(11)),
            "what came before has to be looked for"
        );
        interests.tell(&[event("a/b", 11), event("z", 12)]);
        for interest in &opened {
            let concerns = interest.selector().matches(b"a/b");
            assert_eq!(interest.may_have(11), concerns, "{interest:?}");
        }
        assert!(opened[2].may_have(12), "the empty prefix has every key");
        interests.tell_all(20);
        assert!(opened.iter().all(|interest| interest.may_have(20)));
    }

    #[test]
    fn what_has_ended_leaves_nothing_behind() {
        let interests = Arc::new(Interests::new(0));
        let selectors = [key("a"), key("a"), prefix("a"), prefix("a"), prefix("bc")];
        let mut opened: Vec<Interest> = selectors.map(|selector| interests.open(selector)).into();
        drop(opened.remove(0));
        drop(opened.remove(1));
        interests.tell(&[event("a", 1)]);
        assert!(opened[0].may_have(1) && opened[1].may_have(1) && !opened[2].may_have(1));
        drop(opened);
        let registry = interests.registry.read().unwrap();
        assert!(registry.keys.is_empty() && registry.prefixes.is_empty() && registry.lengths.is_empty());
    }

    #[tokio::test]
    async fn whoever_was_told_before_it_waits_does_not_wait() {
        let interests = Arc::new(Interests::new(0));
        let interest = interests.open(key("a"));
        interests.tell(&[event("a", 1)]);
        interest.woken().await;
        interests.tell(&[event("b", 2)]);
        let woken = tokio::time::timeout(std::time::Duration::from_millis(20), interest.woken());
        assert!(woken.await.is_err(), "another key is no reason to wake up");
    }
}
