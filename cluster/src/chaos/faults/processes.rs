//! What happens to processes: killed, paused, starved, restarted in turn, taken out of the cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kvstore_client::wire::cluster::NewMember;
use rustix::process::Signal;

use super::links;
use crate::arena::{SERVERS, wait_for};
use crate::chaos::ground::Ground;
use crate::chaos::lives;
use crate::chaos::random::Random;
use crate::signals;

const STEP_DEADLINE: Duration = Duration::from_secs(40);

fn names(ground: &Ground, servers: &[usize]) -> String {
    let names = servers.iter().map(|server| ground.store.servers[*server].name());
    names.collect::<Vec<_>>().join(", ")
}

/// At any phase of a heartbeat, and for a time in which little or much goes on without them. Whoever is left without a
/// majority is asked.
pub(super) async fn kill(
    ground: &mut Ground,
    victims: &[usize],
    alone: Option<usize>,
    random: &mut Random,
) -> anyhow::Result<String> {
    const HEARTBEAT_US: u64 = 50_000;
    tokio::time::sleep(Duration::from_micros(random.below(HEARTBEAT_US))).await;
    let down = Duration::from_millis(50 + random.below(1500));
    // It is waited for, so that it has happened.
    ground.kill(victims).await?;
    let killed = Instant::now();
    let told = if let Some(alone) = alone {
        links::alone(ground, &[alone], down).await
    } else {
        tokio::time::sleep(down).await;
        Ok(())
    };
    let down = killed.elapsed();
    for victim in victims {
        ground.server(*victim).start()?;
    }
    told?;
    Ok(format!(
        "kill -9 of {}, down for {} ms",
        names(ground, victims),
        down.as_millis()
    ))
}

pub(super) async fn pause(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    let server = ground.server(victim);
    server.signal(Signal::STOP)?;
    let pid = server.pid().context("a paused process has a number")?;
    let stopped = wait_for("a process to stop", STEP_DEADLINE, async || {
        signals::stands_still(pid).then_some(())
    })
    .await;
    tokio::time::sleep(time).await;
    ground.server(victim).signal(Signal::CONT)?;
    stopped?;
    Ok(format!(
        "{} paused for {} ms",
        names(ground, &[victim]),
        time.as_millis()
    ))
}

/// It gets a twentieth of a processor's time: enough to be taken for alive, and too little to keep up.
pub(super) async fn starve(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    const RUNS: Duration = Duration::from_millis(5);
    const RESTS: Duration = Duration::from_millis(95);
    /// In percent; on a busy machine it runs on for a moment before the signal arrives.
    const SHARE_MAX: u128 = 25;
    let server = ground.server(victim);
    let pid = server.pid().context("a process that runs has a number")?;
    let (begin, before) = (Instant::now(), processor_time(pid)?);
    let mut signalled = Ok(());
    while signalled.is_ok() && begin.elapsed() < time {
        signalled = server.signal(Signal::STOP);
        tokio::time::sleep(RESTS).await;
        server.signal(Signal::CONT)?;
        tokio::time::sleep(RUNS).await;
    }
    signalled?;
    let (lasted, ran) = (begin.elapsed(), processor_time(pid)?.saturating_sub(before));
    let share = 100 * ran.as_millis() / lasted.as_millis();
    ensure!(
        share <= SHARE_MAX,
        "{} was to be starved, and had {share} % of a processor",
        names(ground, &[victim])
    );
    Ok(format!(
        "{} had {share} % of a processor for {} ms",
        names(ground, &[victim]),
        lasted.as_millis()
    ))
}

/// What a process has had of the processors, in its own code and in the kernel.
fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    const TICK_MS: u64 = 10;
    /// Behind the name, which may hold anything.
    const USER_AND_KERNEL: std::ops::Range<usize> = 11..13;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("look at a process")?;
    let (_, fields) = stat.rsplit_once(')').context("look at a process")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let times = fields.get(USER_AND_KERNEL).context("look at a process")?;
    let ticks: u64 = times.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(TICK_MS * ticks))
}

pub(super) async fn restart_all(ground: &mut Ground) -> anyhow::Result<String> {
    for victim in 0..SERVERS {
        lives::stop(ground.server(victim)).await?;
        ground.server(victim).start()?;
        ground.store.ready().await?;
    }
    Ok("all restarted, one after the other".to_owned())
}

/// Takes a member out while it runs, and lets it in again, first without a vote.
pub(super) async fn leave_and_come_back(ground: &mut Ground, victim: usize) -> anyhow::Result<String> {
    let node = &ground.store.config.nodes[victim];
    let member = NewMember {
        id: node.id,
        peer_address: node.peer.clone(),
        client_address: node.client.clone(),
    };
    // A node that is taken out may never hear of it, so those that stay are asked.
    let client = ground.without(victim)?;
    let place = async || {
        let members = client.cluster().await.ok()?.members;
        Some(
            members
                .into_iter()
                .find(|member| member.id == node.id)
                .map(|member| member.voter),
        )
    };
    wait_for("a member to leave", STEP_DEADLINE, async || {
        // Whether it was done shows in the members, whatever the answer was.
        let _ = client.member_remove(member.id).await;
        place().await?.is_none().then_some(())
    })
    .await?;
    wait_for("a member to come back", STEP_DEADLINE, async || {
        let _ = match place().await? {
            None => client.member_add(&member).await,
            Some(false) => client.member_promote(member.id).await,
            Some(true) => return Some(()),
        };
        None
    })
    .await?;
    Ok(format!(
        "n{} taken out of the cluster and let in again",
        member.id
    ))
}
