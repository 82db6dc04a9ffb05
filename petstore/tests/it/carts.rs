//! Carts: adding, setting, removing, and what they show.

use futures_util::future::join_all;
use insta::assert_snapshot;
use reqwest::Method;
use serde_json::{Value, json};

use super::system::{System, VISA, ask};

/// Quantities by product, and the sum.
fn shown(cart: &Value) -> String {
    let items = cart["items"].as_array().unwrap().iter();
    let items = items.map(|item| {
        let name = item["product"]["name"].as_str().unwrap();
        format!(
            "{} × {name} ({}) = {}",
            item["quantity"], item["productId"], item["subtotal"]
        )
    });
    let items: Vec<String> = items.collect();
    format!("{}: {} {}", items.join(", "), cart["total"], cart["currency"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_filled_and_emptied() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let cart = format!("/cart/{ada}");
    let item = |product: &str| format!("{cart}/item/{product}");
    let mut told = Vec::new();
    let mut note = |answer: crate::harness::Answer| told.push(shown(&answer.expect(200).json()));
    note(client.get(&cart).await);
    note(client.post(&cart, &json!({"productId": 6, "quantity": 2})).await);
    note(client.post(&cart, &json!({"productId": "6"})).await);
    note(
        client
            .post(&cart, &json!({"productId": "1", "quantity": 1}))
            .await,
    );
    note(ask(&client, Method::PUT, &item("6"), &json!({"quantity": 7})).await);
    note(client.delete(&item("1")).await);
    note(client.delete(&item("1")).await);
    note(ask(&client, Method::PUT, &item("6"), &json!({"quantity": 0})).await);
    note(
        client
            .post(&cart, &json!({"productId": "2", "quantity": 3}))
            .await,
    );
    note(client.delete(&cart).await);
    assert_snapshot!(told.join("\n"), @r#"
    : 0.0 "EUR"
    2 × Bubbles ("6") = 9.98: 9.98 "EUR"
    3 × Bubbles ("6") = 14.97: 14.97 "EUR"
    3 × Bubbles ("6") = 14.97, 1 × Mia ("1") = 129.0: 143.97 "EUR"
    7 × Bubbles ("6") = 34.93, 1 × Mia ("1") = 129.0: 163.93 "EUR"
    7 × Bubbles ("6") = 34.93: 34.93 "EUR"
    7 × Bubbles ("6") = 34.93: 34.93 "EUR"
    : 0.0 "EUR"
    3 × Rex ("2") = 899.97: 899.97 "EUR"
    : 0.0 "EUR"
    "#);
    client
        .post(&cart, &json!({"productId": "99"}))
        .await
        .refused(404, "product-not-found");
    for body in [
        json!({}),
        json!({"productId": "6", "quantity": 0}),
        json!({"productId": "6", "quantity": -1}),
        json!({"productId": "6", "quantity": 1001}),
        json!({"productId": "6", "quantity": 1.5}),
        json!({"productId": "6", "quantity": "2"}),
        json!({"productId": [6]}),
    ] {
        client.post(&cart, &body).await.refused(422, "invalid-request");
    }
    system.stop().await;
}

/// Some programs write all numbers with a point.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_quantity_is_taken_in_either_writing() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let cart = format!("/cart/{ada}");
    for quantity in [json!(2), json!(2.0)] {
        let line = json!({"productId": "6", "quantity": quantity});
        let added = client.post(&cart, &line).await.expect(200).json();
        let item = format!("{cart}/item/6");
        let set = ask(&client, Method::PUT, &item, &json!({"quantity": quantity})).await;
        let set = set.expect(200).json();
        let body = json!({"items": [line], "cardNumber": VISA});
        let made = client.post("/orders", &body).await.expect(201).json();
        for told in [added, set, made] {
            assert_eq!(told["items"][0]["quantity"], 2, "{quantity}: {told}");
        }
        client.delete(&cart).await.expect(200);
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_the_shelves_is_told_and_can_be_taken_out() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let cart = format!("/cart/{ada}");
    let product = system.product("Fad", 1.0, 5).await;
    let mut item = json!({"productId": product});
    client.post(&cart, &item).await.expect(200);
    client.post(&cart, &json!({"productId": "6"})).await.expect(200);
    let off = format!("/products/{product}");
    system.operator().delete(&off).await.expect(200);
    let seen = client.get(&cart).await.expect(200).json();
    let gone = format!("1 × Fad (\"{product}\") = 0.0");
    assert_eq!(
        shown(&seen),
        format!("{gone}, 1 × Bubbles (\"6\") = 4.99: 4.99 \"EUR\"")
    );
    let available = seen["items"].as_array().unwrap().iter();
    let available: Vec<_> = available.map(|item| &item["available"]).collect();
    assert_eq!(available, [&json!(0), &json!(40)]);
    // An order of the cart says so in place of silently leaving it out.
    let refused = client
        .post("/orders", &json!({"cardNumber": VISA}))
        .await
        .refused(409, "out-of-stock");
    item["name"] = json!("Fad");
    item["available"] = json!(0);
    assert_eq!(refused.json()["lines"], json!([item]));
    let left = client.delete(&format!("{cart}/item/{product}")).await;
    assert_eq!(
        shown(&left.expect(200).json()),
        "1 × Bubbles (\"6\") = 4.99: 4.99 \"EUR\""
    );
    client
        .post("/orders", &json!({"cardNumber": VISA}))
        .await
        .expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_write_at_the_same_time_all_count() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("ada").await;
    let clients = [client.clone(), system.at(1, &client)];
    let (cart, body) = (format!("/cart/{ada}"), json!({"productId": "6"}));
    let adds = (0..20).map(|n| clients[n % 2].post(&cart, &body));
    for answer in join_all(adds).await {
        answer.expect(200);
    }
    assert_eq!(
        client.get(&cart).await.expect(200).json()["items"][0]["quantity"],
        20
    );
    system.stop().await;
}
