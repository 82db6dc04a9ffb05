//! Who watches which keys and prefixes, and whom of them the events of a batch concern.
//!
//! Invariant: everybody whom an event concerns is found, with the first and the last revision that has one. How that is
//! found out depends on how many there are of both, since a client chooses that: few events are looked up among what is
//! watched, and whatever is watched is searched for among many. It must not know who tells whom, nor when.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::state::Event;

/// What a lookup takes, which hashes the key, in comparisons of two keys.
const LOOKUP_COMPARISONS: usize = 4;

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

    /// Those that match of the events of one revision. They stand together, since these are in the order of their keys.
    pub(super) fn among<'e>(&self, events: &'e [Event]) -> &'e [Event] {
        let (Self::Key(first) | Self::Prefix(first)) = self;
        let events = &events[events.partition_point(|event| event.key < first)..];
        &events[..events.partition_point(|event| self.matches(&event.key))]
    }
}

/// What was noted for a watcher since it had read everything. One lock for both, since a note must not fall between.
#[derive(Debug)]
struct Noted {
    oldest: Option<u64>,
    newest: u64,
}

#[derive(Debug)]
pub(super) struct Slot {
    noted: Mutex<Noted>,
    pub(super) woken: Notify,
}

const POISON: &str = "no holder of a watcher's notes panics";

impl Slot {
    /// Whatever came up to this revision may concern it.
    pub(super) fn new(newest: u64) -> Self {
        Self {
            noted: Mutex::new(Noted {
                oldest: Some(0),
                newest,
            }),
            woken: Notify::new(),
        }
    }

    /// That revisions from `first` to `last` have something for it. They are noted in order.
    pub(super) fn note(&self, first: u64, last: u64) {
        let mut noted = self.noted.lock().expect(POISON);
        noted.oldest.get_or_insert(first);
        noted.newest = noted.newest.max(last);
    }

    /// That any revision up to this one may have something for it.
    pub(super) fn note_all(&self, revision: u64) {
        let mut noted = self.noted.lock().expect(POISON);
        noted.oldest = Some(0);
        noted.newest = noted.newest.max(revision);
    }

    /// The first revision from `from` on that may concern it, if there is one yet. All before `from` were read.
    pub(super) fn first_from(&self, from: u64) -> Option<u64> {
        let mut noted = self.noted.lock().expect(POISON);
        if noted.newest < from {
            noted.oldest = None;
            return None;
        }
        Some(noted.oldest.map_or(from, |oldest| oldest.max(from)))
    }
}

/// The revisions of one batch that concern the watchers of one key or prefix.
#[derive(Debug)]
pub(super) struct Span<'r> {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) slots: &'r [Arc<Slot>],
}

/// Each once, however many of the events concern it: there may be many of both.
#[derive(Default)]
struct Spans<'r>(HashMap<*const Arc<Slot>, Span<'r>>);

impl<'r> Spans<'r> {
    /// Revisions come in order.
    fn note(&mut self, slots: &'r [Arc<Slot>], revision: u64) {
        let span = self.0.entry(slots.as_ptr()).or_insert(Span {
            first: revision,
            last: revision,
            slots,
        });
        span.last = revision;
    }
}

type Slots = HashMap<Bytes, Vec<Arc<Slot>>>;

#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    keys: Slots,
    prefixes: Slots,
    /// How many prefixes of each length there are, so that few are tried for a key.
    lengths: BTreeMap<usize, usize>,
}

