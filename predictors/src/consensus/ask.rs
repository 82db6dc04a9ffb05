//! Asks models in parallel, with a deadline for all.
//! Invariant: answers are bounded in size and time; whatever is not a sound forecast makes its model absent, with the
//! reason; nothing but registered places is called, and no redirect is followed.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use service::edge;
use service::http::{self, Timeouts};
use service::secrets::Secrets;
use tokio::time::Instant;

use super::records::Status;
use crate::pass::pass;
use crate::stakes::Forecast;

#[derive(Clone, Debug)]
pub(crate) struct Asker {
    http: Client,
    classes: Vec<String>,
    deadline: Duration,
    bytes_max: usize,
    /// To name ourselves to private models.
    secrets: Option<Secrets>,
}

/// What came of asking one model.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) model: String,
    pub(crate) forecast: Result<Forecast, Absence>,
    pub(crate) latency_us: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Absence {
    pub(crate) status: Status,
    pub(crate) reason: String,
}

#[derive(Deserialize)]
struct Said {
    probabilities: Vec<f64>,
    #[serde(default)]
    classes: Option<Vec<String>>,
}

fn invalid(reason: impl Into<String>) -> Absence {
    Absence {
        status: Status::Invalid,
        reason: reason.into(),
    }
}

fn silent(reason: impl Into<String>) -> Absence {
    Absence {
        status: Status::Timeout,
        reason: reason.into(),
    }
}

impl Asker {
    pub(crate) fn new(config: &service::config::ConsensusConfig, secrets: &Secrets) -> Self {
        let deadline = Duration::from_millis(config.round_ms);
        Self {
            http: http::client(Timeouts {
                connect: deadline,
                ..Timeouts::default()
            }),
            classes: config.classes.clone(),
            deadline,
            bytes_max: config.answer_bytes_max,
            secrets: config.private_models.then(|| secrets.clone()),
        }
    }

    /// `models` are names and URLs. The answers come in their order, all at the deadline at the latest.
    pub(crate) async fn ask(&self, models: &[(&str, &str)], row: &[f64]) -> Vec<Heard> {
        let until = Instant::now() + self.deadline;
        let asked = models
            .iter()
            .map(|(name, url)| self.ask_one(name, url, row, until));
        join_all(asked).await
    }

    async fn ask_one(&self, name: &str, url: &str, row: &[f64], until: Instant) -> Heard {
        let began = Instant::now();
        let answer = tokio::time::timeout_at(until, self.hear(url, row)).await;
        let forecast = match answer {
            Ok(forecast) => forecast,
            Err(_elapsed) => Err(silent(format!(
                "no answer within {} ms",
                self.deadline.as_millis()
            ))),
        };
        Heard {
            model: name.to_owned(),
            forecast,
            latency_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
    }

    async fn hear(&self, url: &str, row: &[f64]) -> Result<Forecast, Absence> {
        let mut request = self.http.post(format!("{url}/predict"));
        request = request.header("x-request-id", edge::request_id());
        if let Some(secrets) = &self.secrets {
            let place = url.rsplit('/').next().unwrap_or(url);
            request = request.bearer_auth(pass(secrets, place).expose());
        }
        let sent = request.json(&json!({ "features": row })).send().await;
        let mut answer = sent.map_err(|error| {
            let reason = if error.is_connect() {
                "no connection"
            } else {
                "the connection broke off"
            };
            silent(reason)
        })?;
        if answer.status() != StatusCode::OK {
            return Err(invalid(format!(
                "it answered with status {}",
                answer.status().as_u16()
            )));
        }
        let mut body = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.bytes_max => {
                    return Err(invalid(format!(
                        "its answer is larger than {} bytes",
                        self.bytes_max
                    )));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(_broken) => return Err(silent("the connection broke off")),
            }
        }
        self.read(&body)
    }

    pub(super) fn read(&self, body: &[u8]) -> Result<Forecast, Absence> {
        let said: Said = serde_json::from_slice(body)
            .map_err(|_error| invalid("its answer has no list of numbers called `probabilities`"))?;
        if said.classes.is_some_and(|classes| classes != self.classes) {
            return Err(invalid("it speaks of other classes"));
        }
        Forecast::ingest(&said.probabilities, self.classes.len()).map_err(|fault| invalid(fault.to_string()))
    }
}
