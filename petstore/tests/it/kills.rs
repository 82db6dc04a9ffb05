//! The kill matrix: at each step of an order somebody dies, stands still or repeats himself, and in the end there is
//! one order and one charge, or none of either.
//! Invariant: whoever ordered and got no answer repeats the request with the same key at another instance.

use reqwest::Method;
use serde_json::json;
use service::config::Checkout;
use service::tasks::Tasks;

use super::CHECKOUT;
use super::purchase::{PAYING, Purchase, becomes};
use super::system::{EMPTY, System, VISA, keyed};
use crate::harness::{Answer, wait_for};

/// Of one whose card is declined.
const DECLINING: [&str; 3] = ["before authorize", "after authorize", "payment_failed"];
/// Of one that is canceled after it was paid.
const REFUNDING: [&str; 4] = ["refunding", "before refund", "after refund", "refunded"];

async fn system(nodes: usize) -> System {
    System::start_with(nodes, 2, |_config| {}).await
}

/// Repeats at the second instance until the order has ended.
async fn ended(system: &System, purchase: &Purchase) -> Answer {
    let elsewhere = system.at(1, &purchase.client);
    wait_for("the order to end", async || {
        let answer = keyed(&elsewhere, "/orders", "k", &purchase.body).await;
        if [201, 402].contains(&answer.status) {
            Ok(answer)
        } else {
            Err(answer.text())
        }
    })
    .await
}

