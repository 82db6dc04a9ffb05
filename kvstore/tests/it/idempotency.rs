//! The same `Idempotency-Key` again: the same answer, and nothing is done twice.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, Client, wait_for};

cases! {
    a_repeated_write_is_answered_and_not_done
    a_key_is_for_one_request
    refusals_are_repeated_too
    what_the_store_makes_up_is_made_once
    every_kind_of_write_is_repeated
    twins_at_the_same_time_are_one
    keys_belong_to_their_token
    answers_end_after_their_time
    malformed_keys_are_refused
}

async fn keyed(client: &Client, method: Method, target: &str, key: &str, body: &str) -> Answer {
    let request = client
        .request(method, target)
        .header("idempotency-key", client.key(key).replace('/', "-"));
    client.send(request.body(body.to_owned())).await
}

async fn a_repeated_write_is_answered_and_not_done(client: &Client) {
    let first = keyed(client, Method::PUT, &client.path("k"), "one", "v")
        .await
        .expect(200);
    assert_eq!(first.header("idempotent-replayed"), "");
    client.put("k", "later").await;
    let again = keyed(&client.elsewhere(), Method::PUT, &client.path("k"), "one", "v")
        .await
        .expect(200);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(
        (again.json(), again.header("etag")),
        (first.json(), first.header("etag"))
    );
    assert_eq!(again.number("x-kv-revision"), first.number("x-kv-revision"));
    assert_eq!(client.read("k").await.text(), "later", "it was not written again");
    let body = json!({"then": [{"add": {"key": client.key("n"), "by": 1}}]}).to_string();
    for _ in 0..3 {
        let answer = keyed(client, Method::POST, "/v1/txn", "add", &body)
            .await
            .expect(200)
            .json();
        assert_eq!(answer["results"], json!([{"add": {"value": 1}}]));
    }
    assert_eq!(client.read("n").await.text(), "1");
}

async fn a_key_is_for_one_request(client: &Client) {
    keyed(client, Method::PUT, &client.path("k"), "one", "v")
        .await
        .expect(200);
    let reused = "idempotency-key-reused";
    keyed(client, Method::PUT, &client.path("k"), "one", "w")
        .await
        .refused(422, reused);
    keyed(client, Method::PUT, &client.path("k2"), "one", "v")
        .await
        .refused(422, reused);
    keyed(
        client,
        Method::PUT,
        &format!("{}?lease=0", client.path("k")),
        "one",
        "v",
    )
    .await
    .refused(422, reused);
    keyed(client, Method::DELETE, &client.path("k"), "one", "v")
        .await
        .refused(422, reused);
    let conditional = client
        .request(Method::PUT, &client.path("k"))
        .header("if-none-match", "*")
        .body("v");
    let conditional = conditional.header("idempotency-key", client.key("one").replace('/', "-"));
    client.send(conditional).await.refused(422, reused);
    assert_eq!(client.read("k").await.text(), "v");
}

async fn refusals_are_repeated_too(client: &Client) {
    client.put("k", "v").await;
    let create = async || {
        let request = client
            .request(Method::PUT, &client.path("k"))
            .header("if-none-match", "*")
            .body("new");
        client
            .send(request.header("idempotency-key", client.key("create").replace('/', "-")))
            .await
    };
    let first = create().await.refused(412, "precondition-failed");
    client.delete(&client.path("k")).await.expect(200);
    let again = create().await.refused(412, "precondition-failed");
    assert_eq!(
        (again.header("idempotent-replayed"), again.header("etag")),
        ("true", first.header("etag"))
    );
    client.read("k").await.refused(404, "key-not-found");
}

async fn what_the_store_makes_up_is_made_once(client: &Client) {
    let target = format!("/v1/kv?prefix={}", client.key("made/"));
    let first = keyed(client, Method::POST, &target, "make", "v")
        .await
        .expect(201);
    let again = keyed(&client.elsewhere(), Method::POST, &target, "make", "v")
        .await
        .expect(201);
    assert_eq!(
        (again.json(), again.header("location")),
        (first.json(), first.header("location"))
    );
    let body = r#"{"ttl_ms": 60000}"#;
    let lease = keyed(client, Method::POST, "/v1/leases", "lease", body)
        .await
        .expect(201)
        .json();
    assert_eq!(
        keyed(client, Method::POST, "/v1/leases", "lease", body)
            .await
            .expect(201)
            .json(),
        lease
    );
}

