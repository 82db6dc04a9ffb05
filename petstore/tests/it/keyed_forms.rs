//! Forms with an `Idempotency-Key`, as programs may send them: each is done once, whichever instance it comes to.

use serde_json::json;

use super::system::{EMPTY, PASSWORD, System, VISA, order};
use crate::harness::{Answer, DEADLINE};

/// Without a key where that is empty.
async fn send(system: &System, shop: usize, token: &str, target: &str, key: &str, form: &str) -> Answer {
    let url = format!("http://{}{target}", system.shops[shop].address);
    let request = service::http::client(DEADLINE)
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned());
    let request = if key.is_empty() {
        request
    } else {
        request.header("idempotency-key", key)
    };
    let request = if token.is_empty() {
        request
    } else {
        request.bearer_auth(token)
    };
    system.operator().send(request).await
}

/// To one instance and then to the other, as a gateway does when the first one dies.
async fn twice(system: &System, token: &str, target: &str, key: &str, form: &str) {
    let first = send(system, 0, token, target, key, form).await.expect(303);
    let again = send(system, 1, token, target, key, form).await.expect(303);
    assert_eq!(first.header("location"), again.header("location"), "{target}");
    // The session that comes with a sign-up is a new one each time.
    if target != "/shop/sign-up" {
        let replayed = [&first, &again].map(|answer| answer.header("idempotent-replayed"));
        assert_eq!(replayed, ["", "true"], "{target} {form}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_with_a_key_is_done_once() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("ada").await;
    let token = client.token.as_str();
    let add = |quantity: i64| format!("action=add&product=6&quantity={quantity}");
    twice(&system, token, "/shop/cart", "cart", &add(3)).await;
    let cart = client.get(&format!("/cart/{ada}")).await.expect(200).json();
    assert_eq!(cart["items"][0]["quantity"], 3, "{cart}");
    for (key, form, status) in [("cart", add(4), 422), ("two words", add(1), 400)] {
        let refused = send(&system, 0, token, "/shop/cart", key, &form).await;
        assert_eq!(refused.status, status, "{}", refused.text());
    }

    let made = client
        .post("/orders", &order("6", 1, VISA))
        .await
        .expect(201)
        .json();
    let cancel = format!("/shop/orders/{}/cancel", made["order_id"].as_str().unwrap());
    twice(&system, token, &cancel, "cancel", "").await;

    let sign_up = format!("username=bob&password={}", PASSWORD.replace(' ', "+"));
    twice(&system, "", "/shop/sign-up", "sign-up", &sign_up).await;
    system.sign_in("bob", PASSWORD).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shelves_are_kept_once_by_forms_with_a_key() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let operator = system.operator();
    let (shelves, token) = ("/shop/admin", operator.token.as_str());
    let mice = async || {
        let found = operator.get("/products?q=Mouse").await.expect(200).json();
        let found = found.as_array().unwrap().iter();
        let ids = found.map(|product| product["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<String>>()
    };
    let new = "action=create&name=Mouse&price=3.50&stock=2";
    twice(&system, token, shelves, "new", new).await;
    let made = mice().await;
    assert_eq!(made.len(), 1, "{made:?}");
    let gone = format!("action=delete&id={}", made[0]);
    twice(&system, token, shelves, "gone", &gone).await;
    assert_eq!(mice().await, Vec::<String>::new());
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_with_a_key_is_paid_once() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("ada").await;
    let (checkout, token) = ("/shop/checkout", client.token.as_str());
    let pay = |page: &str, card: &str| {
        let number = card.replace(' ', "+");
        format!("key={page}&cardNumber={number}&expectedTotal=4.99")
    };
    let fill = async || {
        let line = json!({"productId": "6", "quantity": 1});
        client.post(&format!("/cart/{ada}"), &line).await.expect(200);
    };
    fill().await;
    twice(&system, token, checkout, "pay", &pay("page-1", VISA)).await;
    fill().await;
    // Another page is another request than the one that had this key.
    let refused = send(&system, 0, token, checkout, "pay", &pay("page-2", VISA)).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let refused = send(&system, 0, token, checkout, "two words", &pay("page-2", VISA)).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    for (shop, replayed) in [(0, ""), (1, "true")] {
        let declined = send(&system, shop, token, checkout, "empty", &pay("page-2", EMPTY)).await;
        assert_eq!(declined.status, 402, "{}", declined.text());
        assert_eq!(declined.header("idempotent-replayed"), replayed);
    }
    // Without a key of its own the page's counts.
    twice(&system, token, checkout, "", &pay("page-2", VISA)).await;
    assert_eq!(system.stock("6").await, 38);
    assert_eq!(system.settled().await["orders"], 3);
    system.stop().await;
}
