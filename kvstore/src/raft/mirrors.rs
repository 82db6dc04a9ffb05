//! What the leader knows of the mirrors, and how answers wait for them.
//! Invariant: what is released was on the disk of every mirror that the applied log says is waited for. Whether one is
//! waited for is decided by the log alone; what mirrors say of themselves is only remembered here, so that a new
//! leader waits until it has heard them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::network::message::{MirrorHeard, MirrorView, NotNow};
use crate::command::{Action, Answer, MirrorMode, MirrorState, MirrorsWere, OnLoss, Reply};
use crate::machine::host::{Lead, Machine};
use crate::machine::state::{Mirror, Mirrors};

/// A mirror that is silent, or holds up an answer, for so long is lost.
pub(crate) const LOSS: Duration = Duration::from_secs(1);
/// An answer that waits longer than this is told to be unknown; its asker has given up before, most likely.
const HOLD_MAX: Duration = Duration::from_secs(10);
/// A mirror that lacks no more than this is as good as level: its next word tells that it is.
const LEVEL_REVISIONS: u64 = 5000;
/// A mirror that follows another node may be ahead of the leader for a moment.
const AHEAD: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Heard {
    incarnation: String,
    revision: u64,
    at: Instant,
    /// Of the leader that heard it: another may have waited for more since.
    term: u64,
}

pub struct MirrorDesk {
    machine: Arc<Machine>,
    heard: watch::Sender<BTreeMap<String, Heard>>,
    /// The highest revision that was ever released here.
    released: AtomicU64,
    /// Revisions that have waited longer than a mirror may take.
    overdue: Mutex<Vec<u64>>,
    /// Since when this node leads, by its own clock.
    leads_since: watch::Sender<Option<Instant>>,
    /// Mirrors that hold answers up for too long; whoever leads has the log say so.
    lost: tokio::sync::Notify,
}

const POISON: &str = "no holder of what the desk remembers panics";

/// One answer that waits for too long, until it is dropped.
struct Overdue<'d> {
    all: &'d Mutex<Vec<u64>>,
    revision: u64,
}

impl<'d> Overdue<'d> {
    fn begin(all: &'d Mutex<Vec<u64>>, revision: u64) -> Self {
        all.lock().expect(POISON).push(revision);
        Self { all, revision }
    }
}

impl Drop for Overdue<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock().expect(POISON);
        if let Some(at) = all.iter().position(|revision| *revision == self.revision) {
            all.swap_remove(at);
        }
    }
}

/// The last revision that the answers tell of. Leases and the like tell nothing of keys.
fn told(replies: &[Reply]) -> u64 {
    let telling = replies
        .iter()
        .filter(|reply| !matches!(reply.answer, Answer::Lease { .. } | Answer::Compacted { .. }));
    telling.map(|reply| reply.revision).max().unwrap_or(0)
}

impl MirrorDesk {
    pub fn new(machine: Arc<Machine>) -> Self {
        Self {
            machine,
            heard: watch::Sender::default(),
            released: AtomicU64::new(0),
            overdue: Mutex::default(),
            leads_since: watch::Sender::default(),
            lost: tokio::sync::Notify::new(),
        }
    }

    /// A mirror has everything up to `revision` on its disk, or says again that it has.
    pub async fn hear(&self, term: u64, name: &str, incarnation: &str, revision: u64) -> MirrorHeard {
        let mut progress = self.machine.progress();
        let reached = progress.wait_for(|progress| progress.revision >= revision);
        if timeout(AHEAD, reached).await.is_err() {
            let present = self.machine.progress_now().revision;
            return MirrorHeard::Future { present };
        }
        let mirrors = self.machine.mirrors();
        let Some(mirror) = mirrors.by_name.get(name) else {
            return MirrorHeard::Unknown;
        };
        // Who does not say which it is is taken for the one that was announced.
        if !incarnation.is_empty() && mirror.incarnation != incarnation {
            return MirrorHeard::Another;
        }
        let heard = Heard {
            incarnation: mirror.incarnation.clone(),
            revision,
            at: Instant::now(),
            term,
        };
        self.heard.send_modify(|all| {
            all.insert(name.to_owned(), heard);
        });
        MirrorHeard::Heard(self.view(mirror))
    }

