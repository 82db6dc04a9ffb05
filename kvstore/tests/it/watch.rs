//! Watches: every change once and in order, resumed anywhere, and never a silent gap.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::events::{Event, Events};
use crate::harness::{Client, Cluster, DEADLINE, wait_for};

cases! {
    changes_arrive_in_order
    only_the_last_event_of_a_revision_has_its_id
    a_watch_resumes_anywhere
    a_watch_begins_at_the_next_write
    what_was_before_is_told_on_request
    progress_follows_foreign_writes
    a_future_revision_is_waited_for
    a_token_that_lost_access_sees_no_more
    selectors_and_positions_are_checked
    every_change_arrives_once_under_load
}

async fn changes_arrive_in_order(client: &Client) {
    let mut events = Events::of_space(client, "").await;
    let mut one = Events::open(client, &format!("key={}", client.key("a"))).await;
    assert_eq!(one.next().await.name, "progress");
    let put = client.put("a", "1").await.number("x-kv-revision");
    client.put("ab", vec![0xff]).await;
    let deleted = client
        .delete(&client.path("a"))
        .await
        .expect(200)
        .number("x-kv-revision");
    let changes = events.changes(3).await;
    let first = json!({"key": client.key("a"), "value": "1", "create_revision": put, "mod_revision": put, "version": 1});
    assert_eq!(
        changes[0],
        Event {
            name: "put".into(),
            id: Some(put),
            data: first
        }
    );
    assert_eq!(changes[1].data["value_base64"], "/w==");
    let last = json!({"key": client.key("a"), "create_revision": 0, "mod_revision": deleted, "version": 0});
    assert_eq!(
        changes[2],
        Event {
            name: "delete".into(),
            id: Some(deleted),
            data: last
        }
    );
    assert_eq!(one.changes(2).await, [changes[0].clone(), changes[2].clone()]);
}

async fn only_the_last_event_of_a_revision_has_its_id(client: &Client) {
    let mut events = Events::of_space(client, "").await;
    let put = |name: &str| json!({"put": {"key": client.key(name), "value": "v"}});
    let body = json!({"then": [put("c"), put("a"), put("b"), put("a")]});
    let revision = client.txn(&body).await.expect(200).number("x-kv-revision");
    let changes = events.changes(3).await;
    assert!(changes.iter().all(|change| change.revision() == revision));
    assert_eq!(
        changes.iter().map(|change| change.id).collect::<Vec<_>>(),
        [None, None, Some(revision)]
    );
    // A watch of one of the keys gets its id as well.
    let mut one = Events::open(client, &format!("key={}&from={revision}", client.key("a"))).await;
    assert_eq!(one.change().await.id, Some(revision));
}

async fn a_watch_resumes_anywhere(client: &Client) {
    let mut revisions = Vec::new();
    for n in 0..20 {
        revisions.push(
            client
                .put(&format!("k{}", n % 3), format!("{n}"))
                .await
                .number("x-kv-revision"),
        );
    }
    let prefix = format!("prefix={}", client.key(""));
    let from = |revision: u64| format!("{prefix}&from={revision}");
    let seen = |events: Vec<Event>| events.iter().map(Event::revision).collect::<Vec<_>>();
    let mut inclusive = Events::open(client, &from(revisions[5])).await;
    assert_eq!(seen(inclusive.changes(15).await), revisions[5..]);
    let elsewhere = client.elsewhere();
    let mut exclusive = Events::open_after(&elsewhere, &prefix, Some(revisions[5])).await;
    assert_eq!(seen(exclusive.changes(14).await), revisions[6..]);
    let mut wins = Events::open_after(client, &from(revisions[1]), Some(revisions[9])).await;
    assert_eq!(seen(wins.changes(10).await), revisions[10..]);
}

async fn a_watch_begins_at_the_next_write(client: &Client) {
    client.put("k", "before").await;
    let mut events = Events::open(client, &format!("prefix={}", client.key(""))).await;
    let begun = events.next().await;
    assert_eq!(
        (begun.name.as_str(), begun.id),
        ("progress", Some(begun.revision()))
    );
    client.elsewhere().put("k", "after").await;
    assert_eq!(events.change().await.data["value"], "after");
    // Cut before any change came, it resumes after its first progress and misses nothing.
    let mut resumed = Events::open_after(client, &format!("prefix={}", client.key("")), begun.id).await;
    assert_eq!(resumed.change().await.data["value"], "after");
}

