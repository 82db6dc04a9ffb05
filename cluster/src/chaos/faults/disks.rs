//! What happens to disks and clocks: power lost, no room, syncs slow or failing, files damaged, the clock jumping.
//! Invariant: an effect is seen where it happens: by the dead disk, the counters of the shim, the log of the node.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::future::join_all;
use hyper::{Method, Uri};

use crate::arena::{elsewhere, wait_for};
use crate::bench::{Connection, Outcome, uri};
use crate::chaos::ground::{FREE_MIN, Ground};
use crate::chaos::random::Random;
use crate::chaos::shim::{Order, Shim};

const STEP_DEADLINE: Duration = Duration::from_secs(30);
/// A log has some room reserved, so that a node may go on for a while; a snapshot, due every few seconds, has none.
const WITHOUT_ROOM: Duration = Duration::from_secs(15);
/// What a node says that knows less than it once acknowledged.
const GONE: &str = "are gone: this node neither votes nor leads";
const TRIES: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    CutEnd,
    FlipBit,
}

pub(super) async fn power_loss(ground: &mut Ground, victims: &[usize]) -> anyhow::Result<String> {
    ground.excuse(victims)?;
    let cuts = victims.iter().map(|victim| ground.disks[*victim].cut_power());
    join_all(cuts).await.into_iter().collect::<anyhow::Result<()>>()?;
    ground.end(victims).await?;
    for victim in victims {
        ground.disks[*victim].boot().await?;
        ground.server(*victim).start()?;
    }
    let names: Vec<String> = victims.iter().map(|victim| format!("n{}", victim + 1)).collect();
    Ok(format!("power loss of {}", names.join(", ")))
}

/// Every other time to the last byte.
pub(super) async fn full(
    ground: &mut Ground,
    (leader, follower): (usize, usize),
    random: &mut Random,
) -> anyhow::Result<String> {
    if random.below(2) == 1 {
        full_to_the_last_byte(ground, follower).await
    } else {
        almost_full(ground, leader).await
    }
}

/// The others have room, so that the lead goes to one of them; its own clients are told.
async fn almost_full(ground: &mut Ground, victim: usize) -> anyhow::Result<String> {
    let asker = Asker::of(ground, victim)?;
    let disk = &ground.disks[victim];
    disk.fill_up_to(FREE_MIN / 2).await?;
    let refused = wait_for(
        "a node to refuse writes for want of room",
        STEP_DEADLINE,
        async || asker.is_refused().await.then_some(()),
    )
    .await;
    let led = ground.store.ready().await;
    disk.free().await?;
    refused?;
    let leads = led.map_or_else(|_| "nobody".to_owned(), |leader| format!("n{}", leader + 1));
    Ok(format!(
        "the disk of n{} was full, and it refused writes; then {leads} led",
        victim + 1
    ))
}

/// Others go on and send it what it cannot store. It may end by that, and must come back once there is room.
async fn full_to_the_last_byte(ground: &mut Ground, victim: usize) -> anyhow::Result<String> {
    let asker = Asker::of(ground, victim)?;
    ground.excuse(&[victim])?;
    let mut is_refused = false;
    let ended = wait_for("a node without room to end", WITHOUT_ROOM, async || {
        // Also what the node itself has given up meanwhile.
        ground.disks[victim].fill_up_to(0).await.ok()?;
        let has_ended = ground.server(victim).has_ended();
        is_refused |= !has_ended && asker.is_refused().await;
        has_ended.then_some(())
    })
    .await;
    ground.disks[victim].free().await?;
    // What began to end while there was no room may be at it still.
    let has_ended = ended.is_ok() || !goes_on(ground, victim).await?;
    // Who lived through it begins anew too: what failed for want of room may be the end of it at any later time.
    ground.end(&[victim]).await?;
    ground.server(victim).start()?;
    ensure!(
        has_ended || is_refused,
        "the disk of n{} was full to the last byte, and it neither ended nor refused a write",
        victim + 1
    );
    let how = if has_ended {
        "and it ended"
    } else {
        "it refused writes, and went on until it was killed"
    };
    Ok(format!(
        "the disk of n{} was full to the last byte, {how}",
        victim + 1
    ))
}

