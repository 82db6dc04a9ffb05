//! A node ends, with or without the power of its disk, right before or right behind a step towards that disk: a sync, a
//! rename, a link, a removal. Each of them is there because something must not be told before it, or not before the next.
//! Invariant: where it ended, and that its power went, is told by what ended it.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::arena::wait_for;
use crate::chaos::ground::Ground;
use crate::chaos::lives;
use crate::chaos::random::Random;
use crate::chaos::shim::{End, Order};

/// What is written where, so that steps that are rare get their turn too.
const PLACES: [&str; 8] = [
    "/raft/db/",
    "/raft/TAIL",
    "/raft/",
    "/sm/",
    "/sm/CURRENT",
    "/snapshots",
    ".sst",
    "MANIFEST",
];
const STEPS: u64 = 6;
/// Opening two databases alone takes some thirty.
const STEPS_OF_A_START: u64 = 50;
/// Some places are seldom written to; then any step will do.
const PATIENCE: Duration = Duration::from_secs(4);
const DEADLINE: Duration = Duration::from_secs(30);
/// Long enough that it needs a snapshot when it comes back, so that steps of that have their turn.
const DOWN: Duration = Duration::from_millis(1500);

pub(super) async fn end_at(
    ground: &mut Ground,
    victim: usize,
    power_of: Option<u64>,
    random: &mut Random,
) -> anyhow::Result<String> {
    // Half of them while it starts and catches up.
    let starts = random.below(2) == 1;
    let steps = if starts { STEPS_OF_A_START } else { STEPS };
    let end = End {
        only: random.choose::<&str>(&PLACES),
        step: i64::try_from(1 + random.below(steps))?,
        behind: random.below(2) == 1,
        power_of,
    };
    if starts {
        ground.kill(&[victim]).await?;
        tokio::time::sleep(DOWN).await;
    }
    lives::ensure_lives(ground.server(victim))?;
    if power_of.is_some() {
        ground.excuse(&[victim])?;
    }
    let counts = |ground: &Ground| -> anyhow::Result<(u64, u64)> {
        let shim = &ground.shims[victim];
        Ok((shim.effects(Order::EndAtStep)?, shim.effects(Order::EndPowerOf)?))
    };
    let (ends, losses) = counts(ground)?;
    ground.shims[victim].end_at(end)?;
    if starts {
        ground.server(victim).start()?;
    }
    wait_for_step(ground, victim, end).await?;
    let strayed = ground.server(victim).has_ended() && counts(ground)?.0 == ends;
    let words = strayed.then(|| ground.server(victim).last_words());
    ground.end(&[victim]).await?;
    let (ended, lost) = counts(ground)?;
    if lost > losses {
        ground.disks[victim].boot().await?;
    }
    ground.server(victim).start()?;
    if let Some(words) = words {
        bail!(
            "VIOLATION: n{} ended by itself before it came to its step: {words}",
            victim + 1
        );
    }
    ensure!(
        ended == ends + 1,
        "n{} came to no step at which it was to end",
        victim + 1
    );
    ensure!(
        lost - losses == u64::from(power_of.is_some()),
        "the power of n{} was to go with it, and did not",
        victim + 1
    );
    let place = place(&ground.shims[victim].ended_at()?);
    let side = if end.behind { "behind" } else { "before" };
    let how = power_of.map_or("was killed", |_disk| "lost its power");
    Ok(format!("n{} {how} {side} {place}", victim + 1))
}

/// Until it has ended there, or at any other step, where it seldom comes to that one; whether it did is not told.
async fn wait_for_step(ground: &mut Ground, victim: usize, end: End<'_>) -> anyhow::Result<()> {
    if wait_for_end(ground, victim, PATIENCE).await.is_err() {
        let any = End {
            only: "",
            step: 1,
            ..end
        };
        ground.shims[victim].end_at(any)?;
        let _ = wait_for_end(ground, victim, DEADLINE).await;
    }
    ground.shims[victim].spare()
}

async fn wait_for_end(ground: &mut Ground, victim: usize, deadline: Duration) -> anyhow::Result<()> {
    let server = ground.server(victim);
    let ended = wait_for("a node to end at a step", deadline, async || {
        server.has_ended().then_some(())
    });
    ended.await.context("end at a step towards the disk")
}

/// The step and the end of its path: which node it was is told already.
fn place(ended_at: &str) -> String {
    const SHOWN: usize = 3;
    let (step, path) = ended_at.split_once(' ').unwrap_or((ended_at, ""));
    let parts: Vec<&str> = path.split('/').collect();
    format!(
        "{step} of {}",
        parts[parts.len().saturating_sub(SHOWN)..].join("/")
    )
}
