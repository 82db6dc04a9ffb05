//! Whatever is sent: a clear refusal, and the node lives.

use reqwest::Method;
use serde_json::json;

use crate::harness::Client;
use crate::raw;

cases! {
    json_is_read_strictly
    sizes_are_bounded
    a_body_that_is_too_large_is_not_asked_for
    methods_and_routes_are_told
    broken_requests_harm_nobody
}

async fn post_raw(client: &Client, target: &str, body: impl Into<bytes::Bytes>) -> crate::harness::Answer {
    let request = client
        .request(Method::POST, target)
        .header("content-type", "application/json");
    client.send(request.body(body.into())).await
}

async fn json_is_read_strictly(client: &Client) {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = format!(r#"{{"then": {}}}"#, "[".repeat(65));
    let malformed: [&[u8]; 9] = [
        b"{",
        b"{]",
        b"nul",
        b"{\"then\": [}",
        b"{} {}",
        b"{\"then\": \"\xff\"}",
        b"{\"then\": \"\\ud800\"}",
        deep.as_bytes(),
        nested.as_bytes(),
    ];
    for target in [
        "/v1/txn",
        "/v1/leases",
        "/v1/compact",
        "/v1/cluster/leader",
        "/v1/cluster/members",
    ] {
        for body in malformed {
            post_raw(client, target, body.to_vec())
                .await
                .refused(400, "malformed-json");
        }
        for body in ["[]", "7", "\"text\"", "null", "true"] {
            post_raw(client, target, body)
                .await
                .refused(422, "invalid-request");
        }
        let form = client
            .request(Method::POST, target)
            .header("content-type", "text/plain")
            .body("{}");
        client.send(form).await.refused(415, "unsupported-media-type");
    }
    let numbers = json!({"then": [
        {"add": {"key": "k", "by": 9_223_372_036_854_775_808_u64}}, {"add": {"key": "k", "by": 0.5}}, {"put": {"key": "k", "value": 1}},
        {"put": {"key": "k", "value": "v", "lease": -1}}, {"get": {"prefix": "p", "limit": 10_001}}, {"put": {"key": "k", "value_base64": "!"}},
    ]});
    let refused = client.txn(&numbers).await.refused(422, "invalid-request");
    let pointers = [
        "/then/0/add/by",
        "/then/1/add/by",
        "/then/2/put/value",
        "/then/3/put/lease",
        "/then/4/get/limit",
        "/then/5/put/value_base64",
    ];
    assert_eq!(refused.pointers(), pointers);
    post_raw(
        client,
        "/v1/txn",
        r#"{"then": [{"add": {"key": "k", "by": 1e999}}]}"#,
    )
    .await
    .refused(400, "malformed-json");
    let many = json!({"then": vec![json!({"get": {"key": "k"}}); 129], "if": vec![json!({}); 129]});
    assert_eq!(
        client.txn(&many).await.refused(422, "invalid-request").pointers(),
        ["/if", "/then"]
    );
    client
        .txn(&json!({"then": [{"get": {"key": client.key("k"), "surprise": 1}}], "surprise": 1}))
        .await
        .expect(200);
}

async fn sizes_are_bounded(client: &Client) {
    let put = async |bytes: usize| {
        client
            .send(
                client
                    .request(Method::PUT, &client.path("k"))
                    .body(vec![b'x'; bytes]),
            )
            .await
    };
    put(1 << 20).await.expect(200);
    put((1 << 20) + 1).await.refused(413, "too-large");
    put(8 << 20).await.refused(413, "too-large");
    let value = "v".repeat((1 << 20) + 1);
    let txn = json!({"then": [{"put": {"key": client.key("k"), "value": value}}]});
    assert_eq!(
        client.txn(&txn).await.refused(413, "too-large").pointers(),
        ["/then/0/put/value"]
    );
    post_raw(client, "/v1/txn", vec![b' '; (4 << 20) + 1])
        .await
        .refused(413, "too-large");
    let long = client.key(&"k".repeat(1024));
    for op in [
        json!({"put": {"key": long, "value": "v"}}),
        json!({"get": {"prefix": long}}),
        json!({"delete": {"key": ""}}),
    ] {
        client
            .txn(&json!({"then": [op]}))
            .await
            .refused(422, "invalid-key");
    }
    let large = client
        .request(Method::GET, &client.path("k"))
        .header("x-request-id", "mine")
        .header("x-large", "x".repeat(17_000));
    let refused = client.send(large).await.refused(431, "headers-too-large");
    assert_eq!(
        (refused.header("x-request-id"), &refused.json()["request_id"]),
        ("mine", &json!("mine"))
    );
    assert!(refused.header("x-served-by").starts_with('n'), "{refused:?}");
    let long_path = client.get(&format!("/v1/kv/{}", "k".repeat(20_000))).await;
    assert!([414, 422, 431].contains(&long_path.status), "{long_path:?}");
    assert_eq!(
        client.read("k").await.expect(200).body.len(),
        1 << 20,
        "the first write is the only one"
    );
}

async fn a_body_that_is_too_large_is_not_asked_for(client: &Client) {
    let put = async |bytes: usize, body: &[u8]| {
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {}\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {bytes}\r\n\r\n",
            client.path("expected"),
            client.token
        );
        raw::send(client, &[head.as_bytes(), body].concat()).await
    };
    for bytes in [2 << 20, 1 << 30] {
        let refused = put(bytes, b"").await;
        assert!(refused.starts_with("HTTP/1.1 413 "), "{bytes}: {refused}");
        assert!(refused.contains("\"code\":\"too-large\""), "{bytes}: {refused}");
    }
    let asked = put(1, b"v").await;
    assert!(asked.contains("HTTP/1.1 200 OK"), "{asked}");
}

