//! For whoever ordered: what became of it, from memory where the order's actor is here, else from the store.
//! Invariant: nobody's order hangs on whether somebody waits for it, and those who wait, however many they are, leave
//! the watches of the store to whom they are needed more.

use std::collections::HashMap;
use std::sync::PoisonError;

use kvstore_client::wire::Revision;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{EventKind, RangeRequest, Txn, WatchRequest, WatchStream, problem_of};
use service::problem::{self, Problem, Result};
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::Office;
use crate::domain::{OrderId, UserId};
use crate::shop::Shop;
use crate::shop::checkout::{Found, is_untold, or_last_known};
use crate::store::{Actor, Letter, OrderRecord, Phase, Post, Refusal, inconsistent, read, write};

/// So long memory alone is trusted to bring the news before the store is asked too.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of an order.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// The goods are there, and it is being paid.
    Reserved(Found),
    Ended(Found),
    Refused(OrderId, Refusal),
}

pub(super) type Waiting = HashMap<OrderId, watch::Sender<Option<News>>>;

/// As long as it lives, news of an order come here.
struct Listening<'office> {
    office: &'office Office,
    id: OrderId,
    news: watch::Receiver<Option<News>>,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut waiting = self.office.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.id);
    }
}

/// A watch of the store, and its place among those of all who wait here.
struct Following<'shop> {
    watch: WatchStream,
    _place: SemaphorePermit<'shop>,
}

impl Office {
    fn listen(&self, id: &OrderId) -> Listening<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let news = watch::Sender::new(None);
        let listening = news.subscribe();
        waiting.insert(id.clone(), news);
        Listening {
            office: self,
            id: id.clone(),
            news: listening,
        }
    }

    pub(super) fn tell(&self, news: News) {
        let id = match &news {
            News::Reserved(found) | News::Ended(found) => &found.id,
            News::Refused(id, _) => id,
        };
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.get(id) {
            waiting.send_replace(Some(news));
        }
    }
}

impl Refusal {
    fn problem(self) -> Problem {
        let kind = problem::by_code(&self.code).unwrap_or(problem::INTERNAL);
        let mut problem = Problem::new(kind, self.detail);
        problem.extra = self.extra;
        problem
    }
}

/// Whether whoever does not wait for the end has heard enough.
fn is_reserved(record: &OrderRecord) -> bool {
    let paying = |phase: &Phase| !matches!(phase, Phase::Gathering | Phase::TakingCart | Phase::Refusing(_));
    record.errand.as_ref().is_none_or(|errand| paying(&errand.phase))
}

