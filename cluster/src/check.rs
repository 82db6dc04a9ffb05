//! `menagerie check`: do the books agree? Asks each service for its own proof: the shop for its audit, the payments for
//! their trial balance, the consensus for its stakes.
//! Invariant: what cannot be asked is a failure too, and so is a configuration that has nobody to ask; silence proves
//! nothing.

use std::time::Duration;

use anyhow::bail;
use reqwest::Client;
use serde::Serialize;
use serde_json::Value;
use service::http;

use crate::context::{Context, block_on};

/// A proof reads everything there is.
const DEADLINE: Duration = Duration::from_mins(3);

/// One proof, and where it is found.
struct Proof {
    of: &'static str,
    addresses: Vec<String>,
    path: &'static str,
    /// The member of the answer that says it holds.
    holds: &'static str,
}

#[derive(Serialize)]
struct Verdict {
    of: &'static str,
    ok: bool,
    revision: Option<u64>,
    said: Value,
}

pub(crate) fn run(context: Context) -> anyhow::Result<()> {
    let proofs = proofs(&context);
    if proofs.is_empty() {
        let used = context.config_file.as_ref().map_or_else(
            || "the built-in configuration".to_owned(),
            |file| file.display().to_string(),
        );
        bail!(
            "nothing is proved: {used} has no shop, payment or consensus to ask; --config names another file"
        );
    }
    let token = context.secrets()?.token("operator").cloned();
    let Some(token) = token else {
        bail!("secrets.toml has no token for operator");
    };
    let output = context.output;
    let verdicts = block_on(async {
        let client = http::client(DEADLINE);
        let mut verdicts = Vec::new();
        for proof in &proofs {
            verdicts.push(ask(&client, proof, token.expose()).await);
        }
        Ok(verdicts)
    })?;
    if output.json {
        output.document(&verdicts)?;
    } else {
        let rows = verdicts.iter().map(|verdict| {
            let revision = verdict.revision.map(|revision| revision.to_string());
            [
                verdict.of.to_owned(),
                if verdict.ok { "ok" } else { "WRONG" }.to_owned(),
                revision.unwrap_or_default(),
                if verdict.ok {
                    String::new()
                } else {
                    verdict.said.to_string()
                },
            ]
        });
        output.table(["PROOF", "VERDICT", "REVISION", "WHAT"], rows)?;
    }
    let wrong: Vec<&str> = verdicts.iter().filter(|one| !one.ok).map(|one| one.of).collect();
    if !wrong.is_empty() {
        bail!("not proved: {}", wrong.join(", "));
    }
    Ok(())
}

/// Of the services that the configuration has.
fn proofs(context: &Context) -> Vec<Proof> {
    let config = &context.config;
    let proofs = [
        Proof {
            of: "shop",
            addresses: config.shop.addresses.clone(),
            path: "/admin/audit",
            holds: "ok",
        },
        Proof {
            of: "payments",
            addresses: config.payment.addresses.clone(),
            path: "/v1/ledger/check",
            holds: "balanced",
        },
        Proof {
            of: "stakes",
            addresses: config.consensus.addresses.clone(),
            path: "/ledger",
            holds: "conserved",
        },
    ];
    proofs
        .into_iter()
        .filter(|proof| !proof.addresses.is_empty())
        .collect()
}

/// The first instance that answers speaks for all: they have one store.
async fn ask(client: &Client, proof: &Proof, token: &str) -> Verdict {
    let mut said = Value::Null;
    for address in &proof.addresses {
        let url = format!("{}{}", service::http::base(address), proof.path);
        let request = client
            .get(url)
            .bearer_auth(token)
            .header("accept", "application/json");
        let answer = match request.send().await {
            Ok(answer) => answer.json::<Value>().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if answer[proof.holds].is_boolean() => {
                return Verdict {
                    of: proof.of,
                    ok: answer[proof.holds] == true,
                    revision: answer["revision"].as_u64(),
                    said: answer,
                };
            }
            Ok(other) => said = other,
            Err(error) => said = Value::String(format!("{address} does not answer: {error}")),
        }
    }
    Verdict {
        of: proof.of,
        ok: false,
        revision: None,
        said,
    }
}
