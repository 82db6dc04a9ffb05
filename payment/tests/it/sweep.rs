//! What runs out: holds end by themselves, once, whoever else wants to end them.

use reqwest::Method;
use serde_json::json;

use crate::harness::wait_for;
use crate::system::{System, VISA, cancel, capture, order, pay};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_expires_and_gives_the_money_back() {
    let system = System::start_with(1, 2, |config| {
        config.hold_s = 1;
        config.sweep_every_ms = 50;
    })
    .await;
    let merchant = system.merchant();
    for n in 0..20 {
        pay(&merchant, &format!("p{n}"), &order(VISA, 10.0, "manual"))
            .await
            .expect(201);
    }
    capture(&merchant, "p0", &json!({})).await.expect(200);
    cancel(&merchant, "p1").await.expect(200);
    wait_for("the holds to expire", async || match system.balance(VISA).await {
        (999_000, 0) => Ok(()),
        other => Err(other),
    })
    .await;
    for (id, status) in [
        ("p0", "captured"),
        ("p1", "canceled"),
        ("p2", "expired"),
        ("p19", "expired"),
    ] {
        let shown = merchant
            .get(&format!("/v1/payments/{id}"))
            .await
            .expect(200)
            .json();
        assert_eq!(shown["status"], status, "{shown}");
    }
    capture(&merchant, "p2", &json!({}))
        .await
        .refused(409, "payment-expired");
    assert_eq!(
        cancel(&merchant, "p2").await.expect(200).json()["status"],
        "expired"
    );
    crate::system::refund(&merchant, "p2", "r", json!(1))
        .await
        .refused(409, "payment-expired");
    let counted = merchant.get("/metrics").await.expect(200).text();
    assert!(counted.contains("payment_swept_total"), "{counted}");
    // Nothing is left to be done.
    let root = system.cluster.client(0);
    wait_for("no more to be due", async || {
        let due = root.get("/v1/kv?prefix=pay/due/").await.expect(200).json();
        if due["count"] == 0 { Ok(()) } else { Err(due) }
    })
    .await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_swept_stops_nothing() {
    let system = System::start_with(1, 1, |config| {
        config.hold_s = 1;
        config.sweep_every_ms = 50;
    })
    .await;
    let root = system.cluster.client(0);
    let put = async |key: &str, value: &'static str| {
        let target = format!("/v1/kv/{key}");
        root.send(root.request(Method::PUT, &target).body(value))
            .await
            .expect(200);
    };
    // Of a payment that is not there, of one that cannot be read, and of nothing that is known; all due long ago.
    let damaged = [
        "pay/due/0000000000001/hold/nobody",
        "pay/due/0000000000002/hold/unreadable",
        "pay/due/0000000000003/strange",
    ];
    for key in damaged {
        put(key, "").await;
    }
    put("pay/payment/unreadable/record", "{").await;
    // More than are read at a time.
    for page in 0..5 {
        let puts = (0..100).map(|n| {
            let key = format!("pay/due/0000000000004/odd/{}", 100 * page + n);
            json!({"put": {"key": key, "value": ""}})
        });
        let txn = json!({"then": puts.collect::<Vec<_>>()});
        root.txn(&txn).await.expect(200);
    }
    pay(&system.merchant(), "p", &order(VISA, 10.0, "manual"))
        .await
        .expect(201);
    wait_for("the hold to expire", async || match system.balance(VISA).await {
        (1_000_000, 0) => Ok(()),
        other => Err(other),
    })
    .await;
    let due = root
        .get("/v1/kv?prefix=pay/due/&limit=1")
        .await
        .expect(200)
        .json();
    assert_eq!(due["count"], 503, "what is damaged is left to a person");
    root.delete("/v1/kv?prefix=pay/due/").await.expect(200);
    root.delete("/v1/kv/pay/payment/unreadable/record")
        .await
        .expect(200);
    system.stop().await;
}
