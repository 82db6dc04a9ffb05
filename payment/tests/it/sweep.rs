//! What runs out: holds end by themselves, once, whoever else wants to end them.

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
