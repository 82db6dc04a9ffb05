//! Reads the next piece of the changes that a watcher asked for, and puts it into words.
//!
//! Invariant: what was compacted is never left out without a word. It may wait for the disk, so it runs on a thread of
//! its own unless there is little to do. It must not know when the watcher is told, nor by whom.

use std::sync::Arc;

use bytes::Bytes;
use service::tasks::Tasks;
use tokio_util::task::AbortOnDropHandle;

use super::base::Base as _;
use super::found::{Delivery, Found, Gathering, Noted, Position, STEP_BYTES, STEP_REVISIONS};
use super::generation::Generation;
use super::host::Machine;
use super::registry::Selector;
use super::turns::OwnTurns;
use super::watcher::Step;
use crate::storage::machine_db::MachineDb;

/// How changes are told.
pub type Words = Arc<dyn Fn(&Machine, Vec<Delivery>) -> Bytes + Send + Sync>;

/// What is read for a watcher, and how.
pub struct Reader {
    pub machine: Arc<Machine>,
    pub selector: Selector,
    /// Also what each key was before.
    pub with_previous: bool,
    /// Also what lies beside the keys: their leases, and the answers that were kept.
    pub with_aside: bool,
    pub words: Words,
}

/// One piece, read and put into words.
#[derive(Debug)]
pub(super) struct Read {
    /// None if nothing matched.
    pub(super) words: Option<Bytes>,
    pub(super) events: u64,
    /// Whoever gets them knows all up to this revision.
    pub(super) told: Option<u64>,
    pub(super) position: Position,
    /// Whether the ring still had it.
    pub(super) is_live: bool,
}

/// A read on another thread. Where it only waits for its turn, it ends with this.
pub(super) type Reading = AbortOnDropHandle<Result<Read, Step>>;

impl Reader {
    /// What the tables have to be asked for as well.
    pub(super) fn looks_up(&self) -> bool {
        self.with_previous || self.with_aside
    }

    /// Reads in its turn. All that is polled meanwhile is a task: a watcher is polled only as long as its client reads,
    /// and would keep a turn that it was given from all others.
    pub(super) fn start(
        self: &Arc<Self>,
        from: Position,
        upto: u64,
        turns: OwnTurns,
        tasks: &Tasks,
    ) -> Reading {
        let (reader, blocking) = (Arc::clone(self), tasks.clone());
        let reading = async move {
            let turn = turns.turn().await;
            let read = move || {
                // Until it is done: it goes on also when nobody wants it any more.
                let _turn = turn;
                reader.read(&from, upto)
            };
            let read = blocking.spawn_blocking("watch-read", read).await;
            // That it panicked was logged, and what is damaged has ended the node.
            read.unwrap_or(Err(Step::Failed))
        };
        AbortOnDropHandle::new(tasks.spawn("watch-turn", reading))
    }

    fn read(&self, from: &Position, upto: u64) -> Result<Read, Step> {
        let generation = self.machine.generation();
        let (_epoch, changes) = self.machine.hub.read(from.next, upto, STEP_REVISIONS);
        let is_live = changes.is_some();
        let mut found = match changes {
            Some(changes) => Found::in_ring(&changes, from, upto, &self.selector),
            None => self.in_database(&generation, from, upto)?,
        };
        if self.with_previous && !found.deliveries.is_empty() {
            look_up_previous(generation.db(), &mut found);
        }
        if self.with_aside && !found.deliveries.is_empty() {
            // The present database, which has all that was delivered, also when a snapshot was installed meanwhile.
            look_aside(self.machine.generation().db(), &mut found);
            // What was kept beside is given up with the history, although the ring may still have the changes.
            let compacted = self.machine.state().compacted;
            if found
                .deliveries
                .first()
                .is_some_and(|first| first.revision <= compacted)
            {
                return Err(Step::Compacted(compacted));
            }
        }
        Ok(self.in_words(found, is_live))
    }

    pub(super) fn in_words(&self, found: Found, is_live: bool) -> Read {
        let Found { deliveries, position } = found;
        let events = deliveries.iter().map(|delivery| delivery.events.len() as u64);
        Read {
            events: events.sum(),
            told: deliveries
                .last()
                .map(|last| last.revision - u64::from(!last.ends)),
            words: (!deliveries.is_empty()).then(|| (self.words)(&self.machine, deliveries)),
            position,
            is_live,
        }
    }

    fn in_database(&self, generation: &Generation, from: &Position, upto: u64) -> Result<Found, Step> {
        let db = generation.db();
        let mut gathering = Gathering::new(from, &self.selector);
        db.visit_events(from.next, upto, &mut |revision, key, event| {
            gathering.visit(revision, key, event)
        });
        // Only now: what was compacted while it was read may be missing from it.
        let compacted = db.state().compacted.max(self.machine.progress_now().compacted);
        let compacted = compacted.max(generation.gaps.watch_floor());
        if from.next <= compacted {
            return Err(Step::Compacted(compacted));
        }
        let found = gathering.end();
        assert!(
            found.position > *from,
            "every revision that was not compacted has events: {from:?} up to {upto}"
        );
        Ok(found)
    }
}

/// Looks up what each key was before its change. That may be large, so what is too much is left to the next piece.
fn look_up_previous(db: &MachineDb, found: &mut Found) {
    let (mut bytes, mut events) = (0, 0);
    for noted in found.noted() {
        if bytes > STEP_BYTES {
            break;
        }
        noted.previous = db.record_at(&noted.event.key, noted.event.record.modified - 1);
        bytes += noted.bytes();
        events += 1;
    }
    found.cut(events);
    // Only now: what was compacted while it was read may have been an older version.
    let compacted = db.state().compacted;
    for noted in found.noted() {
        if noted.event.record.modified - 1 < compacted {
            noted.previous = None;
        }
    }
}

/// Looks up what lies beside the keys. A lease or an answer that has ended meanwhile is of no use to anybody.
fn look_aside(db: &MachineDb, found: &mut Found) {
    // What was kept is told with the last event of its revision.
    let ends: Vec<&mut Delivery> = found
        .deliveries
        .iter_mut()
        .filter(|delivery| delivery.ends)
        .collect();
    if let (Some(first), Some(last)) = (ends.first(), ends.last()) {
        let kept = db.kept_of(first.revision, last.revision, STEP_BYTES);
        let bytes: usize = kept.iter().map(|(_, _, kept)| kept.reply.len()).sum();
        let reached = kept.last().filter(|_| bytes >= STEP_BYTES).map(|(of, ..)| *of);
        let mut kept = kept.into_iter().peekable();
        for delivery in ends {
            while kept.next_if(|(of, ..)| *of < delivery.revision).is_some() {}
            let own = kept.next_if(|(of, ..)| *of == delivery.revision);
            delivery.kept = own.map(|(_, id, kept)| (id, kept));
        }
        if let Some(reached) = reached {
            found.cut_behind(reached);
        }
    }
    for Noted { event, lease, .. } in found.noted().filter(|noted| noted.event.record.lease != 0) {
        *lease = db.lease(event.record.lease);
    }
}
