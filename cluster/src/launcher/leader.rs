//! Finds out who leads by asking the nodes themselves.
//! Invariant: of different answers the one with the highest term counts; no answer in time is no answer.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;

/// Nodes answer this from memory; one that takes longer is paused, gone, or drowned.
const DEADLINE: Duration = Duration::from_millis(400);

#[derive(Deserialize)]
struct Seen {
    leader: Option<u64>,
    term: u64,
}

/// The id of the leader, as the nodes at these addresses see it.
pub(crate) async fn find(http: &reqwest::Client, addresses: &[String], token: &str) -> Option<u64> {
    let answers = join_all(addresses.iter().map(|address| ask(http, address, token))).await;
    answers
        .into_iter()
        .flatten()
        .filter_map(|seen| Some((seen.term, seen.leader?)))
        .max()
        .map(|(_, leader)| leader)
}

async fn ask(http: &reqwest::Client, address: &str, token: &str) -> Option<Seen> {
    let answer = http
        .get(format!("{}/v1/cluster", service::http::base(address)))
        .bearer_auth(token)
        .timeout(DEADLINE)
        .send()
        .await
        .ok()?;
    answer.json().await.ok()
}
