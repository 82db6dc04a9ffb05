//! A scenario under many seeds, and what became of the network.

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::network::Network;
use super::scenario::Scenario;
use crate::data::{Draw, Table};
use crate::evaluate::{Figures, out_of_fold};
use crate::models::Kind;
use crate::stakes::Forecast;

/// Adversaries that weigh less together no longer matter.
const HARMLESS: f64 = 0.05;
const FOLDS: usize = 10;

#[derive(Clone, Debug, Serialize)]
pub struct Simulation {
    pub scenario: Scenario,
    pub rounds: usize,
    pub seeds: usize,
    pub accuracy: f64,
    pub log_loss: f64,
    /// What one vote each, whatever the stake, would have reached.
    pub unweighted_accuracy: f64,
    /// After how many rounds the adversaries weigh less than 5 % for good: mean and maximum over the seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harmless_after: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harmless_after_max: Option<usize>,
    /// The round after which the first adversary was ejected, earliest and latest over the seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_after: Option<(usize, usize)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_after_mean: Option<f64>,
    /// In how many of the seeds an adversary was ejected.
    pub ejected_in: usize,
    pub names: Vec<String>,
    /// Of the first seed: stakes by round, for the plot.
    pub stakes: Vec<Vec<f64>>,
    /// Of the first seed, after the last round.
    pub trust: Vec<f64>,
    pub treasury: f64,
    /// Whether no token appeared or vanished, in any seed.
    pub conserved: bool,
}

/// What one seed brought.
struct Outcome {
    figures: Figures,
    unweighted_right: usize,
    harmless_after: usize,
    ejected_after: Option<usize>,
    stakes: Vec<Vec<f64>>,
    network: Network,
    conserved: bool,
}

struct Stage<'a> {
    scenario: Scenario,
    table: &'a Table,
    /// What each honest model says of each row.
    said: Vec<Vec<Forecast>>,
    rounds: usize,
}

/// `done` is called after each seed.
pub fn simulate(
    table: &Table,
    scenario: Scenario,
    rounds: usize,
    seeds: usize,
    done: &mut dyn FnMut(),
) -> anyhow::Result<Simulation> {
    ensure!(
        rounds >= 1 && seeds >= 1,
        "a simulation takes at least one round and one seed"
    );
    let mut outcomes = Vec::with_capacity(seeds);
    for seed in 0..seeds {
        let seed = u64::try_from(seed).context("count the seeds")?;
        outcomes.push(Stage::set(table, scenario, rounds, seed)?.play(seed)?);
        done();
    }
    Ok(sum_up(scenario, rounds, &outcomes))
}

impl<'a> Stage<'a> {
    /// The honest models answer for rows that they have not learned from.
    fn set(table: &'a Table, scenario: Scenario, rounds: usize, seed: u64) -> anyhow::Result<Self> {
        let smallest = table.counts().into_iter().min().unwrap_or(0);
        let folds = FOLDS.min(smallest).max(2);
        let said = Kind::ALL.iter().map(|kind| {
            let answers = out_of_fold(*kind, table, folds, seed)?;
            let forecasts = answers.iter();
            let forecasts = forecasts.map(|answer| Forecast::ingest(answer, table.classes.len()));
            forecasts
                .collect::<Result<Vec<_>, _>>()
                .context("take in an answer")
        });
        Ok(Self {
            scenario,
            table,
            said: said.collect::<anyhow::Result<_>>()?,
            rounds,
        })
    }