async fn what_was_before_is_told_on_request(client: &Client) {
    let mut events = Events::of_space(client, "&prev=1").await;
    let created = client.put("k", "1").await.number("x-kv-revision");
    client.put("k", "2").await;
    client.delete(&client.path("k")).await.expect(200);
    let changes = events.changes(3).await;
    assert_eq!(changes[0].data.get("prev"), None);
    let prev = json!({"key": client.key("k"), "value": "1", "create_revision": created, "mod_revision": created, "version": 1, "lease": 0});
    assert_eq!(changes[1].data["prev"], prev);
    assert_eq!(
        (
            &changes[2].data["prev"]["value"],
            &changes[2].data["prev"]["version"]
        ),
        (&json!("2"), &json!(2))
    );
}

async fn progress_follows_foreign_writes(client: &Client) {
    let mut events = Events::open(client, &format!("prefix={}", client.key("mine/"))).await;
    assert_eq!(events.next().await.name, "progress");
    let began = Instant::now();
    let revision = client.put("foreign", "v").await.number("x-kv-revision");
    loop {
        let event = events.next().await;
        assert_eq!(
            (event.name.as_str(), event.id),
            ("progress", Some(event.revision()))
        );
        if event.revision() >= revision {
            break;
        }
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "told after {:?}",
        began.elapsed()
    );
}

async fn a_future_revision_is_waited_for(client: &Client) {
    let present = client.put("k", "0").await.number("x-kv-revision");
    let mut events = Events::open(client, &format!("prefix={}&from={}", client.key(""), present + 3)).await;
    for n in 1..=4 {
        client.put("k", format!("{n}")).await;
    }
    let changes = events.changes(2).await;
    assert_eq!(
        (&changes[0].data["value"], &changes[1].data["value"]),
        (&json!("3"), &json!("4"))
    );
}

