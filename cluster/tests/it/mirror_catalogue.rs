//! The catalogue out of a mirror: it says what the shop says, and goes on saying it while the store has no leader.

use serde_json::{Value, json};
use service::config::{MirrorEngine, MirrorMode, OnLoss, ShopAuth};

use crate::harness::{Cluster, SOON, free_ports, wait_until};
use crate::mirror::{NAME, ask, with_mirror};

/// What one may write for a price, and what one may not.
const PRICES: [&str; 14] = [
    "299.99", "299.990", "29999e-2", "3e2", "3E%2B2", "-0", "0299.99", ".5", "300.", "299.995", "-1",
    "%2B300", "1e400", "cheap",
];

fn mirror_of(cluster: &Cluster) -> String {
    format!("http://{}", cluster.config.mirrors[0].address)
}

/// The ids of all products from this price on, or what is said against it.
async fn from_price(cluster: &Cluster, base: &str, price: &str) -> Value {
    let url = format!("{base}/products?limit=200&minPrice={price}");
    let answer = cluster.http.get(url).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let said: Value = match body.as_array() {
        Some(products) => products.iter().map(|product| product["id"].clone()).collect(),
        None => json!([body["code"], body["detail"]]),
    };
    json!([status, said])
}

async fn says_what_the_shop_says(cluster: &Cluster) {
    let shop = format!("http://{}", cluster.config.shop.addresses[0]);
    let mirror = mirror_of(cluster);
    for price in PRICES {
        // The copy may be a moment behind.
        wait_until("the mirror to say what the shop says", SOON, async || {
            let said = from_price(cluster, &shop, price).await;
            let copied = from_price(cluster, &mirror, price).await;
            (said == copied)
                .then_some(())
                .ok_or(format!("{price}: {said} {copied}"))
        })
        .await;
    }
}

/// The classroom's lines, against the mirror: the shop makes the product, the copy shows it.
async fn make_a_tablet(cluster: &Cluster) -> String {
    let mirror = mirror_of(cluster);
    let tablet = json!({"name": "Tablet", "price": 299.99, "stock": 3});
    let making = cluster.http.post(format!("{mirror}/products")).json(&tablet);
    let made = making.send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    cluster.http.post(format!("{mirror}/sync")).send().await.unwrap();
    let copied = ask(cluster, &format!("/products/{id}")).await.unwrap();
    assert_eq!(
        (copied["price_minor"].as_i64(), copied["stock"].as_i64()),
        (Some(29_999), Some(3))
    );
    id
}

#[tokio::test]
async fn the_catalogue_is_read_from_a_mirror_while_the_store_has_no_leader() {
    let mut cluster = with_mirror(MirrorMode::Async, OnLoss::Degrade, MirrorEngine::Sqlite);
    let mut addresses = free_ports(4).into_iter().map(|port| format!("127.0.0.1:{port}"));
    cluster.config.gateway.address = addresses.next().unwrap();
    cluster.config.shop.addresses = addresses.by_ref().take(1).collect();
    cluster.config.payment.addresses = addresses.collect();
    cluster.config.shop.auth = ShopAuth::Open;
    cluster.write_config();
    cluster.up().await;
    let id = make_a_tablet(&cluster).await;
    says_what_the_shop_says(&cluster).await;
    let gateway = format!("http://{}", cluster.config.gateway.address);
    wait_until("the gateway to know all", SOON, async || {
        let asking = cluster.http.get(format!("{gateway}/services")).send().await;
        let answer = asking.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        (text.contains(NAME) && text.contains("shop1"))
            .then_some(())
            .ok_or(text)
    })
    .await;
    cluster.kill("n1").await;
    cluster.kill("n2").await;
    for path in ["/products".to_owned(), format!("/products/{id}")] {
        wait_until("an answer of the mirror", SOON, async || {
            let answer = cluster.http.get(format!("{gateway}{path}")).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            let served = answer
                .headers()
                .get("x-served-by")
                .map(|name| name.to_str().unwrap().to_owned());
            let seen = format!("{} by {served:?}", answer.status());
            (answer.status() == 200 && served.as_deref() == Some(NAME))
                .then_some(())
                .ok_or(seen)
        })
        .await;
    }
}
