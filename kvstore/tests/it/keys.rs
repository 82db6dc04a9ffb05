//! Single keys: write, read, delete, keys that the store makes, and how keys are spelled.

use reqwest::Method;

use crate::harness::Client;
use crate::raw;

cases! {
    a_value_is_kept_verbatim
    a_key_counts_its_versions
    deleting_tells_whether_it_was_there
    reading_what_is_known_costs_no_value
    the_store_makes_keys
    a_prefix_is_deleted_at_once
    keys_may_be_any_text
    read_levels_are_what_they_say
}

async fn a_value_is_kept_verbatim(client: &Client) {
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let written = client.put("large", bytes.clone()).await;
    let revision = written.json()["revision"].as_u64().unwrap();
    assert_eq!(written.header("etag"), format!("\"{revision}\""));
    assert_eq!(written.number("x-kv-revision"), revision);
    assert_ne!(written.header("x-kv-leader"), "");
    assert_eq!(written.json()["key"], client.key("large"));
    let read = client.read("large").await.expect(200);
    assert!(read.body == bytes, "the value came back changed");
    assert_eq!(read.header("content-type"), "application/octet-stream");
    assert_eq!(read.header("etag"), format!("\"{revision}\""));
    assert_eq!(read.header("x-kv-consistency"), "linearizable");
    assert!(read.number("x-kv-revision") >= revision);
    client.put("empty", "").await;
    assert_eq!(client.read("empty").await.expect(200).body.len(), 0);
}

async fn a_key_counts_its_versions(client: &Client) {
    let first = client.put("k", "1").await.json();
    let second = client.put("k", "2").await.json();
    assert_eq!(
        (&first["created"], &second["created"]),
        (&true.into(), &false.into())
    );
    assert_eq!((&first["version"], &second["version"]), (&1.into(), &2.into()));
    assert!(second["revision"].as_u64() > first["revision"].as_u64());
    let read = client.read("k").await.expect(200);
    assert_eq!(
        read.number("x-kv-create-revision"),
        first["revision"].as_u64().unwrap()
    );
    assert_eq!((read.number("x-kv-version"), read.number("x-kv-lease")), (2, 0));
    client.delete(&client.path("k")).await.expect(200);
    let again = client.put("k", "3").await.json();
    assert_eq!((&again["version"], &again["created"]), (&1.into(), &true.into()));
}

async fn deleting_tells_whether_it_was_there(client: &Client) {
    let absent = client.read("k").await.refused(404, "key-not-found");
    absent.number("x-kv-revision");
    assert_eq!(absent.header("x-kv-consistency"), "linearizable");
    let before = client.put("k", "v").await.number("x-kv-revision");
    let deleted = client.delete(&client.path("k")).await.expect(200).json();
    assert_eq!(
        (&deleted["deleted"], &deleted["revision"]),
        (&1.into(), &(before + 1).into())
    );
    let again = client.delete(&client.path("k")).await.expect(200).json();
    assert_eq!(again["deleted"], 0);
    // What changes nothing uses no revision.
    assert_eq!(again["revision"], before + 1);
    client.read("k").await.refused(404, "key-not-found");
}

async fn reading_what_is_known_costs_no_value(client: &Client) {
    let tag = client.put("k", "value").await.header("etag").to_owned();
    for known in [
        tag.clone(),
        format!("\"1\", {tag}"),
        format!("W/{tag}"),
        "*".to_owned(),
    ] {
        let request = client
            .request(Method::GET, &client.path("k"))
            .header("if-none-match", &known);
        let answer = client.send(request).await.expect(304);
        assert_eq!(
            (answer.body.len(), answer.header("etag")),
            (0, tag.as_str()),
            "{known}"
        );
    }
    let request = client
        .request(Method::GET, &client.path("k"))
        .header("if-none-match", "\"0\"");
    assert_eq!(client.send(request).await.expect(200).text(), "value");
    let head = client
        .send(client.request(Method::HEAD, &client.path("k")))
        .await
        .expect(200);
    assert_eq!(
        (
            head.header("etag"),
            head.header("content-length"),
            head.body.len()
        ),
        (tag.as_str(), "5", 0)
    );
    client
        .send(client.request(Method::HEAD, &client.path("none")))
        .await
        .expect(404);
}

