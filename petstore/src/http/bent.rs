//! Requests that no honest caller sends. There is no store any more once the shop is open: what is understood waits
//! for one.
//! Invariant: each is understood or refused.

use std::sync::{Arc, OnceLock};

use axum::Router;
use payment_client::{Currency, Money, PaymentClient};
use service::config::{ShopAuth, ShopConfig};
use service::edge;
use service::metrics::Metrics;
use service::secrets::Secret;
use service::tasks::Tasks;

use super::{App, Counters, router};
use crate::bent_requests::{feed_requests, runtime};
use crate::nowhere::empty_catalogue;
use crate::points::Points;
use crate::shop::{Parts, Place, Shop};
use crate::store::{Keys, Store};

const OPERATOR: &str = "the token of the operator";
const SECRET: &str = "a secret for these tests";

async fn app(auth: ShopAuth) -> Router {
    let metrics = Metrics::new();
    let counters = Counters::new(&metrics);
    let config = ShopConfig {
        auth,
        // Orders that are understood stay, since nothing drives them.
        orders_at_once: 1 << 20,
        ..ShopConfig::default()
    };
    let keys = Keys::of_shop(&config.name);
    let (client, catalogue) = empty_catalogue(&keys).await;
    let payment = PaymentClient::builder(["127.0.0.1:1"], "the token of the merchant").build();
    let shop = Shop::new(Parts {
        store: Store::new(client, keys, config.answer_s * 1000),
        catalogue,
        payment: payment.expect("it is an address"),
        config: config.clone(),
        waits_max: 1,
        currency: Currency::EUR,
        amount_minor_max: Money::MINOR_MAX,
        instance: "shop1-0".to_owned(),
        secret: Secret::new(SECRET),
        points: Points::none(),
        tasks: Tasks::new(),
        closing: Tasks::new(),
        counted: counters.orders.clone(),
    });
    let app = App {
        shop: Arc::new(OnceLock::from(shop)),
        config,
        name: "shop1".to_owned(),
        operator_token: Secret::new(OPERATOR),
        metrics,
        counters,
    };
    edge::wrap(router(app), "shop1")
}

fn feed_app(auth: ShopAuth, whole: &[String]) {
    let runtime = runtime();
    let app = runtime.block_on(app(auth));
    let _entered = runtime.enter();
    feed_requests(&app, whole);
}

/// Of the operator, with an idempotency key.
fn request(line: &str, body: &str) -> String {
    format!("{line}\nauthorization: Bearer {OPERATOR}\nidempotency-key: k-1\n\n{body}")
}

/// Of anybody.
fn bare(head: &str, body: &str) -> String {
    format!("{head}\n\n{body}")
}

#[test]
fn products() {
    let product = r#"{"name": "Rex", "species": "dog", "category": "pets", "description": "a\nb",
        "price": 299.99, "stock": 3.0, "inStock": true}"#;
    let change = request("PUT /products/1", r#"{"price": 1e2, "stock": 0, "name": null}"#);
    feed_app(
        ShopAuth::Accounts,
        &[
            request("POST /products", product),
            request("POST /pets", product),
            change.replacen('\n', "\nif-match: \"7\"\n", 1),
            request("DELETE /products/1", ""),
        ],
    );
}

#[test]
fn users() {
    let user = r#"{"username": "Ada Löve", "password": "12345678"}"#;
    let key = "\nidempotency-key: k-1";
    feed_app(
        ShopAuth::Accounts,
        &[
            bare(&format!("POST /users{key}"), user),
            bare("POST /login\nhost: a\norigin: http://a", user),
            bare(
                "POST /logout\ncookie: a=1; ps=ps_abc; b\nhost: a\nsec-fetch-site: same-origin",
                r#"{"everywhere": true}"#,
            ),
            bare("GET /me\ncookie: ps=ps_abc", ""),
        ],
    );
}

#[test]
fn carts() {
    feed_app(
        ShopAuth::Accounts,
        &[
            request("POST /cart/u%201", r#"{"productId": 12, "quantity": 1000}"#),
            request("POST /cart/u1", r#"{"productId": "a-b"}"#),
            request("PUT /cart/u1/item/1", r#"{"quantity": 0}"#),
            request("DELETE /cart/u1/item/1", ""),
            request("DELETE /cart/u1", ""),
        ],
    );
}

const ORDER: &str = r#"{"userId": "u1", "cardNumber": "4242424242424242", "expectedTotal": 12.50,
    "items": [{"productId": "1", "quantity": 999}, {"productId": 1}]}"#;

#[test]
fn orders() {
    let order_id = "0123456789abcdef".repeat(2);
    feed_app(
        ShopAuth::Accounts,
        &[
            request("POST /orders\nprefer: a, respond-async", ORDER),
            request(
                "POST /orders",
                r#"{"userId": 7, "paymentToken": "tok_x", "products": [{"productId": 1, "quantity": 2}]}"#,
            ),
            request(&format!("POST /orders/u1/{order_id}/cancel"), ""),
        ],
    );
}

#[test]
fn orders_where_everybody_is_trusted() {
    feed_app(
        ShopAuth::Open,
        &[
            bare("POST /orders", r#"{"items": [{"productId": 1}]}"#),
            bare("POST /orders\nidempotency-key: k", ORDER),
            bare("POST /cart/guest", r#"{"productId": "1", "quantity": 2}"#),
        ],
    );
}

/// Of a walk, which the shop gave out.
fn cursor() -> String {
    let place = Place {
        revision: 12,
        shown: 50,
    };
    place.cursor(&Secret::new(SECRET))
}

#[test]
fn queries() {
    let cursor = cursor();
    feed_app(
        ShopAuth::Accounts,
        &[
            bare(
                "GET /products?q=a+b%C3%A9&category=pets&minPrice=1.50&maxPrice=1e3&inStock=true&sort=-price",
                "",
            ),
            bare(
                &format!("GET /pets?limit=200&cursor={cursor}&species=dog&sort=name"),
                "",
            ),
            bare("GET /products/1\nif-none-match: W/\"7\", \"8\"", ""),
            request("GET /orders/u1?limit=1&cursor=x", ""),
            request(
                "GET /events?userId=u1&since=18446744073709551615\nlast-event-id: 7",
                "",
            ),
        ],
    );
}

/// Their fields are read behind the first look into the store: see `pages::bent`.
#[test]
fn pages() {
    let form = "content-type: application/x-www-form-urlencoded\nhost: a\norigin: http://a";
    let fields = "action=add&product=1&quantity=2&key=k";
    feed_app(
        ShopAuth::Accounts,
        &[
            bare(&format!("GET /?q=a+b&sort=price&cursor={}", cursor()), ""),
            bare("GET /shop/sign-in?next=%2Fshop%2Fcart", ""),
            bare("GET /shop/cart\ncookie: ps=ps_abc", ""),
            bare(&format!("POST /shop/cart\n{form}"), fields),
            bare(&format!("POST /shop/checkout\n{form}"), fields),
            bare(
                &format!("POST /shop/sign-in\n{form}"),
                "username=ada&password=x&next=%2F",
            ),
            bare(&format!("POST /shop/sign-out\n{form}\ncookie: ps=ps_abc"), ""),
        ],
    );
}
