//! `Idempotency-Key` on every write: the first answer, whoever asks again and at whichever instance.

use futures_util::future::join_all;
use insta::assert_snapshot;
use reqwest::Method;
use serde_json::{Value, json};

use payment::Moment::BeforeCommit;

use crate::harness::{Answer, Client, wait_for};
use crate::system::{EMPTY, STRANGER, System, VISA, cancel, order, pay, told};

async fn keyed(client: &Client, method: Method, target: &str, body: &Value, key: &str) -> Answer {
    let request = client.request(method, target).json(body);
    client.send(request.header("idempotency-key", key)).await
}

/// A key is one, whatever the route.
async fn refuses_the_keys_of_other_routes(client: &Client) {
    let simple = json!({"card_number": VISA, "amount": 2});
    for (target, body, key) in [
        ("/payments", &simple, "key-0"),
        ("/payments", &simple, "key-4"),
        ("/v1/payments/p9/cancel", &json!({}), "key-6"),
        ("/v1/payments/p9/cancel", &json!({}), "key-7"),
    ] {
        let refused = keyed(client, Method::POST, target, body, key).await;
        refused.refused(422, "idempotency-key-reused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_answers_again_what_it_answered() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (here, there) = (system.at(0, "merchant"), system.at(1, "merchant"));
    let card = json!({"card_number": VISA, "currency": "EUR", "balance": 77});
    let writes = [
        (Method::PUT, "/v1/payments/p1", order(VISA, 10.0, "manual"), 201),
        (Method::POST, "/v1/payments/p1/capture", json!({"amount": 9}), 200),
        (
            Method::PUT,
            "/v1/payments/p1/refunds/r1",
            json!({"amount": 1}),
            201,
        ),
        (Method::PUT, "/v1/payments/p2", order(EMPTY, 10.0, "manual"), 402),
        (Method::POST, "/v1/payments/p3/cancel", json!({}), 200),
        (Method::PUT, "/v1/cards", card, 200),
        (
            Method::POST,
            "/payments",
            json!({"card_number": VISA, "amount": 2}),
            201,
        ),
        (
            Method::POST,
            "/payments",
            json!({"card_number": EMPTY, "amount": 2}),
            402,
        ),
    ];
    for (n, (method, target, body, status)) in writes.into_iter().enumerate() {
        let (here, there) = if target == "/v1/cards" {
            (system.at(0, "operator"), system.at(1, "operator"))
        } else {
            (here.clone(), there.clone())
        };
        let key = format!("key-{n}");
        let first = keyed(&here, method.clone(), target, &body, &key)
            .await
            .expect(status);
        assert_eq!(first.header("idempotent-replayed"), "", "{target}");
        let again = keyed(&there, method.clone(), target, &body, &key)
            .await
            .expect(status);
        assert_eq!(again.header("idempotent-replayed"), "true", "{target}");
        if status < 300 {
            assert_eq!(again.text(), first.text(), "{target}");
        }
        let mut other = body.clone();
        other["other"] = json!(1);
        let refused = keyed(&there, method, target, &other, &key).await;
        refused.refused(422, "idempotency-key-reused");
    }
    let reused = keyed(&here, Method::POST, "/v1/payments/p9/cancel", &json!({}), "key-0").await;
    assert_snapshot!(told(&reused), @r#"
    422
    {"code":"idempotency-key-reused","detail":"This Idempotency-Key was used for another request.","request_id":"[request_id]","status":422,"title":"Idempotency key reused","type":"/problems/idempotency-key-reused"}
    "#);
    here.get("/v1/payments/p9")
        .await
        .refused(404, "payment-not-found");
    refuses_the_keys_of_other_routes(&here).await;
    assert_eq!(system.balance(VISA).await, (7500, 0));
    system.stop().await;
}

/// Whoever finds it done is answered too, and for the first time with this key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_counts_also_where_the_work_was_done_without_it() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (here, there) = (system.at(0, "merchant"), system.at(1, "merchant"));
    let refund = json!({"amount": 1});
    let writes = [
        (
            Method::PUT,
            "/v1/payments/p",
            order(VISA, 10.0, "manual"),
            201,
            200,
        ),
        (Method::POST, "/v1/payments/p/capture", json!({}), 200, 200),
        (Method::PUT, "/v1/payments/p/refunds/r", refund, 201, 200),
        (Method::POST, "/v1/payments/c/cancel", json!({}), 200, 200),
        (
            Method::PUT,
            "/v1/payments/d",
            order(EMPTY, 10.0, "manual"),
            402,
            402,
        ),
        (
            Method::PUT,
            "/v1/payments/u",
            order(STRANGER, 10.0, "manual"),
            402,
            402,
        ),
    ];
    for (n, (method, target, body, first, known)) in writes.into_iter().enumerate() {
        let done = here.send(here.request(method.clone(), target).json(&body)).await;
        done.expect(first);
        let key = format!("key-{n}");
        for client in [&here, &there] {
            let again = keyed(client, method.clone(), target, &body, &key).await;
            let again = again.expect(known);
            assert_eq!(again.header("idempotent-replayed"), "true", "{target}");
        }
        for (target, body) in [
            ("/v1/payments/q", order(VISA, 7.0, "automatic")),
            ("/v1/payments/p/refunds/q", json!({"amount": 2})),
        ] {
            let other = keyed(&there, Method::PUT, target, &body, &key).await;
            other.refused(422, "idempotency-key-reused");
        }
    }
    here.get("/v1/payments/q").await.refused(404, "payment-not-found");
    assert_eq!(system.balance(VISA).await, (999_100, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_with_one_key_are_one_write() {
    let system = System::start_with(1, 2, |_config| {}).await;
    pay(&system.merchant(), "p", &order(VISA, 100.0, "automatic"))
        .await
        .expect(201);
    let answers = join_all((0..20).map(|n| {
        let client = system.at(n % 2, "merchant");
        async move {
            let target = "/v1/payments/p/refunds/r";
            keyed(&client, Method::PUT, target, &json!({"amount": 1}), "key")
                .await
                .expect(201)
        }
    }))
    .await;
    let first = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_empty())
        .count();
    assert_eq!(first, 1);
    assert_eq!(system.balance(VISA).await, (990_100, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_changed_nothing_is_not_kept() {
    let system = System::start().await;
    let client = system.merchant();
    let (capture, refund) = ("/v1/payments/p/capture", "/v1/payments/p/refunds/r");
    keyed(&client, Method::POST, capture, &json!({}), "key-1")
        .await
        .refused(404, "payment-not-found");
    keyed(&client, Method::PUT, refund, &json!({"amount": 1}), "key-2")
        .await
        .refused(404, "payment-not-found");
    pay(&client, "p", &order(VISA, 10.0, "manual")).await.expect(201);
    keyed(&client, Method::PUT, refund, &json!({"amount": 1}), "key-2")
        .await
        .refused(409, "payment-not-captured");
    // The same request under the same key does better later.
    keyed(&client, Method::POST, capture, &json!({}), "key-1")
        .await
        .expect(200);
    keyed(&client, Method::PUT, refund, &json!({"amount": 1}), "key-2")
        .await
        .expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_answers_run_out() {
    let system = System::start_with(1, 1, |config| {
        config.answer_s = 1;
        config.sweep_every_ms = 50;
    })
    .await;
    let client = system.merchant();
    keyed(&client, Method::POST, "/v1/payments/p/cancel", &json!({}), "key")
        .await
        .expect(200);
    wait_for("the key to be free again", async || {
        let other = keyed(&client, Method::POST, "/v1/payments/q/cancel", &json!({}), "key").await;
        if other.status == 200 {
            Ok(())
        } else {
            Err(other.text())
        }
    })
    .await;
    assert_eq!(
        cancel(&client, "p")
            .await
            .expect(200)
            .header("idempotent-replayed"),
        "true"
    );
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_a_charge_runs_out_too() {
    let system = System::start_with(1, 1, |config| {
        config.answer_s = 1;
        config.sweep_every_ms = 50;
    })
    .await;
    let client = system.merchant();
    let charge = async |amount: i64| {
        let body = json!({"card_number": VISA, "amount": amount});
        keyed(&client, Method::POST, "/payments", &body, "key").await
    };
    let first = charge(1).await.expect(201);
    let second = wait_for("the key to be free again", async || {
        let other = charge(2).await;
        if other.status == 201 {
            Ok(other)
        } else {
            Err(other.text())
        }
    })
    .await;
    assert_ne!(first.header("location"), second.header("location"));
    assert_eq!(system.balance(VISA).await, (999_700, 0));
    for (paid, amount) in [(first, 100), (second, 200)] {
        let shown = client.get(paid.header("location")).await.expect(200).json();
        assert_eq!(shown["captured_minor"], amount);
    }
    system.stop().await;
}

/// The program before kept no answer for them: only the payment, under the id that was made of the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_without_a_kept_answer_is_known_by_its_id() {
    let system = System::start().await;
    let client = system.merchant();
    let body = json!({"card_number": VISA, "amount": 1});
    let charge = async || keyed(&client, Method::POST, "/payments", &body, "key").await;
    let first = charge().await.expect(201);
    let root = system.cluster.client(0);
    for prefix in ["pay/answer/", "pay/due/"] {
        root.delete(&format!("/v1/kv?prefix={prefix}")).await.expect(200);
    }
    let again = charge().await.expect(201);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.text(), first.text());
    assert_eq!(system.balance(VISA).await, (999_900, 0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_sweep_leaves_a_newer_answer() {
    let mut system = System::start_with(1, 1, |config| {
        config.answer_s = 1;
        config.sweep_every_ms = 50;
    })
    .await;
    let slow = system.trap(0).clone();
    slow.arm("sweep", BeforeCommit);
    let cancel = async |client: &Client, id: &str| {
        let target = format!("/v1/payments/{id}/cancel");
        keyed(client, Method::POST, &target, &json!({}), "key").await
    };
    cancel(&system.merchant(), "p").await.expect(200);
    slow.caught().await;
    // Another instance sweeps the answer, and the key is used anew.
    system.start_instance(|config| config.answer_s = 3600).await;
    let client = system.at(1, "merchant");
    wait_for("the key to be free again", async || {
        let anew = cancel(&client, "q").await;
        if anew.status == 200 {
            Ok(())
        } else {
            Err(anew.text())
        }
    })
    .await;
    slow.release();
    wait_for("the slow sweep to end", async || {
        let metrics = system.merchant().get("/metrics").await.expect(200).text();
        let line = "payment_swept_total{kind=\"mark\"} ";
        let swept = metrics.lines().find_map(|told| told.strip_prefix(line));
        if swept == Some("1") { Ok(()) } else { Err(metrics) }
    })
    .await;
    cancel(&client, "r").await.refused(422, "idempotency-key-reused");
    assert_eq!(
        cancel(&client, "q")
            .await
            .expect(200)
            .header("idempotent-replayed"),
        "true"
    );
    system.stop().await;
}
