//! The shelves: filters, pages, edits, tags, pets, and pictures.

use insta::assert_snapshot;
use reqwest::Method;
use serde_json::{Value, json};

use super::system::{System, VISA, ask, order};
use crate::harness::Client;

fn names(rows: &Value) -> String {
    let rows = rows.as_array().unwrap().iter();
    let names: Vec<&str> = rows.map(|row| row["name"].as_str().unwrap()).collect();
    names.join(" ")
}

async fn odd_queries_are_refused(client: &Client) {
    for bad in [
        "?sort=age",
        "?limit=0",
        "?limit=201",
        "?inStock=maybe",
        "?minPrice=x",
        "?cursor=%21",
        // Revision 1, of which nobody was shown anything.
        "?cursor=MS4w",
    ] {
        client
            .get(&format!("/products{bad}"))
            .await
            .refused(400, "malformed-parameter");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goods_are_found() {
    let system = System::start().await;
    let client = system.operator();
    let list = async |query: &str| {
        let answer = client.get(&format!("/products{query}")).await.expect(200);
        format!(
            "{query}: {} ({})",
            names(&answer.json()),
            answer.header("x-total-count")
        )
    };
    let product = system.product("Leash", 12.5, 0).await;
    let mut told = Vec::new();
    for query in [
        "",
        "?category=terrarium",
        "?species=Cat",
        "?inStock=false",
        "?inStock=true&category=birds",
        "?q=HERE",
        "?minPrice=100&maxPrice=200",
        "?sort=price&limit=3",
        "?sort=-price&limit=3",
        "?sort=name&limit=3",
        "?category=nothing&unknown=1",
    ] {
        told.push(list(query).await);
    }
    assert_snapshot!(told.join("\n"), @r"
    : Mia Rex Flopsy Nibbles Captain Bubbles Sheldon Noodle Spike Lotl Pip Gex Leash (13)
    ?category=terrarium: Sheldon Noodle Gex (3)
    ?species=Cat: Mia (1)
    ?inStock=false: Leash (1)
    ?inStock=true&category=birds: Captain Pip (2)
    ?q=HERE: Nibbles Lotl (2)
    ?minPrice=100&maxPrice=200: Mia Noodle (2)
    ?sort=price&limit=3: Pip Bubbles Leash (13)
    ?sort=-price&limit=3: Rex Captain Mia (13)
    ?sort=name&limit=3: Bubbles Captain Flopsy (13)
    ?category=nothing&unknown=1:  (0)
    ");
    odd_queries_are_refused(&client).await;
    let seen = client
        .get(&format!("/products/{product}"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (
            &seen["price"],
            &seen["price_minor"],
            &seen["currency"],
            &seen["inStock"]
        ),
        (&json!(12.5), &json!(1250), &json!("EUR"), &json!(false))
    );
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_sees_one_revision() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let mut target = "/products?limit=5&sort=name".to_owned();
    let mut seen = Vec::new();
    for turn in 0.. {
        // Any instance can show the next page, and edits in between change nothing of the walk.
        let client = system.operator_at(turn % 2);
        let page = client.get(&target).await.expect(200);
        seen.push(names(&page.json()));
        ask(
            &client,
            Method::PUT,
            "/products/1",
            &json!({"name": format!("Zoe {turn}")}),
        )
        .await
        .expect(200);
        system.product("Aaron", 1.0, 1).await;
        ask(
            &client,
            Method::DELETE,
            &format!("/products/{}", 2 + turn),
            &json!({}),
        )
        .await
        .expect(200);
        let Some((next, _)) = page.header("link").split_once('>') else {
            break;
        };
        target = next.trim_start_matches('<').to_owned();
    }
    assert_snapshot!(seen.join("\n"), @r"
    Bubbles Captain Flopsy Gex Lotl
    Mia Nibbles Noodle Pip Rex
    Sheldon Spike
    ");
    system.stop().await;
}

async fn put(client: &Client, target: &str, tag: &str, body: &Value) -> crate::harness::Answer {
    let request = client.request(Method::PUT, target).header("if-match", tag);
    client.send(request.json(body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_are_partial_and_tags_cover_the_stock() {
    let system = System::start().await;
    let (_, buyer) = system.user("ada").await;
    let client = system.operator();
    let made = client
        .post(
            "/products",
            &json!({"name": "Ball", "price": 3, "category": "toys", "description": "Round.", "stock": 5}),
        )
        .await
        .expect(201);
    let target = made.header("location").to_owned();
    let first = client.get(&target).await.expect(200);
    let tag = first.header("etag").to_owned();
    assert_eq!(made.header("etag"), tag);
    let request = client.request(Method::GET, &target).header("if-none-match", &tag);
    client.send(request).await.expect(304);
    // A sale changes the tag.
    let id = made.json()["id"].as_str().unwrap().to_owned();
    buyer.post("/orders", &order(&id, 1, VISA)).await.expect(201);
    let refused = put(&client, &target, &tag, &json!({"price": 4})).await;
    let refused = refused.refused(412, "precondition-failed");
    let tag = refused.header("etag").to_owned();
    let changed = put(&client, &target, &tag, &json!({"price": 4.25, "unknown": 1}))
        .await
        .expect(200);
    let body = changed.json();
    assert_eq!(
        (
            &body["price"],
            &body["name"],
            &body["description"],
            &body["stock"]
        ),
        (&json!(4.25), &json!("Ball"), &json!("Round."), &json!(4))
    );
    assert_eq!(client.get(&target).await.header("etag"), changed.header("etag"));
    for (change, stock) in [
        (json!({"stock": 9}), 9),
        // There are some already.
        (json!({"inStock": true}), 9),
        (json!({"inStock": false}), 0),
        (json!({"inStock": true}), 100),
    ] {
        let changed = ask(&client, Method::PUT, &target, &change).await;
        let body = changed.expect(200).json();
        assert_eq!(
            (&body["stock"], &body["inStock"]),
            (&json!(stock), &json!(stock > 0)),
            "{change}"
        );
    }
    ask(&client, Method::PUT, "/products/77", &json!({"price": 1}))
        .await
        .refused(404, "product-not-found");
    let gone = ask(&client, Method::DELETE, &target, &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(gone["id"], json!(id));
    client.get(&target).await.refused(404, "product-not-found");
    client.delete(&target).await.refused(404, "product-not-found");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_product_is_told() {
    let system = System::start().await;
    let client = system.operator();
    let body = json!({"name": "", "price": -1, "category": 7, "stock": 1.5, "inStock": "yes", "description": "x".repeat(2001)});
    let refused = client
        .post("/products", &body)
        .await
        .refused(422, "invalid-request");
    assert_eq!(
        refused.pointers(),
        [
            "/inStock",
            "/stock",
            "/name",
            "/category",
            "/description",
            "/price"
        ]
    );
    for price in ["0", "0.001", "1e12", "\"1\"", "NaN"] {
        let request = client
            .request(Method::POST, "/products")
            .header("content-type", "application/json");
        let body = format!("{{\"name\": \"x\", \"price\": {price}}}");
        let answer = client.send(request.body(body)).await;
        assert!([400, 422].contains(&answer.status), "{price}: {}", answer.text());
    }
    for stock in [json!(-1), json!(1_000_001), json!("5")] {
        let body = json!({"name": "x", "price": 1, "stock": stock});
        client
            .post("/products", &body)
            .await
            .refused(422, "invalid-request");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pets_are_single_animals() {
    let system = System::start().await;
    let (_, buyer) = system.user("ada").await;
    let client = system.operator();
    let made = client
        .post("/pets", &json!({"species": "cat", "price": 80, "name": "Tom"}))
        .await
        .expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("/pets/{id}"));
    assert_eq!(system.stock(&id).await, 1);
    assert!(names(&client.get("/pets").await.expect(200).json()).ends_with("Gex Tom"));
    buyer.post("/orders", &order(&id, 1, VISA)).await.expect(201);
    assert!(names(&client.get("/pets").await.expect(200).json()).ends_with("Gex"));
    let seen = client.get(&format!("/pets/{id}")).await.expect(200).json();
    assert_eq!(
        (&seen["available"], &seen["species"]),
        (&json!(false), &json!("cat"))
    );
    buyer
        .post("/orders", &order(&id, 1, VISA))
        .await
        .refused(409, "out-of-stock");
    client
        .post("/pets", &json!({"price": 80, "name": "Tom"}))
        .await
        .refused(422, "invalid-request");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_species_has_a_picture() {
    let system = System::start().await;
    let rows = system.operator().get("/products").await.expect(200).json();
    for row in rows.as_array().unwrap() {
        let picture = system
            .browse(Method::GET, row["image"].as_str().unwrap(), &json!(null))
            .await
            .expect(200);
        assert_eq!(picture.header("content-type"), "image/svg+xml");
        assert!(!picture.text().contains("A paw"), "{row}");
    }
    let other = system
        .browse(Method::GET, "/pictures/unicorn.svg", &json!(null))
        .await
        .expect(200);
    assert!(other.text().contains("A paw"));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shops_of_other_names_do_not_see_each_others_goods() {
    let mut system = System::start().await;
    system.product("Mine", 1.0, 1).await;
    system.config.shop.name = "other".to_owned();
    system.config.shop.demo = false;
    system.start_shop().await;
    assert_eq!(
        system.operator_at(1).get("/products").await.expect(200).json(),
        json!([])
    );
    let made = system
        .operator_at(1)
        .post("/products", &json!({"name": "Theirs", "price": 1}))
        .await;
    assert_eq!(made.expect(201).json()["id"], "1");
    assert_eq!(
        system.operator().get("/products/1").await.expect(200).json()["name"],
        "Mia"
    );
    system.stop().await;
}
