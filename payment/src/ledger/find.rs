//! Reading: one payment, the payments for an order, and the pages of the operator.
//! Invariant: everything an answer shows is of one revision, and so are all pages of one walk.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::{KeyValue, Page};
use kvstore_client::{RangeRequest, ReadOptions};
use payment_client::wire::{Payment, Transfer};
use percent_encoding::percent_decode_str;
use service::problem::Result;

use super::cards::CardState;
use super::records::{self, PaymentRecord, TransferRecord};
use super::{Ledger, answers, keys, resolve, trouble};
use crate::domain::{MerchantName, OrderRef, PaymentId};

/// Refunds can be many; a payment is shown with at most so many transfers.
const ROWS_MAX: u32 = 1000;
/// How many payments of a page are read at the same time.
const READS_AT_ONCE: usize = 16;

/// Which page, and of what: as the caller was told, or the first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) limit: u32,
    /// The end of the page before.
    pub(crate) after: Option<String>,
    pub(crate) revision: Option<Revision>,
}

#[derive(Clone, Debug)]
pub(crate) struct PageOf<T> {
    pub(crate) rows: Vec<T>,
    pub(crate) revision: Revision,
    /// Of the next page, if there is one.
    pub(crate) next: Option<String>,
}

/// A card as the operator sees it.
#[derive(Clone, Debug)]
pub(crate) struct CardRow {
    pub(crate) state: CardState,
}

impl Ledger {
    /// The payment with its transfers.
    pub(crate) async fn payment(&self, id: &PaymentId, revision: Option<Revision>) -> Result<Payment> {
        let prefix = keys::payment(id);
        let mut range = RangeRequest::prefix(prefix.clone());
        range.limit = Some(ROWS_MAX);
        range.uncounted = true;
        range.read = at(revision);
        let page = self.client.range(range).await.map_err(trouble)?;
        let mut refunded = counted(&page.kvs, &keys::refunded(id))?;
        if page.more && refunded.is_none() {
            let key = keys::refunded(id);
            let row = self.client.get_with(&key, at(Some(page.revision))).await;
            refunded = counted(row.map_err(trouble)?.as_slice(), &key)?;
        }
        assemble(id.as_str(), &prefix, &page.kvs, refunded.unwrap_or(0))?.ok_or_else(resolve::unknown)
    }

    /// What was paid, or tried to be, to a merchant or for one order.
    pub(crate) async fn payments(
        &self,
        merchant: Option<&MerchantName>,
        order_ref: Option<&OrderRef>,
        cursor: &Cursor,
    ) -> Result<PageOf<Payment>> {
        let prefix = match (merchant, order_ref) {
            (Some(merchant), Some(order_ref)) => keys::order(merchant, Some(order_ref)),
            (Some(merchant), None) => format!("{}{}/", keys::ORDERS, merchant.segment()),
            (None, _) => keys::ORDERS.to_owned(),
        };
        let page = self.page(prefix, cursor, true).await?;
        let ids: Vec<PaymentId> = page.kvs.iter().map(|kv| payment_of_entry(&kv.key)).collect();
        let reads = ids.into_iter().map(|id| {
            let ledger = self.clone();
            async move { ledger.payment(&id, Some(page.revision)).await }
        });
        let rows = stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(PageOf {
            rows,
            revision: page.revision,
            next: page.cursor.filter(|_| page.more),
        })
    }

    /// The cards with all their counters, for the operator's page.
    pub(crate) async fn cards(&self, cursor: &Cursor) -> Result<PageOf<CardRow>> {
        let mut wide = cursor.clone();
        // So many keys has a card; a page may end within one, whose rest the next page then skips.
        wide.limit = cursor.limit * 6;
        let page = self.page(keys::CARDS.to_owned(), &wide, false).await?;
        let mut ids: Vec<String> = page
            .kvs
            .iter()
            .filter_map(|kv| Some(kv.key.strip_prefix(keys::CARDS)?.split_once('/')?.0.to_owned()))
            .collect();
        ids.dedup();
        let reads = ids.into_iter().map(|id| self.card_row(id, &page));
        let rows: Vec<Option<CardRow>> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(PageOf {
            rows: rows.into_iter().flatten().collect(),
            revision: page.revision,
            next: page.cursor.clone().filter(|_| page.more),
        })
    }

    /// The whole card, unless it began on the page before.
    async fn card_row(&self, id: String, page: &Page) -> Result<Option<CardRow>> {
        let prefix = format!("{}{id}/", keys::CARDS);
        let range = RangeRequest {
            read: at(Some(page.revision)),
            ..RangeRequest::prefix(prefix.clone())
        };
        let whole = self.client.range(range).await.map_err(trouble)?;
        let first = whole.kvs.first().map(|kv| kv.key.as_str());
        if !page.kvs.iter().any(|kv| Some(kv.key.as_str()) == first) {
            return Ok(None);
        }
        let state = CardState::of(&prefix, &whole.kvs)?;
        Ok(state.map(|state| CardRow { state }))
    }

    async fn page(&self, prefix: String, cursor: &Cursor, keys_only: bool) -> Result<Page> {
        let range = RangeRequest {
            limit: Some(cursor.limit),
            cursor: cursor.after.clone(),
            keys_only,
            uncounted: true,
            read: at(cursor.revision),
            ..RangeRequest::prefix(prefix)
        };
        self.client.range(range).await.map_err(trouble)
    }
}

fn at(revision: Option<Revision>) -> ReadOptions {
    ReadOptions {
        revision,
        ..ReadOptions::default()
    }
}

fn counted(kvs: &[KeyValue], key: &str) -> Result<Option<i64>> {
    let row = kvs.iter().find(|kv| kv.key == key);
    row.map(|kv| records::read_int(&kv.key, &kv.bytes())).transpose()
}

/// Puts the rows below a payment's prefix together.
fn assemble(id: &str, prefix: &str, kvs: &[KeyValue], refunded: i64) -> Result<Option<Payment>> {
    let mut record: Option<PaymentRecord> = None;
    let mut transfers: Vec<(Revision, Transfer)> = Vec::new();
    for kv in kvs {
        match kv.key.strip_prefix(prefix).unwrap_or_default() {
            "record" => record = Some(records::read(&kv.key, &kv.bytes())?),
            "refunded" => {}
            part => {
                let stored: TransferRecord = records::read(&kv.key, &kv.bytes())?;
                let refund = part.strip_prefix("refund/").map(decoded);
                transfers.push((kv.create_revision, answers::transfer(stored, refund)));
            }
        }
    }
    // In the order in which they happened.
    transfers.sort_by_key(|(revision, _)| *revision);
    let transfers = transfers.into_iter().map(|(_, transfer)| transfer).collect();
    Ok(record.map(|record| answers::payment(id, &record, refunded, Some(transfers))))
}

pub(super) fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn payment_of_entry(key: &str) -> PaymentId {
    PaymentId::stored(decoded(key.rsplit('/').next().unwrap_or_default()))
}
