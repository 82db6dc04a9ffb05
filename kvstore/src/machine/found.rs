//! What one read of changes found for a watcher.
//!
//! Invariant: whole revisions, in order, and only what the watcher asked for. It must not know where the changes are
//! read from, nor when.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::hub::Change;
use super::registry::Selector;
use super::state::{Event, Kept, KeptId, Lease};
use crate::command::Record;

/// Revisions and bytes of one step, so that one busy watcher does not hold up the others.
pub(super) const STEP_REVISIONS: usize = 64;
pub(super) const STEP_BYTES: usize = 256 << 10;
/// To go through as many takes well under a millisecond.
const FEW_EVENTS: usize = 1000;

#[derive(Debug)]
pub struct Noted {
    pub event: Event,
    /// The key before this change, where that was asked for, existed, and can still be read.
    pub previous: Option<Record>,
    /// The lease of the key, where that was asked for and it still lives.
    pub lease: Option<Lease>,
}

impl Noted {
    fn plain(event: Event) -> Self {
        Self {
            event,
            previous: None,
            lease: None,
        }
    }
}

/// All changes of one revision that the watcher asked for; never empty.
#[derive(Debug)]
pub struct Delivery {
    pub revision: u64,
    pub events: Vec<Noted>,
    /// The answer that was kept for it, where that was asked for and it has not ended.
    pub kept: Option<(KeptId, Kept)>,
}

/// The right to have very many events in memory: few watchers have it at the same time. For few events none is needed.
#[derive(Debug, Default)]
pub struct Turn {
    pub(super) _held: Option<OwnedSemaphorePermit>,
}

pub(super) fn are_many(changes: &[Arc<Change>]) -> bool {
    changes.iter().map(|change| change.events.len()).sum::<usize>() > FEW_EVENTS
}

/// What one read found: the matching changes, and the last revision it looked at.
#[derive(Default)]
pub(super) struct Found {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) reached: u64,
    pub(super) turn: Turn,
}

impl Found {
    pub(super) fn in_ring(changes: &[Arc<Change>], upto: u64, selector: &Selector) -> Self {
        let mut deliveries = Vec::new();
        let mut bytes = 0;
        for change in changes {
            let matching = change.events.iter().filter(|event| selector.matches(&event.key));
            let events: Vec<Noted> = matching.cloned().map(Noted::plain).collect();
            bytes += events
                .iter()
                .map(|noted| noted.event.key.len() + noted.event.record.value.len())
                .sum::<usize>();
            if !events.is_empty() {
                deliveries.push(Delivery {
                    revision: change.revision,
                    events,
                    kept: None,
                });
            }
            if bytes > STEP_BYTES {
                return Self {
                    deliveries,
                    reached: change.revision,
                    ..Self::default()
                };
            }
        }
        let last = changes.last().map_or(upto, |change| change.revision);
        let reached = if changes.len() < STEP_REVISIONS {
            upto
        } else {
            last
        };
        Self {
            deliveries,
            reached,
            ..Self::default()
        }
    }

    pub(super) fn in_database(events: Vec<Event>, selector: &Selector) -> Self {
        let reached = events.last().map_or(0, |event| event.record.modified);
        let mut deliveries: Vec<Delivery> = Vec::new();
        for event in events.into_iter().filter(|event| selector.matches(&event.key)) {
            let revision = event.record.modified;
            let noted = Noted::plain(event);
            match deliveries
                .last_mut()
                .filter(|delivery| delivery.revision == revision)
            {
                Some(delivery) => delivery.events.push(noted),
                None => deliveries.push(Delivery {
                    revision,
                    events: vec![noted],
                    kept: None,
                }),
            }
        }
        Self {
            deliveries,
            reached,
            ..Self::default()
        }
    }
}