impl Registry {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.keys.values().chain(self.prefixes.values()).flatten()
    }

    fn place(&mut self, selector: &Selector) -> (&mut Slots, Bytes) {
        match selector {
            Selector::Key(key) => (&mut self.keys, key.clone()),
            Selector::Prefix(prefix) => (&mut self.prefixes, prefix.clone()),
        }
    }

    pub(super) fn add(&mut self, selector: &Selector, slot: &Arc<Slot>) {
        if let Selector::Prefix(prefix) = selector {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        let (slots, key) = self.place(selector);
        slots.entry(key).or_default().push(Arc::clone(slot));
    }

    pub(super) fn remove(&mut self, selector: &Selector, slot: &Arc<Slot>) {
        let (slots, key) = self.place(selector);
        let of_key = slots
            .get_mut(&key)
            .expect("an interest is registered until it ends");
        let own = of_key.iter().position(|other| Arc::ptr_eq(other, slot));
        of_key.swap_remove(own.expect("an interest is registered until it ends"));
        if of_key.is_empty() {
            slots.remove(&key);
        }
        if let Selector::Prefix(prefix) = selector {
            let count = self.lengths.get_mut(&prefix.len());
            let count = count.expect("the length of a prefix is counted until it ends");
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// Whom these events concern, which come in order of revision.
    pub(super) fn concerned(&self, events: &[Event]) -> impl Iterator<Item = Span<'_>> {
        let mut spans = Spans::default();
        let revisions = events.chunk_by(|event, next| event.record.modified == next.record.modified);
        // Not even gone through if nobody watches.
        for events in revisions.take_while(|_| !self.is_empty()) {
            if self.is_searched_for_among(events) {
                self.search(events, &mut spans);
            } else {
                self.look_up(events, &mut spans);
            }
        }
        spans.0.into_values()
    }

    /// Whether that takes less than to look up each of these events.
    fn is_searched_for_among(&self, events: &[Event]) -> bool {
        let longest = events.iter().map(|event| event.key.len()).max().unwrap_or(0);
        let lengths = self.lengths.len().min(longest + 1);
        let lookups = events.len() * (lengths + 1);
        let watched = self.keys.len() + self.prefixes.len();
        watched * comparisons_max(events.len()) < lookups * LOOKUP_COMPARISONS
    }

    fn look_up<'r>(&'r self, events: &[Event], spans: &mut Spans<'r>) {
        for event in events {
            let key = event.key.as_ref();
            let prefixes = self.lengths.keys().take_while(|length| **length <= key.len());
            let by_prefix = prefixes.filter_map(|length| self.prefixes.get(&key[..*length]));
            for slots in self.keys.get(key).into_iter().chain(by_prefix) {
                spans.note(slots, event.record.modified);
            }
        }
    }

    /// All of one revision.
    fn search<'r>(&'r self, events: &[Event], spans: &mut Spans<'r>) {
        assert!(
            events.is_sorted_by(|event, next| event.key <= next.key),
            "the events of a revision are in the order of their keys"
        );
        for (key, slots) in &self.keys {
            let found = first_from(events, key);
            if let Some(event) = found.filter(|event| event.key == key) {
                spans.note(slots, event.record.modified);
            }
        }
        for (prefix, slots) in &self.prefixes {
            let found = first_from(events, prefix);
            if let Some(event) = found.filter(|event| event.key.starts_with(prefix)) {
                spans.note(slots, event.record.modified);
            }
        }
    }
}

/// That `first_from` and a look at what it found take.
fn comparisons_max(events: usize) -> usize {
    events.checked_ilog2().map_or(1, |halvings| halvings as usize + 2)
}

