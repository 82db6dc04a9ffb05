//! Leases: keys that end with them, and whose they are.

use reqwest::Method;
use serde_json::{Value, json};

use crate::events::Events;
use crate::harness::{Answer, Client, wait_for};

cases! {
    keys_end_with_their_lease
    a_lease_that_is_kept_alive_lives
    revoking_deletes_all_keys_in_one_revision
    a_lease_belongs_to_its_token
    a_key_leaves_its_lease
    leases_are_listed_page_by_page
    bounds_are_told
}

async fn grant(client: &Client, ttl_ms: u64) -> u64 {
    let made = client
        .post("/v1/leases", &json!({"ttl_ms": ttl_ms}))
        .await
        .expect(201);
    let (id, answer) = (made.json()["id"].as_u64().unwrap(), made.json());
    assert_eq!(answer, json!({"id": id, "ttl_ms": ttl_ms}));
    assert_eq!(made.header("location"), format!("/v1/leases/{id}"));
    assert!((1..1 << 53).contains(&id), "{id}");
    id
}

async fn put_leased(client: &Client, name: &str, lease: u64) -> Answer {
    client
        .send(
            client
                .request(Method::PUT, &format!("{}?lease={lease}", client.path(name)))
                .body("v"),
        )
        .await
}

async fn keys_end_with_their_lease(client: &Client) {
    let mut events = Events::of_space(client, "").await;
    let lease = grant(client, 500).await;
    put_leased(client, "a", lease).await.expect(200);
    put_leased(client, "b", lease).await.expect(200);
    assert_eq!(client.read("a").await.expect(200).number("x-kv-lease"), lease);
    let changes = events.changes(4).await;
    assert_eq!(
        (changes[2].name.as_str(), changes[3].name.as_str()),
        ("delete", "delete")
    );
    assert_eq!(
        changes[2].revision(),
        changes[3].revision(),
        "one revision ends them all"
    );
    client.elsewhere().read("a").await.refused(404, "key-not-found");
    client
        .get(&format!("/v1/leases/{lease}"))
        .await
        .refused(404, "lease-not-found");
    client
        .post(&format!("/v1/leases/{lease}/keepalive"), &json!({}))
        .await
        .refused(404, "lease-not-found");
    put_leased(client, "c", lease)
        .await
        .refused(404, "lease-not-found");
    client
        .delete(&format!("/v1/leases/{lease}"))
        .await
        .refused(404, "lease-not-found");
}

async fn a_lease_that_is_kept_alive_lives(client: &Client) {
    let (lease, other) = (grant(client, 1000).await, grant(client, 1000).await);
    put_leased(client, "kept", lease).await.expect(200);
    put_leased(client, "left", other).await.expect(200);
    // Kept alive, until the other one has ended.
    wait_for("the other lease to end", async || {
        let kept = client
            .elsewhere()
            .post(&format!("/v1/leases/{lease}/keepalive"), &json!({}))
            .await
            .expect(200)
            .json();
        assert_eq!(kept, json!({"id": lease, "ttl_ms": 1000}));
        let left = client.read("left").await;
        if left.status == 404 { Ok(()) } else { Err(left) }
    })
    .await;
    client.read("kept").await.expect(200);
    let shown = client.get(&format!("/v1/leases/{lease}")).await.expect(200);
    assert_eq!(shown.header("x-kv-consistency"), "linearizable");
    assert_eq!(shown.json()["keys"], json!([client.key("kept")]));
    assert!(shown.json()["remaining_ms"].as_u64().unwrap() <= 1000);
    client.delete(&format!("/v1/leases/{lease}")).await.expect(200);
}

async fn revoking_deletes_all_keys_in_one_revision(client: &Client) {
    let lease = grant(client, 60_000).await;
    for name in ["a", "b", "c"] {
        put_leased(client, name, lease).await.expect(200);
    }
    let before = client.revision().await;
    let revoked = client
        .delete(&format!("/v1/leases/{lease}"))
        .await
        .expect(200)
        .json();
    assert_eq!(revoked, json!({"revision": before + 1, "deleted": 3}));
    client.read("b").await.refused(404, "key-not-found");
}

async fn a_lease_belongs_to_its_token(client: &Client) {
    let one = client.token("one", &[("", "write")]).await;
    let two = client.token("two", &[("", "write")]).await;
    let lease = grant(&one, 60_000).await;
    put_leased(&one, "k", lease).await.expect(200);
    put_leased(&two, "k2", lease).await.refused(403, "forbidden");
    let txn = json!({"then": [{"put": {"key": client.key("k3"), "value": "v", "lease": lease}}]});
    two.txn(&txn).await.refused(403, "forbidden");
    two.get(&format!("/v1/leases/{lease}"))
        .await
        .refused(403, "forbidden");
    two.post(&format!("/v1/leases/{lease}/keepalive"), &json!({}))
        .await
        .refused(403, "forbidden");
    two.delete(&format!("/v1/leases/{lease}"))
        .await
        .refused(403, "forbidden");
    let ids = async |client: &Client| -> Vec<Value> {
        let list = client.get("/v1/leases").await.expect(200).json();
        list.as_array()
            .unwrap()
            .iter()
            .map(|lease| lease["id"].clone())
            .collect()
    };
    assert_eq!(ids(&one).await, [json!(lease)]);
    assert_eq!(ids(&two).await, Vec::<Value>::new());
    assert!(ids(client).await.contains(&json!(lease)), "root sees all");
    put_leased(client, "k4", lease).await.expect(200);
    one.delete(&format!("/v1/leases/{lease}")).await.expect(200);
}

