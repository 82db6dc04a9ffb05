//! The state machine in its process: the current database, what it has published, and its one writer.
//!
//! Order of an apply: decide (pure), write one batch, publish tokens, events and lease clocks, then
//! the progress that readers wait for. Whoever sees a revision published can read all of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use std::vec::IntoIter;

use arc_swap::ArcSwap;
use service::planted::{Bug, is_planted};
use tokio::sync::watch;

use super::agreement::Agreement;
use super::commands::Commands;
use super::decide::decide;
use super::draft::Draft;
use super::generation::Generation;
use super::hub::Hub;
use super::leases::LeaseClock;
use super::recent::RecentHeads;
use super::shares::Shares;
use super::state::{Mirrors, State, Tokens};
use crate::command::Reply;
use crate::metrics::NodeMetrics;
use crate::storage::damage::Damage;
use crate::storage::generations::Generations;
use crate::storage::machine_db::{MachineDb, MachineMemory};

/// How far this node's state is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Index after the last entry applied.
    pub applied_end: u64,
    pub revision: u64,
    pub compacted: u64,
}

pub struct Machine {
    pub(super) generations: Generations,
    current: ArcSwap<Generation>,
    memory: MachineMemory,
    heads_bytes: u64,
    applying: Mutex<Applying>,
    /// The state as it was after the last apply; read without waiting for the one under way.
    published: ArcSwap<State>,
    shares: Mutex<Shares>,
    tokens: ArcSwap<Tokens>,
    mirrors: watch::Sender<Arc<Mirrors>>,
    progress: watch::Sender<Progress>,
    revision: watch::Sender<u64>,
    pub hub: Hub,
    pub leases: LeaseClock,
    pub agreement: Agreement,
    pub metrics: Arc<NodeMetrics>,
    /// Bytes of proposals applied since this process began, and how many they were when the last snapshot was made.
    pub applied_bytes: AtomicU64,
    pub snapshot_bytes: AtomicU64,
    /// Not known after a start or an installed snapshot, until the next leader begins.
    begun: Mutex<Option<Begun>>,
    pub(crate) snapshots: super::snapshot::Snapshots,
    pub(crate) damage: Arc<Damage>,
}

const APPLYING_POISON: &str = "applying does not panic, or the process ends";
const BEGUN_POISON: &str = "no holder of who began last panics";
const SHARES_POISON: &str = "no holder of the shares panics";

/// What only the writer touches.
struct Applying {
    state: State,
    recent: RecentHeads,
}

/// Who leads, and in which term: within one, a higher number may take over from a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lead {
    pub term: u64,
    pub node: u64,
}

/// Whose blank entry was applied last, with which a leader begins, and which revision came before it.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) lead: Lead,
    pub(super) revision: u64,
}

/// One log entry as the machine sees it.
pub struct Item {
    pub index: u64,
    /// The encoded log id, stored with the effects.
    pub id: Vec<u8>,
    pub content: Content,
    /// Whether somebody waits here for what its commands are answered.
    pub awaited: bool,
}

pub enum Content {
    Nothing {
        lead: Lead,
    },
    Proposal(Commands),
    /// The encoded membership that counts from here on.
    Membership(Vec<u8>),
}

#[derive(Clone, Copy, Debug)]
pub struct MachineSettings {
    pub memtable_bytes: usize,
    pub cache_bytes: usize,
    /// For records of keys used lately; 0 keeps none.
    pub records_bytes: u64,
    pub ring_bytes: usize,
    /// For heads of keys used lately.
    pub heads_bytes: u64,
}

impl MachineSettings {
    /// Of a tool that opens a state to work on it, and serves nobody.
    pub(crate) const OF_A_TOOL: Self = Self {
        memtable_bytes: 8 << 20,
        cache_bytes: 8 << 20,
        records_bytes: 0,
        ring_bytes: 1 << 20,
        heads_bytes: 1 << 20,
    };
}

