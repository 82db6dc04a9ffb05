//! The next piece of the changes that a watcher asked for: a few revisions, or some of one that has very many events.
//!
//! Invariant: pieces follow each other without a gap, each in order, and nothing comes twice; where a revision ends is
//! said. No piece has many more bytes than a step, but for a single event that has. It must not know where the changes
//! are read from, nor when.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::hub::Change;
use super::registry::Selector;
use super::state::{Event, Kept, KeptId, Lease};
use crate::command::Record;

/// Revisions and bytes of one step, so that one busy watcher does not hold up the others, nor has much in memory.
pub(super) const STEP_REVISIONS: usize = 64;
pub(super) const STEP_BYTES: usize = 256 << 10;
/// Events that a step looks at, of which few may match; a revision is looked at to its end.
const STEP_EVENTS: usize = 20_000;
/// To go through so much, and to put it into words, takes well under a millisecond.
const LITTLE_BYTES: usize = 32 << 10;
/// What an event says beside keys and values.
const EVENT_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub event: Event,
    /// The key before this change, where that was asked for, existed, and can still be read.
    pub previous: Option<Record>,
    /// The lease of the key, where that was asked for and it still lives.
    pub lease: Option<Lease>,
}

impl Noted {
    /// Roughly, as it is told.
    pub(super) fn bytes(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |record| record.value.len());
        bytes(&self.event) + previous
    }
}

fn bytes(event: &Event) -> usize {
    event.key.len() + event.record.value.len() + EVENT_BYTES
}

/// Changes of one revision that the watcher asked for; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub revision: u64,
    pub events: Vec<Noted>,
    /// Whether the last of them is the last of the revision; otherwise more of it comes next.
    pub ends: bool,
    /// The answer that was kept for it, where that was asked for and it has not ended.
    pub kept: Option<(KeptId, Kept)>,
}

/// Up to where a watcher has looked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// The first revision that was not looked at to its end.
    pub(super) next: u64,
    /// What was delivered of it: all up to this key.
    pub(super) within: Option<Bytes>,
}

impl Position {
    pub(super) fn before(next: u64) -> Self {
        Self { next, within: None }
    }

    fn is_behind(&self, revision: u64, key: &[u8]) -> bool {
        let within = self.within.as_ref().filter(|_| revision == self.next);
        within.is_some_and(|within| key <= within)
    }
}

/// What one read found: the matching changes, and up to where it looked.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) position: Position,
}

impl Found {
    pub(super) fn in_ring(changes: &[Arc<Change>], from: &Position, upto: u64, selector: &Selector) -> Self {
        let mut gathering = Gathering::new(from, selector);
        for change in changes {
            for event in wanted(change, from, selector) {
                let visited = gathering.visit(change.revision, &event.key, || Some(event.clone()));
                if visited.is_break() {
                    return gathering.end();
                }
            }
        }
        let last = changes.last().map_or(upto, |change| change.revision);
        gathering.at = if changes.len() < STEP_REVISIONS {
            upto
        } else {
            last
        };
        gathering.end()
    }

    /// The same if it is little, which is found out without a look at every event.
    pub(super) fn little_in_ring(
        changes: &[Arc<Change>],
        from: &Position,
        upto: u64,
        selector: &Selector,
    ) -> Option<Self> {
        let mut left = LITTLE_BYTES;
        for event in changes.iter().flat_map(|change| wanted(change, from, selector)) {
            left = left.checked_sub(bytes(event))?;
        }
        Some(Self::in_ring(changes, from, upto, selector))
    }

    pub(super) fn noted(&mut self) -> impl Iterator<Item = &mut Noted> {
        self.deliveries
            .iter_mut()
            .flat_map(|delivery| &mut delivery.events)
    }

    /// Leaves what comes after so many of the events to the next piece.
    pub(super) fn cut(&mut self, events: usize) {
        assert!(events > 0, "a piece gets further");
        let mut left = events;
        for (n, delivery) in self.deliveries.iter_mut().enumerate() {
            if delivery.events.len() <= left {
                left -= delivery.events.len();
                continue;
            }
            if left == 0 {
                self.position = Position::before(delivery.revision);
                self.deliveries.truncate(n);
            } else {
                delivery.events.truncate(left);
                self.position = delivery.goes_on();
                self.deliveries.truncate(n + 1);
            }
            return;
        }
    }

    /// Leaves what comes after this revision to the next piece.
    pub(super) fn cut_behind(&mut self, revision: u64) {
        let upto = self
            .deliveries
            .iter()
            .take_while(|delivery| delivery.revision <= revision);
        let events: usize = upto.map(|delivery| delivery.events.len()).sum();
        self.cut(events.max(1));
    }
}

impl Delivery {
    /// More of it comes in the next piece, which begins there.
    fn goes_on(&mut self) -> Position {
        self.ends = false;
        Position {
            next: self.revision,
            within: self.events.last().map(|noted| noted.event.key.clone()),
        }
    }
}

/// Those events of a change that match and were not delivered yet.
fn wanted<'c>(change: &'c Change, from: &Position, selector: &Selector) -> &'c [Event] {
    let matching = selector.among(&change.events);
    let delivered = matching.partition_point(|event| from.is_behind(change.revision, &event.key));
    &matching[delivered..]
}

/// Takes what matches of the events it is shown, in order, until that is enough for a step.
pub(super) struct Gathering<'s> {
    from: &'s Position,
    selector: &'s Selector,
    deliveries: Vec<Delivery>,
    bytes: usize,
    looked_at: usize,
    /// The revision that was looked at last.
    at: u64,
    /// Where the next piece begins, if this one had enough.
    next: Option<Position>,
}

