//! `GET /getServer` and `GET /services`: who is there.

use serde_json::json;

use crate::harness::wait_for;
use crate::system::System;

#[tokio::test]
async fn live_instances_are_named_in_turn() {
    let system = System::start(2).await;
    let addresses: Vec<String> = system.shops.iter().map(|shop| shop.address.to_string()).collect();
    let mut named = Vec::new();
    for _ in 0..4 {
        // What is passed on in between takes nobody's turn.
        assert_eq!(system.get("/products").await, 418);
        named.push(system.server("").await["server"].as_str().unwrap().to_owned());
    }
    assert_eq!(named[0], named[2]);
    assert_eq!(named[1], named[3]);
    named.sort();
    named.dedup();
    let mut sorted = addresses.clone();
    sorted.sort();
    assert_eq!(named, sorted);
    for _ in 0..3 {
        let other = system.server(&format!("?exclude={}", addresses[0])).await;
        assert_eq!(other["server"], addresses[1].as_str());
        assert_eq!(other["name"], "shop2");
    }
    let nobody = system.server(&format!("?exclude={}", addresses.join(","))).await;
    assert_eq!(
        nobody,
        json!({"code": 503, "server": null, "message": "no instance of petstore is running", "stale": false})
    );
    let nobody = system
        .client()
        .get("/getServer?service=payment")
        .await
        .expect(503);
    assert_eq!(
        (nobody.json()["code"].as_u64(), nobody.header("retry-after")),
        (Some(503), "1")
    );
}

#[tokio::test]
async fn who_stops_is_gone_at_once_and_who_comes_is_there() {
    let system = System::start(2).await;
    system.unregister(0);
    system.knows(1).await;
    assert_eq!(system.server("").await["name"], "shop2");
    system.unregister(1);
    system.knows(0).await;
    assert_eq!(system.server("").await["code"], 503);
    let answer = system.client().get("/products").await;
    answer.refused(503, "no-instance");
}

#[tokio::test]
async fn without_the_store_the_last_list_is_used_and_said_to_be_old() {
    let mut system = System::start(2).await;
    assert_eq!(system.services().await["stale"], false);
    system.cluster.stop_node(0).await;
    wait_for("the list to be stale", async || {
        let services = system.services().await;
        (services["stale"] == true).then_some(()).ok_or(services)
    })
    .await;
    assert_eq!(system.server("").await["stale"], true);
    assert_eq!(system.get("/products").await, 418);
    assert_eq!(system.get("/readyz").await, 200);
}

#[tokio::test]
async fn numbers_are_for_the_operator() {
    let system = System::start(1).await;
    assert_eq!(system.get("/products").await, 418);
    let told = system.client().get("/metrics").await.expect(200).text();
    assert!(
        told.contains("menagerie_gateway_passed_total{instance=\"shop1\"} 1"),
        "{told}"
    );
    let stranger = system.client().with_token("nobody").get("/metrics").await;
    stranger.refused(401, "unauthorized");
}

#[tokio::test]
async fn the_document_names_what_the_gateway_answers_itself() {
    let system = System::start(1).await;
    let document = system.client().get("/openapi.json").await.expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, routes) in document["paths"].as_object().unwrap() {
        let answer = system.client().get(path).await.expect(200);
        let kind = answer.header("content-type").split(';').next().unwrap();
        let said = &routes["get"]["responses"]["200"]["content"];
        assert!(said[kind].is_object(), "{path} answers {kind}, not as in {said}");
    }
    let page = system.client().get("/docs").await.expect(200);
    assert!(
        page.text().contains("/openapi.json"),
        "the page lays the document out"
    );
    assert_eq!(
        system.shops[0].seen(),
        Vec::<String>::new(),
        "nobody else was asked"
    );
}