async fn a_token_that_lost_access_sees_no_more(client: &Client) {
    let reader = client.token("reader", &[("", "read")]).await;
    let mut events = Events::of_space(&reader, "").await;
    client.put("k", "seen").await;
    assert_eq!(events.change().await.data["value"], "seen");
    client.token("reader", &[("elsewhere/", "read")]).await;
    client.put("k", "hidden").await;
    let began = Instant::now();
    while let Some(event) = events.next_or_end().await {
        assert!(!event.is_change(), "{event:?}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "ended after {:?}",
        began.elapsed()
    );
}

async fn selectors_and_positions_are_checked(client: &Client) {
    for bad in [
        "key=a&prefix=b",
        "from=x",
        "from=-1",
        "prev=maybe",
        "prefix=%ff",
        "consistency=best",
        "key=a&key=b",
    ] {
        client
            .get(&format!("/v1/watch?{bad}"))
            .await
            .refused(400, "malformed-parameter");
    }
    client.get("/v1/watch?key=").await.refused(422, "invalid-key");
    for bad in ["x", "-1", "1 2", "99999999999999999999"] {
        let request = client
            .request(Method::GET, "/v1/watch?key=a")
            .header("last-event-id", bad);
        client.send(request).await.refused(400, "malformed-parameter");
    }
    let reader = client.token("reader", &[("mine/", "read")]).await;
    for refused in [
        format!("prefix={}", client.key("")),
        format!("key={}", client.key("other")),
        String::new(),
    ] {
        reader
            .get(&format!("/v1/watch?{refused}"))
            .await
            .refused(403, "forbidden");
    }
}

/// Three writers on all nodes; a reader that is cut again and again.
async fn every_change_arrives_once_under_load(client: &Client) {
    let mut events = Events::of_space(client, "").await;
    let mut watching = client.clone();
    let writing = async |mut writer: Client, name: &'static str| {
        for n in 0..100 {
            writer.put(name, format!("{n}")).await;
            writer = writer.elsewhere();
        }
    };
    let reading = async {
        let (mut seen, mut last, mut whole) = (Vec::new(), 0, None);
        while seen.len() < 300 {
            let event = events.next().await;
            if event.is_change() {
                assert!(event.revision() >= last, "{event:?} after {last}");
                last = event.revision();
                seen.push(format!("{}={}", event.data["key"], event.data["value"]));
            }
            whole = event.id.or(whole);
            // Cut at whole revisions only, as a client counts what it has.
            if seen.len() % 50 == 49 && event.id.is_some() && event.is_change() {
                watching = watching.elsewhere();
                events = Events::open_after(&watching, &format!("prefix={}", client.key("")), whole).await;
            }
        }
        seen
    };
    let all = async {
        tokio::join!(
            writing(client.clone(), "a"),
            writing(client.elsewhere(), "b"),
            writing(client.clone(), "c"),
            reading
        )
        .3
    };
    let seen = tokio::time::timeout(3 * DEADLINE, all).await.unwrap();
    for name in ["a", "b", "c"] {
        let key = json!(client.key(name)).to_string();
        let of_key: Vec<&String> = seen
            .iter()
            .filter(|text| text.starts_with(&format!("{key}=")))
            .collect();
        let expected: Vec<String> = (0..100).map(|n| format!("{key}=\"{n}\"")).collect();
        assert!(
            of_key
                .iter()
                .zip(&expected)
                .all(|(seen, expected)| *seen == expected)
                && of_key.len() == 100,
            "{of_key:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_too_slow_is_told_where_to_go_on() {
    let cluster = Cluster::start_with(1, |config| config.limits.watch_buffer_bytes_max = 256 << 10).await;
    let client = cluster.client(0);
    let mut events = Events::of_space(&client, "").await;
    let mut written = Vec::new();
    // More than the sockets between us can hold.
    for n in 0..400 {
        written.push(
            client
                .put(&format!("{n}"), vec![b'x'; 100 << 10])
                .await
                .number("x-kv-revision"),
        );
    }
    let mut seen = Vec::new();
    let resume = loop {
        let event = events.next().await;
        match event.name.as_str() {
            "put" => seen.push(event.revision()),
            "lagging" => break event.revision(),
            other => assert_eq!(other, "progress"),
        }
    };
    assert_eq!(events.next_or_end().await, None, "and the stream is closed");
    assert!(seen.len() < 400, "it was too slow");
    let mut again = Events::open(&client, &format!("prefix={}&from={resume}", client.key(""))).await;
    while seen.len() < 400 {
        seen.push(again.change().await.revision());
    }
    assert_eq!(seen, written, "nothing is lost, nothing twice");
    cluster.stop().await;
}

/// What fell out of the ring while nothing concerned it is no reason to call a reader slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_whom_nothing_concerned_is_not_too_slow() {
    let cluster = Cluster::start_with(1, |config| config.limits.watch_buffer_bytes_max = 4 << 10).await;
    let client = cluster.client(0);
    let mut events = Events::open(&client, &format!("key={}&progress_ms=5000", client.key("own"))).await;
    assert_eq!(events.next().await.name, "progress");
    for round in 0..5 {
        client.put("own", format!("{round}")).await;
        let change = events.changes(1).await;
        assert_eq!(change[0].data["value"], json!(format!("{round}")));
        for n in 0..10 {
            client.put(&format!("foreign/{n}"), vec![b'x'; 1 << 10]).await;
        }
    }
    // One revision that is larger than the ring, and has it among its own.
    let puts: Vec<_> = (0..100)
        .map(|n| json!({"put": {"key": client.key(&format!("own{n}")), "value": "x".repeat(100)}}))
        .chain([json!({"put": {"key": client.key("own"), "value": "last"}})])
        .collect();
    client.txn(&json!({"then": puts})).await.expect(200);
    assert_eq!(events.changes(1).await[0].data["value"], json!("last"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_under_whom_history_is_given_up_is_told() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    let mut written = Vec::new();
    // More than the sockets and the newest events in memory hold, so that the past is read from the tables.
    for n in 0..400 {
        let put = client.put(&format!("{n}"), vec![b'x'; 100 << 10]).await;
        written.push(put.number("x-kv-revision"));
    }
    let (first, last) = (written[0], written[399]);
    let mut events = Events::open(&client, &format!("prefix={}&from={first}", client.key(""))).await;
    let mut seen = vec![events.change().await.revision()];
    client.post("/v1/compact", &json!({"revision": last})).await;
    let compacted = loop {
        let event = events.next().await;
        match event.name.as_str() {
            "put" => seen.push(event.revision()),
            "compacted" => break event.data["compacted_revision"].as_u64(),
            other => assert_eq!(other, "progress"),
        }
    };
    assert_eq!(compacted, Some(last));
    assert_eq!(events.next_or_end().await, None, "and the stream is closed");
    assert!(seen.len() < 400, "it was in the middle of it");
    assert_eq!(seen, written[..seen.len()], "what came before it is whole");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_bounded() {
    let cluster = Cluster::start_with(1, |config| config.limits.watchers_max = 2).await;
    let client = cluster.client(0);
    let (_first, second) = (
        Events::of_space(&client, "").await,
        Events::of_space(&client, "").await,
    );
    let refused = client
        .get("/v1/watch?prefix=a")
        .await
        .refused(503, "too-many-watchers");
    assert_ne!(refused.header("retry-after"), "");
    assert!(client.get("/metrics").await.text().contains("kv_watchers 2"));
    drop(second);
    // The node notices that the reader is gone when it next has something to say.
    wait_for("a place to become free", async || {
        client.put("k", "v").await;
        let response = client
            .request(Method::GET, "/v1/watch?prefix=a")
            .send()
            .await
            .unwrap();
        if response.status() == 200 {
            Ok(())
        } else {
            Err(response.status())
        }
    })
    .await;
    cluster.stop().await;
}