impl Machine {
    /// Opens what `folder` holds, or an empty state.
    pub fn open(
        folder: &std::path::Path,
        settings: MachineSettings,
        metrics: Arc<NodeMetrics>,
    ) -> anyhow::Result<Arc<Self>> {
        let memory = MachineMemory {
            memtable_bytes: settings.memtable_bytes,
            cache_bytes: settings.cache_bytes,
            records: settings.records_bytes,
        };
        let damage = Damage::watch_over(folder)?;
        let generations = Generations::open(folder.join("sm"))?;
        let number = generations.current()?;
        let path = generations.folder(number);
        let db = MachineDb::open(&path, memory, Arc::clone(&damage))?;
        let state = db.state();
        let leases = LeaseClock::default();
        leases.reset(db.leases());
        let tokens = ArcSwap::from_pointee(db.tokens());
        let mirrors = watch::Sender::new(Arc::new(db.mirrors()));
        let shares = Mutex::new(db.shares());
        let progress = Progress {
            applied_end: super::adapter::applied_end(&db),
            revision: state.revision,
            compacted: state.compacted,
        };
        let generation = Generation::new(number, db, path);
        Ok(Arc::new(Self {
            generations,
            current: ArcSwap::from_pointee(generation),
            memory,
            tokens,
            mirrors,
            revision: watch::Sender::new(progress.revision),
            progress: watch::Sender::new(progress),
            hub: Hub::new(state.revision, settings.ring_bytes),
            published: ArcSwap::from_pointee(state.clone()),
            shares,
            applying: Mutex::new(Applying {
                state,
                recent: RecentHeads::new(settings.heads_bytes),
            }),
            heads_bytes: settings.heads_bytes,
            leases,
            agreement: Agreement::default(),
            metrics,
            applied_bytes: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            begun: Mutex::default(),
            snapshots: super::snapshot::Snapshots::open(folder.join("snapshots"))?,
            damage,
        }))
    }

