//! One watcher: pulls changes from the ring of newest events, and from the database until it gets there.
//!
//! Invariant: every change of its keys from the first revision on is delivered once, in order and whole
//! revisions at a time, or the watcher says that it cannot. It knows nothing of HTTP or tokens.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::base::Base as _;
use super::found::{Delivery, Found, STEP_BYTES, STEP_REVISIONS, Turn, are_many};
use super::generation::Generation;
use super::host::Machine;
use super::hub::Change;
use super::interest::Interest;
use super::registry::Selector;

/// How often the caller gets to look around.
const TICK: Duration = Duration::from_millis(400);
/// Revisions without an event of this watcher are told this long after the first of them, unless the caller says
/// how long. A near cache that must see the newest revision before it answers cannot wait so long.
pub const QUIET: Duration = Duration::from_millis(100);
const PROGRESS_EVERY: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub enum Step {
    /// The turn is to be kept for as long as they are in memory.
    Changes(Vec<Delivery>, Turn),
    /// Everything up to this revision was delivered.
    Progress(u64),
    /// The first revision is still to come; the present one is this.
    Waiting(u64),
    /// Nothing to tell.
    Idle,
    /// What comes next was compacted; this revision and those before it are gone. The end.
    Compacted(u64),
    /// Too slow for the ring: begin again from this revision. The end.
    Lagging(u64),
}

pub struct Watcher {
    machine: Arc<Machine>,
    /// What may be read.
    present: watch::Receiver<u64>,
    interest: Interest,
    with_previous: bool,
    with_aside: bool,
    /// The first revision that was not looked at yet.
    next: u64,
    /// Whether the last read came from the ring: from then on, falling out of it is the reader's own fault.
    live: bool,
    /// Of the ring at the last read; another one means that a snapshot was installed in between.
    epoch: u64,
    /// The caller knows that everything up to here was delivered.
    told: u64,
    told_at: Instant,
    /// When the first revision passed that the caller does not know of.
    quiet_since: Option<Instant>,
    /// How long such a revision may go untold.
    quiet_max: Duration,
}

impl Watcher {
    /// Delivers changes of revision `next` and later.
    pub fn open(machine: Arc<Machine>, selector: Selector, next: u64, with_previous: bool) -> Self {
        assert!(next > 0, "there is no revision 0 to deliver");
        Self {
            present: machine.revision(),
            epoch: 0,
            interest: machine.hub.interest(selector),
            machine,
            with_previous,
            with_aside: false,
            next,
            live: false,
            told: next - 1,
            told_at: Instant::now(),
            quiet_since: None,
            quiet_max: QUIET,
        }
    }

    /// Tells of revisions without an event after this long.
    #[must_use]
    pub fn telling_progress_after(self, quiet_max: Duration) -> Self {
        Self { quiet_max, ..self }
    }

    /// Tells also what lies beside the keys: their leases, and the answers that were kept.
    #[must_use]
    pub fn with_aside(self, with_aside: bool) -> Self {
        Self { with_aside, ..self }
    }

    pub fn next_revision(&self) -> u64 {
        self.next
    }

    /// The next thing to tell, after a tick at the latest. Cancel-safe.
    pub async fn next(&mut self) -> Step {
        let until = Instant::now() + TICK;
        loop {
            let present = *self.present.borrow_and_update();
            if self.next <= present {
                let first = self.interest.first_from(self.next);
                let unconcerned = first.map_or(present, |first| present.min(first - 1));
                if unconcerned >= self.next {
                    self.passed(None, unconcerned);
                }
            }
            if self.next <= present {
                match self.read(present).await {
                    Ok((deliveries, _)) if deliveries.is_empty() => {}
                    Ok((deliveries, turn)) => return Step::Changes(deliveries, turn),
                    Err(end) => return end,
                }
            }
            let now = Instant::now();
            if let Some(step) = self.due(now, present) {
                return step;
            }
            if now >= until {
                return Step::Idle;
            }
            if self.next > present {
                // Whoever waits is not slow: what falls out of the ring meanwhile is read from the database.
                self.live = false;
                let alarm = self
                    .quiet_since
                    .map_or(until, |since| until.min(since + self.quiet_max));
                // Either there is news or the alarm; the loop finds out which.
                if let Ok(Err(_closed)) = timeout_at(alarm, self.news()).await {
                    return Step::Idle;
                }
            }
        }
    }

