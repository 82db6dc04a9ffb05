//! Idempotency keys: one order, one answer, whoever repeats what where.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use service::config::Checkout;
use service::tasks::Tasks;
use tokio::task::JoinHandle;

use super::system::{EMPTY, System, VISA, keyed, order};
use crate::harness::{Answer, Client};

/// Asks the first shop with the key `k`, and is held there at this point.
async fn held_at(
    system: &System,
    point: &str,
    client: &Client,
    target: &str,
    body: &Value,
) -> JoinHandle<Answer> {
    system.traps[0].arm(point);
    let (client, target, body) = (client.clone(), target.to_owned(), body.clone());
    let asking = async move { keyed(&client, &target, "k", &body).await };
    let held = Tasks::new().spawn("held", asking);
    system.traps[0].caught().await;
    held
}

/// Where an order that was just paid is canceled.
async fn new_to_cancel(client: &Client) -> String {
    let made = client.post("/orders", &order("6", 1, VISA)).await.expect(201);
    format!("{}/cancel", made.header("location"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_make_one_order() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("ada").await;
    let body = order("6", 1, VISA);
    let clients = [client.clone(), system.at(1, &client)];
    let twins = (0..10).map(|n| keyed(&clients[n % 2], "/orders", "the-key", &body));
    let answers = join_all(twins).await;
    let ids: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect(201).json()["order_id"].clone())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let again = keyed(&clients[1], "/orders", "the-key", &body).await.expect(201);
    assert_eq!(again.header("idempotent-replayed"), "true");
    let other = order("6", 2, VISA);
    keyed(&client, "/orders", "the-key", &other)
        .await
        .refused(422, "idempotency-key-reused");
    // The key belongs to its user.
    let (_, bob) = system.user("bob").await;
    let made = keyed(&bob, "/orders", "the-key", &other).await.expect(201);
    assert_eq!(made.header("idempotent-replayed"), "");
    assert_eq!(
        client
            .get(&format!("/orders/{ada}"))
            .await
            .expect(200)
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(system.stock("6").await, 37);
    keyed(&client, "/orders", "two words", &body)
        .await
        .refused(400, "malformed-parameter");
    system.stop().await;
}

/// Whoever lost the first answer edits the product with what the second one says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_answer_has_the_tag_of_the_first() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let admins = [system.operator_at(0), system.operator_at(1)];
    let send = async |shop: usize, method: &Method, target: &str, body: &Value| {
        let request = admins[shop].request(method.clone(), target);
        let request = request.header("idempotency-key", format!("{method}-{target}"));
        admins[shop].send(request.json(body)).await
    };
    let thing = json!({"name": "Thing", "species": "cat", "price": 1});
    let id = system.product("Another", 1.0, 5).await;
    let change = format!("/products/{id}");
    for (method, target, status) in [
        (Method::POST, "/products", 201),
        (Method::POST, "/pets", 201),
        (Method::PUT, change.as_str(), 200),
    ] {
        let first = send(0, &method, target, &thing).await.expect(status);
        let again = send(1, &method, target, &thing).await.expect(status);
        assert_eq!(again.header("idempotent-replayed"), "true", "{target}");
        assert!(!first.header("etag").is_empty(), "{target}");
        assert_eq!(again.header("etag"), first.header("etag"), "{target}");
        let made = again.json()["id"].as_str().unwrap().to_owned();
        let edit = admins[1].request(Method::PUT, &format!("/products/{made}"));
        let edit = edit.header("if-match", again.header("etag"));
        admins[1].send(edit.json(&json!({"price": 2}))).await.expect(200);
    }
    // What is gone has none.
    for _ in 0..2 {
        let removed = send(0, &Method::DELETE, &change, &json!({})).await.expect(200);
        assert_eq!(removed.header("etag"), "");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decline_is_repeated_as_well() {
    let system = System::start().await;
    let (_, client) = system.user("ada").await;
    let body = order("6", 1, EMPTY);
    let first = keyed(&client, "/orders", "k", &body)
        .await
        .refused(402, "card-declined");
    let second = keyed(&client, "/orders", "k", &body)
        .await
        .refused(402, "card-declined");
    assert_eq!(first.json()["order_id"], second.json()["order_id"]);
    assert_eq!(second.header("idempotent-replayed"), "true");
    // Nothing was written, so the same request may do better later.
    let (rare, rarer) = (system.product("Rare", 1.0, 0).await, json!({"stock": 1}));
    let body = order(&rare, 1, VISA);
    keyed(&client, "/orders", "r", &body)
        .await
        .refused(409, "out-of-stock");
    let put = system
        .operator()
        .request(Method::PUT, &format!("/products/{rare}"))
        .json(&rarer);
    client.send(put).await.expect(200);
    keyed(&client, "/orders", "r", &body).await.expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_can_be_repeated() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("ada").await;
    let admins = [system.operator_at(0), system.operator_at(1)];
    let users = [client.clone(), system.at(1, &client)];
    let cart = format!("/cart/{ada}");
    let item = format!("{cart}/item/6");
    let writes = [
        (
            &admins,
            Method::POST,
            "/products",
            json!({"name": "New", "price": 1}),
        ),
        (&admins, Method::PUT, "/products/1", json!({"price": 2})),
        (&admins, Method::DELETE, "/products/2", json!({})),
        (
            &admins,
            Method::POST,
            "/pets",
            json!({"name": "Tom", "species": "cat", "price": 1}),
        ),
        (
            &users,
            Method::POST,
            &cart,
            json!({"productId": "6", "quantity": 2}),
        ),
        (&users, Method::PUT, &item, json!({"quantity": 5})),
        (&users, Method::DELETE, &item, json!({})),
        (&users, Method::DELETE, &cart, json!({})),
    ];
    for (n, (clients, method, target, body)) in writes.into_iter().enumerate() {
        let mut told = Vec::new();
        for client in clients {
            let request = client
                .request(method.clone(), target)
                .header("idempotency-key", format!("k{n}"));
            let answer = client.send(request.json(&body)).await;
            assert!(answer.status < 300, "{method} {target}: {}", answer.text());
            assert_eq!(
                answer.header("idempotent-replayed") == "true",
                !told.is_empty(),
                "{method} {target}"
            );
            told.push((answer.status, answer.text(), answer.header("location").to_owned()));
        }
        assert_eq!(told[0], told[1]);
    }
    let new = json!({"username": "bob", "password": "12345678"});
    let first = keyed(&client, "/users", "u", &new).await.expect(201).text();
    assert_eq!(
        keyed(&client, "/users", "u", &new).await.expect(201).text(),
        first
    );
    system.stop().await;
}

/// The late twin has looked for an answer before there was one, and everything else only after the first was done:
/// what would refuse it is its own effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_twin_is_not_refused_for_what_the_first_did() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("ada").await;
    let admins = [system.operator_at(0), system.operator_at(1)];
    let users = [client.clone(), system.at(1, &client)];
    let cart = format!("/cart/{ada}");
    let tag = admins[0]
        .get("/products/1")
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    let writes = [
        // Twice it would be more than a cart may hold.
        (
            &users,
            &post,
            cart.as_str(),
            json!({"productId": "6", "quantity": 600}),
        ),
        (&users, &put, &format!("{cart}/item/6"), json!({"quantity": 2})),
        (&users, &post, "/orders", json!({"cardNumber": VISA})),
        (&admins, &put, "/products/1", json!({"price": 2})),
        (&admins, &delete, "/products/2", json!({})),
        (
            &users,
            &post,
            "/users",
            json!({"username": "bob", "password": "12345678"}),
        ),
    ];
    for (n, (clients, method, target, body)) in writes.into_iter().enumerate() {
        let request = |client: &Client| {
            let request = client.request(method.clone(), target);
            let request = request.header("idempotency-key", format!("k{n}"));
            match target {
                "/products/1" => request.header("if-match", &tag).json(&body),
                _ => request.json(&body),
            }
        };
        system.traps[1].arm("unanswered");
        let (late, sender) = (request(&clients[1]), clients[1].clone());
        let late = Tasks::new().spawn("twin", async move { sender.send(late).await });
        system.traps[1].caught().await;
        let first = clients[0].send(request(&clients[0])).await;
        assert!(first.status < 300, "{method} {target}: {}", first.text());
        system.traps[1].release();
        let late = late.await.unwrap();
        let told = |answer: &Answer| (answer.status, answer.json());
        assert_eq!(told(&late), told(&first), "{method} {target}");
        assert_eq!(late.header("idempotent-replayed"), "true", "{method} {target}");
    }
    assert_eq!(system.settled().await["orders"], 1);
    assert_eq!(system.stock("6").await, 38);
    system.stop().await;
}

/// Orders that wait for payment keep their places, and who repeats one of them is told of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_needs_no_place_of_its_own() {
    let system = System::start_with(1, 1, |config| {
        config.orders_at_once = 1;
        config.order_wait_ms = 200;
    })
    .await;
    let (_, client) = system.user("ada").await;
    let body = order("6", 1, VISA);
    system.traps[0].arm("before authorize");
    let first = keyed(&client, "/orders", "k", &body).await.expect(202);
    system.traps[0].caught().await;
    let again = keyed(&client, "/orders", "k", &body).await.expect(202);
    assert_eq!(again.json()["order_id"], first.json()["order_id"]);
    assert_eq!(again.header("idempotent-replayed"), "true");
    // By letters an order has a place only as long as somebody waits for it.
    if super::CHECKOUT == Checkout::Direct {
        let other = keyed(&client, "/orders", "other", &body).await;
        other.refused(503, "overloaded");
    }
    system.traps[0].release();
    assert_eq!(system.settled().await["orders"], 1);
    system.stop().await;
}

/// The first one with this key is about to place its order: whoever has no room cannot say that nothing was ordered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_only_what_is_known_is_said() {
    let system = System::start_with(1, 1, |config| config.orders_at_once = 1).await;
    let (_, client) = system.user("ada").await;
    let body = order("6", 1, VISA);
    let first = held_at(&system, "tokenized", &client, "/orders", &body).await;
    let again = keyed(&client, "/orders", "k", &body).await;
    let told = again.refused(503, "overloaded").text();
    assert!(
        told.contains("with the same key") && !told.contains("nothing"),
        "{told}"
    );
    let bare = client.post("/orders", &body).await;
    let told = bare.refused(503, "overloaded").text();
    assert!(told.contains("This request ordered nothing."), "{told}");
    system.traps[0].release();
    first.await.unwrap().expect(201);
    assert_eq!(system.settled().await["orders"], 1);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_repeated_as_well() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (_, client) = system.user("ada").await;
    let cancels = [new_to_cancel(&client).await, new_to_cancel(&client).await];
    let first = keyed(&client, &cancels[0], "k", &json!({})).await.expect(200);
    assert_eq!(first.json()["status"], "refunded");
    let elsewhere = system.at(1, &client);
    let second = keyed(&elsewhere, &cancels[0], "k", &json!({})).await.expect(200);
    assert_eq!(second.json(), first.json());
    let replayed = [&first, &second].map(|answer| answer.header("idempotent-replayed").to_owned());
    assert_eq!(replayed, ["", "true"]);
    let other = keyed(&client, &cancels[1], "k", &json!({})).await;
    other.refused(422, "idempotency-key-reused");
    let paid = client.get(cancels[1].trim_end_matches("/cancel")).await;
    assert_eq!(paid.expect(200).json()["status"], "paid");
    system.stop().await;
}

