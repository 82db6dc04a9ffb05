//! `menagerie demo failover`: the leader is killed while a probe writes; the gap is shown, all that was
//! acknowledged is read back through every node, and the killed one comes back and catches up.
//! Invariant: it succeeds only if nothing was lost, by the count of the probe.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use service::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use super::scene::Scene;
use crate::context::{Context, until_interrupted};
use crate::launcher::{Action, Harm, State};
use crate::probe::{Event, Gaps, Probe, Tally};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long the probe writes before and after the fault.
const CALM: Duration = Duration::from_secs(2);
/// The picture of the gap: what each sign stands for, and how much is shown before and after the kill.
const SIGN: Duration = Duration::from_millis(20);
const SIGNS_BEFORE: u32 = 10;
const SIGNS_AFTER: u32 = 50;
const ENDS_MAX: usize = 10_000;
const DRAIN: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Failover {
    /// Wait for Enter before each step
    #[arg(long)]
    step: bool,
}

#[derive(Serialize)]
struct Report {
    held: bool,
    killed: String,
    leader: String,
    gap_ms: f64,
    acknowledged: u64,
    lost: u64,
    unknown: u64,
    read_back_through: Vec<String>,
}

impl Failover {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let harm = Harm::default();
        let played = until_interrupted(context.output, Box::pin(self.carry_out(context, &harm))).await;
        harm.put_right(context).await;
        played
    }

    async fn carry_out(self, context: &Context, harm: &Harm) -> anyhow::Result<()> {
        let scene = Scene::open(context, self.step).await?;
        let played = play(context, &scene, harm).await;
        let output = scene.output();
        scene.close().await?;
        let report = played?;
        if output.json {
            output.document(&report)?;
        }
        if !report.held {
            bail!("{} acknowledged writes were lost", report.lost);
        }
        Ok(())
    }
}

async fn play(context: &Context, scene: &Scene<'_>, harm: &Harm) -> anyhow::Result<Report> {
    let secrets = context.secrets()?;
    let root = secrets
        .token("root")
        .context("secrets.toml has no token for root")?;
    let nodes: Vec<(String, String)> = context
        .config
        .nodes
        .iter()
        .map(|node| (node.name(), node.client.clone()))
        .collect();
    let tasks = Tasks::new();
    let probe = Probe::new("demo", &nodes, root.expose(), &tasks)?;
    let (stop, seen) = (CancellationToken::new(), RefCell::new(Seen::new()));
    let mut tally = Tally::default();
    let story = async {
        let told = tell(context, scene, &seen, harm).await;
        stop.cancel();
        told
    };
    let probing = probe.run(stop.cancelled(), &mut tally, |tally, event| {
        seen.borrow_mut().note(tally, &event);
    });
    let (told, ()) = tokio::join!(story, probing);
    tasks.stop();
    tasks.drain(DRAIN).await;
    told
}

async fn tell(
    context: &Context,
    scene: &Scene<'_>,
    seen: &RefCell<Seen>,
    harm: &Harm,
) -> anyhow::Result<Report> {
    let (leader, nodes) = calm(scene, seen).await?;
    scene
        .chapter(format_args!(
            "Now {leader} is killed with kill -9, in the middle of its work."
        ))
        .await?;
    let killed_at = Instant::now();
    seen.borrow_mut().gaps.forget();
    harm.cause(context, Action::Kill, &leader).await?;
    let successor = scene
        .wait_for("another leader", PATIENCE, async || {
            let now = scene.status().await?.leader;
            Ok(now.filter(|now| *now != leader))
        })
        .await?;
    scene
        .wait_for("writes to go on", PATIENCE, async || {
            Ok((seen.borrow().last_end() > Some(killed_at + CALM)).then_some(()))
        })
        .await?;
    let gap = seen.borrow().gaps.longest(Instant::now());
    scene.say(seen.borrow().picture(killed_at));
    scene.say(format_args!(
        "{successor} leads. The longest time in which nobody's write succeeded: {} ms.",
        gap.as_millis()
    ));

    scene
        .chapter("Was anything lost? Everything acknowledged is read back through each node that lives.")
        .await?;
    let survivors: Vec<&String> = nodes.iter().filter(|name| **name != leader).collect();
    for name in &survivors {
        read_back(scene, seen, name).await?;
    }

    scene
        .chapter(format_args!(
            "{leader} comes back and fetches what it has missed."
        ))
        .await?;
    let began = Instant::now();
    harm.heal(context).await?;
    scene
        .wait_for("the killed node to be ready", PATIENCE, async || {
            let status = scene.status().await?;
            let ready = |view: &crate::launcher::View| view.name == leader && view.state == State::Running;
            Ok(status.processes.iter().any(ready).then_some(()))
        })
        .await?;
    scene.say(format_args!(
        "It was ready after {} ms.",
        began.elapsed().as_millis()
    ));
    read_back(scene, seen, &leader).await?;
    conclude(scene, seen, leader, successor, gap)
}