impl<'s> Gathering<'s> {
    pub(super) fn new(from: &'s Position, selector: &'s Selector) -> Self {
        Self {
            from,
            selector,
            deliveries: Vec::new(),
            bytes: 0,
            looked_at: 0,
            at: from.next - 1,
            next: None,
        }
    }

    /// Breaks where it has enough, or where the event cannot be had.
    pub(super) fn visit(
        &mut self,
        revision: u64,
        key: &[u8],
        event: impl FnOnce() -> Option<Event>,
    ) -> ControlFlow<()> {
        let begins = revision > self.at;
        if begins && (self.bytes > STEP_BYTES || self.looked_at > STEP_EVENTS) {
            return self.stop(revision);
        }
        self.at = revision;
        self.looked_at += 1;
        if !self.selector.matches(key) || self.from.is_behind(revision, key) {
            return ControlFlow::Continue(());
        }
        if self.bytes > STEP_BYTES {
            return self.stop(revision);
        }
        let Some(event) = event() else {
            return self.stop(revision);
        };
        self.bytes += bytes(&event);
        let noted = Noted {
            event,
            previous: None,
            lease: None,
        };
        let last = self.deliveries.last_mut();
        match last.filter(|delivery| delivery.revision == revision) {
            Some(delivery) => delivery.events.push(noted),
            None => self.deliveries.push(Delivery {
                revision,
                events: vec![noted],
                ends: true,
                kept: None,
            }),
        }
        ControlFlow::Continue(())
    }

    fn stop(&mut self, revision: u64) -> ControlFlow<()> {
        let last = self.deliveries.last_mut();
        let next = match last.filter(|delivery| delivery.revision == revision) {
            Some(delivery) => delivery.goes_on(),
            None if revision == self.from.next => self.from.clone(),
            None => Position::before(revision),
        };
        self.next = Some(next);
        ControlFlow::Break(())
    }

    pub(super) fn end(self) -> Found {
        Found {
            deliveries: self.deliveries,
            position: self.next.unwrap_or(Position::before(self.at + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LARGE: &[u8] = &[b'x'; 100 << 10];

    /// All in one, however large it is.
    fn plainly(changes: &[Arc<Change>], selector: &Selector) -> Vec<(u64, Bytes)> {
        let events = changes.iter().flat_map(|change| &change.events);
        let events = events.filter(|event| selector.matches(&event.key));
        events
            .map(|event| (event.record.modified, event.key.clone()))
            .collect()
    }

    /// What pieces brought; of each revision exactly the last event ends it.
    fn whole(pieces: Vec<Found>) -> Vec<(u64, Bytes)> {
        let deliveries = pieces.into_iter().flat_map(|piece| piece.deliveries);
        let mut told = Vec::new();
        let mut ended = 0;
        for Delivery {
            revision,
            events,
            ends,
            ..
        } in deliveries
        {
            assert!(revision > ended, "{revision} goes on after its end");
            assert!(!events.is_empty());
            told.extend(events.into_iter().map(|noted| (revision, noted.event.key)));
            ended = if ends { revision } else { ended };
        }
        assert_eq!(told.last().map_or(0, |(revision, _)| *revision), ended);
        told
    }

    fn pieces(first: u64, last: u64, mut read: impl FnMut(&Position) -> Found) -> Vec<Found> {
        let (mut position, mut pieces) = (Position::before(first), Vec::new());
        while position.next <= last {
            let piece = read(&position);
            assert!(piece.position > position, "{piece:?}");
            let bytes: usize = piece
                .deliveries
                .iter()
                .flat_map(|delivery| &delivery.events)
                .map(Noted::bytes)
                .sum();
            assert!(bytes <= STEP_BYTES + LARGE.len() + 2 * EVENT_BYTES, "{bytes}");
            position = piece.position.clone();
            pieces.push(piece);
        }
        assert_eq!(position, Position::before(last + 1));
        pieces
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole_wherever_they_are_cut_and_read_from(
            revisions in prop::collection::vec(prop::collection::btree_map("[ab]{0,4}", any::<bool>(), 1..14), 1..6),
            key in "[ab]{0,2}",
            is_key in any::<bool>(),
            cut in 1..5_usize,
        ) {
            let selector = if is_key { Selector::Key(key.into()) } else { Selector::Prefix(key.into()) };
            let changes: Vec<Arc<Change>> = (1..).zip(revisions).map(|(revision, keys)| {
                let events = keys.into_iter().map(|(key, is_large)| {
                    let mut record = Record::tombstone(revision);
                    record.value = Bytes::from_static(if is_large { LARGE } else { b"" });
                    Event { key: key.into(), record }
                });
                Arc::new(Change::new(revision, events.collect()))
            }).collect();
            let last = changes.len() as u64;
            let expected = plainly(&changes, &selector);
            let in_ring = |from: &Position| {
                let later = changes.partition_point(|change| change.revision < from.next);
                Found::in_ring(&changes[later..], from, last, &selector)
            };
            prop_assert_eq!(&whole(pieces(1, last, in_ring)), &expected);
            let cut_short = |from: &Position| {
                let mut found = in_ring(from);
                found.cut(cut);
                found
            };
            prop_assert_eq!(&whole(pieces(1, last, cut_short)), &expected);
            let shown = |from: &Position| {
                let mut gathering = Gathering::new(from, &selector);
                let later = changes.iter().filter(|change| change.revision >= from.next);
                for event in later.flat_map(|change| &change.events) {
                    if gathering.visit(event.record.modified, &event.key, || Some(event.clone())).is_break() {
                        break;
                    }
                }
                gathering.end()
            };
            prop_assert_eq!(&whole(pieces(1, last, shown)), &expected);
        }
    }
}
