//! Orders from end to end: paid, declined, sold out, canceled, refunded, and what everybody sees of them.

use insta::assert_snapshot;
use reqwest::Method;
use serde_json::json;
use service::config::Checkout;
use service::tasks::Tasks;

use super::purchase::{becomes, order_unwaited};
use super::system::{EMPTY, System, VISA, ask, order};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_ordered_and_paid() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let cart = format!("/cart/{ada}");
    for (product, quantity) in [("1", 1), ("6", 2)] {
        let body = json!({"productId": product, "quantity": quantity});
        client.post(&cart, &body).await.expect(200);
    }
    let before = system.balance(VISA).await.0;
    let made = client
        .post("/orders", &json!({"cardNumber": VISA}))
        .await
        .expect(201);
    let body = made.json();
    let id = body["order_id"].as_str().unwrap();
    assert_eq!(made.header("location"), format!("/orders/{ada}/{id}"));
    assert_eq!(
        (&body["status"], &body["orderId"], &body["total_minor"]),
        (&json!("paid"), &json!(id), &json!(12_900 + 2 * 499))
    );
    assert_eq!(body["total"].to_string(), "138.98");
    assert_eq!(body["items"][1]["quantity"], 2);
    assert_eq!(
        (&body["payment"]["brand"], &body["payment"]["last4"]),
        (&json!("visa"), &json!("4242"))
    );
    assert_eq!(system.balance(VISA).await, (before - 13_898, 0));
    assert_eq!((system.stock("1").await, system.stock("6").await), (2, 38));
    assert_eq!(client.get(&cart).await.expect(200).json()["items"], json!([]));
    let listed = client.get(&format!("/orders/{ada}")).await.expect(200).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(
        listed[0],
        client.get(made.header("location")).await.expect(200).json()
    );
    client
        .post("/orders", &json!({"cardNumber": VISA}))
        .await
        .refused(409, "cart-empty");
    assert_eq!(system.settled().await["orders"], 1);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declined_card_leaves_everything_as_it_was() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let cart = format!("/cart/{ada}");
    client
        .post(&cart, &json!({"productId": 6, "quantity": 2}))
        .await
        .expect(200);
    let declined = client.post("/orders", &json!({"cardNumber": EMPTY})).await;
    let declined = declined.refused(402, "card-declined");
    assert_eq!(declined.json()["decline_code"], "insufficient-funds");
    let order_id = declined.json()["order_id"].as_str().unwrap().to_owned();
    let seen = client
        .get(&format!("/orders/{ada}/{order_id}"))
        .await
        .expect(200)
        .json();
    assert_eq!(seen["status"], "payment_failed");
    assert_eq!(system.stock("6").await, 40);
    assert_eq!(
        client.get(&cart).await.expect(200).json()["items"][0]["quantity"],
        2
    );
    // What was never in the cart does not come into it.
    client
        .post("/orders", &order("1", 1, EMPTY))
        .await
        .refused(402, "card-declined");
    assert_eq!(
        client.get(&cart).await.json()["items"].as_array().unwrap().len(),
        1
    );
    let target = format!("/orders/{ada}/{order_id}/cancel");
    client
        .post(&target, &json!({}))
        .await
        .refused(409, "order-not-cancelable");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_cannot_be_ordered() {
    let system = System::start().await;
    let (_, client) = system.user("ada").await;
    let rare = system.product("Rare", 1.0, 2).await;
    let body = json!({"items": [{"productId": rare, "quantity": 3}, {"productId": "6", "quantity": 1}], "cardNumber": VISA});
    let refused = client.post("/orders", &body).await.refused(409, "out-of-stock");
    assert_eq!(
        refused.json()["lines"],
        json!([{"productId": rare, "name": "Rare", "quantity": 3, "available": 2}])
    );
    client
        .post("/orders", &order("nothing", 1, VISA))
        .await
        .refused(404, "product-not-found");
    assert_eq!((system.stock(&rare).await, system.stock("6").await), (2, 40));
    // The same product named twice is one line.
    let twice =
        json!({"products": [{"productId": rare, "quantity": 1}, {"productId": rare}], "cardNumber": VISA});
    let made = client.post("/orders", &twice).await.expect(201).json();
    assert_eq!(made["items"][0]["quantity"], 2);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_that_cannot_pay_are_refused_before_anything_is_written() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let card = async |body: serde_json::Value| {
        let answer = client.post("/orders", &body).await;
        format!("{} {} {:?}", answer.status, answer.code(), answer.pointers())
    };
    let items = json!([{"productId": "6", "quantity": 1}]);
    let told = [
        card(json!({"items": items, "cardNumber": "4242 4242 4242 4241"})).await,
        card(json!({"items": items, "cardNumber": "9999 9999 9999 9995"})).await,
        card(json!({"items": items, "cardNumber": 4242})).await,
        card(json!({"items": items})).await,
        card(json!({"items": items, "cardNumber": VISA, "paymentToken": "tok_x"})).await,
        card(json!({"items": items, "paymentToken": format!("tok_{}", "x".repeat(125))})).await,
        card(json!({"items": items, "paymentToken": ""})).await,
        card(json!({"items": items, "paymentToken": "tok x"})).await,
        card(json!({"items": items, "paymentToken": 7})).await,
    ]
    .join("\n");
    assert_snapshot!(told, @r#"
    422 invalid-card-number ["/cardNumber"]
    422 unsupported-brand ["/cardNumber"]
    422 invalid-request ["/cardNumber"]
    422 invalid-request ["/cardNumber"]
    422 invalid-request ["/paymentToken"]
    422 invalid-request ["/paymentToken"]
    422 invalid-request ["/paymentToken"]
    422 invalid-request ["/paymentToken"]
    422 invalid-request ["/paymentToken"]
    "#);
    assert_eq!(
        client.get(&format!("/orders/{ada}")).await.expect(200).json(),
        json!([])
    );
    // A token that nobody gave out is found when it is to be used, and the order ends there.
    let body = json!({"items": items, "paymentToken": "tok_nonsense"});
    let declined = client.post("/orders", &body).await.refused(402, "card-declined");
    assert_eq!(declined.json()["decline_code"], "invalid-token");
    let made = ask(
        &system.merchant(),
        Method::POST,
        "/v1/tokens",
        &json!({"card_number": VISA}),
    )
    .await;
    let token = made.expect(201).json()["token"].clone();
    let body = json!({"items": items, "paymentToken": token});
    let paid = client.post("/orders", &body).await.expect(201).json();
    assert_eq!(paid["payment"]["last4"], "4242");
    let used = client.post("/orders", &body).await.refused(402, "card-declined");
    assert_eq!(used.json()["decline_code"], "token-used");
    assert_eq!(system.stock("6").await, 39);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_order_is_canceled_and_the_money_comes_back() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let before = system.balance(VISA).await;
    let made = client
        .post("/orders", &order("2", 1, VISA))
        .await
        .expect(201)
        .json();
    let target = format!("/orders/{ada}/{}/cancel", made["order_id"].as_str().unwrap());
    for _ in 0..2 {
        let canceled = client.post(&target, &json!({})).await.expect(200).json();
        assert_eq!(canceled["status"], "refunded");
    }
    assert_eq!(system.balance(VISA).await, before);
    assert_eq!(system.stock("2").await, 2);
    let missing = format!("/orders/{ada}/{}/cancel", "0".repeat(32));
    client
        .post(&missing, &json!({}))
        .await
        .refused(404, "order-not-found");
    system.stop().await;
}

/// As an operator may do at the payment service, out of goodwill; or who gave back the rest, and was not heard of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_back_by_hand_is_not_given_back_again() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let product = system.product("Thing", 3.5, 10).await;
    let before = system.balance(VISA).await;
    for by_hand in [
        &[("a", 0.01)][..],
        &[("a", 3.5)],
        &[("a", 0.01), ("rest-1", 3.49)],
        // The shop's own name for the whole, given to half of it, and to a part that is not the rest.
        &[("all", 1.75)],
        &[("all", 0.01)],
    ] {
        let made = client.post("/orders", &order(&product, 1, VISA)).await;
        let made = made.expect(201).json();
        let (merchant, payment) = (system.merchant(), made["payment"]["id"].as_str().unwrap());
        for (name, amount) in by_hand {
            let target = format!("/v1/payments/{payment}/refunds/{name}");
            let given = ask(&merchant, Method::PUT, &target, &json!({"amount": amount})).await;
            given.expect(201);
        }
        let target = format!("/orders/{ada}/{}/cancel", made["order_id"].as_str().unwrap());
        let canceled = client.post(&target, &json!({})).await.expect(200).json();
        assert_eq!(canceled["status"], "refunded", "{by_hand:?}");
        let shown = merchant.get(&format!("/v1/payments/{payment}")).await;
        let shown = shown.expect(200).json();
        assert_eq!(
            (&shown["captured_minor"], &shown["refunded_minor"]),
            (&json!(350), &json!(350)),
            "{by_hand:?}"
        );
        assert_eq!(system.balance(VISA).await, before, "{by_hand:?}");
        assert_eq!(system.stock(&product).await, 10);
        system.settled().await;
    }
    system.stop().await;
}

