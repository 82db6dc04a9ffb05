//! Instances that die, break off or stand still: what is safe to repeat succeeds all the same, and nothing else is
//! sent twice.

use reqwest::Method;

use crate::harness::wait_for;
use crate::instance::Mode;
use crate::system::System;

const REQUESTS: usize = 6;

/// The number of requests of this kind that reached any instance.
fn seen(system: &System, what: &str) -> usize {
    let seen = system.shops.iter().flat_map(crate::instance::Instance::seen);
    seen.filter(|seen| seen == what).count()
}

#[tokio::test]
async fn reads_go_elsewhere_when_an_answer_breaks_off() {
    let system = System::start(2).await;
    system.shops[0].set(Mode::BreaksOff);
    for _ in 0..REQUESTS {
        let answer = system.client().get("/products").await.expect(418);
        assert_eq!(answer.json()["instance"], "shop2");
    }
    assert_eq!(
        system.shops[0].seen().len(),
        1,
        "it failed once and was left out from then on"
    );
    assert_eq!(system.health().await, ["left-out", "up"]);
    assert_eq!(system.server("").await["name"], "shop2");
    system.shops[0].set(Mode::Well);
    wait_for("it to be taken back", async || {
        let health = system.health().await;
        (health == ["up", "up"]).then_some(()).ok_or(health)
    })
    .await;
}

#[tokio::test]
async fn a_write_that_may_have_been_done_is_sent_again_only_with_a_key() {
    let system = System::start(2).await;
    let client = system.client();
    for shop in &system.shops {
        shop.set(Mode::BreaksOff);
    }
    let bare = client.request(Method::POST, "/orders").body("{}");
    client.send(bare).await.refused(503, "outcome-unknown");
    assert_eq!(seen(&system, "POST /orders"), 1, "it was not repeated");
    system.shops[0].set(Mode::Well);
    system.shops[1].set(Mode::Well);
    wait_for("both to be taken back", async || {
        let health = system.health().await;
        (health == ["up", "up"]).then_some(()).ok_or(health)
    })
    .await;
    system.shops[0].set(Mode::BreaksOff);
    for n in 0..REQUESTS {
        let keyed = client
            .request(Method::POST, "/keyed")
            .header("idempotency-key", format!("k{n}"))
            .body("{}");
        let answer = client.send(keyed).await.expect(418);
        assert_eq!(answer.json()["instance"], "shop2");
    }
    assert_eq!(
        seen(&system, "POST /keyed"),
        REQUESTS + 1,
        "the one that broke off was repeated"
    );
}

#[tokio::test]
async fn what_was_never_sent_goes_elsewhere_whatever_it_is() {
    let system = System::start(2).await;
    system.shops[0].die().await;
    let client = system.client();
    for _ in 0..REQUESTS {
        let bare = client.request(Method::POST, "/orders").body("{}");
        let answer = client.send(bare).await.expect(418);
        assert_eq!(answer.json()["instance"], "shop2");
    }
    assert_eq!(seen(&system, "POST /orders"), REQUESTS);
}

#[tokio::test]
async fn one_that_stands_still_is_waited_for_only_once() {
    let system = System::start_with(2, |config| config.read_ms_max = 200).await;
    system.shops[0].set(Mode::Hangs);
    let began = std::time::Instant::now();
    for _ in 0..REQUESTS {
        let answer = system.client().get("/products").await.expect(418);
        assert_eq!(answer.json()["instance"], "shop2");
    }
    assert!(began.elapsed().as_millis() < 1000, "{:?}", began.elapsed());
    assert_eq!(system.health().await, ["left-out", "up"]);
}

#[tokio::test]
async fn when_nobody_answers_it_is_said() {
    let system = System::start_with(2, |config| config.attempts_max = 5).await;
    for shop in &system.shops {
        shop.set(Mode::BreaksOff);
    }
    let refused = system.client().get("/products").await;
    refused.refused(503, "no-instance");
    assert_eq!(seen(&system, "GET /products"), 5, "in turn, and no more");
    // Any of those who broke off may have done it: that is no refusal.
    let client = system.client();
    let keyed = client
        .request(Method::POST, "/orders")
        .header("idempotency-key", "k")
        .body("{}");
    client.send(keyed).await.refused(503, "outcome-unknown");
}

#[tokio::test]
async fn one_that_comes_back_in_time_serves_those_who_wait() {
    let system = System::start(2).await;
    for shop in &system.shops {
        shop.set(Mode::BreaksOff);
    }
    let client = system.client();
    let mends = async {
        wait_for("a first try at each", async || {
            let seen = seen(&system, "GET /products");
            (seen >= 2).then_some(()).ok_or(seen)
        })
        .await;
        system.shops[1].set(Mode::Well);
    };
    let (answer, ()) = tokio::join!(client.get("/products"), mends);
    assert_eq!(answer.expect(418).json()["instance"], "shop2");
}
