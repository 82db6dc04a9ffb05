//! What a record of the copy says of a product, and where that stands among others.
//! Invariant: what is asked for means what it means to the shop, which has the same words and the same order.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::catalogue::{Offer, Sort};

use crate::copy::Record;

/// Where a product stands in an order: what it is sorted by, and among equals as they came. Ids count up, so that 10
/// comes after 9.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) sort: Sort,
    number: i64,
    text: String,
    created_ms: i64,
    id_bytes: usize,
    id: String,
}

pub(super) fn text<'r>(record: &'r Record, name: &str) -> &'r str {
    record.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn integer(record: &Record, name: &str) -> i64 {
    record.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// What of a product one may ask for.
pub(super) fn offer(record: &Record) -> Offer<'_> {
    Offer {
        name: text(record, "name"),
        species: text(record, "species"),
        category: text(record, "category"),
        description: text(record, "description"),
        price_minor: integer(record, "price_minor"),
        stock: integer(record, "stock"),
    }
}

impl Place {
    pub(super) fn of(record: &Record, sort: Sort) -> Self {
        let price = integer(record, "price_minor");
        let (number, name) = match sort {
            Sort::Created => (0, String::new()),
            Sort::Price => (price, String::new()),
            Sort::PriceDown => (price.saturating_neg(), String::new()),
            Sort::Name => (0, text(record, "name").to_lowercase()),
        };
        let id = text(record, "id").to_owned();
        Self {
            sort,
            number,
            text: name,
            created_ms: integer(record, "created_ms"),
            id_bytes: id.len(),
            id,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use serde_json::json;
    use service::catalogue::Asked;
    use service::currency::Currency;
    use service::problem::Result;
    use service::query::Query;

    use super::*;

    fn product(id: &str, name: &str, price_minor: i64) -> Record {
        let Value::Object(record) = json!({
            "id": id,
            "name": name,
            "species": "dog",
            "category": "pets",
            "price_minor": price_minor,
            "stock": 1,
            "created_ms": 5,
        }) else {
            unreachable!("it is an object");
        };
        record
    }

    /// The ids of what fits, in order.
    fn asked(query: &str) -> Result<Vec<String>> {
        let products = [
            product("10", "Ada", 300),
            product("9", "bert", 100),
            product("2", "Cleo", 200),
        ];
        let uri: Uri = format!("/products?{query}").parse().unwrap();
        let asked = Asked::of(&Query::of(&uri), Currency::EUR)?;
        let taken = products.iter().filter(|record| asked.takes(&offer(record)));
        let mut places: Vec<Place> = taken.map(|record| Place::of(record, asked.sort)).collect();
        places.sort();
        Ok(places.into_iter().map(|place| place.id).collect())
    }

    #[test]
    fn products_are_asked_for_in_the_words_of_the_shop() {
        let cases: [(&str, &[&str]); 12] = [
            ("", &["2", "9", "10"]),
            ("sort=price", &["9", "2", "10"]),
            ("sort=-price", &["10", "2", "9"]),
            ("sort=name", &["10", "9", "2"]),
            ("minPrice=2", &["2", "10"]),
            ("maxPrice=2.00", &["2", "9"]),
            ("maxPrice=20e-1", &["2", "9"]),
            ("minPrice=1.01&maxPrice=2.99", &["2"]),
            ("q=BERT", &["9"]),
            ("q=pets", &["2", "9", "10"]),
            ("species=+Dog+&inStock=1&category=", &["2", "9", "10"]),
            ("inStock=0", &[]),
        ];
        for (query, ids) in cases {
            assert_eq!(asked(query).unwrap(), ids, "{query}");
        }
        assert_eq!(asked("minPrice=cheap").unwrap_err().status(), 400);
    }
}
