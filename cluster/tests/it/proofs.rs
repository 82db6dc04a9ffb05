//! `menagerie check` and `menagerie bench shop`: the first finds what is wrong, the second measures what is right.
//! Invariant: nothing here depends on how fast the machine is.

use serde_json::{Value, json};
use service::config::Checkout;

use crate::harness::{Cluster, free_ports};

async fn shop(checkout: Checkout) -> Cluster {
    let cluster = Cluster::with(1, |config| {
        let mut addresses = free_ports(2).into_iter().map(|port| format!("127.0.0.1:{port}"));
        config.shop.addresses = addresses.by_ref().take(1).collect();
        config.payment.addresses = addresses.collect();
        config.shop.checkout = checkout;
    });
    cluster.up().await;
    cluster
}

/// Each book is spoiled in the store, behind the back of the service that keeps it.
#[tokio::test]
async fn a_broken_book_is_found_and_fails_the_check() {
    let cluster = shop(Checkout::Direct).await;
    cluster.run(&["check"]).await.ok();
    let key = "shop/menagerie/received/1";
    let sound = cluster.run(&["kv", "get", key]).await.ok();
    cluster.run(&["kv", "put", key, "4711"]).await.ok();
    let ran = cluster.run(&["check", "--json"]).await;
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&said[0]["of"], &said[0]["ok"]),
        (&json!("shop"), &json!(false)),
        "{said}"
    );
    assert_eq!(
        (&said[1]["of"], &said[1]["ok"]),
        (&json!("payments"), &json!(true)),
        "{said}"
    );
    assert!(said[0]["said"].to_string().contains("4711 received"), "{said}");
    let told = ran.fails(1);
    assert!(told.contains("not proved: shop"), "{told}");
    cluster.run(&["kv", "put", key, sound.trim()]).await.ok();
    cluster.run(&["check"]).await.ok();
}

#[tokio::test]
async fn the_shop_is_measured_without_errors_in_both_modes() {
    for checkout in [Checkout::Direct, Checkout::Mailbox] {
        let cluster = shop(checkout).await;
        for work in ["catalogue", "spread", "hot"] {
            let arguments = [
                "bench",
                "shop",
                "--clients",
                "4",
                "--seconds",
                "1",
                "--work",
                work,
                "--json",
            ];
            let report = cluster.run(&arguments).await.json();
            let operations = report["operations"].as_u64().unwrap();
            assert!(operations > 0, "{checkout:?} {work}: {report}");
            assert_eq!(report["errors"], json!({}), "{checkout:?} {work}: {report}");
            let sold = if work == "catalogue" { 0 } else { operations };
            assert_eq!(report["sold"], sold, "{checkout:?} {work}: {report}");
        }
        cluster.run(&["check"]).await.ok();
    }
}
