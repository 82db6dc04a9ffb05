//! A network that is bad rather than cut: slow links, connections that break, and links that carry one way.
//! Invariant: nothing acknowledged is lost, no read is stale, and when it is fine again all goes on by itself.

use std::time::{Duration, Instant};

use crate::ALL;
use crate::harness::{Cluster, SOON, wait_until};
use crate::load::{Leaders, Load, Plan, Registers, say, verify};
use crate::network::Network;

const WEATHER: Duration = Duration::from_secs(4);
/// A leader that hears nobody falls silent after 250 ms of lease; then the others wait theirs out.
const ONE_WAY_GAP_MAX: Duration = Duration::from_secs(1);

struct Stage {
    cluster: Cluster,
    network: Network,
    load: Load,
    leaders: Leaders,
    registers: Registers,
}

impl Stage {
    async fn set() -> Self {
        let cluster = Cluster::start(3).await;
        let network = Network::of(&cluster).await;
        let load = Load::start(&cluster, Plan::default());
        let leaders = Leaders::watch(&cluster);
        let registers = Registers::start(&cluster, &ALL);
        load.progress(Instant::now(), 200).await;
        Self {
            cluster,
            network,
            load,
            leaders,
            registers,
        }
    }

    /// Waits out the weather, then lets the sun shine until every node serves again.
    async fn passes(&self, began: Instant) {
        tokio::time::sleep_until((began + WEATHER).into()).await;
        self.network.heal();
        let healed = Instant::now();
        for name in ALL {
            let client = self
                .cluster
                .client_of(vec![self.cluster.address(name).to_owned()])
                .with_deadline(Duration::from_millis(500));
            wait_until(&format!("{name} serves"), SOON, async || {
                client.revision().await.map_err(|error| format!("{error:?}"))
            })
            .await;
            say(&format!("{name} serves {:?} after the weather", healed.elapsed()));
        }
        self.load.progress(Instant::now(), 200).await;
    }

    async fn end(self) -> Vec<u64> {
        self.registers.check().await;
        let terms = self.leaders.stop().await;
        verify(&self.cluster, &ALL, self.load.stop().await).await;
        terms
    }
}

async fn leader_id(cluster: &Cluster) -> u64 {
    cluster.leader().await.trim_start_matches('n').parse().unwrap()
}

#[tokio::test]
async fn slow_links_slow_writes_down_and_nothing_else() {
    let stage = Stage::set().await;
    let terms = stage.cluster.client().status().await.unwrap().term;
    let began = Instant::now();
    // A round trip takes four times this, by the two proxies between two nodes and the two ways.
    stage.network.slow(Duration::from_millis(10));
    stage.load.progress(Instant::now(), 100).await;
    stage.passes(began).await;
    assert_eq!(
        stage.cluster.client().status().await.unwrap().term,
        terms,
        "slow is not dead"
    );
    stage.end().await;
}

#[tokio::test]
async fn connections_that_break_again_and_again_lose_nothing() {
    let stage = Stage::set().await;
    for pieces in [300, 60, 15] {
        let began = Instant::now();
        stage.network.break_one_in(pieces);
        stage.passes(began).await;
    }
    stage.end().await;
}

#[tokio::test]
async fn a_leader_that_hears_nobody_is_replaced() {
    replaced_on_a_link_that_carries_one_way(Network::deafen).await;
}

#[tokio::test]
async fn a_leader_that_nobody_hears_is_replaced() {
    replaced_on_a_link_that_carries_one_way(Network::mute).await;
}

async fn replaced_on_a_link_that_carries_one_way(spoil: fn(&Network, u64)) {
    let stage = Stage::set().await;
    let leader = leader_id(&stage.cluster).await;
    let began = Instant::now();
    spoil(&stage.network, leader);
    tokio::time::sleep_until((began + WEATHER / 2).into()).await;
    let gap = stage.load.longest_gap(began);
    say(&format!(
        "no writes for {gap:?} after the link of the leader, n{leader}, carried one way"
    ));
    assert!(gap < ONE_WAY_GAP_MAX, "no writes for {gap:?}");
    stage.passes(began).await;
    assert!(stage.end().await.len() > 1, "nobody took over");
}

/// Neither a follower that is not heard nor one that hears nothing may trouble the others.
#[tokio::test]
async fn a_follower_on_a_link_that_carries_one_way_disturbs_nobody() {
    let stage = Stage::set().await;
    for muted in [true, false] {
        let leader = leader_id(&stage.cluster).await;
        let term = stage.cluster.client().status().await.unwrap().term;
        let follower = (1..=3).find(|id| *id != leader).unwrap();
        let began = Instant::now();
        if muted {
            stage.network.mute(follower);
        } else {
            stage.network.deafen(follower);
        }
        tokio::time::sleep_until((began + WEATHER / 2).into()).await;
        let gap = stage.load.longest_gap(began);
        say(&format!(
            "no writes for {gap:?} with n{follower} on a link that carries one way"
        ));
        stage.passes(began).await;
        assert_eq!(
            stage.cluster.client().status().await.unwrap().term,
            term,
            "an election without a cause"
        );
    }
    stage.end().await;
}
