//! The proof of the ledger: it balances, at any revision, and planted damage is found.

use insta::assert_snapshot;
use payment::Moment::AfterRead;
use serde_json::{Value, json};
use service::tasks::Tasks;

use crate::system::{MASTERCARD, System, VISA, cancel, capture, order, pay, refund};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trial_balance_is_that_of_its_revision() {
    let system = System::start().await;
    let merchant = system.merchant();
    let before = system.check().await;
    pay(&merchant, "p1", &order(VISA, 10.0, "automatic"))
        .await
        .expect(201);
    pay(&merchant, "p2", &order(VISA, 5.0, "manual"))
        .await
        .expect(201);
    pay(&merchant, "p3", &order(MASTERCARD, 7.0, "manual"))
        .await
        .expect(201);
    capture(&merchant, "p2", &json!({"amount": 3})).await.expect(200);
    refund(&merchant, "p1", "r1", json!(4)).await.expect(201);
    let mut after = system.check().await;
    let revision = before["revision"].as_u64().unwrap();
    let past = merchant
        .get(&format!("/v1/ledger/check?revision={revision}"))
        .await
        .expect(200)
        .json();
    assert_eq!(past, before);
    after["revision"] = json!("[revision]");
    assert_snapshot!(after.to_string(), @r#"{"balanced":true,"currencies":[{"credits":10567.0,"credits_minor":1056700,"currency":"EUR","debits":10567.0,"debits_minor":1056700,"holds":7.0,"holds_minor":700}],"revision":"[revision]","violations":[]}"#);
    cancel(&merchant, "p3").await.expect(200);
    assert_eq!(system.check().await["currencies"][0]["holds_minor"], 0);
    merchant
        .get("/v1/ledger/check?revision=99999999")
        .await
        .refused(422, "future-revision");
    merchant
        .get("/v1/ledger/check?revision=x")
        .await
        .refused(400, "malformed-parameter");
    let root = system.cluster.client(0);
    let now = root.revision().await;
    root.post("/v1/compact", &json!({"revision": now}))
        .await
        .expect(200);
    merchant
        .get(&format!("/v1/ledger/check?revision={revision}"))
        .await
        .refused(410, "compacted");
    system.stop().await;
}

/// A checker that has never failed is no checker: every kind of damage is planted once and undone again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_damage_is_found() {
    let system = System::start().await;
    let merchant = system.merchant();
    pay(&merchant, "charged", &order(VISA, 10.0, "automatic"))
        .await
        .expect(201);
    pay(&merchant, "held", &order(VISA, 5.0, "manual"))
        .await
        .expect(201);
    refund(&merchant, "charged", "r", json!(1)).await.expect(201);
    let root = system.cluster.client(0);
    let rows = root.get("/v1/kv?prefix=pay/&limit=1000").await.expect(200).json();
    let rows = rows["kvs"].as_array().unwrap();
    let mut told = Vec::new();
    for row in rows {
        let (key, value) = (row["key"].as_str().unwrap(), row["value"].as_str().unwrap());
        let Some(damage) = damage(key, value) else {
            continue;
        };
        let path = format!("/v1/kv/{key}");
        // Changed a little, as far as can be, and beyond being read.
        let far = value.parse::<i64>().is_ok().then(|| i64::MIN.to_string());
        for damage in [Some(damage), far, Some("{".to_owned())].into_iter().flatten() {
            root.send(root.request(reqwest::Method::PUT, &path).body(damage.clone()))
                .await
                .expect(200);
            let check = merchant.get("/v1/ledger/check").await.expect(200).json();
            assert_eq!(
                check["balanced"], false,
                "{key} can be changed to {damage} without being noticed"
            );
            assert_ne!(check["violations"], json!([]), "{key}");
        }
        told.push(key.to_owned());
        root.send(root.request(reqwest::Method::PUT, &path).body(value.to_owned()))
            .await
            .expect(200);
    }
    assert!(told.len() > 20, "damaged only {told:?}");
    let due = rows.iter().filter_map(|row| row["key"].as_str());
    let due = due.filter(|key| key.starts_with("pay/due/") && key.ends_with("/hold/held"));
    let due: Vec<&str> = due.collect();
    assert_eq!(due.len(), 1, "{rows:?}");
    for key in [
        "pay/payment/held/hold",
        "pay/payment/charged/record",
        "pay/payment/charged/refund/r",
        "pay/order/shop/o-1/charged",
        "pay/order/shop/o-1/held",
        due[0],
    ] {
        let value = root.get(&format!("/v1/kv/{key}")).await.expect(200).text();
        root.delete(&format!("/v1/kv/{key}")).await.expect(200);
        let check = merchant.get("/v1/ledger/check").await.expect(200).json();
        assert_eq!(
            check["balanced"], false,
            "{key} can be lost without being noticed"
        );
        root.send(
            root.request(reqwest::Method::PUT, &format!("/v1/kv/{key}"))
                .body(value),
        )
        .await
        .expect(200);
    }
    system.stop().await;
}