    fn heard_of(&self, mirror: &Mirror) -> Option<Heard> {
        let heard = self.heard.borrow().get(&mirror.name).cloned();
        heard.filter(|heard| heard.incarnation == mirror.incarnation)
    }

    fn acknowledged(&self, mirror: &Mirror) -> u64 {
        self.heard_of(mirror).map_or(0, |heard| heard.revision)
    }

    /// How a mirror stands by the word of this leader.
    pub fn view(&self, mirror: &Mirror) -> MirrorView {
        let heard = self.heard_of(mirror);
        let present = self.machine.progress_now().revision;
        let silent = heard.as_ref().is_none_or(|heard| heard.at.elapsed() > LOSS);
        let acknowledged = heard.as_ref().map(|heard| heard.revision);
        let state = match (mirror.mode, mirror.state) {
            (MirrorMode::Async, _) if silent => MirrorState::Degraded,
            (MirrorMode::Async, _) => MirrorState::Ok,
            // Lost, although nobody may go on without it.
            (MirrorMode::Sync, MirrorState::Ok) if silent && self.has_led(LOSS) => MirrorState::Degraded,
            // What was acknowledged just before it was level again may be on its way there.
            (MirrorMode::Sync, MirrorState::Ok) if acknowledged.unwrap_or(0) < mirror.since => {
                MirrorState::CatchingUp
            }
            (MirrorMode::Sync, state) => state,
        };
        MirrorView {
            name: mirror.name.clone(),
            mode: mirror.mode,
            on_loss: mirror.on_loss,
            state,
            acknowledged,
            lag: acknowledged.map(|revision| present.saturating_sub(revision)),
            heard_ms_ago: heard.map(|heard| millis(heard.at.elapsed())),
        }
    }

    pub fn views(&self) -> Vec<MirrorView> {
        let mirrors = self.machine.mirrors();
        mirrors.by_name.values().map(|mirror| self.view(mirror)).collect()
    }

    pub fn set_leads(&self, leads: bool) {
        self.leads_since.send_if_modified(|since| {
            let changed = since.is_some() != leads;
            if changed {
                *since = leads.then(Instant::now);
            }
            changed
        });
    }

    fn has_led(&self, duration: Duration) -> bool {
        self.leads_since
            .borrow()
            .is_some_and(|since| since.elapsed() > duration)
    }

    fn is_silent(&self, mirror: &Mirror) -> bool {
        let heard = self.heard_of(mirror);
        self.has_led(LOSS) && heard.is_none_or(|heard| heard.at.elapsed() > LOSS)
    }

    /// Whether some answer has waited for it for too long.
    fn holds_up(&self, mirror: &Mirror) -> bool {
        let acknowledged = self.acknowledged(mirror);
        let overdue = self.overdue.lock().expect(POISON);
        overdue.iter().any(|revision| *revision > acknowledged)
    }

    /// Whether a write must be refused before it is proposed.
    pub fn refuses(&self) -> bool {
        let mirrors = self.machine.mirrors();
        let mut blocking = mirrors
            .required()
            .filter(|mirror| mirror.on_loss == OnLoss::Block);
        blocking.any(|mirror| self.is_silent(mirror) || self.holds_up(mirror))
    }

    /// Up to where reads may be shown without waiting, which is no less than was ever acknowledged; `None` when there is
    /// no mirror to wait for, and 0 as long as what the mirrors have said in this term is less than earlier leaders may
    /// have acknowledged: one that lost its database says little, though it is waited for since long ago. The lead is
    /// this node's own.
    pub fn mirrored(&self, lead: impl FnOnce() -> Lead) -> Option<u64> {
        self.machine.mirrors().required().next()?;
        let lead = lead();
        // Before the mirrors: those that earlier leaders waited for are then among them. What this one has acknowledged
        // it has applied before, so nothing else need be applied here.
        let inherited = self.machine.revision_at_begin(lead);
        let mirrors = self.machine.mirrors();
        let level = |mirror: &Arc<Mirror>| {
            let heard = self.heard_of(mirror).filter(|heard| heard.term == lead.term)?;
            // Before it was waited for, much was acknowledged without it.
            Some(heard.revision.max(mirror.since))
        };
        let levels: Option<Vec<u64>> = mirrors.required().map(level).collect();
        let least = levels.and_then(|levels| levels.into_iter().min());
        let least = least.map(|least| least.max(self.released.load(Ordering::Acquire)));
        let is_enough = |least: &u64| inherited.is_some_and(|inherited| *least >= inherited);
        Some(least.filter(is_enough).unwrap_or(0))
    }