/// The first of these events, in the order of their keys, whose key is not before this one.
fn first_from<'e>(events: &'e [Event], key: &[u8]) -> Option<&'e Event> {
    let before = |event: &Event| {
        #[cfg(test)]
        tests::COMPARED.set(tests::COMPARED.get() + 1);
        event.key.as_ref() < key
    };
    events.get(events.partition_point(before))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::command::Record;

    thread_local! {
        /// How often a watched key or prefix was compared with an event's key.
        pub(super) static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    fn event(key: impl Into<Bytes>, revision: u64) -> Event {
        Event {
            key: key.into(),
            record: Record::tombstone(revision),
        }
    }

    fn watching(selectors: &[Selector]) -> (Registry, Vec<Arc<Slot>>) {
        let mut registry = Registry::default();
        let slots = selectors.iter().map(|selector| {
            let slot = Arc::new(Slot::new(0));
            registry.add(selector, &slot);
            slot
        });
        let slots = slots.collect();
        (registry, slots)
    }

    /// First and last revision that concern each of the slots.
    fn told<'r>(spans: impl Iterator<Item = Span<'r>>, slots: &[Arc<Slot>]) -> Vec<Option<(u64, u64)>> {
        let spans: Vec<Span> = spans.collect();
        let of_slot = |slot| {
            let has_it = |span: &&Span| span.slots.iter().any(|other| Arc::ptr_eq(other, slot));
            let mut spans = spans.iter().filter(has_it);
            let span = spans.next().map(|span| (span.first, span.last));
            assert!(spans.next().is_none(), "it is told twice");
            span
        };
        slots.iter().map(of_slot).collect()
    }

    /// The same, looking at every event for every selector.
    fn plainly(events: &[Event], selectors: &[Selector]) -> Vec<Option<(u64, u64)>> {
        let of_selector = |selector: &Selector| {
            let matching = events.iter().filter(|event| selector.matches(&event.key));
            let mut revisions = matching.map(|event| event.record.modified);
            let first = revisions.next()?;
            Some((first, revisions.next_back().unwrap_or(first)))
        };
        selectors.iter().map(of_selector).collect()
    }

    #[test]
    fn many_events_are_searched_for_what_is_watched_and_not_each_looked_up() {
        const PREFIXES: usize = 700;
        const EVENTS: usize = 10_000;
        let long = "p".repeat(PREFIXES);
        let selectors: Vec<Selector> = (1..=PREFIXES)
            .map(|length| Selector::Prefix(Bytes::from(long[..length].to_owned())))
            .chain([Selector::Key(Bytes::from(format!("{long}00500")))])
            .collect();
        let (registry, slots) = watching(&selectors);
        let events: Vec<Event> = (0..EVENTS).map(|n| event(format!("{long}{n:05}"), 3)).collect();
        COMPARED.set(0);
        assert_eq!(
            told(registry.concerned(&events), &slots),
            vec![Some((3, 3)); PREFIXES + 1]
        );
        let compared = COMPARED.get();
        assert!((PREFIXES..PREFIXES * 20).contains(&compared), "{compared}");
        // One event is not looked for by everything that is watched.
        COMPARED.set(0);
        let few = [event("p", 4), event("q", 5)];
        assert_eq!(told(registry.concerned(&few), &slots), plainly(&few, &selectors));
        assert_eq!(COMPARED.get(), 0);
    }

    fn any_key() -> impl Strategy<Value = Bytes> {
        "[ab]{0,5}".prop_map(Bytes::from)
    }

    fn any_selector() -> impl Strategy<Value = Selector> {
        (any::<bool>(), any_key()).prop_map(|(is_key, key)| {
            if is_key {
                Selector::Key(key)
            } else {
                Selector::Prefix(key)
            }
        })
    }

    proptest! {
        #[test]
        fn each_way_finds_whom_a_look_at_everything_finds(
            selectors in prop::collection::vec(any_selector(), 0..20),
            revisions in prop::collection::vec(prop::collection::btree_set(any_key(), 1..12), 0..6),
        ) {
            let revisions: Vec<Vec<Event>> = (1..)
                .zip(revisions)
                .map(|(revision, keys)| keys.into_iter().map(|key| event(key, revision)).collect())
                .collect();
            let (registry, slots) = watching(&selectors);
            let events: Vec<Event> = revisions.iter().flatten().cloned().collect();
            let expected = plainly(&events, &selectors);
            let (mut searched, mut looked_up) = (Spans::default(), Spans::default());
            for events in &revisions {
                registry.search(events, &mut searched);
                registry.look_up(events, &mut looked_up);
            }
            prop_assert_eq!(&told(searched.0.into_values(), &slots), &expected);
            prop_assert_eq!(&told(looked_up.0.into_values(), &slots), &expected);
            prop_assert_eq!(&told(registry.concerned(&events), &slots), &expected);
            for (events, selector) in revisions.iter().flat_map(|events| selectors.iter().map(move |one| (events, one))) {
                let matching: Vec<Event> = events.iter().filter(|event| selector.matches(&event.key)).cloned().collect();
                prop_assert_eq!(selector.among(events), matching.as_slice());
            }
        }
    }
}
