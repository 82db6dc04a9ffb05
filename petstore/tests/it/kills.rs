//! The kill matrix: at each step of an order somebody dies, stands still or repeats himself, and in the end there is
//! one order and one charge, or none of either.
//! Invariant: whoever ordered and got no answer repeats the request with the same key at another instance.

use reqwest::Method;
use serde_json::{Value, json};
use service::config::Checkout;
use service::tasks::Tasks;
use tokio::task::JoinHandle;

use super::CHECKOUT;
use super::system::{EMPTY, System, VISA, keyed, order};
use crate::harness::{Answer, Client, wait_for};

/// Of an order that is paid.
const PAYING: [&str; 8] = [
    "tokenized",
    "placed",
    "before authorize",
    "after authorize",
    "authorized",
    "before capture",
    "after capture",
    "paid",
];
/// Of one whose card is declined.
const DECLINING: [&str; 3] = ["before authorize", "after authorize", "payment_failed"];
/// Of one that is canceled after it was paid.
const REFUNDING: [&str; 4] = ["refunding", "before refund", "after refund", "refunded"];

const PIECES: i64 = 10;

async fn system(nodes: usize) -> System {
    System::start_with(nodes, 2, |_config| {}).await
}

/// Orders and may never hear of it again.
fn ordering(client: &Client, key: &str, body: &Value) -> JoinHandle<Option<u16>> {
    let request = client
        .request(Method::POST, "/orders")
        .header("idempotency-key", key);
    let request = request.json(body);
    Tasks::new().spawn("order", async move {
        request.send().await.ok().map(|answer| answer.status().as_u16())
    })
}

/// Repeats at the second instance until the order has ended.
async fn ended(client: &Client, key: &str, body: &Value) -> Answer {
    wait_for("the order to end", async || {
        let answer = keyed(client, "/orders", key, body).await;
        if [201, 402].contains(&answer.status) {
            Ok(answer)
        } else {
            Err(answer.text())
        }
    })
    .await
}

