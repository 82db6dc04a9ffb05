//! What changes, for pages that are open: one watch of the store for all of them, as long as there are any.
//! Invariant: whoever names the revision that was seen last gets everything after it, once and in order, on whichever
//! instance; carts and orders go to their owner alone. Who reads too slowly is cut off and comes back with that name.

use std::sync::Arc;

use kvstore_client::wire::Revision;
use kvstore_client::{EventKind, KvClient, WatchBatch, WatchEvent, WatchRequest, WatchStream, problem_of};
use payment_client::{Currency, Money};
use percent_encoding::percent_decode_str;
use serde_json::json;
use service::problem::{self, Problem, Result};
use service::tasks::Tasks;
use tokio::sync::{Notify, OwnedSemaphorePermit, broadcast, watch};
use tokio::time::{Duration, timeout};

use super::Shop;
use crate::domain::{Product, UserId};
use crate::store::{CartRecord, GoodsPart, Keys, OrderRecord, Store, read, read_int};

/// Batches that may wait for a slow reader.
const WAITING_MAX: usize = 1024;
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// A stream begins when the watch behind it does, or not at all.
const BEGIN_MAX: Duration = Duration::from_secs(5);

/// One thing that changed.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) name: &'static str,
    /// JSON.
    pub(crate) data: String,
    /// `None` for everybody.
    audience: Option<String>,
}

/// Everything that changed with one revision.
#[derive(Debug)]
struct Batch {
    revision: Revision,
    events: Vec<Event>,
}

pub(crate) struct Hub {
    batches: broadcast::Sender<Arc<Batch>>,
    wanted: Arc<Notify>,
    /// Everything after this revision is broadcast; `None` while nothing is.
    position: watch::Receiver<Option<Revision>>,
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
    position: watch::Sender<Option<Revision>>,
}

impl Feeder {
    async fn run(self) {
        loop {
            if self.batches.receiver_count() == 0 {
                self.wanted.notified().await;
                continue;
            }
            if let Err(error) = self.feed().await {
                tracing::debug!(%error, "nothing is broadcast to pages for a while");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            self.position.send_replace(None);
        }
    }

    /// Broadcasts as long as somebody listens.
    async fn feed(&self) -> kvstore_client::Result<()> {
        let revision = self.store.client.revision().await?;
        let mut watch = follow(&self.store.client, &self.store.keys, revision).await?;
        self.position.send_replace(Some(revision));
        while self.batches.receiver_count() > 0 {
            let batch = watch.next_batch().await?;
            let batch = Arc::new(told(&self.store.keys, batch));
            let revision = batch.revision;
            if self.batches.send(batch).is_err() {
                tracing::trace!("the last page has gone");
            }
            self.position.send_replace(Some(revision));
        }
        Ok(())
    }
}

async fn follow(client: &KvClient, keys: &Keys, after: Revision) -> kvstore_client::Result<WatchStream> {
    client
        .watch(WatchRequest::prefix(keys.live()).from(after + 1))
        .await
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
    batches: broadcast::Receiver<Arc<Batch>>,
    /// From the store's past up to where the broadcast begins.
    past: Option<(WatchStream, Revision)>,
    seen: Revision,
    _place: OwnedSemaphorePermit,
}

/// The events of one revision that this page may see; there may be none.
pub(crate) struct Told {
    pub(crate) revision: Revision,
    pub(crate) events: Vec<Event>,
}

impl Shop {
    pub(crate) async fn follow(&self, user: Option<UserId>, since: Since) -> Result<EventStream> {
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
        let seen = match since {
            Since::Now => begins,
            Since::Revision(revision) => revision,
        };
        let past = if seen < begins {
            let watch = follow(&self.store.client, &self.store.keys, seen)
                .await
                .map_err(problem_of)?;
            Some((watch, begins))
        } else {
            None
        };
        Ok(EventStream {
            shop: self.clone(),
            user,
            batches,
            past,
            seen,
            _place: place,
        })
    }
}

impl EventStream {
    pub(crate) fn seen(&self) -> Revision {
        self.seen
    }

    /// What comes next; `None` when the page should come back with the revision it saw last. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((watch, until)) = &mut self.past {
                let batch = watch.next_batch().await.ok()?;
                if batch.revision >= *until {
                    self.past = None;
                }
                if batch.revision <= self.seen {
                    continue;
                }
                let batch = told(&self.shop.store.keys, batch);
                return Some(self.take(&batch));
            }
            // Cut off, or the end of the broadcast: the page comes back.
            let batch = tokio::select! {
                batch = self.batches.recv() => batch.ok()?,
                () = self.shop.closing.stopping() => return None,
            };
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

fn told(keys: &Keys, batch: WatchBatch) -> Batch {
    let events = batch.events.iter();
    Batch {
        revision: batch.revision,
        events: events.filter_map(|event| event_of(keys, event)).collect(),
    }
}

/// What a change means for a page; `None` for what pages do not show.
fn event_of(keys: &Keys, event: &WatchEvent) -> Option<Event> {
    let key = event.change.key.as_str();
    let gone = event.kind == EventKind::Delete;
    let value = event.change.value.clone().unwrap_or_default();
    if let Some((id, part)) = keys.parse_goods(key) {
        let (name, data) = match part {
            GoodsPart::Stock if gone => return None,
            GoodsPart::Stock => {
                let stock = read_int(key, &value).ok()?;
                ("stock", json!({"id": id, "stock": stock, "inStock": stock > 0}))
            }
            GoodsPart::Record if gone => ("gone", json!({"id": id})),
            GoodsPart::Record => ("product", product_data(id, &read(key, &value).ok()?)),
        };
        return Some(Event {
            name,
            data: data.to_string(),
            audience: None,
        });
    }
    if let Some(user) = key.strip_prefix(&keys.all_carts()) {
        let cart: CartRecord = if gone {
            CartRecord::default()
        } else {
            read(key, &value).ok()?
        };
        let count: i64 = cart.items.iter().map(|(_, quantity)| quantity).sum();
        return Some(Event {
            name: "cart",
            data: json!({"count": count, "lines": cart.items.len()}).to_string(),
            audience: Some(decoded(user)),
        });
    }
    if let Some(notice) = key.strip_prefix(&keys.notices()) {
        let (user, id) = notice.split_once('/').filter(|_| !gone)?;
        return Some(Event {
            name: "order",
            data: json!({"order_id": id, "status": "refused"}).to_string(),
            audience: Some(decoded(user)),
        });
    }
    let (user, id) = key.strip_prefix(&keys.all_orders())?.split_once('/')?;
    let order: OrderRecord = read(key, &value).ok()?;
    Some(Event {
        name: "order",
        data: json!({"order_id": id, "status": order.status.word(), "total_minor": order.total_minor})
            .to_string(),
        audience: Some(decoded(user)),
    })
}

fn product_data(id: &str, product: &Product) -> serde_json::Value {
    json!({"id": id, "name": product.name, "price_minor": product.price_minor})
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

impl Event {
    /// With the price as people read it, which needs the shop's currency.
    pub(crate) fn data(&self, currency: Currency) -> String {
        if self.name != "product" {
            return self.data.clone();
        }
        let Ok(mut data) = serde_json::from_str::<serde_json::Value>(&self.data) else {
            return self.data.clone();
        };
        if let Some(minor) = data["price_minor"].as_i64() {
            let price = Money::new(minor, currency).to_string();
            data["price_text"] = format!("{price} {currency}").into();
        }
        data.to_string()
    }
}
