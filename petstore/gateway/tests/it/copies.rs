//! The catalogue while shops cannot answer: a mirror stands in for them, but not within a walk that they began.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::harness::wait_for;
use crate::instance::Mode;
use crate::system::System;

/// The store may have lost its leader a moment ago, which nobody knows yet: the shops wait for it in silence.
#[tokio::test]
async fn what_shops_do_not_tell_in_time_is_read_from_a_mirror() {
    let mut system = System::start(2).await;
    let mirror = system.start_mirror().await;
    for shop in &system.shops {
        shop.set(Mode::Hangs);
    }
    let began = Instant::now();
    let answer = system.client().get("/products").await.expect(418);
    assert_eq!(answer.json()["instance"], "mirror1");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(mirror.seen(), ["GET /products"]);
    // Of what there is no copy, no mirror is asked.
    system.shops[1].set(Mode::Well);
    let answer = system.client().get("/cart/7").await.expect(418);
    assert_eq!(answer.json()["instance"], "shop2");
}

/// Or the body of a refusal names another request than its header, and the logs cannot be put together.
#[tokio::test]
async fn a_mirror_is_told_which_request_it_answers() {
    let mut system = System::start(1).await;
    let mirror = system.start_mirror().await;
    system.shops[0].set(Mode::Lacks);
    let client = system.client();
    for target in ["/products", "/products/7", "/products?cursor=m.mirror1.eyJ9"] {
        let request = client.request(Method::GET, target);
        let answer = client.send(request.header("x-request-id", "looked-up-1")).await;
        let answer = answer.expect(418);
        assert_eq!(answer.header("x-request-id"), "looked-up-1", "{target}");
        assert_eq!(
            answer.json()["headers"]["x-request-id"],
            "looked-up-1",
            "{target}"
        );
    }
    assert_eq!(mirror.seen().len(), 3);
}

#[tokio::test]
async fn one_shop_that_stands_still_is_no_reason_for_a_copy() {
    let mut system = System::start_with(2, |config| config.read_ms_max = 500).await;
    let mirror = system.start_mirror().await;
    system.shops[0].set(Mode::Slow);
    for _ in 0..2 {
        let answer = system.client().get("/products").await.expect(418);
        assert_eq!(answer.json()["instance"], "shop2");
    }
    assert!(!system.shops[0].seen().is_empty(), "it was asked too");
    assert!(mirror.seen().is_empty());
}

#[tokio::test]
async fn a_mirror_has_time_of_its_own() {
    let mut system = System::start_with(1, |config| {
        config.read_ms_max = 600;
        config.request_ms_max = 400;
    })
    .await;
    system.start_mirror().await;
    system.shops[0].set(Mode::Hangs);
    let answer = system.client().get("/products/7").await.expect(418);
    assert_eq!(answer.json()["instance"], "mirror1");
}

/// It may have gone a moment ago, and then a shop is waited for as long as ever.
#[tokio::test]
async fn a_mirror_that_is_gone_leaves_it_to_the_shops() {
    let mut system = System::start_with(2, |config| config.read_ms_max = 200).await;
    system.start_mirror().await.die().await;
    for shop in &system.shops {
        shop.set(Mode::Hangs);
    }
    let client = system.client();
    let mends = async {
        wait_for("both to be asked", async || {
            let seen = system.shops.iter().map(|shop| shop.seen().len()).sum::<usize>();
            (seen >= 2).then_some(()).ok_or(seen)
        })
        .await;
        system.shops[1].set(Mode::Well);
    };
    let (answer, ()) = tokio::join!(client.get("/products"), mends);
    assert_eq!(answer.expect(418).json()["instance"], "shop2");
}

#[tokio::test]
async fn a_walk_through_the_catalogue_goes_on_where_it_began() {
    let mut system = System::start(1).await;
    let mirror = system.start_mirror().await;
    let client = system.client();
    system.shops[0].set(Mode::Lacks);
    let first = client.get("/products?limit=2").await.expect(418);
    assert_eq!(first.json()["instance"], "mirror1");
    // The mirror would take the place for one of its own, or refuse what is quite right.
    let rest = client.get("/products?limit=2&cursor=MTIzLjUw").await.expect(503);
    assert_eq!(rest.json()["code"], "not-ready");
    assert_eq!(mirror.seen(), ["GET /products?limit=2"]);
    // What the mirror began, no shop can end, however well it is.
    system.shops[0].set(Mode::Well);
    let own = "/products?limit=2&cursor=m%2EeyJ9";
    let rest = client.get(own).await.expect(418);
    assert_eq!(rest.json()["instance"], "mirror1");
    mirror.die().await;
    client.get(own).await.refused(503, "no-instance");
    let anew = client.get("/products").await.expect(418);
    assert_eq!(anew.json()["instance"], "shop1");
}
