//! The documents of the shop and of its gateway are true: schemathesis makes requests of them and judges the answers.
//! Invariant: whatever was sent, each answer is one that the document knows, none is an internal error, and the shop
//! and the ledger agree afterwards.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::contract::schemathesis;
use crate::harness::{Cluster, free_ports};

/// Of each kind of request, for each route and caller.
const EXAMPLES: &str = "25";

/// `checks` are those that cannot hold here.
async fn judge(cluster: &Cluster, address: &str, token: Option<&str>, checks: &str) {
    let mut run = Command::new(schemathesis());
    run.arg("run")
        .arg(format!("http://{address}/openapi.json"))
        .args(["--max-examples", EXAMPLES, "--request-timeout", "10"])
        .args(["--exclude-checks", checks])
        // A stream without an end; the tests of the shop read it.
        .args(["--exclude-path", "/events"])
        .current_dir(cluster.folder());
    if let Some(token) = token {
        run.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let ran = run.output().await.unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success(),
        "{address}, {}: {told}",
        token.map_or("nobody", |_| "somebody")
    );
}

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
    // No schema can say which goods there are, or that the last digit of a card number checks the others.
    let checks = "positive_data_acceptance";
    for token in [Some(operator.as_str()), Some(&visitor), None] {
        judge(&cluster, shop, token, checks).await;
    }
    // That nobody serves what is asked for is a 503 here, and the document says so; any other 5xx it does not know.
    let checks = "positive_data_acceptance,not_a_server_error";
    judge(&cluster, &cluster.config.gateway.address, Some(&operator), checks).await;
    let audit = cluster.http.get(format!("http://{shop}/admin/audit"));
    let audit = audit.bearer_auth(&operator).send().await.unwrap();
    let audit: Value = audit.json().await.unwrap();
    assert_eq!(audit["violations"], json!([]), "{audit}");
    assert!(audit["orders"].as_u64() > Some(0), "nothing was ordered: {audit}");
}
