//! An actor in memory: a task with a bounded channel, which takes its letters in the order in which they were written.
//! Invariant: it acts on what the store has. When a step finds that state or letters are not what was read, it reads
//! both anew. It may end at any time, and whoever looks after its shard begins another.

use std::collections::{BTreeMap, VecDeque};

use kvstore_client::wire::Revision;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{RangeRequest, Txn, problem_of};
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::Item;
use crate::shop::Shop;
use crate::shop::checkout::jitter;
use crate::store::{Actor, CartRecord, OrderRecord, Post, write};

/// Letters that may wait in memory for an actor; further ones wait in the store alone.
pub(super) const CHANNEL: usize = 64;
/// An actor without letters is dropped after a while; the shelf of a product is wanted more often than an order.
const IDLE: Duration = Duration::from_secs(5);
const IDLE_INVENTORY: Duration = Duration::from_mins(1);
/// Of one mailbox at a time.
const LETTERS_READ: u32 = 256;
/// Letters that are remembered as done, since news of them may come late.
const DONE_MAX: usize = 4 * CHANNEL;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Ten failures are soon over: then a person can look.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Then a letter is one that nobody can do anything with.
const FAILURES_MAX: u32 = 10;

/// What an actor keeps between its letters, with the revision it was read at.
pub(super) enum State {
    Order(Option<Box<OrderRecord>>, Revision),
    Stock(i64, Revision),
    Cart(CartRecord, Revision),
}

/// How a step went.
pub(super) enum Stepped {
    Done,
    /// Something is not as it was read.
    Changed,
    /// What it needs cannot be reached: the first letter is tried again later.
    Later,
    /// The first letter asks for what cannot be.
    Failed(String),
}

pub(super) struct Runner {
    pub(super) shop: Shop,
    pub(super) actor: Actor,
    pub(super) state: Option<State>,
    letters: mpsc::Receiver<Item>,
    /// By when they were written.
    queue: BTreeMap<(Revision, String), Item>,
    done: VecDeque<(String, Revision)>,
    /// Whether the store may have letters that no news came of.
    missed: bool,
}

impl Runner {
    pub(super) fn new(shop: Shop, actor: Actor, letters: mpsc::Receiver<Item>) -> Self {
        Self {
            shop,
            actor,
            state: None,
            letters,
            queue: BTreeMap::new(),
            done: VecDeque::new(),
            missed: false,
        }
    }

