//! The post office of an instance: brings the letters of its shards to actors in memory, and delivers what is due.
//! Invariant: news may be lost, doubled or late; every letter of a shard of ours is looked at again after a while, so
//! none is forgotten. What is in memory is bounded: so many actors, so many letters for each.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Condition, Op};
use kvstore_client::wire::watch::Change;
use kvstore_client::{EventKind, RangeRequest, Txn, WatchBatch, WatchRequest, problem_of};
use service::problem::{Problem, Result};
use service::time::now_ms;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, MissedTickBehavior, interval, timeout};

use super::Item;
use super::actor::{CHANNEL, Runner};
use super::wait::Waiting;
use crate::shop::Shop;
use crate::store::{Actor, Post, SHARDS, read};

const PAGE_ROWS: u32 = 1000;
/// Letters that become due at the same time are delivered in portions.
const TIMERS_READ: u32 = 100;
const RETRY_PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct Office {
    /// The shards this instance looks after.
    pub(super) mine: watch::Sender<BTreeSet<u8>>,
    actors: Mutex<HashMap<Actor, mpsc::Sender<Item>>>,
    pub(super) waiting: Mutex<Waiting>,
}

enum Next {
    Batch(WatchBatch),
    LookAgain,
    Stop,
}

impl Office {
    pub(crate) fn new() -> Self {
        Self {
            mine: watch::Sender::new(BTreeSet::new()),
            actors: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn is_mine(&self, shard: u8) -> bool {
        self.mine.borrow().contains(&shard)
    }

    /// Drops the actors that have ended, and those of shards that are others' now.
    fn tidy(&self) {
        let mine = self.mine.borrow().clone();
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        actors.retain(|actor, letters| !letters.is_closed() && mine.contains(&actor.shard()));
    }
}

impl Shop {
    /// Brings letters to actors until told to stop.
    pub(crate) async fn deliver_until_stopped(&self) {
        while !self.tasks.is_stopping() {
            if let Err(problem) = self.deliver().await {
                tracing::debug!(%problem, "letters wait in the store");
                let _stopping = timeout(RETRY_PAUSE, self.tasks.stopping()).await;
            }
        }
    }

    async fn deliver(&self) -> Result<()> {
        let client = &self.store.client;
        let revision = client.revision().await.map_err(problem_of)?;
        let request = WatchRequest::prefix(self.store.keys.all_mail()).after(revision);
        let mut watch = client.watch(request).await.map_err(problem_of)?;
        let mut mine = self.office.mine.subscribe();
        mine.mark_changed();
        let mut every = interval(Duration::from_millis(self.config.adopt_every_ms));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                batch = watch.next_batch() => Next::Batch(batch.map_err(problem_of)?),
                _changed = mine.changed() => Next::LookAgain,
                _tick = every.tick() => Next::LookAgain,
                () = self.tasks.stopping() => Next::Stop,
            };
            match next {
                Next::Batch(batch) => {
                    for event in batch.events {
                        if event.kind == EventKind::Put {
                            self.hand_over(&as_read(event.change)).await?;
                        }
                    }
                }
                Next::LookAgain => {
                    self.office.tidy();
                    self.deliver_due().await?;
                    self.look_again().await?;
                }
                Next::Stop => return Ok(()),
            }
        }
    }

    /// All letters there are, since what brings news of them may have missed some, or found no room.
    async fn look_again(&self) -> Result<()> {
        let mut walk = self.store.client.pages(RangeRequest {
            limit: Some(PAGE_ROWS),
            ..RangeRequest::prefix(self.store.keys.all_mail())
        });
        while let Some(page) = walk.next().await.map_err(problem_of)? {
            for kv in &page.kvs {
                self.hand_over(kv).await?;
            }
        }
        Ok(())
    }

    async fn hand_over(&self, kv: &KeyValue) -> Result<()> {
        let shard = kv.key.strip_prefix(&self.store.keys.all_mail());
        let shard = shard
            .and_then(|rest| rest.get(..2))
            .and_then(|shard| shard.parse().ok());
        if !shard.is_some_and(|shard: u8| shard < SHARDS && self.office.is_mine(shard)) {
            return Ok(());
        }
        match Item::of(kv) {
            Ok(item) => {
                self.wake(item);
                Ok(())
            }
            Err(problem) => self.bury_unreadable(kv, &problem).await,
        }
    }

    async fn bury_unreadable(&self, kv: &KeyValue, problem: &Problem) -> Result<()> {
        let error = format!("it cannot be read: {problem}");
        self.bury(&kv.key, kv.mod_revision, &kv.bytes(), &error).await
    }

    /// Tells the actor, which is begun if it is not there. Without room the letter is found again later.
    fn wake(&self, item: Item) {
        let mut actors = self.office.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let actor = item.post.to.clone();
        let mut item = item;
        if let Some(letters) = actors.get(&actor) {
            match letters.try_send(item) {
                // What a full channel cannot take is found again later.
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => return,
                Err(mpsc::error::TrySendError::Closed(back)) => item = back,
            }
        } else if actors.len() >= self.config.actors_max {
            return;
        }
        let (letters_tx, letters) = mpsc::channel(CHANNEL);
        let runner = Runner::new(self.clone(), actor.clone(), letters);
        if letters_tx.try_send(item).is_ok() {
            self.tasks.spawn("actor", Box::pin(runner.run()));
            actors.insert(actor, letters_tx);
        }
    }

    /// Puts letters whose time has come into the mailboxes they are meant for.
    async fn deliver_due(&self) -> Result<()> {
        let keys = &self.store.keys;
        let range = RangeRequest {
            from: Some(keys.timers()),
            to: Some(keys.timers_before(now_ms())),
            limit: Some(TIMERS_READ),
            uncounted: true,
            ..RangeRequest::default()
        };
        let page = self.store.client.range(range).await.map_err(problem_of)?;
        for kv in &page.kvs {
            let post: Post = match read(&kv.key, &kv.bytes()) {
                Ok(post) => post,
                // Nobody knows whose it is, and all that is due later would wait for it, on every instance.
                Err(problem) => {
                    self.bury_unreadable(kv, &problem).await?;
                    continue;
                }
            };
            if !self.office.is_mine(post.to.shard()) {
                continue;
            }
            let txn = Txn::new()
                .when(Condition::unchanged(&kv.key, kv.mod_revision))
                .then(Op::delete(&kv.key))
                .then(Op::put(&keys.letter(&post.to, "late"), kv.bytes()));
            self.store.commit(txn).await?;
        }
        Ok(())
    }
}

/// A change as a read would have shown it.
fn as_read(change: Change) -> KeyValue {
    KeyValue {
        key: change.key,
        value: change.value,
        create_revision: change.create_revision,
        mod_revision: change.mod_revision,
        version: change.version,
        lease: 0,
    }
}
