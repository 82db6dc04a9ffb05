//! The newest events in memory, for all watchers alike.
//!
//! A watcher pulls: it remembers the next revision it needs, and reads from here, or from the database
//! while it catches up. So no watcher has a queue of its own that could overflow; the ring is the one
//! bounded buffer, and who falls out of it is told so.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

use super::interest::{Concerned, Interest, Interests};
use super::registry::Selector;
use super::state::Event;
use super::turns::Turns;

/// All changes of one revision.
#[derive(Debug)]
pub struct Change {
    pub revision: u64,
    pub events: Vec<Event>,
    bytes: usize,
}

impl Change {
    pub(super) fn new(revision: u64, events: Vec<Event>) -> Self {
        assert!(
            events.is_sorted_by(|event, next| event.key <= next.key),
            "the events of a revision are in the order of their keys: that is how they are searched"
        );
        let bytes = events
            .iter()
            .map(|event| event.key.len() + event.record.value.len() + 128)
            .sum();
        Self {
            revision,
            events,
            bytes,
        }
    }
}

/// What is kept while nobody watches: whoever comes back after a short break finds it here, and what is used over and
/// over stays in the processor's caches. Older changes are read from the database.
const UNWATCHED_BYTES_MAX: usize = 1 << 20;
/// Changes that go at once, beside as many as came, when nobody watches any more: applying waits meanwhile.
const UNWATCHED_STEP: usize = 64;

pub struct Hub {
    ring: RwLock<Ring>,
    /// While somebody watches.
    bytes_max: usize,
    interests: Arc<Interests>,
    pub(super) turns: Turns,
}

#[derive(Default)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// All changes after this revision are here.
    complete_after: u64,
    /// How often the ring began anew.
    epoch: u64,
}

const POISON: &str = "no holder of the event ring panics";

impl Hub {
    pub fn new(revision: u64, bytes_max: usize) -> Self {
        Self {
            ring: RwLock::new(Ring {
                complete_after: revision,
                ..Ring::default()
            }),
            bytes_max,
            interests: Arc::new(Interests::new(revision)),
            turns: Turns::new(),
        }
    }

    /// To be told of changes of these keys from now on.
    pub(super) fn interest(&self, selector: Selector) -> Interest {
        self.interests.open(selector)
    }

    /// Takes the events of an apply, in order of revision. Whom they concern is to be woken once progress tells of them.
    pub fn publish(&self, events: Vec<Event>) -> Concerned {
        if events.is_empty() {
            return Concerned::default();
        }
        let concerned = self.interests.tell(&events);
        let mut ring = self.ring.write().expect(POISON);
        let before = ring.changes.len();
        let mut events = events.into_iter().peekable();
        while let Some(first) = events.next() {
            let revision = first.record.modified;
            let mut of_revision = vec![first];
            while let Some(event) = events.next_if(|event| event.record.modified == revision) {
                of_revision.push(event);
            }
            let change = Change::new(revision, of_revision);
            ring.bytes += change.bytes;
            ring.changes.push_back(Arc::new(change));
        }
        // Asked under the ring's lock: whoever begins to watch now reads what is left, and loses nothing it had found.
        let mut spare = if self.interests.is_empty() {
            ring.changes.len() - before + UNWATCHED_STEP
        } else {
            0
        };
        while ring.changes.len() > 1
            && (ring.bytes > self.bytes_max || (ring.bytes > UNWATCHED_BYTES_MAX && spare > 0))
        {
            let gone = ring.changes.pop_front().expect("there is more than one");
            ring.bytes -= gone.bytes;
            ring.complete_after = gone.revision;
            spare = spare.saturating_sub(1);
        }
        concerned
    }

    /// Begins anew after a snapshot has replaced the state.
    pub fn reset(&self, revision: u64) -> Concerned {
        let mut ring = self.ring.write().expect(POISON);
        *ring = Ring {
            complete_after: revision,
            epoch: ring.epoch + 1,
            ..Ring::default()
        };
        drop(ring);
        self.interests.tell_all(revision)
    }

    /// Changes from revision `from` up to `upto`, at most `limit`; `None` if the ring has lost some of them.
    /// The epoch comes with them, since whoever falls out of a ring that began anew was not too slow.
    pub fn read(&self, from: u64, upto: u64, limit: usize) -> (u64, Option<Vec<Arc<Change>>>) {
        let ring = self.ring.read().expect(POISON);
        if from <= ring.complete_after {
            return (ring.epoch, None);
        }
        let start = ring.changes.partition_point(|change| change.revision < from);
        let changes = ring
            .changes
            .range(start..)
            .take_while(|change| change.revision <= upto)
            .take(limit);
        (ring.epoch, Some(changes.cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::Record;

    fn event(revision: u64) -> Event {
        let record = Record {
            created: 1,
            modified: revision,
            version: 1,
            lease: 0,
            value: Bytes::from(vec![0; 100]),
        };
        Event {
            key: Bytes::from_static(b"k"),
            record,
        }
    }

    #[test]
    fn what_left_the_ring_is_never_silently_skipped() {
        let hub = Hub::new(10, 1000);
        let read = |from| hub.read(from, 99, 9).1;
        assert!(read(10).is_none(), "revision 10 was before its time");
        hub.publish(
            (11..=20)
                .flat_map(|revision| [event(revision), event(revision)])
                .collect(),
        )
        .wake();
        assert!(read(11).is_none());
        let kept = read(20).expect("the newest is here");
        assert_eq!((kept.len(), kept[0].revision, kept[0].events.len()), (1, 20, 2));
        assert_eq!(read(21).expect("nothing is missing").len(), 0);
        let (before, _) = hub.read(21, 99, 9);
        hub.reset(20).wake();
        let (after, gone) = hub.read(20, 99, 9);
        assert!(
            gone.is_none() && after > before,
            "whoever read before can tell why"
        );
    }

    #[test]
    fn what_nobody_watches_is_kept_for_a_short_break_only() {
        let large = |revision| {
            let mut event = event(revision);
            event.record.value = Bytes::from(vec![0; 16 << 10]);
            event
        };
        let hub = Hub::new(0, 4 << 20);
        let publish = |revision| hub.publish(vec![large(revision)]).wake();
        let oldest = |newest: u64| (1..=newest).find(|from| hub.read(*from, newest, 1).1.is_some());
        // A mebibyte holds 63 of them.
        (1..=200).for_each(publish);
        assert_eq!(oldest(200), Some(138));
        let watched = hub.interest(Selector::Prefix(Bytes::new()));
        (201..=300).for_each(publish);
        assert_eq!(oldest(300), Some(138), "a reader may be slow");
        drop(watched);
        publish(301);
        assert_eq!(oldest(301), Some(203), "some at a time");
        publish(302);
        assert_eq!(oldest(302), Some(240));
        let (_, kept) = hub.read(240, 302, 99);
        let kept: Vec<u64> = kept.iter().flatten().map(|change| change.revision).collect();
        assert_eq!(kept, (240..=302).collect::<Vec<u64>>());
    }
}