async fn a_key_leaves_its_lease(client: &Client) {
    let lease = grant(client, 60_000).await;
    put_leased(client, "k", lease).await.expect(200);
    client.put("k", "without").await;
    assert_eq!(client.read("k").await.number("x-kv-lease"), 0);
    let revoked = client
        .delete(&format!("/v1/leases/{lease}"))
        .await
        .expect(200)
        .json();
    assert_eq!(revoked["deleted"], 0);
    client.read("k").await.expect(200);
}

async fn leases_are_listed_page_by_page(client: &Client) {
    let own = client.token("own", &[("", "write")]).await;
    let mut granted = Vec::new();
    for _ in 0..5 {
        granted.push(grant(&own, 60_000).await);
    }
    granted.sort_unstable();
    let ids = |answer: &Answer| -> Vec<u64> {
        let list = answer.json();
        let ids = list.as_array().unwrap().iter();
        ids.map(|lease| lease["id"].as_u64().unwrap()).collect()
    };
    let (mut listed, mut next) = (Vec::new(), "/v1/leases?limit=2".to_owned());
    for sizes in [2, 2, 1] {
        let page = own.get(&next).await.expect(200);
        assert_eq!(ids(&page).len(), sizes);
        listed.extend(ids(&page));
        let link = page.header("link").split_once('>').unwrap_or_default().0;
        link.trim_start_matches('<').clone_into(&mut next);
    }
    assert_eq!(
        (listed, next.as_str()),
        (granted.clone(), ""),
        "the last page has no next one"
    );
    let whole = own.get("/v1/leases").await.expect(200);
    assert_eq!((ids(&whole), whole.header("link")), (granted.clone(), ""));
    let rest = own
        .get(&format!("/v1/leases?cursor={}", granted[3]))
        .await
        .expect(200);
    assert_eq!(ids(&rest), granted[4..]);
    // This node has them all by now. Who asks for what it has goes on with that.
    let first = own.get("/v1/leases?consistency=local&limit=2").await.expect(200);
    let next = format!("/v1/leases?consistency=local&limit=2&cursor={}", granted[1]);
    assert_eq!(first.header("link"), format!("<{next}>; rel=\"next\""));
    let second = own.get(&next).await.expect(200);
    assert_eq!(second.header("x-kv-consistency"), "local");
    assert_eq!(ids(&second), granted[2..4]);
    put_leased(&own, "k", granted[0]).await.expect(200);
    let with_keys = own.get("/v1/leases?limit=1").await.expect(200).json();
    assert_eq!(with_keys[0]["keys"].as_array().unwrap().len(), 1, "{with_keys}");
    let without = own.get("/v1/leases?limit=1&keyless=1").await.expect(200);
    assert_eq!(without.json()[0]["keys"], json!([]));
    assert!(
        without.header("link").contains("&keyless=1&"),
        "so is the next page"
    );
    let alone = format!("/v1/leases/{}", granted[0]);
    let without = own.get(&format!("{alone}?keyless=1")).await.expect(200).json();
    assert_eq!(
        (&without["id"], &without["keys"]),
        (&json!(granted[0]), &json!([]))
    );
    own.get(&format!("{alone}?keyless=2"))
        .await
        .refused(400, "malformed-parameter");
    for bad in ["limit=0", "limit=201", "limit=x", "cursor=-1", "keyless=2"] {
        own.get(&format!("/v1/leases?{bad}"))
            .await
            .refused(400, "malformed-parameter");
    }
}

async fn bounds_are_told(client: &Client) {
    let lease = grant(client, 60_000).await;
    let keepalive = client
        .request(Method::POST, &format!("/v1/leases/{lease}/keepalive"))
        .header("content-type", "application/json")
        .body("{");
    client.send(keepalive).await.refused(400, "malformed-json");
    // What `curl -d ''` sends, and what it would be with anything in it.
    for (body, status) in [("", 200), ("a=b", 415)] {
        let keepalive = client
            .request(Method::POST, &format!("/v1/leases/{lease}/keepalive"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        client.send(keepalive).await.expect(status);
    }
    for bad in [
        json!({"ttl_ms": 499}),
        json!({"ttl_ms": 86_400_001}),
        json!({"ttl_ms": "5"}),
        json!({"ttl_ms": -5}),
        json!({"ttl_ms": 1.5}),
        json!({}),
    ] {
        let refused = client
            .post("/v1/leases", &bad)
            .await
            .refused(422, "invalid-request");
        assert_eq!(refused.pointers(), ["/ttl_ms"], "{bad}");
    }
    let both = client
        .post("/v1/leases", &json!({"ttl_ms": 1, "pin": "x"}))
        .await
        .refused(422, "invalid-request");
    assert_eq!(both.pointers().len(), 2, "all faults at once");
    for bad in ["x", "-1", "1.5", "99999999999999999999"] {
        client
            .get(&format!("/v1/leases/{bad}"))
            .await
            .refused(400, "malformed-parameter");
    }
    put_leased(client, "k", 7).await.refused(404, "lease-not-found");
}
