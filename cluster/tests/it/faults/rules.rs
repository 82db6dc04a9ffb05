//! Rights that are taken away, while every node still serves those who had them.
//! Invariant: what begins after the withdrawal was acknowledged is refused, through whichever node it comes.

use crate::harness::Cluster;
use crate::load::say;

const ROUNDS: usize = 60;

#[tokio::test]
async fn a_right_that_was_withdrawn_is_gone_on_every_node() {
    withdraw_rights().await;
}

pub(crate) async fn withdraw_rights() {
    use kvstore_client::wire::tokens::{Access, Rule};

    let cluster = Cluster::start(3).await;
    let root = cluster.client();
    let leader = cluster.leader().await;
    let near = cluster.client_of(vec![cluster.address(&leader).to_owned()]);
    let others: Vec<&str> = ["n1", "n2", "n3"]
        .into_iter()
        .filter(|name| *name != leader)
        .collect();
    let mut accepted = Vec::new();
    for round in 0..ROUNDS {
        let through = others[round % others.len()];
        let rules = vec![Rule {
            prefix: "room/".to_owned(),
            access: Access::Write,
        }];
        let guest = near.token_put("guest", rules).await.unwrap();
        let put = async |value: &'static str| {
            let url = format!("http://{}/v1/kv/room/{round}", cluster.address(through));
            let request = cluster.http.put(url).bearer_auth(&guest.token).body(value);
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(put("allowed").await, 200);
        near.token_delete("guest").await.unwrap();
        let status = put("too late").await;
        if status == 200 {
            accepted.push(round);
        } else {
            assert!([401, 403].contains(&status), "{status}");
        }
    }
    say(&format!("accepted after the withdrawal: {accepted:?}"));
    for round in 0..ROUNDS {
        let kv = root.get(&format!("room/{round}")).await.unwrap().unwrap();
        assert_eq!(kv.bytes(), "allowed", "round {round}");
    }
    assert_eq!(
        accepted,
        Vec::<usize>::new(),
        "writes were taken by a right that was withdrawn"
    );
}
