//! One prefix of a near cache: all its keys as of one revision.
//! Invariant: entries and revision change together, under one lock, and the revision only grows.
//! A shelf without entries (too large, or its watch refused) answers nothing, so that the store is asked.

use crate::call;
use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::keys::RangeRequest;
use crate::watch::{EventKind, WatchBatch, WatchEvent, WatchRequest};
use crate::wire::Revision;
use crate::wire::kv::KeyValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;
use tokio::time::Duration;

const RELOAD_PAUSE_MIN: Duration = Duration::from_millis(20);
const RELOAD_PAUSE_MAX: Duration = Duration::from_secs(2);
/// A linearizable read waits until the watch has seen the newest revision, whatever that one changed.
const PROGRESS: Duration = Duration::from_millis(3);
/// A prefix that did not fit is not read again and again just to find that out.
const TOO_LARGE_PAUSE: Duration = Duration::from_mins(1);
/// What an entry costs beside its key (held twice) and value.
const ENTRY_BYTES: usize = 160;

type Entries = BTreeMap<String, Arc<KeyValue>>;

/// Bytes that all shelves of a cache may hold together.
pub(super) struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
        }
    }

    /// Takes `more` in place of `less`; false, and nothing taken, if that is too much.
    fn exchange(&self, less: usize, more: usize) -> bool {
        let exchanged = self
            .bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
                let bytes = (bytes + more).checked_sub(less)?;
                (bytes <= self.bytes_max || more <= less).then_some(bytes)
            });
        exchanged.is_ok()
    }
}

pub(super) struct Shelf {
    prefix: String,
    state: RwLock<State>,
    seen: watch::Sender<Seen>,
    budget: Arc<Budget>,
}

/// What the outside may know without the lock.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    revision: Revision,
    held: bool,
}

/// Why following ended.
enum End {
    /// The watch can go on where it was.
    Lost,
    /// What is here is not enough to go on from.
    Stale,
}

struct State {
    /// `None`: ask the store.
    entries: Option<Entries>,
    revision: Revision,
    bytes: usize,
}

/// What a load found: everything, or that it is too much.
enum Loaded {
    All(Entries, usize),
    TooLarge,
}

