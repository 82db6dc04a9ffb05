//! Asks the nodes how they stand, each for itself, and the one that leads how the mirrors stand.
//! Invariant: a node that does not answer in time has no standing; it does not hold up the others.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use kvstore_client::wire::cluster::{NodeStatus, Role};
use kvstore_client::wire::mirror::MirrorStatus;
use serde::de::DeserializeOwned;
use service::http::{self, Timeouts};
use service::secrets::Secret;

use super::services::{Readiness, Services};
use crate::launcher::View;

/// Nodes answer this from memory; one that takes longer is drowned, or gone.
const DEADLINE: Duration = Duration::from_millis(250);

pub(super) struct Nodes {
    http: reqwest::Client,
    root: Secret,
    pub(super) services: Services,
}

/// By the name of the process.
#[derive(Default)]
pub(super) struct Standings {
    pub(super) nodes: BTreeMap<String, NodeStatus>,
    /// As the leader sees them; empty without one.
    pub(super) mirrors: BTreeMap<String, MirrorStatus>,
    /// As they said lately, each for itself.
    pub(super) services: BTreeMap<String, Readiness>,
}

impl Nodes {
    pub(super) fn new(root: Secret) -> Self {
        Self {
            http: http::client(Timeouts {
                connect: DEADLINE,
                call: Some(DEADLINE),
                ..Timeouts::default()
            }),
            root,
            services: Services::new(),
        }
    }

    pub(super) fn token(&self) -> &str {
        self.root.expose()
    }

    /// Of those that can answer. The services are asked apart from this, since they may take their time.
    pub(super) async fn ask(&self, views: &[View]) -> Standings {
        let awake = views.iter().filter(|view| view.kind == "node" && view.is_awake());
        let asked = awake.map(async |view| {
            let status = self.get(&view.address, "/v1/status").await?;
            Some((view.name.clone(), status))
        });
        let mut standings = Standings {
            nodes: join_all(asked).await.into_iter().flatten().collect(),
            mirrors: BTreeMap::new(),
            services: self.services.said(views),
        };
        if views.iter().any(|view| view.kind == "mirror")
            && let Some((leader, _)) = leader(&standings)
            && let Some(view) = views.iter().find(|view| view.name == leader)
        {
            let mirrors: Option<Vec<MirrorStatus>> = self.get(&view.address, "/v1/mirrors").await;
            let named = mirrors.into_iter().flatten();
            standings.mirrors = named.map(|mirror| (mirror.name.clone(), mirror)).collect();
        }
        standings
    }

    /// The same for a page that begins: if nobody has looked until now, nobody has asked the services either.
    pub(super) async fn ask_for_a_new_page(&self, views: &[View]) -> Standings {
        let ((), standings) = tokio::join!(self.services.ask_if_due(views), self.ask(views));
        Standings {
            services: self.services.said(views),
            ..standings
        }
    }

    async fn get<T: DeserializeOwned>(&self, address: &str, path: &str) -> Option<T> {
        let request = self
            .http
            .get(format!("{}{path}", service::http::base(address)))
            .bearer_auth(self.root.expose());
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    }
}

/// Who leads, and in which term: of several that say so the one with the highest term.
pub(super) fn leader(standings: &Standings) -> Option<(&str, u64)> {
    let nodes = standings.nodes.iter();
    let leaders = nodes.filter(|(_, status)| status.role == Role::Leader);
    let leader = leaders.max_by_key(|(_, status)| status.term)?;
    Some((leader.0, leader.1.term))
}
