//! What surely did not happen, and what nobody knows: told apart against nodes that are gone or alone.
//! Invariant: `Unavailable` never took effect; `Unknown` is settled by its own key, once.

use std::time::Duration;

use kvstore_client::Error;

use crate::harness::Cluster;

async fn all_run(cluster: &Cluster) {
    for name in ["n1", "n2", "n3"] {
        cluster.wait_for_state(name, "running").await;
    }
}

#[tokio::test]
async fn a_write_that_reached_nobody_surely_did_not_happen() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().with_deadline(Duration::from_secs(1));
    client.put("a", "1").await.unwrap();
    for name in ["n1", "n2", "n3"] {
        cluster.kill(name).await;
    }
    let refused = client.put("a", "2").await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    let read = client.get("a").await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    for name in ["n1", "n2", "n3"] {
        cluster.start_node(name).await;
    }
    all_run(&cluster).await;
    let kept = cluster.client().get("a").await.unwrap().unwrap();
    assert_eq!((kept.bytes(), kept.version), ("1".into(), 1));
}

#[tokio::test]
async fn a_write_without_a_majority_is_unknown_and_its_key_settles_it() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().with_deadline(Duration::from_secs(2));
    client.add("counter", 1, None, None).await.unwrap();
    let leader = cluster.leader().await;
    let others: Vec<&str> = ["n1", "n2", "n3"]
        .into_iter()
        .filter(|name| *name != leader)
        .collect();
    // Stopped, not dead: the leader goes on taking writes until its lease is over.
    for name in &others {
        cluster.pause(name).await;
    }
    let mut keys = Vec::new();
    let mut denied = 0;
    for n in 0..4 {
        let key = format!("fate-{n}");
        let result = client
            .with_idempotency_key(&key)
            .unwrap()
            .add("counter", 1, None, None)
            .await;
        match result {
            Err(Error::Unknown { idempotency_key, .. }) => {
                assert_eq!(idempotency_key.as_deref(), Some(key.as_str()));
                keys.push(key);
            }
            Err(Error::Unavailable { .. }) => denied += 1,
            other => panic!("nobody can have acknowledged this: {other:?}"),
        }
    }
    assert!(
        !keys.is_empty(),
        "the leader was to take at least one while its lease lasted"
    );
    for name in &others {
        cluster.resume(name).await;
    }
    all_run(&cluster).await;
    let healed = cluster.client().with_deadline(Duration::from_secs(15));
    for key in &keys {
        // Twice, as a caller does who was cut off again.
        let once = healed.with_idempotency_key(key).unwrap();
        let first = once.add("counter", 1, None, None).await.unwrap();
        assert_eq!(once.add("counter", 1, None, None).await.unwrap(), first);
    }
    let sum = healed.get("counter").await.unwrap().unwrap().bytes();
    let sum: usize = String::from_utf8_lossy(&sum).parse().unwrap();
    assert_eq!(
        sum,
        1 + keys.len(),
        "each addition once; {denied} surely did not happen"
    );
}