    /// Waits until every mirror that is waited for has what the answers tell.
    pub async fn hold(&self, replies: &[Reply]) -> Result<MirrorsWere, NotNow> {
        if self.machine.mirrors().by_name.is_empty() {
            return Ok(MirrorsWere::None);
        }
        self.wait(told(replies)).await
    }

    /// The same for what a read shows, which this node may not have applied yet, nor that it is to be waited for.
    pub async fn wait_for_read(&self, revision: u64) -> Result<MirrorsWere, NotNow> {
        let mut progress = self.machine.progress();
        let reached = progress.wait_for(|progress| progress.revision >= revision);
        let is_here = timeout(HOLD_MAX, reached)
            .await
            .is_ok_and(|reached| reached.is_ok());
        if !is_here {
            return Err(NotNow::Unknown);
        }
        self.wait(revision).await
    }

    async fn wait(&self, revision: u64) -> Result<MirrorsWere, NotNow> {
        let (mut heard, mut mirrors) = (self.heard.subscribe(), self.machine.mirrors_changing());
        let began = Instant::now();
        let mut overdue = None;
        loop {
            heard.borrow_and_update();
            let now = Arc::clone(&mirrors.borrow_and_update());
            if now.required().all(|mirror| self.acknowledged(mirror) >= revision) {
                self.released.fetch_max(revision, Ordering::AcqRel);
                return Ok(were(&now));
            }
            let until = began + if overdue.is_none() { LOSS } else { HOLD_MAX };
            let step = timeout_at(until, async {
                tokio::select! {
                    changed = heard.changed() => changed.is_ok(),
                    changed = mirrors.changed() => changed.is_ok(),
                }
            });
            match step.await {
                Ok(true) => {}
                Ok(false) => return Err(NotNow::Unknown),
                Err(_elapsed) if overdue.is_none() => {
                    overdue = Some(Overdue::begin(&self.overdue, revision));
                    self.lost.notify_one();
                }
                // What it tells of may have happened all the same.
                Err(_elapsed) => return Err(NotNow::Unknown),
            }
        }
    }

    /// Waits until some answer has waited for too long. Cancel-safe.
    pub async fn some_are_lost(&self) {
        self.lost.notified().await;
    }

    /// What the leader has to have the log say now.
    pub fn findings(&self) -> Vec<Action> {
        let mirrors = self.machine.mirrors();
        let present = self.machine.progress_now().revision;
        let found = mirrors.synchronous().filter_map(|mirror| {
            let acknowledged = self.acknowledged(mirror);
            let state = if mirror.state == MirrorState::Ok {
                let lost = self.is_silent(mirror) || self.holds_up(mirror);
                (lost && mirror.on_loss == OnLoss::Degrade).then_some(MirrorState::Degraded)?
            } else {
                let lives = self
                    .heard_of(mirror)
                    .is_some_and(|heard| heard.at.elapsed() < LOSS);
                (lives && acknowledged + LEVEL_REVISIONS >= present).then_some(MirrorState::Ok)?
            };
            Some(Action::MirrorIs {
                name: mirror.name.clone(),
                incarnation: mirror.incarnation.clone(),
                state,
            })
        });
        found.collect()
    }
}

fn were(mirrors: &Mirrors) -> MirrorsWere {
    let mut synchronous = mirrors.synchronous().peekable();
    if synchronous.peek().is_none() {
        MirrorsWere::None
    } else if synchronous.all(|mirror| mirror.is_required()) {
        MirrorsWere::Ok
    } else {
        MirrorsWere::Degraded
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
