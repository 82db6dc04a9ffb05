//! The documents of the models and of their consensus.
//! Invariant: whatever was sent, no token appears or vanishes.

use serde_json::Value;
use service::config::PredictorConfig;

use super::{NOT_SAID_NOR_SERVED, judge};
use crate::harness::{Cluster, free_ports};

const KINDS: [&str; 3] = ["naive-bayes", "knn", "forest"];

/// A model that leaves is there until its stake is paid out.
const NOT_GONE_AT_ONCE: &str = "positive_data_acceptance,not_a_server_error,use_after_free";

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
        judge(
            &cluster,
            &model.address,
            Some(&cluster.token("operator")),
            NOT_SAID_NOR_SERVED,
        )
        .await;
    }
    let consensus = &cluster.config.consensus.addresses[0];
    for token in ["operator", "oracle"] {
        judge(&cluster, consensus, Some(&cluster.token(token)), NOT_GONE_AT_ONCE).await;
    }
    let ledger = cluster.http.get(format!("http://{consensus}/ledger"));
    let ledger: Value = ledger.send().await.unwrap().json().await.unwrap();
    assert_eq!(ledger["conserved"], true, "{ledger}");
}
