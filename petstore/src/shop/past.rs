//! Past catalogues, for walks under way: remembered here, or read once more.
//! Invariant: however many ask for the same one, it is read once at a time, as long as anybody waits for it; and of all
//! of them only a few are read at the same time. It must not know where they are read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};
use kvstore_client::wire::Revision;
use service::problem::{self, Problem, Result};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Duration, timeout};

use super::shelf::Shelf;

/// Past shelves that walks under way may still ask for.
const REMEMBERED_MAX: usize = 16;
/// Each of them takes the whole catalogue through the store and into memory.
const READ_AT_ONCE: usize = 4;
/// How long one more waits for a place among them.
const PATIENCE: Duration = Duration::from_secs(2);

type Reading = BoxFuture<'static, Result<Arc<Shelf>>>;

pub(super) struct Past {
    state: Mutex<State>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    shelves: VecDeque<Arc<Shelf>>,
    /// They go when nobody waits for them any more.
    readings: HashMap<Revision, WeakShared<Reading>>,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            places: Arc::new(Semaphore::new(READ_AT_ONCE)),
        }
    }
}

impl Past {
    pub(super) fn known(&self, revision: Revision) -> Option<Arc<Shelf>> {
        let state = self.lock();
        let found = state.shelves.iter().find(|shelf| shelf.revision == revision);
        found.cloned()
    }

    /// Keeps a shelf for the next page of a walk that began on it.
    pub(super) fn remember(&self, shelf: &Arc<Shelf>) {
        let mut state = self.lock();
        if state.shelves.iter().any(|past| past.revision == shelf.revision) {
            return;
        }
        state.shelves.push_back(shelf.clone());
        while state.shelves.len() > REMEMBERED_MAX {
            state.shelves.pop_front();
        }
    }

    /// Waits for the one of this revision, which is read in this way unless it is being read already.
    pub(super) async fn read(
        &self,
        revision: Revision,
        read: impl Future<Output = Result<Arc<Shelf>>> + Send + 'static,
    ) -> Result<Arc<Shelf>> {
        let under_way = {
            let mut state = self.lock();
            let known = state.readings.get(&revision).and_then(WeakShared::upgrade);
            known.unwrap_or_else(|| {
                let places = self.places.clone();
                let reading: Reading = Box::pin(async move {
                    let _place = place(&places).await?;
                    read.await
                });
                let reading = reading.shared();
                state.readings.retain(|_, reading| reading.upgrade().is_some());
                state
                    .readings
                    .extend(reading.downgrade().map(|weak| (revision, weak)));
                reading
            })
        };
        let shelf = under_way.await?;
        self.remember(&shelf);
        Ok(shelf)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>> {
    match timeout(PATIENCE, places.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(Problem::new(
            problem::OVERLOADED,
            "Too many go on with lists that began a while ago. Ask again shortly, or begin with the first page.",
        )
        .retry_after_ms(1000)),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;
    use crate::shop::shelf::Memo;
    use crate::store::Keys;

    /// Shelves that are read once the gate lets them; and how often that was begun.
    struct Shelves {
        past: Past,
        gate: Arc<Semaphore>,
        begun: Arc<AtomicUsize>,
    }

    impl Shelves {
        fn new() -> Self {
            Self {
                past: Past::default(),
                gate: Arc::new(Semaphore::new(0)),
                begun: Arc::default(),
            }
        }

        async fn read(&self, revision: Revision) -> Revision {
            let (gate, begun) = (self.gate.clone(), self.begun.clone());
            let reading = self.past.read(revision, async move {
                begun.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
                let nothing = std::iter::empty();
                Shelf::of(&Keys::of_shop("one"), nothing, revision, &mut Memo::new()).map(Arc::new)
            });
            reading.await.unwrap().revision
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn who_asks_for_the_same_waits_for_the_same_reading() {
        let shelves = Shelves::new();
        let mut all = pin!(join_all((0..8).map(|_| shelves.read(7))));
        assert!(all.as_mut().now_or_never().is_none());
        shelves.gate.add_permits(1);
        assert_eq!((all.await, shelves.begun()), (vec![7; 8], 1));
        assert_eq!(shelves.past.known(7).unwrap().revision, 7);
    }

    #[tokio::test]
    async fn whoever_hangs_up_leaves_the_reading_to_the_others() {
        let shelves = Shelves::new();
        let mut other = pin!(shelves.read(7));
        {
            let mut first = pin!(shelves.read(7));
            assert!(first.as_mut().now_or_never().is_none());
            assert!(other.as_mut().now_or_never().is_none());
        }
        shelves.gate.add_permits(1);
        assert_eq!((other.await, shelves.begun()), (7, 1));
        // Once all have hung up there is nothing to wait for.
        assert!(shelves.read(8).now_or_never().is_none());
        shelves.gate.add_permits(1);
        assert_eq!((shelves.read(8).await, shelves.begun()), (8, 3));
    }

    #[tokio::test]
    async fn only_a_few_are_read_at_the_same_time() {
        let shelves = Shelves::new();
        let wanted: Vec<Revision> = (1..=3 * READ_AT_ONCE as u64).collect();
        let mut all = pin!(join_all(wanted.iter().map(|revision| shelves.read(*revision))));
        assert!(all.as_mut().now_or_never().is_none());
        assert_eq!(shelves.begun(), READ_AT_ONCE);
        shelves.gate.add_permits(wanted.len());
        assert_eq!(all.await, wanted);
    }
}