    /// The database that counts now; a reader keeps it while it reads.
    pub fn generation(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    pub fn state(&self) -> State {
        State::clone(&self.published.load())
    }

    /// What the cluster's clock said at the last apply.
    pub fn now_ms(&self) -> u64 {
        self.published.load().now_ms
    }

    /// As long as no leader has given the cluster its id and its tokens: those of a backup count no more. The tokens
    /// are new before this is over.
    pub fn is_being_made(&self) -> bool {
        self.published.load().cluster_id.is_empty()
    }

    /// Reads before this revision do not work any more, though that may not have been published yet.
    pub fn compacted(&self) -> u64 {
        self.published.load().compacted
    }

    pub fn tokens(&self) -> Arc<Tokens> {
        self.tokens.load_full()
    }

    /// What the answers that are kept for this owner take, as far as this node has applied.
    pub fn share_of(&self, owner: &str) -> u64 {
        self.shares.lock().expect(SHARES_POISON).of(owner)
    }

    #[cfg(test)]
    pub(crate) fn shares(&self) -> Shares {
        self.shares.lock().expect(SHARES_POISON).clone()
    }

    pub fn mirrors(&self) -> Arc<Mirrors> {
        Arc::clone(&self.mirrors.borrow())
    }

    pub fn mirrors_changing(&self) -> watch::Receiver<Arc<Mirrors>> {
        self.mirrors.subscribe()
    }

    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The revision of `progress`, for those whom an apply that makes none is not to wake.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    pub fn progress_now(&self) -> Progress {
        *self.progress.borrow()
    }

    /// The revision behind which this leader began, once that is applied here: no leader before has acknowledged more.
    pub fn revision_at_begin(&self, lead: Lead) -> Option<u64> {
        let begun = *self.begun.lock().expect(BEGUN_POISON);
        let begun = begun.filter(|begun| begun.lead == lead)?;
        Some(begun.revision)
    }

    fn note_begun(&self, begun: Option<Begun>) {
        *self.begun.lock().expect(BEGUN_POISON) = begun;
    }

    /// Applies committed entries, in order.
    pub fn apply(&self, items: Vec<Item>) -> anyhow::Result<Vec<Vec<Reply>>> {
        let mut items = items.into_iter();
        let mut replies = Vec::with_capacity(items.len());
        while !items.as_slice().is_empty() {
            replies.append(&mut self.apply_some(&mut items)?);
        }
        Ok(replies)
    }

    /// Applies the first of these entries as one atomic batch: all of them, unless that takes much memory.
    pub fn apply_some(&self, items: &mut IntoIter<Item>) -> anyhow::Result<Vec<Vec<Reply>>> {
        assert!(!items.as_slice().is_empty(), "a batch ends with some entry");
        let started = Instant::now();
        let generation = self.generation();
        let mut applying = self.applying.lock().expect(APPLYING_POISON);
        let tokens = self.tokens.load_full();
        let Applying { state, recent } = &mut *applying;
        let base = recent.over(generation.db());
        let mut draft = Draft::new(&base, state.clone(), Arc::clone(&tokens)).with_mirrors(self.mirrors());
        let decided = decide(&mut draft, items)?;
        self.applied_bytes.fetch_add(decided.bytes, Ordering::Relaxed);
        let Draft {
            state: new_state,
            tokens: new_tokens,
            mirrors: new_mirrors,
            effects,
            ..
        } = draft;
        for (id, lease) in &effects.leases {
            self.leases.changes(*id, lease.as_ref());
        }
        let membership = decided.membership.as_deref();
        generation
            .db()
            .write(&effects, &new_state, &decided.id, membership)?;
        self.shares.lock().expect(SHARES_POISON).learn(&effects.shares);
        if !Arc::ptr_eq(&tokens, &new_tokens) {
            self.tokens.store(new_tokens);
        }
        if !effects.mirrors.is_empty() {
            self.mirrors.send_replace(new_mirrors);
        }
        for (id, lease) in &effects.leases {
            self.leases.changed(*id, lease.as_ref());
        }
        recent.learn(&effects);
        self.agreement.learn(&effects.met);
        let concerned = self.hub.publish(effects.events);
        self.published.store(Arc::new(new_state.clone()));
        decided.begun.inspect(|begun| self.note_begun(Some(*begun)));
        decided.begun.inspect(|begun| self.leases.begin_anew(begun.lead));
        self.publish_progress(decided.index + 1, &new_state);
        concerned.wake();
        *state = new_state;
        self.metrics
            .apply_seconds
            .observe(started.elapsed().as_secs_f64());
        Ok(decided.replies)
    }

    fn publish_progress(&self, applied_end: u64, state: &State) {
        self.progress.send_replace(Progress {
            applied_end,
            revision: state.revision,
            compacted: state.compacted,
        });
        self.revision.send_if_modified(|revision| {
            let before = std::mem::replace(revision, state.revision);
            before != state.revision
        });
    }

    /// Replaces the whole state by the verified files in `received`.
    pub(crate) fn install(&self, received: &std::path::Path) -> anyhow::Result<()> {
        let mut applying = self.applying.lock().expect(APPLYING_POISON);
        let old = self.generation();
        let number = old.number + 1;
        let folder = self.generations.adopt(received, number)?;
        let db = MachineDb::open(&folder, self.memory, Arc::clone(&self.damage))?;
        if is_planted(Bug::AnswersLostOnSnapshot) {
            db.forget_answers()?;
        }
        self.generations.switch(number)?;
        let new_state = db.state();
        let applied_end = super::adapter::applied_end(&db);
        self.tokens.store(Arc::new(db.tokens()));
        self.mirrors.send_replace(Arc::new(db.mirrors()));
        *self.shares.lock().expect(SHARES_POISON) = db.shares();
        self.leases.reset(db.leases());
        self.agreement.forget();
        let concerned = self.hub.reset(new_state.revision);
        let generation = Generation::new(number, db, folder);
        self.current.store(Arc::new(generation));
        old.doom();
        self.published.store(Arc::new(new_state.clone()));
        self.note_begun(None);
        self.publish_progress(applied_end, &new_state);
        concerned.wake();
        applying.state = new_state;
        applying.recent = RecentHeads::new(self.heads_bytes);
        Ok(())
    }
}
