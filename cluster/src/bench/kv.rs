//! `menagerie bench kv`: a closed loop of clients, each with one request under way on a connection of its own.
//! Invariant: only whole successful answers count as operations; everything else is an error, told by kind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use kvstore_client::wire::level::Consistency;
use reqwest::header::HeaderValue;
use reqwest::{Method, Url};
use serde::Serialize;

use super::Target;
use super::connection::{Connection, Outcome};
use crate::context::Context;
use crate::kv::reach::Reach;
use crate::probe::Gaps;

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
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    Put,
    Get,
    AddOneKey,
    Mix,
}

/// What all clients together have seen. They run on one thread.
struct Tally {
    latency_us: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    gaps: Gaps,
}

#[derive(Serialize)]
struct Report {
    work: Work,
    clients: u32,
    seconds: f64,
    operations: u64,
    operations_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    /// The longest time without any success.
    stall_ms: f64,
    errors: BTreeMap<String, u64>,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let target = Target::find(context, &self.reach)?;
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
        let tally = RefCell::new(Tally {
            latency_us: Histogram::new_with_bounds(1, 60_000_000, 3).context("make a histogram")?,
            errors: BTreeMap::new(),
            gaps: Gaps::new(start),
        });
        let progress = context.output.progress(self.seconds, "measuring");
        let ticks = async {
            for second in 0..self.seconds {
                progress.set_position(second);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            progress.finish_and_clear();
        };
        tokio::join!(
            join_all(clients.iter().map(|client| client.run(end, &tally))),
            ticks
        );
        let report = self.report(start.elapsed(), tally.into_inner());
        if context.output.json {
            context.output.document(&report)?;
        } else {
            show(context, &report)?;
        }
        if report.operations == 0 {
            bail!("not one operation succeeded: {:?}", report.errors);
        }
        Ok(())
    }

    fn report(&self, elapsed: Duration, tally: Tally) -> Report {
        let operations = tally.latency_us.len();
        let ms = |quantile: f64| {
            millis(Duration::from_micros(
                tally.latency_us.value_at_quantile(quantile),
            ))
        };
        Report {
            work: self.work,
            clients: self.clients,
            seconds: elapsed.as_secs_f64(),
            operations,
            operations_per_s: per_second(operations, elapsed),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: ms(1.0),
            stall_ms: millis(tally.gaps.longest(Instant::now())),
            errors: tally.errors,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn show(context: &Context, report: &Report) -> std::io::Result<()> {
    let cell = |ms: f64| format!("{ms:.2} ms");
    context.output.table(
        [
            "WORK", "CLIENTS", "OPS/S", "P50", "P99", "P99.9", "MAX", "STALL", "ERRORS",
        ],
        [[
            report
                .work
                .to_possible_value()
                .map_or_else(String::new, |work| work.get_name().to_owned()),
            report.clients.to_string(),
            format!("{:.0}", report.operations_per_s),
            cell(report.p50_ms),
            cell(report.p99_ms),
            cell(report.p999_ms),
            cell(report.max_ms),
            cell(report.stall_ms),
            report.errors.values().sum::<u64>().to_string(),
        ]],
    )?;
    for (kind, count) in &report.errors {
        context.output.line(format_args!("{count} × {kind}"))?;
    }
    Ok(())
}

struct Client {
    connection: Connection,
    work: Work,
    number: u32,
    keys: Vec<Url>,
    reads: Vec<Url>,
    txn: Url,
    value: Bytes,
    idempotency: bool,
    run_id: u64,
}

impl Client {
    fn new(load: &Load, target: &Target, number: u32) -> anyhow::Result<Self> {
        let endpoint = &target.endpoints[number as usize % target.endpoints.len()];
        let url = |path: String| Url::parse(&format!("http://{endpoint}{path}")).context("make a URL");
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
            let now = Instant::now();
            if outcome == Outcome::Done {
                let latency_us = u64::try_from((now - begin).as_micros()).unwrap_or(u64::MAX);
                let mut tally = tally.borrow_mut();
                tally.latency_us.saturating_record(latency_us);
                tally.gaps.success(now);
            } else {
                *tally.borrow_mut().errors.entry(word(outcome)).or_default() += 1;
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }

    async fn once(&self, n: u64) -> Outcome {
        let pick = |urls: &[Url]| urls[usize::try_from(n).unwrap_or(0) % urls.len()].clone();
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

fn word(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Refused(status) => format!("status {status}"),
        Outcome::Broken => "no answer".to_owned(),
    }
}
