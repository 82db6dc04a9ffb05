//! What happens to links: cut both ways or one way, slow, lossy.
//! Invariant: that a link was cut is seen by trying to connect through it, and all links carry again at the end.

use std::time::Duration;

use anyhow::{bail, ensure};

use crate::arena::{Network, SERVERS, wait_for};
use crate::chaos::ground::Ground;
use kvstore_client::wire::level::Consistency;
use kvstore_client::{KvClient, ReadOptions};

const PEER_PORT: u16 = 7101;
/// A leader that hears nobody falls silent within its lease; what was confirmed before may still be answered.
const SILENT_AFTER: Duration = Duration::from_millis(700);
const TRY: Duration = Duration::from_millis(500);
const EFFECT_DEADLINE: Duration = Duration::from_secs(20);

fn others(server: usize) -> impl Iterator<Item = usize> {
    (0..SERVERS).filter(move |other| *other != server)
}

/// Or its being cut would show nothing.
fn ensure_carries(network: &Network, from: usize, to: usize) -> anyhow::Result<()> {
    ensure!(
        network.reaches(from, to, PEER_PORT),
        "a link was to be cut, and carried nothing before"
    );
    Ok(())
}

fn ensure_cut(network: &Network, from: usize, to: usize) -> anyhow::Result<()> {
    ensure!(
        !network.reaches(from, to, PEER_PORT),
        "a link was cut, and still carries"
    );
    Ok(())
}

pub(super) async fn cut_off(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    let network = ground.network()?;
    others(victim).try_for_each(|other| ensure_carries(network, other, victim))?;
    network.cut(victim)?;
    let cut = others(victim).try_for_each(|other| ensure_cut(network, other, victim));
    tokio::time::sleep(time).await;
    network.heal()?;
    cut?;
    Ok(format!("n{} cut off for {} ms", victim + 1, time.as_millis()))
}

/// It still hears clients, and must tell them nothing that only a majority can know.
pub(super) async fn without_peers(
    ground: &mut Ground,
    victim: usize,
    time: Duration,
) -> anyhow::Result<String> {
    let client = ground.only(victim)?.with_deadline(TRY);
    let network = ground.network()?;
    others(victim).try_for_each(|other| ensure_carries(network, other, victim))?;
    let cut = others(victim).try_for_each(|other| {
        network.deafen(victim, other)?;
        network.deafen(other, victim)?;
        ensure_cut(network, other, victim)
    });
    tokio::time::sleep(time.max(SILENT_AFTER)).await;
    let told = serves_nothing(&client).await;
    network.heal()?;
    cut?;
    told?;
    Ok(format!(
        "n{} without the others for {} ms",
        victim + 1,
        time.as_millis()
    ))
}

async fn serves_nothing(client: &KvClient) -> anyhow::Result<()> {
    if let Ok(put) = client.put("chaos/alone", "nobody else has this").await {
        bail!("VIOLATION: a node without a majority acknowledged a write: {put:?}");
    }
    if let Ok(read) = client.get("chaos/alone").await {
        bail!("VIOLATION: a node without a majority served a linearizable read: {read:?}");
    }
    let local = ReadOptions {
        consistency: Consistency::Local,
        revision: None,
    };
    if let Err(error) = client.get_with("chaos/alone", local).await {
        bail!("VIOLATION: a local read needs nobody else: {error:?}");
    }
    Ok(())
}

/// Two see each other no longer, and the third sees both.
pub(super) async fn ring(ground: &mut Ground, one: usize, time: Duration) -> anyhow::Result<String> {
    let other = (one + 1) % SERVERS;
    let network = ground.network()?;
    ensure_carries(network, other, one)?;
    network.deafen(one, other)?;
    network.deafen(other, one)?;
    let cut = ensure_cut(network, other, one);
    tokio::time::sleep(time).await;
    network.heal()?;
    cut?;
    Ok(format!(
        "n{} and n{} did not see each other for {} ms",
        one + 1,
        other + 1,
        time.as_millis()
    ))
}

pub(super) async fn one_way(
    ground: &mut Ground,
    from: usize,
    to: usize,
    time: Duration,
) -> anyhow::Result<String> {
    let network = ground.network()?;
    ensure_carries(network, from, to)?;
    network.deafen(from, to)?;
    let cut = ensure_cut(network, from, to);
    tokio::time::sleep(time).await;
    network.heal()?;
    cut?;
    let (from, to) = (from + 1, to + 1);
    Ok(format!("n{to} did not hear n{from} for {} ms", time.as_millis()))
}

pub(super) async fn everybody_alone(ground: &mut Ground, time: Duration) -> anyhow::Result<String> {
    let network = ground.network()?;
    let pairs = (0..SERVERS).map(|one| (one, (one + 1) % SERVERS));
    pairs
        .clone()
        .try_for_each(|(one, other)| ensure_carries(network, one, other))?;
    for victim in 0..SERVERS {
        network.cut(victim)?;
    }
    let cut = pairs
        .clone()
        .try_for_each(|(one, other)| ensure_cut(network, one, other));
    tokio::time::sleep(time).await;
    network.heal()?;
    cut?;
    Ok(format!("everybody alone for {} ms", time.as_millis()))
}

pub(super) async fn slow(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    const KILOBITS: u32 = 1500;
    let network = ground.network()?;
    network.narrow(victim, KILOBITS, 2000)?;
    tokio::time::sleep(time).await;
    let held_up = narrowed(
        network,
        victim,
        "a slow link to hold something up",
        |held_up, _| held_up,
    )
    .await;
    network.heal()?;
    let held_up = held_up?;
    Ok(format!(
        "what reaches n{} went through {KILOBITS} kbit/s; held up {held_up} times",
        victim + 1
    ))
}

pub(super) async fn lossy(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    let network = ground.network()?;
    network.narrow(victim, 3000, 2)?;
    tokio::time::sleep(time).await;
    let dropped = narrowed(network, victim, "a lossy link to lose something", |_, dropped| {
        dropped
    })
    .await;
    network.heal()?;
    let dropped = dropped?;
    Ok(format!("{dropped} packets to n{} were lost", victim + 1))
}

/// On a busy machine little is said: the fault lasts until it has had its effect.
async fn narrowed(
    network: &Network,
    victim: usize,
    what: &str,
    effect: impl Fn(u64, u64) -> u64,
) -> anyhow::Result<u64> {
    wait_for(what, EFFECT_DEADLINE, async || {
        let (held_up, dropped) = network.narrowed(victim).ok()?;
        Some(effect(held_up, dropped)).filter(|count| *count > 0)
    })
    .await
}
