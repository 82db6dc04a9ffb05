//! Who watches which keys, so that a change wakes those whom it concerns, and nobody looks through changes of others.
//!
//! Invariant: before a revision is published as progress, every interest that one of its events concerns has it noted. So
//! what an interest does not have noted, up to what progress said before it was asked, does not concern it.

use std::sync::{Arc, Mutex, MutexGuard};

use super::registry::{Registry, Selector, Slot, Span};
use super::state::Event;

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

#[derive(Debug)]
struct Watched {
    /// Copied to be changed while somebody is told by it, which may take long with many events and watchers; who begins
    /// or ends to watch must not wait for that, since Raft would wait too.
    registry: Arc<Registry>,
    /// The newest revision that was told, or is being told. Who came too late for that has to look for itself.
    newest: u64,
}

#[derive(Debug)]
pub(super) struct Interests {
    watched: Mutex<Watched>,
}

impl Interests {
    pub(super) fn new(revision: u64) -> Self {
        Self {
            watched: Mutex::new(Watched {
                registry: Arc::default(),
                newest: revision,
            }),
        }
    }

    /// Held for moments only.
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().expect("no holder of the interests panics")
    }

    /// What came before may concern it: it has to look for itself.
    pub(super) fn open(self: &Arc<Self>, selector: Selector) -> Interest {
        let mut watched = self.watched();
        let slot = Arc::new(Slot::new(watched.newest));
        Arc::make_mut(&mut watched.registry).add(&selector, &slot);
        drop(watched);
        Interest {
            all: Arc::clone(self),
            selector,
            slot,
        }
    }

    /// Whether nobody watches anything.
    pub(super) fn is_empty(&self) -> bool {
        self.watched().registry.is_empty()
    }

    /// Everybody who watches now, to be told up to this revision.
    fn telling(&self, upto: u64) -> Arc<Registry> {
        let mut watched = self.watched();
        watched.newest = upto;
        Arc::clone(&watched.registry)
    }

    /// Each watcher is told once, however many of the events concern it.
    pub(super) fn tell(&self, events: &[Event]) -> Concerned {
        let mut concerned = Concerned::default();
        let Some(last) = events.last() else {
            return concerned;
        };
        let registry = self.telling(last.record.modified);
        for Span { first, last, slots } in registry.concerned(events) {
            for slot in slots {
                slot.note(first, last);
                concerned.0.push(Arc::clone(slot));
            }
        }
        concerned
    }

    /// Anything may have happened up to this revision.
    pub(super) fn tell_all(&self, revision: u64) -> Concerned {
        let registry = self.telling(revision);
        let slots = registry.slots().inspect(|slot| slot.note_all(revision));
        Concerned(slots.cloned().collect())
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
        self.slot.first_from(from)
    }

    /// Something that concerns it was told, now or since this was last asked.
    pub(super) async fn woken(&self) {
        self.slot.woken.notified().await;
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut watched = self.all.watched();
        Arc::make_mut(&mut watched.registry).remove(&self.selector, &self.slot);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

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
        assert_eq!(
            format!("{:?}", interests.watched().registry),
            format!("{:?}", Registry::default())
        );
    }

    #[test]
    fn who_begins_or_ends_to_watch_while_others_are_told_does_not_wait_for_that() {
        let interests = Arc::new(Interests::new(10));
        let early = interests.open(key("a"));
        let telling = interests.telling(11);
        let late = interests.open(key("a"));
        drop(early);
        let events = [event("a", 11)];
        let told: Vec<usize> = telling.concerned(&events).map(|span| span.slots.len()).collect();
        assert_eq!(told, [1], "they are those of when it began");
        assert_eq!(late.first_from(11), Some(11), "who came later looks for itself");
        assert_eq!(late.first_from(12), None);
        interests.tell(&[event("a", 12)]).wake();
        assert_eq!(late.first_from(12), Some(12));
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
