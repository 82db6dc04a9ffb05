//! Hostile input: markup, tricks in paths, absurd numbers. It is kept harmlessly or refused clearly, and never more.

use reqwest::Method;
use serde_json::json;

use super::system::{System, VISA, ask, order};

const MARKUP: &str = "<script>alert(1)</script>\"'&amp;${7*7}{{7*7}}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markup_is_text() {
    let system = System::start().await;
    let client = system.operator();
    let body =
        json!({"name": MARKUP, "description": MARKUP, "category": "<b>", "species": "../../etc", "price": 1});
    let made = client.post("/products", &body).await.expect(201).json();
    assert_eq!(
        (&made["name"], &made["image"]),
        (&json!(MARKUP), &json!("/pictures/..%2F..%2Fetc.svg"))
    );
    let seen = client.get("/products?q=%3Cscript").await.expect(200);
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.json()[0]["name"], MARKUP);
    let picture = client.get(made["image"].as_str().unwrap()).await.expect(200);
    assert!(picture.text().contains("A paw"));
    let (_, user) = system.user("<i>ada</i>").await;
    assert_eq!(user.get("/me").await.expect(200).json()["username"], "<i>ada</i>");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tricks_in_paths_lead_nowhere() {
    let system = System::start().await;
    let client = system.operator();
    for id in [
        "..%2f..%2fpay",
        "1%00",
        "1%2Frecord",
        "%F0%9F%90%88",
        "1;2",
        "-",
        "1%20",
    ] {
        client
            .get(&format!("/products/{id}"))
            .await
            .refused(404, "product-not-found");
        let target = format!("/cart/ada/item/{id}");
        ask(&client, Method::PUT, &target, &json!({"quantity": 1}))
            .await
            .refused(404, "product-not-found");
    }
    for user in ["%00", "a%0Ab", "%20ada"] {
        client
            .get(&format!("/cart/{user}"))
            .await
            .refused(422, "invalid-request");
    }
    client.get("/cart/%FF").await.refused(400, "malformed-parameter");
    // A user of a strange name has a cart of that name, and no other's.
    let strange = "/cart/a%2F..%2Fb";
    client.post(strange, &json!({"productId": "6"})).await.expect(200);
    let root = system.cluster.client(0);
    let rows = root
        .get("/v1/kv?prefix=shop/menagerie/live/cart/")
        .await
        .expect(200)
        .json();
    assert_eq!(rows["kvs"][0]["key"], "shop/menagerie/live/cart/a%2F..%2Fb");
    for order in ["x", "../1", &"G".repeat(32)] {
        let target = format!("/orders/ada/{}", order.replace('/', "%2F"));
        client.get(&target).await.refused(404, "order-not-found");
    }
    client.get("/nothing").await.refused(404, "not-found");
    let refused = ask(&client, Method::PUT, "/hello", &json!({}))
        .await
        .refused(405, "method-not-allowed");
    assert_eq!(refused.header("allow"), "GET,HEAD");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_orders_are_refused() {
    let system = System::start().await;
    let (_, client) = system.user("ada").await;
    for quantity in [
        json!(0),
        json!(-1),
        json!(1001),
        json!(1e30),
        json!(i64::MAX),
        json!("1"),
        json!(0.5),
    ] {
        let body = json!({"items": [{"productId": "6", "quantity": quantity}], "cardNumber": VISA});
        client
            .post("/orders", &body)
            .await
            .refused(422, "invalid-request");
    }
    let line = json!({"productId": "6", "quantity": 600});
    for items in [
        json!([]),
        json!({}),
        json!("6"),
        json!([6]),
        // Each in its order, as an object has them.
        json!([["6", 2]]),
        json!([line, line]),
        json!(vec![line.clone(); 101]),
    ] {
        let body = json!({"items": items, "cardNumber": VISA});
        client
            .post("/orders", &body)
            .await
            .refused(422, "invalid-request");
    }
    // A sum that no card could pay, and that must not overflow.
    let mut items = Vec::new();
    for n in 0..20 {
        let body = json!({"name": format!("Palace {n}"), "price": 1_000_000, "stock": 1000});
        let made = system
            .operator()
            .post("/products", &body)
            .await
            .expect(201)
            .json();
        items.push(json!({"productId": made["id"], "quantity": 1000}));
    }
    let body = json!({"items": items, "cardNumber": VISA});
    client
        .post("/orders", &body)
        .await
        .refused(422, "invalid-request");
    let body = json!({"items": items[..1], "cardNumber": VISA});
    client.post("/orders", &body).await.refused(402, "card-declined");
    client.post("/orders", &order("6", 1, VISA)).await.expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_read_strictly() {
    let system = System::start().await;
    let (_, client) = system.user("ada").await;
    let long = "x".repeat(70_000);
    client
        .post("/orders", &json!({ "note": long }))
        .await
        .refused(413, "too-large");
    for (kind, body, status, code) in [
        ("text/plain", "{}", 415, "unsupported-media-type"),
        ("application/json", "{\"items\": [", 400, "malformed-json"),
    ] {
        let request = client.request(Method::POST, "/orders").body(body);
        let answer = client.send(request.header("content-type", kind)).await;
        answer.refused(status, code);
    }
    system.stop().await;
}
