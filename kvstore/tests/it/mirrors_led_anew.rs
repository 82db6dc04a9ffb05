//! A new leader knows nothing of what mirrors have told the one before, and must not say less than was acknowledged.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use service::tasks::Tasks;

use crate::harness::wait_for;
use crate::mirrors::{Living, announce, becomes_ok, present, put, send, three};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_waits_from_its_first_write() {
    let mut cluster = three().await;
    let (one, other) = (cluster.client(0), cluster.client(1));
    announce(&one, "block", "a").await;
    becomes_ok(&one).await;
    let leader = one.get("/v1/cluster").await.json()["leader"].as_u64().unwrap();
    let stopped = usize::try_from(leader).unwrap() - 1;
    let rest = if stopped == 0 { other } else { one };
    cluster.stop_node(stopped).await;
    wait_for("another leader", async || {
        let seen = rest.get("/v1/cluster").await.json();
        seen["leader"]
            .as_u64()
            .is_some_and(|new| new != leader)
            .then_some(())
            .ok_or(seen)
    })
    .await;
    let before = present(&rest).await;
    let writing = Tasks::new().spawn("write", {
        let rest = rest.clone();
        async move {
            let request = rest
                .request(Method::PUT, "/v1/kv/held")
                .header("idempotency-key", "k")
                .body("v");
            rest.send(request).await
        }
    });
    wait_for("the write to be applied", async || {
        let seen = rest.get("/v1/kv/held?consistency=local").await;
        (seen.status == 200).then_some(()).ok_or(seen.text())
    })
    .await;
    assert!(!writing.is_finished(), "the new leader has not heard the mirror");
    // Nor does it know what its predecessor has acknowledged with it: less than that it must not say.
    let asking = Tasks::new().spawn("ask", {
        let rest = rest.clone();
        async move { rest.get("/v1/revision").await }
    });
    let _mirror = Living::start(&rest, present(&rest).await.max(before + 1));
    let written = writing.await.unwrap().expect(200);
    assert_eq!(written.header("x-kv-mirror"), "ok");
    let asked = asking.await.unwrap().expect(200).json();
    assert!(
        asked["revision"].as_u64().unwrap() >= before,
        "{asked} after {before}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_does_not_take_an_empty_database_for_what_was_acknowledged() {
    let mut cluster = three().await;
    let (one, other) = (cluster.client(0), cluster.client(1));
    announce(&one, "block", "a").await;
    becomes_ok(&one).await;
    let mirror = Living::start(&one, present(&one).await);
    let mut acknowledged = 0;
    for _ in 0..5 {
        mirror.has(present(&one).await + 1);
        acknowledged = put(&one, "k", "v").await.expect(200).number("x-kv-revision");
    }
    drop(mirror);
    // It lost its database, and is waited for all the same.
    announce(&one, "block", "b").await;
    let leader = one.get("/v1/cluster").await.json()["leader"].as_u64().unwrap();
    let stopped = usize::try_from(leader).unwrap() - 1;
    let rest = if stopped == 0 { other } else { one };
    cluster.stop_node(stopped).await;
    let say = async |revision| {
        let body = json!({"revision": revision, "incarnation": "b"});
        send(&rest, Method::POST, "/v1/mirrors/m/ack", body).await
    };
    wait_for("the new leader to hear that nothing is there", async || {
        let said = say(0).await;
        (said.status == 200).then_some(()).ok_or(said.text())
    })
    .await;
    let asking = Tasks::new().spawn("ask", {
        let rest = rest.clone();
        async move { rest.get("/v1/revision").await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asking.is_finished(), "nobody knows how much was acknowledged");
    say(acknowledged).await.expect(200);
    let asked = asking.await.unwrap().expect(200).json();
    assert_eq!(asked["revision"], acknowledged);
}
