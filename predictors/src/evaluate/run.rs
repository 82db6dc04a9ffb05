//! The whole evaluation: every model, and the consensus that they make under the rules of the stakes.
//! Invariant: in each repeat all models are judged on the same folds, and the consensus hears what they said there.

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::figures::Figures;
use super::folds::{folds_for, out_of_fold, seed_of, small_enough};
use crate::data::{Draw, Table};
use crate::models::Kind;
use crate::simulate::Network;
use crate::stakes::Forecast;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub repeats: usize,
    pub folds: usize,
    pub seed: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    pub data: String,
    pub data_sha256: String,
    pub notes: Vec<String>,
    pub rows: usize,
    pub features: Vec<String>,
    pub classes: Vec<String>,
    pub repeats: usize,
    pub folds: usize,
    pub seed: u64,
    pub models: Vec<Judged>,
    /// Judged on the rows as a stream, learning whom to trust as it goes.
    pub consensus: Judged,
}

#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    pub name: String,
    #[serde(flatten)]
    pub figures: Figures,
    /// How far the accuracy of single repeats lies from the mean.
    pub accuracy_deviation: f64,
    /// The mean of its stake at the end, in tokens; none for the consensus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stake: Option<f64>,
}

struct Count {
    figures: Figures,
    accuracies: Vec<f64>,
    stakes: f64,
}

/// `done` is called after each model of each repeat.
pub fn evaluate(table: &Table, plan: Plan, done: &mut dyn FnMut()) -> anyhow::Result<Evaluation> {
    let judged = small_enough(table, plan.seed);
    let folds = folds_for(&judged, plan.folds);
    ensure!(
        folds >= 2 && plan.repeats >= 1,
        "an evaluation takes at least two folds, and so two rows of each class"
    );
    let classes = judged.classes.len();
    let count = || Count {
        figures: Figures::new(classes),
        accuracies: Vec::new(),
        stakes: 0.0,
    };
    let mut models: Vec<Count> = Kind::ALL.iter().map(|_| count()).collect();
    let mut consensus = count();
    for repeat in 0..plan.repeats {
        let seed = seed_of(plan.seed, repeat);
        let mut said = Vec::with_capacity(Kind::ALL.len());
        for (kind, model) in Kind::ALL.into_iter().zip(&mut models) {
            let answers = out_of_fold(kind, &judged, folds, seed).with_context(|| format!("judge {kind}"))?;
            model.add(Figures::of(classes, pairs(&answers, &judged.labels)));
            said.push(answers);
            done();
        }
        consensus.add(stream(&judged, &said, seed, &mut models)?);
    }
    let kinds = Kind::ALL.iter().map(|kind| kind.word());
    Ok(Evaluation {
        data: table.source.clone(),
        data_sha256: table.sha256(),
        notes: table.notes.clone(),
        rows: judged.len(),
        features: judged.features.clone(),
        classes: judged.classes.clone(),
        repeats: plan.repeats,
        folds,
        seed: plan.seed,
        models: kinds
            .zip(models)
            .map(|(name, model)| model.judged(name, true))
            .collect(),
        consensus: consensus.judged("consensus", false),
    })
}

fn pairs<'a>(said: &'a [Vec<f64>], labels: &'a [usize]) -> impl Iterator<Item = (&'a [f64], usize)> {
    said.iter().map(Vec::as_slice).zip(labels.iter().copied())
}

/// Plays every row once, in a drawn order.
fn stream(table: &Table, said: &[Vec<Vec<f64>>], seed: u64, models: &mut [Count]) -> anyhow::Result<Figures> {
    let classes = table.classes.len();
    let mut network = Network::new(classes, said.len());
    let mut order: Vec<usize> = (0..table.len()).collect();
    Draw::new(!seed).shuffle(&mut order);
    let mut figures = Figures::new(classes);
    for row in order {
        let forecasts = said
            .iter()
            .map(|answers| Forecast::ingest(&answers[row], classes).ok());
        let forecasts: Vec<_> = forecasts.collect();
        let played = network.play(&forecasts, table.labels[row]).or_else(|| {
            // On data that nobody masters every model is ejected sooner or later.
            network.revive();
            network.play(&forecasts, table.labels[row])
        });
        let played = played.context("no model has an answer")?;
        figures.add(&played.shown, table.labels[row]);
    }
    for (model, stake) in models.iter_mut().zip(network.stakes()) {
        model.stakes += stake;
    }
    Ok(figures)
}

impl Count {
    fn add(&mut self, one: Figures) {
        let sum = &mut self.figures;
        let before = super::figures::float(sum.judged);
        let new = super::figures::float(one.judged);
        let mean = |old: f64, one: f64| (old * before + one * new) / (before + new);
        sum.accuracy = mean(sum.accuracy, one.accuracy);
        sum.log_loss = mean(sum.log_loss, one.log_loss);
        sum.brier = mean(sum.brier, one.brier);
        sum.judged += one.judged;
        for (row, other) in sum.confusion.iter_mut().zip(one.confusion) {
            for (cell, other) in row.iter_mut().zip(other) {
                *cell += other;
            }
        }
        self.accuracies.push(one.accuracy);
    }

    fn judged(self, name: &str, staked: bool) -> Judged {
        #[expect(clippy::cast_precision_loss, reason = "there are few repeats")]
        let repeats = self.accuracies.len() as f64;
        let mean = self.accuracies.iter().sum::<f64>() / repeats;
        let squares = self.accuracies.iter().map(|accuracy| (accuracy - mean).powi(2));
        Judged {
            name: name.to_owned(),
            accuracy_deviation: (squares.sum::<f64>() / repeats).sqrt(),
            stake: staked.then_some(self.stakes / repeats),
            figures: self.figures,
        }
    }
}
