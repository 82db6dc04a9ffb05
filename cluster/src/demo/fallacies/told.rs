//! What an experiment says: sentences, claims with whether they held, and figures for programs.
//! Invariant: an experiment held if it claimed something and every claim held.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use super::Fallacy;
use crate::demo::scene::Scene;

#[derive(Debug, Serialize)]
pub(super) struct Claim {
    pub(super) held: bool,
    pub(super) what: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Experiment {
    fallacy: Fallacy,
    pub(super) belief: &'static str,
    pub(super) held: bool,
    pub(super) claims: Vec<Claim>,
    figures: BTreeMap<&'static str, f64>,
    caught_by: &'static str,
}

impl Experiment {
    pub(super) fn new(fallacy: Fallacy, claims: Vec<Claim>, figures: BTreeMap<&'static str, f64>) -> Self {
        Self {
            fallacy,
            belief: fallacy.belief(),
            held: !claims.is_empty() && claims.iter().all(|claim| claim.held),
            claims,
            figures,
            caught_by: fallacy.caught_by(),
        }
    }
}

pub(super) struct Told<'scene> {
    scene: &'scene Scene<'scene>,
    claims: Vec<Claim>,
    figures: BTreeMap<&'static str, f64>,
}

impl<'scene> Told<'scene> {
    pub(super) fn new(scene: &'scene Scene<'scene>) -> Self {
        Self {
            scene,
            claims: Vec::new(),
            figures: BTreeMap::new(),
        }
    }

    pub(super) fn say(&self, text: impl Display) {
        self.scene.say(text);
    }

    pub(super) fn claim(&mut self, held: bool, what: impl Display) {
        let what = what.to_string();
        let sign = if held { '✓' } else { '✗' };
        self.scene.say(format_args!("  {sign} {what}"));
        self.claims.push(Claim { held, what });
    }

    pub(super) fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }

    pub(super) fn end(self, fallacy: Fallacy) -> Experiment {
        Experiment::new(fallacy, self.claims, self.figures)
    }
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The middle one; of an even number, the upper of the two.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
