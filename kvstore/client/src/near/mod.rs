//! A near cache: chosen prefixes held in memory and kept coherent by watches.
//! Invariant: an answer is never older than the revision stated with it, and that of a shelf never goes back. What
//! the store was asked for may be newer than what the shelf answers next.
//! Each prefix is a shelf of its own; what a shelf cannot answer, the store does.

mod asker;
mod shelf;

use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::keys::ReadOptions;
use crate::wire::Revision;
use crate::wire::kv::KeyValue;
use asker::Asker;
use service::tasks::Tasks;
use shelf::{Budget, Shelf};
use std::sync::Arc;
use tokio::time::{Duration, Instant, timeout, timeout_at};

/// A shelf that is behind for longer is not waited for: the store itself answers.
const WAIT_MAX: Duration = Duration::from_millis(20);
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// For the store, where learning how new the newest is has taken all of a call's time.
const LAST_TRY: Duration = Duration::from_millis(100);

/// How fresh a cached answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// What is here, as of the revision stated with it.
    Cached,
    /// Sees every write acknowledged before the read began.
    Linearizable,
    /// Sees that revision, for instance one's own last write.
    AtLeast(Revision),
}

/// An answer, and the revision that it is not older than.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached<T> {
    pub value: T,
    pub revision: Revision,
    /// False when the store had to be asked for the value.
    pub hit: bool,
}

/// Cheap to clone. When the last clone goes, the watches end.
#[derive(Clone)]
pub struct NearCache {
    inner: Arc<Inner>,
}

struct Inner {
    client: KvClient,
    shelves: Vec<Arc<Shelf>>,
    asker: Asker,
    tasks: Tasks,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl NearCache {
    /// Loads all keys of the prefixes and follows them from there, within 64 MiB.
    pub async fn open<T: Into<String>>(
        client: &KvClient,
        prefixes: impl IntoIterator<Item = T>,
    ) -> Result<Self> {
        Self::open_within(client, prefixes, BYTES_MAX).await
    }

    /// A prefix that does not fit in what the others leave of `bytes_max` is not held: the store answers for it.
    pub async fn open_within<T: Into<String>>(
        client: &KvClient,
        prefixes: impl IntoIterator<Item = T>,
        bytes_max: usize,
    ) -> Result<Self> {
        let client = client.with_own_keys();
        let tasks = client.tasks().child();
        let budget = Arc::new(Budget::new(bytes_max));
        let shelves = prefixes.into_iter();
        let shelves: Vec<_> = shelves
            .map(|prefix| Shelf::new(prefix.into(), budget.clone()))
            .collect();
        for shelf in &shelves {
            shelf.load(&client).await?;
        }
        for shelf in &shelves {
            let (shelf, client, stop) = (shelf.clone(), client.clone(), tasks.clone());
            tasks.spawn("near cache", async move {
                tokio::select! {
                    () = shelf.follow(&client) => {}
                    () = stop.stopping() => {}
                }
            });
        }
        let asker = Asker::start(&client, &tasks);
        let inner = Inner {
            client,
            shelves,
            asker,
            tasks,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// One key. Its `lease` is 0, since watches do not tell leases, unless the store had to be asked.
    pub async fn get(&self, key: &str, freshness: Freshness) -> Result<Cached<Option<Arc<KeyValue>>>> {
        let shelf = self.shelf_of(key)?;
        let until = Instant::now() + self.inner.client.deadline();
        if self.reach(shelf, freshness, until).await
            && let Some((value, revision)) = shelf.get(key)
        {
            return Ok(Cached {
                value,
                revision,
                hit: true,
            });
        }
        let read = self.store(until).read(key, ReadOptions::default()).await?;
        Ok(Cached {
            value: read.kv.map(Arc::new),
            revision: read.revision,
            hit: false,
        })
    }

    /// All keys below a prefix, of one revision, in order.
    pub async fn range(&self, prefix: &str, freshness: Freshness) -> Result<Cached<Vec<Arc<KeyValue>>>> {
        let shelf = self.shelf_of(prefix)?;
        let until = Instant::now() + self.inner.client.deadline();
        if self.reach(shelf, freshness, until).await
            && let Some((value, revision)) = shelf.range(prefix)
        {
            return Ok(Cached {
                value,
                revision,
                hit: true,
            });
        }
        let scan = self.store(until).scan(prefix).await?;
        Ok(Cached {
            value: scan.kvs.into_iter().map(Arc::new).collect(),
            revision: scan.revision,
            hit: false,
        })
    }

    /// No cached answer is older than this: the revision of the shelf that is furthest behind; 0 when none is held.
    pub fn revision(&self) -> Revision {
        let revisions = self.inner.shelves.iter();
        revisions.filter_map(|shelf| shelf.revision()).min().unwrap_or(0)
    }

    /// Waits until every shelf has seen `revision`. The deadline is the caller's. Cancel-safe.
    pub async fn wait_for(&self, revision: Revision) {
        for shelf in &self.inner.shelves {
            shelf.wait_for(revision).await;
        }
    }

    fn shelf_of(&self, key: &str) -> Result<&Shelf> {
        let mut shelves = self.inner.shelves.iter();
        let found = shelves.find(|shelf| key.starts_with(shelf.prefix()));
        found.map(Arc::as_ref).ok_or_else(|| Error::Invalid {
            detail: format!("{key:?} is outside of the prefixes that this cache was opened for"),
        })
    }

    /// To be asked in what is left of a call's time; once at least.
    fn store(&self, until: Instant) -> KvClient {
        let left = until.saturating_duration_since(Instant::now());
        self.inner.client.with_deadline(left.max(LAST_TRY))
    }

    /// Whether the shelf is now as fresh as that.
    async fn reach(&self, shelf: &Shelf, freshness: Freshness, until: Instant) -> bool {
        if shelf.revision().is_none() {
            return false;
        }
        let revision = match freshness {
            Freshness::Cached => return true,
            Freshness::AtLeast(revision) => revision,
            Freshness::Linearizable => match timeout_at(until, self.inner.asker.ask()).await {
                Ok(Some(revision)) => revision,
                Ok(None) | Err(_) => return false,
            },
        };
        // A shelf that holds nothing compares as older than any revision.
        shelf.revision() >= Some(revision)
            || (timeout(WAIT_MAX, shelf.wait_for(revision)).await.is_ok()
                && shelf.revision() >= Some(revision))
    }
}

impl std::fmt::Debug for NearCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let prefixes = self.inner.shelves.iter().map(|shelf| shelf.prefix());
        formatter
            .debug_struct("NearCache")
            .field("prefixes", &prefixes.collect::<Vec<_>>())
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}
