//! `menagerie bench shop`: a closed loop of clients that look at goods, or order and pay them one after the other.
//! Invariant: a checkout counts only when it is paid; and when all is over, exactly what was paid for has left the
//! shelves, shop and ledger agree, and nothing is left to be done.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use hyper::{Method, Uri};
use payment_client::PaymentClient;
use serde::Serialize;
use serde_json::{Value, json};

use super::cards::open_cards;
use super::closed_loop::{self, Figures, Tally};
use super::connection::{self, Connection, Outcome};
use crate::context::Context;

const DEADLINE: Duration = Duration::from_secs(10);
/// An audit reads every order there is.
const AUDIT_DEADLINE: Duration = Duration::from_mins(3);
/// After an error, so that a refused connection is not a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
const CARDS: u32 = 200;
/// Products of the spread work and of reading.
const PRODUCTS: u32 = 100;
/// One of so many reads is a page of the catalogue, the others single products.
const PAGE_EACH: u32 = 10;
const STOCK: u32 = 1_000_000;

#[derive(Args)]
pub(crate) struct Load {
    /// How many clients, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Reads of the catalogue, checkouts of many products, or checkouts of all clients of the same product
    #[arg(long, value_enum, default_value_t = Work::Spread)]
    work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    Catalogue,
    Spread,
    Hot,
}

#[derive(Serialize)]
struct Report {
    work: Work,
    clients: u32,
    #[serde(flatten)]
    figures: Figures,
    /// Pieces that have left the shelves.
    sold: i64,
    errors: BTreeMap<String, u64>,
}

/// What is asked, in turn.
#[derive(Clone)]
struct Ask {
    url: Uri,
    body: Option<Bytes>,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let shops = &context.config.shop.addresses;
        if shops.is_empty() {
            bail!("the configuration has no shop: give it [shop] addresses");
        }
        let secrets = context.secrets()?;
        let operator = secrets
            .token("operator")
            .context("find the token of the operator")?;
        let keeper = Keeper::new(&shops[0], operator.expose())?;
        let products = keeper
            .stock_shelves(if self.work == Work::Hot { 1 } else { PRODUCTS })
            .await?;
        let cards = match self.work {
            Work::Catalogue => Vec::new(),
            Work::Spread | Work::Hot => {
                let payment = PaymentClient::builder(
                    context.config.payment.addresses.iter().cloned(),
                    operator.expose(),
                );
                open_cards(&payment.deadline(Duration::from_mins(1)).build()?, CARDS).await?
            }
        };
        let mut clients = Vec::with_capacity(self.clients as usize);
        for number in 0..self.clients {
            let shop = &shops[number as usize % shops.len()];
            clients.push(Client {
                connection: Connection::new(operator.expose(), DEADLINE)?,
                asks: asks(shop, &products, &cards, number)?,
            });
        }
        let start = Instant::now();
        let end = start + Duration::from_secs(self.seconds);
        let tally = RefCell::new(Tally::closed(start, end)?);
        tokio::join!(
            join_all(clients.iter().map(|client| client.run(end, &tally))),
            closed_loop::progress(context, self.seconds)
        );
        let (figures, errors) = tally.into_inner().end(start.elapsed());
        let sold = keeper.sold(&products).await?;
        let report = Report {
            work: self.work,
            clients: self.clients,
            figures,
            sold,
            errors,
        };
        if context.output.json {
            context.output.document(&report)?;
        } else {
            let work = self.work.to_possible_value();
            let work = work.map_or_else(String::new, |work| work.get_name().to_owned());
            closed_loop::show(context, work, self.clients, &report.figures, &report.errors)?;
        }
        self.judge(&keeper, &report).await
    }

    async fn judge(&self, keeper: &Keeper, report: &Report) -> anyhow::Result<()> {
        let done = i64::try_from(report.figures.operations).unwrap_or(i64::MAX);
        ensure!(done > 0, "nothing was done: {:?}", report.errors);
        if self.work == Work::Catalogue {
            return Ok(());
        }
        let audit = keeper.audit().await?;
        ensure!(audit["ok"] == true, "the shop is not sound: {audit}");
        // A request that broke off may have been carried out all the same.
        let broken: u64 = report.errors.values().sum();
        let sold_max = done.saturating_add_unsigned(broken);
        ensure!(
            (done..=sold_max).contains(&report.sold),
            "{done} were paid for, but {} have left the shelves",
            report.sold
        );
        Ok(())
    }
}

