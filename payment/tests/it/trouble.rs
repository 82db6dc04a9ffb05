//! Answers that only trouble brings about: a store that hangs up, and operators in each other's way.

use insta::assert_snapshot;
use reqwest::Method;
use serde_json::json;
use service::tasks::Tasks;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use payment::Moment::BeforeCommit;

use crate::system::{System, VISA, ask, cancel, capture, order, pay, refund, told};

/// Reads what it is asked and hangs up, so that nobody knows whether it was done.
async fn hang_up(listener: TcpListener, stop: Tasks) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.stopping() => return,
        };
        let (mut stream, _) = accepted.unwrap();
        let mut asked = [0; 16 * 1024];
        let _read = stream.read(&mut asked).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_up_leaves_the_outcome_open() {
    let mut system = System::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tasks = Tasks::new();
    let store = tasks.spawn("store", hang_up(listener, tasks.clone()));
    system.start_instance_at(address, |config| config.request_ms_max = 300);
    let client = system.at(1, "merchant");
    // It goes straight to a write, which may have been done.
    let unknown = pay(&client, "p", &order(VISA, 1.0, "manual")).await;
    assert_snapshot!(told(&unknown), @r#"
    503
    retry-after: 1
    {"code":"outcome-unknown","detail":"The store could not say whether this was done. Repeated with the same Idempotency-Key it is done once at most; without one, look first whether it was.","request_id":"[request_id]","status":503,"title":"Outcome unknown","type":"/problems/outcome-unknown"}
    "#);
    let simple = json!({"card_number": VISA, "amount": 1});
    let unknown = ask(&client, Method::POST, "/payments", &simple).await;
    // Without a key nobody but the service knows the id, so it is told: by it one can look, or bury the payment.
    let unknown = unknown.refused(503, "outcome-unknown").json();
    let id = unknown["payment_id"].as_str().unwrap();
    let other = system.merchant();
    other
        .get(&format!("/v1/payments/{id}"))
        .await
        .refused(404, "payment-not-found");
    cancel(&other, id).await.expect(200);
    let request = client.request(Method::POST, "/payments").json(&simple);
    let keyed = client.send(request.header("idempotency-key", "key")).await;
    assert!(keyed.refused(503, "outcome-unknown").json()["payment_id"].is_null());
    // Whatever begins with a read has done nothing.
    let nothing = capture(&client, "p", &json!({})).await;
    assert_snapshot!(told(&nothing), @r#"
    503
    retry-after: 1
    {"code":"not-ready","detail":"The store cannot be reached at the moment. Nothing was done.","request_id":"[request_id]","status":503,"title":"Not ready","type":"/problems/not-ready"}
    "#);
    cancel(&client, "p").await.refused(503, "not-ready");
    refund(&client, "p", "r", json!(1))
        .await
        .refused(503, "not-ready");
    client.get("/v1/payments/p").await.refused(503, "not-ready");
    client.get("/v1/payments").await.refused(503, "not-ready");
    client.get("/v1/ledger/check").await.refused(503, "not-ready");
    let card = json!({"card_number": VISA, "currency": "EUR", "balance": 1});
    ask(&client, Method::POST, "/v1/cards/balance", &card)
        .await
        .refused(503, "not-ready");
    ask(&system.at(1, "operator"), Method::PUT, "/v1/cards", &card)
        .await
        .refused(503, "not-ready");
    // Repeated where the store answers, it is done once.
    pay(&system.merchant(), "p", &order(VISA, 1.0, "manual"))
        .await
        .expect(201);
    tasks.stop();
    store.await.unwrap();
    system.stop_instance(1).await;
    system.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_in_each_others_way_are_told_so_in_the_end() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let wish = |balance: i64| json!({"card_number": VISA, "currency": "EUR", "balance": balance});
    let (slow, fast) = (system.at(0, "operator"), system.at(1, "operator"));
    let trap = system.trap(0);
    trap.arm("card", BeforeCommit);
    let slow = Tasks::new().spawn("slow", async move {
        ask(&slow, Method::PUT, "/v1/cards", &wish(7)).await
    });
    for round in 1..=16 {
        trap.caught().await;
        ask(&fast, Method::PUT, "/v1/cards", &wish(1000 + round))
            .await
            .expect(200);
        if round < 16 {
            trap.arm("card", BeforeCommit);
        }
        trap.release();
    }
    let refused = slow.await.unwrap();
    assert_snapshot!(told(&refused), @r#"
    409
    {"code":"conflict","detail":"The card was changed by others again and again; read its balance and decide anew.","request_id":"[request_id]","status":409,"title":"Conflict","type":"/problems/conflict"}
    "#);
    assert_eq!(system.balance(VISA).await, (101_600, 0));
    system.stop().await;
}
