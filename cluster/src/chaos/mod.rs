//! `menagerie chaos`: three nodes, on disks and in a network of their own where that can be had, clients at work, and
//! everything broken that can be broken, in an order that follows from a seed; in the end, whether what the clients saw could be true.
//! Invariant: a run passes only if each fault it began was seen to happen and no check found anything, such as a
//! client that is not served again after one, or a lease that outlives it; and only if all happened that must.
//! `linear`, `order`, `sent`, `added`, `shown`, `watchers`, `auditor`, `alike`, `replayed` and `exposed` judge, `faults` breaks,
//! `ground` is what is broken, and `stage` who works on it; `book` is what clients were told.

mod added;
mod alike;
mod auditor;
mod book;
mod buyers;
mod checkouts;
mod clients;
mod coverage;
mod curl;
mod disk;
mod exposed;
mod faults;
mod floor;
mod ground;
mod leases;
mod linear;
mod lives;
mod looks;
mod money;
mod order;
mod past;
mod pins;
mod plain;
mod power;
mod random;
mod replayed;
mod scans;
mod sent;
mod served;
mod shim;
mod shown;
mod stage;
mod timeline;
mod verify;
mod walks;
mod watchers;
mod wires;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;
use kvstore_client::KvClient;
use serde::Serialize;
use service::tasks::Tasks;

use crate::cli::finite;
use crate::context::{Context, block_on, until_interrupted};
use book::Book;
use coverage::{Asked, Demand, Untried};
use faults::{ALL, Kind};
use ground::Ground;
use random::Random;
use stage::Stage;

/// How long all is well between two faults at least, so that each has something to break.
const CALM: Duration = Duration::from_millis(600);
/// Time for each fault once, on a machine that does nothing else.
const MINUTES: f64 = 3.0;
const DRAIN: Duration = Duration::from_secs(30);
/// Faults have deadlines for each of their steps; together these are less.
const FAULT_MAX: Duration = Duration::from_mins(4);
const SETTING_MAX: Duration = Duration::from_mins(3);

#[derive(Args)]
pub(crate) struct Chaos {
    /// What the order and the details of the faults follow from [default: a new one, which is told]
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults are caused, at least; fractions will do
    #[arg(long, default_value_t = MINUTES, value_parser = finite)]
    minutes: f64,
    /// Only these faults, and each of them, such as kill-leader,ring: one that cannot be caused here fails the run
    #[arg(long, value_delimiter = ',', value_name = "FAULTS")]
    only: Vec<String>,
    /// Break only what somebody who is not root can: links are proxies, and disks are left alone, also where --only
    /// names their faults
    #[arg(long)]
    no_root: bool,
    /// Where verdict.json and timeline.html go
    #[arg(long, default_value = "chaos-report", value_name = "DIR")]
    out: PathBuf,
}

/// A fault, from its begin to the moment at which all was well again, in milliseconds from the begin of the run.
#[derive(Clone, Debug, Serialize)]
struct Event {
    fault: Kind,
    what: String,
    began_ms: u64,
    ended_ms: u64,
    well_ms: u64,
}

#[derive(Debug, Serialize)]
struct Verdict {
    /// Whether it passed, and what it has not tried.
    summary: String,
    passed: bool,
    seed: u64,
    minutes: f64,
    replay: String,
    violations: Vec<String>,
    /// Faults that were to be caused, and could not be.
    not_caused: Vec<String>,
    /// What this machine does not let us cause.
    left_out: Vec<String>,
    #[serde(flatten)]
    untried: Untried,
    /// How often each fault happened.
    faults: std::collections::BTreeMap<String, u64>,
    operations: std::collections::BTreeMap<&'static str, u64>,
    histories: usize,
    events: Vec<Event>,
}

