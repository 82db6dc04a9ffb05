//! Cards: opened, brought to a balance, blocked, asked for their balance.

use futures_util::future::join_all;
use insta::assert_snapshot;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Client};
use crate::system::{AMEX, BLOCKED, STRANGER, System, VISA, ask, order, pay, told};

pub(crate) async fn open(client: &Client, card: &str, balance: f64) -> Answer {
    let body = json!({"card_number": card, "currency": "EUR", "balance": balance});
    ask(client, Method::PUT, "/v1/cards", &body).await
}

async fn balance(client: &Client, body: &Value) -> Answer {
    ask(client, Method::POST, "/v1/cards/balance", body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_is_opened_and_brought_to_a_balance() {
    let system = System::start().await;
    let operator = system.operator();
    assert_snapshot!(told(&open(&operator, STRANGER, 20.5).await), @r#"
    201
    {"balance":20.5,"balance_minor":2050,"card":{"brand":"discover","currency":"EUR","id":"[card]","last4":"1117","status":"active"}}
    "#);
    assert_snapshot!(told(&balance(&operator, &json!({"card_number": STRANGER})).await), @r#"
    200
    {"balance":20.5,"balance_minor":2050,"brand":"discover","currency":"EUR","held_minor":0,"id":"[card]","last4":"1117","status":"active"}
    "#);
    assert_snapshot!(told(&open(&operator, STRANGER, 30.0).await), @r#"
    200
    {"balance":30.0,"balance_minor":3000,"card":{"brand":"discover","currency":"EUR","id":"[card]","last4":"1117","status":"active"}}
    "#);
    assert_eq!(system.balance(STRANGER).await, (3000, 0));
    open(&operator, STRANGER, 30.0).await.expect(200);
    // What is held is not available, and a lower balance goes back to where it came from.
    pay(&system.merchant(), "p", &order(STRANGER, 10.0, "manual"))
        .await
        .expect(201);
    open(&operator, STRANGER, 5.0).await.expect(200);
    assert_eq!(system.balance(STRANGER).await, (500, 1000));
    open(&operator, STRANGER, 0.0).await.expect(200);
    assert_eq!(system.balance(STRANGER).await, (0, 1000));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_keeps_its_currency_and_can_be_blocked() {
    let system = System::start().await;
    let (operator, merchant) = (system.operator(), system.merchant());
    let yen = json!({"card_number": VISA, "currency": "JPY", "balance": 1});
    assert_snapshot!(told(&ask(&operator, Method::PUT, "/v1/cards", &yen).await), @r#"
    409
    {"code":"card-currency-fixed","detail":"This card is kept in EUR.","request_id":"[request_id]","status":409,"title":"Card has another currency","type":"/problems/card-currency-fixed"}
    "#);
    let blocked = json!({"card_number": VISA, "currency": "EUR", "balance": 10, "status": "blocked"});
    let answer = ask(&operator, Method::PUT, "/v1/cards", &blocked)
        .await
        .expect(200);
    assert_eq!(answer.json()["card"]["status"], "blocked");
    let declined = pay(&merchant, "p1", &order(VISA, 1.0, "manual")).await;
    assert_eq!(
        declined.refused(402, "card-declined").json()["decline_code"],
        "blocked"
    );
    // A top-up alone does not unblock it.
    open(&operator, VISA, 20.0).await.expect(200);
    pay(&merchant, "p2", &order(VISA, 1.0, "manual"))
        .await
        .refused(402, "card-declined");
    let active = json!({"card_number": VISA, "currency": "EUR", "balance": 20, "status": "active"});
    ask(&operator, Method::PUT, "/v1/cards", &active)
        .await
        .expect(200);
    pay(&merchant, "p3", &order(VISA, 1.0, "manual"))
        .await
        .expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cards_for_trying_out_are_those_of_the_contract() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let mut seen = String::new();
    for (number, minor, status) in payment::DEMO_CARDS {
        let body = balance(&system.merchant(), &json!({"card_number": number}))
            .await
            .expect(200)
            .json();
        assert_eq!(body["balance_minor"], minor);
        assert_eq!(body["status"], serde_json::to_value(status).unwrap());
        seen = format!(
            "{seen}{} {} {} {}\n",
            body["brand"], body["last4"], body["balance"], body["status"]
        );
    }
    assert_snapshot!(seen, @r#"
    "visa" "4242" 10000.0 "active"
    "mastercard" "4444" 500.0 "active"
    "amex" "0005" 50.0 "active"
    "visa" "9995" 0.0 "active"
    "visa" "0002" 0.0 "blocked"
    "#);
    // They are opened once: what is spent stays spent when another instance starts.
    pay(&system.merchant(), "p", &order(AMEX, 50.0, "automatic"))
        .await
        .expect(201);
    let mut system = system;
    system.stop_instance(1).await;
    assert_eq!(system.balance(AMEX).await, (0, 0));
    system.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_card_has_no_balance() {
    let system = System::start().await;
    let client = system.merchant();
    assert_snapshot!(told(&balance(&client, &json!({"card_number": STRANGER})).await), @r#"
    404
    {"code":"unknown-card","detail":"No card with this number was ever opened here.","request_id":"[request_id]","status":404,"title":"Unknown card","type":"/problems/unknown-card"}
    "#);
    assert_snapshot!(told(&balance(&client, &json!({"card_number": "4242 4242 4242 4241"})).await), @r#"
    422
    {"code":"invalid-card-number","detail":"The JSON can be read, but is not what this route takes; `errors` lists every fault.","errors":[{"detail":"is no valid card number","pointer":"/card_number"}],"request_id":"[request_id]","status":422,"title":"Invalid card number","type":"/problems/invalid-card-number"}
    "#);
    balance(&client, &json!({})).await.refused(422, "invalid-request");
    balance(&client, &json!({"card_number": 4_242_424_242_424_242_u64}))
        .await
        .refused(422, "invalid-request");
    balance(&client, &json!({"card_number": "1000000000000008"}))
        .await
        .refused(422, "unsupported-brand");
    assert_eq!(
        balance(&client, &json!({"card_number": BLOCKED}))
            .await
            .expect(200)
            .json()["status"],
        "blocked"
    );
    let negative = open(&system.operator(), VISA, -1.0)
        .await
        .refused(422, "invalid-request");
    assert_eq!(negative.pointers(), ["/balance"]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_fund_a_card_once() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let opened = join_all((0..16).map(|n| {
        let operator = system.at(n % 2, "operator");
        async move { open(&operator, STRANGER, 100.0).await.status }
    }))
    .await;
    assert_eq!(
        opened.iter().filter(|status| **status == 201).count(),
        1,
        "{opened:?}"
    );
    assert!(
        opened.iter().all(|status| [200, 201].contains(status)),
        "{opened:?}"
    );
    assert_eq!(system.balance(STRANGER).await, (10_000, 0));
    system.stop().await;
}
