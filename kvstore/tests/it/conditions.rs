//! Writes under `If-Match` and `If-None-Match`.

use reqwest::Method;

use crate::harness::{Answer, Client};

cases! {
    only_create
    only_if_unchanged
    only_if_present
    deleting_under_a_condition
    malformed_conditions_are_refused
}

async fn put_if(client: &Client, name: &str, header: &str, value: &str) -> Answer {
    let request = client
        .request(Method::PUT, &client.path(name))
        .header(header, value)
        .body("new");
    client.send(request).await
}

async fn only_create(client: &Client) {
    let created = put_if(client, "k", "if-none-match", "*").await.expect(200);
    let present = created.header("etag").to_owned();
    let refused = put_if(client, "k", "if-none-match", "*")
        .await
        .refused(412, "precondition-failed");
    assert_eq!(refused.header("etag"), present);
    assert_eq!(format!("\"{}\"", refused.json()["revision"]), present);
    assert_ne!(refused.number("x-kv-revision"), 0);
    client.delete(&client.path("k")).await.expect(200);
    put_if(client, "k", "if-none-match", "*").await.expect(200);
}

async fn only_if_unchanged(client: &Client) {
    let absent = put_if(client, "k", "if-match", "\"1\"")
        .await
        .refused(412, "precondition-failed");
    assert!(absent.headers.get("etag").is_none() && absent.json()["revision"] == 0);
    let first = client.put("k", "old").await.header("etag").to_owned();
    let second = put_if(client, "k", "if-match", &first)
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    for stale in [
        first.as_str(),
        "\"0\"",
        "\"99999999999999999999999\"",
        &format!("W/{second}"),
    ] {
        let refused = put_if(client, "k", "if-match", stale)
            .await
            .refused(412, "precondition-failed");
        assert_eq!(refused.header("etag"), second, "{stale}");
    }
    assert_eq!(client.read("k").await.number("x-kv-version"), 2);
}

async fn only_if_present(client: &Client) {
    let absent = put_if(client, "k", "if-match", "*")
        .await
        .refused(412, "precondition-failed");
    assert!(absent.headers.get("etag").is_none() && absent.json()["revision"] == 0);
    let delete = async || {
        let request = client.request(Method::DELETE, &client.path("k"));
        client.send(request.header("if-match", "*")).await
    };
    delete().await.refused(412, "precondition-failed");
    client.read("k").await.refused(404, "key-not-found");
    client.put("k", "old").await;
    let written = put_if(client, "k", "if-match", "*").await.expect(200);
    let (told, key) = (written.json(), client.key("k"));
    assert_eq!(
        (&told["key"], &told["version"], &told["created"]),
        (&key.into(), &2.into(), &false.into())
    );
    assert_eq!(written.header("etag"), format!("\"{}\"", told["revision"]));
    let read = client.read("k").await;
    assert_eq!(
        (read.text().as_str(), read.header("etag")),
        ("new", written.header("etag"))
    );
    assert_eq!(delete().await.expect(200).json()["deleted"], 1);
}

async fn deleting_under_a_condition(client: &Client) {
    let delete_if = async |tag: &str| {
        client
            .send(
                client
                    .request(Method::DELETE, &client.path("k"))
                    .header("if-match", tag),
            )
            .await
    };
    delete_if("\"1\"").await.refused(412, "precondition-failed");
    let first = client.put("k", "1").await.header("etag").to_owned();
    let second = client.put("k", "2").await.header("etag").to_owned();
    assert_eq!(
        delete_if(&first)
            .await
            .refused(412, "precondition-failed")
            .header("etag"),
        second
    );
    assert_eq!(delete_if(&second).await.expect(200).json()["deleted"], 1);
}

async fn malformed_conditions_are_refused(client: &Client) {
    let tag = client.put("k", "v").await.header("etag").to_owned();
    for bad in ["1", "\"x\"", "\"\"", "\"1\", \"2\"", "\"-1\""] {
        put_if(client, "k", "if-match", bad)
            .await
            .refused(400, "malformed-parameter");
    }
    put_if(client, "k", "if-none-match", &tag)
        .await
        .refused(400, "malformed-parameter");
    let both = client
        .request(Method::PUT, &client.path("k"))
        .header("if-none-match", "*")
        .header("if-match", &tag);
    client.send(both).await.refused(400, "malformed-parameter");
    assert_eq!(client.read("k").await.text(), "v");
}
