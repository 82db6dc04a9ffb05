//! `menagerie bench predict`: a closed loop of clients that ask one model, ask the consensus, or report outcomes.
//! Invariant: only whole successful answers count; for outcomes the rounds are opened beforehand, apart from the time
//! that is measured, and the ledger must be conserved after it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use hyper::Method;
use serde::Serialize;

use super::closed_loop::{self, Figures, Tally};
use super::connection::{Connection, Outcome, uri};
use crate::context::Context;

const DEADLINE: Duration = Duration::from_secs(10);
/// After an error, so that a refused connection is not a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// A flower that every model knows.
const FLOWER: &str = "sl=5.1&sw=3.5&pl=1.4&pw=0.2";
/// Below what may be open.
const ROUNDS_A_TURN: usize = 900;
const OPENED_AT_ONCE: usize = 16;

#[derive(Args)]
pub(crate) struct Load {
    /// How many clients, each with one request under way
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long; for outcomes, the time of reporting alone
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// What is asked: one model, the consensus of all, or the settlement of rounds
    #[arg(long, value_enum, default_value_t = Work::Model)]
    work: Work,
    /// Which model [default: the first of the configuration]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    Model,
    Consensus,
    Outcomes,
}

#[derive(Serialize)]
struct Report {
    work: Work,
    clients: u32,
    #[serde(flatten)]
    figures: Figures,
    errors: BTreeMap<String, u64>,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (figures, errors) = match self.work {
            Work::Model => self.ask(context, &self.model_address(context)?).await?,
            Work::Consensus => self.ask(context, consensus(context)?).await?,
            Work::Outcomes => self.settle(context).await?,
        };
        let report = Report {
            work: self.work,
            clients: self.clients,
            figures,
            errors,
        };
        if context.output.json {
            context.output.document(&report)?;
        } else {
            let work = self.work.to_possible_value();
            let work = work.map_or_else(String::new, |work| work.get_name().to_owned());
            closed_loop::show(context, work, self.clients, &report.figures, &report.errors)?;
        }
        if report.figures.operations == 0 {
            bail!("not one request succeeded: {:?}", report.errors);
        }
        Ok(())
    }

    fn model_address(&self, context: &Context) -> anyhow::Result<String> {
        let mut models = context.config.models.iter();
        let model = match &self.model {
            Some(name) => models.find(|model| model.name == *name),
            None => models.next(),
        };
        let model = model.context("the configuration has no such model: give it a [[predictor]]")?;
        Ok(model.address.clone())
    }

    /// `GET /predict`, again and again.
    async fn ask(
        &self,
        context: &Context,
        address: &str,
    ) -> anyhow::Result<(Figures, BTreeMap<String, u64>)> {
        let url = uri(&format!("{}/predict?{FLOWER}", service::http::base(address)))?;
        let connections = self.connections("none")?;
        let start = Instant::now();
        let end = start + Duration::from_secs(self.seconds);
        let tally = RefCell::new(Tally::closed(start, end)?);
        let asking = connections.iter().map(async |connection| {
            while Instant::now() < end {
                let begin = Instant::now();
                let outcome = connection.send(Method::GET, url.clone(), None, None).await;
                note(&tally, outcome, begin).await;
            }
        });
        tokio::join!(join_all(asking), closed_loop::progress(context, self.seconds));
        Ok(tally.into_inner().end(start.elapsed()))
    }

    /// Opens rounds and then reports what was true of them, until the reporting took long enough.
    async fn settle(&self, context: &Context) -> anyhow::Result<(Figures, BTreeMap<String, u64>)> {
        let address = consensus(context)?;
        let secrets = context.secrets()?;
        let oracle = secrets
            .token("oracle")
            .context("secrets.toml has no token for the oracle")?;
        let connections = self.connections(oracle.expose())?;
        let url = uri(&format!("{}/outcomes", service::http::base(address)))?;
        let progress = context.output.progress(self.seconds, "settling");
        let wanted = Duration::from_secs(self.seconds);
        let mut reporting = Duration::ZERO;
        let tally = RefCell::new(Tally::whole(Instant::now())?);
        while reporting < wanted {
            let rounds = open(address, ROUNDS_A_TURN).await?;
            let next = Cell::new(0);
            let begin = Instant::now();
            let reports = connections.iter().map(async |connection| {
                while let Some(round) = rounds.get(next.replace(next.get() + 1)) {
                    let body = Bytes::from(format!(r#"{{"round_id":"{round}","outcome":0}}"#));
                    let begin = Instant::now();
                    let outcome = connection.send(Method::POST, url.clone(), Some(body), None).await;
                    note(&tally, outcome, begin).await;
                }
            });
            join_all(reports).await;
            reporting += begin.elapsed();
            progress.set_position(reporting.as_secs().min(self.seconds));
        }
        progress.finish_and_clear();
        let http = service::http::client(DEADLINE);
        let ledger = http
            .get(format!("{}/ledger", service::http::base(address)))
            .send()
            .await;
        let ledger = ledger.context("read the ledger")?.json().await;
        let ledger: serde_json::Value = ledger.context("read the ledger")?;
        ensure!(
            ledger["conserved"] == true,
            "the ledger is not conserved: {ledger}"
        );
        Ok(tally.into_inner().end(reporting))
    }

    fn connections(&self, token: &str) -> anyhow::Result<Vec<Connection>> {
        (0..self.clients)
            .map(|_| Connection::new(token, DEADLINE))
            .collect()
    }
}

async fn note(tally: &RefCell<Tally>, outcome: Outcome, begin: Instant) {
    tally.borrow_mut().note(outcome, begin, Instant::now());
    if outcome != Outcome::Done {
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

fn consensus(context: &Context) -> anyhow::Result<&str> {
    let addresses = &context.config.consensus.addresses;
    let first = addresses.first();
    first
        .map(String::as_str)
        .context("the configuration has no consensus: give it [consensus] addresses")
}

/// Rounds that wait for their outcome.
async fn open(address: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let http = service::http::client(DEADLINE);
    let url = format!("{}/predict", service::http::base(address));
    let row = serde_json::json!({"features": [5.1, 3.5, 1.4, 0.2]});
    let mut rounds = Vec::with_capacity(count);
    while rounds.len() < count {
        let opened = (0..OPENED_AT_ONCE).map(async |_| {
            let answer = http.post(&url).json(&row).send().await.context("open a round")?;
            ensure!(
                answer.status() == 201,
                "a round was refused: {}",
                answer.text().await?
            );
            let body: serde_json::Value = answer.json().await.context("open a round")?;
            let id = body["round_id"].as_str().context("a round has an id")?;
            Ok(id.to_owned())
        });
        for round in join_all(opened).await {
            rounds.push(round?);
        }
    }
    Ok(rounds)
}
