//! Transactions: conditions, branches, and `add`.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::Client;

cases! {
    all_or_nothing_under_conditions
    conditions_compare_every_target
    a_later_op_sees_an_earlier_one
    a_key_written_twice_has_one_version
    adding_stays_within_bounds
    a_refused_add_runs_the_failed_branch
    a_failed_branch_that_fails_writes_nothing
    concurrent_adds_lose_nothing
    what_writes_nothing_uses_no_revision
    any_bytes_travel_as_base64
    a_large_answer_is_whole
}

/// They are put into JSON elsewhere than what is short.
async fn a_large_answer_is_whole(client: &Client) {
    let value = "it is \"quoted\"\n".repeat(50_000);
    client.put("large", value.clone().into_bytes()).await.expect(200);
    let body =
        json!({"then": [{"get": {"key": client.key("large")}}, {"add": {"key": client.key("n"), "by": 1}}]});
    let told = client.txn(&body).await.expect(200);
    assert_eq!(
        told.number("x-kv-revision"),
        told.json()["revision"].as_u64().unwrap()
    );
    assert_eq!(told.json()["results"][0]["get"]["kvs"][0]["value"], json!(value));
    assert_eq!(told.json()["results"][1], json!({"add": {"value": 1}}));
}

async fn all_or_nothing_under_conditions(client: &Client) {
    let (a, b) = (client.key("a"), client.key("b"));
    let transfer = json!({
        "if": [{"key": a, "target": "version", "op": "==", "operand": 0}],
        "then": [{"put": {"key": a, "value": "1"}}, {"put": {"key": b, "value": "2"}}],
        "else": [{"get": {"key": b}}],
    });
    let first = client.txn(&transfer).await.expect(200);
    let revision = first.number("x-kv-revision");
    let expected = json!({"revision": revision, "succeeded": true, "branch": "then",
        "results": [{"put": {"version": 1}}, {"put": {"version": 1}}]});
    assert_eq!(first.json(), expected);
    for name in ["a", "b"] {
        assert_eq!(
            client.read(name).await.header("etag"),
            format!("\"{revision}\""),
            "both are of one revision"
        );
    }
    let second = client.txn(&transfer).await.expect(200).json();
    let row = json!({"key": b, "value": "2", "create_revision": revision, "mod_revision": revision, "version": 1, "lease": 0});
    let expected = json!({"revision": revision, "succeeded": false, "branch": "else",
        "results": [{"get": {"kvs": [row], "count": 1}}]});
    assert_eq!(second, expected);
}

async fn conditions_compare_every_target(client: &Client) {
    let revision = client.put("n", "10").await.number("x-kv-revision");
    client.put("text", "abc").await;
    let (n, text, none) = (client.key("n"), client.key("text"), client.key("none"));
    let cases = [
        (json!([n, "version", "==", 1]), true),
        (json!([n, "version", ">", 1]), false),
        (json!([none, "version", "==", 0]), true),
        (json!([n, "create", "==", revision]), true),
        (json!([n, "mod", "<=", revision]), true),
        (json!([n, "mod", "<", revision]), false),
        (json!([n, "lease", "==", 0]), true),
        (json!([n, "lease", "!=", 0]), false),
        // As a number, 10 is greater than 9; as text it is less.
        (json!([n, "int", ">", 9]), true),
        (json!([n, "value", "<", "9"]), true),
        (json!([n, "int", ">=", -1]), true),
        (json!([none, "int", "==", 0]), true),
        (json!([text, "int", "==", 0]), false),
        (json!([text, "int", "!=", 0]), true),
        (json!([text, "value", "==", "abc"]), true),
        (json!([text, "value", "!=", "abd"]), true),
        (json!([text, "value", ">=", "b"]), false),
        (json!([none, "value", "==", ""]), false),
        (json!([none, "value", "!=", "x"]), true),
    ];
    for (case, holds) in cases {
        let condition = json!({"key": case[0], "target": case[1], "op": case[2], "operand": case[3]});
        let answer = client.txn(&json!({"if": [condition]})).await.expect(200).json();
        assert_eq!(answer["succeeded"], holds, "{case}");
    }
}

async fn a_later_op_sees_an_earlier_one(client: &Client) {
    let key = |name: &str| client.key(name);
    client.put("p/0", "old").await;
    let answer = client
        .txn(&json!({"then": [
            {"put": {"key": key("p/1"), "value": "new"}},
            {"get": {"prefix": key("p/"), "limit": 1}},
            {"delete": {"key": key("p/0")}},
            {"get": {"key": key("p/0")}},
            {"add": {"key": key("n"), "by": 5}},
            {"add": {"key": key("n"), "by": -7}},
            {"delete": {"prefix": key("p/")}},
            {"get": {"prefix": key("p/")}},
        ]}))
        .await
        .expect(200)
        .json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(
        (
            &results[1]["get"]["count"],
            results[1]["get"]["kvs"].as_array().unwrap().len()
        ),
        (&json!(2), 1)
    );
    assert_eq!(results[2], json!({"delete": {"deleted": 1}}));
    assert_eq!(results[3], json!({"get": {"kvs": [], "count": 0}}));
    assert_eq!(
        (&results[4], &results[5]),
        (&json!({"add": {"value": 5}}), &json!({"add": {"value": -2}}))
    );
    assert_eq!(results[6], json!({"delete": {"deleted": 1}}));
    assert_eq!(results[7]["get"]["count"], 0);
    assert_eq!(client.read("n").await.text(), "-2");
}

