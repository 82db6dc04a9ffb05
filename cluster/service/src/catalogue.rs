//! What is asked for of the goods, in the words of `GET /products`: of the shop, and of a mirror that stands in for it.
//! Invariant: a question means the same whoever answers it. What is no such word is refused; it is never taken for a
//! question that asks for everything.

use serde::{Deserialize, Serialize};

use crate::currency::Currency;
use crate::money::Money;
use crate::problem::Result;
use crate::query::{Query, malformed};

/// Everything left out asks for nothing in particular. All words are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub category: Option<String>,
    pub species: Option<String>,
    pub in_stock: Option<bool>,
    pub words: Option<String>,
    pub price_minor_min: Option<i64>,
    pub price_minor_max: Option<i64>,
    pub sort: Sort,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    #[default]
    Created,
    Price,
    PriceDown,
    Name,
}

/// What of one of the goods is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer<'offer> {
    pub name: &'offer str,
    pub species: &'offer str,
    pub category: &'offer str,
    pub description: &'offer str,
    pub price_minor: i64,
    pub stock: i64,
}

impl Asked {
    pub fn of(query: &Query<'_>, currency: Currency) -> Result<Self> {
        let word = |name: &str| -> Result<Option<String>> {
            let text = query.text(name)?.filter(|text| !text.trim().is_empty());
            Ok(text.map(|text| text.trim().to_lowercase()))
        };
        let price = |name: &str| -> Result<Option<i64>> {
            let Some(text) = query.text(name)?.filter(|text| !text.is_empty()) else {
                return Ok(None);
            };
            let money = Money::of_literal(&text, currency);
            let money = money.map_err(|fault| malformed(format!("The parameter `{name}` {fault}.")))?;
            Ok(Some(money.minor))
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

    pub fn takes(&self, offer: &Offer<'_>) -> bool {
        let same = |wanted: &Option<String>, given: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(given) || *wanted == given.to_lowercase())
        };
        let found = |words: &String| {
            [offer.name, offer.species, offer.category, offer.description]
                .into_iter()
                .any(|given| given.to_lowercase().contains(words))
        };
        same(&self.category, offer.category)
            && same(&self.species, offer.species)
            && self.in_stock.is_none_or(|wanted| wanted == (offer.stock > 0))
            && self.price_minor_min.is_none_or(|min| offer.price_minor >= min)
            && self.price_minor_max.is_none_or(|max| offer.price_minor <= max)
            && self.words.as_ref().is_none_or(found)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    fn asked(query: &str) -> Result<Asked> {
        let uri: Uri = format!("/products?{query}").parse().unwrap();
        Asked::of(&Query::of(&uri), Currency::EUR)
    }

    #[test]
    fn a_price_is_what_json_takes_for_a_number() {
        let taken = [
            ("20", 2000),
            ("2.00", 200),
            ("0.1000", 10),
            ("1e2", 10_000),
            ("1.5E%2B1", 1500),
            ("29999e-2", 29_999),
            ("0", 0),
            ("-0", 0),
        ];
        for (text, minor) in taken {
            let read = asked(&format!("minPrice={text}&maxPrice={text}")).unwrap();
            let prices = (read.price_minor_min, read.price_minor_max);
            assert_eq!(prices, (Some(minor), Some(minor)), "{text}");
        }
        let refused = [
            "cheap", "1.005", "1e-3", "-1", "%2B1", "02", ".5", "5.", "1,5", "0x10", "1_000", "1e", "NaN",
            "1e400",
        ];
        for text in refused {
            for name in ["minPrice", "maxPrice"] {
                let fault = asked(&format!("{name}={text}")).unwrap_err();
                assert_eq!(fault.status(), 400, "{name}={text}");
            }
        }
    }

    #[test]
    fn what_is_no_word_of_the_shop_is_refused() {
        for query in [
            "sort=age",
            "sort=Price",
            "inStock=maybe",
            "q=a&q=b",
            "species=%FF",
        ] {
            assert_eq!(asked(query).unwrap_err().status(), 400, "{query}");
        }
        for query in ["", "category=&species=+&inStock=&q=&minPrice=&maxPrice=&sort="] {
            assert_eq!(asked(query).unwrap(), Asked::default(), "{query}");
        }
        assert_eq!(asked("sort=-price").unwrap().sort, Sort::PriceDown);
    }

    #[test]
    fn only_what_fits_is_taken() {
        let offer = Offer {
            name: "Ähre",
            species: "Hase",
            category: "pets",
            description: "soft",
            price_minor: 200,
            stock: 1,
        };
        for query in [
            "",
            "species=+hASE+",
            "category=PETS",
            "q=%C3%A4h",
            "q=SOFT",
            "inStock=1",
            "minPrice=2&maxPrice=2e0",
        ] {
            assert!(asked(query).unwrap().takes(&offer), "{query}");
        }
        for query in [
            "species=has",
            "category=food",
            "q=hard",
            "inStock=0",
            "minPrice=2.01",
            "maxPrice=199e-2",
        ] {
            assert!(!asked(query).unwrap().takes(&offer), "{query}");
        }
    }
}