/// The store goes when the money is back already, so that the answer cannot be kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_was_done_is_told_so() {
    let mut system = System::start_with(1, 1, |config| config.request_ms_max = 1000).await;
    let (_, client) = system.user("ada").await;
    let cancel = new_to_cancel(&client).await;
    let canceling = held_at(&system, "to be kept", &client, &cancel, &json!({})).await;
    system.cluster.stop_node(0).await;
    system.traps[0].release();
    let told = canceling.await.unwrap().expect(200);
    assert_eq!(told.json()["status"], "refunded");
    for shop in &mut system.shops {
        shop.kill();
    }
    // The store is gone, which the rest of the clean-up would wait for.
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_run_out() {
    let system = System::start_with(1, 1, |config| {
        config.answer_s = 1;
        config.sweep_every_ms = 50;
    })
    .await;
    let (_, client) = system.user("ada").await;
    keyed(&client, "/orders", "k", &order("6", 1, VISA))
        .await
        .expect(201);
    let root = system.cluster.client(0);
    crate::harness::wait_for("the answers to be gone", async || {
        let mut left = 0;
        for prefix in ["answer", "due"] {
            let target = format!("/v1/kv?prefix=shop/menagerie/{prefix}/&count_only=1");
            left += root.get(&target).await.expect(200).json()["count"]
                .as_i64()
                .unwrap();
        }
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    keyed(&client, "/orders", "k", &order("6", 2, VISA))
        .await
        .expect(201);
    system.stop().await;
}

/// Both have looked for an answer before there was one. The key belongs to the faster one, and the other one is told
/// what was done: only a repetition of it is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_cancels_with_one_key_none_is_told_as_not_done() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (_, client) = system.user("ada").await;
    let cancels = [new_to_cancel(&client).await, new_to_cancel(&client).await];
    let canceling = held_at(&system, "to be kept", &client, &cancels[0], &json!({})).await;
    let elsewhere = system.at(1, &client);
    keyed(&elsewhere, &cancels[1], "k", &json!({})).await.expect(200);
    system.traps[0].release();
    let told = canceling.await.unwrap().expect(200);
    assert_eq!(told.json()["status"], "refunded");
    assert_eq!(told.header("idempotent-replayed"), "");
    let again = keyed(&client, &cancels[0], "k", &json!({})).await;
    again.refused(422, "idempotency-key-reused");
    system.stop().await;
}
