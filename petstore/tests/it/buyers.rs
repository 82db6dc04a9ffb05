//! Many buyers at the same time: exactly what there is is sold, and not one more.

use futures_util::future::join_all;
use serde_json::json;

use super::system::{System, VISA, order};

const BUYERS: usize = 200;
const ANIMALS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_buyers_for_fifty_animals() {
    let system = System::start_with(3, 2, |config| config.auth = service::config::ShopAuth::Open).await;
    let clients = [system.operator_at(0), system.operator_at(1)];
    let product = system
        .product("Kitten", 1.0, i64::try_from(ANIMALS).unwrap())
        .await;
    let before = system.balance(VISA).await.0;
    let buyers = (0..BUYERS).map(|n| {
        let mut body = order(&product, 1, VISA);
        body["userId"] = json!(format!("buyer-{n}"));
        let client = &clients[n % 2];
        async move { client.post("/orders", &body).await }
    });
    let answers = join_all(buyers).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    // An order may still be on its way; that it is one of the fifty is what counts.
    assert_eq!((count(201) + count(202), count(409)), (ANIMALS, BUYERS - ANIMALS));
    for answer in answers.iter().filter(|answer| answer.status == 409) {
        assert_eq!(answer.code(), "out-of-stock");
    }
    system.settled().await;
    assert_eq!(system.stock(&product).await, 0);
    assert_eq!(system.balance(VISA).await, (before - 5000, 0));
    system.stop().await;
}

/// Several products in one order, in any order of lines: nobody waits for anybody, and all or nothing is sold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_over_several_products_take_all_or_nothing() {
    let system = System::start_with(1, 2, |config| config.auth = service::config::ShopAuth::Open).await;
    let clients = [system.operator_at(0), system.operator_at(1)];
    let mut products = Vec::new();
    for n in 0..4 {
        products.push(system.product(&format!("Part {n}"), 2.0, 30).await);
    }
    let buyers = (0..120).map(|n| {
        let lines: Vec<_> = (0..3)
            .map(|k| json!({"productId": products[(n * 7 + k * (1 + n % 3)) % 4], "quantity": 1}))
            .collect();
        let body = json!({"userId": format!("b{n}"), "items": lines});
        let client = &clients[n % 2];
        async move { client.post("/orders", &body).await }
    });
    let mut sold = 0;
    for answer in join_all(buyers).await {
        match answer.status {
            201 => {
                let body = answer.json();
                assert_eq!(body["status"], "confirmed");
                for item in body["items"].as_array().unwrap() {
                    sold += item["quantity"].as_i64().unwrap();
                }
            }
            _ => drop(answer.refused(409, "out-of-stock")),
        }
    }
    let mut left = 0;
    for product in &products {
        left += system.stock(product).await;
    }
    assert_eq!(sold + left, 120);
    assert!(sold >= 60, "only {sold} were sold");
    system.stop().await;
}
