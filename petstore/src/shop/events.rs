//! What changes, for pages that are open: one watch of the store for all of them, as long as there are any.
//! Invariant: whoever names the revision that was seen last gets everything after it, once and in order, on whichever
//! instance; carts and orders go to their owner alone, as long as their session lasts. Who reads too slowly is cut off,
//! and so is everybody when the watch has ended and another has begun: they come back with that name.

use std::sync::Arc;

use kvstore_client::wire::Revision;
use kvstore_client::{KvClient, WatchRequest, WatchStream, problem_of};
use service::problem::{self, Problem, Result};
use service::tasks::Tasks;
use tokio::sync::{Notify, OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Duration, sleep_until, timeout};

use super::Shop;
use super::changes::{Batch, Event, told};
use super::sessions::Held;
use crate::domain::UserId;
use crate::store::{Keys, Store};

/// Batches that may wait for a slow reader.
const WAITING_MAX: usize = 1024;
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// A stream begins when the watch behind it does, or not at all.
const BEGIN_MAX: Duration = Duration::from_secs(5);

/// Everything that this watch sees after this revision is broadcast.
#[derive(Clone, Copy, Debug)]
struct Position {
    watch: u64,
    revision: Revision,
}

pub(crate) struct Hub {
    batches: broadcast::Sender<Arc<Batch>>,
    wanted: Arc<Notify>,
    /// `None` while nothing is broadcast.
    position: watch::Receiver<Option<Position>>,
}

impl Hub {
    pub(super) fn start(store: &Store, tasks: &Tasks) -> Self {
        let (batches, _) = broadcast::channel(WAITING_MAX);
        let wanted = Arc::new(Notify::new());
        let (position_tx, position) = watch::channel(None);
        let feeder = Feeder {
            store: store.clone(),
            batches: batches.clone(),
            wanted: wanted.clone(),
            position: position_tx,
        };
        let stop = tasks.clone();
        tasks.spawn("events", async move {
            tokio::select! {
                () = feeder.run() => {}
                () = stop.stopping() => {}
            }
        });
        Self {
            batches,
            wanted,
            position,
        }
    }
}

struct Feeder {
    store: Store,
    batches: broadcast::Sender<Arc<Batch>>,
    wanted: Arc<Notify>,
    position: watch::Sender<Option<Position>>,
}

impl Feeder {
    async fn run(self) {
        let mut watch = 0;
        loop {
            if self.batches.receiver_count() == 0 {
                self.wanted.notified().await;
                continue;
            }
            watch += 1;
            if let Err(error) = self.feed(watch).await {
                tracing::debug!(%error, "nothing is broadcast to pages for a while");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            self.position.send_replace(None);
        }
    }

    /// Broadcasts as long as somebody listens.
    async fn feed(&self, watch: u64) -> kvstore_client::Result<()> {
        let revision = self.store.client.revision().await?;
        let mut stream = follow(&self.store.client, &self.store.keys, revision).await?;
        self.position.send_replace(Some(Position { watch, revision }));
        while self.batches.receiver_count() > 0 {
            let batch = stream.next_batch().await?;
            let batch = Arc::new(told(&self.store.keys, watch, batch));
            let revision = batch.revision;
            // The position first: whoever begins in between would count on a batch that has gone by already.
            self.position.send_replace(Some(Position { watch, revision }));
            if self.batches.send(batch).is_err() {
                tracing::trace!("the last page has gone");
            }
        }
        Ok(())
    }
}

async fn follow(client: &KvClient, keys: &Keys, after: Revision) -> kvstore_client::Result<WatchStream> {
    client.watch(WatchRequest::prefix(keys.live()).after(after)).await
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Now,
    Revision(Revision),
}

/// What one page is told.
pub(crate) struct EventStream {
    shop: Shop,
    user: Option<UserId>,
    /// With whose end the stream ends.
    session: Option<Held>,
    source: Source,
    seen: Revision,
    _place: OwnedSemaphorePermit,
}

/// Where batches come from: the store's past up to where the broadcast begins, and then the broadcast.
struct Source {
    past: Option<(WatchStream, Revision)>,
    batches: broadcast::Receiver<Arc<Batch>>,
    watch: u64,
}

impl Source {
    /// `None` when one cannot be sure to hear of everything any longer. Cancel-safe.
    async fn next(&mut self, keys: &Keys) -> Option<Arc<Batch>> {
        let Some((past, until)) = &mut self.past else {
            let batch = self.batches.recv().await.ok()?;
            // What happened between two watches was broadcast by neither.
            return (batch.watch == self.watch).then_some(batch);
        };
        let batch = past.next_batch().await.ok()?;
        if batch.revision >= *until {
            self.past = None;
        }
        Some(Arc::new(told(keys, self.watch, batch)))
    }
}

/// The events of one revision that this page may see; there may be none.
pub(crate) struct Told {
    pub(crate) revision: Revision,
    pub(crate) events: Vec<Event>,
}

impl Shop {
    /// For somebody who is signed in, `token` is that of their session.
    pub(crate) async fn follow(
        &self,
        user: Option<UserId>,
        since: Since,
        token: Option<&[u8]>,
    ) -> Result<EventStream> {
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            return Err(Problem::new(
                problem::TOO_MANY_WATCHERS,
                "As many pages are followed here as can be.",
            ));
        };
        let batches = self.events.batches.subscribe();
        self.events.wanted.notify_one();
        let mut position = self.events.position.clone();
        let begun = timeout(BEGIN_MAX, position.wait_for(Option::is_some)).await;
        let begins = begun.ok().and_then(|begun| *begun.ok()?);
        let begins = begins
            .ok_or_else(|| Problem::new(problem::NOT_READY, "The store cannot be followed at the moment."))?;
        // Looked at once more, from here on its end is seen.
        let session = match token {
            Some(token) => Some(self.held(token).await?),
            None => None,
        };
        let seen = match since {
            Since::Now => begins.revision,
            Since::Revision(revision) => revision,
        };
        if seen > begins.revision {
            self.must_have_been(seen).await?;
        }
        let past = if seen < begins.revision {
            let watch = follow(&self.store.client, &self.store.keys, seen)
                .await
                .map_err(problem_of)?;
            Some((watch, begins.revision))
        } else {
            None
        };
        Ok(EventStream {
            shop: self.clone(),
            user,
            session,
            source: Source {
                past,
                batches,
                watch: begins.watch,
            },
            seen,
            _place: place,
        })
    }

