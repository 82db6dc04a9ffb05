//! Requests that no honest caller sends, and rows that no shop makes. What is understood waits for the copy or the store.
//! Invariant: each is understood or refused, and whatever a row holds can be shown.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kvstore_client::KvClient;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use service::catalogue::{Asked, Sort};
use service::config::{Config, MirrorConfig, MirrorEngine, MirrorMode, OnLoss};
use service::edge;
use service::metrics::Metrics;
use service::query::Query;
use service::secrets::Secrets;
use tower::ServiceExt as _;

use super::{App, goods, orders, paging, products, router};
use crate::bent::feed;
use crate::bent_requests::{feed_requests, runtime};
use crate::copy::{self, Record};
use crate::heard::heard;
use crate::progress::Progress;
use crate::run::Settings;
use crate::writer::Orders;

const NAME: &str = "mirror-one";
const OF_PRODUCTS: &str =
    r#"{"sort":"price-down","number":-29999,"text":"","created_ms":5,"id_bytes":1,"id":"7"}"#;
const OF_ORDERS: &str = r#"{"id":"7"}"#;

/// Of an empty copy, which nobody brings up to date; and the token of the operator.
pub(super) fn mirror(folder: &Path, config: Config) -> (Router, String) {
    let (app, operator) = mirror_at(folder, config, 7);
    (edge::wrap(router(app), NAME), operator)
}

/// The same before it is served; it says of itself that it is at this revision.
pub(super) fn mirror_at(folder: &Path, config: Config, revision: u64) -> (App, String) {
    let own = MirrorConfig {
        name: NAME.to_owned(),
        address: "127.0.0.1:0".to_owned(),
        engine: MirrorEngine::Json,
        mode: MirrorMode::Sync,
        on_loss: OnLoss::Degrade,
        interval_ms: 20,
    };
    let secrets = Secrets::generate().expect("the operating system has random bytes to give");
    let settings = Settings {
        config,
        name: NAME.to_owned(),
        address: own.address.clone(),
        data: folder.to_owned(),
        secrets: secrets.clone(),
    };
    let client = KvClient::builder(["127.0.0.1:1"]).build();
    let client = client.expect("it is an address");
    let (_writer, reader) = copy::open(folder, own.engine, own.mode, 0).expect("it is made");
    let progress = Arc::new(Progress::new(revision, "0123456789abcdef".to_owned()));
    let (orders, _nobody) = Orders::new();
    let metrics = Metrics::new();
    let app = App::new(
        &settings,
        own,
        client,
        Arc::new(reader),
        progress,
        orders,
        metrics,
    );
    let app = app.expect("the secrets are whole");
    let operator = secrets.token("operator").expect("they are whole");
    (app, operator.expose().to_owned())
}

fn cursor(place: &[u8]) -> String {
    format!("m.copy.one.{}", URL_SAFE_NO_PAD.encode(place))
}

#[test]
fn requests() {
    let runtime = runtime();
    let _entered = runtime.enter();
    // The one thread that reads the copy, so that nobody is told what it has: that hangs on who is quicker.
    let (over, lasts) = std::sync::mpsc::channel::<()>();
    let _busy = runtime.spawn_blocking(move || lasts.recv().is_err());
    let folder = tempfile::tempdir().expect("there is a folder for it");
    let (router, operator) = mirror(folder.path(), Config::default());
    let [products, orders] = [OF_PRODUCTS, OF_ORDERS].map(|place| cursor(place.as_bytes()));
    let whole = [
        format!(
            "GET /products?q=a+b&species=%C3%A9&inStock=1&sort=-price&minPrice=2.5&limit=200&cursor={products}\n\n"
        ),
        "GET /products/7%2F8\n\n".to_owned(),
        "PUT /products/7\ncontent-type: application/json\nif-match: \"7\"\n\n{\"price\": 2.50}".to_owned(),
        "POST /orders\nidempotency-key: k\nconnection: close\n\n{\"items\": []}".to_owned(),
        "DELETE /cart/u1/items/7?since=1\n\n".to_owned(),
        format!("GET /orders/u%2F1?limit=2&cursor={orders}\nauthorization: Bearer {operator}\n\n"),
        "GET /orders/u1\nauthorization: Bearer somebody\ncookie: session=x\n\n".to_owned(),
        format!("GET /metrics\nauthorization: Bearer {operator}\n\n"),
        "GET /status\n\n".to_owned(),
        "POST /sync\n\n".to_owned(),
        "GET /verify\n\n".to_owned(),
        "GET /readyz\n\n".to_owned(),
    ];
    feed_requests(&router, &whole);
    drop(over);
}

