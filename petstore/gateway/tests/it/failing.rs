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

/// An instance never sees such a key, and would do it each time.
#[tokio::test]
async fn a_key_that_goes_no_further_makes_nothing_safe_to_send_again() {
    let system = System::start(2).await;
    for shop in &system.shops {
        shop.set(Mode::BreaksOff);
    }
    let client = system.client();
    let bare = client
        .request(Method::POST, "/orders")
        .header("connection", "keep-alive, Idempotency-Key")
        .header("idempotency-key", "k")
        .body("{}");
    client.send(bare).await.refused(503, "outcome-unknown");
    assert_eq!(seen(&system, "POST /orders"), 1);
}

/// A page cannot send the header, but its checkout has a key of its own.
#[tokio::test]
async fn the_form_of_a_checkout_is_sent_again_and_no_other() {
    let system = System::start(2).await;
    let client = system.client();
    system.shops[0].set(Mode::BreaksOff);
    for _ in 0..REQUESTS {
        let form = client.request(Method::POST, "/shop/checkout").body("key=k");
        let answer = client.send(form).await.expect(418);
        assert_eq!(answer.json()["instance"], "shop2");
    }
    assert_eq!(
        seen(&system, "POST /shop/checkout"),
        REQUESTS + 1,
        "the one that broke off was repeated"
    );
    system.shops[1].set(Mode::BreaksOff);
    let form = client.request(Method::POST, "/shop/cart").body("action=add");
    client.send(form).await.refused(503, "outcome-unknown");
    assert_eq!(seen(&system, "POST /shop/cart"), 1);
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
async fn one_that_has_only_just_started_is_passed_by() {
    let system = System::start(2).await;
    let client = system.client();
    let keyed = async |n: usize| {
        let keyed = client.request(Method::POST, "/orders");
        let keyed = keyed.header("idempotency-key", format!("k{n}")).body("{}");
        client.send(keyed).await
    };
    system.shops[0].set(Mode::Starts);
    for n in 0..REQUESTS {
        assert_eq!(keyed(n).await.expect(418).json()["instance"], "shop2");
    }
    assert_eq!(system.health().await, ["left-out", "up"]);
    // There is nobody else, so it is asked again until it is there.
    system.shops[1].set(Mode::Starts);
    let (answer, ()) = tokio::join!(keyed(REQUESTS), async {
        wait_for("both to have been asked", async || {
            let asked = system.shops.iter().filter(|shop| shop.seen().len() >= 2).count();
            (asked == 2).then_some(()).ok_or(asked)
        })
        .await;
        system.shops[0].set(Mode::Well);
    });
    assert_eq!(answer.expect(418).json()["instance"], "shop1");
}

/// Who lacks something else is ready all the same, and every other instance lacks it too.
#[tokio::test]
async fn what_an_instance_that_is_ready_says_is_passed_on() {
    let system = System::start(2).await;
    for shop in &system.shops {
        shop.set(Mode::Lacks);
    }
    let client = system.client();
    let keyed = client.request(Method::POST, "/orders");
    let keyed = keyed.header("idempotency-key", "k").body("{}");
    let refused = client.send(keyed).await.expect(503);
    assert_eq!(refused.json()["code"], "not-ready");
    assert_eq!(seen(&system, "POST /orders"), 1);
    assert_eq!(system.health().await, ["up", "up"]);
}

/// That nothing was done is true of the one that says so, not of the one that had the request before.
#[tokio::test]
async fn a_refusal_does_not_hide_that_another_instance_may_have_done_it() {
    let system = System::start(2).await;
    let client = system.client();
    system.shops[0].set(Mode::BreaksOff);
    system.shops[1].set(Mode::Lacks);
    for n in 0..REQUESTS {
        let before = system.shops[0].seen().len();
        let keyed = client.request(Method::POST, "/orders");
        let keyed = keyed.header("idempotency-key", format!("k{n}")).body("{}");
        let answer = client.send(keyed).await;
        let broke_off = system.shops[0].seen().len() > before;
        let code = if broke_off { "outcome-unknown" } else { "not-ready" };
        assert_eq!(answer.expect(503).json()["code"], code);
    }
    assert_eq!(system.shops[0].seen().len(), 1, "it was left out from then on");
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

/// A request that takes long says nothing against those who were asked.
#[tokio::test]
async fn one_that_is_only_slow_is_not_left_out() {
    let system = System::start_with(2, |config| {
        config.read_ms_max = 100;
        config.attempts_max = 2;
    })
    .await;
    for shop in &system.shops {
        shop.set(Mode::Slow);
    }
    let refused = system.client().get("/products").await;
    assert_eq!(system.health().await, ["up", "up"]);
    refused.refused(503, "no-instance");
    assert_eq!(seen(&system, "GET /products"), 2, "each was asked");
}

/// It reads everything there is, which takes longer than any other read may.
#[tokio::test]
async fn an_audit_is_waited_for() {
    let system = System::start_with(1, |config| {
        config.read_ms_max = 200;
        config.attempts_max = 1;
    })
    .await;
    system.shops[0].set(Mode::Waits);
    let client = system.client();
    let meanwhile = async {
        client.get("/products").await.refused(503, "no-instance");
        // One of the two may still be the read that was given up.
        system.shops[0].let_go();
        system.shops[0].let_go();
    };
    let (audit, ()) = tokio::join!(client.get("/admin/audit"), meanwhile);
    assert_eq!(audit.expect(418).json()["target"], "/admin/audit");
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

/// The time of a request is bounded as a whole, however many could still be asked.
#[tokio::test]
async fn a_request_ends_in_time_when_all_stand_still() {
    let system = System::start_with(3, |config| {
        config.read_ms_max = 400;
        config.request_ms_max = 600;
    })
    .await;
    for shop in &system.shops {
        shop.set(Mode::Hangs);
    }
    let began = std::time::Instant::now();
    let refused = system.client().get("/products").await;
    let took = began.elapsed().as_millis();
    refused.refused(503, "no-instance");
    assert!((600..1500).contains(&took), "{took} ms");
    assert_eq!(seen(&system, "GET /products"), 2, "the third had no time left");
}

/// Bodies are held to be sent again, so their sum is bounded: what finds no room is told to come again.
#[tokio::test]
async fn all_bodies_together_are_bounded() {
    const BYTES: usize = 4096;
    const BODIES: usize = 64;
    let system = System::start_with(1, |config| config.body_bytes_max = BYTES).await;
    system.shops[0].set(Mode::Hangs);
    let client = system.client();
    let post = |path: &str, bytes| client.request(Method::POST, path).body(vec![b'x'; bytes]);
    let held: Vec<_> = (0..BODIES)
        .map(|_| {
            let large = post("/large", BYTES);
            system
                .tasks
                .spawn("held", async move { large.send().await.is_ok() })
        })
        .collect();
    wait_for("all of them to be under way", async || {
        let seen = seen(&system, "POST /large");
        if seen == BODIES { Ok(()) } else { Err(seen) }
    })
    .await;
    let refused = client.send(post("/more", 1)).await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.refused(503, "overloaded");
    client
        .send(post("/more", BYTES + 1))
        .await
        .refused(413, "too-large");
    let bare = post("/bare", 0);
    let bare = system
        .tasks
        .spawn("bare", async move { bare.send().await.is_ok() });
    wait_for("what has no body to need no room", async || {
        let seen = seen(&system, "POST /bare");
        if seen == 1 { Ok(()) } else { Err(seen) }
    })
    .await;
    bare.abort();
    assert_eq!(seen(&system, "POST /more"), 0);
    // Whoever goes makes room.
    for held in held {
        held.abort();
    }
    system.shops[0].set(Mode::Well);
    wait_for("the room to be free again", async || {
        let answer = client.send(post("/more", BYTES)).await;
        if answer.status == 418 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
}
