//! What stands under a key of the shop or of the payment service, as far as the auditor looks at it, and all of it at
//! one revision. Invariant: it is written down anew, from the papers; the services' own code is what is judged.

use std::collections::BTreeMap;

pub(super) const SHOP: &str = "shop/";
pub(super) const PAYMENT: &str = "pay/";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place<'key> {
    Order {
        id: &'key str,
    },
    /// Says that the order has not ended.
    Todo {
        order: &'key str,
    },
    Stock {
        product: &'key str,
    },
    Received {
        product: &'key str,
    },
    /// The record of a payment, a transfer of it, or how much was given back.
    Payment {
        id: &'key str,
        part: &'key str,
    },
    Card {
        id: &'key str,
        part: &'key str,
    },
    /// What a merchant, or the world outside, has got or given, under the name that transfers give to the account.
    Account {
        name: String,
        currency: &'key str,
        side: &'key str,
    },
    /// Money that came to a card from outside, or left it.
    Funded,
}

/// `None` for what nobody judges: sessions, carts, answers, and what is due.
pub(super) fn place(key: &str) -> Option<Place<'_>> {
    if let Some(rest) = key.strip_prefix(SHOP) {
        let (_shop, rest) = rest.split_once('/')?;
        return of_shop(rest);
    }
    of_payment(key.strip_prefix(PAYMENT)?)
}

fn of_shop(rest: &str) -> Option<Place<'_>> {
    if let Some(order) = rest.strip_prefix("live/order/") {
        let (_user, id) = order.split_once('/')?;
        return Some(Place::Order { id });
    }
    if let Some(goods) = rest.strip_prefix("live/goods/") {
        let product = goods.strip_suffix("/stock")?;
        return Some(Place::Stock { product });
    }
    let (what, name) = rest.split_once('/')?;
    match what {
        "received" => Some(Place::Received { product: name }),
        "todo" => Some(Place::Todo { order: name }),
        _ => None,
    }
}

fn of_payment(rest: &str) -> Option<Place<'_>> {
    let (what, rest) = rest.split_once('/')?;
    let (first, more) = rest.split_once('/')?;
    let name = |parts: &str| parts.replace('/', ":");
    match what {
        "payment" => Some(Place::Payment {
            id: first,
            part: more,
        }),
        "card" => Some(Place::Card {
            id: first,
            part: more,
        }),
        "funded" => Some(Place::Funded),
        "merchant" | "funding" => {
            let (account, side) = more.rsplit_once('/')?;
            Some(Place::Account {
                name: format!("{what}:{}", name(account)),
                currency: first,
                side,
            })
        }
        _ => None,
    }
}

/// All that is looked at, as it is at one revision.
#[derive(Default)]
pub(super) struct Rows(BTreeMap<String, String>);

impl Rows {
    /// Gives what was there before.
    pub(super) fn put(&mut self, key: &str, value: Option<&str>) -> Option<String> {
        match value {
            Some(value) => self.0.insert(key.to_owned(), value.to_owned()),
            None => self.0.remove(key),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(super) fn payment(&self, id: &str) -> Option<&str> {
        self.get(&format!("{PAYMENT}payment/{id}/record"))
    }

    pub(super) fn card(&self, id: &str) -> Option<&str> {
        self.get(&format!("{PAYMENT}card/{id}/record"))
    }

    /// The parts of a payment beside its record.
    pub(super) fn parts<'rows>(&'rows self, payment: &str) -> impl Iterator<Item = (&'rows str, &'rows str)> {
        let prefix = format!("{PAYMENT}payment/{payment}/");
        let rows = self.0.range(prefix.clone()..);
        rows.map_while(move |(key, value)| Some((key.strip_prefix(&*prefix)?, value.as_str())))
            .filter(|(part, _)| *part != "record")
    }

    /// The first key under which something else stands there.
    pub(super) fn differs(&self, held: &BTreeMap<String, String>) -> Option<String> {
        let other = self.0.iter().find(|(key, value)| held.get(*key) != Some(value));
        let more = || held.keys().find(|key| !self.0.contains_key(*key));
        other.map(|(key, _)| key).or_else(more).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_judged_is_known_by_its_key() {
        let places = [
            ("shop/s/live/order/u%2F1/a1", Some(Place::Order { id: "a1" })),
            ("shop/s/live/goods/7/stock", Some(Place::Stock { product: "7" })),
            ("shop/s/received/7", Some(Place::Received { product: "7" })),
            ("shop/s/todo/a1", Some(Place::Todo { order: "a1" })),
            ("shop/s/live/goods/7/record", None),
            ("shop/s/live/session/a1", None),
            ("pay/answer/a1", None),
            ("pay/due/1/hold/a1", None),
            ("pay/funded/c1/00000001", Some(Place::Funded)),
        ];
        for (key, expected) in places {
            assert_eq!(place(key), expected, "{key}");
        }
        let part = |key| match place(key) {
            Some(Place::Payment { id, part } | Place::Card { id, part }) => format!("{id} {part}"),
            Some(Place::Account { name, currency, side }) => format!("{name} {currency} {side}"),
            other => format!("{other:?}"),
        };
        let told = [
            "pay/payment/s-a1/refund/all",
            "pay/card/c1_0/holds",
            "pay/merchant/EUR/s/5/credits",
            "pay/funding/EUR/3/debits",
        ];
        assert_eq!(
            told.map(part),
            [
                "s-a1 refund/all",
                "c1_0 holds",
                "merchant:s:5 EUR credits",
                "funding:3 EUR debits"
            ]
        );
    }

    #[test]
    fn rows_that_differ_are_named() {
        let mut rows = Rows::default();
        rows.put("a", Some("1"));
        let held = |rows: &[(&str, &str)]| {
            let rows = rows.iter();
            rows.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        assert_eq!(rows.differs(&held(&[("a", "1")])), None);
        assert_eq!(rows.differs(&held(&[("a", "2")])).unwrap(), "a");
        assert_eq!(rows.differs(&held(&[])).unwrap(), "a");
        assert_eq!(rows.differs(&held(&[("a", "1"), ("b", "1")])).unwrap(), "b");
    }
}
