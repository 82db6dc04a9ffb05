//! Who may do what: tokens, their rules, and changes of both.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Client, Cluster, wait_for};

cases! {
    rules_decide_over_every_route
    a_prefix_ends_where_it_ends
    a_transaction_needs_all_its_rights
    a_new_token_works_everywhere_at_once
    a_replaced_or_removed_token_ends
    only_root_manages
    bad_requests_are_told
    unknown_credentials_are_refused
}

async fn put_status(client: &Client, name: &str) -> u16 {
    client
        .send(client.request(Method::PUT, &client.path(name)).body("v"))
        .await
        .status
}

async fn rules_decide_over_every_route(client: &Client) {
    for name in ["r/k", "w/k", "o/k"] {
        client.put(name, "v").await;
    }
    let some = client.token("some", &[("r/", "read"), ("w/", "write")]).await;
    for (area, reads, writes) in [("r/", 200, 403), ("w/", 200, 200), ("o/", 403, 403)] {
        let (prefix, path) = (client.key(area), client.path(&format!("{area}k")));
        let get = async |target: String| some.get(&target).await.status;
        assert_eq!(get(path.clone()).await, reads, "{area}");
        assert_eq!(
            get(format!("{path}?revision={}", client.revision().await)).await,
            reads,
            "{area}"
        );
        assert_eq!(get(format!("{path}?consistency=local")).await, reads, "{area}");
        assert_eq!(get(format!("/v1/kv?prefix={prefix}")).await, reads, "{area}");
        assert_eq!(
            get(format!("/v1/kv?prefix={prefix}&count_only=1")).await,
            reads,
            "{area}"
        );
        let watch = some
            .request(Method::GET, &format!("/v1/watch?prefix={prefix}"))
            .send()
            .await
            .unwrap();
        assert_eq!(watch.status().as_u16(), reads, "{area}");
        let get = json!({"then": [{"get": {"prefix": prefix}}]});
        assert_eq!(some.txn(&get).await.status, reads, "{area}");
        let condition =
            json!({"if": [{"key": format!("{prefix}k"), "target": "version", "op": ">", "operand": 0}]});
        assert_eq!(some.txn(&condition).await.status, reads, "{area}");
        assert_eq!(put_status(&some, &format!("{area}k2")).await, writes, "{area}");
        let create = some
            .request(Method::POST, &format!("/v1/kv?prefix={prefix}"))
            .body("v");
        assert_eq!(
            some.send(create).await.status,
            if writes == 200 { 201 } else { writes },
            "{area}"
        );
        for op in [
            json!({"add": {"key": format!("{prefix}n"), "by": 1}}),
            json!({"delete": {"prefix": prefix}}),
        ] {
            assert_eq!(
                some.txn(&json!({"then": [op]})).await.status,
                writes,
                "{area} {op}"
            );
        }
        assert_eq!(some.delete(&path).await.status, writes, "{area}");
        assert_eq!(
            some.delete(&format!("/v1/kv?prefix={prefix}")).await.status,
            writes,
            "{area}"
        );
    }
    // What is not about keys is open to every token.
    for target in [
        "/v1/revision",
        "/v1/hash",
        "/v1/cluster",
        "/v1/status",
        "/metrics",
        "/v1/leases",
    ] {
        some.get(target).await.expect(200);
    }
}

async fn a_prefix_ends_where_it_ends(client: &Client) {
    let pay = client
        .token("pay", &[("pay/", "write"), ("pin/", "read"), ("pio/", "read")])
        .await;
    for (name, status) in [
        ("pay/k", 200),
        ("pay", 403),
        ("pay0", 403),
        ("paz", 403),
        ("pa", 403),
    ] {
        assert_eq!(put_status(&pay, name).await, status, "{name}");
    }
    let range = async |from: &str, to: &str| {
        pay.get(&format!("/v1/kv?from={}&to={}", client.key(from), client.key(to)))
            .await
            .status
    };
    assert_eq!(range("pay/", "pay/zzz").await, 200);
    assert_eq!(range("pay/", "pay0").await, 200, "up to the end of the prefix");
    assert_eq!(range("pay/", "pay1").await, 403);
    assert_eq!(range("pay", "pay/1").await, 403);
    assert_eq!(
        range("pin/", "pio/1").await,
        403,
        "what lies between two rules is in neither"
    );
    pay.get("/v1/kv").await.refused(403, "forbidden");
    pay.get(&format!("/v1/kv?prefix={}", client.key("pa")))
        .await
        .refused(403, "forbidden");
}

async fn a_transaction_needs_all_its_rights(client: &Client) {
    let some = client.token("some", &[("w/", "write")]).await;
    let (own, foreign) = (client.key("w/k"), client.key("o/k"));
    let put = |key: &str| json!({"put": {"key": key, "value": "v"}});
    for branch in ["then", "else", "failed"] {
        let body = json!({"then": [put(&own)], branch: [put(&foreign)]});
        some.txn(&body).await.refused(403, "forbidden");
    }
    let spying =
        json!({"if": [{"key": foreign, "target": "version", "op": "==", "operand": 0}], "then": [put(&own)]});
    some.txn(&spying).await.refused(403, "forbidden");
    client.read("w/k").await.refused(404, "key-not-found");
    some.txn(&json!({"then": [put(&own)]})).await.expect(200);
}

async fn a_new_token_works_everywhere_at_once(client: &Client) {
    for n in 0..5 {
        let made = client.token(&format!("t{n}"), &[("", "write")]).await;
        made.elsewhere().put("k", "v").await;
        made.elsewhere().elsewhere().read("k").await.expect(200);
    }
}

