//! Looks at each step of each order and each payment, from outside, while the store below them is broken.
//! Invariant: every revision of the shop and of the ledger is judged once, whole and in order: states only move
//! forward, what never changes does not, nothing vanishes, and goods and money add up at any time. What is permitted
//! is written down here anew, and no code that is judged is asked. No violation tells what stands in a record.

mod agreement;
mod content;
mod judge;
mod ledger;
mod orders;
mod payments;
mod places;
mod shelves;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvstore_client::{EventKind, KvClient, WatchBatch, WatchRequest, WatchStream};
use service::tasks::Tasks;

use super::book::Book;
use super::served::SERVED;
use crate::arena::wait_for;
use judge::{Changes, Judge};
use places::{PAYMENT, SHOP, place};
use whole::{Side, Whole};

/// What is counted of what was judged.
pub(super) const ORDERS: &str = "order transitions";
pub(super) const PAYMENTS: &str = "payment transitions";
pub(super) const AGREEMENTS: &str = "orders beside their payments";
pub(super) const SHELVES: &str = "shelves added up";
pub(super) const BALANCES: &str = "accounts added up";

/// No longer than this, one side waits for news of the other, and the floor for both.
const PROGRESS: Duration = Duration::from_millis(50);
const CAUGHT_UP: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
pub(super) struct Auditor {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    whole: Whole,
    judge: Judge,
}

/// How it is called among those who are to be served.
fn watch_of(side: Side) -> &'static str {
    match side {
        Side::Shop => "watch of the shop",
        Side::Payment => "watch of the ledger",
    }
}

impl Auditor {
    /// From the first revision on: whatever came before it would have no beginning.
    pub(super) async fn start(
        client: &KvClient,
        from: u64,
        tasks: &Tasks,
        book: &Arc<Book>,
    ) -> kvstore_client::Result<Self> {
        for side in [Side::Shop, Side::Payment] {
            book.expects(watch_of(side), SERVED);
        }
        let watch = |prefix| client.watch(WatchRequest::prefix(prefix).from(from).progress(PROGRESS));
        let (shop, payment) = (watch(SHOP).await?, watch(PAYMENT).await?);
        let auditor = Self::default();
        let this = auditor.clone();
        tasks.spawn(
            "chaos auditor",
            this.follow(shop, payment, Arc::clone(book), tasks.clone()),
        );
        Ok(auditor)
    }

    async fn follow(self, mut shop: WatchStream, mut payment: WatchStream, book: Arc<Book>, tasks: Tasks) {
        let mut repeated = 0;
        loop {
            let (side, batch) = tokio::select! {
                batch = shop.next_batch() => (Side::Shop, batch),
                batch = payment.next_batch() => (Side::Payment, batch),
                () = tasks.stopping() => return,
            };
            let watch = watch_of(side);
            // The streams hand on no revision twice, so that only their counts show what a node has told again.
            let told_again = shop.repeated() + payment.repeated();
            if told_again > repeated {
                repeated = told_again;
                book.violation(format!("{watch}: {repeated} revisions came again so far"));
            }
            match batch {
                Ok(batch) => self.hear(side, batch, &book),
                Err(error) => return book.violation(format!("the {watch} ended: {error:?}")),
            }
        }
    }

    fn hear(&self, side: Side, batch: WatchBatch, book: &Book) {
        let events = batch.events.into_iter().map(|event| {
            let value = event.change.value.filter(|_| event.kind == EventKind::Put);
            let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
            (event.change.key, text)
        });
        self.take(side, batch.revision, events.collect(), book);
        book.served(watch_of(side));
    }

    fn take(&self, side: Side, revision: u64, changes: Changes, book: &Book) {
        let mut seen = self.seen();
        let Seen { whole, judge } = &mut *seen;
        let heard = whole.hear(side, revision, changes);
        let heard = heard.inspect_err(|fault| book.violation(fault.clone()));
        for (revision, changes) in heard.unwrap_or_default() {
            let found = judge.take(revision, &changes);
            for fault in found.faults {
                book.violation(fault);
            }
            for what in found.judged {
                book.count(what);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to here was judged.
    pub(super) fn position(&self) -> u64 {
        self.seen().whole.position()
    }

    /// Whether what it has seen makes what the store holds, now that nobody orders any more: else it has missed something.
    pub(super) async fn judge(&self, client: &KvClient, book: &Book) {
        let client = client.with_deadline(CAUGHT_UP);
        let mut differs = None;
        let same = wait_for("the auditor to have seen everything", CAUGHT_UP, async || {
            differs = match held(&client).await {
                Ok(held) => self.seen().judge.rows().differs(&held),
                Err(error) => Some(format!("it cannot be read: {error:?}")),
            };
            differs.is_none().then_some(())
        });
        if same.await.is_err() {
            book.violation(format!(
                "what the shop and the ledger hold is not what was seen of them: {}",
                differs.unwrap_or_default()
            ));
        }
    }
}

async fn held(client: &KvClient) -> kvstore_client::Result<BTreeMap<String, String>> {
    let mut held = BTreeMap::new();
    for prefix in [SHOP, PAYMENT] {
        let scan = client.scan(prefix).await?;
        let rows = scan.kvs.iter().filter(|kv| place(&kv.key).is_some());
        held.extend(rows.map(|kv| (kv.key.clone(), String::from_utf8_lossy(&kv.bytes()).into_owned())));
    }
    Ok(held)
}