async fn methods_and_routes_are_told(client: &Client) {
    for target in [
        "/",
        "/v1",
        "/v2/kv/k",
        "/v1/kvs",
        "/v1/leases/1/2/3",
        "/v1/cluster/members/1/demote",
        "/../etc/passwd",
        "/v1/tokens/",
    ] {
        let answer = client.get(target).await;
        assert!(
            matches!((answer.status, answer.code().as_str()), (404, "not-found")),
            "{target}: {}",
            answer.text()
        );
    }
    let wrong = client
        .send(client.request(Method::PATCH, &client.path("k")))
        .await
        .refused(405, "method-not-allowed");
    let mut allowed: Vec<&str> = wrong.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
    client.get("/v1/txn").await.refused(405, "method-not-allowed");
    let given = client
        .request(Method::GET, "/v1/nothing")
        .header("x-request-id", "mine-1");
    let answer = client.send(given).await.refused(404, "not-found");
    assert_eq!(
        (
            answer.header("x-request-id"),
            answer.header("x-served-by").starts_with('n')
        ),
        ("mine-1", true)
    );
    client.get("/problems/compacted").await.expect(200);
}

async fn broken_requests_harm_nobody(client: &Client) {
    let requests: [&[u8]; 12] = [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/kv/\xff HTTP/1.1\r\nhost: t\r\n\r\n",
        b"PUT /v1/kv/k HTTP/1.1\r\nhost: t\r\ncontent-length: -1\r\n\r\n",
        b"PUT /v1/kv/k HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"PUT /v1/kv/k HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"GET /v1/kv/k HTTP/1.1\r\nhost: t\r\nno colon\r\n\r\n",
        b"GET /v1/kv/k HTTP/1.1\r\nhost: t\r\na: \x00\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/kv/a b HTTP/1.1\r\nhost: t\r\n\r\n",
    ];
    for request in requests {
        let answer = raw::send_and_end(client, request).await;
        let text = String::from_utf8_lossy(request);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"),
            "{text:?}: {answer}"
        );
    }
    let chunked = "transfer-encoding: chunked\r\n";
    let head = |more: &str| {
        format!(
            "PUT {} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {}\r\n{more}\r\n",
            client.path("broken"),
            client.token
        )
    };
    for body in ["5\r\nab", "zz\r\nab\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
        raw::send_and_end(client, format!("{}{body}", head(chunked)).as_bytes()).await;
    }
    raw::send_and_end(
        client,
        format!("{}only a part", head("content-length: 100\r\n")).as_bytes(),
    )
    .await;
    client.read("broken").await.refused(404, "key-not-found");
    for target in ["%", "%f", "%zz", "%ff", "a%c3", "%ed%a0%80"] {
        let answer = raw::exchange(client, "PUT", &format!("/v1/kv/{target}"), "", b"v").await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("malformed-parameter"),
            "{target}: {answer}"
        );
    }
    client.put("alive", "v").await;
}