async fn a_replaced_or_removed_token_ends(client: &Client) {
    let old = client.token("some", &[("", "write")]).await;
    old.put("k", "v").await;
    let new = client.token("some", &[("", "read")]).await;
    for client in [&old, &old.elsewhere()] {
        client.read("k").await.refused(401, "unauthorized");
        assert_eq!(put_status(client, "k").await, 401);
    }
    new.read("k").await.expect(200);
    assert_eq!(put_status(&new, "k").await, 403);
    client
        .delete(&format!("/v1/tokens/{}", client.token_name("some")))
        .await
        .expect(200);
    new.read("k").await.refused(401, "unauthorized");
    let gone = client
        .delete(&format!("/v1/tokens/{}", client.token_name("some")))
        .await;
    gone.refused(404, "token-not-found");
}

async fn only_root_manages(client: &Client) {
    let some = client.token("some", &[("", "write")]).await;
    let (put, post) = (Method::PUT, Method::POST);
    let requests = [
        (Method::GET, "/v1/tokens", json!(null)),
        (put, "/v1/tokens/x", json!({"prefixes": []})),
        (Method::DELETE, "/v1/tokens/x", json!(null)),
        (post.clone(), "/v1/compact", json!({"revision": 0})),
        // Who may not ask is told so, whatever is wrong with the question.
        (post.clone(), "/v1/compact", json!({})),
        (Method::PUT, "/v1/tokens/x", json!({})),
        (Method::PUT, "/v1/tokens/a%20b", json!({"prefixes": []})),
        (Method::DELETE, "/v1/tokens/a%20b", json!(null)),
        (
            post.clone(),
            "/v1/cluster/members",
            json!({"id": 9, "peer_address": "127.0.0.1:1", "client_address": "127.0.0.1:2"}),
        ),
        (post.clone(), "/v1/cluster/members/9/promote", json!(null)),
        (Method::DELETE, "/v1/cluster/members/9", json!(null)),
        (post, "/v1/cluster/leader", json!({"to": 1})),
    ];
    for (method, target, body) in requests {
        let mut request = some.request(method.clone(), target);
        if !body.is_null() {
            request = request.json(&body);
        }
        some.send(request).await.refused(403, "forbidden");
    }
    let rules = client.get("/v1/tokens").await.expect(200);
    let rules = rules.json();
    let name = client.token_name("some");
    let own = rules
        .as_array()
        .unwrap()
        .iter()
        .find(|rule| rule["name"] == name.as_str())
        .unwrap();
    assert_eq!(
        *own,
        json!({"name": name, "prefixes": [{"prefix": client.key(""), "access": "write"}]}),
        "and no secret"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_cannot_be_lost() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    client.delete("/v1/tokens/root").await.refused(409, "conflict");
    // A new secret for root ends the old one, and narrows nothing.
    let request = client
        .request(Method::PUT, "/v1/tokens/root")
        .json(&json!({"prefixes": []}));
    let made = client.send(request).await.expect(201);
    assert_eq!(made.header("cache-control"), "no-store");
    let root = client.with_token(made.json()["token"].as_str().unwrap());
    client.read("k").await.refused(401, "unauthorized");
    root.put("k", "v").await;
    root.get("/v1/tokens").await.expect(200);
    cluster.stop().await;
}

async fn bad_requests_are_told(client: &Client) {
    let put = async |name: &str, body: Value| {
        client
            .send(
                client
                    .request(Method::PUT, &format!("/v1/tokens/{name}"))
                    .json(&body),
            )
            .await
    };
    let body = json!({"prefixes": [{"prefix": 7, "access": "own"}, 5, {"access": "read"}, {"prefix": "p"}]});
    let refused = put("bad", body).await.refused(422, "invalid-request");
    assert_eq!(
        refused.pointers(),
        [
            "/prefixes/0/prefix",
            "/prefixes/0/access",
            "/prefixes/1",
            "/prefixes/2/prefix",
            "/prefixes/3/access"
        ]
    );
    assert_eq!(
        put("bad", json!({}))
            .await
            .refused(422, "invalid-request")
            .pointers(),
        ["/prefixes"]
    );
    for name in ["%00", "a%20b", "a%2Fb", "%C3%A9", &"n".repeat(65)] {
        put(name, json!({"prefixes": []}))
            .await
            .refused(400, "malformed-parameter");
    }
}

async fn unknown_credentials_are_refused(client: &Client) {
    for bad in [
        "",
        "x",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        let answer = client
            .with_token(bad)
            .read("k")
            .await
            .refused(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let bare = |value: Option<String>| {
        let mut headers = String::new();
        if let Some(value) = value {
            headers = format!("authorization: {value}\r\n");
        }
        format!(
            "GET {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n",
            client.path("k")
        )
    };
    let wrong = [
        None,
        Some(format!("Basic {}", client.token)),
        Some(client.token.clone()),
        Some(format!("Bearer{}", client.token)),
    ];
    for value in wrong {
        let answer = crate::raw::send(client, bare(value).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    let lower = crate::raw::send(client, bare(Some(format!("bearer {}", client.token))).as_bytes()).await;
    assert!(
        lower.starts_with("HTTP/1.1 404 "),
        "the scheme is written in any case: {lower}"
    );
    wait_for("the node to be well", async || {
        (client.get("/readyz").await.status == 200)
            .then_some(())
            .ok_or(())
    })
    .await;
}
