//! The documents of the shop and of its gateway.
//! Invariant: whatever was sent, the shop and the ledger agree afterwards.

use serde_json::{Value, json};

use super::{NOT_SAID, NOT_SAID_NOR_SERVED, judge};
use crate::harness::{Cluster, free_ports};

/// The token of somebody who has signed up.
async fn visitor(cluster: &Cluster, shop: &str) -> String {
    let body = json!({"username": "cara", "password": "correct horse"});
    let mut session = Value::Null;
    for target in ["/users", "/login"] {
        let answer = cluster.http.post(format!("http://{shop}{target}")).json(&body);
        session = answer.send().await.unwrap().json().await.unwrap();
    }
    session["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_documents_of_the_shop_and_its_gateway_are_true() {
    let cluster = Cluster::with(1, |config| {
        let mut addresses = free_ports(3).into_iter().map(|port| format!("127.0.0.1:{port}"));
        config.gateway.address = addresses.next().unwrap();
        config.shop.addresses = addresses.by_ref().take(1).collect();
        config.payment.addresses = addresses.collect();
    });
    cluster.up().await;
    let shop = &cluster.config.shop.addresses[0];
    let (operator, visitor) = (cluster.token("operator"), visitor(&cluster, shop).await);
    for token in [Some(operator.as_str()), Some(&visitor), None] {
        judge(&cluster, shop, token, NOT_SAID).await;
    }
    let gateway = &cluster.config.gateway.address;
    judge(&cluster, gateway, Some(&operator), NOT_SAID_NOR_SERVED).await;
    let audit = cluster.http.get(format!("http://{shop}/admin/audit"));
    let audit = audit.bearer_auth(&operator).send().await.unwrap();
    let audit: Value = audit.json().await.unwrap();
    assert_eq!(audit["violations"], json!([]), "{audit}");
    assert!(audit["orders"].as_u64() > Some(0), "nothing was ordered: {audit}");
}
