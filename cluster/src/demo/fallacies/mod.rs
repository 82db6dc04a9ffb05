//! `menagerie demo fallacies`: the eight fallacies of distributed computing, each as an experiment on three nodes that
//! are started for it: what is believed, what was done, what happened, and what caught it.
//! Invariant: it succeeds only if every claim that was made held; an experiment that could not be carried out is a
//! claim that did not hold.

mod administrators;
mod bandwidth;
mod cost;
mod ground;
mod latency;
mod mixture;
mod network;
mod strangers;
mod told;
mod topology;

use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::scene::Scene;
use crate::context::{Context, until_interrupted};
use ground::Ground;
use told::{Experiment, Told};

/// Far more than any of them needs; an experiment that hangs is one that failed.
const EXPERIMENT_MAX: Duration = Duration::from_secs(90);

#[derive(Args)]
pub(crate) struct Fallacies {
    /// Wait for Enter before each experiment
    #[arg(long)]
    step: bool,
    /// Only these, such as latency,cost
    #[arg(long, value_delimiter = ',', value_name = "FALLACIES")]
    only: Vec<Fallacy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Fallacy {
    /// The network is reliable
    Network,
    /// Latency is zero
    Latency,
    /// Bandwidth is infinite
    Bandwidth,
    /// The network is secure
    Security,
    /// Topology doesn't change
    Topology,
    /// There is one administrator
    Administrator,
    /// Transport cost is zero
    Cost,
    /// The network is homogeneous
    Homogeneity,
}

impl Fallacy {
    fn belief(self) -> &'static str {
        match self {
            Self::Network => "The network is reliable.",
            Self::Latency => "Latency is zero.",
            Self::Bandwidth => "Bandwidth is infinite.",
            Self::Security => "The network is secure.",
            Self::Topology => "Topology doesn't change.",
            Self::Administrator => "There is one administrator.",
            Self::Cost => "Transport cost is zero.",
            Self::Homogeneity => "The network is homogeneous.",
        }
    }

    /// The mechanism that makes up for it.
    fn caught_by(self) -> &'static str {
        match self {
            Self::Network => {
                "a majority for every write, a lease for every lead, and one key for all tries of a request"
            }
            Self::Latency => {
                "one round trip for many writes, patience that knows slow from dead, and near caches"
            }
            Self::Bandwidth => {
                "a limit on everything that is sent, and `lagging` for whoever does not keep up"
            }
            Self::Security => {
                "tokens with rights by prefix, and peers that prove anew that they know the secret"
            }
            Self::Topology => {
                "clients that know all nodes, watches that resume anywhere, members that change while all runs"
            }
            Self::Administrator => "rights that are ordered with the writes, and changes on a condition",
            Self::Cost => "near caches that watches keep coherent, and transactions that carry many changes",
            Self::Homogeneity => {
                "plain HTTP and JSON at the edge, bytes that stay as they are, and copies that are compared"
            }
        }
    }

    async fn play(self, ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
        match self {
            Self::Network => Box::pin(network::play(ground, told)).await,
            Self::Latency => Box::pin(latency::play(ground, told)).await,
            Self::Bandwidth => Box::pin(bandwidth::play(ground, told)).await,
            Self::Security => Box::pin(strangers::play(ground, told)).await,
            Self::Topology => Box::pin(topology::play(ground, told)).await,
            Self::Administrator => Box::pin(administrators::play(ground, told)).await,
            Self::Cost => Box::pin(cost::play(ground, told)).await,
            Self::Homogeneity => Box::pin(mixture::play(ground, told)).await,
        }
    }
}

impl Fallacies {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        until_interrupted(context.output, Box::pin(self.play(context))).await
    }

    async fn play(self, context: &Context) -> anyhow::Result<()> {
        let scene = Scene::without_system(context, self.step);
        scene.say("Three nodes of their own are started for this; what runs already is left alone …");
        let mut ground = Ground::open(&context.data).await?;
        let mut experiments = Vec::new();
        let all = Fallacy::value_variants();
        for (number, fallacy) in (1..).zip(all) {
            if !self.only.is_empty() && !self.only.contains(fallacy) {
                continue;
            }
            scene
                .chapter(format_args!("{number} of {}. “{}”", all.len(), fallacy.belief()))
                .await?;
            experiments.push(experiment(*fallacy, &mut ground, &scene).await);
        }
        let output = scene.output();
        if output.json {
            output.document(&experiments)?;
        }
        let claims = conclude(&experiments)?;
        scene.say(format_args!(
            "\nFallacies: {}. Claims: {claims}, and all of them held.",
            experiments.len()
        ));
        Ok(())
    }
}

async fn experiment(fallacy: Fallacy, ground: &mut Ground, scene: &Scene<'_>) -> Experiment {
    let mut told = Told::new(scene);
    let played = async {
        ground.store.ready().await?;
        fallacy.play(ground, &mut told).await
    };
    let failed = match tokio::time::timeout(EXPERIMENT_MAX, played).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("it could not be carried out: {error:#}")),
        Err(_late) => Some(format!("it was not over after {} s", EXPERIMENT_MAX.as_secs())),
    };
    if let Some(failed) = failed {
        told.claim(false, failed);
    }
    // Whatever went wrong is not to disturb the next one.
    ground.links.heal();
    scene.say(format_args!("  Caught by: {}.", fallacy.caught_by()));
    told.end(fallacy)
}

/// How many claims held; an error that names those that did not.
fn conclude(experiments: &[Experiment]) -> anyhow::Result<usize> {
    let claims = experiments.iter().flat_map(|experiment| &experiment.claims);
    let failed: Vec<&str> = claims
        .clone()
        .filter(|claim| !claim.held)
        .map(|claim| claim.what.as_str())
        .collect();
    let empty = experiments.iter().find(|experiment| experiment.claims.is_empty());
    if let Some(empty) = empty {
        bail!("nothing was claimed about “{}”", empty.belief);
    }
    if !failed.is_empty() {
        bail!(
            "{} of {} claims did not hold:\n{}",
            failed.len(),
            claims.count(),
            failed.join("\n")
        );
    }
    Ok(claims.count())
}

#[cfg(test)]
mod tests {
    use super::told::Claim;
    use super::*;

    fn experiment(claims: &[(bool, &str)]) -> Experiment {
        let claims = claims.iter().map(|(held, what)| Claim {
            held: *held,
            what: (*what).to_owned(),
        });
        Experiment::new(
            Fallacy::Cost,
            claims.collect(),
            std::collections::BTreeMap::default(),
        )
    }

    #[test]
    fn one_claim_that_did_not_hold_fails_the_demo_and_is_named() {
        let good = experiment(&[(true, "a"), (true, "b")]);
        let bad = experiment(&[(true, "c"), (false, "the sky is green")]);
        assert!(good.held && !bad.held);
        assert_eq!(conclude(&[good]).unwrap(), 2);
        let said = conclude(&[bad]).unwrap_err().to_string();
        assert!(
            said.contains("1 of 2") && said.contains("the sky is green"),
            "{said}"
        );
    }

    #[test]
    fn an_experiment_without_a_claim_proves_nothing() {
        let empty = experiment(&[]);
        assert!(!empty.held);
        conclude(&[empty]).unwrap_err();
    }
}