/// Waits until all is well and the probe has written for a while; answers who leads, and all nodes.
async fn calm(scene: &Scene<'_>, seen: &RefCell<Seen>) -> anyhow::Result<(String, Vec<String>)> {
    let status = scene.status().await?;
    let nodes: Vec<String> = status
        .processes
        .iter()
        .filter(|view| view.kind == "node")
        .map(|view| view.name.clone())
        .collect();
    if nodes.len() < 3 {
        bail!(
            "{} cannot lose any and go on: this demo needs at least three nodes in cluster.toml",
            nodes.join(" and ")
        );
    }
    let mut lack = None;
    let settled = scene
        .wait_for("all nodes to run and one to lead", PATIENCE, async || {
            let status = scene.status().await?;
            lack = status.lack_of_store();
            Ok(status.leader.filter(|_| lack.is_none()))
        })
        .await;
    let leader = settled.with_context(|| lack.unwrap_or_else(|| "look at the nodes".to_owned()))?;
    scene
        .chapter(format_args!(
            "{} nodes run, and {leader} leads. A probe writes every 10 ms and reads back what it wrote.",
            nodes.len()
        ))
        .await?;
    let began = Instant::now();
    scene
        .wait_for("the probe to write", PATIENCE, async || {
            Ok((seen.borrow().last_end() > Some(began + CALM)).then_some(()))
        })
        .await?;
    scene.say(format_args!(
        "{} writes are acknowledged so far.",
        seen.borrow().tally.acknowledged
    ));
    Ok((leader, nodes))
}

/// Waits until the probe has compared everything through this node, beginning now.
async fn read_back(scene: &Scene<'_>, seen: &RefCell<Seen>, name: &str) -> anyhow::Result<()> {
    seen.borrow_mut().checked.remove(name);
    let lost = scene
        .wait_for("the writes to be read back", PATIENCE, async || {
            Ok(seen.borrow().checked.get(name).copied())
        })
        .await?;
    scene.say(match lost {
        0 => format!("  through {name}: everything is there"),
        lost => format!("  through {name}: {lost} MISSING"),
    });
    Ok(())
}

fn conclude(
    scene: &Scene<'_>,
    seen: &RefCell<Seen>,
    killed: String,
    leader: String,
    gap: Duration,
) -> anyhow::Result<Report> {
    let seen = seen.borrow();
    let Tally {
        acknowledged,
        lost,
        unknown,
        ..
    } = seen.tally;
    scene.say(format_args!(
        "\nacknowledged: {acknowledged}, lost: {lost}  (answers lost on the way and settled later: {unknown})"
    ));
    if acknowledged == 0 {
        bail!("the probe could not write at all");
    }
    Ok(Report {
        held: lost == 0,
        killed,
        leader,
        gap_ms: gap.as_secs_f64() * 1000.0,
        acknowledged,
        lost,
        unknown,
        read_back_through: seen.checked.keys().cloned().collect(),
    })
}

/// What the probe has told.
struct Seen {
    tally: Tally,
    gaps: Gaps,
    /// When writes succeeded.
    ends: Vec<Instant>,
    /// How many were missing when all was read back through this node.
    checked: BTreeMap<String, u64>,
}

impl Seen {
    fn new() -> Self {
        Self {
            tally: Tally::default(),
            gaps: Gaps::new(Instant::now()),
            ends: Vec::new(),
            checked: BTreeMap::new(),
        }
    }

    fn note(&mut self, tally: &Tally, event: &Event) {
        self.tally.clone_from(tally);
        match event {
            Event::Write(call) if call.succeeded => {
                self.gaps.success(call.ended);
                if self.ends.len() == ENDS_MAX {
                    self.ends.drain(..ENDS_MAX / 2);
                }
                self.ends.push(call.ended);
            }
            Event::Checked { through, lost } => {
                self.checked.insert(through.clone(), *lost);
            }
            _ => {}
        }
    }

    fn last_end(&self) -> Option<Instant> {
        self.ends.last().copied()
    }

    /// A row of signs, one for each 20 ms around the kill: full where a write succeeded.
    fn picture(&self, killed_at: Instant) -> String {
        let start = killed_at.checked_sub(SIGN * SIGNS_BEFORE).unwrap_or(killed_at);
        let signs = (0..SIGNS_BEFORE + SIGNS_AFTER).map(|index| {
            let (from, to) = (start + SIGN * index, start + SIGN * (index + 1));
            let any = self.ends.iter().any(|end| (from..to).contains(end));
            if any { '█' } else { '·' }
        });
        let row: String = signs.collect();
        let (before, after): (String, String) = (
            row.chars().take(SIGNS_BEFORE as usize).collect(),
            row.chars().skip(SIGNS_BEFORE as usize).collect(),
        );
        format!("  {before}|{after}\n            ^ killed; each sign is 20 ms, full where a write succeeded")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_the_gap_where_it_was() {
        let mut seen = Seen::new();
        let start = Instant::now() + Duration::from_secs(1);
        let killed_at = start + SIGN * SIGNS_BEFORE;
        let silent = 10..13;
        seen.ends = (0..60)
            .filter(|sign| !silent.contains(sign))
            .map(|sign| start + SIGN * sign + SIGN / 2)
            .collect();
        let picture = seen.picture(killed_at);
        let row = picture.lines().next().unwrap();
        assert_eq!(row, format!("  {}|···{}", "█".repeat(10), "█".repeat(47)));
    }
}
