//! The documents of services are true: schemathesis makes requests of them and judges the answers.
//! Invariant: whatever was sent, no answer is one that the document does not know, and the books agree afterwards.

mod predictors;
mod shop;

use std::path::{Path, PathBuf};

use payment_client::PaymentClient;
use tokio::process::Command;

use crate::harness::{BINARY, Cluster, free_ports};

/// Of each kind of request, for each route and caller.
const EXAMPLES: &str = "30";
/// No schema can say that the last digit of a card number checks the others, which goods there are, how many features
/// a table had, or which hosts the configuration lists.
const NOT_SAID: &str = "positive_data_acceptance";
/// Where nobody is left who could answer, 503 is an answer that the document knows; any other 5xx it does not.
const NOT_SAID_NOR_SERVED: &str = "positive_data_acceptance,not_a_server_error";
/// No header that nobody has described is refused, and a revision that is far away is waited for in vain.
const NOT_SAID_OF_THE_STORE: &str = "positive_data_acceptance,not_a_server_error,negative_data_rejection";

/// What refuses a request that breaks the schema: a body that is too large may break it too.
const SETTINGS: &str = r#"[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "431", "5xx"]
"#;

/// Where `.ci/setup long` has put it: beside the build.
fn schemathesis() -> PathBuf {
    let target = Path::new(BINARY).ancestors().nth(2).unwrap();
    let program = target.join("tools/schemathesis/bin/st");
    assert!(
        program.exists(),
        "{} is missing: run `.ci/setup long`",
        program.display()
    );
    program
}

/// Asks as whom the token is of. `left_out` are checks that cannot hold here.
async fn judge(cluster: &Cluster, address: &str, token: Option<&str>, left_out: &str) {
    let settings = cluster.folder().join("schemathesis.toml");
    std::fs::write(&settings, SETTINGS).unwrap();
    let mut run = Command::new(schemathesis());
    run.arg("--config-file")
        .arg(settings)
        .arg("run")
        .arg(format!("http://{address}/openapi.json"))
        .args(["--max-examples", EXAMPLES, "--request-timeout", "10"])
        .args(["--exclude-checks", left_out])
        // Streams without an end; the tests of the shop and of the store read them.
        .args(["--exclude-path", "/events", "--exclude-path", "/v1/watch"])
        // A mirror that is announced and never there holds up every write, as it should.
        .args(["--exclude-path", "/v1/mirrors/{name}"])
        // A token that is made anew ends the one that asks.
        .args(["--exclude-path", "/v1/tokens/{name}"])
        .current_dir(cluster.folder());
    if let Some(token) = token {
        run.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let ran = run.output().await.unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    let who = token.map_or("nobody", |_| "somebody");
    assert!(ran.status.success(), "{address}, {who}: {told}");
}

#[tokio::test]
async fn the_document_of_payments_is_true() {
    let cluster = Cluster::with(1, |config| {
        config.payment.addresses = vec![format!("127.0.0.1:{}", free_ports(1)[0])];
    });
    cluster.up().await;
    let address = &cluster.config.payment.addresses[0];
    for token in ["merchant", "operator"] {
        judge(&cluster, address, Some(&cluster.token(token)), NOT_SAID).await;
    }
    let client = PaymentClient::builder([address.as_str()], cluster.token("operator"));
    let check = client.build().unwrap().check_ledger(None).await.unwrap();
    assert!(check.balanced, "{check:?}");
}

#[tokio::test]
async fn the_document_of_the_store_is_true() {
    let cluster = Cluster::start(1).await;
    let address = cluster.address("n1").to_owned();
    for token in ["root", "petstore"] {
        let token = cluster.token(token);
        judge(&cluster, &address, Some(&token), NOT_SAID_OF_THE_STORE).await;
    }
    cluster.run(&["kv", "hash", "--all-nodes"]).await.ok();
}
