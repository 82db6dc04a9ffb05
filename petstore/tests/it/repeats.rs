//! The rest of the kill matrix, where nobody dies: at each step of an order the same request comes again, also many
//! times at once, and each answer of the payment service comes too late.
//! Invariant: one key is one order and one charge, and everybody who asks with it is told of the same one.

use reqwest::Method;
use service::tasks::Tasks;
use tokio::task::JoinHandle;

use super::purchase::{PAYING, Purchase, becomes};
use super::system::{System, keyed};
use super::wire::Wire;
use crate::harness::{Answer, wait_for};

fn ordering(purchase: &Purchase) -> JoinHandle<Answer> {
    let (client, body) = (purchase.client.clone(), purchase.body.clone());
    Tasks::new().spawn(
        "order",
        async move { keyed(&client, "/orders", "k", &body).await },
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_comes_again_at_each_step() {
    for point in PAYING {
        eprintln!("again at {point:?}");
        let system = System::start_with(1, 2, |_config| {}).await;
        let purchase = Purchase::begin(&system).await;
        let (client, body) = (&purchase.client, &purchase.body);
        system.traps[0].arm(point);
        let first = ordering(&purchase);
        system.traps[0].caught().await;
        // Two more while the first one stands there: at the same instance, and at another one.
        let mut told = Vec::new();
        for shop in [0, 1] {
            let again = system.at(shop, client);
            let request = again.request(Method::POST, "/orders").json(body);
            let request = request
                .header("idempotency-key", "k")
                .header("prefer", "respond-async");
            let answer = again.send(request).await;
            assert!(
                matches!(answer.status, 201 | 202),
                "{point}: {} {}",
                answer.status,
                answer.text()
            );
            told.push(answer.json()["order_id"].clone());
        }
        system.traps[0].release();
        let first = first.await.unwrap();
        assert!(matches!(first.status, 201 | 202), "{point}: {}", first.text());
        told.push(first.json()["order_id"].clone());
        purchase.judge(&system, true).await;
        told.push(keyed(client, "/orders", "k", body).await.expect(201).json()["order_id"].clone());
        told.dedup();
        assert_eq!(told.len(), 1, "{point}: {told:?}");
        system.stop().await;
    }
}

/// Shops behind a wire, who give up on an answer after a while.
async fn behind_wire() -> (System, Wire) {
    let mut system = System::start_with(1, 0, |config| config.request_ms_max = 1500).await;
    let wire = Wire::to(system.payments[0].address).await;
    system.config.payment.addresses = vec![wire.address.to_string()];
    for _ in 0..2 {
        system.start_shop().await;
    }
    (system, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_of_payment_comes_too_late() {
    for point in ["", "before authorize", "before capture"] {
        eprintln!("late after {point:?}");
        let (system, wire) = behind_wire().await;
        let purchase = Purchase::begin(&system).await;
        let (client, body) = (&purchase.client, &purchase.body);
        if point.is_empty() {
            // The first thing that is asked for is the token of the card.
            wire.keep_next();
        } else {
            system.traps[0].arm(point);
            system.traps[1].arm(point);
        }
        let first = ordering(&purchase);
        if !point.is_empty() {
            system.caught_any().await;
            wire.keep_next();
            system.traps.iter().for_each(super::system::Trap::release);
            system.traps.iter().for_each(super::system::Trap::disarm);
        }
        wire.keeps_one().await;
        // Whoever asked gives up and asks again; the answer to the first time is still on its way.
        wait_for("the order to be paid all the same", async || {
            let answer = keyed(&system.at(1, client), "/orders", "k", body).await;
            (answer.status == 201).then_some(()).ok_or(answer.text())
        })
        .await;
        purchase.judge(&system, true).await;
        wire.let_go();
        let first = first.await.unwrap();
        // Without a token nothing is ordered, and that is said.
        assert!(
            matches!(first.status, 201 | 202) || (point.is_empty() && first.status == 503),
            "{point}: {}",
            first.text()
        );
        purchase.judge(&system, true).await;
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_giving_back_comes_too_late() {
    let (system, wire) = behind_wire().await;
    let purchase = Purchase::begin(&system).await;
    let client = &purchase.client;
    let made = keyed(client, "/orders", "k", &purchase.body).await.expect(201);
    // A task of its own orders, in the name of the request.
    let (id, ids) = (made.header("x-request-id").to_owned(), wire.request_ids());
    assert!(ids.contains(&id), "{id} is not among {ids:?}");
    wire.keep_next();
    let place = made.header("location");
    let request = client.request(Method::POST, &format!("{place}/cancel"));
    let canceling = Tasks::new().spawn("cancel", async move { request.send().await });
    wire.keeps_one().await;
    becomes(client, place, "refunded").await;
    wire.let_go();
    assert!(canceling.await.unwrap().unwrap().status().is_success());
    purchase.judge(&system, false).await;
    system.stop().await;
}

/// The others wait too, for a place or for the end of their time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_of_those_who_wait_for_an_order_take_a_watch_of_the_store() {
    const PLACES: usize = 4;
    const REPEATS: usize = 6 * PLACES;
    let mut system = System::start_with(1, 0, |config| config.order_wait_ms = 1000).await;
    // An eighth of them is for those who wait.
    system.config.limits.watchers_max = 8 * PLACES;
    system.start_shop().await;
    let purchase = Purchase::begin(&system).await;
    let first = purchase.held_at(&system, "before authorize").await;
    let root = system.cluster.client(0);
    let watches = async || {
        let metrics = root.get("/metrics").await.expect(200).text();
        let mut counted = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("kv_watchers "));
        counted.next().unwrap().parse::<usize>().unwrap()
    };
    let before = watches().await;
    let repeats: Vec<_> = (0..REPEATS).map(|_| ordering(&purchase)).collect();
    let mut most = before;
    wait_for("all to be answered", async || {
        most = most.max(watches().await);
        let waiting = repeats.iter().filter(|repeat| !repeat.is_finished()).count();
        if waiting == 0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    assert!(most > before, "nobody follows the order");
    // A watch that has just ended may still be counted beside the one that has its place.
    assert!(
        most < before + 3 * PLACES,
        "{before} watches became {most} for {REPEATS} who wait"
    );
    for repeat in repeats {
        repeat.await.unwrap().expect(202);
    }
    system.traps[0].release();
    first.await.unwrap();
    purchase.judge(&system, true).await;
    system.stop().await;
}