impl Shop {
    /// Waits for the end of an order that was just written down, or only until its goods are reserved.
    pub(crate) async fn wait_by_mail(&self, found: Found, to_end: bool, until: Instant) -> Result<Found> {
        let mut listening = self.office.listen(&found.id);
        let enough = |news: &Option<News>| match news {
            None => false,
            Some(News::Reserved(_)) => !to_end,
            Some(News::Ended(_) | News::Refused(..)) => true,
        };
        let done = |record: &OrderRecord| record.status.is_ended() || !to_end && is_reserved(record);
        let from_memory = async {
            let heard = listening.news.wait_for(enough).await.map(|news| news.clone());
            match heard {
                Ok(Some(News::Reserved(found) | News::Ended(found))) => Ok(found),
                Ok(Some(News::Refused(_, refusal))) => Err(refusal.problem()),
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let from_store = async {
            sleep(PATIENCE).await;
            let ended = Box::pin(self.watch_until(found.clone(), done)).await;
            or_last_known(ended, found.clone())
        };
        let told = async {
            tokio::select! {
                told = from_memory => told,
                told = from_store => told,
            }
        };
        match timeout_at(until, told).await {
            Ok(told) => told,
            Err(_elapsed) => or_last_known(self.found_order(&found.user, &found.id).await, found),
        }
    }

    /// Follows a key for somebody who waits. A node serves so many watches, and the near caches, the gateways and the
    /// mirrors cannot do without theirs, so that one who finds no place here waits for it, as long as there is time.
    async fn follow_key(&self, key: &str, after: Revision) -> Result<Following<'_>> {
        let place = self.waits.acquire().await.expect("nobody closes it");
        let request = WatchRequest::key(key).after(after);
        let watch = self.store.client.watch(request).await.map_err(problem_of)?;
        Ok(Following { watch, _place: place })
    }

    /// Follows an order until it is like this.
    pub(crate) async fn watch_until(
        &self,
        found: Found,
        done: impl Fn(&OrderRecord) -> bool + Copy,
    ) -> Result<Found> {
        match Box::pin(self.watch_since(&found, found.revision, done)).await {
            Err(problem) if problem.kind == problem::COMPACTED => {}
            told => return told,
        }
        // It has stood still for longer than the store remembers, so what it is now is all there is to go on from.
        let now = self.store.client.revision().await.map_err(problem_of)?;
        let found = self.found_or_refused(&found).await?;
        if done(&found.record) {
            return Ok(found);
        }
        Box::pin(self.watch_since(&found, now, done)).await
    }

    async fn watch_since(
        &self,
        found: &Found,
        revision: Revision,
        done: impl Fn(&OrderRecord) -> bool,
    ) -> Result<Found> {
        let key = self.store.keys.order(&found.user, &found.id);
        let mut following = self.follow_key(&key, revision).await?;
        loop {
            let event = following.watch.next().await.map_err(problem_of)?;
            if event.kind == EventKind::Delete {
                return Err(self.why_gone(&found.user, &found.id).await?);
            }
            let record: OrderRecord = read(&key, &event.change.value.unwrap_or_default())?;
            if done(&record) {
                return Ok(Found {
                    record,
                    revision: event.revision,
                    ..found.clone()
                });
            }
        }
    }

    /// The order as it stands, or why it is gone.
    async fn found_or_refused(&self, found: &Found) -> Result<Found> {
        match self.found_order(&found.user, &found.id).await {
            Err(gone) if gone.kind == problem::ORDER_NOT_FOUND => {
                Err(self.why_gone(&found.user, &found.id).await?)
            }
            told => told,
        }
    }

    /// An order that is gone was refused.
    async fn why_gone(&self, user: &UserId, id: &OrderId) -> Result<Problem> {
        let told = self.notice(user, id).await?;
        told.ok_or_else(|| inconsistent("an order is gone, and nobody says why"))
    }

    /// Why there is no such order: by the letter that is still to be acted on, or by the notice that comes of it and is
    /// kept for a while.
    pub(crate) async fn notice(&self, user: &UserId, id: &OrderId) -> Result<Option<Problem>> {
        let (keys, client) = (&self.store.keys, &self.store.client);
        let notify = Actor::notify(user, id);
        // The letter goes as the notice comes, so whoever does not find the letter does not come too early for the notice.
        let letters = RangeRequest {
            limit: Some(1),
            ..RangeRequest::prefix(keys.mailbox(&notify))
        };
        let letters = client.range(letters).await.map_err(problem_of)?;
        if let Some(kv) = letters.kvs.first()
            && let Letter::Refused(refusal) = read::<Post>(&kv.key, &kv.bytes())?.letter
        {
            return Ok(Some(refusal.problem()));
        }
        let key = keys.notice(user, id);
        let Some(kv) = client.get(&key).await.map_err(problem_of)? else {
            return Ok(None);
        };
        Ok(Some(read::<Refusal>(&key, &kv.bytes())?.problem()))
    }

    /// Asks the order to be canceled, and waits for what it makes of that; `None` when the time is over and it may not
    /// have heard of it. At most one such letter waits at a time. It need not find the order as it was read: while goods
    /// are gathered it changes with each of them.
    pub(crate) async fn cancel_by_mail(&self, found: &Found, until: Instant) -> Result<Option<Found>> {
        let keys = &self.store.keys;
        let to = Actor::order(&found.user, &found.id);
        let letter = keys.letter(&to, "cancel");
        let txn = Txn::new()
            .when(Condition::exists(&keys.order(&found.user, &found.id)))
            .when(Condition::absent(&letter))
            .then(Op::put(&letter, write(&Post::new(to, Letter::Cancel))))
            .otherwise(Op::get(&letter));
        let answer = self.store.commit(txn).await?;
        if answer.branch != Branch::Then && answer.got(0).is_none() {
            return self.found_order(&found.user, &found.id).await.map(Some);
        }
        let heard = Box::pin(self.heard(found, &letter, answer.revision));
        match timeout_at(until, heard).await {
            Ok(Err(problem)) if is_untold(&problem) => Ok(None),
            Ok(heard) => heard.map(Some),
            Err(_elapsed) => Ok(None),
        }
    }

    /// The order once it has acted on a letter that lay there at this revision. What becomes of it before that says
    /// nothing: the letter may find it in a state that can be canceled again.
    async fn heard(&self, found: &Found, letter: &str, lay_there: Revision) -> Result<Found> {
        let mut following = self.follow_key(letter, lay_there).await?;
        while following.watch.next().await.map_err(problem_of)?.kind != EventKind::Delete {}
        drop(following);
        let now = self.found_or_refused(found).await?;
        let was = found.record.status;
        if now.record.status != was {
            return Ok(now);
        }
        // Before it can take anything back, everybody it has asked for goods must answer.
        self.watch_until(now, |record| record.status != was).await
    }
}
