//! “Latency is zero”: every link between the nodes takes ten milliseconds, and it is measured who notices.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use kvstore_client::{Freshness, KvClient, NearCache};

use super::ground::Ground;
use super::told::{Told, median, ms};
use crate::arena::Weather;

const PREFIX: &str = "fallacies/latency/";
const DELAY: Duration = Duration::from_millis(10);
const ONE_BY_ONE: u32 = 20;
const AT_ONCE: u32 = 64;
const READS: u32 = 200;
/// How much of the time one after the other would take, many at once may take; they take far less.
const SHARE_MAX: u32 = 4;

pub(super) async fn play(ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let client = &ground.client;
    let near = writes(client).await?;
    told.say(format_args!(
        "A write takes {:.1} ms (the median of {ONE_BY_ONE}). Now whatever nodes say to each other takes {} ms more each way.",
        ms(near),
        DELAY.as_millis()
    ));
    let cache = NearCache::open(client, [PREFIX]).await?;
    ground.links.set(Weather {
        delay: DELAY,
        ..Weather::default()
    });
    let far = writes(client).await?;
    told.claim(
        far >= 2 * DELAY,
        format_args!(
            "a write now takes {:.1} ms: a majority needs a round trip, and none is free",
            ms(far)
        ),
    );
    let began = Instant::now();
    let puts = (0..AT_ONCE).map(|n| async move { client.put(&key(n), format!("at once {n}")).await });
    let put = try_join_all(puts).await?;
    let together = began.elapsed();
    told.claim(
        together < far * AT_ONCE / SHARE_MAX,
        format_args!(
            "{AT_ONCE} writes at once take {:.1} ms together, not {AT_ONCE} times as long: they share their round trips",
            ms(together)
        ),
    );
    let newest = put.iter().map(|put| put.revision).max().unwrap_or_default();
    let mut times = Vec::new();
    for n in 0..READS {
        let began = Instant::now();
        let read = cache.get(&key(n % AT_ONCE), Freshness::AtLeast(newest)).await?;
        times.push(began.elapsed());
        let right = read
            .value
            .is_some_and(|found| found.bytes() == format!("at once {}", n % AT_ONCE));
        anyhow::ensure!(
            right,
            "the near cache showed something else than what was written"
        );
    }
    let cached = median(times);
    told.claim(
        cached * 10 < far,
        format_args!(
            "a read near its reader takes {:.1} µs and sees all {AT_ONCE} of them: who does not travel does not wait",
            ms(cached) * 1000.0
        ),
    );
    ground.links.heal();
    for (name, time) in [
        ("write_ms", near),
        ("slow_write_ms", far),
        ("many_at_once_ms", together),
        ("near_read_ms", cached),
    ] {
        told.figure(name, ms(time));
    }
    Ok(())
}

fn key(n: u32) -> String {
    format!("{PREFIX}{n}")
}

async fn writes(client: &KvClient) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for n in 0..ONE_BY_ONE {
        let began = Instant::now();
        client.put(&key(n), "one by one").await?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}
