//! A leader that stands still and then goes on as if nothing had happened.
//! Invariant: the others go on without it, and it never again answers from what it knew.

use std::time::{Duration, Instant};

use crate::harness::Cluster;
use crate::load::{Leaders, Load, Plan, Registers, say, verify};

const ALL: [&str; 3] = ["n1", "n2", "n3"];
/// Longer than every timeout, so that the leader comes back to a cluster that has long gone on.
const PAUSE: Duration = Duration::from_secs(5);
/// 250 ms of lease and 200 to 250 ms until somebody campaigns; the rest is for the machine, which runs other tests
/// beside this one. How long it takes on a quiet one, `menagerie bench failover` measures.
const GAP_MAX: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_paused_leader_is_replaced_and_serves_no_stale_read_when_it_goes_on() {
    pause_the_leader().await;
}

pub(crate) async fn pause_the_leader() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(
        &cluster,
        Plan {
            writers: 4,
            adders: 2,
            ..Plan::default()
        },
    );
    let leaders = Leaders::watch(&cluster);
    let registers = Registers::start(&cluster, &ALL);
    load.progress(Instant::now(), 200).await;
    let old = cluster.leader().await;
    let paused = Instant::now();
    cluster.pause(&old).await;
    let before = registers.answered(&old);
    tokio::time::sleep_until((paused + PAUSE).into()).await;
    assert_eq!(registers.answered(&old), before, "{old} was not paused");
    let gap = load.longest_gap(paused);
    cluster.resume(&old).await;
    cluster.wait_for_state(&old, "running").await;
    load.progress(Instant::now(), 300).await;
    say(&format!("no writes for {gap:?} after {old} was paused"));
    assert!(gap < GAP_MAX, "no writes for {gap:?}");
    assert!(
        registers.answered(&old) > before,
        "{old} serves no reads any more"
    );
    registers.check().await;
    let terms = leaders.stop().await;
    assert!(terms.len() > 1, "nobody took over: {terms:?}");
    verify(&cluster, &ALL, load.stop().await).await;
}
