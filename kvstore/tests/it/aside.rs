//! What lies beside the keys, for those who keep a copy of everything: leases, and answers kept for idempotency keys.

use reqwest::Method;
use serde_json::{Value, json};

use crate::events::Events;
use crate::harness::{Answer, Client, Cluster, wait_for};
use crate::mirrors::{put, send};

async fn keyed(client: &Client, target: &str, key: &str, value: &'static str) -> Answer {
    let request = client.request(Method::PUT, target).header("idempotency-key", key);
    client.send(request.body(value)).await
}

/// An answer but for how long it is still kept, which is at most as long as it was to be.
fn settled(kept: &Value) -> Value {
    let mut kept = kept.clone();
    if let Some(kept) = kept.as_object_mut() {
        let left = kept.remove("left_ms").and_then(|left| left.as_u64());
        assert!(
            left.is_some_and(|left| (1..=3_600_000).contains(&left)),
            "{left:?} ms"
        );
    }
    kept
}

/// What lies beside the keys of the next revision.
async fn aside(events: &mut Events) -> (u64, Value, Value) {
    let change = events.changes(1).await.remove(0);
    (
        change.revision(),
        change.data["granted"].clone(),
        settled(&change.data["kept"]),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_copies_everything_is_told_leases_and_kept_answers() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    let early = keyed(&client, "/v1/kv/early", "early", "x").await.expect(200);
    let early = early.number("x-kv-revision");
    let mut events = Events::open(&client, &format!("aside=1&from={early}")).await;
    // Also what was kept before any mirror was announced.
    let (revision, _, kept) = aside(&mut events).await;
    assert_eq!((revision, &kept["key"]), (early, &json!("early")));
    let lease = client
        .post("/v1/leases", &json!({"ttl_ms": 60_000}))
        .await
        .expect(201)
        .json();
    let target = format!("/v1/kv/leased?lease={}", lease["id"]);
    let leased = keyed(&client, &target, "one", "x")
        .await
        .expect(200)
        .number("x-kv-revision");
    let (revision, granted, kept) = aside(&mut events).await;
    assert_eq!(revision, leased);
    assert_eq!(
        granted,
        json!({"id": lease["id"], "ttl_ms": 60_000, "owner": "root"})
    );
    assert_eq!(
        (&kept["owner"], &kept["key"], &kept["revision"]),
        (&json!("root"), &json!("one"), &json!(leased))
    );
    // Repeated, nothing changes; refused, nothing is told; without a key there is no answer to keep.
    keyed(&client, &target, "one", "x").await.expect(200);
    client.delete("/v1/kv/absent").await.expect(200);
    let plain = put(&client, "plain", "x").await.number("x-kv-revision");
    assert_eq!(aside(&mut events).await, (plain, Value::Null, Value::Null));
    // Whoever was away is told the same, and whoever did not ask is told nothing of it.
    let mut late = Events::open(&client, &format!("aside=1&from={leased}")).await;
    assert_eq!(aside(&mut late).await, (leased, granted, kept.clone()));
    let mut usual = Events::open(&client, &format!("from={leased}")).await;
    assert_eq!(aside(&mut usual).await, (leased, Value::Null, Value::Null));
    are_listed(&client, &kept).await;
    cluster.stop().await;
}

/// All kept answers, for who may read all keys: they may tell of any.
async fn are_listed(client: &Client, kept: &Value) {
    let listed = client.get("/v1/answers").await.expect(200).json();
    let keys: Vec<&str> = listed["answers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["key"].as_str().unwrap())
        .collect();
    assert_eq!((keys, &listed["more"]), (vec!["early", "one"], &json!(false)));
    assert_eq!(settled(&listed["answers"][1]), *kept);
    let rest = client
        .get("/v1/answers?owner=root&key=early")
        .await
        .expect(200)
        .json();
    assert_eq!(rest["answers"].as_array().unwrap().len(), 1);
    assert_eq!(settled(&rest["answers"][0]), *kept);
    client
        .get("/v1/answers?owner=root")
        .await
        .refused(400, "malformed-parameter");
    // They may tell of any key.
    let some = client.token("some", &[("p/", "write")]).await;
    some.get("/v1/answers").await.refused(403, "forbidden");
    some.get("/v1/watch?prefix=p/&aside=1")
        .await
        .refused(403, "forbidden");
    let rules = json!({"prefixes": [{"prefix": "", "access": "read"}]});
    let made = send(client, Method::PUT, "/v1/tokens/all", rules)
        .await
        .expect(201)
        .json();
    let all = client.with_token(made["token"].as_str().unwrap());
    let shown = all.get("/v1/answers").await.expect(200).json();
    let of =
        |page: &Value| -> Vec<Value> { page["answers"].as_array().unwrap().iter().map(settled).collect() };
    assert_eq!(of(&shown), of(&listed));
    assert_eq!(all.get("/v1/leases").await.expect(200).json()[0]["owner"], "root");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_kept_answers_come_in_pages() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    // Each answer repeats what the transaction read, so that few fill a page.
    client.put("large", vec![b'x'; 200_000]).await.expect(200);
    let body = json!({"then": [{"get": {"key": client.key("large")}}, {"add": {"key": "n", "by": 1}}]});
    for n in 10..22 {
        let request = client.request(Method::POST, "/v1/txn").json(&body);
        client
            .send(request.header("idempotency-key", format!("key-{n}")))
            .await
            .expect(200);
    }
    let (mut found, mut pages, mut target) = (Vec::new(), 0, "/v1/answers".to_owned());
    loop {
        let page = client.get(&target).await.expect(200).json();
        let keys = page["answers"].as_array().unwrap().iter();
        found.extend(keys.map(|answer| answer["key"].as_str().unwrap().to_owned()));
        pages += 1;
        if page["more"] == false {
            break;
        }
        target = format!("/v1/answers?owner=root&key={}", found.last().unwrap());
    }
    let wanted: Vec<String> = (10..22).map(|n| format!("key-{n}")).collect();
    assert_eq!(found, wanted);
    assert!(pages > 1, "{pages}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_used_again_tells_of_its_last_use_alone() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    let write = async |value: &'static str| {
        let request = client
            .request(Method::PUT, "/v1/kv/k")
            .header("idempotency-key", "again")
            .header("idempotency-ttl", "1");
        client.send(request.body(value)).await
    };
    let first = write("one").await.expect(200).number("x-kv-revision");
    // Another write under this key is refused until the first answer has ended.
    let second = wait_for("the first answer to end", async || {
        let answer = write("two").await;
        (answer.status == 200)
            .then(|| answer.number("x-kv-revision"))
            .ok_or(answer.text())
    })
    .await;
    let mut events = Events::open(&client, &format!("aside=1&from={first}")).await;
    assert_eq!(aside(&mut events).await, (first, Value::Null, Value::Null));
    let (revision, _, kept) = aside(&mut events).await;
    assert_eq!((revision, &kept["revision"]), (second, &json!(second)));
    cluster.stop().await;
}
