//! A lease that is kept alive over deaths of nodes, and whose end is told.
//! Invariant: the holder hears of a loss before anybody else can hold what the lease protects.

use std::time::{Duration, Instant};

use kvstore_client::PutOptions;

use crate::harness::{Cluster, SOON, wait_until};

const TTL: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_kept_lease_outlives_its_leader_and_ends_when_it_is_released() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let lease = client.lease_keep(TTL).await.unwrap();
    let bound = PutOptions {
        lease: Some(lease.id()),
        ..PutOptions::default()
    };
    client.put_with("held", "mine", bound).await.unwrap();
    let leader = cluster.leader().await;
    cluster.kill(&leader).await;
    let killed = Instant::now();
    // Twice its length: without the keeper it would be gone, under the old leader or the new one.
    wait_until("its time has passed twice", SOON, async || {
        assert!(
            !lease.is_lost(),
            "lost {:?} after the leader was killed",
            killed.elapsed()
        );
        let passed = killed.elapsed();
        (passed > 2 * TTL)
            .then_some(())
            .ok_or_else(|| format!("{passed:?}"))
    })
    .await;
    assert!(client.get("held").await.unwrap().is_some());
    assert!(lease.release().await.unwrap());
    assert!(client.get("held").await.unwrap().is_none());
}

#[tokio::test]
async fn the_loss_of_a_lease_is_told() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let revoked = client.lease_keep(TTL).await.unwrap();
    cluster.client().lease_revoke(revoked.id()).await.unwrap();
    tokio::time::timeout(TTL, revoked.lost()).await.unwrap();
    assert!(revoked.is_lost());
    assert!(!revoked.release().await.unwrap(), "it was gone already");

    // Without a majority nobody can renew: its holder hears of that when the time is over, not later.
    let kept = client.lease_keep(TTL).await.unwrap();
    for name in ["n1", "n2"] {
        cluster.kill(name).await;
    }
    let alone = Instant::now();
    tokio::time::timeout(2 * TTL, kept.lost()).await.unwrap();
    assert!(kept.is_lost());
    assert!(
        alone.elapsed() <= TTL + Duration::from_millis(500),
        "told after {:?}",
        alone.elapsed()
    );
}
