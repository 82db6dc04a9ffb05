//! Goes on where others stopped: each instance stands in the store under a lease, each unfinished order names the
//! instance that carries it on, and an order of one that is gone is taken over by whoever finds it first.
//! Invariant: that an order is taken over twice, or from one that only seemed dead, costs work and nothing else. One
//! that cannot be read is left to a person, and none waits behind it.

use std::collections::HashSet;

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{RangeRequest, Txn, problem_of};
use service::problem::Result;
use tokio::time::{Duration, timeout};

use crate::domain::{NameFault, OrderId, UserId};
use crate::shop::Shop;
use crate::shop::mail::BY_MAIL;
use crate::store::{InstanceRecord, TodoRecord, write};

const PAGE_ROWS: u32 = 500;
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// An order on its way, and who carries it on.
struct Unfinished {
    id: OrderId,
    user: UserId,
    todo: TodoRecord,
}

/// Why nobody can carry an order on.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("who carries it on cannot be read: {0}")]
    Record(#[from] serde_json::Error),
    #[error("no order has such a name")]
    Order,
    #[error("no user has such a name: {0}")]
    User(#[from] NameFault),
}

impl Shop {
    /// Stands in the store as a living instance until told to stop.
    pub(crate) async fn stay_alive(&self, name: &str) {
        // A little less, so that its shards are taken over within the whole of it.
        let ttl = Duration::from_millis(self.config.registration_ms * 5 / 6);
        let key = self.store.keys.instance(&self.instance);
        let record = write(&InstanceRecord {
            name: name.to_owned(),
        });
        while !self.tasks.is_stopping() {
            let lease = match self.store.client.put_kept(&key, record.clone(), ttl).await {
                Ok(lease) => lease,
                Err(error) => {
                    tracing::debug!(%error, "not alive in the store yet");
                    let _stopping = timeout(RETRY_PAUSE, self.tasks.stopping()).await;
                    continue;
                }
            };
            // Stopping ends the keep-alive too, so both may be ready: the order says which it is.
            tokio::select! {
                biased;
                () = self.tasks.stopping() => {
                    // Whatever is left is for others, from now on and not only after the lease has run out.
                    if let Err(error) = lease.release().await {
                        tracing::debug!(%error, "the lease of this instance has to run out");
                    }
                }
                () = lease.lost() => {}
                () = self.hold_shards(lease.id()) => {}
            }
            self.let_go();
        }
    }

    /// Looks for unfinished orders that nobody carries on.
    pub(crate) async fn adopt_until_stopped(&self) {
        let every = Duration::from_millis(self.config.adopt_every_ms);
        let mut told = HashSet::new();
        while timeout(every, self.tasks.stopping()).await.is_err() {
            match self.adopt(&mut told).await {
                Ok(0) => {}
                Ok(orders) => tracing::info!(orders, "took over orders that nobody carried on"),
                Err(problem) => tracing::debug!(%problem, "could not look for unfinished orders"),
            }
        }
    }

    /// Only a store that cannot be reached ends it early. What cannot be read is told of once, and not with every look.
    async fn adopt(&self, told: &mut HashSet<String>) -> Result<usize> {
        let mut walk = self.store.client.pages(RangeRequest {
            limit: Some(PAGE_ROWS),
            ..RangeRequest::prefix(self.store.keys.todos())
        });
        let mut alive = None;
        let mut adopted = 0;
        let mut unreadable = HashSet::new();
        while let Some(page) = walk.next().await.map_err(problem_of)? {
            for kv in &page.kvs {
                // Read after the orders: an instance that is not there then had died before.
                let alive = match &mut alive {
                    Some(alive) => alive,
                    none => none.insert(self.alive().await?),
                };
                match self.unfinished(kv) {
                    Ok(order) => adopted += usize::from(self.adopt_one(kv, order, alive).await?),
                    Err(error) => {
                        if told.insert(kv.key.clone()) {
                            tracing::error!(key = kv.key, %error, "left out an unfinished order");
                        }
                        unreadable.insert(kv.key.clone());
                    }
                }
            }
        }
        *told = unreadable;
        Ok(adopted)
    }

    pub(crate) async fn alive(&self) -> Result<HashSet<String>> {
        let prefix = self.store.keys.instances();
        let scan = self.store.client.scan(&prefix).await.map_err(problem_of)?;
        let ids = scan.kvs.iter().filter_map(|kv| kv.key.strip_prefix(&prefix));
        Ok(ids.map(str::to_owned).collect())
    }

    fn unfinished(&self, kv: &KeyValue) -> std::result::Result<Unfinished, Unreadable> {
        let todo: TodoRecord = serde_json::from_slice(&kv.bytes())?;
        let id = kv.key.strip_prefix(&self.store.keys.todos());
        let id = id.and_then(OrderId::parse).ok_or(Unreadable::Order)?;
        let user = UserId::stored(&todo.user)?;
        Ok(Unfinished { id, user, todo })
    }

    async fn adopt_one(&self, kv: &KeyValue, order: Unfinished, alive: &HashSet<String>) -> Result<bool> {
        let Unfinished { id, user, todo } = order;
        // Whoever has its shard carries it on.
        if todo.owner == BY_MAIL {
            return Ok(false);
        }
        let mine = todo.owner == self.instance;
        if !mine && alive.contains(&todo.owner) {
            return Ok(false);
        }
        let Some(carrying) = self.carry(&id) else {
            return Ok(false);
        };
        let Ok(place) = self.orders.clone().try_acquire_owned() else {
            return Ok(false);
        };
        if !mine {
            let todo = TodoRecord {
                owner: self.instance.clone(),
                ..todo
            };
            let txn = Txn::new()
                .when(Condition::unchanged(&kv.key, kv.mod_revision))
                .then(Op::put(&kv.key, write(&todo)));
            if self.store.commit(txn).await?.branch != Branch::Then {
                return Ok(false);
            }
        }
        let shop = self.clone();
        self.tasks.spawn("order", async move {
            let (_place, _carrying) = (place, carrying);
            match shop.found_order(&user, &id).await {
                Ok(found) => drop(shop.drive(found).await),
                Err(problem) => tracing::debug!(order.id = id.as_str(), %problem, "could not read an order"),
            }
        });
        Ok(true)
    }
}