/// What a client asks, in turn: without cards it only looks.
fn asks(shop: &str, products: &[String], cards: &[String], number: u32) -> anyhow::Result<Vec<Ask>> {
    let url = |path: &str| connection::uri(&format!("{}{path}", service::http::base(shop)));
    let mut asks = Vec::new();
    for n in 0..PRODUCTS {
        let product = &products[(17 * number + n) as usize % products.len()];
        asks.push(match cards.get((31 * number + n) as usize % cards.len().max(1)) {
            None if n % PAGE_EACH == 0 => Ask {
                url: url("/products?limit=20")?,
                body: None,
            },
            None => Ask {
                url: url(&format!("/products/{product}"))?,
                body: None,
            },
            Some(card) => {
                let body = json!({
                    "userId": format!("bench-{number}"),
                    "items": [{"productId": product, "quantity": 1}],
                    "cardNumber": card,
                });
                Ask {
                    url: url("/orders")?,
                    body: Some(body.to_string().into()),
                }
            }
        });
    }
    Ok(asks)
}

/// Puts goods on the shelves and looks at them afterwards.
pub(crate) struct Keeper {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Keeper {
    pub(crate) fn new(shop: &str, token: &str) -> anyhow::Result<Self> {
        connection::uri(&service::http::base(shop)).context("read the address of a shop")?;
        Ok(Self {
            http: service::http::client(AUDIT_DEADLINE),
            base: service::http::base(shop),
            token: token.to_owned(),
        })
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("ask the shop for {path}"))?;
        let answer = answer
            .error_for_status()
            .with_context(|| format!("ask the shop for {path}"))?;
        answer
            .json()
            .await
            .with_context(|| format!("read what the shop says to {path}"))
    }

    pub(crate) async fn stock_shelves(&self, count: u32) -> anyhow::Result<Vec<String>> {
        let mut products = Vec::new();
        for n in 0..count {
            let body =
                json!({"name": format!("Bench {n}"), "category": "bench", "price": 0.01, "stock": STOCK});
            let made = self.ask(Method::POST, "/products", Some(&body)).await?;
            products.push(
                made["id"]
                    .as_str()
                    .context("read the id of a product")?
                    .to_owned(),
            );
        }
        Ok(products)
    }

    /// Takes the goods off the shelves as well; what was sold of them is known by then.
    async fn sold(&self, products: &[String]) -> anyhow::Result<i64> {
        let began = Instant::now();
        while self.audit().await?["unfinished"] != 0 {
            ensure!(began.elapsed() < AUDIT_DEADLINE, "orders are left unfinished");
        }
        let mut sold = 0;
        for product in products {
            let seen = self
                .ask(Method::GET, &format!("/products/{product}"), None)
                .await?;
            sold += i64::from(STOCK) - seen["stock"].as_i64().context("read a stock")?;
            self.ask(Method::DELETE, &format!("/products/{product}"), None)
                .await?;
        }
        Ok(sold)
    }

    pub(crate) async fn audit(&self) -> anyhow::Result<Value> {
        self.ask(Method::GET, "/admin/audit", None).await
    }
}

struct Client {
    connection: Connection,
    asks: Vec<Ask>,
}

impl Client {
    async fn run(&self, end: Instant, tally: &RefCell<Tally>) {
        for ask in self.asks.iter().cycle() {
            let begin = Instant::now();
            if begin >= end {
                return;
            }
            let method = if ask.body.is_some() {
                Method::POST
            } else {
                Method::GET
            };
            let sent = self
                .connection
                .send(method, ask.url.clone(), ask.body.clone(), None);
            let outcome = sent.await;
            tally.borrow_mut().note(outcome, begin, Instant::now());
            if outcome != Outcome::Done {
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}