impl Chaos {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        block_on(until_interrupted(
            context.output,
            Box::pin(self.carry_out(context)),
        ))
    }

    async fn carry_out(self, context: &Context) -> anyhow::Result<()> {
        let seed = self.seed.unwrap_or_else(|| service::time::now_ms() % 1_000_000);
        let asked = self.asked()?;
        timeline::forget(&self.out)?;
        let replay = format!(
            "menagerie chaos --seed {seed} --minutes {}{}{}",
            self.minutes,
            self.only(),
            if self.no_root { " --no-root" } else { "" }
        );
        context
            .output
            .note(format_args!("seed {seed}; again with: {replay}"));
        let (workers, witnesses) = (Tasks::new(), Tasks::new());
        let mut ground = Ground::open(&context.data, &witnesses, !self.no_root).await?;
        for left_out in &ground.left_out {
            context.output.note(format_args!("left out: {left_out}"));
        }
        let kinds = asked.kinds.iter().copied();
        let kinds: Vec<Kind> = kinds.filter(|kind| kind.is_possible(&ground)).collect();
        ensure!(
            !kinds.is_empty(),
            "none of these faults can be caused here: {}",
            ground.left_out.join("; ")
        );
        let stage = tokio::time::timeout(SETTING_MAX, Stage::set(&ground, &workers, &witnesses, seed));
        let mut stage = stage.await.context("wait for the clients to begin")??;
        let mut run = Run {
            asked,
            kinds,
            random: Random::from(seed),
            events: Vec::new(),
            not_caused: Vec::new(),
        };
        let time = Duration::from_secs_f64((self.minutes * 60.0).clamp(0.0, 86_400.0));
        let progress = context.output.progress(time.as_secs(), "breaking");
        run.break_everything(&mut ground, &stage.book, time, &progress)
            .await?;
        progress.finish_and_clear();
        context.output.note("the faults are over; everything is judged");
        workers.stop();
        if !workers.drain(DRAIN).await {
            stage
                .book
                .violation(format!("clients were not answered within {} s", DRAIN.as_secs()));
        }
        verify::verify(&ground, &stage).await;
        let nodes = ground.store.servers.iter_mut();
        lives::judge(nodes.chain(&mut stage.checkouts.servers), &stage.book).await;
        witnesses.stop();
        witnesses.drain(DRAIN).await;
        verify::at_rest(&mut ground, &mut stage).await;
        let verdict = run.verdict(&ground, &stage, seed, self.minutes, replay);
        timeline::write(&self.out, &verdict, &stage.book)?;
        self.tell(context, &verdict)
    }

    fn only(&self) -> String {
        if self.only.is_empty() {
            String::new()
        } else {
            format!(" --only {}", self.only.join(","))
        }
    }

    fn asked(&self) -> anyhow::Result<Asked> {
        if let Some(unknown) = self
            .only
            .iter()
            .find(|word| ALL.iter().all(|kind| kind.word() != **word))
        {
            let words: Vec<String> = ALL.iter().map(|kind| kind.word()).collect();
            bail!(crate::output::Usage(format!(
                "there is no fault {unknown}; there are {}",
                words.join(", ")
            )));
        }
        let is_wanted = |kind: &Kind| self.only.is_empty() || self.only.contains(&kind.word());
        let may_do_all = !self.no_root && rustix::process::geteuid().is_root();
        let demand = match (self.only.is_empty(), may_do_all && self.minutes >= MINUTES) {
            (false, _) => Demand::Named {
                without_root: self.no_root,
            },
            (true, true) => Demand::Everything,
            (true, false) => Demand::Anything,
        };
        Ok(Asked {
            kinds: ALL.into_iter().filter(is_wanted).collect(),
            demand,
        })
    }

    fn tell(&self, context: &Context, verdict: &Verdict) -> anyhow::Result<()> {
        if context.output.json {
            context.output.document(verdict)?;
        } else {
            context.output.line(format_args!("{}\n", verdict.summary))?;
            context.output.table(
                ["AT", "FAULT", "WHAT HAPPENED", "WELL AFTER"],
                verdict.events.iter().map(|event| {
                    [
                        format!("{:.1} s", Duration::from_millis(event.began_ms).as_secs_f64()),
                        event.fault.word(),
                        event.what.clone(),
                        format!("{} ms", event.well_ms.saturating_sub(event.ended_ms)),
                    ]
                }),
            )?;
            let operations: u64 = verdict.operations.values().sum();
            context.output.line(format_args!(
                "\n{} faults, {operations} operations, {} keys with a history\nagain with: {}\ntimeline: {}",
                verdict.events.len(),
                verdict.histories,
                verdict.replay,
                self.out.join("timeline.html").display()
            ))?;
        }
        if !verdict.passed {
            let lines = std::iter::once(&verdict.summary).chain(&verdict.violations);
            let lines: Vec<&str> = lines.chain(&verdict.not_caused).map(String::as_str).collect();
            bail!(lines.join("\n"));
        }
        context
            .output
            .note("nothing was found: all histories are linearizable, and nothing was lost");
        Ok(())
    }
}

