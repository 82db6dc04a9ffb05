//! `menagerie bench redundancy`: what each kind of redundancy costs and what it saves, in clusters of its own.
//! Invariant: what is said to survive is counted: every acknowledged write is looked for in what is left after disks
//! were taken away under load. All rows come from one run on one machine, so only their ratios mean something.

mod chart;
mod loss;
mod scratch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use hdrhistogram::Histogram;
use kvstore_client::{Freshness, NearCache};
use serde::Serialize;
use serde_json::Value;
use service::config::MirrorMode;

use super::closed_loop::millis;
use super::middle::Middle;
use crate::context::Context;
use loss::Loss;
use scratch::Scratch;

#[derive(Args)]
pub(crate) struct Redundancy {
    /// How many clients write and read at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How long each measurement takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often each measurement is taken
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Also draw a chart into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Voters, learners, and a mirror beside them.
struct Setup {
    name: &'static str,
    voters: u64,
    learners: u64,
    mirror: Option<MirrorMode>,
}

const SETUPS: [Setup; 5] = [
    Setup {
        name: "one node",
        voters: 1,
        learners: 0,
        mirror: None,
    },
    Setup {
        name: "primary + replica",
        voters: 1,
        learners: 1,
        mirror: None,
    },
    Setup {
        name: "three voters",
        voters: 3,
        learners: 0,
        mirror: None,
    },
    Setup {
        name: "three + asynchronous mirror",
        voters: 3,
        learners: 0,
        mirror: Some(MirrorMode::Async),
    },
    Setup {
        name: "three + synchronous mirror",
        voters: 3,
        learners: 0,
        mirror: Some(MirrorMode::Sync),
    },
];

/// Each figure is the median of its rounds.
#[derive(Serialize)]
struct Row {
    setup: &'static str,
    writes_per_s: f64,
    writes_per_s_min: f64,
    writes_per_s_max: f64,
    write_p50_ms: f64,
    write_p99_ms: f64,
    read_p50_ms: f64,
    read_p99_ms: f64,
    #[serde(flatten)]
    loss: Loss,
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

#[derive(Serialize)]
struct Near {
    without: Quantiles,
    with: Quantiles,
}

#[derive(Serialize)]
struct Report {
    clients: u32,
    seconds: u64,
    rounds: u32,
    rows: Vec<Row>,
    /// Linearizable reads of one client, with and without a near cache, on three voters.
    near_cache: Option<Near>,
}

impl Redundancy {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut report = Report {
            clients: self.clients,
            seconds: self.seconds,
            rounds: self.rounds,
            rows: Vec::new(),
            near_cache: None,
        };
        let bar = context.output.progress(SETUPS.len() as u64, "measuring");
        for (done, setup) in (0..).zip(&SETUPS) {
            bar.set_position(done);
            let scratch = Scratch::start(&context.data, setup).await;
            let scratch = scratch.with_context(|| format!("start {}", setup.name))?;
            let measured = self.measure(&scratch, setup, &mut report).await;
            scratch.end().await?;
            measured.with_context(|| format!("measure {}", setup.name))?;
        }
        bar.finish_and_clear();
        if let Some(file) = &self.svg {
            std::fs::write(file, chart::draw(&report))
                .with_context(|| format!("write {}", file.display()))?;
        }
        show(context, &report)
    }

    async fn measure(&self, scratch: &Scratch, setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
        let writes = self.load(scratch, "put").await?;
        let reads = self.load(scratch, "get").await?;
        let writes_per_s = middle(&writes, "operations_per_s")?;
        let figure = |of: &[Value], name: &str| middle(of, name).map(|middle| middle.median);
        if setup.voters == 3 && setup.mirror.is_none() {
            report.near_cache = Some(near(scratch, Duration::from_secs(self.seconds)).await?);
        }
        report.rows.push(Row {
            setup: setup.name,
            writes_per_s: writes_per_s.median,
            writes_per_s_min: writes_per_s.min,
            writes_per_s_max: writes_per_s.max,
            write_p50_ms: figure(&writes, "p50_ms")?,
            write_p99_ms: figure(&writes, "p99_ms")?,
            read_p50_ms: figure(&reads, "p50_ms")?,
            read_p99_ms: figure(&reads, "p99_ms")?,
            loss: loss::cause(scratch, setup).await?,
        });
        Ok(())
    }

    /// What a generator says in each round.
    async fn load(&self, scratch: &Scratch, work: &str) -> anyhow::Result<Vec<Value>> {
        let (clients, seconds) = (self.clients.to_string(), self.seconds.to_string());
        let arguments = [
            "bench",
            "kv",
            "--work",
            work,
            "--clients",
            &clients,
            "--seconds",
            &seconds,
        ];
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            rounds.push(scratch.run(&arguments).await?);
        }
        Ok(rounds)
    }
}

fn middle(rounds: &[Value], name: &str) -> anyhow::Result<Middle> {
    let values = rounds
        .iter()
        .map(|round| round[name].as_f64().unwrap_or(f64::NAN));
    Middle::of(values).context("there is a round")
}

/// One client that reads the same hundred keys.
async fn near(scratch: &Scratch, duration: Duration) -> anyhow::Result<Near> {
    const KEYS: u32 = 100;
    let client = scratch.client()?;
    let key = |n: u32| format!("near/{}", n % KEYS);
    for n in 0..KEYS {
        client.put(&key(n), "x").await?;
    }
    let cache = NearCache::open(&client, ["near/"]).await?;
    let mut found = Vec::new();
    for cached in [false, true] {
        let mut latency_us = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        let end = Instant::now() + duration;
        let mut n = 0;
        while Instant::now() < end {
            let began = Instant::now();
            if cached {
                cache.get(&key(n), Freshness::Linearizable).await?;
            } else {
                client.get(&key(n)).await?;
            }
            latency_us.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
            n += 1;
        }
        let ms = |quantile| millis(Duration::from_micros(latency_us.value_at_quantile(quantile)));
        found.push(Quantiles {
            p50: ms(0.5),
            p99: ms(0.99),
        });
    }
    Ok(Near {
        without: found[0],
        with: found[1],
    })
}

fn show(context: &Context, report: &Report) -> anyhow::Result<()> {
    if context.output.json {
        return Ok(context.output.document(report)?);
    }
    let rows = report.rows.iter().map(|row| {
        [
            row.setup.to_owned(),
            format!(
                "{:.0} ({:.0}–{:.0})",
                row.writes_per_s, row.writes_per_s_min, row.writes_per_s_max
            ),
            format!("{:.2} ms", row.write_p50_ms),
            format!("{:.2} ms", row.write_p99_ms),
            format!("{:.2} ms", row.read_p50_ms),
            format!("{:.2} ms", row.read_p99_ms),
            row.loss.of_one_disk(),
            row.loss.goes_on(),
            row.loss.of_all_nodes(),
        ]
    });
    context.output.table(
        [
            "SETUP",
            "WRITES/S",
            "P50",
            "P99",
            "READ P50",
            "P99",
            "LOST WITH THE LEADER'S DISK",
            "WRITES GO ON",
            "LOST WITH ALL NODES",
        ],
        rows,
    )?;
    if let Some(near) = &report.near_cache {
        context.output.line(format_args!(
            "one client, linearizable reads: {:.2} ms (p99 {:.2}) from a node, {:.2} ms (p99 {:.2}) with a near cache",
            near.without.p50, near.without.p99, near.with.p50, near.with.p99
        ))?;
    }
    Ok(())
}