    /// Another instance may have told more than is broadcast here. What the store itself has not come to was told
    /// before it was restored to an earlier moment, and whoever waited for more would hear nothing until it gets there
    /// again.
    async fn must_have_been(&self, seen: Revision) -> Result<()> {
        let newest = self.store.client.revision().await.map_err(problem_of)?;
        if seen > newest {
            return Err(Problem::new(
                problem::COMPACTED,
                "The store is not as far as this page has seen: it went back to an earlier moment. Load the page anew.",
            ));
        }
        Ok(())
    }
}

impl EventStream {
    pub(crate) fn seen(&self) -> Revision {
        self.seen
    }

    /// What comes next; `None` when the page should come back with the revision it saw last. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            let batch = tokio::select! {
                batch = self.source.next(&self.shop.store.keys) => batch?,
                () = self.shop.closing.stopping() => return None,
                () = over(self.session.as_ref()) => return None,
            };
            let session = self.session.as_ref();
            if session.is_some_and(|session| batch.ended.contains(&session.key)) {
                return None;
            }
            if batch.revision > self.seen {
                return Some(self.take(&batch));
            }
        }
    }

    fn take(&mut self, batch: &Batch) -> Told {
        self.seen = batch.revision;
        let mine = |event: &&Event| {
            event.audience.is_none() || event.audience.as_deref() == self.user.as_ref().map(UserId::as_str)
        };
        Told {
            revision: batch.revision,
            events: batch.events.iter().filter(mine).cloned().collect(),
        }
    }
}

/// Waits until the time of a session is over.
async fn over(session: Option<&Held>) {
    match session {
        Some(session) => sleep_until(session.ends).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(watch: u64, revision: Revision) -> Arc<Batch> {
        Arc::new(Batch {
            watch,
            revision,
            events: Vec::new(),
            ended: Vec::new(),
        })
    }

    #[tokio::test]
    async fn a_stream_ends_where_another_watch_begins() {
        let keys = Keys::of_shop("one");
        let (sender, batches) = broadcast::channel(8);
        let mut source = Source {
            past: None,
            batches,
            watch: 1,
        };
        for one in [batch(1, 7), batch(2, 9)] {
            sender.send(one).unwrap();
        }
        assert_eq!(source.next(&keys).await.unwrap().revision, 7);
        assert!(source.next(&keys).await.is_none());
    }
}