async fn the_store_makes_keys(client: &Client) {
    let lost = format!("/v1/kv?prefix={}", client.key("../x/"));
    let unfindable = client.send(client.request(Method::POST, &lost).body("v")).await;
    unfindable.refused(422, "invalid-key");
    let target = format!("/v1/kv?prefix={}", client.key("made%20here/"));
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let made = client
            .send(client.request(Method::POST, &target).body("v"))
            .await
            .expect(201);
        let key = made.json()["key"].as_str().unwrap().to_owned();
        let digits = key.strip_prefix(&client.key("made here/")).unwrap();
        assert!(
            digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{key}"
        );
        assert_eq!(made.header("etag"), format!("\"{}\"", made.json()["revision"]));
        let read = client.get(made.header("location")).await.expect(200);
        assert_eq!((read.text().as_str(), read.number("x-kv-version")), ("v", 1));
        keys.insert(key);
    }
    assert_eq!(keys.len(), 10, "each is a new one");
}

async fn a_prefix_is_deleted_at_once(client: &Client) {
    for name in ["p/1", "p/2", "p/3", "q"] {
        client.put(name, "v").await;
    }
    let before = client.revision().await;
    let deleted = client
        .delete(&format!("/v1/kv?prefix={}", client.key("p/")))
        .await
        .expect(200);
    assert_eq!(
        deleted.json(),
        serde_json::json!({"revision": before + 1, "deleted": 3})
    );
    client.read("p/2").await.refused(404, "key-not-found");
    client.read("q").await.expect(200);
    client.delete("/v1/kv").await.refused(400, "missing-prefix");
    client
        .delete("/v1/kv?prefix=")
        .await
        .refused(400, "missing-prefix");
}

/// Written by its encoded path, read back by a transaction, which takes no path at all.
async fn keys_may_be_any_text(client: &Client) {
    let spellings = [
        ("a%2Fb", "a/b"),
        ("/lead", "/lead"),
        ("%2F%2Fx", "//x"),
        ("a//b", "a//b"),
        ("tail/", "tail/"),
        ("%00", "\0"),
        ("%252e", "%2e"),
        ("%2e%2e/x", "../x"),
        ("../y", "../y"),
        ("a+b", "a+b"),
        ("%20", " "),
        ("%3F%23%26%3D", "?#&="),
        ("%C3%A9%F0%9F%98%80", "é😀"),
        ("%E2%80%AE", "\u{202e}"),
    ];
    for (path, name) in spellings {
        let target = format!("/v1/kv/{}{path}", client.key(""));
        let written = raw::exchange(client, "PUT", &target, "", name.as_bytes()).await;
        assert!(written.starts_with("HTTP/1.1 200 "), "{path}: {written}");
        let get = serde_json::json!({"then": [{"get": {"key": client.key(name)}}]});
        let read = client.txn(&get).await.expect(200).json();
        assert_eq!(
            read["results"][0]["get"]["kvs"][0]["value"], name,
            "{path}: {read}"
        );
        let read = raw::exchange(client, "GET", &target, "", b"").await;
        assert!(
            read.starts_with("HTTP/1.1 200 ") && read.ends_with(name),
            "{path}: {read}"
        );
    }
    let longest = "k".repeat(1024 - client.key("").len());
    client.put(&longest, "v").await;
    client.read(&longest).await.expect(200);
    client
        .read(&format!("{longest}k"))
        .await
        .refused(422, "invalid-key");
    client.get("/v1/kv/").await.refused(422, "invalid-key");
}

async fn read_levels_are_what_they_say(client: &Client) {
    let revision = client.put("k", "v").await.number("x-kv-revision");
    for level in ["linearizable", "bounded:5000", &format!("at_least:{revision}")] {
        let answer = client
            .get(&format!("{}?consistency={level}", client.path("k")))
            .await
            .expect(200);
        assert_eq!(
            (answer.header("x-kv-consistency"), answer.text().as_str()),
            (level, "v")
        );
    }
    // A node may be behind here, but not for long.
    crate::harness::wait_for("a local read to see the write", async || {
        let answer = client
            .elsewhere()
            .get(&format!("{}?consistency=local", client.path("k")))
            .await;
        assert_eq!(answer.header("x-kv-consistency"), "local");
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    let elsewhere = client.elsewhere().read("k").await.expect(200);
    assert_eq!(
        elsewhere.text(),
        "v",
        "a linearizable read sees it on any node at once"
    );
}
