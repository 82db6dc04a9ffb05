//! A follower that was away for so long that the log no longer reaches back to it.
//! Invariant: it comes back by a snapshot while writes go on, and then holds what the others hold.

use std::time::Instant;

use crate::load::{Load, Plan, moves_on, short_log, snapshot_installed, verify};

#[tokio::test]
async fn a_follower_that_was_away_for_long_comes_back_by_a_snapshot() {
    let cluster = short_log().await;
    let away = cluster.follower().await;
    let load = Load::start(&cluster, Plan::many_entries());
    load.progress(Instant::now(), 200).await;
    cluster.kill(&away).await;
    moves_on(&cluster, &cluster.leader().await).await;
    cluster.start_node(&away).await;
    cluster.wait_for_state(&away, "running").await;
    snapshot_installed(&cluster, &away).await;
    load.progress(Instant::now(), 300).await;
    verify(&cluster, &["n1", "n2", "n3"], load.stop().await).await;
}
