//! What stands still for longer than the store remembers what came before: orders, and an audit between its walks.
//! Invariant: whoever waits is told how things are, as if the store remembered everything.

use std::time::{Duration, Instant};

use serde_json::json;
use service::tasks::Tasks;

use super::system::{System, VISA, keyed, order};
use crate::harness::{Answer, wait_for};

const WAIT: Duration = Duration::from_millis(500);

/// The store forgets all that came before this moment, to which no order has moved.
async fn forget(system: &System) {
    let root = system.cluster.client(0);
    let now = root.put("elsewhere", "x").await.number("x-kv-revision");
    let compacted = root.post("/v1/compact", &json!({"revision": now})).await;
    compacted.expect(200);
}

/// An answer for which was waited as long as may be.
async fn waited(asked: impl Future<Output = Answer>) -> Answer {
    let began = Instant::now();
    let answer = asked.await.expect(202);
    assert!(began.elapsed() >= WAIT, "{:?}", began.elapsed());
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_is_told_as_it_is() {
    let system = System::start_with(1, 1, |config| {
        config.order_wait_ms = u64::try_from(WAIT.as_millis()).unwrap();
    })
    .await;
    let (_, client) = system.user("ada").await;
    let body = order("6", 1, VISA);
    system.traps[0].arm("before capture");
    let made = keyed(&client, "/orders", "k", &body).await.expect(202);
    let place = made.header("location").to_owned();
    system.traps[0].caught().await;
    forget(&system).await;
    let again = waited(keyed(&client, "/orders", "k", &body)).await;
    assert_eq!(again.json()["order_id"], made.json()["order_id"]);
    assert_eq!(again.json()["status"], "authorized");
    assert_eq!(again.header("idempotent-replayed"), "true");
    system.traps[0].release();
    wait_for("the order to be paid", async || {
        let seen = client.get(&place).await.expect(200).json();
        (seen["status"] == "paid").then_some(()).ok_or(seen)
    })
    .await;
    let cancel = format!("{place}/cancel");
    system.traps[0].arm("before refund");
    keyed(&client, &cancel, "c", &json!({})).await.expect(202);
    system.traps[0].caught().await;
    forget(&system).await;
    for key in ["c", "another"] {
        let told = waited(keyed(&client, &cancel, key, &json!({}))).await;
        assert_eq!(told.json()["status"], "refunding", "{key}");
    }
    system.traps[0].release();
    wait_for("the money to be back", async || {
        let told = keyed(&client, &cancel, "c", &json!({})).await;
        (told.status == 200).then_some(()).ok_or(told.text())
    })
    .await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_does_not_end_where_the_store_forgets() {
    let system = System::start().await;
    let (_, client) = system.user("ada").await;
    let made = client.post("/orders", &order("6", 1, VISA)).await;
    made.expect(201);
    for point in ["audited the shelves", "audited the orders"] {
        system.traps[0].arm(point);
        let operator = system.operator();
        let audit = Tasks::new().spawn("audit", async move { operator.get("/admin/audit").await });
        system.traps[0].caught().await;
        forget(&system).await;
        system.traps[0].release();
        let audit = audit.await.unwrap().expect(200).json();
        assert_eq!(
            (&audit["ok"], &audit["orders"]),
            (&json!(true), &json!(1)),
            "{point}: {audit}"
        );
    }
    system.stop().await;
}