/// There is no shop at the address that the configuration knows.
#[test]
fn what_somebody_asked_for_is_not_logged() {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("there is a folder for it");
    let told = heard(|| {
        let status = runtime.block_on(async {
            let mut config = Config::default();
            config.shop.addresses = vec!["127.0.0.1:1".to_owned()];
            let (router, _operator) = mirror(folder.path(), config);
            let request = Request::post("/orders?note=a-secret").body(Body::empty());
            let answer = router.oneshot(request.expect("it is a request")).await;
            answer.expect("a router cannot fail").status()
        });
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    });
    assert!(told.contains("an instance of the shop gave no answer"), "{told}");
    assert!(!told.contains("a-secret"), "{told}");
}

/// Answers whether it is a place in such a list.
fn is_place<P: DeserializeOwned>(cursor: &str) -> bool {
    let target = format!("/list?cursor={}", utf8_percent_encode(cursor, NON_ALPHANUMERIC));
    let target: Uri = target.parse().expect("all that is odd is encoded");
    match paging::after::<P>(&Query::of(&target)) {
        Ok(place) => place.is_some(),
        Err(refused) => {
            assert!(refused.status().is_client_error(), "{refused}");
            false
        }
    }
}

#[test]
fn cursors() {
    let places = |cursor: &str| {
        [
            is_place::<goods::Place>(cursor),
            is_place::<orders::Place>(cursor),
        ]
    };
    let whole = [OF_PRODUCTS, OF_ORDERS].map(|place| place.as_bytes().to_vec());
    let told = whole.each_ref().map(|place| places(&cursor(place)));
    assert_eq!(told, [[true, false], [false, true]]);
    let given = whole.each_ref().map(|place| cursor(place).into_bytes());
    feed(&[whole, given].concat(), |bytes| {
        places(&cursor(bytes));
        places(&String::from_utf8_lossy(bytes));
    });
}

/// Shows it as a product and as an order with itself for a line, in every order.
fn show(record: &Record) {
    let mut views = Vec::new();
    for currency in ["EUR", "JPY", "none"] {
        views.push(products::view(record, currency));
    }
    views.push(orders::view(record, std::slice::from_ref(record)));
    for sort in [Sort::Created, Sort::Price, Sort::PriceDown, Sort::Name] {
        let place = goods::Place::of(record, sort);
        assert_eq!(place.sort, sort);
    }
    let asked = Asked {
        words: Some("a".to_owned()),
        ..Asked::default()
    };
    asked.takes(&goods::offer(record));
    let two = vec![record.clone(), record.clone()];
    let (page, last) = orders::shown(two, 1);
    assert!(page.len() == 1 && last.is_some());
    assert!(serde_json::to_vec(&views).is_ok());
}

#[test]
fn rows_that_are_shown() {
    let product = r#"{"id": "7", "name": "Rex", "species": "Dog/é", "category": "pets", "description": "good",
        "price_minor": 29999, "stock": 3, "created_ms": 1700000000000}"#;
    let order = r#"{"id": "5", "user_id": "u", "status": "paid", "total_minor": 5, "currency": "KWD", "created_ms": 1,
        "changed_ms": -9223372036854775808, "product_id": "7", "unit_minor": 9223372036854775807, "quantity": 2}"#;
    let record = |bytes: &[u8]| serde_json::from_slice::<Record>(bytes);
    let whole = [product, order].map(|text| text.as_bytes().to_vec());
    assert!(whole.iter().all(|text| record(text).is_ok()));
    feed(&whole, |bytes| {
        if let Ok(record) = record(bytes) {
            show(&record);
        }
    });
}