/// The order must have ended this way: the whole system says so.
async fn judge(system: &System, purchase: &Purchase, answer: &Answer, paid: bool) {
    purchase.judge(system, paid).await;
    assert_eq!(answer.status, if paid { 201 } else { 402 }, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_dies_at_each_step_of_paying() {
    for point in PAYING {
        eprintln!("the shop dies at {point:?}");
        let mut system = system(1).await;
        let purchase = Purchase::begin(&system).await;
        let first = purchase.held_at(&system, point).await;
        system.shops[0].kill();
        assert_eq!(first.await.unwrap(), None, "the answer is lost");
        let answer = ended(&system, &purchase).await;
        assert_eq!(
            answer.header("idempotent-replayed") == "true",
            point != "tokenized",
            "{point}"
        );
        judge(&system, &purchase, &answer, true).await;
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_dies_at_each_step_of_declining() {
    for point in DECLINING {
        eprintln!("the shop dies at {point:?}");
        let mut system = system(1).await;
        let mut purchase = Purchase::begin(&system).await;
        let cart = format!("/cart/{}", purchase.buyer);
        let line = json!({"productId": purchase.product, "quantity": 2});
        purchase.client.post(&cart, &line).await.expect(200);
        purchase.body = json!({"cardNumber": EMPTY});
        let first = purchase.held_at(&system, point).await;
        system.shops[0].kill();
        assert_eq!(first.await.unwrap(), None, "the answer is lost");
        let answer = ended(&system, &purchase).await;
        judge(&system, &purchase, &answer, false).await;
        let elsewhere = system.at(1, &purchase.client);
        let cart = elsewhere.get(&cart).await.expect(200).json();
        assert_eq!(cart["items"][0]["quantity"], 2, "{cart}");
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_dies_at_each_step_of_giving_back() {
    for point in REFUNDING {
        eprintln!("the shop dies at {point:?}");
        let mut system = system(1).await;
        let purchase = Purchase::begin(&system).await;
        let client = &purchase.client;
        let made = client.post("/orders", &purchase.body).await.expect(201);
        let place = made.header("location");
        system.traps[0].arm(point);
        let cancel = client.request(Method::POST, &format!("{place}/cancel"));
        let first = Tasks::new().spawn("cancel", async move { cancel.send().await.is_ok() });
        system.traps[0].caught().await;
        system.shops[0].kill();
        let answered = first.await.unwrap();
        // Once it is written down, whoever waits hears of it from the store.
        assert!(!answered || point == "refunded", "the answer is lost");
        becomes(&system.at(1, client), place, "refunded").await;
        purchase.judge(&system, false).await;
        system.stop().await;
    }
}

/// Whoever looks for orders that nobody carries on comes to that one first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_cannot_be_read_holds_up_no_other() {
    let mut system = system(1).await;
    let root = system.cluster.client(0);
    let unreadable = format!("/v1/kv/shop/menagerie/todo/{}", "0".repeat(32));
    let written = root.request(Method::PUT, &unreadable).body("{}");
    root.send(written).await.expect(200);
    let purchase = Purchase::begin(&system).await;
    let _first = purchase.held_at(&system, "after authorize").await;
    system.shops[0].kill();
    let elsewhere = system.at(1, &purchase.client);
    let orders = format!("/orders/{}", purchase.buyer);
    let listed = elsewhere.get(&orders).await.expect(200).json();
    let order = format!("{orders}/{}", listed[0]["order_id"].as_str().unwrap());
    becomes(&elsewhere, &order, "paid").await;
    // It is there all the time, and no order is behind it, of which the audit would tell.
    root.delete(&unreadable).await.expect(200);
    purchase.judge(&system, true).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payment_dies_at_each_step() {
    for point in PAYING {
        eprintln!("payment dies at {point:?}");
        let mut system = system(1).await;
        let purchase = Purchase::begin(&system).await;
        let first = purchase.held_at(&system, point).await;
        system.payments[0].kill();
        system.traps[0].release();
        if !["after capture", "paid"].contains(&point) {
            system.nobody_pays().await;
        }
        system.restart_payment().await;
        let answer = ended(&system, &purchase).await;
        assert!(first.await.unwrap().is_some_and(|status| status < 300), "{point}");
        judge(&system, &purchase, &answer, true).await;
        system.stop().await;
    }
}

/// The first authorization was carried out and its answer is lost; the instance that is asked again takes less at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stricter_payment_refuses_stays_not_held() {
    let mut system = system(1).await;
    let purchase = Purchase::begin(&system).await;
    let _first = purchase.held_at(&system, "after authorize").await;
    let (available, held) = purchase.money;
    assert_eq!(system.balance(VISA).await, (available - 2000, held + 2000));
    system.config.payment.amount_minor_max = 1000;
    system.restart_payment().await;
    system.shops[0].kill();
    let answer = ended(&system, &purchase).await;
    assert_eq!(answer.json()["decline_code"], "refused", "{}", answer.text());
    judge(&system, &purchase, &answer, false).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_the_store_goes_at_each_step() {
    for point in PAYING {
        eprintln!("the leader goes at {point:?}");
        let mut system = system(3).await;
        let purchase = Purchase::begin(&system).await;
        let first = purchase.held_at(&system, point).await;
        let cluster = system
            .cluster
            .client(0)
            .get("/v1/cluster")
            .await
            .expect(200)
            .json();
        let leader = cluster["members"]
            .as_array()
            .unwrap()
            .iter()
            .position(|member| member["role"] == "leader");
        system.cluster.stop_node(leader.expect("somebody leads")).await;
        system.traps[0].release();
        let answer = ended(&system, &purchase).await;
        assert!(first.await.unwrap().is_some_and(|status| status < 300), "{point}");
        judge(&system, &purchase, &answer, true).await;
        for shop in &mut system.shops {
            shop.kill();
        }
        // One node is gone, which the rest of the clean-up would wait for.
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_taken_for_dead_does_no_harm() {
    for point in &PAYING[1..] {
        eprintln!("the shop stands still at {point:?}");
        let system = system(1).await;
        let purchase = Purchase::begin(&system).await;
        let first = purchase.held_at(&system, point).await;
        // To the store it is dead: its mark is gone, and the other one takes the order over.
        system.takes_for_dead(0).await;
        let answer = ended(&system, &purchase).await;
        judge(&system, &purchase, &answer, true).await;
        system.traps[0].release();
        assert!(
            first.await.unwrap().is_some_and(|status| status == 201),
            "{point}"
        );
        judge(&system, &purchase, &answer, true).await;
        system.traps[0].release();
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_races_with_each_step() {
    for point in &PAYING[1..] {
        eprintln!("canceled at {point:?}");
        let system = system(1).await;
        let purchase = Purchase::begin(&system).await;
        let first = purchase.held_at(&system, point).await;
        let elsewhere = system.at(1, &purchase.client);
        let orders = format!("/orders/{}", purchase.buyer);
        let listed = elsewhere.get(&orders).await.expect(200).json();
        let target = format!("{orders}/{}/cancel", listed[0]["order_id"].as_str().unwrap());
        let request = elsewhere.request(Method::POST, &target).json(&json!({}));
        let sender = elsewhere.clone();
        let canceling = Tasks::new().spawn("cancel", async move { sender.send(request).await });
        if CHECKOUT == Checkout::Mailbox {
            // A letter waits its turn behind whoever is held; it is there before the others go on.
            wait_for("the cancel to be said", async || {
                let letters = system.letters("cancel").await;
                let listed = elsewhere.get(&orders).await.expect(200).json();
                let heard = listed[0]["status"] == "canceling";
                if canceling.is_finished() || heard || !letters.is_empty() {
                    Ok(())
                } else {
                    Err(listed)
                }
            })
            .await;
            system.traps[0].release();
        }
        let canceled = canceling.await.unwrap();
        system.traps[0].release();
        first.await.unwrap().expect("the shop lives");
        let status = match (*point, canceled.status) {
            // Before the pivot the cancel wins, and a late authorization is refused.
            ("placed" | "before authorize" | "after authorize", 200) => "canceled",
            // From there on only forward.
            ("authorized" | "before capture" | "after capture", 409) => "paid",
            ("paid", 200) => "refunded",
            _ => panic!("{point}: {} {}", canceled.status, canceled.text()),
        };
        purchase.judge(&system, status == "paid").await;
        let listed = elsewhere.get(&orders).await.expect(200).json();
        assert_eq!(listed[0]["status"], status, "{point}");
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_shop_leaves_its_orders_to_others() {
    let mut system = System::start_with(1, 2, |config| config.registration_ms = 60_000).await;
    let purchase = Purchase::begin(&system).await;
    let _first = purchase.held_at(&system, "after authorize").await;
    // Its lease would last a minute; it is given back when the shop stops in order.
    system.shops[0].stop().await;
    let answer = ended(&system, &purchase).await;
    judge(&system, &purchase, &answer, true).await;
    system.stop().await;
}
