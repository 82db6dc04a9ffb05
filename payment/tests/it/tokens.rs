//! Card tokens: for one payment, for a while, and useless to whoever changes them.

use std::time::Duration;

use insta::assert_snapshot;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, wait_for};
use crate::system::{EMPTY, MASTERCARD, System, VISA, ask, order, pay, told};

async fn tokenize(system: &System, body: &Value) -> Answer {
    system.browse(Method::POST, "/v1/tokens", body).await
}

fn with_token(token: &str, amount: f64) -> Value {
    let mut body = order(VISA, amount, "manual");
    body.as_object_mut().unwrap().remove("card_number");
    body["token"] = json!(token);
    body
}

async fn token(system: &System, card: &str) -> String {
    let made = tokenize(system, &json!({"card_number": card}))
        .await
        .expect(201)
        .json();
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_pays_once() {
    let system = System::start().await;
    let merchant = system.merchant();
    let whole = json!({"card_number": VISA, "exp_month": 12, "exp_year": 2099, "cvc": "123"});
    assert_snapshot!(told(&tokenize(&system, &whole).await), @r#"
    201
    {"brand":"visa","last4":"4242","token":"[token]"}
    "#);
    let one = token(&system, VISA).await;
    let body = with_token(&one, 10.0);
    pay(&merchant, "p1", &body).await.expect(201);
    // The same payment again, by the token or by the card, is that payment.
    pay(&merchant, "p1", &body).await.expect(200);
    pay(&merchant, "p1", &order(VISA, 10.0, "manual"))
        .await
        .expect(200);
    let other = token(&system, VISA).await;
    pay(&merchant, "p1", &with_token(&other, 10.0)).await.expect(200);
    assert_snapshot!(told(&pay(&merchant, "p2", &body).await), @r#"
    402
    {"code":"card-declined","decline_code":"token-used","detail":"The card token was used for another payment.","request_id":"[request_id]","status":402,"title":"Card declined","type":"/problems/card-declined"}
    "#);
    pay(&merchant, "p2", &body).await.refused(402, "card-declined");
    pay(&merchant, "p3", &with_token(&other, 1.0)).await.expect(201);
    assert_eq!(system.balance(VISA).await, (1_000_000 - 1100, 1100));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decline_leaves_the_token() {
    let system = System::start().await;
    let merchant = system.merchant();
    let token = token(&system, EMPTY).await;
    let declined = pay(&merchant, "p1", &with_token(&token, 1.0))
        .await
        .refused(402, "card-declined");
    assert_eq!(declined.json()["decline_code"], "insufficient-funds");
    crate::cards::open(&system.operator(), EMPTY, 1.0)
        .await
        .expect(200);
    pay(&merchant, "p2", &with_token(&token, 1.0)).await.expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_runs_out() {
    let system = System::start_with(1, 1, |config| {
        config.token_s = 1;
        config.hold_s = 2;
        config.sweep_every_ms = 50;
    })
    .await;
    let merchant = system.merchant();
    let (used, unused) = (token(&system, VISA).await, token(&system, MASTERCARD).await);
    pay(&merchant, "used", &with_token(&used, 1.0)).await.expect(201);
    let expired = wait_for("the token to run out", async || {
        // Each look is a payment of its own.
        let id = format!("p{}", service::time::now_ms());
        let answer = pay(&merchant, &id, &with_token(&unused, 600.0))
            .await
            .refused(402, "card-declined");
        let code = answer.json()["decline_code"].clone();
        if code == "token-expired" {
            Ok(answer)
        } else {
            Err(code)
        }
    })
    .await;
    assert_snapshot!(told(&expired), @r#"
    402
    {"code":"card-declined","decline_code":"token-expired","detail":"The card token can no longer be used.","request_id":"[request_id]","status":402,"title":"Card declined","type":"/problems/card-declined"}
    "#);
    // What was paid in time is still repeated.
    pay(&merchant, "used", &with_token(&used, 1.0)).await.expect(200);
    // What was due after the token's end is swept; the mark stays, since by another clock the token is not at its end.
    wait_for("the hold to be swept", async || {
        let metrics = merchant.get("/metrics").await.expect(200).text();
        if metrics.contains("payment_swept_total{kind=\"hold\"} 1") {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    let root = system.cluster.client(0);
    let due = root.get("/v1/kv?prefix=pay/due/").await.expect(200).text();
    assert_eq!(due.matches("/token/").count(), 1, "{due}");
    tokio::time::timeout(Duration::from_secs(20), system.stop())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_are_looked_at_before_a_token_is_made() {
    let system = System::start().await;
    let cases = [
        (
            json!({"card_number": "4242424242424243"}),
            "invalid-card-number",
            "/card_number",
        ),
        (
            json!({"card_number": "9999999999999995"}),
            "unsupported-brand",
            "/card_number",
        ),
        (
            json!({"card_number": VISA, "exp_month": 1, "exp_year": 2020}),
            "expired-card",
            "/exp_year",
        ),
        (
            json!({"card_number": VISA, "exp_month": 0, "exp_year": 2099}),
            "invalid-request",
            "/exp_month",
        ),
        (
            json!({"card_number": VISA, "exp_month": 5}),
            "invalid-request",
            "/exp_year",
        ),
        (
            json!({"card_number": VISA, "cvc": "12"}),
            "invalid-request",
            "/cvc",
        ),
        (
            json!({"card_number": VISA, "cvc": 123}),
            "invalid-request",
            "/cvc",
        ),
        (json!({}), "invalid-request", "/card_number"),
    ];
    for (body, code, pointer) in cases {
        let refused = tokenize(&system, &body).await.refused(422, code);
        assert_eq!(refused.pointers(), [pointer], "{body}");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_of_other_origins_may_make_tokens_but_not_payments() {
    let system = System::start().await;
    let made = tokenize(&system, &json!({"card_number": VISA})).await.expect(201);
    assert_eq!(made.header("access-control-allow-origin"), "*");
    let asked = system.browse(Method::OPTIONS, "/v1/tokens", &json!({})).await;
    assert_eq!(asked.status, 200);
    assert_eq!(asked.header("access-control-allow-methods"), "POST");
    let paid = ask(
        &system.merchant(),
        Method::PUT,
        "/v1/payments/p",
        &order(VISA, 1.0, "manual"),
    )
    .await;
    assert_eq!(paid.expect(201).header("access-control-allow-origin"), "");
    system.stop().await;
}
