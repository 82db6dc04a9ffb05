//! Who watches which keys, so that a change wakes those whom it concerns, and nobody looks through changes of others.
//!
//! Invariant: before a revision is published as progress, every interest that one of its events concerns has it noted. So
//! what an interest does not have noted, up to what progress said before it was asked, does not concern it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

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

/// What was noted for a watcher since it had read everything. One lock for both, since a note must not fall between.
#[derive(Debug)]
struct Noted {
    oldest: Option<u64>,
    newest: u64,
}

#[derive(Debug)]
struct Slot {
    noted: Mutex<Noted>,
    woken: Notify,
}

impl Slot {
    /// That revisions from `first` to `last` have something for it. They are noted in order.
    fn note(&self, first: u64, last: u64) {
        let mut noted = self.noted.lock().expect(POISON);
        noted.oldest.get_or_insert(first);
        noted.newest = noted.newest.max(last);
    }
}

/// Whoever was told something, to be woken once that can be read.
#[must_use = "who is not woken sleeps on"]
#[derive(Debug, Default)]
pub struct Concerned(Vec<Arc<Slot>>);

impl Concerned {
    pub fn wake(self) {
        for slot in self.0 {
            slot.woken.notify_one();
        }
    }
}

/// The revisions of one batch that concern the watchers of one key or prefix.
struct Span<'r> {
    first: u64,
    last: u64,
    slots: &'r [Arc<Slot>],
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

    fn concerned(&self, key: &[u8]) -> impl Iterator<Item = &Vec<Arc<Slot>>> {
        let prefixes = self.lengths.keys().take_while(|length| **length <= key.len());
        let by_prefix = prefixes.filter_map(|length| self.prefixes.get(&key[..*length]));
        self.keys.get(key).into_iter().chain(by_prefix)
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
            noted: Mutex::new(Noted {
                oldest: Some(0),
                newest: self.newest.load(Ordering::Acquire),
            }),
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

    /// Whether nobody watches anything.
    pub(super) fn is_empty(&self) -> bool {
        let registry = self.registry.read().expect(POISON);
        registry.keys.is_empty() && registry.prefixes.is_empty()
    }

    /// Each watcher is told once, however many of the events concern it: there may be many of both.
    pub(super) fn tell(&self, events: &[Event]) -> Concerned {
        let mut concerned = Concerned::default();
        let registry = self.registry.read().expect(POISON);
        let mut spans: HashMap<*const Arc<Slot>, Span<'_>> = HashMap::new();
        for event in events {
            let revision = event.record.modified;
            for slots in registry.concerned(&event.key) {
                let span = spans.entry(slots.as_ptr()).or_insert(Span {
                    first: revision,
                    last: revision,
                    slots,
                });
                span.last = revision;
            }
        }
        for Span { first, last, slots } in spans.into_values() {
            for slot in slots {
                slot.note(first, last);
                concerned.0.push(Arc::clone(slot));
            }
        }
        if let Some(last) = events.last() {
            self.newest.store(last.record.modified, Ordering::Release);
        }
        concerned
    }

    /// Anything may have happened up to this revision.
    pub(super) fn tell_all(&self, revision: u64) -> Concerned {
        let mut concerned = Concerned::default();
        let registry = self.registry.read().expect(POISON);
        for slot in registry.keys.values().chain(registry.prefixes.values()).flatten() {
            let mut noted = slot.noted.lock().expect(POISON);
            noted.oldest = Some(0);
            noted.newest = noted.newest.max(revision);
            drop(noted);
            concerned.0.push(Arc::clone(slot));
        }
        self.newest.store(revision, Ordering::Release);
        concerned
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

    /// The first revision from `from` on that may concern it, if there is one yet. All before `from` were read.
    pub(super) fn first_from(&self, from: u64) -> Option<u64> {
        let mut noted = self.slot.noted.lock().expect(POISON);
        if noted.newest < from {
            noted.oldest = None;
            return None;
        }
        Some(noted.oldest.map_or(from, |oldest| oldest.max(from)))
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
        for interest in &opened {
            assert_eq!(
                interest.first_from(7),
                Some(7),
                "what came before has to be looked for"
            );
            assert_eq!(interest.first_from(11), None);
        }
        let events = [event("a/b", 11), event("z", 12), event("a/b", 13), event("z", 14)];
        interests.tell(&events).wake();
        for interest in &opened {
            let expected = events
                .iter()
                .find(|event| interest.selector().matches(&event.key));
            let expected = expected.map(|event| event.record.modified);
            assert_eq!(interest.first_from(11), expected, "{interest:?}");
        }
        assert_eq!(opened[0].first_from(13), Some(13));
        assert_eq!(opened[0].first_from(14), None, "14 is another key's");
        assert_eq!(
            opened[2].first_from(14),
            Some(14),
            "the empty prefix has every key"
        );
        interests.tell(&[event("a/b", 15), event("a/b", 16)]).wake();
        assert_eq!(opened[0].first_from(14), Some(15), "14 need not be looked at");
        interests.tell_all(20).wake();
        assert!(opened.iter().all(|interest| interest.first_from(17) == Some(17)));
    }

    #[test]
    fn what_has_ended_leaves_nothing_behind() {
        let interests = Arc::new(Interests::new(0));
        assert!(interests.is_empty());
        let selectors = [key("a"), key("a"), prefix("a"), prefix("a"), prefix("bc")];
        let mut opened: Vec<Interest> = selectors.map(|selector| interests.open(selector)).into();
        drop(opened.remove(0));
        drop(opened.remove(1));
        interests.tell(&[event("a", 1)]).wake();
        let firsts: Vec<Option<u64>> = opened.iter().map(|interest| interest.first_from(1)).collect();
        assert_eq!(firsts, [Some(1), Some(1), None]);
        assert!(!interests.is_empty());
        drop(opened);
        assert!(interests.is_empty());
        let registry = interests.registry.read().unwrap();
        assert!(registry.keys.is_empty() && registry.prefixes.is_empty() && registry.lengths.is_empty());
    }

    #[tokio::test]
    async fn whoever_was_told_before_it_waits_does_not_wait() {
        let interests = Arc::new(Interests::new(0));
        let interest = interests.open(key("a"));
        interests.tell(&[event("a", 1)]).wake();
        interest.woken().await;
        interests.tell(&[event("b", 2)]).wake();
        let woken = tokio::time::timeout(std::time::Duration::from_millis(20), interest.woken());
        assert!(woken.await.is_err(), "another key is no reason to wake up");
    }
}