async fn a_key_written_twice_has_one_version(client: &Client) {
    let key = client.key("k");
    let twice = json!({"then": [{"put": {"key": key, "value": "1"}}, {"put": {"key": key, "value": "2"}}]});
    let answer = client.txn(&twice).await.expect(200).json();
    assert_eq!(
        answer["results"],
        json!([{"put": {"version": 1}}, {"put": {"version": 1}}])
    );
    let again = json!({"then": [{"delete": {"key": key}}, {"put": {"key": key, "value": "3"}}]});
    client.txn(&again).await.expect(200);
    let read = client.read("k").await;
    assert_eq!(
        (read.text().as_str(), read.number("x-kv-version")),
        ("3", 1),
        "deleted in between, it begins anew"
    );
}

fn add(key: &str, by: i64, min: Option<i64>, max: Option<i64>) -> Value {
    json!({"then": [{"add": {"key": key, "by": by, "min": min, "max": max}}]})
}

async fn adding_stays_within_bounds(client: &Client) {
    let key = client.key("n");
    let value = async |body: Value| client.txn(&body).await.expect(200).json();
    assert_eq!(
        value(add(&key, 3, Some(0), Some(5))).await["results"],
        json!([{"add": {"value": 3}}])
    );
    for (by, min, max) in [(3, Some(0), Some(5)), (-4, Some(0), None), (i64::MAX, None, None)] {
        let refused = value(add(&key, by, min, max)).await;
        assert_eq!(
            (&refused["succeeded"], &refused["failed_op"]),
            (&json!(false), &json!(0)),
            "{by}"
        );
        assert_eq!(refused["branch"], "else");
    }
    assert_eq!(client.read("n").await.text(), "3");
    client.put("n", "three").await;
    assert_eq!(value(add(&key, 1, None, None)).await["succeeded"], false);
    client.put("n", "9223372036854775806").await;
    assert_eq!(
        value(add(&key, 1, None, None)).await["results"],
        json!([{"add": {"value": i64::MAX}}])
    );
}

async fn a_refused_add_runs_the_failed_branch(client: &Client) {
    let (stock, log) = (client.key("stock"), client.key("log"));
    let order = |fail: bool| {
        let mut order = json!({
            "if": [{"key": stock, "target": "int", "op": "<", "operand": 100}],
            "then": [{"put": {"key": log, "value": "sold"}}, {"add": {"key": stock, "by": -1, "min": 0}}],
            "else": [{"put": {"key": log, "value": "else"}}],
        });
        if fail {
            order["failed"] = json!([{"put": {"key": log, "value": "refused"}}]);
        }
        order
    };
    let refused = client.txn(&order(true)).await.expect(200).json();
    assert_eq!(
        (&refused["branch"], &refused["failed_op"], &refused["succeeded"]),
        (&json!("failed"), &json!(1), &json!(false))
    );
    assert_eq!(
        client.read("log").await.text(),
        "refused",
        "nothing of `then` was written"
    );
    let refused = client.txn(&order(false)).await.expect(200).json();
    assert_eq!(
        (&refused["branch"], &refused["failed_op"]),
        (&json!("else"), &json!(1))
    );
    assert_eq!(client.read("log").await.text(), "else");
}

async fn a_failed_branch_that_fails_writes_nothing(client: &Client) {
    let before = client.put("n", "0").await.number("x-kv-revision");
    let (n, k) = (client.key("n"), client.key("k"));
    let down = json!({"add": {"key": n, "by": -1, "min": 0}});
    let put = json!({"put": {"key": k, "value": "v"}});
    for body in [
        json!({"then": [put, down], "failed": [put, down]}),
        json!({"then": [down], "else": [put, down]}),
    ] {
        let answer = client.txn(&body).await.expect(200).json();
        assert_eq!(
            (&answer["succeeded"], &answer["results"]),
            (&json!(false), &json!([])),
            "{answer}"
        );
        assert_eq!(answer["revision"], before);
    }
    client.read("k").await.refused(404, "key-not-found");
}

async fn concurrent_adds_lose_nothing(client: &Client) {
    let key = client.key("n");
    let elsewhere = client.elsewhere();
    let adds = (0..100).map(|n| {
        let client = if n % 2 == 0 { client } else { &elsewhere };
        let body = add(&key, 1, None, Some(60));
        async move { client.txn(&body).await.expect(200).json()["succeeded"] == true }
    });
    let taken = join_all(adds)
        .await
        .into_iter()
        .filter(|succeeded| *succeeded)
        .count();
    assert_eq!((taken, client.read("n").await.text().as_str()), (60, "60"));
}

async fn what_writes_nothing_uses_no_revision(client: &Client) {
    let before = client.put("k", "v").await.number("x-kv-revision");
    let key = client.key("k");
    for body in [
        json!({}),
        json!({"then": [{"get": {"key": key}}]}),
        json!({"then": [{"delete": {"key": client.key("none")}}]}),
    ] {
        assert_eq!(
            client.txn(&body).await.expect(200).json()["revision"],
            before,
            "{body}"
        );
    }
    let empty = client.request(reqwest::Method::POST, "/v1/txn");
    assert_eq!(
        client.send(empty).await.expect(200).json()["succeeded"],
        true,
        "an empty body counts as {{}}"
    );
}

async fn any_bytes_travel_as_base64(client: &Client) {
    let key = client.key("k");
    let body = json!({"then": [{"put": {"key": key, "value_base64": "/wA="}}, {"get": {"key": key}}]});
    let answer = client.txn(&body).await.expect(200).json();
    let row = &answer["results"][1]["get"]["kvs"][0];
    assert_eq!((&row["value_base64"], row.get("value")), (&json!("/wA="), None));
    assert_eq!(client.read("k").await.body.as_ref(), [0xff, 0]);
    let condition = json!([{"key": key, "target": "value", "op": "==", "operand_base64": "/wA="}]);
    assert_eq!(
        client.txn(&json!({"if": condition})).await.expect(200).json()["succeeded"],
        true
    );
}
