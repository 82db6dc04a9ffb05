//! The classroom's walk-through: the script runs as it is, in open mode and with accounts, while a server is killed.

use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use service::config::ShopAuth;
use tokio::process::Command;

use super::system::System;
use crate::harness::DEADLINE;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/walk-through.sh");

async fn walk(system: &System) -> String {
    let shop = |n: usize| format!("http://{}", system.shops[n].address);
    let ran = Command::new("bash")
        .arg(SCRIPT)
        .args([shop(0), shop(1)])
        .env(
            "ADMIN_PASSWORD",
            system.cluster.secrets().shop.admin_password.expose(),
        )
        .env("OPERATOR_TOKEN", system.token("operator"))
        .env(
            "AUTH",
            if system.config.shop.auth == ShopAuth::Open {
                "open"
            } else {
                "accounts"
            },
        )
        .stdin(Stdio::null())
        .output()
        .await
        .expect("bash and curl are installed");
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_through_runs_in_both_modes() {
    for auth in [ShopAuth::Open, ShopAuth::Accounts] {
        let system = System::start_with(1, 2, |config| config.auth = auth).await;
        let told = walk(&system).await;
        assert!(told.ends_with("All of it works.\n"), "{told}");
        system.stop().await;
    }
}

/// Whoever thinks of the same key for another user stands in nobody's way.
async fn same_key_of_strangers(system: &System, product: &Value) {
    let http = service::http::client(DEADLINE);
    let url = format!("http://{}/orders", system.shops[0].address);
    let mut orders = Vec::new();
    for (user, replayed) in [("ada", ""), ("bob", ""), ("ada", "true")] {
        let body = json!({"userId": user, "items": [{"productId": product}]});
        let request = http.post(&url).header("idempotency-key", "1");
        let made = system.operator().send(request.json(&body)).await.expect(201);
        assert_eq!(made.header("idempotent-replayed"), replayed, "{user}");
        orders.push(made.json()["order_id"].clone());
    }
    assert!(orders[0] == orders[2] && orders[0] != orders[1], "{orders:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_trusted() {
    let system = System::open().await;
    let client = system.operator();
    let browse = async |method, target: &str, body| system.browse(method, target, &body).await;
    let made = browse(
        Method::POST,
        "/products",
        json!({"name": "Tablet", "price": 299.99}),
    )
    .await
    .expect(201)
    .json();
    assert_eq!((&made["stock"], &made["inStock"]), (&json!(100), &json!(true)));
    let cart = json!({"productId": made["id"], "quantity": 2});
    browse(Method::POST, "/cart/7", cart).await.expect(200);
    let order = browse(Method::POST, "/orders", json!({"userId": 7}))
        .await
        .expect(201)
        .json();
    assert_eq!(
        (&order["status"], &order["total"], &order["user_id"]),
        (&json!("confirmed"), &json!(599.98), &json!("7"))
    );
    let id = order["order_id"].as_str().unwrap();
    browse(Method::POST, &format!("/orders/7/{id}/cancel"), json!({}))
        .await
        .refused(409, "order-not-cancelable");
    let guest = json!({"products": [{"productId": made["id"]}]});
    assert_eq!(
        browse(Method::POST, "/orders", guest).await.expect(201).json()["user_id"],
        "guest"
    );
    // With a card it is paid here as well.
    let paid =
        json!({"userId": "7", "items": [{"productId": made["id"]}], "cardNumber": super::system::VISA});
    assert_eq!(
        browse(Method::POST, "/orders", paid).await.expect(201).json()["status"],
        "paid"
    );
    assert_eq!(
        client
            .get("/orders/7")
            .await
            .expect(200)
            .json()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    same_key_of_strangers(&system, &made["id"]).await;
    // That everybody is trusted with the goods opens neither the books nor the process.
    for target in ["/admin/audit", "/metrics"] {
        let nobody = browse(Method::GET, target, json!(null)).await;
        nobody.refused(401, "unauthorized");
        client.get(target).await.expect(200);
    }
    system.stop().await;
}
