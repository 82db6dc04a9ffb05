//! Walks over the pages of a range, through one node after the other.

use serde_json::{Value, json};

use crate::harness::{Answer, Client};
use crate::ranges::range;

cases! {
    a_link_leads_on_whatever_the_query_holds
    a_walk_shows_one_revision_while_others_write
    a_walk_outlives_compaction
    a_walk_whose_pin_was_ended_takes_another
}

/// Follows the links of a walk, each page through another node, and gathers the rows.
async fn walk(client: &Client, target: &str, mut between: impl AsyncFnMut()) -> (Vec<Value>, Vec<Answer>) {
    let (mut client, mut target) = (client.clone(), target.to_owned());
    let (mut rows, mut pages) = (Vec::new(), Vec::new());
    loop {
        let page = client.get(&target).await.expect(200);
        let body = page.json();
        rows.extend(body["kvs"].as_array().unwrap().iter().cloned());
        let link = page.header("link").to_owned();
        assert_eq!(body["more"], !link.is_empty());
        pages.push(page);
        if link.is_empty() {
            return (rows, pages);
        }
        let next = link
            .strip_prefix('<')
            .and_then(|link| link.strip_suffix(">; rel=\"next\""))
            .unwrap();
        assert!(
            next.ends_with(&format!("cursor={}", body["cursor"].as_str().unwrap())),
            "{next}"
        );
        next.clone_into(&mut target);
        client = client.elsewhere();
        between().await;
    }
}

/// Such letters come raw from tools that encode nothing by themselves.
async fn a_link_leads_on_whatever_the_query_holds(client: &Client) {
    for n in 0..3 {
        client.put(&format!("<é>\"/{n}"), format!("{n}")).await;
    }
    for prefix in ["%3Cé%3E%22/", "%3C%C3%A9%3E%22%2F"] {
        let target = format!("/v1/kv?prefix={}&limit=1", client.key(prefix));
        let (rows, pages) = walk(client, &target, async || {}).await;
        assert_eq!((rows.len(), pages.len()), (3, 3), "{prefix}");
    }
}

async fn a_walk_shows_one_revision_while_others_write(client: &Client) {
    for n in 0..25 {
        client.put(&format!("w/{n:02}"), format!("{n}")).await;
    }
    for order in ["asc", "desc"] {
        let revision = client.revision().await;
        let target = format!("/v1/kv?prefix={}&limit=4&order={order}", client.key("w/"));
        let mut round = 0;
        let (rows, pages) = walk(client, &target, async || {
            round += 1;
            client.put(&format!("w/{:02}", 24 - round), "changed").await;
            client.put(&format!("w/{round:02}x"), "inserted").await;
            client
                .delete(&client.path(&format!("w/{:02}", 10 + round)))
                .await
                .expect(200);
        })
        .await;
        assert_eq!(pages.len(), rows.len().div_ceil(4));
        assert!(
            pages
                .iter()
                .all(|page| page.json()["revision"] == revision && page.number("x-kv-revision") == revision)
        );
        let whole = range(
            client,
            &format!("prefix={}&order={order}&revision={revision}", client.key("w/")),
        )
        .await;
        assert_eq!(Value::from(rows), whole["kvs"], "{order}: the pages are the past");
        assert!(pages.iter().all(|page| page.json()["count"] == whole["count"]));
    }
}

async fn a_walk_outlives_compaction(client: &Client) {
    for n in 0..10 {
        client.put(&format!("w/{n}"), "old").await;
    }
    let target = format!("/v1/kv?prefix={}&limit=3", client.key("w/"));
    // Begun within the same second, so both share a pin.
    let other = client.get(&target).await.expect(200).json();
    let (rows, pages) = walk(client, &target, async || {
        for n in 0..10 {
            client.put(&format!("w/{n}"), "new").await;
        }
        let revision = client.revision().await;
        client
            .post("/v1/compact", &json!({"revision": revision}))
            .await
            .expect(200);
    })
    .await;
    let are_old = |rows: &[Value]| rows.iter().all(|row| row["value"] == "old");
    assert!(rows.len() == 10 && are_old(&rows), "{rows:?}");
    let revision = pages[0].json()["revision"].as_u64().unwrap();
    // The walk was protected; another reader of that revision is not.
    client
        .get(&format!("{}?revision={revision}", client.path("w/1")))
        .await
        .refused(410, "compacted");
    // So is the other, although the first is over.
    let go_on = async || {
        let cursor = other["cursor"].as_str().unwrap();
        client.get(&format!("/v1/kv?cursor={cursor}")).await
    };
    let rest = go_on().await.expect(200).json();
    let rest = rest["kvs"].as_array().unwrap();
    assert!(rest.len() == 7 && are_old(rest), "{rest:?}");
    // Whoever rests until the pin has ended, as others of before may, is refused.
    end_pins(client).await;
    go_on().await.refused(410, "compacted");
}

async fn end_pins(client: &Client) {
    let leases = client.get("/v1/leases").await.expect(200).json();
    let leases = leases.as_array().unwrap().iter();
    for lease in leases.filter(|lease| !lease["pin"].is_null()) {
        client.delete(&format!("/v1/leases/{}", lease["id"])).await;
    }
}

/// As long as what it kept is still there.
async fn a_walk_whose_pin_was_ended_takes_another(client: &Client) {
    for n in 0..10 {
        client.put(&format!("v/{n}"), "old").await;
    }
    let next = async |before: &Value| {
        let cursor = before["cursor"].as_str().unwrap();
        let page = client.get(&format!("/v1/kv?cursor={cursor}&limit=3")).await;
        page.expect(200).json()
    };
    let first = client
        .get(&format!("/v1/kv?prefix={}&limit=3", client.key("v/")))
        .await;
    end_pins(client).await;
    let second = next(&first.expect(200).json()).await;
    for n in 0..10 {
        client.put(&format!("v/{n}"), "new").await;
    }
    let revision = client.revision().await;
    let compacted = client.post("/v1/compact", &json!({"revision": revision})).await;
    compacted.expect(200);
    let third = next(&second).await;
    let rows = third["kvs"].as_array().unwrap();
    assert!(
        rows.len() == 3 && rows.iter().all(|row| row["value"] == "old"),
        "{rows:?}"
    );
}
