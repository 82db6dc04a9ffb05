//! What a change in the store means for pages that are open.
//! Invariant: carts and orders name their owner as the audience, and nobody else is shown them. Pure: no clock, no IO.

use kvstore_client::wire::Revision;
use kvstore_client::{EventKind, WatchBatch, WatchEvent};
use payment_client::{Currency, Money};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::domain::Product;
use crate::store::{CartRecord, GoodsPart, Keys, OrderRecord, read, read_int};

/// One thing that changed.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) name: &'static str,
    /// JSON.
    pub(crate) data: String,
    /// `None` for everybody.
    pub(super) audience: Option<String>,
}

/// Everything that changed with one revision.
#[derive(Debug)]
pub(super) struct Batch {
    /// Of the watch that saw it, among those that this instance has begun one after the other.
    pub(super) watch: u64,
    pub(super) revision: Revision,
    pub(super) events: Vec<Event>,
    /// The keys of sessions that ended.
    pub(super) ended: Vec<String>,
}

pub(super) fn told(keys: &Keys, watch: u64, batch: WatchBatch) -> Batch {
    let sessions = keys.all_sessions();
    let ended =
        |event: &&WatchEvent| event.kind == EventKind::Delete && event.change.key.starts_with(&sessions);
    let ended = batch.events.iter().filter(ended);
    Batch {
        watch,
        revision: batch.revision,
        ended: ended.map(|event| event.change.key.clone()).collect(),
        events: batch
            .events
            .iter()
            .filter_map(|event| event_of(keys, event))
            .collect(),
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

#[cfg(test)]
mod tests {
    use kvstore_client::wire::watch::Change;

    use super::*;

    #[test]
    fn the_end_of_a_session_is_told() {
        let keys = Keys::of_shop("one");
        let change = |kind, key: String| WatchEvent {
            kind,
            revision: 7,
            change: Change {
                key,
                value: None,
                create_revision: 1,
                mod_revision: 7,
                version: 0,
                lease: 0,
                prev: None,
                granted: None,
                kept: None,
            },
        };
        let events = vec![
            change(EventKind::Delete, keys.session("ab")),
            change(EventKind::Put, keys.session("cd")),
            change(EventKind::Delete, keys.all_carts() + "ada"),
        ];
        let batch = told(&keys, 1, WatchBatch { revision: 7, events });
        assert_eq!(batch.ended, [keys.session("ab")]);
    }
}
