//! Asks the nodes how they stand, each for itself.
//! Invariant: a node that does not answer in time has no standing; it does not hold up the others.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use kvstore_client::wire::cluster::{NodeStatus, Role};
use service::http::{self, Timeouts};
use service::secrets::Secret;

use crate::launcher::View;

/// Nodes answer this from memory; one that takes longer is drowned, or gone.
const DEADLINE: Duration = Duration::from_millis(250);

pub(super) struct Nodes {
    http: reqwest::Client,
    root: Secret,
}

/// By the name of the process.
pub(super) type Standings = BTreeMap<String, NodeStatus>;

impl Nodes {
    pub(super) fn new(root: Secret) -> Self {
        Self {
            http: http::client(Timeouts {
                connect: DEADLINE,
                call: Some(DEADLINE),
                ..Timeouts::default()
            }),
            root,
        }
    }

    pub(super) fn token(&self) -> &str {
        self.root.expose()
    }

    /// Of those that can answer.
    pub(super) async fn ask(&self, views: &[View]) -> Standings {
        let awake = views.iter().filter(|view| view.kind == "node" && view.is_awake());
        let asked = awake.map(async |view| Some((view.name.clone(), self.ask_one(&view.address).await?)));
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn ask_one(&self, address: &str) -> Option<NodeStatus> {
        let request = self
            .http
            .get(format!("{}/v1/status", service::http::base(address)))
            .bearer_auth(self.root.expose());
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    }
}

/// Who leads, and in which term: of several that say so the one with the highest term.
pub(super) fn leader(standings: &Standings) -> Option<(&str, u64)> {
    let leaders = standings.iter().filter(|(_, status)| status.role == Role::Leader);
    let leader = leaders.max_by_key(|(_, status)| status.term)?;
    Some((leader.0, leader.1.term))
}
