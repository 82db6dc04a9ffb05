//! How models misbehave for the classroom, and how they ask another when they copy.
//! Invariant: an honest model passes through untouched; what an adversary says has the shape of a good answer.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use service::config::Behaviour;
use service::http;
use service::problem::{self, Problem, Result};

use crate::data::Draw;
use crate::simulate::claim;

/// Longer than anybody waits, and still an end.
const SLEEP: Duration = Duration::from_mins(10);
const COPY_DEADLINE: Duration = Duration::from_millis(300);

pub(crate) struct Manner {
    behaviour: Option<Behaviour>,
    draw: Mutex<Draw>,
    answers: AtomicU64,
    /// Whom it copies.
    model: Option<String>,
    http: reqwest::Client,
}

impl Manner {
    pub(crate) fn new(behaviour: Option<Behaviour>, model: Option<String>, seed: u64) -> Self {
        Self {
            behaviour,
            draw: Mutex::new(Draw::new(seed)),
            answers: AtomicU64::new(0),
            model,
            http: http::client(COPY_DEADLINE),
        }
    }

    pub(crate) fn is_honest(&self) -> bool {
        self.behaviour.is_none()
    }

    /// What the model says in place of what it thinks.
    pub(crate) async fn say(&self, row: &[f64], honest: Vec<f64>) -> Result<Vec<f64>> {
        let Some(behaviour) = self.behaviour else {
            return Ok(honest);
        };
        let classes = honest.len();
        match behaviour {
            Behaviour::Random => {
                let mut draw = self.draw.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(claim(classes, draw.below(classes)))
            }
            Behaviour::AlwaysWrong => Ok(wrong(&honest)),
            Behaviour::TurnBadAfter(answers) => {
                let given = self.answers.fetch_add(1, Ordering::Relaxed);
                Ok(if given < answers { honest } else { wrong(&honest) })
            }
            Behaviour::SlowMs(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(honest)
            }
            Behaviour::Sleep => {
                tokio::time::sleep(SLEEP).await;
                Ok(honest)
            }
            Behaviour::Copy => self.copy(row, classes).await,
        }
    }

    async fn copy(&self, row: &[f64], classes: usize) -> Result<Vec<f64>> {
        let nothing = || Problem::new(problem::NOT_READY, "There is nobody to copy at the moment.");
        let model = self.model.as_ref().ok_or_else(nothing)?;
        let request = self.http.post(format!("{}/predict", service::http::base(model)));
        let request = request.json(&serde_json::json!({ "features": row }));
        let answer = request.send().await.map_err(|_error| nothing())?;
        let body: serde_json::Value = answer.json().await.map_err(|_error| nothing())?;
        let said = body["probabilities"].as_array().ok_or_else(nothing)?;
        let said: Vec<f64> = said.iter().filter_map(serde_json::Value::as_f64).collect();
        if said.len() == classes {
            Ok(said)
        } else {
            Err(nothing())
        }
    }
}

/// Almost sure of the class after the one that it thinks is right.
fn wrong(honest: &[f64]) -> Vec<f64> {
    let mut best = 0;
    for (class, p) in honest.iter().enumerate() {
        if *p > honest[best] {
            best = class;
        }
    }
    claim(honest.len(), (best + 1) % honest.len())
}
