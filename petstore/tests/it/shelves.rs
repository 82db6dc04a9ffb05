//! Shelves that many work at: what was acknowledged is seen at every instance at once, edits and sales do not get into
//! each other's way, and goods that are taken off them still belong to whoever is ordering them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::system::{EMPTY, System, VISA, ask, keyed, order};
use crate::harness::wait_for;

const EDITS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_seen_everywhere_at_once() {
    let system = System::start_with(3, 2, |_config| {}).await;
    let product = system.product("Thing", 1.0, 1000).await;
    let target = format!("/products/{product}");
    let (_, buyer) = system.user("ada").await;
    for n in 0..EDITS {
        let (here, there) = (system.operator_at(n % 2), system.operator_at((n + 1) % 2));
        let name = format!("Zebrafish {n}");
        ask(&here, Method::PUT, &target, &json!({ "name": name }))
            .await
            .expect(200);
        let seen = there.get(&target).await.expect(200).json();
        assert_eq!(seen["name"], name, "a name of before is shown");
        let listed = there.get("/products?q=zebrafish").await.expect(200).json();
        assert_eq!(listed[0]["name"], name, "a list of before is shown");
        let here = system.at(n % 2, &buyer);
        here.post("/orders", &order(&product, 1, VISA)).await.expect(201);
        let seen = there.get(&target).await.expect(200).json();
        assert_eq!(seen["stock"], 999 - n, "a stock of before is shown");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_and_sales_do_not_get_into_each_others_way() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (_, buyer) = system.user("ada").await;
    let stock = i64::try_from(EDITS).unwrap();
    let product = system.product("Thing", 1.0, stock).await;
    let target = format!("/products/{product}");
    let one = order(&product, 1, VISA);
    let sales = (0..EDITS).map(|n| {
        let client = system.at(n % 2, &buyer);
        let one = &one;
        async move { client.post("/orders", one).await.status }
    });
    let admin = system.operator();
    let edits = async {
        for n in 0..EDITS {
            let edit = json!({ "description": format!("Edited {n} times.") });
            ask(&admin, Method::PUT, &target, &edit).await.expect(200);
        }
    };
    let (sold, ()) = tokio::join!(join_all(sales), edits);
    let refused: Vec<_> = sold
        .iter()
        .filter(|status| ![201, 202].contains(*status))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    system.settled().await;
    assert_eq!(system.stock(&product).await, 0);
    system.stop().await;
}

/// Whether the card pays or not: the pieces of goods that are no longer sold are not lost from the count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goods_that_are_taken_off_still_belong_to_who_is_ordering_them() {
    for (card, status) in [(VISA, "paid"), (EMPTY, "payment_failed")] {
        let system = System::start_with(1, 2, |_config| {}).await;
        let (ada, client) = system.user("ada").await;
        let product = system.product("Thing", 1.0, 3).await;
        for trap in &system.traps {
            trap.arm("before authorize");
        }
        let body = order(&product, 2, card);
        let request = client
            .request(Method::POST, "/orders")
            .header("idempotency-key", "k")
            .header("prefer", "respond-async");
        client.send(request.json(&body)).await.expect(202);
        system.caught_any().await;
        let target = format!("/products/{product}");
        system.operator().delete(&target).await.expect(200);
        client.get(&target).await.refused(404, "product-not-found");
        for trap in &system.traps {
            trap.disarm();
            trap.release();
        }
        wait_for("the order to end", async || {
            let seen = client.get(&format!("/orders/{ada}")).await.expect(200).json();
            (seen[0]["status"] == status).then_some(()).ok_or(seen)
        })
        .await;
        // Nobody can buy them any more, and the audit misses none of them.
        assert_eq!(system.settled().await["orders"], 1);
        let again = keyed(&client, "/orders", "k2", &body).await;
        again.refused(404, "product-not-found");
        system.stop().await;
    }
}

async fn time_of_refusal(system: &System, name: &str) -> Duration {
    let body = json!({ "username": name, "password": "not the password" });
    let began = Instant::now();
    let answer = system.browse(Method::POST, "/login", &body).await;
    let took = began.elapsed();
    answer.refused(401, "invalid-credentials");
    took
}

/// Nobody can find out by a watch which names there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_name_takes_as_long_as_a_wrong_password() {
    let system = System::start().await;
    system.user("ada").await;
    // The quickest of some tries in turn, since whatever is added to that is chance.
    let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
    for _ in 0..8 {
        known = known.min(time_of_refusal(&system, "ada").await);
        unknown = unknown.min(time_of_refusal(&system, "bob").await);
    }
    assert!(
        unknown * 2 > known && known * 2 > unknown,
        "known {known:?}, unknown {unknown:?}"
    );
    system.stop().await;
}

/// Passwords are hashed by a few threads of their own; who would wait too long for them is sent away at once, and
/// everybody else is served as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_signs_in_is_bounded() {
    let system = System::start_with(1, 1, |config| config.hashes_at_once = 1).await;
    let crowd = (0..64).map(|n| {
        let body = json!({ "username": format!("nobody-{n}"), "password": "not the password" });
        let system = &system;
        async move { system.browse(Method::POST, "/login", &body).await }
    });
    let (answers, shown) = tokio::join!(
        join_all(crowd),
        system.browse(Method::GET, "/hello", &json!(null))
    );
    shown.expect(200);
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(count(401) + count(503), 64);
    assert!(count(503) > 0, "nobody was sent away");
    assert!(count(401) >= 16, "only {} were served", count(401));
    system
        .browse(Method::GET, "/readyz", &json!(null))
        .await
        .expect(200);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_goes_through_the_shelves_page_by_page() {
    let system = System::start().await;
    for n in 0..40 {
        system.product(&format!("Thing {n}"), 1.0, 1).await;
    }
    let client = system.operator();
    let shown = async |target: &str| {
        let text = client.get(target).await.expect(200).text();
        let goods = text.matches("name=\"action\" value=\"delete\"").count();
        let before = text.contains("rel=\"prev\" href=\"/shop/admin\"");
        let next = text.contains("rel=\"next\" href=\"/shop/admin?page=2\"");
        (goods, before, next)
    };
    assert_eq!(shown("/shop/admin").await, (50, false, true));
    for last in ["/shop/admin?page=2", "/shop/admin?page=99"] {
        assert_eq!(shown(last).await, (2, true, false), "{last}");
    }
    assert_eq!(client.get("/shop/admin?page=x").await.status, 400);
    let send = async |body: &str| {
        let form = client
            .request(Method::POST, "/shop/admin?page=2")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin");
        client.send(form.body(body.to_owned())).await
    };
    // Whoever edits stays on the page, done or refused.
    let done = send("action=delete&id=52").await.expect(303);
    assert_eq!(done.header("location"), "/shop/admin?page=2");
    assert_eq!(shown(done.header("location")).await, (1, true, false));
    let refused = send("action=nothing").await.expect(422).text();
    assert!(
        refused.contains("asks for nothing") && refused.contains("Thing 38"),
        "{refused}"
    );
    system.stop().await;
}