/// A ledger of two pages, and a compaction between them that gives up the revision of both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_leaves_a_proof_its_revision() {
    let system = System::start().await;
    let merchant = system.merchant();
    pay(&merchant, "p", &order(VISA, 10.0, "automatic"))
        .await
        .expect(201);
    let root = system.cluster.client(0);
    // Marks of tokens far from their end: many rows that change nothing.
    for part in 0..21 {
        let puts = (0..100).map(|n| {
            let key = format!("pay/due/9999999999999/token/{part}-{n}");
            json!({"put": {"key": key, "value": "p"}})
        });
        let txn = json!({"then": puts.collect::<Vec<_>>()});
        root.txn(&txn).await.expect(200);
    }
    let trap = system.trap(0);
    trap.arm("check", AfterRead);
    let check = Tasks::new().spawn("check", async move { merchant.get("/v1/ledger/check").await });
    trap.caught().await;
    pay(&system.merchant(), "late", &order(VISA, 1.0, "automatic"))
        .await
        .expect(201);
    let now = root.revision().await;
    root.post("/v1/compact", &json!({"revision": now}))
        .await
        .expect(200);
    trap.release();
    let check = check.await.unwrap().expect(200).json();
    assert!(check["revision"].as_u64().unwrap() < now, "{check}");
    assert_eq!(check["violations"], json!([]), "{check}");
    system.stop().await;
}

/// One unit more, another state: the smallest change that makes a row wrong.
fn damage(key: &str, value: &str) -> Option<String> {
    if let Ok(number) = value.parse::<i64>() {
        return (key != "pay/demo").then(|| (number + 1).to_string());
    }
    let mut row: Value = serde_json::from_str(value).ok()?;
    if let Some(amount) = row["amount"].as_i64() {
        row["amount"] = json!(amount + 1);
    } else if let Some(amount) = row["order"]["amount"].as_i64() {
        row["order"]["amount"] = json!(amount + 1);
        row["status"] = json!("canceled");
    } else if row["status"] == "active" {
        row["status"] = json!("blocked");
    } else {
        return None;
    }
    Some(row.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_shows_how_it_is() {
    let mut system = System::start_with(1, 2, |_config| {}).await;
    let merchant = system.merchant();
    let answer = merchant.get("/livez").await.expect(200);
    assert_eq!(
        (answer.text().as_str(), answer.header("x-served-by")),
        ("alive\n", "pay1")
    );
    assert_eq!(merchant.get("/readyz").await.expect(200).text(), "ready\n");
    pay(&merchant, "p", &order(VISA, 1.0, "automatic"))
        .await
        .expect(201);
    pay(&merchant, "p", &order(VISA, 1.0, "automatic"))
        .await
        .expect(200);
    let metrics = merchant.get("/metrics").await.expect(200).text();
    for line in [
        "payment_payments_total{outcome=\"captured\"} 1",
        "payment_requests_total{route=\"/v1/payments/{id}\",status=\"2xx\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let page = merchant.get("/problems/payment-id-reused").await.expect(200);
    assert!(page.text().contains("Make a new id"));
    // It tells where it is, and takes that back when it stops.
    let root = system.cluster.client(0);
    let registered = root
        .get("/v1/kv?prefix=registry/payment/")
        .await
        .expect(200)
        .json();
    let names: Vec<_> = registered["kvs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["key"].clone())
        .collect();
    assert_eq!(names, ["registry/payment/pay1", "registry/payment/pay2"]);
    assert!(registered["kvs"][0]["lease"].as_u64().unwrap() > 0);
    let value: Value = serde_json::from_str(registered["kvs"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(value["address"], system.addresses()[0]);
    system.stop_instance(1).await;
    let registered = root
        .get("/v1/kv?prefix=registry/payment/")
        .await
        .expect(200)
        .json();
    assert_eq!(registered["count"], 1);
    system.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_store_it_says_so() {
    let mut system = System::start().await;
    let merchant = system.merchant();
    system.cluster.stop_node(0).await;
    merchant.get("/livez").await.expect(200);
    let refused = merchant.get("/readyz").await.refused(503, "not-ready");
    assert!(!refused.header("retry-after").is_empty());
    let refused = pay(&merchant, "p", &order(VISA, 1.0, "manual")).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(
        !refused.text().contains("127.0.0.1"),
        "internals in {}",
        refused.text()
    );
}