/// Whether a node that has room again is well again without having ended.
async fn goes_on(ground: &mut Ground, victim: usize) -> anyhow::Result<bool> {
    const LOOK: Duration = Duration::from_secs(2);
    let lives = wait_for("a node that has room again", STEP_DEADLINE, async || {
        if ground.server(victim).has_ended() {
            return Some(false);
        }
        let ready = tokio::time::timeout(LOOK, ground.store.ready()).await;
        matches!(ready, Ok(Ok(_leader))).then_some(true)
    });
    lives.await.with_context(|| {
        format!(
            "VIOLATION: n{} has room again, and has neither ended nor become ready",
            victim + 1
        )
    })
}

/// Asks one node to write, and not by a client that would go to whoever leads next.
struct Asker {
    connection: Connection,
    url: Uri,
}

impl Asker {
    fn of(ground: &Ground, victim: usize) -> anyhow::Result<Self> {
        let endpoint = &ground.store.endpoints()[victim];
        Ok(Self {
            connection: Connection::new(ground.store.token(), Duration::from_millis(500))?,
            url: uri(&format!("http://{endpoint}/v1/kv/chaos-full"))?,
        })
    }

    /// For want of room.
    async fn is_refused(&self) -> bool {
        const FULL: u16 = 507;
        let value = Some(Bytes::from_static(b"x"));
        let put = self.connection.send(Method::PUT, self.url.clone(), value, None);
        put.await == Outcome::Refused(FULL)
    }
}

/// Syncs of one node take longer.
pub(super) struct SlowSync;

impl SlowSync {
    const DELAY_US: i64 = 60_000;

    /// Sees one that took longer; whoever calls this ends it.
    pub(super) async fn begin(ground: &Ground, victim: usize) -> anyhow::Result<()> {
        let shim = &ground.shims[victim];
        let before = shim.effects(Order::SyncDelayUs)?;
        shim.set(Order::SyncDelayUs, Self::DELAY_US)?;
        let what = "a sync that was made slow";
        affected(shim, Order::SyncDelayUs, before, what).await.map(drop)
    }

    pub(super) fn end(ground: &Ground, victim: usize) -> anyhow::Result<()> {
        ground.shims[victim].set(Order::SyncDelayUs, 0)
    }
}

pub(super) async fn slow_sync(ground: &mut Ground, victim: usize, time: Duration) -> anyhow::Result<String> {
    let before = ground.shims[victim].effects(Order::SyncDelayUs)?;
    let seen = SlowSync::begin(ground, victim).await;
    tokio::time::sleep(time).await;
    SlowSync::end(ground, victim)?;
    seen?;
    let delayed = ground.shims[victim].effects(Order::SyncDelayUs)? - before;
    Ok(format!(
        "{delayed} syncs of n{} took {} ms more",
        victim + 1,
        SlowSync::DELAY_US / 1000
    ))
}

/// How often an order has had an effect since then. On a busy machine little is done: it lasts until it has had one.
async fn affected(shim: &Shim, order: Order, before: u64, what: &str) -> anyhow::Result<u64> {
    wait_for(what, STEP_DEADLINE, async || {
        let count = shim.effects(order).ok()?.saturating_sub(before);
        (count > 0).then_some(count)
    })
    .await
}

/// A sync or a write of the log that failed must be the end of the process.
pub(super) async fn failing(ground: &mut Ground, victim: usize, order: Order) -> anyhow::Result<String> {
    let what = match order {
        Order::WriteFails => "a write to the log",
        _ => "a sync",
    };
    let before = ground.shims[victim].effects(order)?;
    ground.excuse(&[victim])?;
    ground.shims[victim].set(order, 1)?;
    let server = ground.server(victim);
    let ended = wait_for("a node whose log failed to end", STEP_DEADLINE, async || {
        server.has_ended().then_some(())
    })
    .await;
    ground.shims[victim].set(order, 0)?;
    let failed = ground.shims[victim].effects(order)? - before;
    ground.end(&[victim]).await?;
    ground.server(victim).start()?;
    ensure!(failed > 0, "{what} was to fail, and none did");
    if ended.is_err() {
        bail!(
            "VIOLATION: n{} lived on after {what} had failed {failed} times",
            victim + 1
        );
    }
    Ok(format!("{what} of n{} failed, and it ended", victim + 1))
}