/// One order of two pieces, which must have ended this way: the whole system says so.
async fn judge(system: &System, product: &str, answer: &Answer, paid: bool, money: (i64, i64)) {
    let audit = system.settled().await;
    assert_eq!(audit["orders"], 1, "{audit}");
    assert_eq!(answer.status, if paid { 201 } else { 402 }, "{}", answer.text());
    let (pieces, cents) = if paid { (2, 2000) } else { (0, 0) };
    assert_eq!(system.stock(product).await, PIECES - pieces);
    assert_eq!(system.balance(VISA).await, (money.0 - cents, money.1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_dies_at_each_step_of_paying() {
    for point in PAYING {
        eprintln!("the shop dies at {point:?}");
        let mut system = system(1).await;
        let (_, client) = system.user("ada").await;
        let (product, money) = (
            system.product("Thing", 10.0, PIECES).await,
            system.balance(VISA).await,
        );
        let body = order(&product, 2, VISA);
        system.traps[0].arm(point);
        let first = ordering(&client, "k", &body);
        system.traps[0].caught().await;
        system.shops[0].kill();
        assert_eq!(first.await.unwrap(), None, "the answer is lost");
        let answer = ended(&system.at(1, &client), "k", &body).await;
        assert_eq!(
            answer.header("idempotent-replayed") == "true",
            point != "tokenized",
            "{point}"
        );
        judge(&system, &product, &answer, true, money).await;
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_dies_at_each_step_of_declining() {
    for point in DECLINING {
        eprintln!("the shop dies at {point:?}");
        let mut system = system(1).await;
        let (ada, client) = system.user("ada").await;
        let (product, money) = (
            system.product("Thing", 10.0, PIECES).await,
            system.balance(VISA).await,
        );
        let cart = json!({"productId": product, "quantity": 2});
        client.post(&format!("/cart/{ada}"), &cart).await.expect(200);
        let body = json!({"cardNumber": EMPTY});
        system.traps[0].arm(point);
        let first = ordering(&client, "k", &body);
        system.traps[0].caught().await;
        system.shops[0].kill();
        assert_eq!(first.await.unwrap(), None, "the answer is lost");
        let elsewhere = system.at(1, &client);
        let answer = ended(&elsewhere, "k", &body).await;
        judge(&system, &product, &answer, false, money).await;
        let cart = elsewhere.get(&format!("/cart/{ada}")).await.expect(200).json();
        assert_eq!(cart["items"][0]["quantity"], 2, "{cart}");
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_dies_at_each_step_of_giving_back() {
    for point in REFUNDING {
        eprintln!("the shop dies at {point:?}");
        let mut system = system(1).await;
        let (ada, client) = system.user("ada").await;
        let (product, money) = (
            system.product("Thing", 10.0, PIECES).await,
            system.balance(VISA).await,
        );
        let made = client
            .post("/orders", &order(&product, 2, VISA))
            .await
            .expect(201)
            .json();
        let target = format!("/orders/{ada}/{}", made["order_id"].as_str().unwrap());
        system.traps[0].arm(point);
        let cancel = client.request(Method::POST, &format!("{target}/cancel"));
        let first = Tasks::new().spawn("cancel", async move { cancel.send().await.is_ok() });
        system.traps[0].caught().await;
        system.shops[0].kill();
        let answered = first.await.unwrap();
        // Once it is written down, whoever waits hears of it from the store.
        assert!(!answered || point == "refunded", "the answer is lost");
        let elsewhere = system.at(1, &client);
        wait_for("the money to be back", async || {
            let seen = elsewhere.get(&target).await.expect(200).json();
            if seen["status"] == "refunded" {
                Ok(())
            } else {
                Err(seen)
            }
        })
        .await;
        system.settled().await;
        assert_eq!(system.stock(&product).await, PIECES);
        assert_eq!(system.balance(VISA).await, money);
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payment_dies_at_each_step() {
    for point in PAYING {
        eprintln!("payment dies at {point:?}");
        let mut system = system(1).await;
        let (_, client) = system.user("ada").await;
        let (product, money) = (
            system.product("Thing", 10.0, PIECES).await,
            system.balance(VISA).await,
        );
        let body = order(&product, 2, VISA);
        system.traps[0].arm(point);
        let first = ordering(&client, "k", &body);
        system.traps[0].caught().await;
        system.payments[0].kill();
        system.traps[0].release();
        if !["after capture", "paid"].contains(&point) {
            system.nobody_pays().await;
        }
        system.restart_payment().await;
        let answer = ended(&system.at(1, &client), "k", &body).await;
        assert!(first.await.unwrap().is_some_and(|status| status < 300), "{point}");
        judge(&system, &product, &answer, true, money).await;
        system.stop().await;
    }
}

/// The first authorization was carried out and its answer is lost; the instance that is asked again takes less at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stricter_payment_refuses_stays_not_held() {
    let mut system = system(1).await;
    let (_, client) = system.user("ada").await;
    let (product, money) = (
        system.product("Thing", 10.0, PIECES).await,
        system.balance(VISA).await,
    );
    let body = order(&product, 2, VISA);
    system.traps[0].arm("after authorize");
    let _first = ordering(&client, "k", &body);
    system.traps[0].caught().await;
    assert_eq!(system.balance(VISA).await, (money.0 - 2000, money.1 + 2000));
    system.config.payment.amount_minor_max = 1000;
    system.restart_payment().await;
    system.shops[0].kill();
    let answer = ended(&system.at(1, &client), "k", &body).await;
    assert_eq!(answer.json()["decline_code"], "refused", "{}", answer.text());
    judge(&system, &product, &answer, false, money).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_the_store_goes_at_each_step() {
    for point in PAYING {
        eprintln!("the leader goes at {point:?}");
        let mut system = system(3).await;
        let (_, client) = system.user("ada").await;
        let (product, money) = (
            system.product("Thing", 10.0, PIECES).await,
            system.balance(VISA).await,
        );
        let body = order(&product, 2, VISA);
        system.traps[0].arm(point);
        let first = ordering(&client, "k", &body);
        system.traps[0].caught().await;
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
        let answer = ended(&system.at(1, &client), "k", &body).await;
        assert!(first.await.unwrap().is_some_and(|status| status < 300), "{point}");
        judge(&system, &product, &answer, true, money).await;
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
        let (_, client) = system.user("ada").await;
        let (product, money) = (
            system.product("Thing", 10.0, PIECES).await,
            system.balance(VISA).await,
        );
        let body = order(&product, 2, VISA);
        system.traps[0].arm(point);
        let first = ordering(&client, "k", &body);
        system.traps[0].caught().await;
        // To the store it is dead: its mark is gone, and the other one takes the order over.
        let root = system.cluster.client(0);
        let instances = root
            .get("/v1/kv?prefix=shop/menagerie/instance/shop1")
            .await
            .expect(200)
            .json();
        let mark = instances["kvs"][0]["key"].as_str().unwrap().to_owned();
        root.delete(&format!("/v1/kv/{mark}")).await.expect(200);
        let answer = ended(&system.at(1, &client), "k", &body).await;
        judge(&system, &product, &answer, true, money).await;
        system.traps[0].release();
        assert!(
            first.await.unwrap().is_some_and(|status| status == 201),
            "{point}"
        );
        judge(&system, &product, &answer, true, money).await;
        system.traps[0].release();
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_races_with_each_step() {
    for point in &PAYING[1..] {
        eprintln!("canceled at {point:?}");
        let system = system(1).await;
        let (ada, client) = system.user("ada").await;
        let (product, money) = (
            system.product("Thing", 10.0, PIECES).await,
            system.balance(VISA).await,
        );
        let body = order(&product, 2, VISA);
        system.traps[0].arm(point);
        let first = ordering(&client, "k", &body);
        system.traps[0].caught().await;
        let elsewhere = system.at(1, &client);
        let listed = elsewhere.get(&format!("/orders/{ada}")).await.expect(200).json();
        let target = format!("/orders/{ada}/{}/cancel", listed[0]["order_id"].as_str().unwrap());
        let request = elsewhere.request(Method::POST, &target).json(&json!({}));
        let sender = elsewhere.clone();
        let canceling = Tasks::new().spawn("cancel", async move { sender.send(request).await });
        if CHECKOUT == Checkout::Mailbox {
            // A letter waits its turn behind whoever is held; it is there before the others go on.
            wait_for("the cancel to be said", async || {
                let letters = system.letters("cancel").await;
                let listed = elsewhere.get(&format!("/orders/{ada}")).await.expect(200).json();
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
        system.settled().await;
        let (status, pieces, cents) = match (*point, canceled.status) {
            // Before the pivot the cancel wins, and a late authorization is refused.
            ("placed" | "before authorize" | "after authorize", 200) => ("canceled", 0, 0),
            // From there on only forward.
            ("authorized" | "before capture" | "after capture", 409) => ("paid", 2, 2000),
            ("paid", 200) => ("refunded", 0, 0),
            _ => panic!("{point}: {} {}", canceled.status, canceled.text()),
        };
        let listed = elsewhere.get(&format!("/orders/{ada}")).await.expect(200).json();
        assert_eq!(listed[0]["status"], status, "{point}");
        assert_eq!(system.stock(&product).await, PIECES - pieces, "{point}");
        assert_eq!(system.balance(VISA).await, (money.0 - cents, money.1), "{point}");
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_shop_leaves_its_orders_to_others() {
    let mut system = System::start_with(1, 2, |config| config.registration_ms = 60_000).await;
    let (_, client) = system.user("ada").await;
    let (product, money) = (
        system.product("Thing", 10.0, PIECES).await,
        system.balance(VISA).await,
    );
    let body = order(&product, 2, VISA);
    system.traps[0].arm("after authorize");
    let _first = ordering(&client, "k", &body);
    system.traps[0].caught().await;
    // Its lease would last a minute; it is given back when the shop stops in order.
    system.shops[0].stop().await;
    let answer = ended(&system.at(1, &client), "k", &body).await;
    judge(&system, &product, &answer, true, money).await;
    system.stop().await;
}