    /// Until there is nothing to do for a while, or the shard is another's.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while !self.shop.tasks.is_stopping() {
            while let Ok(item) = self.letters.try_recv() {
                self.add(item);
            }
            let wait = match self.queue.values().next() {
                None if self.missed => {
                    self.reload().await;
                    continue;
                }
                None => self.idle(),
                Some(first) => pause_left(first.post.due_ms, now_ms()),
            };
            if !wait.is_zero() {
                let stop = self.shop.tasks.clone();
                let next = tokio::select! {
                    next = timeout(wait, self.letters.recv()) => next,
                    () = stop.stopping() => return,
                };
                match next {
                    Ok(Some(item)) => self.add(item),
                    Ok(None) => return,
                    // Whatever comes from here on goes to a new actor of this name.
                    Err(_elapsed) if self.queue.is_empty() => self.letters.close(),
                    Err(_elapsed) => {}
                }
                continue;
            }
            match self.step().await {
                Ok(()) => pause = PAUSE_MIN,
                Err(problem) => {
                    tracing::debug!(actor = ?self.actor, %problem, "an actor waits for the store");
                    let _stopping = timeout(jitter(pause), self.shop.tasks.stopping()).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    self.reload().await;
                }
            }
        }
    }

    fn idle(&self) -> Duration {
        if matches!(self.actor, Actor::Inventory { .. }) {
            IDLE_INVENTORY
        } else {
            IDLE
        }
    }

    fn add(&mut self, item: Item) {
        let known = self
            .done
            .iter()
            .any(|(key, revision)| *key == item.key && *revision >= item.revision);
        if known {
            return;
        }
        let place = (item.written, item.key.clone());
        let newer = self.queue.get(&place);
        if newer.is_none_or(|known| known.revision < item.revision) {
            self.queue.insert(place, item);
        }
    }

    /// State and letters as the store has them now; what is in memory may be wrong.
    async fn reload(&mut self) {
        self.state = None;
        self.queue.clear();
        let range = RangeRequest {
            limit: Some(LETTERS_READ),
            uncounted: true,
            ..RangeRequest::prefix(self.shop.store.keys.mailbox(&self.actor))
        };
        match self.shop.store.client.range(range).await {
            Ok(page) => {
                self.missed = page.more;
                let items = page.kvs.iter().filter_map(|kv| Item::of(kv).ok());
                self.queue = items
                    .map(|item| ((item.written, item.key.clone()), item))
                    .collect();
            }
            Err(error) => {
                tracing::debug!(%error, "an actor cannot read its mailbox");
                self.missed = true;
                let _stopping = timeout(PAUSE_MIN, self.shop.tasks.stopping()).await;
            }
        }
    }

    /// The letters that are due, in their order; none when the clock has gone back meanwhile.
    pub(super) fn due(&self, max: usize) -> Vec<Item> {
        let now_ms = now_ms();
        let is_due = |item: &&Item| pause_left(item.post.due_ms, now_ms).is_zero();
        let due = self.queue.values().take_while(is_due);
        due.take(max).cloned().collect()
    }

    async fn step(&mut self) -> Result<()> {
        let stepped = match self.act().await {
            // What cannot be is no reason to try the same for ever.
            Err(problem) if problem.kind == problem::INTERNAL => Stepped::Failed(problem.to_string()),
            other => other?,
        };
        match stepped {
            Stepped::Done => Ok(()),
            Stepped::Changed => {
                self.reload().await;
                Ok(())
            }
            Stepped::Later => {
                let Some(item) = self.queue.values().next().cloned() else {
                    return Ok(());
                };
                let waits = item.post.waits + 1;
                let post = Post {
                    waits,
                    due_ms: later(waits, PAUSE_MAX),
                    ..item.post.clone()
                };
                self.put_back(item, post).await
            }
            Stepped::Failed(error) => self.failed(error).await,
        }
    }

    async fn act(&mut self) -> Result<Stepped> {
        // A large future, and the one place where all kinds meet.
        match self.actor.clone() {
            Actor::Order { user, id } => Box::pin(self.act_as_order(&user, &id)).await,
            Actor::Inventory { product } => Box::pin(self.act_as_inventory(&product)).await,
            Actor::Card { user, id } => Box::pin(self.act_as_card(&user, &id)).await,
            Actor::Cart { user } => Box::pin(self.act_as_cart(&user)).await,
            Actor::Notify { user, id } => Box::pin(self.act_as_notify(&user, &id)).await,
        }
    }

    async fn failed(&mut self, error: String) -> Result<()> {
        self.state = None;
        let Some(item) = self.queue.values().next().cloned() else {
            return Ok(());
        };
        let failures = item.post.failures + 1;
        tracing::warn!(key = item.key, failures, error, "a letter failed");
        if failures >= FAILURES_MAX {
            self.shop
                .bury(&item.key, item.revision, &write(&item.post), &error)
                .await?;
            self.forget(&item);
            return Ok(());
        }
        let post = Post {
            failures,
            due_ms: later(failures, FAILURE_PAUSE_MAX),
            ..item.post.clone()
        };
        self.put_back(item, post).await
    }

    async fn put_back(&mut self, mut item: Item, post: Post) -> Result<()> {
        let txn = Txn::new()
            .when(Condition::unchanged(&item.key, item.revision))
            .then(Op::put(&item.key, write(&post)));
        let answer = self.shop.store.commit(txn).await?;
        if answer.branch != Branch::Then {
            self.reload().await;
            return Ok(());
        }
        item.revision = answer.revision;
        item.post = post;
        self.queue.insert((item.written, item.key.clone()), item);
        Ok(())
    }

    /// Commits a step that takes these letters. `None` when something is not as it was read.
    pub(super) async fn commit(&mut self, items: &[Item], txn: Txn) -> Result<Option<Revision>> {
        let txn = items.iter().fold(txn, |txn, item| item.taken(txn));
        self.shop.points.reach(decided(&self.actor)).await;
        let answer = self.shop.store.commit(txn).await?;
        self.shop.points.reach(written(&self.actor)).await;
        if answer.branch != Branch::Then {
            return Ok(None);
        }
        for item in items {
            self.forget(item);
        }
        Ok(Some(answer.revision))
    }

    fn forget(&mut self, item: &Item) {
        self.queue.remove(&(item.written, item.key.clone()));
        self.done.push_back((item.key.clone(), item.revision));
        if self.done.len() > DONE_MAX {
            self.done.pop_front();
        }
    }

    /// The value at a key of this actor's, with its revision; 0 when there is none.
    pub(super) async fn read<T>(
        &self,
        key: &str,
        value: impl FnOnce(&str, &[u8]) -> Result<T>,
    ) -> Result<(Option<T>, Revision)> {
        let kv = self.shop.store.client.get(key).await.map_err(problem_of)?;
        let Some(kv) = kv else { return Ok((None, 0)) };
        Ok((Some(value(&kv.key, &kv.bytes())?), kv.mod_revision))
    }
}

/// When what failed so often is tried again.
fn later(tries: u32, pause_max: Duration) -> u64 {
    let pause = PAUSE_MIN * 2_u32.saturating_pow(tries.saturating_sub(1).min(10));
    let pause = jitter(pause.min(pause_max));
    now_ms() + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}

/// How long a letter has still to wait. No pause is longer than the longest: what is due later than that was put off by
/// a clock that was ahead, and is due now.
fn pause_left(due_ms: u64, now_ms: u64) -> Duration {
    let left = Duration::from_millis(due_ms.saturating_sub(now_ms));
    if left > PAUSE_MAX { Duration::ZERO } else { left }
}

fn decided(actor: &Actor) -> &'static str {
    match actor {
        Actor::Order { .. } => "the order has decided",
        Actor::Inventory { .. } => "the inventory has decided",
        Actor::Card { .. } => "the card has decided",
        Actor::Cart { .. } => "the cart has decided",
        Actor::Notify { .. } => "the notice is due",
    }
}

fn written(actor: &Actor) -> &'static str {
    match actor {
        Actor::Order { .. } => "the order has written",
        Actor::Inventory { .. } => "the inventory has written",
        Actor::Card { .. } => "the card has written",
        Actor::Cart { .. } => "the cart has written",
        Actor::Notify { .. } => "the notice is written",
    }
}

/// A letter that does not fit to whom it was sent.
pub(super) fn misplaced(actor: &Actor) -> Problem {
    crate::store::inconsistent(&format!("this is no letter for the {}", actor.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_ahead_keeps_no_letter_waiting() {
        for (due_ms, left_ms) in [
            (0, 0),
            (10_000, 0),
            (10_001, 1),
            (15_000, 5000),
            (15_001, 0),
            (10_000 + 3_600_000, 0),
            (u64::MAX, 0),
        ] {
            let left = Duration::from_millis(left_ms);
            assert_eq!(pause_left(due_ms, 10_000), left, "{due_ms}");
        }
    }
}