    /// Waits for a change that concerns this watcher; while all before it was told, for any, since that one is to be
    /// told of too, in its time. Other changes do not wake it: there may be many, and many watchers.
    async fn news(&mut self) -> Result<(), watch::error::RecvError> {
        let is_coming = self.interest.first_from(self.next).is_some();
        let all_told = self.quiet_since.is_none();
        tokio::select! {
            () = self.interest.woken(), if !is_coming => Ok(()),
            changed = self.present.changed(), if is_coming || all_told => changed,
        }
    }

    fn due(&mut self, now: Instant, present: u64) -> Option<Step> {
        let delivered = self.next - 1;
        let quiet = self
            .quiet_since
            .is_some_and(|since| now >= since + self.quiet_max);
        if !quiet && now < self.told_at + PROGRESS_EVERY {
            return None;
        }
        self.told_at = now;
        if delivered > present {
            return Some(Step::Waiting(present));
        }
        self.told = delivered;
        self.quiet_since = None;
        Some(Step::Progress(delivered))
    }

    async fn read(&mut self, upto: u64) -> Result<(Vec<Delivery>, Turn), Step> {
        let generation = self.machine.generation();
        let (epoch, found) = self.machine.hub.read(self.next, upto, STEP_REVISIONS);
        if epoch != self.epoch {
            // The ring began anew, which is no fault of the reader's.
            self.epoch = epoch;
            self.live = false;
        }
        let changes = match found {
            Some(changes) => {
                self.live = true;
                self.in_ring(changes, upto).await
            }
            None if self.live => return Err(Step::Lagging(self.next)),
            None => self.catch_up(&generation, upto).await?,
        };
        let Found {
            mut deliveries,
            reached,
            turn,
        } = changes;
        if self.with_previous && !deliveries.is_empty() {
            deliveries = with_previous(generation, deliveries).await;
        }
        if self.with_aside && !deliveries.is_empty() {
            // The present database, which has all that was delivered, also when a snapshot was installed meanwhile.
            deliveries = with_aside(self.machine.generation(), deliveries).await;
            // What was kept beside is given up with the history, although the ring may still have the changes.
            let compacted = self.machine.state().compacted;
            if deliveries
                .first()
                .is_some_and(|first| first.revision <= compacted)
            {
                return Err(Step::Compacted(compacted));
            }
        }
        self.passed(deliveries.last().map(|delivery| delivery.revision), reached);
        Ok((deliveries, turn))
    }

    /// A revision may have very many events, and each watcher goes through them: that is done on another thread, and by
    /// few at a time, since each has what it finds in memory.
    async fn in_ring(&self, changes: Vec<Arc<Change>>, upto: u64) -> Found {
        let selector = self.interest.selector();
        if !are_many(&changes) {
            return Found::in_ring(&changes, upto, selector);
        }
        let turn = self.machine.hub.turn().await;
        let selector = selector.clone();
        let read = tokio::task::spawn_blocking(move || Found {
            turn,
            ..Found::in_ring(&changes, upto, &selector)
        });
        read.await.expect("looking through events does not panic")
    }

    /// Notes what has been looked at, and what the caller will know of it.
    fn passed(&mut self, delivered: Option<u64>, reached: u64) {
        assert!(
            reached >= self.next,
            "each read gets at least one revision further"
        );
        self.next = reached + 1;
        if let Some(delivered) = delivered {
            self.told = delivered;
            self.told_at = Instant::now();
            self.quiet_since = None;
        }
        if self.told < reached {
            self.quiet_since.get_or_insert_with(Instant::now);
        }
    }

