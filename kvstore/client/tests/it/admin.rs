//! What operators ask, and which key it carries.

use crate::canned::{Canned, Reply, Seen, ok};
use kvstore_client::wire::cluster::NewMember;
use kvstore_client::{Error, KvClient};
use serde_json::json;

const CHANGES: usize = 7;

fn answer(seen: &Seen) -> Reply {
    match seen.target.as_str() {
        // More is gone already than is asked for.
        "/v1/compact" => ok(json!({"revision": 50})),
        "/v1/leases/7/keepalive" => ok(json!({"id": 7, "ttl_ms": 600})),
        _ => ok(json!({})),
    }
}

async fn make_changes(client: &KvClient) {
    let member = NewMember {
        id: 4,
        peer_address: "a:1".to_owned(),
        client_address: "a:2".to_owned(),
    };
    client.member_add(&member).await.unwrap();
    client.member_promote(4).await.unwrap();
    client.member_remove(4).await.unwrap();
    client.leader_transfer(2).await.unwrap();
    assert_eq!(client.compact(30).await.unwrap(), 50);
    client.mirror_delete("m").await.unwrap();
    client.lease_keepalive(7).await.unwrap();
}

#[tokio::test]
async fn every_change_that_takes_a_key_carries_the_callers() {
    let server = Canned::start(answer).await;
    let client = server.client();
    make_changes(&client).await;
    make_changes(&client.with_idempotency_key("change-7").unwrap()).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 2 * CHANGES);
    for (n, request) in seen.iter().enumerate() {
        let key = if n < CHANGES { "" } else { "change-7" };
        assert_eq!(request.header("idempotency-key"), key, "{}", request.line());
    }
}

#[tokio::test]
async fn a_change_of_members_is_not_repeated_but_tells_the_callers_key() {
    let server = Canned::start(|_| Reply::Cut).await;
    let client = server.client().with_idempotency_key("change-7").unwrap();
    match client.member_promote(4).await.unwrap_err() {
        Error::Unknown { idempotency_key, .. } => assert_eq!(idempotency_key.as_deref(), Some("change-7")),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.lines(), ["POST /v1/cluster/members/4/promote"]);
}
