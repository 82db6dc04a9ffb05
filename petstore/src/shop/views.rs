//! Puts goods, carts and orders into the words of the contract.
//! Invariant: the prices stand twice, as a decimal for people and as minor units for programs, and never as a float.

use axum::http::HeaderValue;
use payment_client::{Currency, Money};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::shelf::{Good, Shelf};
use crate::domain::{Line, Product, segment};
use crate::store::{CartRecord, OrderRecord};

#[derive(Serialize)]
pub(crate) struct ProductView<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) species: &'a str,
    pub(crate) category: &'a str,
    pub(crate) description: &'a str,
    pub(crate) price: Box<RawValue>,
    pub(crate) price_minor: i64,
    pub(crate) currency: &'static str,
    pub(crate) stock: i64,
    #[serde(rename = "inStock")]
    pub(crate) in_stock: bool,
    pub(crate) image: String,
    pub(crate) created: String,
}

#[derive(Serialize)]
pub(crate) struct PetView<'a> {
    id: &'a str,
    name: &'a str,
    species: &'a str,
    price: Box<RawValue>,
    price_minor: i64,
    currency: &'static str,
    available: bool,
    image: String,
}

#[derive(Serialize)]
pub(crate) struct CartView {
    user_id: String,
    items: Vec<CartItem>,
    total: Box<RawValue>,
    pub(crate) total_minor: i64,
    currency: &'static str,
}

#[derive(Serialize)]
struct CartItem {
    #[serde(rename = "productId")]
    product_id: String,
    quantity: i64,
    /// How many pieces there are.
    available: i64,
    product: Box<RawValue>,
    subtotal: Box<RawValue>,
    subtotal_minor: i64,
}

/// What a cart still says of a product that is gone from the shelves. It costs nothing, for it cannot be ordered: the
/// prices of a cart make its total.
#[derive(Serialize)]
struct GoneView<'a> {
    id: &'a str,
    name: String,
    price: Box<RawValue>,
    price_minor: i64,
    currency: &'static str,
    stock: i64,
    #[serde(rename = "inStock")]
    in_stock: bool,
}

#[derive(Serialize)]
pub(crate) struct OrderView {
    pub(crate) order_id: String,
    #[serde(rename = "orderId")]
    order_id_again: String,
    user_id: String,
    items: Vec<OrderItem>,
    total: Box<RawValue>,
    total_minor: i64,
    currency: String,
    pub(crate) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<PaymentView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decline_code: Option<String>,
    created: String,
    changed: String,
}

#[derive(Serialize)]
struct OrderItem {
    #[serde(rename = "productId")]
    product_id: String,
    name: String,
    species: String,
    quantity: i64,
    price: Box<RawValue>,
    price_minor: i64,
    subtotal: Box<RawValue>,
    subtotal_minor: i64,
}

#[derive(Serialize)]
struct PaymentView {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    brand: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last4: Option<String>,
}

/// RFC 3339, to the millisecond.
pub(crate) fn time(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339)
        .unwrap_or_else(|_| OffsetDateTime::UNIX_EPOCH.to_string())
}

/// One picture for each species that somebody drew, another one for all others.
pub(crate) fn image(product: &Product) -> String {
    let word = if product.species.is_empty() {
        "other".to_owned()
    } else {
        product.species.to_lowercase()
    };
    format!("/pictures/{}.svg", segment(&word))
}

pub(crate) fn product(good: &Good, currency: Currency) -> ProductView<'_> {
    let product = &good.product;
    ProductView {
        id: &good.id,
        name: &product.name,
        species: &product.species,
        category: &product.category,
        description: &product.description,
        price: Money::new(product.price_minor, currency).to_json(),
        price_minor: product.price_minor,
        currency: currency.code(),
        stock: good.stock,
        in_stock: good.stock > 0,
        image: image(product),
        created: time(product.created_ms),
    }
}

pub(crate) fn pet(good: &Good, currency: Currency) -> PetView<'_> {
    let product = &good.product;
    PetView {
        id: &good.id,
        name: &product.name,
        species: &product.species,
        price: Money::new(product.price_minor, currency).to_json(),
        price_minor: product.price_minor,
        currency: currency.code(),
        available: good.stock > 0,
        image: image(product),
    }
}

/// The cart with what its products are now, and with those that are gone, which have to be taken out of it.
pub(crate) fn cart(user: &str, cart: &CartRecord, shelf: &Shelf, currency: Currency) -> CartView {
    let mut items = Vec::with_capacity(cart.items.len());
    let mut total_minor = 0_i64;
    for (id, quantity) in &cart.items {
        let good = shelf.get(id);
        let subtotal_minor = good.map_or(0, |good| good.product.price_minor.saturating_mul(*quantity));
        total_minor = total_minor.saturating_add(subtotal_minor);
        let seen = match good {
            Some(good) => to_raw_value(&product(good, currency)),
            None => to_raw_value(&gone(id, cart.name(id), currency)),
        };
        items.push(CartItem {
            product_id: id.clone(),
            quantity: *quantity,
            available: good.map_or(0, |good| good.stock),
            product: seen.expect("answers have only text keys and plain values"),
            subtotal: Money::new(subtotal_minor, currency).to_json(),
            subtotal_minor,
        });
    }
    CartView {
        user_id: user.to_owned(),
        items,
        total: Money::new(total_minor, currency).to_json(),
        total_minor,
        currency: currency.code(),
    }
}

fn gone(id: &str, name: String, currency: Currency) -> GoneView<'_> {
    GoneView {
        id,
        name,
        price: Money::new(0, currency).to_json(),
        price_minor: 0,
        currency: currency.code(),
        stock: 0,
        in_stock: false,
    }
}

pub(crate) fn order(user: &str, id: &str, record: &OrderRecord) -> OrderView {
    // The currency of the order, which the shop may have changed since.
    let currency = record.currency.parse().unwrap_or(Currency::EUR);
    let money = |minor| Money::new(minor, currency).to_json();
    let item = |line: &Line| {
        let subtotal_minor = line.unit_minor.saturating_mul(line.quantity);
        OrderItem {
            product_id: line.product.clone(),
            name: line.name.clone(),
            species: line.species.clone(),
            quantity: line.quantity,
            price: money(line.unit_minor),
            price_minor: line.unit_minor,
            subtotal: money(subtotal_minor),
            subtotal_minor,
        }
    };
    OrderView {
        order_id: id.to_owned(),
        order_id_again: id.to_owned(),
        user_id: user.to_owned(),
        items: record.lines.iter().map(item).collect(),
        total: money(record.total_minor),
        total_minor: record.total_minor,
        currency: record.currency.clone(),
        status: record.status.word(),
        payment: record.payment.as_ref().map(|payment| PaymentView {
            id: payment.id.clone(),
            brand: payment.brand.clone(),
            last4: payment.last4.clone(),
        }),
        decline_code: record.decline.clone(),
        created: time(record.created_ms),
        changed: time(record.changed_ms),
    }
}

/// A revision as `ETag` writes it.
pub(crate) fn tag(revision: u64) -> HeaderValue {
    let tag = kvstore_client::wire::headers::etag(revision);
    HeaderValue::try_from(tag).expect("digits in quotes are a header value")
}