/// While one clock is wrong the leader dies, so that whoever leads next may be the one that has it.
pub(super) async fn clock_jump(
    ground: &mut Ground,
    (victim, leader): (usize, usize),
    seconds: i64,
    time: Duration,
) -> anyhow::Result<String> {
    let before = ground.shims[victim].effects(Order::ClockOffsetS)?;
    ground.shims[victim].set(Order::ClockOffsetS, seconds)?;
    tokio::time::sleep(time).await;
    ground.kill(&[leader]).await?;
    tokio::time::sleep(time).await;
    ground.server(leader).start()?;
    let shim = &ground.shims[victim];
    let shifted = affected(shim, Order::ClockOffsetS, before, "a look at a wrong clock").await;
    shim.set(Order::ClockOffsetS, 0)?;
    let shifted = shifted?;
    Ok(format!(
        "the clock of n{} was {seconds} s off while n{}, who led, was killed; it was looked at {shifted} times",
        victim + 1,
        leader + 1
    ))
}

/// It goes faster or slower than the others, and in the end jumps back to what they say.
pub(super) async fn clock_drift(
    ground: &mut Ground,
    victim: usize,
    permille: i64,
    time: Duration,
) -> anyhow::Result<String> {
    let shim = &ground.shims[victim];
    let before = shim.effects(Order::ClockDriftPermille)?;
    let now_s = i64::try_from(service::time::now_ms() / 1000)?;
    shim.set(Order::ClockDriftFromS, now_s)?;
    shim.set(Order::ClockDriftPermille, permille)?;
    tokio::time::sleep(time).await;
    let what = "a look at a clock that goes wrong";
    let drifted = affected(shim, Order::ClockDriftPermille, before, what).await;
    shim.set(Order::ClockDriftPermille, 0)?;
    let drifted = drifted?;
    Ok(format!(
        "the clock of n{} went {permille} ‰ wrong for {} ms, and was looked at {drifted} times",
        victim + 1,
        time.as_millis()
    ))
}

/// Damages the end of the log of a node that is down, until it notices that something is gone.
pub(super) async fn damage(
    ground: &mut Ground,
    victim: usize,
    kind: Damage,
    random: &mut Random,
) -> anyhow::Result<String> {
    for attempt in 1..=TRIES {
        ground.kill(&[victim]).await?;
        let log = &ground.store.servers[victim].start.log;
        let said_before = said(log).await;
        let folder = ground
            .store
            .config
            .data
            .join(format!("n{}", victim + 1))
            .join("raft/db");
        let mut random = Random::from(random.next());
        let spoiled = elsewhere(move || spoil(&newest_log(&folder)?, kind, &mut random));
        let place = spoiled.await?;
        ground.server(victim).start()?;
        let log = &ground.store.servers[victim].start.log;
        let noticed = wait_for("damage to be noticed", Duration::from_secs(4), async || {
            (said(log).await > said_before).then_some(())
        })
        .await;
        if noticed.is_ok() {
            return Ok(format!(
                "{kind:?} at {place} in the log of n{}, and it noticed (try {attempt})",
                victim + 1
            ));
        }
        // It hit what was of no use any more.
        ground.store.ready().await?;
    }
    bail!(
        "the log of n{} was damaged {TRIES} times, and no entry was",
        victim + 1
    )
}

/// How often it has said so, which is looked for in all that it has said.
async fn said(log: &Path) -> usize {
    let log = log.to_owned();
    let said = elsewhere(move || std::fs::read_to_string(log).context("read what a node has said"));
    said.await.unwrap_or_default().matches(GONE).count()
}

/// The file that holds the newest entries.
fn newest_log(folder: &Path) -> anyhow::Result<PathBuf> {
    let files = std::fs::read_dir(folder).context("look for the files of a log")?;
    let logs = files.flatten().map(|entry| entry.path());
    let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let newest = logs
        .filter(|path| path.metadata().is_ok_and(|file| file.len() > 0))
        .max();
    newest.context("a log has a file that is not empty")
}

/// Spoils one of the last bytes that were written; behind them there may be room that was never used.
fn spoil(path: &Path, kind: Damage, random: &mut Random) -> anyhow::Result<u64> {
    let content = std::fs::read(path).context("read a log")?;
    let used = content
        .iter()
        .rposition(|byte| *byte != 0)
        .context("a log is not empty")? as u64;
    let place = used - random.below((used / 4).max(1));
    let file = File::options().write(true).open(path).context("open a log")?;
    match kind {
        Damage::CutEnd => file.set_len(place).context("cut a log")?,
        Damage::FlipBit => {
            let byte = content[usize::try_from(place)?] ^ (1 << random.below(8));
            file.write_all_at(&[byte], place).context("flip a bit of a log")?;
        }
    }
    Ok(place)
}
