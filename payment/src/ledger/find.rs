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

/// How many entries are looked through at a time for an order whose merchant is not told, and how often.
const LOOK_ROWS: u32 = 2000;
const LOOKS_MAX: usize = 25;

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
        let found = match (merchant, order_ref) {
            (Some(merchant), Some(_)) => self.entries(keys::order(merchant, order_ref), cursor).await?,
            (Some(merchant), None) => {
                let prefix = format!("{}{}/", keys::ORDERS, merchant.segment());
                self.entries(prefix, cursor).await?
            }
            (None, Some(order_ref)) => self.entries_of_order(order_ref, cursor).await?,
            (None, None) => self.entries(keys::ORDERS.to_owned(), cursor).await?,
        };
        let revision = found.revision;
        let reads = found.rows.into_iter().map(|id| {
            let ledger = self.clone();
            async move { ledger.payment(&id, Some(revision)).await }
        });
        let rows = stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(PageOf {
            rows,
            revision,
            next: found.next,
        })
    }

    async fn entries(&self, prefix: String, cursor: &Cursor) -> Result<PageOf<PaymentId>> {
        let page = self.page(prefix, cursor, true).await?;
        Ok(PageOf {
            rows: page.kvs.iter().map(|kv| payment_of_entry(&kv.key)).collect(),
            revision: page.revision,
            next: page.cursor.filter(|_| page.more),
        })
    }

    /// Entries stand by merchant, so that those of an order of any merchant are looked for among all of them. A page
    /// may then be short, or empty, although there is a next one: that bounds what a single request looks through.
    async fn entries_of_order(&self, order_ref: &OrderRef, cursor: &Cursor) -> Result<PageOf<PaymentId>> {
        let wanted = usize::try_from(cursor.limit).unwrap_or(usize::MAX);
        let mut at = cursor.clone();
        let mut found = PageOf {
            rows: Vec::new(),
            revision: 0,
            next: None,
        };
        for _ in 0..LOOKS_MAX {
            at.limit = LOOK_ROWS;
            let mut page = self.page(keys::ORDERS.to_owned(), &at, true).await?;
            at.revision = Some(page.revision);
            if let Some(rows) = rows_up_to(&page.kvs, order_ref, wanted - found.rows.len()) {
                // Once more up to the last one wanted, since only the store knows how to go on from there.
                at.limit = rows;
                page = self.page(keys::ORDERS.to_owned(), &at, true).await?;
            }
            let entries = page.kvs.iter().filter(|kv| is_of_order(&kv.key, order_ref));
            found.rows.extend(entries.map(|kv| payment_of_entry(&kv.key)));
            found.revision = page.revision;
            found.next = page.cursor.filter(|_| page.more);
            at.after.clone_from(&found.next);
            if found.next.is_none() || found.rows.len() == wanted {
                break;
            }
        }
        Ok(found)
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

/// How many rows there are up to the last entry that is still wanted, unless all of them are.
fn rows_up_to(kvs: &[KeyValue], order_ref: &OrderRef, wanted: usize) -> Option<u32> {
    let entries = kvs.iter().enumerate();
    let mut entries = entries.filter(|(_, kv)| is_of_order(&kv.key, order_ref));
    let (last, _) = entries.nth(wanted.checked_sub(1)?)?;
    u32::try_from(last + 1).ok()
}

fn is_of_order(key: &str, order_ref: &OrderRef) -> bool {
    let mut segments = key.strip_prefix(keys::ORDERS).unwrap_or_default().split('/');
    segments.nth(1) == Some(order_ref.segment().to_string().as_str())
}

fn payment_of_entry(key: &str) -> PaymentId {
    PaymentId::stored(decoded(key.rsplit('/').next().unwrap_or_default()))
}