/// Nothing is broken meanwhile, so everybody must be served, and leases must run out that nobody has renewed since the
/// fault began.
async fn calm(client: &KvClient, book: &Book, (after, since): (&str, u64)) {
    let given_up = book.given_up_by(since);
    tokio::join!(
        tokio::time::sleep(CALM),
        served::everybody(book, after),
        leases::run_out(client, book, &given_up, (after, leases::GONE)),
    );
}

struct Run {
    asked: Asked,
    /// Those of them that are possible here.
    kinds: Vec<Kind>,
    random: Random,
    events: Vec<Event>,
    not_caused: Vec<String>,
}

impl Run {
    /// Every kind once, in an order that follows from the seed, then again, until the time is over and each that must has
    /// had its turn.
    async fn break_everything(
        &mut self,
        ground: &mut Ground,
        book: &Book,
        time: Duration,
        progress: &ProgressBar,
    ) -> anyhow::Result<()> {
        let mut left = self.kinds.clone();
        let mut untried = left.len();
        calm(&ground.client, book, ("the begin", 0)).await;
        // What it took until everybody was at work is no time in which anything is broken.
        let begin = book.elapsed();
        let lasted = || book.elapsed().saturating_sub(begin);
        while self.asked.goes_on(lasted(), time, untried) {
            if left.is_empty() {
                left.clone_from(&self.kinds);
            }
            untried = untried.saturating_sub(1);
            let chosen = usize::try_from(self.random.below(left.len() as u64))?;
            let kind = left.swap_remove(chosen);
            // Each fault has numbers of its own, so that how one went does not change the next.
            let mut random = Random::from(self.random.next());
            let since = book.now();
            if !self.fault(kind, ground, book, &mut random).await {
                break;
            }
            progress.set_position(lasted().as_secs());
            let after = format!("the fault {}", kind.word());
            calm(&ground.client, book, (&after, since)).await;
        }
        Ok(())
    }

    /// Whether the system came back, as it must whatever was done to it.
    async fn fault(&mut self, kind: Kind, ground: &mut Ground, book: &Book, random: &mut Random) -> bool {
        let now = || u64::try_from(book.elapsed().as_millis()).unwrap_or(u64::MAX);
        let leader = match ground.store.ready().await {
            Ok(leader) => leader,
            Err(error) => {
                book.violation(format!(
                    "before {} not all nodes are ready: {error:#}",
                    kind.word()
                ));
                return false;
            }
        };
        let began_ms = now();
        let happened = tokio::time::timeout(FAULT_MAX, kind.happen(ground, leader, random)).await;
        let happened = happened.unwrap_or_else(|_late| {
            Err(anyhow::anyhow!(
                "VIOLATION: {} was not over after {} s",
                kind.word(),
                FAULT_MAX.as_secs()
            ))
        });
        let ended_ms = now();
        let ready = ground.store.ready().await;
        let came_back = ready.is_ok();
        if let Err(error) = ready {
            book.violation(format!("after {} it does not come back: {error:#}", kind.word()));
        }
        match happened {
            Ok(what) => self.events.push(Event {
                fault: kind,
                what,
                began_ms,
                ended_ms,
                well_ms: now(),
            }),
            Err(error) if format!("{error}").starts_with("VIOLATION") => book.violation(format!("{error:#}")),
            Err(error) => self
                .not_caused
                .push(format!("{} could not be caused: {error:#}", kind.word())),
        }
        came_back
    }

    fn verdict(self, ground: &Ground, stage: &Stage, seed: u64, minutes: f64, replay: String) -> Verdict {
        let pages = stage.book.pages();
        let mut faults = std::collections::BTreeMap::new();
        for event in &self.events {
            *faults.entry(event.fault.word()).or_default() += 1;
        }
        let violations = pages.violations.clone();
        let happened: Vec<Kind> = self.events.iter().map(|event| event.fault).collect();
        let untried = Untried::of(&self.asked, &self.kinds, &happened);
        let passed = violations.is_empty()
            && self.not_caused.is_empty()
            && !happened.is_empty()
            && untried.may_pass(self.asked.demand, &ground.left_out);
        Verdict {
            summary: untried.summary(passed, &ground.left_out),
            passed,
            seed,
            minutes,
            replay,
            violations,
            not_caused: self.not_caused,
            left_out: ground.left_out.clone(),
            untried,
            faults,
            operations: pages.counts.clone(),
            histories: pages.histories.len(),
            events: self.events,
        }
    }
}
