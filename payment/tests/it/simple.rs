//! `POST /payments`: one call that checks and charges.

use futures_util::future::join_all;
use insta::assert_snapshot;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Client};
use crate::system::{AMEX, BLOCKED, STRANGER, System, VISA, ask, told};

async fn charge(client: &Client, body: &Value, key: Option<&str>) -> Answer {
    let mut request = client.request(Method::POST, "/payments").json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    client.send(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_is_charged_in_one_call() {
    let system = System::start().await;
    let body = json!({"card_number": AMEX, "amount": 12.5});
    let paid = system.browse(Method::POST, "/payments", &body).await.expect(201);
    let (id, mut shown) = (paid.json()["id"].as_str().unwrap().to_owned(), paid.json());
    assert_eq!(paid.header("location"), format!("/v1/payments/{id}"));
    shown["id"] = json!("[id]");
    shown["created"] = json!("[created]");
    assert_snapshot!(shown.to_string(), @r#"{"amount":12.5,"amount_minor":1250,"brand":"amex","capture":"automatic","captured":12.5,"captured_minor":1250,"created":"[created]","currency":"EUR","id":"[id]","last4":"0005","merchant":"demo","refunded":0.0,"refunded_minor":0,"status":"captured"}"#);
    assert_eq!(system.balance(AMEX).await, (3750, 0));
    // Without a key each call is a payment of its own.
    let client = system.merchant();
    charge(&client, &body, None).await.expect(201);
    let poor = charge(&client, &json!({"card_number": AMEX, "amount": 25.01}), None).await;
    assert_snapshot!(told(&poor), @r#"
    402
    {"code":"card-declined","decline_code":"insufficient-funds","detail":"The card does not have this much available.","request_id":"[request_id]","status":402,"title":"Card declined","type":"/problems/card-declined"}
    "#);
    let wrong = charge(&client, &json!({"card_number": "1234", "amount": "12"}), None).await;
    assert_snapshot!(told(&wrong), @r#"
    422
    {"code":"invalid-card-number","detail":"The JSON can be read, but is not what this route takes; `errors` lists every fault.","errors":[{"detail":"is no valid card number","pointer":"/card_number"},{"detail":"must be a number, such as 299.99","pointer":"/amount"}],"request_id":"[request_id]","status":422,"title":"Invalid card number","type":"/problems/invalid-card-number"}
    "#);
    let strange = charge(&client, &json!({"card_number": STRANGER, "amount": 1}), None).await;
    assert_eq!(
        strange.refused(402, "card-declined").json()["decline_code"],
        "unknown-card"
    );
    assert_eq!(system.balance(AMEX).await, (2500, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_makes_it_one_charge() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let body = json!({"card_number": VISA, "amount": 10});
    let answers = join_all((0..20).map(|n| {
        let (client, body) = (system.at(n % 2, "merchant"), body.clone());
        async move { charge(&client, &body, Some("key-1")).await.expect(201) }
    }))
    .await;
    let first: Vec<_> = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_empty())
        .collect();
    assert_eq!(first.len(), 1);
    assert!(answers.iter().all(|answer| answer.body == first[0].body));
    assert_eq!(system.balance(VISA).await, (999_000, 0));
    let client = system.merchant();
    let other = charge(
        &client,
        &json!({"card_number": VISA, "amount": 11}),
        Some("key-1"),
    )
    .await;
    assert_snapshot!(told(&other), @r#"
    422
    {"code":"idempotency-key-reused","detail":"This Idempotency-Key was used for another request.","request_id":"[request_id]","status":422,"title":"Idempotency key reused","type":"/problems/idempotency-key-reused"}
    "#);
    // The key of another caller is another key.
    charge(&system.operator(), &body, Some("key-1")).await.expect(201);
    assert_eq!(system.balance(VISA).await, (998_000, 0));
    let poor = json!({"card_number": AMEX, "amount": 100});
    charge(&client, &poor, Some("key-2"))
        .await
        .refused(402, "card-declined");
    let again = charge(&client, &poor, Some("key-2"))
        .await
        .refused(402, "card-declined");
    assert_eq!(again.header("idempotent-replayed"), "true");
    charge(&client, &body, Some("with space"))
        .await
        .refused(400, "malformed-parameter");
    charge(&client, &body, Some(""))
        .await
        .refused(400, "malformed-parameter");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_is_never_overdrawn() {
    let system = System::start_with(1, 2, |_config| {}).await;
    // Fifty euros, and a hundred try to take one each at the same time.
    let statuses = join_all((0..100).map(|n| {
        let client = system.at(n % 2, "merchant");
        async move {
            charge(&client, &json!({"card_number": AMEX, "amount": 1}), None)
                .await
                .status
        }
    }))
    .await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 50);
    assert_eq!(statuses.iter().filter(|status| **status == 402).count(), 50);
    assert_eq!(system.balance(AMEX).await, (0, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decline_that_nobody_can_ask_for_leaves_no_trace() {
    let system = System::start().await;
    let root = system.cluster.client(0);
    let mut yen = json!({"card_number": VISA, "amount": 1});
    yen["currency"] = json!("JPY");
    for (body, code) in [
        (
            json!({"card_number": AMEX, "amount": 50.01}),
            "insufficient-funds",
        ),
        (json!({"card_number": STRANGER, "amount": 1}), "unknown-card"),
        (json!({"card_number": BLOCKED, "amount": 1}), "blocked"),
        (yen, "currency-mismatch"),
    ] {
        let declined = system.browse(Method::POST, "/payments", &body).await;
        let declined = declined.refused(402, "card-declined");
        assert_eq!(declined.json()["decline_code"], code);
        assert_eq!(declined.header("idempotent-replayed"), "");
    }
    for prefix in ["pay/payment/", "pay/order/"] {
        let rows = root.get(&format!("/v1/kv?prefix={prefix}")).await.expect(200);
        assert_eq!(rows.json()["kvs"], json!([]));
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_name_neither_merchant_nor_order() {
    let system = System::start().await;
    let body = json!({"card_number": VISA, "amount": 1, "merchant": "shop", "order_ref": "a\nb"});
    let paid = system.browse(Method::POST, "/payments", &body).await.expect(201);
    assert_eq!(paid.json()["merchant"], "demo");
    assert_eq!(paid.json()["order_ref"], json!(null));
    // With a token both count, and must be names.
    let refused = charge(&system.merchant(), &body, None).await;
    assert_eq!(refused.refused(422, "invalid-request").pointers(), ["/order_ref"]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_merchant_and_currency_can_be_named() {
    let system = System::start().await;
    let yen = json!({"card_number": STRANGER, "currency": "JPY", "balance": 500});
    ask(&system.operator(), Method::PUT, "/v1/cards", &yen)
        .await
        .expect(201);
    let body = json!({"card_number": STRANGER, "amount": 499, "currency": "JPY", "merchant": "izakaya"});
    let paid = charge(&system.merchant(), &body, None).await.expect(201);
    assert!(
        paid.text()
            .contains("\"amount\":499,\"amount_minor\":499,\"currency\":\"JPY\""),
        "{}",
        paid.text()
    );
    let check = system.check().await;
    assert_eq!(check["currencies"].as_array().unwrap().len(), 2, "{check}");
    system.stop().await;
}
