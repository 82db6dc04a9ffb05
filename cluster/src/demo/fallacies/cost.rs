//! “Transport cost is zero”: the bytes and the processor time of the same work, sent one by one, together, or not at all.

use std::time::{Duration, Instant};

use kvstore_client::wire::txn::Op;
use kvstore_client::{Freshness, NearCache, Txn};

use super::ground::Ground;
use super::told::{Told, ms};
use crate::arena::{Usage, wait_for};

const PREFIX: &str = "fallacies/cost/";
const CALLS: u32 = 500;
const NEAR_READS: u32 = 50_000;
const PUTS: u32 = 100;
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn play(ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let key = format!("{PREFIX}price");
    let client = &ground.client;
    client.put(&key, "42").await?;
    let calls = {
        let meter = Meter::start(ground);
        for _ in 0..CALLS {
            client.get(&key).await?;
        }
        meter.each(ground, CALLS)
    };
    told.say(format_args!(
        "A price of two bytes is read {CALLS} times over HTTP: {:.0} bytes and {:.3} ms each time.",
        calls.bytes, calls.ms
    ));
    let cache = NearCache::open(client, [PREFIX]).await?;
    let near = {
        let meter = Meter::start(ground);
        for _ in 0..NEAR_READS {
            cache.get(&key, Freshness::Cached).await?;
        }
        meter.each(ground, NEAR_READS)
    };
    told.claim(
        near.bytes * 100.0 < calls.bytes,
        format_args!(
            "read {NEAR_READS} times from a near cache it is {:.2} bytes and {:.1} µs: what is already here costs no transport",
            near.bytes,
            near.ms * 1000.0
        ),
    );
    if cfg!(target_os = "linux") {
        told.say(format_args!(
            "  Processor time of the three nodes for each read: {:.3} ms over HTTP, {:.4} ms near.",
            calls.nodes_cpu_ms, near.nodes_cpu_ms
        ));
    }
    let changed = ground.client.put(&key, "43").await?.revision;
    let read = wait_for(
        "a change to arrive near its reader",
        FOLLOWED_WITHIN,
        async || {
            let read = cache.get(&key, Freshness::AtLeast(changed)).await.ok()?;
            read.hit.then_some(read)
        },
    )
    .await?;
    told.claim(
        read.value.is_some_and(|found| found.bytes() == "43"),
        "and when somebody else changes it, it is not shown as it was: a watch brings the new one",
    );
    told.figure("call_bytes", calls.bytes);
    told.figure("call_ms", calls.ms);
    told.figure("near_bytes", near.bytes);
    told.figure("near_ms", near.ms);
    together(ground, told).await
}

async fn together(ground: &Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let client = &ground.client;
    let single = {
        let meter = Meter::start(ground);
        for n in 0..PUTS {
            client.put(&format!("{PREFIX}{n:03}"), "42").await?;
        }
        meter.each(ground, PUTS)
    };
    let together = {
        let meter = Meter::start(ground);
        let txn = (0..PUTS).fold(Txn::new(), |txn, n| {
            txn.then(Op::put(&format!("{PREFIX}{n:03}"), "43"))
        });
        client.txn(txn).await?;
        meter.each(ground, PUTS)
    };
    told.claim(
        together.bytes * 2.0 < single.bytes && together.ms < single.ms,
        format_args!(
            "{PUTS} changes one by one cost {:.0} bytes and {:.2} ms each; in one transaction {:.0} bytes and {:.3} ms",
            single.bytes, single.ms, together.bytes, together.ms
        ),
    );
    told.figure("put_bytes", single.bytes);
    told.figure("put_in_txn_bytes", together.bytes);
    Ok(())
}

/// What one piece of work cost.
struct Cost {
    bytes: f64,
    ms: f64,
    nodes_cpu_ms: f64,
}

struct Meter {
    began: Instant,
    bytes: u64,
    nodes: Usage,
}

impl Meter {
    fn start(ground: &Ground) -> Self {
        Self {
            began: Instant::now(),
            bytes: ground.links.client_bytes(),
            nodes: Usage::of(ground.store.pids()),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the bytes of a demo stay far below 2^52"
    )]
    fn each(self, ground: &Ground, pieces: u32) -> Cost {
        let nodes = Usage::of(ground.store.pids()).since(self.nodes);
        let pieces = f64::from(pieces);
        Cost {
            bytes: (ground.links.client_bytes() - self.bytes) as f64 / pieces,
            ms: ms(self.began.elapsed()) / pieces,
            nodes_cpu_ms: nodes.cpu_s * 1000.0 / pieces,
        }
    }
}
