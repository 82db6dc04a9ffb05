//! `menagerie bench pay`: a closed loop of clients that pay with the simple call, one payment after the other.
//! Invariant: only payments that were charged count; everything else is an error, told by kind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use hyper::{Method, Uri};
use payment_client::PaymentClient;
use serde::Serialize;

use super::cards::open_cards;
use super::closed_loop::{self, Figures, Tally};
use super::connection::{Connection, Outcome, uri};
use crate::context::Context;

const DEADLINE: Duration = Duration::from_secs(10);
/// After an error, so that a refused connection is not a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// Cards and merchants of the spread work.
const CARDS: u32 = 500;
const MERCHANTS: u32 = 50;

#[derive(Args)]
pub(crate) struct Load {
    /// How many clients, each with one payment under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Who pays whom: many cards and merchants, one card, or one merchant
    #[arg(long, value_enum, default_value_t = Work::Spread)]
    work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    Spread,
    OneCard,
    OneMerchant,
}

#[derive(Serialize)]
struct Report {
    work: Work,
    clients: u32,
    #[serde(flatten)]
    figures: Figures,
    /// Whether the ledger balances after it.
    balanced: bool,
    errors: BTreeMap<String, u64>,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let addresses = &context.config.payment.addresses;
        if addresses.is_empty() {
            bail!("the configuration has no payment service: give it [payment] addresses");
        }
        let secrets = context.secrets()?;
        let token = |name: &str| {
            let token = secrets.token(name).map(|token| token.expose().to_owned());
            token.with_context(|| format!("secrets.toml has no token for {name}"))
        };
        let operator = PaymentClient::builder(addresses.iter().cloned(), token("operator")?);
        let operator = operator.deadline(Duration::from_mins(1)).build()?;
        let cards = open_cards(&operator, self.cards()).await?;
        let merchant = token("merchant")?;
        let clients = (0..self.clients)
            .map(|number| {
                let address = &addresses[number as usize % addresses.len()];
                Client::new(address, &merchant, self.bodies(&cards, number))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let start = Instant::now();
        let end = start + Duration::from_secs(self.seconds);
        let tally = RefCell::new(Tally::closed(start, end)?);
        tokio::join!(
            join_all(clients.iter().map(|client| client.run(end, &tally))),
            closed_loop::progress(context, self.seconds)
        );
        let (figures, errors) = tally.into_inner().end(start.elapsed());
        let check = operator
            .check_ledger(None)
            .await
            .context("check the ledger afterwards")?;
        let report = Report {
            work: self.work,
            clients: self.clients,
            figures,
            balanced: check.balanced,
            errors,
        };
        if context.output.json {
            context.output.document(&report)?;
        } else {
            report.show(context)?;
        }
        if report.figures.operations == 0 {
            bail!("not one payment was made: {:?}", report.errors);
        }
        if !check.balanced {
            bail!("the ledger does not balance: {:?}", check.violations);
        }
        Ok(())
    }

    fn cards(&self) -> u32 {
        match self.work {
            Work::OneCard => 1,
            Work::Spread | Work::OneMerchant => CARDS,
        }
    }

    /// What a client sends, in turn.
    fn bodies(&self, cards: &[String], number: u32) -> Vec<Bytes> {
        let merchants = match self.work {
            Work::OneMerchant => 1,
            Work::Spread | Work::OneCard => MERCHANTS,
        };
        let mut bodies = Vec::with_capacity(cards.len());
        for (n, card) in (number..).zip(0..cards.len()) {
            let card = &cards[(card + 17 * number as usize) % cards.len()];
            let merchant = n % merchants;
            let body = format!(r#"{{"card_number":"{card}","amount":0.01,"merchant":"bench-{merchant}"}}"#);
            bodies.push(body.into());
        }
        bodies
    }
}

impl Report {
    fn show(&self, context: &Context) -> std::io::Result<()> {
        let work = self.work.to_possible_value();
        let work = work.map_or_else(String::new, |work| work.get_name().to_owned());
        closed_loop::show(context, work, self.clients, &self.figures, &self.errors)
    }
}

struct Client {
    connection: Connection,
    url: Uri,
    bodies: Vec<Bytes>,
}

impl Client {
    fn new(address: &str, token: &str, bodies: Vec<Bytes>) -> anyhow::Result<Self> {
        Ok(Self {
            connection: Connection::new(token, DEADLINE)?,
            url: uri(&format!("{}/payments", service::http::base(address)))?,
            bodies,
        })
    }

    async fn run(&self, end: Instant, tally: &RefCell<Tally>) {
        for body in self.bodies.iter().cycle() {
            let begin = Instant::now();
            if begin >= end {
                return;
            }
            let outcome = self.pay(body.clone()).await;
            tally.borrow_mut().note(outcome, begin, Instant::now());
            if outcome != Outcome::Done {
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }

    async fn pay(&self, body: Bytes) -> Outcome {
        self.connection
            .send(Method::POST, self.url.clone(), Some(body), None)
            .await
    }
}
