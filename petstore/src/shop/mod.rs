//! The use cases of the shop. Reading order: `catalogue` (what there is, from memory; `past`, what there was),
//! `products` (keeping the shelves), `accounts`, `tries` and `sessions` (these under `leases`), `carts`, `checkout`
//! (how an order is made and brought to its end), `orders`, `mail` (the same by letters between actors), `events`
//! (what `changes` makes of news, for pages), `audit`.
//! Invariant: stock moves only in transactions that write down why; nothing an instance holds in memory is needed by
//! another one. It must not know HTTP; it answers with what a route says, or with a problem.

mod accounts;
mod audit;
mod carts;
mod catalogue;
mod changes;
mod checkout;
mod events;
mod leases;
mod mail;
mod orders;
mod passwords;
mod past;
mod products;
mod sessions;
mod shelf;
mod standing;
mod tally;
mod tries;
pub(crate) mod views;

use std::sync::{Arc, Mutex};

use kvstore_client::problem_of;
use payment_client::{Currency, PaymentClient};
use prometheus::IntCounterVec;
use service::config::{Checkout as Mode, ShopAuth, ShopConfig, TXN_OPS_MIN};
use service::problem::Result;
use service::secrets::Secret;
use service::tasks::Tasks;
use tokio::sync::Semaphore;
use tokio::time::Duration;

pub(crate) use accounts::NewUser;
pub(crate) use carts::CartChange;
pub(crate) use catalogue::{Catalogue, Filter, Place};
pub(crate) use checkout::{Card, Checkout, Ended, Wanted, Wish};
pub(crate) use events::{EventStream, Since};
pub(crate) use mail::DeadLetter;
pub(crate) use passwords::Passwords;
pub(crate) use products::{Change, NewProduct, StockChange, put_new, unknown_product};
pub(crate) use shelf::{Good, Shelf};

use crate::domain::OrderId;
use crate::points::Points;
use crate::store::{Kept, Once, Store};
use checkout::Active;

/// How many pieces of a product one cart or order can hold, and how many lines.
pub(crate) const QUANTITY_MAX: i64 = 1000;
pub(crate) const LINES_MAX: usize = 100;
/// To place an order and to end it takes an operation for each line, and never so many more: for the order, its `todo`,
/// its timer, its answer and when that is due, and a cart or a letter.
const OF_AN_ORDER: usize = 6;
const _: () = assert!(LINES_MAX + OF_AN_ORDER <= TXN_OPS_MIN);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shop {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) catalogue: Catalogue,
    pub(crate) payment: PaymentClient,
    pub(crate) config: ShopConfig,
    pub(crate) currency: Currency,
    /// The most that the payment service takes at once.
    pub(crate) amount_minor_max: i64,
    /// Of this start of this process.
    pub(crate) instance: String,
    pub(crate) secret: Secret,
    pub(crate) passwords: Passwords,
    pub(crate) points: Points,
    /// Orders are carried on here, whoever has gone meanwhile.
    pub(crate) tasks: Tasks,
    /// Stopped before the port is, so that open streams do not hold it up.
    pub(crate) closing: Tasks,
    pub(crate) orders: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    /// One permit for each watch of the store that is held for somebody who waits for an order.
    waits: Semaphore,
    pub(crate) audits: Semaphore,
    pub(crate) active: Mutex<Active>,
    pub(crate) office: mail::Office,
    pub(crate) events: events::Hub,
    standing: standing::Standing,
    session_leases: leases::Leases,
    try_leases: leases::Leases,
    pub(crate) counted: IntCounterVec,
}

impl std::ops::Deref for Shop {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// What a shop is put together from.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) catalogue: Catalogue,
    pub(crate) payment: PaymentClient,
    pub(crate) config: ShopConfig,
    /// How many watches of the store those have together who wait for orders.
    pub(crate) waits_max: usize,
    pub(crate) currency: Currency,
    pub(crate) amount_minor_max: i64,
    pub(crate) instance: String,
    pub(crate) secret: Secret,
    pub(crate) points: Points,
    pub(crate) tasks: Tasks,
    pub(crate) closing: Tasks,
    /// Orders that ended here, by how.
    pub(crate) counted: IntCounterVec,
}

/// Each of them reads everything.
const AUDITS_AT_ONCE: usize = 2;

impl Shop {
    pub(crate) fn new(parts: Parts) -> Self {
        let config = parts.config;
        let events = events::Hub::start(&parts.store, &parts.tasks);
        Self {
            inner: Arc::new(Inner {
                store: parts.store,
                catalogue: parts.catalogue,
                payment: parts.payment,
                currency: parts.currency,
                amount_minor_max: parts.amount_minor_max,
                instance: parts.instance,
                secret: parts.secret,
                passwords: Passwords::new(config.hashes_at_once, &parts.tasks),
                points: parts.points,
                tasks: parts.tasks,
                closing: parts.closing,
                orders: Arc::new(Semaphore::new(config.orders_at_once)),
                streams: Arc::new(Semaphore::new(config.events_max)),
                waits: Semaphore::new(parts.waits_max),
                audits: Semaphore::new(AUDITS_AT_ONCE),
                active: Mutex::default(),
                office: mail::Office::new(),
                events,
                standing: standing::Standing::default(),
                session_leases: leases::Leases::lasting(Duration::from_secs(config.session_s)),
                try_leases: leases::Leases::lasting(Duration::from_secs(config.sign_in_window_s)),
                counted: parts.counted,
                config,
            }),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.config.auth == ShopAuth::Open
    }

    /// Whether new orders are carried on by letters.
    pub(crate) fn is_by_mail(&self) -> bool {
        self.config.checkout == Mode::Mailbox
    }

    /// Whether the store can be reached and knows this service.
    pub(crate) async fn reach(&self) -> Result<()> {
        let client = self.store.client.with_deadline(Duration::from_secs(1));
        client.revision().await.map(drop).map_err(problem_of)
    }

    /// Does the work once for this key. The kept answer is looked for before it, and again when it is refused: of twins
    /// that arrive together one may meet what the other has done, and that is no reason to refuse it.
    async fn once<T>(
        &self,
        once: Option<&Once>,
        replay: impl Fn(Kept) -> Result<T>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if let Some(kept) = self.store.answered(once).await? {
            return replay(kept);
        }
        self.points.reach("unanswered").await;
        let done = work.await;
        if let Err(refusal) = &done
            && refusal.kind.status < 500
            && let Some(kept) = self.store.answered(once).await?
        {
            return replay(kept);
        }
        done
    }

    /// What the shop's payment for this order is called.
    pub(crate) fn payment_id(&self, order: &OrderId) -> String {
        crate::store::Keys::payment_id(&self.config.name, order)
    }
}
