//! The catalogue while shops cannot answer: a mirror stands in for them, but not within a walk that they began.

use crate::instance::Mode;
use crate::system::System;

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
