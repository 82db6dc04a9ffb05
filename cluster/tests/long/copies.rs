//! An asynchronous copy at the rates that the design names, and a copy of a million keys that is made anew.
//! Invariant: the lag is what the mirror says of itself while others write.

use std::time::{Duration, Instant};

use serde_json::Value;
use service::config::{MirrorConfig, MirrorEngine, MirrorMode, OnLoss};

use crate::drive::{Order, Work, done};
use crate::harness::{Cluster, free_ports, wait_until};
use crate::load::say;

const NAME: &str = "mirror-one";
const KEYS: u32 = 1_000_000;
const LAG_MS_MAX: u64 = 200;
const CHANGES_PER_S_MIN: u64 = 20_000;
const REBUILD_MAX: Duration = Duration::from_mins(1);
const LEVEL_WITHIN: Duration = Duration::from_mins(2);

const STEADY: Order = Order {
    work: Work::Puts,
    clients: 64,
    seconds: 8,
    rate: Some(5000),
    keys: 100_000,
};
const FILL: Order = Order::fill(KEYS);

async fn status(cluster: &Cluster) -> Result<Value, String> {
    let url = format!("http://{}/status", cluster.config.mirrors[0].address);
    let request = cluster.http.get(url).timeout(Duration::from_secs(5));
    let answer = request.send().await.map_err(|error| error.to_string())?;
    answer.json().await.map_err(|error| error.to_string())
}

async fn level(cluster: &Cluster) -> Value {
    wait_until("the copy to be level", LEVEL_WITHIN, async || {
        let status = status(cluster).await?;
        let is_level = status["state"] == "ok" && status["lag_revisions"] == 0;
        is_level.then_some(status.clone()).ok_or(status.to_string())
    })
    .await
}

/// Drives, and answers what was driven and the lags that were seen meanwhile, ordered.
async fn lags_of(cluster: &Cluster, order: Order) -> (Value, Vec<u64>) {
    let mut lags = Vec::new();
    let driving = order.drive(cluster);
    let mut driving = std::pin::pin!(driving);
    let seen = loop {
        tokio::select! {
            seen = driving.as_mut() => break seen,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                lags.push(status(cluster).await.unwrap()["lag_ms"].as_u64().unwrap());
            }
        }
    };
    lags.sort_unstable();
    (seen, lags)
}

#[tokio::test]
async fn a_copy_keeps_up_and_a_million_keys_are_copied_anew() {
    let cluster = Cluster::with(3, |config| {
        config.mirrors = vec![MirrorConfig {
            name: NAME.to_owned(),
            address: format!("127.0.0.1:{}", free_ports(1)[0]),
            engine: MirrorEngine::Sqlite,
            mode: MirrorMode::Async,
            on_loss: OnLoss::Degrade,
            interval_ms: 100,
        }];
    });
    cluster.up().await;
    level(&cluster).await;
    let (seen, lags) = lags_of(&cluster, STEADY).await;
    let (median, most) = (lags[lags.len() / 2], lags[lags.len() * 9 / 10]);
    say(&format!(
        "at 5000 writes a second the lag is {median} ms, at most times under {most} ms"
    ));
    assert!(done(&seen) > 30_000, "{seen}");
    assert!(most < LAG_MS_MAX, "{lags:?}");

    let began = Instant::now();
    FILL.drive(&cluster).await;
    level(&cluster).await;
    let took = began.elapsed();
    say(&format!("{KEYS} changes were written and copied in {took:?}"));
    let per_second = u64::from(KEYS) * 1000 / u64::try_from(took.as_millis()).unwrap();
    assert!(per_second > CHANGES_PER_S_MIN, "{per_second} changes a second");

    cluster.kill(NAME).await;
    std::fs::remove_dir_all(cluster.data().join(NAME)).unwrap();
    let began = Instant::now();
    cluster.start_node(NAME).await;
    level(&cluster).await;
    say(&format!("{KEYS} keys were copied anew in {:?}", began.elapsed()));
    assert!(began.elapsed() < REBUILD_MAX, "{:?}", began.elapsed());
    let url = format!("http://{}/verify", cluster.config.mirrors[0].address);
    let answer = cluster.http.get(url).timeout(LEVEL_WITHIN).send().await.unwrap();
    let verdict: Value = answer.json().await.unwrap();
    assert_eq!(verdict["equal"], true, "{verdict}");
    assert!(verdict["keys"].as_u64() > Some(u64::from(KEYS)), "{verdict}");
}