async fn every_kind_of_write_is_repeated(client: &Client) {
    let lease = keyed(
        client,
        Method::POST,
        "/v1/leases",
        "grant",
        r#"{"ttl_ms": 60000}"#,
    )
    .await;
    let lease = format!("/v1/leases/{}", lease.expect(201).json()["id"]);
    client.put("all/1", "v").await;
    let revision = client.put("all/2", "v").await.number("x-kv-revision");
    let prefix = format!("/v1/kv?prefix={}", client.key("all/"));
    let compaction = json!({"revision": revision}).to_string();
    let writes = [
        (Method::POST, format!("{lease}/keepalive"), String::new()),
        (Method::DELETE, lease.clone(), String::new()),
        (Method::DELETE, prefix, String::new()),
        (Method::POST, "/v1/compact".to_owned(), compaction),
    ];
    for (n, (method, target, body)) in writes.into_iter().enumerate() {
        let key = format!("kind-{n}");
        let write = async |client: &Client| {
            keyed(client, method.clone(), &target, &key, &body)
                .await
                .expect(200)
        };
        let first = write(client).await;
        client.put("all/3", "v").await;
        let again = write(&client.elsewhere()).await;
        assert_eq!(again.header("idempotent-replayed"), "true", "{method} {target}");
        assert_eq!(again.json(), first.json(), "{method} {target}");
    }
    assert_eq!(
        client.read("all/3").await.text(),
        "v",
        "the prefix was deleted once"
    );
}

async fn twins_at_the_same_time_are_one(client: &Client) {
    let body = json!({"then": [{"add": {"key": client.key("n"), "by": 1}}]}).to_string();
    let elsewhere = client.elsewhere();
    let twins = (0..20).map(|n| {
        let client = if n % 2 == 0 { client } else { &elsewhere };
        keyed(client, Method::POST, "/v1/txn", "twin", &body)
    });
    let answers = join_all(twins).await;
    let replayed = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed") == "true")
        .count();
    assert_eq!(replayed, 19);
    assert!(answers.iter().all(|answer| answer.json() == answers[0].json()));
    assert_eq!(client.read("n").await.text(), "1");
}

async fn keys_belong_to_their_token(client: &Client) {
    let (one, two) = (
        client.token("one", &[("", "write")]).await,
        client.token("two", &[("", "write")]).await,
    );
    keyed(&one, Method::PUT, &client.path("k"), "same", "one")
        .await
        .expect(200);
    let other = keyed(&two, Method::PUT, &client.path("k"), "same", "two")
        .await
        .expect(200);
    assert_eq!(other.header("idempotent-replayed"), "");
    assert_eq!(client.read("k").await.text(), "two");
}

async fn answers_end_after_their_time(client: &Client) {
    let put = async || {
        let request = client
            .request(Method::PUT, &client.path("k"))
            .header("idempotency-ttl", "1")
            .body("v");
        client
            .send(request.header("idempotency-key", client.key("short").replace('/', "-")))
            .await
            .expect(200)
    };
    let first = put().await.json();
    wait_for("the answer to end", async || {
        // The clock of the store moves with its writes.
        client.put("tick", "v").await;
        let again = put().await;
        if again.header("idempotent-replayed") == "true" {
            Err(again)
        } else {
            Ok(())
        }
    })
    .await;
    assert_ne!(put().await.json(), first);
}

async fn malformed_keys_are_refused(client: &Client) {
    let put = |name: &'static str, value: String| {
        let request = client
            .request(Method::PUT, &client.path("k"))
            .body("v")
            .header(name, value);
        async move { client.send(request).await }
    };
    for bad in [String::new(), "two words".to_owned(), "x".repeat(256)] {
        put("idempotency-key", bad)
            .await
            .refused(400, "malformed-parameter");
    }
    put(
        "idempotency-key",
        format!("{}{}", client.key("").replace('/', "-"), "x".repeat(200)),
    )
    .await
    .expect(200);
    for bad in ["0", "86401", "x", "-1", "1.5", ""] {
        let request = client
            .request(Method::PUT, &client.path("k"))
            .body("v")
            .header("idempotency-ttl", bad);
        let request = request.header("idempotency-key", "k");
        client.send(request).await.refused(400, "malformed-parameter");
    }
}