    fn play(&self, seed: u64) -> anyhow::Result<Outcome> {
        let classes = self.table.classes.len();
        let (honest, adversaries) = self.scenario.cast();
        let mut network = Network::new(classes, honest + adversaries);
        let before = network.total_micro();
        let mut draw = Draw::new(seed);
        let mut outcome = Outcome {
            figures: network.figures(),
            unweighted_right: 0,
            harmless_after: 0,
            ejected_after: None,
            stakes: vec![network.stakes().collect()],
            network: network.clone(),
            conserved: true,
        };
        let mut order: Vec<usize> = Vec::new();
        for round in 0..self.rounds {
            if order.is_empty() {
                order = (0..self.table.len()).collect();
                draw.shuffle(&mut order);
            }
            let row = order.pop().context("the table has rows")?;
            let truth = self.table.labels[row];
            let said = self.hear(row, round, truth, &mut draw);
            let Some(played) = network.play(&said, truth) else {
                anyhow::bail!("nobody is left in the network after {round} rounds");
            };
            outcome.figures.add(&played.shown, truth);
            outcome.unweighted_right += usize::from(unweighted(&said, classes) == truth);
            let bad: f64 = played.shares[honest..].iter().sum();
            let turned = self.scenario != Scenario::Drift || round >= self.rounds / 2;
            if turned && bad >= HARMLESS {
                let since = if self.scenario == Scenario::Drift {
                    self.rounds / 2
                } else {
                    0
                };
                outcome.harmless_after = round + 1 - since;
            }
            if outcome.ejected_after.is_none() && network.accounts[honest..].iter().any(|one| one.ejected) {
                outcome.ejected_after = Some(round + 1);
            }
            outcome.conserved &= network.total_micro() == before;
            outcome.stakes.push(network.stakes().collect());
        }
        outcome.network = network;
        Ok(outcome)
    }

    fn hear(&self, row: usize, round: usize, truth: usize, draw: &mut Draw) -> Vec<Option<Forecast>> {
        let (honest, adversaries) = self.scenario.cast();
        let classes = self.table.classes.len();
        let mut said: Vec<Option<Forecast>> = self.said[..honest]
            .iter()
            .map(|rows| Some(rows[row].clone()))
            .collect();
        for _ in 0..adversaries {
            let claimed = self
                .scenario
                .claim(classes, truth, round >= self.rounds / 2, draw);
            said.push(match claimed {
                Some(claimed) => Forecast::ingest(&claimed, classes).ok(),
                None => Some(self.said[honest][row].clone()),
            });
        }
        said
    }
}

fn sum_up(scenario: Scenario, rounds: usize, outcomes: &[Outcome]) -> Simulation {
    let mean = |of: &dyn Fn(&Outcome) -> f64| {
        #[expect(clippy::cast_precision_loss, reason = "there are few seeds")]
        let count = outcomes.len() as f64;
        outcomes.iter().map(of).sum::<f64>() / count
    };
    #[expect(clippy::cast_precision_loss, reason = "there are few rounds")]
    let float = |count: usize| count as f64;
    let (honest, adversaries) = scenario.cast();
    let ejected: Vec<usize> = outcomes
        .iter()
        .filter_map(|outcome| outcome.ejected_after)
        .collect();
    let bounds = ejected.iter().min().zip(ejected.iter().max());
    let first = &outcomes[0];
    let names = Kind::ALL[..honest].iter().map(|kind| kind.word().to_owned());
    let bad = (1..=adversaries).map(|number| format!("{}-{number}", scenario.word()));
    Simulation {
        scenario,
        rounds,
        seeds: outcomes.len(),
        accuracy: mean(&|outcome| outcome.figures.accuracy),
        log_loss: mean(&|outcome| outcome.figures.log_loss),
        unweighted_accuracy: mean(&|outcome| float(outcome.unweighted_right) / float(rounds)),
        harmless_after: (adversaries > 0).then(|| mean(&|outcome| float(outcome.harmless_after))),
        harmless_after_max: outcomes
            .iter()
            .map(|outcome| outcome.harmless_after)
            .max()
            .filter(|_| adversaries > 0),
        ejected_after: bounds.map(|(first, last)| (*first, *last)),
        ejected_after_mean: bounds.map(|_| float(ejected.iter().sum()) / float(ejected.len())),
        ejected_in: ejected.len(),
        names: names.chain(bad).collect(),
        stakes: first.stakes.clone(),
        trust: (0..honest + adversaries)
            .map(|model| first.network.trust(model))
            .collect(),
        treasury: first.network.treasury(),
        conserved: outcomes.iter().all(|outcome| outcome.conserved),
    }
}

/// The class that most of them name; of several the lowest.
fn unweighted(said: &[Option<Forecast>], classes: usize) -> usize {
    let mut votes = vec![0_u32; classes];
    for forecast in said.iter().flatten() {
        votes[forecast.label()] += 1;
    }
    let most = votes.iter().max().copied().unwrap_or(0);
    votes.iter().position(|count| *count == most).unwrap_or(0)
}
