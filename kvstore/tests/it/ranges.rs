//! Ranges, page by page. Walks over many pages are in `walks`.

use serde_json::{Value, json};

use crate::harness::Client;

cases! {
    a_range_is_a_prefix_or_two_ends
    rows_say_all_about_a_key
    keys_that_are_written_again_and_again_show_their_newest_value
    a_page_ends_at_four_mebibytes
    a_row_that_has_no_room_is_on_the_next_page
    only_cursors_of_the_store_are_believed
    parameters_out_of_bounds_are_refused
}

fn keys(answer: &Value) -> Vec<&str> {
    answer["kvs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["key"].as_str().unwrap())
        .collect()
}

/// The names behind this client's own prefix.
fn names(client: &Client, answer: &Value) -> String {
    let own = client.key("");
    keys(answer)
        .iter()
        .map(|key| key.strip_prefix(&own).unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}

pub(crate) async fn range(client: &Client, query: &str) -> Value {
    client.get(&format!("/v1/kv?{query}")).await.expect(200).json()
}

async fn a_range_is_a_prefix_or_two_ends(client: &Client) {
    for name in ["a", "a/", "a/1", "a/2", "a0", "b"] {
        client.put(name, name).await;
    }
    let key = |name: &str| client.key(name);
    let cases = [
        (format!("prefix={}", key("")), "a a/ a/1 a/2 a0 b"),
        (format!("prefix={}", key("a/")), "a/ a/1 a/2"),
        (format!("from={}&to={}", key("a/1"), key("b")), "a/1 a/2 a0"),
        (
            format!("from={}&to={}&order=desc", key("a"), key("b")),
            "a0 a/2 a/1 a/ a",
        ),
        (format!("from={}&to={}", key("b"), key("a")), ""),
        // The narrower bounds count.
        (format!("prefix={}&from={}", key("a/"), key("a/1")), "a/1 a/2"),
        (
            format!("prefix={}&to={}&order=desc", key("a/"), key("a/2")),
            "a/1 a/",
        ),
        (format!("prefix={}&from=&to=", key("a/")), "a/ a/1 a/2"),
        (
            format!("prefix={}&from={}&to={}", key("a"), key("0"), key("z")),
            "a a/ a/1 a/2 a0",
        ),
        (format!("prefix={}&from={}", key("a/"), key("b")), ""),
        (format!("prefix={}&order=desc&limit=2", key("")), "b a0"),
        (
            format!("prefix={}&order=asc&limit=2&unknown=1", key("a/")),
            "a/ a/1",
        ),
        (format!("prefix={}", key("zz")), ""),
    ];
    for (query, expected) in cases {
        let answer = range(client, &query).await;
        assert_eq!(names(client, &answer), expected, "{query}");
    }
    let counted = range(client, &format!("prefix={}&count_only=1", key("a"))).await;
    assert_eq!(
        (&counted["count"], &counted["kvs"], &counted["more"]),
        (&json!(5), &json!([]), &json!(false))
    );
    let from = range(client, &format!("from={}&limit=1", key("a0"))).await;
    assert_eq!(names(client, &from), "a0");
}

async fn rows_say_all_about_a_key(client: &Client) {
    let lease = client
        .post("/v1/leases", &json!({"ttl_ms": 60_000}))
        .await
        .expect(201)
        .json()["id"]
        .as_u64()
        .unwrap();
    let request = client
        .request(
            reqwest::Method::PUT,
            &format!("{}?lease={lease}", client.path("k")),
        )
        .body(vec![0xff]);
    let revision = client.send(request).await.expect(200).number("x-kv-revision");
    let row = json!({"key": client.key("k"), "value_base64": "/w==", "create_revision": revision, "mod_revision": revision,
        "version": 1, "lease": lease});
    let query = format!("prefix={}", client.key(""));
    let page = client.get(&format!("/v1/kv?{query}")).await.expect(200);
    assert_eq!(
        (page.header("x-kv-consistency"), page.number("x-kv-revision")),
        ("linearizable", revision)
    );
    assert_eq!(
        page.json(),
        json!({"revision": revision, "kvs": [row], "count": 1, "more": false})
    );
    let bare = range(client, &format!("{query}&keys_only=true")).await;
    assert_eq!(
        (bare["kvs"][0].get("value_base64"), &bare["kvs"][0]["version"]),
        (None, &json!(1))
    );
}

async fn keys_that_are_written_again_and_again_show_their_newest_value(client: &Client) {
    const KEYS: usize = 20;
    let put_all = async |round: usize| {
        let puts = (0..KEYS).map(
            |n| json!({"put": {"key": client.key(&format!("{n:02}")), "value": format!("{n}/{round}")}}),
        );
        let puts: Vec<Value> = puts.collect();
        client.post("/v1/txn", &json!({"then": puts})).await.expect(200);
    };
    for round in 0..10 {
        put_all(round).await;
    }
    let prefix = format!("prefix={}", client.key(""));
    let values = |page: &Value| -> Vec<String> {
        let rows = page["kvs"].as_array().unwrap().iter();
        rows.map(|row| row["value"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = |round: usize| -> Vec<String> { (0..KEYS).map(|n| format!("{n}/{round}")).collect() };
    let page = range(client, &prefix).await;
    assert_eq!((values(&page), &page["count"]), (all(9), &json!(KEYS)));
    let mut backwards = values(&range(client, &format!("{prefix}&order=desc")).await);
    backwards.reverse();
    assert_eq!(backwards, all(9));
    put_all(10).await;
    let past = format!("{prefix}&revision={}", page["revision"]);
    assert_eq!(values(&range(client, &past).await), all(9));
    assert_eq!(values(&range(client, &prefix).await), all(10));
}

async fn a_page_ends_at_four_mebibytes(client: &Client) {
    for n in 0..6 {
        client.put(&format!("big/{n}"), vec![b'x'; 1 << 20]).await;
    }
    let query = format!("prefix={}", client.key("big/"));
    let first = range(client, &query).await;
    assert_eq!(
        (keys(&first).len(), &first["count"], &first["more"]),
        (4, &json!(6), &json!(true))
    );
    let rest = range(
        client,
        &format!("{query}&cursor={}", first["cursor"].as_str().unwrap()),
    )
    .await;
    assert_eq!(
        (keys(&rest).len(), &rest["more"], rest.get("cursor")),
        (2, &json!(false), None)
    );
    let bare = range(client, &format!("{query}&keys_only=1")).await;
    assert_eq!(keys(&bare).len(), 6, "values that are left out do not count");
}

async fn a_row_that_has_no_room_is_on_the_next_page(client: &Client) {
    for n in 0..6 {
        client.put(&format!("odd/{n}"), vec![b'x'; 900 << 10]).await;
    }
    let query = format!("prefix={}", client.key("odd/"));
    for order in ["asc", "desc"] {
        let query = format!("{query}&order={order}");
        let first = range(client, &query).await;
        assert_eq!(
            (keys(&first).len(), &first["count"], &first["more"]),
            (4, &json!(6), &json!(true)),
            "a fifth row would make it 4.4 MiB"
        );
        let cursor = first["cursor"].as_str().unwrap();
        let rest = range(client, &format!("{query}&cursor={cursor}")).await;
        assert_eq!((keys(&rest).len(), &rest["more"]), (2, &json!(false)));
        assert!(keys(&rest).iter().all(|key| !keys(&first).contains(key)));
    }
}

async fn only_cursors_of_the_store_are_believed(client: &Client) {
    for n in 0..3 {
        client.put(&format!("c/{n}"), "v").await;
    }
    let query = format!("prefix={}&limit=1", client.key("c/"));
    let cursor = range(client, &query).await["cursor"].as_str().unwrap().to_owned();
    let alone = range(client, &format!("cursor={cursor}&limit=9")).await;
    assert_eq!(
        names(client, &alone),
        "c/1 c/2",
        "a cursor holds the whole question"
    );
    let (head, last) = cursor.split_at(cursor.len() - 1);
    let forged = format!("{head}{}", if last == "A" { "B" } else { "A" });
    for bad in [forged.as_str(), head, "x", "%ff", ""] {
        client
            .get(&format!("/v1/kv?{query}&cursor={bad}"))
            .await
            .refused(400, "malformed-parameter");
    }
    let other = format!("/v1/kv?prefix={}&cursor={cursor}", client.key("d/"));
    client.get(&other).await.refused(400, "malformed-parameter");
    let reader = client.token("reader", &[("d/", "read")]).await;
    reader
        .get(&format!("/v1/kv?cursor={cursor}"))
        .await
        .refused(403, "forbidden");
}

async fn parameters_out_of_bounds_are_refused(client: &Client) {
    for bad in [
        "limit=0",
        "limit=10001",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1&limit=2",
        "order=up",
        "keys_only=yes",
        "prefix=%ff",
        "prefix=%f",
        "revision=-1",
        "revision=99999999999999999999",
        "consistency=strong",
        "consistency=bounded",
        "consistency=bounded:-1",
        "consistency=at_least:",
    ] {
        client
            .get(&format!("/v1/kv?{bad}"))
            .await
            .refused(400, "malformed-parameter");
    }
    client
        .get(&format!("/v1/kv?prefix={}", "p".repeat(1025)))
        .await
        .refused(422, "invalid-key");
    client
        .get("/v1/kv?revision=999999999")
        .await
        .refused(422, "future-revision");
}
