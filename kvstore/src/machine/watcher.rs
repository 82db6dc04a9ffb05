//! One watcher: pulls changes from the ring of newest events, and from the database until it gets there.
//!
//! Invariant: every change of its keys from the first revision on is delivered once and in order, or the watcher says
//! that it cannot. A revision that is too large for one step comes in several, between which nothing else does. It knows
//! nothing of HTTP or tokens.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use service::tasks::Tasks;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::found::{Found, Position, STEP_REVISIONS};
use super::interest::Interest;
use super::reading::{Read, Reader, Reading};
use super::turns::OwnTurns;

/// How often the caller gets to look around.
const TICK: Duration = Duration::from_millis(400);
/// Revisions without an event of this watcher are told this long after the first of them, unless the caller says
/// how long. A near cache that must see the newest revision before it answers cannot wait so long.
pub const QUIET: Duration = Duration::from_millis(100);
const PROGRESS_EVERY: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub enum Step {
    /// So many changes, in words.
    Changes { words: Bytes, events: u64 },
    /// In the middle of a revision, of which more comes when it is this watcher's turn. Who was told of progress now
    /// would take it for whole.
    Amid,
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
    /// Reading has failed, which was logged there. The end.
    Failed,
}

pub struct Watcher {
    reader: Arc<Reader>,
    turns: OwnTurns,
    tasks: Tasks,
    /// What may be read.
    present: watch::Receiver<u64>,
    interest: Interest,
    position: Position,
    /// What is read at the moment, if that is done elsewhere.
    reading: Option<Reading>,
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
    /// Delivers changes of revision `next` and later. What takes long runs as one of these tasks, when it is its owner's
    /// turn.
    pub fn open(reader: Reader, next: u64, owner: &str, tasks: Tasks) -> Self {
        assert!(next > 0, "there is no revision 0 to deliver");
        Self {
            present: reader.machine.revision(),
            epoch: 0,
            turns: reader.machine.hub.turns.of(owner),
            interest: reader.machine.hub.interest(reader.selector.clone()),
            reader: Arc::new(reader),
            tasks,
            position: Position::before(next),
            reading: None,
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

    pub fn next_revision(&self) -> u64 {
        self.position.next
    }

    /// The next thing to tell, after a tick at the latest. Cancel-safe.
    pub async fn next(&mut self) -> Step {
        let until = Instant::now() + TICK;
        loop {
            let present = *self.present.borrow_and_update();
            if self.reading.is_none()
                && let Some(step) = self.look(present)
            {
                return step;
            }
            let now = Instant::now();
            if let Some(step) = self.due(now, present) {
                return step;
            }
            if now >= until {
                return Step::Idle;
            }
            let alarm = self
                .quiet_since
                .map_or(until, |since| until.min(since + self.quiet_max));
            // Either there is news or the alarm; the loop finds out which.
            if let Some(reading) = &mut self.reading {
                if let Ok(read) = timeout_at(alarm, reading).await
                    && let Some(step) = self.took(read.unwrap_or(Err(Step::Failed)))
                {
                    return step;
                }
            } else if self.position.next > present {
                // Whoever waits is not slow: what falls out of the ring meanwhile is read from the database.
                self.live = false;
                if let Ok(Err(_closed)) = timeout_at(alarm, self.news()).await {
                    return Step::Idle;
                }
            }
        }
    }

    /// Waits for a change that concerns this watcher; while all before it was told, for any, since that one is to be
    /// told of too, in its time. Other changes do not wake it: there may be many, and many watchers.
    async fn news(&mut self) -> Result<(), watch::error::RecvError> {
        let is_coming = self.interest.first_from(self.position.next).is_some();
        let all_told = self.quiet_since.is_none();
        tokio::select! {
            () = self.interest.woken(), if !is_coming => Ok(()),
            changed = self.present.changed(), if is_coming || all_told => changed,
        }
    }

    fn due(&mut self, now: Instant, present: u64) -> Option<Step> {
        let delivered = self.position.next - 1;
        let quiet = self
            .quiet_since
            .is_some_and(|since| now >= since + self.quiet_max);
        if !quiet && now < self.told_at + PROGRESS_EVERY {
            return None;
        }
        self.told_at = now;
        if self.position.within.is_some() {
            return Some(Step::Amid);
        }
        if delivered > present {
            return Some(Step::Waiting(present));
        }
        self.told = delivered;
        self.quiet_since = None;
        Some(Step::Progress(delivered))
    }

    /// Reads on if there is something to read: at once what is little, and the rest elsewhere.
    fn look(&mut self, present: u64) -> Option<Step> {
        if self.position.next <= present && self.position.within.is_none() {
            let next = self.position.next;
            let first = self.interest.first_from(next);
            let unconcerned = first.map_or(present, |first| present.min(first - 1));
            if unconcerned >= next {
                self.passed(Position::before(unconcerned + 1), None);
            }
        }
        let next = self.position.next;
        if next > present {
            return None;
        }
        let (epoch, changes) = self.reader.machine.hub.read(next, present, STEP_REVISIONS);
        if epoch != self.epoch {
            // The ring began anew, which is no fault of the reader's.
            self.epoch = epoch;
            self.live = false;
        }
        if changes.is_none() && self.live {
            return Some(Step::Lagging(next));
        }
        let selector = self.interest.selector();
        let little = changes
            .and_then(|changes| Found::little_in_ring(&changes, &self.position, present, selector))
            .filter(|found| found.deliveries.is_empty() || !self.reader.looks_up());
        if let Some(found) = little {
            let read = self.reader.in_words(found, true);
            return self.took(Ok(read));
        }
        // Whoever waits for its turn is not slow either.
        self.live = false;
        let (from, turns) = (self.position.clone(), self.turns.clone());
        let reading = self.reader.start(from, present, turns, &self.tasks);
        self.reading = Some(reading);
        None
    }

    /// What was read is told, if it is anything.
    fn took(&mut self, read: Result<Read, Step>) -> Option<Step> {
        self.reading = None;
        let Read {
            words,
            told,
            events,
            position,
            is_live,
        } = match read {
            Ok(read) => read,
            Err(end) => return Some(end),
        };
        // Where a slow reader would begin anew in the middle of a revision, it might never come to its end.
        self.live = is_live && position.within.is_none();
        self.passed(position, told);
        words.map(|words| Step::Changes { words, events })
    }

    /// Notes what has been looked at, and what the caller will know of it.
    fn passed(&mut self, position: Position, told: Option<u64>) {
        assert!(
            position > self.position,
            "each read gets further: {position:?} after {:?}",
            self.position
        );
        self.position = position;
        if let Some(told) = told {
            self.told = told;
            self.told_at = Instant::now();
            self.quiet_since = None;
        }
        if self.told + 1 < self.position.next {
            self.quiet_since.get_or_insert_with(Instant::now);
        }
    }
}
