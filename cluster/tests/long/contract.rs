//! The document of the payment service is true: schemathesis makes requests of it and judges the answers.
//! Invariant: whatever was sent, no answer is a 5xx, each is one that the document knows, and the ledger balances.

use std::path::{Path, PathBuf};

use payment_client::PaymentClient;
use tokio::process::Command;

use crate::harness::{BINARY, Cluster, free_ports};

/// Of each kind of request, for each route and token.
const EXAMPLES: &str = "40";

/// Where `.ci/setup long` has put it: beside the build.
pub(crate) fn schemathesis() -> PathBuf {
    let target = Path::new(BINARY).ancestors().nth(2).unwrap();
    let program = target.join("tools/schemathesis/bin/st");
    assert!(
        program.exists(),
        "{} is missing: run `.ci/setup long`",
        program.display()
    );
    program
}

#[tokio::test]
async fn the_document_of_payments_is_true() {
    let cluster = Cluster::with(1, |config| {
        config.payment.addresses = vec![format!("127.0.0.1:{}", free_ports(1)[0])];
    });
    cluster.up().await;
    let address = &cluster.config.payment.addresses[0];
    for token in ["merchant", "operator"] {
        let ran = Command::new(schemathesis())
            .arg("run")
            .arg(format!("http://{address}/openapi.json"))
            .args([
                "--header",
                &format!("Authorization: Bearer {}", cluster.token(token)),
            ])
            .args(["--max-examples", EXAMPLES, "--request-timeout", "10"])
            // No schema can say that the last digit of a card number checks the others.
            .args(["--exclude-checks", "positive_data_acceptance"])
            .current_dir(cluster.folder())
            .output()
            .await
            .unwrap();
        let told = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "as {token}: {told}");
    }
    let client = PaymentClient::builder([address.as_str()], cluster.token("operator"));
    let check = client.build().unwrap().check_ledger(None).await.unwrap();
    assert!(check.balanced, "{check:?}");
}
