//! Which products are asked for, and in which order: the same words as the shop's.
//! Invariant: what is no such word is refused; it is never taken for a question that asks for everything.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::problem::Result;
use service::query::{Query, malformed};

use super::money::minor;
use crate::copy::Record;

/// Everything left out asks for nothing in particular.
#[derive(Debug, Default)]
pub(super) struct Filter {
    category: Option<String>,
    species: Option<String>,
    in_stock: Option<bool>,
    /// In lower case.
    words: Option<String>,
    price_minor_min: Option<i64>,
    price_minor_max: Option<i64>,
    pub(super) sort: Sort,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Sort {
    #[default]
    Created,
    Price,
    PriceDown,
    Name,
}

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

impl Filter {
    pub(super) fn of(query: &Query<'_>, currency: &str) -> Result<Self> {
        let word = |name: &str| -> Result<Option<String>> {
            let text = query.text(name)?.filter(|text| !text.trim().is_empty());
            Ok(text.map(|text| text.trim().to_lowercase()))
        };
        let price = |name: &str| -> Result<Option<i64>> {
            let Some(text) = query.text(name)?.filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            let amount = minor(&text, currency);
            let detail = || format!("The parameter `{name}` is an amount of {currency}, such as 20.");
            amount.map(Some).ok_or_else(|| malformed(detail()))
        };
        let in_stock = query.text("inStock")?.filter(|text| !text.is_empty());
        let sort = match query.text("sort")?.as_deref() {
            None | Some("" | "created") => Sort::Created,
            Some("price") => Sort::Price,
            Some("-price") => Sort::PriceDown,
            Some("name") => Sort::Name,
            Some(_) => {
                return Err(malformed(
                    "The parameter `sort` is price, -price, name or created.",
                ));
            }
        };
        Ok(Self {
            category: word("category")?,
            species: word("species")?,
            in_stock: in_stock.map(|_| query.flag("inStock")).transpose()?,
            words: word("q")?,
            price_minor_min: price("minPrice")?,
            price_minor_max: price("maxPrice")?,
            sort,
        })
    }

    pub(super) fn takes(&self, record: &Record) -> bool {
        let same = |wanted: &Option<String>, name: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| *wanted == text(record, name).to_lowercase())
        };
        let found = |words: &String| {
            ["name", "species", "category", "description"]
                .into_iter()
                .any(|name| text(record, name).to_lowercase().contains(words))
        };
        let price = integer(record, "price_minor");
        same(&self.category, "category")
            && same(&self.species, "species")
            && self
                .in_stock
                .is_none_or(|wanted| wanted == (integer(record, "stock") > 0))
            && self.price_minor_min.is_none_or(|min| price >= min)
            && self.price_minor_max.is_none_or(|max| price <= max)
            && self.words.as_ref().is_none_or(found)
    }
}

impl Sort {
    pub(super) fn place(self, record: &Record) -> Place {
        let price = integer(record, "price_minor");
        let (number, name) = match self {
            Self::Created => (0, String::new()),
            Self::Price => (price, String::new()),
            Self::PriceDown => (price.saturating_neg(), String::new()),
            Self::Name => (0, text(record, "name").to_lowercase()),
        };
        let id = text(record, "id").to_owned();
        Place {
            sort: self,
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
        let filter = Filter::of(&Query::of(&uri), "EUR")?;
        let taken = products.iter().filter(|record| filter.takes(record));
        let mut places: Vec<Place> = taken.map(|record| filter.sort.place(record)).collect();
        places.sort();
        Ok(places.into_iter().map(|place| place.id).collect())
    }

    #[test]
    fn products_are_asked_for_in_the_words_of_the_shop() {
        let cases: [(&str, &[&str]); 11] = [
            ("", &["2", "9", "10"]),
            ("sort=price", &["9", "2", "10"]),
            ("sort=-price", &["10", "2", "9"]),
            ("sort=name", &["10", "9", "2"]),
            ("minPrice=2", &["2", "10"]),
            ("maxPrice=2.00", &["2", "9"]),
            ("minPrice=1.01&maxPrice=2.99", &["2"]),
            ("q=BERT", &["9"]),
            ("q=pets", &["2", "9", "10"]),
            ("species=+Dog+&inStock=1&category=", &["2", "9", "10"]),
            ("inStock=0", &[]),
        ];
        for (query, ids) in cases {
            assert_eq!(asked(query).unwrap(), ids, "{query}");
        }
        for query in ["minPrice=cheap", "maxPrice=1.005", "sort=age", "inStock=maybe"] {
            assert_eq!(asked(query).unwrap_err().status(), 400, "{query}");
        }
    }
}
