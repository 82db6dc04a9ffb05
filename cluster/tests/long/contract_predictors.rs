//! The documents of the models and of their consensus are true: schemathesis makes requests of them and judges the
//! answers.
//! Invariant: whatever was sent, no answer is a 5xx that the document does not know, and no token appears or vanishes.

use serde_json::Value;
use service::config::PredictorConfig;
use tokio::process::Command;

use crate::contract::schemathesis;
use crate::harness::{Cluster, free_ports};

/// Of each kind of request, for each route and token.
const EXAMPLES: &str = "40";
const KINDS: [&str; 3] = ["naive-bayes", "knn", "forest"];

fn predictor(kind: &str, port: u16) -> PredictorConfig {
    PredictorConfig {
        name: kind.to_owned(),
        address: format!("127.0.0.1:{port}"),
        model: kind.to_owned(),
        table: String::new(),
        label: String::new(),
        ignore: Vec::new(),
        impute: String::new(),
        behave: String::new(),
        seed: 1,
    }
}

async fn judge(cluster: &Cluster, address: &str, token: &str) {
    let ran = Command::new(schemathesis())
        .arg("run")
        .arg(format!("http://{address}/openapi.json"))
        .args([
            "--header",
            &format!("Authorization: Bearer {}", cluster.token(token)),
        ])
        .args(["--max-examples", EXAMPLES, "--request-timeout", "10"])
        // No schema can say how many features the table had, or which hosts the configuration lists.
        // A network whose models were all told to leave answers 503, as its document says: what it does not say is
        // found all the same.
        .args(["--exclude-checks", "positive_data_acceptance,not_a_server_error"])
        .current_dir(cluster.folder())
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{address} as {token}: {told}");
}

#[tokio::test]
async fn the_documents_of_the_predictors_are_true() {
    let cluster = Cluster::with(1, |config| {
        let ports = free_ports(KINDS.len() + 1);
        let models = KINDS.iter().zip(&ports);
        config.models = models.map(|(kind, port)| predictor(kind, *port)).collect();
        config.consensus.addresses = vec![format!("127.0.0.1:{}", ports[KINDS.len()])];
    });
    cluster.up().await;
    for model in &cluster.config.models {
        judge(&cluster, &model.address, "operator").await;
    }
    let consensus = &cluster.config.consensus.addresses[0];
    for token in ["operator", "oracle"] {
        judge(&cluster, consensus, token).await;
    }
    let ledger = cluster.http.get(format!("http://{consensus}/ledger"));
    let ledger: Value = ledger.send().await.unwrap().json().await.unwrap();
    assert_eq!(ledger["conserved"], true, "{ledger}");
}
