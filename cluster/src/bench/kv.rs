//! `menagerie bench kv`: a closed loop of clients, each with one request under way on a connection of its own.
//! Invariant: only whole successful answers count as operations; everything else is an error, told by kind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use hyper::header::HeaderValue;
use hyper::{Method, Uri};
use kvstore_client::wire::level::Consistency;
use serde::Serialize;

use super::Target;
use super::closed_loop::{self, Figures, Tally, word};
use super::connection::{Connection, Outcome, uri};
use crate::context::Context;
use crate::kv::reach::Nodes;

const DEADLINE: Duration = Duration::from_secs(10);
/// After an error, so that a refused connection is not a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
const KEYS_PER_CLIENT: u64 = 1000;
/// The share of writes in the mixed work: one in so many.
const MIX_WRITE_EVERY: u64 = 4;

#[derive(Args)]
pub(crate) struct Load {
    /// How many clients, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Size of each value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// What the clients do; `mix` is one put to three gets
    #[arg(long, value_enum, default_value_t = Work::Put)]
    work: Work,
    /// Send an Idempotency-Key with each write, as `KvClient` does
    #[arg(long)]
    idempotency: bool,
    /// Read level of gets: linearizable, local, bounded:MS
    #[arg(long, default_value = "linearizable", value_name = "LEVEL")]
    consistency: Consistency,
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    Put,
    Get,
    AddOneKey,
    Mix,
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
        let target = Target::find(context, &self.nodes)?;
        let clients = (0..self.clients)
            .map(|number| Client::new(&self, &target, number))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if matches!(self.work, Work::Get | Work::Mix) {
            let done: anyhow::Result<Vec<()>> = join_all(clients.iter().map(Client::fill))
                .await
                .into_iter()
                .collect();
            done?;
        }
        let start = Instant::now();
        let end = start + Duration::from_secs(self.seconds);
        let tally = RefCell::new(Tally::closed(start, end)?);
        tokio::join!(
            join_all(clients.iter().map(|client| client.run(end, &tally))),
            closed_loop::progress(context, self.seconds)
        );
        let (figures, errors) = tally.into_inner().end(start.elapsed());
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
            bail!("not one operation succeeded: {:?}", report.errors);
        }
        Ok(())
    }
}

struct Client {
    connection: Connection,
    work: Work,
    number: u32,
    keys: Vec<Uri>,
    reads: Vec<Uri>,
    txn: Uri,
    value: Bytes,
    idempotency: bool,
    run_id: u64,
}

impl Client {
    fn new(load: &Load, target: &Target, number: u32) -> anyhow::Result<Self> {
        let endpoint = &target.endpoints[number as usize % target.endpoints.len()];
        let url = |path: String| uri(&format!("{}{path}", service::http::base(endpoint)));
        let key = |n: u64| format!("/v1/kv/bench/{number}/{n}");
        let count = match load.work {
            Work::Put => KEYS_PER_CLIENT,
            Work::Get | Work::Mix => KEYS_PER_CLIENT / 50,
            Work::AddOneKey => 0,
        };
        Ok(Self {
            connection: Connection::new(&target.token, DEADLINE)?,
            work: load.work,
            number,
            keys: (0..count).map(|n| url(key(n))).collect::<anyhow::Result<_>>()?,
            reads: (0..count)
                .map(|n| url(format!("{}?consistency={}", key(n), load.consistency)))
                .collect::<anyhow::Result<_>>()?,
            txn: url("/v1/txn".to_owned())?,
            value: Bytes::from(vec![b'v'; load.value_bytes]),
            idempotency: load.idempotency,
            run_id: service::time::now_ms(),
        })
    }

    /// Makes the keys that are to be read.
    async fn fill(&self) -> anyhow::Result<()> {
        for key in &self.keys {
            let outcome = self
                .connection
                .send(Method::PUT, key.clone(), Some(self.value.clone()), None)
                .await;
            if outcome != Outcome::Done {
                bail!("cannot fill in the keys to read: {} on {key}", word(outcome));
            }
        }
        Ok(())
    }

    async fn run(&self, end: Instant, tally: &RefCell<Tally>) {
        let mut n = 0;
        loop {
            let begin = Instant::now();
            if begin >= end {
                return;
            }
            let outcome = self.once(n).await;
            n += 1;
            tally.borrow_mut().note(outcome, begin, Instant::now());
            if outcome != Outcome::Done {
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }

    async fn once(&self, n: u64) -> Outcome {
        let pick = |urls: &[Uri]| urls[usize::try_from(n).unwrap_or(0) % urls.len()].clone();
        let write = match self.work {
            Work::Put => true,
            Work::Get => false,
            Work::Mix => n.is_multiple_of(MIX_WRITE_EVERY),
            Work::AddOneKey => {
                let body = Bytes::from_static(br#"{"then":[{"add":{"key":"bench/counter","by":1}}]}"#);
                return self
                    .connection
                    .send(Method::POST, self.txn.clone(), Some(body), self.key(n))
                    .await;
            }
        };
        if write {
            self.connection
                .send(
                    Method::PUT,
                    pick(&self.keys),
                    Some(self.value.clone()),
                    self.key(n),
                )
                .await
        } else {
            self.connection
                .send(Method::GET, pick(&self.reads), None, None)
                .await
        }
    }

    fn key(&self, n: u64) -> Option<HeaderValue> {
        let key = || format!("bench-{}-{}-{n}", self.run_id, self.number);
        self.idempotency
            .then(|| HeaderValue::try_from(key()).expect("letters and digits make a header"))
    }
}
