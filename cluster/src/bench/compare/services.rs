//! The services on a store of their own: checkouts and predictions, by the generators that `menagerie bench` has for
//! each, every one a process of its own, which also prove that the books agree afterwards.
//! Invariant: it is the system of the configuration on other addresses, but without mirrors, for which every write
//! might wait; what those cost is measured by `menagerie bench redundancy`.

use std::net::TcpListener;

use anyhow::Context as _;
use serde_json::Value;
use service::config::Config;

use super::super::closed_loop::Figures;
use super::report::{Middle, ServiceRow};
use crate::arena::Folder;
use crate::context::Context;
use crate::launcher::System;

/// Each work is done so long before it counts: what is new has empty caches and no connections.
const WARM_UP_SECONDS: &str = "1";

/// Name, words for people, and arguments; whether `--quick` has it too.
const WORKS: [(&str, &str, &[&str], bool); 5] = [
    (
        "checkout-spread",
        "orders of 100 goods, paid by 200 cards",
        &["shop", "--work", "spread"],
        true,
    ),
    (
        "checkout-hot",
        "orders of one and the same product",
        &["shop", "--work", "hot"],
        false,
    ),
    (
        "catalogue",
        "the catalogue and single products",
        &["shop", "--work", "catalogue"],
        false,
    ),
    (
        "payments",
        "payments with many cards",
        &["pay", "--work", "spread"],
        false,
    ),
    (
        "predictions",
        "predictions of the consensus of all models",
        &["predict", "--work", "consensus"],
        false,
    ),
];

/// One run of a generator: its figures, and how many calls failed.
async fn round(system: &System, work: &[&str], seconds: &str) -> anyhow::Result<(Figures, u64)> {
    let mut all = vec!["bench"];
    all.extend(work);
    all.extend(["--clients", "64", "--seconds", seconds]);
    let told: Value =
        serde_json::from_slice(&system.run(&all).await?).context("read what a generator says")?;
    let counts = told["errors"]
        .as_object()
        .into_iter()
        .flat_map(|errors| errors.values());
    let errors = counts.filter_map(Value::as_u64).sum();
    let figures = serde_json::from_value(told).context("read what a generator says")?;
    Ok((figures, errors))
}

/// What of the configuration is not measured.
pub(super) fn left_out(config: &Config) -> Option<String> {
    let there = !config.mirrors.is_empty();
    there.then(|| "mirrors: the services are measured without them".to_owned())
}

pub(super) async fn measure(
    context: &Context,
    folder: &Folder,
    quick: bool,
    rounds: u32,
    seconds: f64,
) -> anyhow::Result<Vec<ServiceRow>> {
    let folder = folder.path().join("services");
    std::fs::create_dir(&folder).context("make a folder for the services")?;
    let mut config = context.config.clone();
    config.data = folder.join("data");
    move_away(&mut config)?;
    let file = folder.join("cluster.toml");
    std::fs::write(&file, config.to_toml()?).context("write the configuration")?;
    context.output.note("the services are started");
    let system = System::start(Some(&file), &config.data).await?;
    let rows = rows(&system, &config, quick, rounds, seconds).await;
    let stopped = system.stop().await;
    let rows = rows?;
    stopped?;
    Ok(rows)
}

async fn rows(
    system: &System,
    config: &Config,
    quick: bool,
    rounds: u32,
    seconds: f64,
) -> anyhow::Result<Vec<ServiceRow>> {
    let seconds = format!("{seconds:.0}");
    let mut rows = Vec::new();
    for (name, what, arguments, in_quick) in WORKS {
        let there = match arguments[0] {
            "shop" => !config.shop.addresses.is_empty() && !config.payment.addresses.is_empty(),
            "pay" => !config.payment.addresses.is_empty(),
            _ => !config.consensus.addresses.is_empty() && !config.models.is_empty(),
        };
        if !there || (quick && !in_quick) {
            continue;
        }
        round(system, arguments, WARM_UP_SECONDS).await?;
        let (mut figures, mut errors) = (Vec::new(), 0);
        for _ in 0..rounds {
            let (seen, failed) = round(system, arguments, &seconds).await?;
            figures.push(seen);
            errors += failed;
        }
        let middle = |of: fn(&Figures) -> f64| Middle::of(figures.iter().map(of)).context("there is a round");
        rows.push(ServiceRow {
            name: name.to_owned(),
            what: what.to_owned(),
            operations_per_s: middle(|seen| seen.operations_per_s)?,
            p50_ms: middle(|seen| seen.p50_ms)?,
            p99_ms: middle(|seen| seen.p99_ms)?,
            errors,
        });
    }
    Ok(rows)
}

/// Gives everything an address of its own, so that what runs already is not in the way.
fn move_away(config: &mut Config) -> anyhow::Result<()> {
    config.mirrors.clear();
    let mut taken = Vec::new();
    let mut free = || -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = listener.local_addr().context("find a free port")?.to_string();
        taken.push(listener);
        Ok(address)
    };
    for node in &mut config.nodes {
        (node.client, node.peer) = (free()?, free()?);
        (node.client_listen, node.peer_listen) = (None, None);
    }
    let lists = [
        &mut config.payment.addresses,
        &mut config.shop.addresses,
        &mut config.consensus.addresses,
    ];
    for address in lists.into_iter().flatten() {
        *address = free()?;
    }
    for model in &mut config.models {
        model.address = free()?;
    }
    config.console.address = free()?;
    if !config.gateway.address.is_empty() {
        config.gateway.address = free()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What `make up` starts.
    const CONFIG: &str = include_str!("../../../../cluster.toml");

    fn addresses(config: &Config) -> Vec<String> {
        let nodes = config.nodes.iter().flat_map(|node| [&node.client, &node.peer]);
        let services = [
            &config.payment.addresses,
            &config.shop.addresses,
            &config.consensus.addresses,
        ];
        let models = config.models.iter().map(|model| &model.address);
        let mirrors = config.mirrors.iter().map(|mirror| &mirror.address);
        let alone = [&config.console.address, &config.gateway.address];
        let all = nodes.chain(services.into_iter().flatten()).chain(models);
        all.chain(mirrors).chain(alone).cloned().collect()
    }

    #[test]
    fn nothing_of_what_runs_already_is_in_the_way() {
        let config = service::config::parse(CONFIG, "cluster.toml").unwrap();
        let mut moved = config.clone();
        move_away(&mut moved).unwrap();
        let before: BTreeSet<String> = addresses(&config).into_iter().collect();
        let after = addresses(&moved);
        assert!(after.iter().all(|address| !before.contains(address)), "{after:?}");
        let different: BTreeSet<&String> = after.iter().collect();
        assert_eq!(different.len(), after.len(), "{after:?}");
    }

    #[test]
    fn what_is_not_measured_is_told() {
        let mut config = service::config::parse(CONFIG, "cluster.toml").unwrap();
        assert!(left_out(&config).unwrap().starts_with("mirrors: "));
        move_away(&mut config).unwrap();
        assert_eq!(left_out(&config), None);
    }

    #[test]
    fn predictions_are_asked_of_the_consensus() {
        let (.., arguments, _) = WORKS
            .into_iter()
            .find(|(name, ..)| *name == "predictions")
            .unwrap();
        assert_eq!(arguments, ["predict", "--work", "consensus"]);
    }
}