    async fn catch_up(&self, generation: &Arc<Generation>, upto: u64) -> Result<Found, Step> {
        let (from, reading) = (self.next, Arc::clone(generation));
        let selector = self.interest.selector().clone();
        let read = tokio::task::spawn_blocking(move || {
            let events = reading.db().events_from(from, upto, STEP_BYTES);
            // Only now: what was compacted while it was read may be missing from it.
            let compacted = reading.db().state().compacted;
            (Found::in_database(events, &selector), compacted)
        });
        let lost = generation.gaps.watch_floor();
        let (found, compacted) = read
            .await
            .expect("reading events does not panic, or the disk is lost");
        let compacted = compacted.max(self.machine.progress_now().compacted).max(lost);
        if from <= compacted {
            return Err(Step::Compacted(compacted));
        }
        assert!(
            found.reached >= from,
            "every revision that was not compacted has events: {from}..={upto}"
        );
        Ok(found)
    }
}

/// Looks up what lies beside the keys. A lease or an answer that has ended meanwhile is of no use to anybody.
async fn with_aside(generation: Arc<Generation>, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let read = tokio::task::spawn_blocking(move || {
        let db = generation.db();
        let (first, last) = (deliveries.first(), deliveries.last());
        if let (Some(first), Some(last)) = (first, last) {
            let mut kept = db.kept_of(first.revision, last.revision).into_iter().peekable();
            for delivery in &mut deliveries {
                while kept.next_if(|(of, ..)| *of < delivery.revision).is_some() {}
                let own = kept.next_if(|(of, ..)| *of == delivery.revision);
                delivery.kept = own.map(|(_, id, kept)| (id, kept));
            }
        }
        let noted = deliveries.iter_mut().flat_map(|delivery| &mut delivery.events);
        for noted in noted.filter(|noted| noted.event.record.lease != 0) {
            noted.lease = db.lease(noted.event.record.lease);
        }
        deliveries
    });
    read.await
        .expect("reading leases and answers does not panic, or the disk is lost")
}

/// Looks up what each key was before its change.
async fn with_previous(generation: Arc<Generation>, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let read = tokio::task::spawn_blocking(move || {
        let db = generation.db();
        for noted in deliveries.iter_mut().flat_map(|delivery| &mut delivery.events) {
            noted.previous = db.record_at(&noted.event.key, noted.event.record.modified - 1);
        }
        // Only now: what was compacted while it was read may have been an older version.
        let compacted = db.state().compacted;
        for noted in deliveries.iter_mut().flat_map(|delivery| &mut delivery.events) {
            if noted.event.record.modified - 1 < compacted {
                noted.previous = None;
            }
        }
        deliveries
    });
    read.await
        .expect("reading versions does not panic, or the disk is lost")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::command::{Action, Expect};
    use crate::machine::small::{entry, opened};

    #[tokio::test]
    async fn very_many_events_of_a_revision_are_gone_through_on_another_thread() {
        const KEYS: usize = 2000;
        let folder = tempfile::tempdir().unwrap();
        let machine = opened(folder.path());
        let prefix = Bytes::from_static(b"k/");
        let selector = Selector::Prefix(prefix.clone());
        let mut watcher = Watcher::open(Arc::clone(&machine), selector, 1, false);
        let puts = (0..KEYS).map(|key| Action::Put {
            key: Bytes::from(format!("k/{key}")),
            value: Bytes::new(),
            lease: 0,
            expect: Expect::Any,
        });
        machine.apply(vec![entry(1, 1, puts)]).unwrap();
        // Some revisions at a time, of an event each.
        let mut seen = 0;
        while seen < KEYS {
            let Some(Step::Changes(deliveries, _)) = watcher.next().now_or_never() else {
                panic!("{seen} were told, and more are at hand");
            };
            seen += deliveries.len();
        }
        let delete = Action::DeletePrefix { prefix };
        machine.apply(vec![entry(2, 1, [delete])]).unwrap();
        assert!(watcher.next().now_or_never().is_none(), "it was done here");
        let Step::Changes(deliveries, turn) = watcher.next().await else {
            panic!("there is a change");
        };
        let told: Vec<usize> = deliveries.iter().map(|delivery| delivery.events.len()).collect();
        assert_eq!(told, [KEYS]);
        // While two have so much in memory, others wait.
        let other = machine.hub.turn().await;
        assert!(machine.hub.turn().now_or_never().is_none());
        drop((turn, other));
        assert!(machine.hub.turn().now_or_never().is_some());
    }
}