impl Shelf {
    pub(super) fn new(prefix: String, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            prefix,
            state: RwLock::new(State {
                entries: None,
                revision: 0,
                bytes: 0,
            }),
            seen: watch::channel(Seen::default()).0,
            budget,
        })
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `None` when the store must be asked; `Some((None, …))` when there is no such key.
    pub(super) fn get(&self, key: &str) -> Option<(Option<Arc<KeyValue>>, Revision)> {
        let state = self.read();
        let found = state.entries.as_ref()?.get(key).cloned();
        Some((found, state.revision))
    }

    pub(super) fn range(&self, prefix: &str) -> Option<(Vec<Arc<KeyValue>>, Revision)> {
        let state = self.read();
        let from = state.entries.as_ref()?.range(prefix.to_owned()..);
        let within = from.take_while(|(key, _)| key.starts_with(prefix));
        Some((within.map(|(_, kv)| kv.clone()).collect(), state.revision))
    }

    /// The revision of its entries; `None` when it holds none.
    pub(super) fn revision(&self) -> Option<Revision> {
        let seen = *self.seen.borrow();
        seen.held.then_some(seen.revision)
    }

    /// Waits until the entries are of that revision, or the shelf holds none and the store answers anyway.
    pub(super) async fn wait_for(&self, revision: Revision) {
        let mut news = self.seen.subscribe();
        let reached = news
            .wait_for(|seen| !seen.held || seen.revision >= revision)
            .await
            .is_ok();
        debug_assert!(reached, "the shelf owns the sender, so it outlives this wait");
    }

    /// Reads everything at one revision and puts it in place of what was there.
    pub(super) async fn load(&self, client: &KvClient) -> Result<()> {
        let mut walk = client.pages(RangeRequest::prefix(&self.prefix));
        let mut entries = Entries::new();
        let mut bytes = 0;
        let mut revision = 0;
        while let Some(page) = walk.next().await? {
            revision = page.revision;
            for mut kv in page.kvs {
                // Later puts come without their lease, so no entry may pretend to know it.
                kv.lease = 0;
                bytes += bytes_of(&kv);
                entries.insert(kv.key.clone(), Arc::new(kv));
            }
            if bytes > self.budget.bytes_max {
                self.replace(Loaded::TooLarge, revision);
                return Ok(());
            }
        }
        self.replace(Loaded::All(entries, bytes), revision);
        Ok(())
    }

    /// Follows the prefix until dropped, loading anew whenever the thread is lost.
    pub(super) async fn follow(&self, client: &KvClient) {
        let mut pause = RELOAD_PAUSE_MIN;
        let mut followed = None;
        loop {
            let Some(revision) = self.revision() else {
                tracing::warn!(prefix = self.prefix, "prefix is not held near, the store answers");
                tokio::time::sleep(TOO_LARGE_PAUSE).await;
                self.reload(client).await;
                continue;
            };
            let end = self.follow_watch(client, revision, &mut followed).await;
            if self.revision() > Some(revision) {
                pause = RELOAD_PAUSE_MIN;
            }
            tokio::time::sleep(call::jitter(pause)).await;
            pause = (pause * 2).min(RELOAD_PAUSE_MAX);
            if matches!(end, End::Stale) {
                self.reload(client).await;
            }
        }
    }

    async fn reload(&self, client: &KvClient) {
        if let Err(error) = self.load(client).await {
            tracing::debug!(%error, prefix = self.prefix, "near cache not loaded anew yet");
        }
    }

    /// Applies what the watch brings until it ends. `followed` is whose changes came before.
    async fn follow_watch(
        &self,
        client: &KvClient,
        revision: Revision,
        followed: &mut Option<String>,
    ) -> End {
        let request = WatchRequest::prefix(&self.prefix)
            .after(revision)
            .progress(PROGRESS);
        let error = match client.watch(request).await {
            Err(error) => error,
            Ok(mut watch) => {
                let now = watch.cluster().map(str::to_owned);
                let before = followed.take();
                *followed = now.or_else(|| before.clone());
                if before.is_some() && before != *followed {
                    // Its revisions are others, and it may wait for ever until it has ours.
                    tracing::warn!(prefix = self.prefix, "another cluster answers by now");
                    self.let_go(&mut self.write());
                    return End::Stale;
                }
                loop {
                    match watch.next_batch().await {
                        Err(error) => break error,
                        Ok(batch) => {
                            if !self.apply(batch) {
                                return End::Stale;
                            }
                        }
                    }
                }
            }
        };
        tracing::debug!(%error, prefix = self.prefix, "near cache lost its watch");
        match error {
            Error::Unavailable { .. } => End::Lost,
            // A node that lags does not know our revision yet.
            error if error.code() == "future-revision" => End::Lost,
            Error::Compacted { .. } | Error::Protocol { .. } => End::Stale,
            _ => {
                // Refused: what is here may no longer be shown.
                self.let_go(&mut self.write());
                End::Stale
            }
        }
    }

    /// Takes over one revision. False if that is too much to hold.
    fn apply(&self, batch: WatchBatch) -> bool {
        let mut state = self.write();
        let mut bytes = state.bytes;
        let Some(entries) = &mut state.entries else {
            return false;
        };
        let before = bytes;
        for event in batch.events {
            let (key, now) = entry_of(event);
            let old = match now {
                Some(kv) => {
                    bytes += bytes_of(&kv);
                    entries.insert(key, kv)
                }
                None => entries.remove(&key),
            };
            bytes -= old.map_or(0, |kv| bytes_of(&kv));
        }
        let fits = self.budget.exchange(before, bytes);
        if fits {
            state.bytes = bytes;
        } else {
            self.let_go(&mut state);
        }
        self.advance(&mut state, batch.revision);
        fits
    }

    fn replace(&self, loaded: Loaded, revision: Revision) {
        let mut state = self.write();
        if revision < state.revision {
            // A load is a linearizable read: only a store restored from a backup can be older.
            tracing::warn!(prefix = self.prefix, revision, "the store went back in time");
            self.let_go(&mut state);
            return;
        }
        match loaded {
            Loaded::All(entries, bytes) if self.budget.exchange(state.bytes, bytes) => {
                state.entries = Some(entries);
                state.bytes = bytes;
            }
            _ => self.let_go(&mut state),
        }
        self.advance(&mut state, revision);
    }

    /// From here on the store answers.
    fn let_go(&self, state: &mut State) {
        self.budget.exchange(state.bytes, 0);
        state.entries = None;
        state.bytes = 0;
        let revision = state.revision;
        self.advance(state, revision);
    }

    /// Under the lock, so that nobody hears of a revision before its entries can be read.
    fn advance(&self, state: &mut State, revision: Revision) {
        state.revision = revision;
        self.seen.send_replace(Seen {
            revision,
            held: state.entries.is_some(),
        });
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry_of(event: WatchEvent) -> (String, Option<Arc<KeyValue>>) {
    let change = event.change;
    match event.kind {
        EventKind::Delete => (change.key, None),
        EventKind::Put => {
            let kv = KeyValue {
                key: change.key.clone(),
                value: Some(change.value.unwrap_or_default()),
                create_revision: change.create_revision,
                mod_revision: change.mod_revision,
                version: change.version,
                lease: 0,
            };
            (change.key, Some(Arc::new(kv)))
        }
    }
}

fn bytes_of(kv: &KeyValue) -> usize {
    2 * kv.key.len() + kv.value.as_ref().map_or(0, bytes::Bytes::len) + ENTRY_BYTES
}