/// Each time the order was read to be canceled it is written once more, as if it moved on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_changes_all_the_time_is_no_fault_of_the_shop() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let made = client.post("/orders", &order("2", 1, VISA)).await.expect(201);
    let id = made.json()["order_id"].as_str().unwrap().to_owned();
    let target = format!("{}/cancel", made.header("location"));
    for _ in 0..8 {
        system.traps[0].arm("read to be canceled");
    }
    let (asker, asked) = (client.clone(), target.clone());
    let mut canceling = Tasks::new().spawn("cancel", async move { asker.post(&asked, &json!({})).await });
    let root = system.cluster.client(0);
    let key = format!("/v1/kv/shop/menagerie/live/order/{ada}/{id}");
    let answer = loop {
        tokio::select! {
            answer = &mut canceling => break answer.unwrap(),
            () = system.traps[0].caught() => {}
        }
        let seen = root.get(&key).await.expect(200);
        let again = root
            .request(Method::PUT, &key)
            .header("if-match", seen.header("etag"));
        let written = root.send(again.body(seen.text())).await;
        assert!(matches!(written.status, 200 | 412), "{}", written.text());
        system.traps[0].release();
    };
    if super::CHECKOUT == Checkout::Direct {
        answer.refused(503, "overloaded");
    } else {
        // A letter does not mind.
        assert_eq!(answer.expect(200).json()["status"], "refunded");
    }
    system.traps[0].disarm();
    let canceled = client.post(&target, &json!({})).await.expect(200).json();
    assert_eq!(canceled["status"], "refunded");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_wait_is_told_where_to_look() {
    let system = System::start().await;
    let (_, client) = system.user("ada").await;
    let accepted = order_unwaited(&client, &order("3", 1, VISA)).await;
    assert_eq!(accepted.json()["status"], "pending");
    becomes(&client, accepted.header("location"), "paid").await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_not_paid_in_time_is_canceled() {
    let mut system = System::start_with(1, 1, |config| {
        config.order_pending_s = 1;
        config.order_wait_ms = 200;
        config.request_ms_max = 500;
    })
    .await;
    let (ada, client) = system.user("ada").await;
    let before = system.balance(VISA).await;
    system.traps[0].arm("before authorize");
    let accepted = client
        .post("/orders", &order("3", 2, VISA))
        .await
        .expect(202)
        .json();
    system.traps[0].caught().await;
    system.payments[0].kill();
    system.traps[0].release();
    assert_eq!(system.stock("3").await, 6);
    let target = format!("/orders/{ada}/{}", accepted["order_id"].as_str().unwrap());
    becomes(&client, &target, "canceling").await;
    system.restart_payment().await;
    becomes(&client, &target, "canceled").await;
    assert_eq!(system.stock("3").await, 8);
    assert_eq!(system.balance(VISA).await, before);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sum_that_changed_is_not_charged() {
    let system = System::start().await;
    let (_, client) = system.user("ada").await;
    let product = system.product("Thing", 5.0, 10).await;
    let mut body = order(&product, 2, VISA);
    body["expectedTotal"] = json!(9.99);
    let refused = client.post("/orders", &body).await.refused(409, "price-changed");
    assert_eq!(refused.json()["total_minor"], 1000);
    body["expectedTotal"] = json!(10);
    client.post("/orders", &body).await.expect(201);
    system.stop().await;
}

/// Payment takes less at once than the first shop believes: it says no for good, and the goods come back at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sum_that_payment_does_not_take_is_declined() {
    let mut system = System::start().await;
    system.config.payment.amount_minor_max = 1000;
    system.restart_payment().await;
    let (_, client) = system.user("ada").await;
    let product = system.product("Thing", 5.0, 10).await;
    let body = order(&product, 3, VISA);
    let declined = client.post("/orders", &body).await.refused(402, "card-declined");
    assert_eq!(declined.json()["decline_code"], "refused");
    assert_eq!(system.stock(&product).await, 10);
    system.start_shop().await;
    let client = system.at(1, &client);
    let refused = client
        .post("/orders", &body)
        .await
        .refused(422, "invalid-request");
    assert_eq!(refused.pointers(), ["/items"]);
    client
        .post("/orders", &order(&product, 2, VISA))
        .await
        .expect(201);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_listed_page_by_page() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let mut made = Vec::new();
    for _ in 0..5 {
        let order = client
            .post("/orders", &order("6", 1, VISA))
            .await
            .expect(201)
            .json();
        made.insert(0, order["order_id"].clone());
    }
    let mut seen = Vec::new();
    let mut target = format!("/orders/{ada}?limit=2");
    loop {
        let page = client.get(&target).await.expect(200);
        let rows = page.json();
        seen.extend(rows.as_array().unwrap().iter().map(|row| row["order_id"].clone()));
        // What comes in between is not on the pages of this walk.
        client.post("/orders", &order("6", 1, VISA)).await.expect(201);
        let Some((next, _)) = page.header("link").split_once('>') else {
            break;
        };
        target = next.trim_start_matches('<').to_owned();
    }
    assert_eq!(seen, made);
    for bent in ["!", &"!".repeat(6000)] {
        let target = format!("/orders/{ada}?cursor={bent}");
        client.get(&target).await.refused(400, "malformed-parameter");
    }
    system.stop().await;
}
