//! Who says that it leads, and in which term, seen from outside at short intervals.
//! Leaders are ordered by term and then by number: within a term a higher number may take over from a lower one, as
//! openraft's votes do.
//! Invariant: a node that says it leads after a later leader was seen is found.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvstore_client::wire::cluster::{NodeStatus, Role};
use service::tasks::Tasks;

use crate::harness::Cluster;

/// A node said, between these moments, that it led in this term.
#[derive(Clone, Copy, Debug)]
struct Claim {
    term: u64,
    id: u64,
    asked: Instant,
    told: Instant,
}

impl Claim {
    fn order(&self) -> (u64, u64) {
        (self.term, self.id)
    }
}

pub(crate) struct Leaders {
    tasks: Tasks,
    claims: Arc<Mutex<Vec<Claim>>>,
}

impl Leaders {
    pub(crate) fn watch(cluster: &Cluster) -> Self {
        let leaders = Self {
            tasks: Tasks::new(),
            claims: Arc::default(),
        };
        for node in &cluster.config.nodes {
            let request = cluster
                .request("GET", &node.name(), "/v1/status")
                .timeout(Duration::from_secs(1));
            let (tasks, claims) = (leaders.tasks.clone(), Arc::clone(&leaders.claims));
            leaders.tasks.spawn("leaders", async move {
                while !tasks.is_stopping() {
                    let asked = Instant::now();
                    if let Some(status) = ask(&request).await
                        && status.role == Role::Leader
                    {
                        let told = Instant::now();
                        let (term, id) = (status.term, status.id);
                        claims.lock().unwrap().push(Claim {
                            term,
                            id,
                            asked,
                            told,
                        });
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        leaders
    }

    /// The terms in which somebody led; fails if one did not know that its time was over.
    pub(crate) async fn stop(self) -> Vec<u64> {
        self.tasks.stop();
        assert!(self.tasks.drain(Duration::from_secs(5)).await);
        let claims = self.claims.lock().unwrap();
        let terms: BTreeSet<u64> = claims.iter().map(|claim| claim.term).collect();
        let mut by_end = claims.clone();
        by_end.sort_by_key(|claim| claim.told);
        let mut by_begin = claims.clone();
        by_begin.sort_by_key(|claim| claim.asked);
        let mut ended = by_end.iter().peekable();
        let mut newest: Option<&Claim> = None;
        for claim in &by_begin {
            while let Some(earlier) = ended.next_if(|earlier| earlier.told < claim.asked) {
                newest = newest
                    .filter(|newest| newest.order() >= earlier.order())
                    .or(Some(earlier));
            }
            let stale = newest.filter(|newest| newest.order() > claim.order());
            assert!(
                stale.is_none(),
                "two leaders were visible: {claim:?} after {stale:?}"
            );
        }
        terms.into_iter().collect()
    }
}

impl Drop for Leaders {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn ask(request: &reqwest::RequestBuilder) -> Option<NodeStatus> {
    let answer = request.try_clone()?.send().await.ok()?;
    answer.json().await.ok()
}
